//! What runs under the inits while they are measured: one program that stamps its start and each HUP, and makes orphans.
//!
//! It speaks with the bench through its stdin (requests, a line each) and stdout (answers, 8 bytes each).
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::io::{BufRead, Read};
use std::os::fd::AsFd;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::lab::Trouble;
use crate::signal::Signal;
use crate::sys::Errno;
use crate::sys::fd::{all_standard, write};
use crate::sys::lab::{Forked, fork, monotonic, pause, stamp_on};
use crate::sys::process::exit;
use crate::sys::signal::{Disposition, kill, set_disposition};

/// The word that makes sexton-lab this program. It comes before all other parsing: the first act is the stamp.
pub const WORD: &str = "under-bench";
/// The word that makes sexton-lab a command that does nothing.
pub const NOTHING: &str = "do-nothing";
/// An answer with this bit is an errno: no number of nanoseconds is so large.
const REFUSED: u64 = 1 << 63;
/// How often to look whether the last orphans are gone.
const LOOK_AGAIN: Duration = Duration::from_micros(500);

/// What the bench may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// So many more orphans that stay. The answer: nanoseconds.
    Live(u32),
    /// So many orphans that die at once; answered when all of them are gone, with the nanoseconds that it took.
    Die(u32),
}

impl Request {
    /// The line for it.
    pub fn line(self) -> String {
        match self {
            Self::Live(count) => format!("live {count}\n"),
            Self::Die(count) => format!("die {count}\n"),
        }
    }

    fn parse(line: &str) -> Option<Self> {
        let (kind, count) = line.trim_end().split_once(' ')?;
        let count = count.parse().ok()?;
        match kind {
            "live" => Some(Self::Live(count)),
            "die" => Some(Self::Die(count)),
            _ => None,
        }
    }
}

/// An answer, from its 8 bytes: nanoseconds, or why not.
pub fn answer(bytes: [u8; 8]) -> Result<u64, Errno> {
    let number = u64::from_ne_bytes(bytes);
    if number & REFUSED == 0 {
        return Ok(number);
    }
    Err(Errno::from_raw(i32::try_from(number & !REFUSED).unwrap_or(0)))
}

fn refusal(errno: Errno) -> u64 {
    REFUSED | u64::from((errno as i32).unsigned_abs())
}

/// Is the command, if the words say so; returns its exit code.
pub fn run_if_asked(words: &[OsString]) -> Option<u8> {
    match words.get(1)?.to_str()? {
        WORD => Some(u8::from(serve(monotonic()).is_err())),
        NOTHING => Some(0),
        _ => None,
    }
}

fn serve(started: u64) -> Result<(), Trouble> {
    tell(started)?;
    // Unblocked by now: none is sent before the stamp is read.
    stamp_on(nix::sys::signal::Signal::SIGHUP)?;
    tell(monotonic())?;
    for line in std::io::stdin().lock().lines() {
        let result = match Request::parse(&line?) {
            Some(Request::Live(count)) => timed(|| live(count)),
            Some(Request::Die(count)) => timed(|| die(count)),
            None => Err(Errno::EINVAL),
        };
        tell(result.unwrap_or_else(refusal))?;
    }
    Ok(())
}

/// Not through std's buffer: the handler of HUP writes as well.
fn tell(number: u64) -> Result<(), Trouble> {
    let [_, stdout, _] = all_standard();
    write(stdout, &number.to_ne_bytes())?;
    Ok(())
}

fn timed(work: impl FnOnce() -> Result<(), Errno>) -> Result<u64, Errno> {
    let began = monotonic();
    work()?;
    Ok(monotonic() - began)
}

/// Runs `work` in a child, and waits for its end.
fn in_a_child(work: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
    match fork()? {
        Forked::Child => exit(work().map_or_else(|errno| (errno as i32).to_le_bytes()[0], |()| 0)),
        Forked::Parent(child) => match waitpid(Pid::from_raw(child), None)? {
            nix::sys::wait::WaitStatus::Exited(_, 0) => Ok(()),
            nix::sys::wait::WaitStatus::Exited(_, errno) => Err(Errno::from_raw(errno)),
            _ => Err(Errno::ECHILD),
        },
    }
}

/// All of one parent, which ends.
fn live(count: u32) -> Result<(), Errno> {
    in_a_child(|| {
        // Some inits signal the whole group.
        set_disposition(Signal::HUP, Disposition::Ignore);
        for _ in 0..count {
            if fork()? == Forked::Child {
                pause();
            }
        }
        Ok(())
    })
}

/// Each of a parent of its own, as daemons are.
fn die(count: u32) -> Result<(), Errno> {
    let (reader, writer) = nix::unistd::pipe()?;
    let mut reader = std::fs::File::from(reader);
    let mut pids = Vec::new();
    for _ in 0..count {
        in_a_child(|| match fork()? {
            Forked::Child => exit(0),
            Forked::Parent(orphan) => write(writer.as_fd(), &orphan.to_ne_bytes()).map(drop),
        })?;
        let mut pid = [0; 4];
        reader.read_exact(&mut pid).map_err(|_| Errno::EPIPE)?;
        pids.push(i32::from_ne_bytes(pid));
    }
    // A zombie can be signalled, a process that is reaped cannot.
    for pid in pids.into_iter().rev() {
        while kill(pid, None).is_ok() {
            sleep(LOOK_AGAIN);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_answers_come_through() {
        for request in [Request::Live(0), Request::Live(10_000), Request::Die(7)] {
            assert_eq!(Request::parse(&request.line()), Some(request));
        }
        assert_eq!(Request::parse("die"), None);
        assert_eq!(answer(7_u64.to_ne_bytes()), Ok(7));
        assert_eq!(answer(refusal(Errno::EAGAIN).to_ne_bytes()), Err(Errno::EAGAIN));
    }
}
