//! Limits and settings of the process itself (getrlimit(2), oom_score_adj, nice, umask).
//!
//! They are the command's: sexton itself is neither starved nor killed first by them.
#![forbid(unsafe_code)]

use std::ffi::CString;
use std::fmt;
use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt;

use nix::sys::prctl::set_dumpable;

use super::step::{SetupError, State, Step, Steps};
use crate::sys::Errno;
use crate::sys::action::Action;
use crate::sys::change::{Change, READ_ONLY, limit_advice};
use crate::sys::limit::{Limit, UNLIMITED, current, nice, prlimit, set_nice};

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
#[derive(Clone, Default, Debug)]
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
        let mut steps = Steps::new();
        if !self.limits.is_empty() {
            steps.push(Box::new(RaiseHard(&self.limits)));
        }
        if let Some(score) = self.oom_score {
            steps.push(Box::new(LowerScore(score)));
        }
        if let Some(nice) = self.nice {
            steps.push(Box::new(LowerNice(nice)));
        }
        steps
    }

    /// What the command does to itself. The score needs a descriptor, so it is set before the limits are.
    pub fn command(&self) -> Steps<'_> {
        let mut steps = Steps::new();
        if let Some(score) = self.oom_score {
            steps.push(Box::new(Score(score)));
        }
        if let Some(nice) = self.nice {
            steps.push(Box::new(Nice(nice)));
        }
        if !self.limits.is_empty() {
            steps.push(Box::new(Limits(&self.limits)));
        }
        if let Some(mask) = self.umask {
            steps.push(Box::new(Umask(mask)));
        }
        steps
    }
}

/// A limit's names: docker's, and the kernel's.
fn names(limit: Limit) -> (&'static str, &'static str) {
    let known = NAMES.iter().find(|(_, resource, _)| *resource == limit.resource);
    known.map_or(("", ""), |(name, _, constant)| (*name, *constant))
}

fn change(state: &mut State, change: Change) -> Result<(), SetupError> {
    state.actions.push(Action::Change(change));
    Ok(())
}

/// Hard limits are raised to what the command gets; what is in force for sexton stays.
struct RaiseHard<'a>(&'a [Limit]);

impl Step for RaiseHard<'_> {
    fn run(&self, _: &mut State) -> Result<(), SetupError> {
        for limit in self.0 {
            let raised = current(limit.resource).and_then(|now| {
                let needed = now.hard < limit.hard;
                if needed { prlimit(Limit { hard: limit.hard, ..now }).map(drop) } else { Ok(()) }
            });
            let call = || format!("prlimit({}, {limit})", names(*limit).1);
            raised.map_err(|errno| SetupError::call(call(), errno, limit_advice(*limit)))?;
        }
        Ok(())
    }
}

impl fmt::Display for RaiseHard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("raise hard limits where they are lower:")?;
        self.0.iter().try_for_each(|limit| match limit.hard {
            UNLIMITED => write!(f, " {} unlimited", names(*limit).0),
            hard => write!(f, " {} {hard}", names(*limit).0),
        })
    }
}

/// The limits of the command.
struct Limits<'a>(&'a [Limit]);

impl Step for Limits<'_> {
    fn run(&self, state: &mut State) -> Result<(), SetupError> {
        self.0.iter().try_for_each(|limit| change(state, Change::Limit(names(*limit).1, *limit)))
    }
}

impl fmt::Display for Limits<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the command's limits (soft:hard):")?;
        self.0.iter().try_for_each(|limit| write!(f, " {} {limit}", names(*limit).0))
    }
}

/// Where this process's own score is.
const SCORE: &str = "/proc/self/oom_score_adj";

/// The /proc of out here is opened, for the command's own may be another, or none. A lower score is sexton's own too: then
/// it is not killed before its command.
struct LowerScore(i32);

impl Step for LowerScore {
    fn run(&self, state: &mut State) -> Result<(), SetupError> {
        let without = |call: &str, error| SetupError::io(call, &error, "--oom-score-adj needs a /proc here");
        let proc = File::options().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open("/proc");
        state.proc = Some(proc.map_err(|error| without("open(\"/proc\")", error))?.into());
        let now = fs::read_to_string(SCORE).map_err(|error| without("open(\"/proc/self/oom_score_adj\")", error))?;
        if now.trim().parse().is_ok_and(|now: i32| now <= self.0) {
            return Ok(());
        }
        fs::write(SCORE, self.0.to_string()).map_err(|error| {
            let call = format!("write({SCORE:?}, \"{}\")", self.0);
            let advice = match Errno::from_raw(error.raw_os_error().unwrap_or(0)) {
                Errno::EROFS => READ_ONLY.to_owned(),
                _ => format!("it is {0} now, and CAP_SYS_RESOURCE alone lowers it; take {0} or more", now.trim()),
            };
            SetupError::io(call, &error, advice)
        })
    }
}

impl fmt::Display for LowerScore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lower the OOM score adjustment to {} if it is higher", self.0)
    }
}

/// The command's own score.
struct Score(i32);

impl Step for Score {
    fn run(&self, state: &mut State) -> Result<(), SetupError> {
        let Some(proc) = state.proc.take() else { return Ok(()) };
        // Who changed its user has files in /proc that are the machine's root's (proc_pid(5)), which root of a user
        // namespace could not write.
        if state.is_inside {
            let _ = set_dumpable(true);
        }
        let text = CString::new(self.0.to_string()).unwrap_or_default();
        change(state, Change::OomScore(proc, text))
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the command's OOM score adjustment: {}", self.0)
    }
}

/// Priority is raised out here, for sexton too.
struct LowerNice(i32);

impl Step for LowerNice {
    fn run(&self, _: &mut State) -> Result<(), SetupError> {
        let lowered = nice().and_then(|now| if self.0 < now { set_nice(self.0) } else { Ok(()) });
        lowered.map_err(|errno| {
            let change = Change::Nice(self.0);
            SetupError::call(change.to_string(), errno, change.advice(errno))
        })
    }
}

impl fmt::Display for LowerNice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lower the nice value to {} if it is higher", self.0)
    }
}

/// The command's own nice value.
struct Nice(i32);

impl Step for Nice {
    fn run(&self, state: &mut State) -> Result<(), SetupError> {
        change(state, Change::Nice(self.0))
    }
}

impl fmt::Display for Nice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the command's nice value: {}", self.0)
    }
}

/// What new files of the command are not.
struct Umask(u32);

impl Step for Umask {
    fn run(&self, state: &mut State) -> Result<(), SetupError> {
        change(state, Change::Umask(self.0))
    }
}

impl fmt::Display for Umask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the command's umask: {:03o}", self.0)
    }
}
