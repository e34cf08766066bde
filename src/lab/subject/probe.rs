//! Subjects that a conformance case needs: each shows one thing.
#![forbid(unsafe_code)]

use std::ffi::{CString, OsString};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::thread::sleep;
use std::time::Duration;

use clap::Subcommand;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Gid, Pid, Uid, execv, getpid, setgroups, setresgid, setresuid, setsid};

use crate::lab::{Trouble, say};
use crate::signal::Signal;
use crate::sys::lab::container::close;
use crate::sys::lab::{Forked, fork, pause};
use crate::sys::process::exit;
use crate::sys::signal::{Disposition, SignalFd, SignalSet, kill, set_disposition, set_mask};

/// What it is.
#[derive(Subcommand, Debug)]
pub enum Kind {
    /// Prints its arguments, a line each, and ends
    #[command(disable_help_flag = true)]
    Arguments {
        /// Any
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
    /// As receive, with children in its group that do the same: prints `command` or `child` and the number
    Family {
        /// How many children
        #[arg(long, default_value_t = 2)]
        children: u32,
    },
    /// Closes its stdin or its stdout, and waits for a signal
    LetGo {
        /// The descriptor's number
        descriptor: i32,
    },
    /// Becomes another user, and then receives as receive does
    Become {
        /// The user's and the group's number
        user: u32,
    },
    /// Leaves a process behind which prints `finished` some time after TERM
    LeaveBehind(LeaveBehind),
    /// Starts a command as its child, which waits for CONT first; prints `child` and its pid, and waits for a signal
    ShortParent {
        /// The command
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Leaves a crowd of orphans that live; then for each byte on stdin makes orphans that die and says `done`; in the end
    /// waits for a signal
    Crowd {
        /// How many live
        #[arg(long)]
        live: u32,
        /// How many die
        #[arg(long)]
        dying: u32,
    },
}

/// How a process is left behind.
#[derive(clap::Args, Debug, Clone, Copy)]
pub struct LeaveBehind {
    /// Milliseconds from TERM to its end; absent: it ignores TERM
    #[arg(long)]
    after: Option<u64>,
    /// In a session of its own
    #[arg(long)]
    session: bool,
    /// Stopped, as by Ctrl-Z
    #[arg(long)]
    stopped: bool,
    /// The one in front stays too, and ends at its own TERM
    #[arg(long)]
    stay: bool,
    /// With what the one in front ends
    #[arg(long, default_value_t = 0)]
    code: u8,
}

/// Is what was asked for; returns the exit code.
pub fn run(kind: &Kind) -> Result<u8, Trouble> {
    match kind {
        Kind::Arguments { words } => {
            for word in words {
                say(&word.as_bytes().escape_ascii().to_string())?;
            }
            Ok(0)
        }
        Kind::Family { children } => family(*children),
        Kind::LetGo { descriptor } => {
            say("ready")?;
            close(*descriptor);
            Ok(pause())
        }
        Kind::Become { user } => {
            setgroups(&[])?;
            let (group, user) = (Gid::from_raw(*user), Uid::from_raw(*user));
            setresgid(group, group, group)?;
            setresuid(user, user, user)?;
            super::receive(None)
        }
        Kind::LeaveBehind(how) => leave_behind(*how),
        Kind::ShortParent { command } => short_parent(command),
        Kind::Crowd { live, dying } => crowd(*live, *dying),
    }
}

fn family(children: u32) -> Result<u8, Trouble> {
    set_mask(SignalSet::FULL);
    for _ in 0..children {
        if fork()? == Forked::Child {
            return print_signals("child");
        }
    }
    say("ready")?;
    print_signals("command")
}

/// Prints each signal that comes, for ever. All must be blocked.
fn print_signals(who: &str) -> Result<u8, Trouble> {
    let signals = SignalFd::open()?;
    loop {
        for number in next_signals(&signals)? {
            say(&format!("{who} {number}"))?;
        }
    }
}

/// Waits for signals, and takes what there is.
pub fn next_signals(signals: &SignalFd) -> Result<Vec<u32>, Trouble> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut buffer = [const { std::mem::MaybeUninit::uninit() }; crate::sys::signal::BATCH];
    poll(&mut [PollFd::new(signals.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE)?;
    let count = signals.read(&mut buffer);
    Ok(SignalFd::filled(&buffer, count).iter().map(|info| info.ssi_signo).collect())
}

/// Waits for TERM. All signals must be blocked.
fn wait_for_term() -> Result<(), Trouble> {
    let signals = SignalFd::open()?;
    while !next_signals(&signals)?.contains(&Signal::TERM.number().unsigned_abs()) {}
    Ok(())
}

fn leave_behind(how: LeaveBehind) -> Result<u8, Trouble> {
    // From here on TERM waits, in both.
    set_mask(SignalSet::FULL);
    let (ready, tell) = nix::unistd::pipe()?;
    if let Forked::Parent(left) = fork()? {
        drop(tell);
        std::fs::File::from(ready).read_to_end(&mut Vec::new())?;
        let is_stopped = || crate::procfs::stat(left).is_none_or(|stat| stat.state == b'T');
        while how.stopped && !is_stopped() {
            sleep(Duration::from_millis(1));
        }
        say("ready")?;
        if how.stay {
            wait_for_term()?;
        }
        return Ok(how.code);
    }
    drop(ready);
    if how.session {
        setsid()?;
    }
    drop(tell);
    let Some(after) = how.after else {
        set_disposition(Signal::TERM, Disposition::Ignore);
        return Ok(pause());
    };
    if how.stopped {
        kill(getpid().as_raw(), Some(Signal::STOP))?;
    }
    wait_for_term()?;
    sleep(Duration::from_millis(after));
    say("finished")?;
    Ok(0)
}

fn short_parent(command: &[OsString]) -> Result<u8, Trouble> {
    let words = command.iter().map(|word| CString::new(word.as_bytes())).collect::<Result<Vec<_>, _>>()?;
    let program = words.first().ok_or_else(|| Trouble("no command".into()))?;
    match fork()? {
        Forked::Child => {
            kill(getpid().as_raw(), Some(Signal::STOP))?;
            Err(execv(program, &words).err().map_or_else(|| Trouble("execve()".into()), Trouble::from))
        }
        Forked::Parent(child) => {
            let _ = waitpid(Pid::from_raw(child), Some(WaitPidFlag::WUNTRACED))?;
            say(&format!("child {child}"))?;
            Ok(pause())
        }
    }
}

fn crowd(live: u32, dying: u32) -> Result<u8, Trouble> {
    // All of one parent, which ends.
    match fork()? {
        Forked::Child => {
            for _ in 0..live {
                match fork() {
                    Ok(Forked::Child) => {
                        pause();
                    }
                    Ok(Forked::Parent(_)) => {}
                    Err(_) => exit(1),
                }
            }
            exit(0);
        }
        Forked::Parent(child) => {
            let status = waitpid(Pid::from_raw(child), None)?;
            if !matches!(status, nix::sys::wait::WaitStatus::Exited(_, 0)) {
                return Err(Trouble(format!("fork(): fewer than {live} processes can be made")));
            }
        }
    }
    say("ready")?;
    while std::io::stdin().read_exact(&mut [0]).is_ok() {
        for _ in 0..dying {
            match fork()? {
                Forked::Child => {
                    let _ = fork();
                    exit(0);
                }
                Forked::Parent(child) => waitpid(Pid::from_raw(child), None)?,
            };
        }
        say("done")?;
    }
    Ok(pause())
}
