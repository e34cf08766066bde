//! Limits and settings of the process itself (getrlimit(2), oom_score_adj, nice, umask).
//!
//! They are the command's: sexton itself is neither starved nor killed first by them.
#![forbid(unsafe_code)]

use std::ffi::CString;
use std::fmt;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;

use nix::sys::prctl::set_dumpable;

use super::step::{SetupError, State, Step, Steps};
use crate::sys::Errno;
use crate::sys::action::Action;
use crate::sys::change::{Change, READ_ONLY};
use crate::sys::limit::{Limit, current, nice, prlimit, set_nice};

/// The limits, by docker's names. (The C libraries disagree on the type of these numbers.)
#[allow(clippy::cast_sign_loss)]
pub const NAMES: [(&str, u32, &str); 16] = [
    ("as", libc::RLIMIT_AS as _, "RLIMIT_AS"),
    ("core", libc::RLIMIT_CORE as _, "RLIMIT_CORE"),
    ("cpu", libc::RLIMIT_CPU as _, "RLIMIT_CPU"),
    ("data", libc::RLIMIT_DATA as _, "RLIMIT_DATA"),
    ("fsize", libc::RLIMIT_FSIZE as _, "RLIMIT_FSIZE"),
    ("locks", libc::RLIMIT_LOCKS as _, "RLIMIT_LOCKS"),
    ("memlock", libc::RLIMIT_MEMLOCK as _, "RLIMIT_MEMLOCK"),
    ("msgqueue", libc::RLIMIT_MSGQUEUE as _, "RLIMIT_MSGQUEUE"),
    ("nice", libc::RLIMIT_NICE as _, "RLIMIT_NICE"),
    ("nofile", libc::RLIMIT_NOFILE as _, "RLIMIT_NOFILE"),
    ("nproc", libc::RLIMIT_NPROC as _, "RLIMIT_NPROC"),
    ("rss", libc::RLIMIT_RSS as _, "RLIMIT_RSS"),
    ("rtprio", libc::RLIMIT_RTPRIO as _, "RLIMIT_RTPRIO"),
    ("rttime", libc::RLIMIT_RTTIME as _, "RLIMIT_RTTIME"),
    ("sigpending", libc::RLIMIT_SIGPENDING as _, "RLIMIT_SIGPENDING"),
    ("stack", libc::RLIMIT_STACK as _, "RLIMIT_STACK"),
];

/// What is wanted.
#[derive(Default, Debug)]
pub struct Wanted {
    /// `--ulimit`: each limit once.
    pub limits: Vec<Limit>,
    /// `--oom-score-adj`.
    pub oom_score: Option<i32>,
    /// `--nice`.
    pub nice: Option<i32>,
    /// `--umask`.
    pub umask: Option<u32>,
}

impl Wanted {
    /// What goes together and what does not.
    pub fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// Notes a limit in place of an earlier one of the same resource.
    pub fn limit(&mut self, limit: Limit) {
        self.limits.retain(|other| other.resource != limit.resource);
        self.limits.push(limit);
    }

    /// What can be done outside only: a user namespace gives no capability for it.
    pub fn outside(&self) -> Steps<'_> {
        self.step(|wanted| Box::new(Ahead(wanted)))
    }

    /// What the command does to itself.
    pub fn command(&self) -> Steps<'_> {
        self.step(|wanted| Box::new(Own(wanted)))
    }

    fn step<'a>(&'a self, step: fn(&'a Self) -> Box<dyn Step + 'a>) -> Steps<'a> {
        let Self { limits, oom_score, nice, umask } = self;
        let any = !limits.is_empty() || oom_score.is_some() || nice.is_some() || umask.is_some();
        if any { vec![step(self)] } else { Steps::new() }
    }
}

/// A limit's names: docker's, and the kernel's.
fn names(limit: Limit) -> (&'static str, &'static str) {
    let known = NAMES.iter().find(|(_, resource, _)| *resource == limit.resource);
    known.map_or(("", ""), |(name, _, constant)| (*name, *constant))
}

/// Where this process's own score is.
const SCORE: &str = "/proc/self/oom_score_adj";

