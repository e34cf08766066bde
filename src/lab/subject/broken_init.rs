//! An init that is sound where it is not told otherwise, to see that the cases of `check` can fail.
#![forbid(unsafe_code)]

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStrExt;

use nix::unistd::{Pid, execv, setpgid};

use super::probe::next_signals;
use crate::lab::Trouble;
use crate::signal::Signal;
use crate::sys::lab::{Forked, fork};
use crate::sys::process::{WaitStatus, Waited, Who, exit, wait};
use crate::sys::signal::{SignalFd, SignalSet, kill, set_mask};

/// What is wrong with it.
#[derive(clap::Args, Debug, Clone)]
pub struct Faults {
    /// It reaps no orphan
    #[arg(long)]
    never_reaps: bool,
    /// It does not forward this signal
    #[arg(long)]
    swallows: Vec<Signal>,
    /// It forwards this signal twice
    #[arg(long)]
    doubles: Vec<Signal>,
    /// Its exit code is 1 if the command's is not 0
    #[arg(long)]
    wrong_status: bool,
    /// It never ends by itself
    #[arg(long)]
    hangs_at_end: bool,
    /// The command starts with all signals blocked
    #[arg(long)]
    leaks_mask: bool,
    /// It prints a line on stdout
    #[arg(long)]
    talks: bool,
    /// The command
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Is such an init.
pub fn run(faults: &Faults) -> Result<u8, Trouble> {
    let before = set_mask(SignalSet::FULL);
    let words = faults.command.iter().map(|word| CString::new(word.as_bytes())).collect::<Result<Vec<_>, _>>()?;
    let program = words.first().ok_or_else(|| Trouble("no command".into()))?;
    if faults.talks {
        super::say("an init at your service")?;
    }
    let signals = SignalFd::open()?;
    let command = match fork()? {
        Forked::Child => {
            let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
            if !faults.leaks_mask {
                set_mask(before);
            }
            let _ = execv(program, &words);
            exit(127);
        }
        Forked::Parent(pid) => pid,
    };
    loop {
        for number in next_signals(&signals)? {
            let Some(signal) = Signal::new(i64::from(number)) else { continue };
            if signal == Signal::CHLD {
                if let Some(code) = reap(command, faults) {
                    return Ok(code);
                }
            } else if !faults.swallows.contains(&signal) {
                for _ in 0..=usize::from(faults.doubles.contains(&signal)) {
                    let _ = kill(command, Some(signal));
                }
            }
        }
    }
}

/// Reaps what there is; the exit code, once the command has ended.
fn reap(command: i32, faults: &Faults) -> Option<u8> {
    loop {
        let who = if faults.never_reaps { Who::Child(command) } else { Who::Any };
        let Waited::Changed(pid, status) = wait(who, false) else { return None };
        if pid != command || faults.hangs_at_end {
            continue;
        }
        return Some(match status {
            WaitStatus::Exited(0) => 0,
            _ if faults.wrong_status => 1,
            other => crate::exit::code(other),
        });
    }
}