/// What sexton changes of itself, so that the command may have what it gets. A hard limit that is higher changes nothing
/// for sexton, and with a lower score and nice value it is not the one that is killed, or waits, in the command's place.
struct Ahead<'a>(&'a Wanted);

impl Step for Ahead<'_> {
    fn run(&self, state: &mut State) -> Result<(), SetupError> {
        for limit in &self.0.limits {
            let raised = current(limit.resource).and_then(|now| {
                let needed = now.hard < limit.hard;
                if needed { prlimit(Limit { hard: limit.hard, ..now }).map(drop) } else { Ok(()) }
            });
            raised.map_err(|errno| failed(&Change::Limit(names(*limit).1, *limit), errno))?;
        }
        if let Some(score) = self.0.oom_score {
            state.proc = Some(lower_score(score)?);
        }
        if let Some(wanted) = self.0.nice {
            let lowered = nice().and_then(|now| if wanted < now { set_nice(wanted) } else { Ok(()) });
            lowered.map_err(|errno| failed(&Change::Nice(wanted), errno))?;
        }
        Ok(())
    }
}

impl fmt::Display for Ahead<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("as far as the command's need it: raise hard limits, lower the OOM score and the nice value")
    }
}

fn failed(change: &Change, errno: Errno) -> SetupError {
    SetupError::call(change.to_string(), errno, change.advice(errno))
}

/// Lowers our own score if it is above `score`. Returns the /proc of out here, for the command's own may be another, or
/// none.
fn lower_score(score: i32) -> Result<OwnedFd, SetupError> {
    let without = |call: &str, error| SetupError::io(call, &error, "--oom-score-adj needs a /proc here");
    let proc = File::options().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open("/proc");
    let proc = proc.map_err(|error| without("open(\"/proc\")", error))?;
    let now = fs::read_to_string(SCORE).map_err(|error| without("open(\"/proc/self/oom_score_adj\")", error))?;
    if now.trim().parse().is_ok_and(|now: i32| now > score) {
        fs::write(SCORE, score.to_string()).map_err(|error| {
            let call = format!("write({SCORE:?}, \"{score}\")");
            let advice = match error.raw_os_error() {
                Some(libc::EROFS) => READ_ONLY.to_owned(),
                _ => format!("it is {0} now, and CAP_SYS_RESOURCE alone lowers it; take {0} or more", now.trim()),
            };
            SetupError::io(call, &error, advice)
        })?;
    }
    Ok(proc.into())
}

/// What the command changes of itself. The score needs a descriptor, so it is set before the limits are.
struct Own<'a>(&'a Wanted);

impl Step for Own<'_> {
    fn run(&self, state: &mut State) -> Result<(), SetupError> {
        let Wanted { limits, oom_score, nice, umask } = self.0;
        let mut changes = Vec::new();
        if let (Some(score), Some(proc)) = (oom_score, state.proc.take()) {
            if state.is_inside {
                // Who changed its user has files in /proc that are the machine's root's (proc_pid(5)), which root of a
                // user namespace could not write.
                let _ = set_dumpable(true);
            }
            changes.push(Change::OomScore(proc, CString::new(score.to_string()).unwrap_or_default()));
        }
        changes.extend(nice.map(Change::Nice));
        changes.extend(umask.map(Change::Umask));
        changes.extend(limits.iter().map(|limit| Change::Limit(names(*limit).1, *limit)));
        state.actions.extend(changes.into_iter().map(Action::Change));
        Ok(())
    }
}

impl fmt::Display for Own<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Wanted { limits, oom_score, nice, umask } = self.0;
        f.write_str("the command's limits (soft:hard)")?;
        for limit in limits {
            write!(f, ", {} {limit}", names(*limit).0)?;
        }
        for (name, value) in [("OOM score adjustment", oom_score), ("nice value", nice)] {
            if let Some(value) = value {
                write!(f, ", {name} {value}")?;
            }
        }
        if let Some(mask) = umask { write!(f, ", umask {mask:03o}") } else { Ok(()) }
    }
}
