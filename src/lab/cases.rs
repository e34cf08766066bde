//! The conformance cases: what can be asked of any init, by the clauses of the contract and the known pitfalls.
//!
//! A case runs in a process of its own, which is PID 1 of a PID namespace; what it leaves there is gone with it.
#![forbid(unsafe_code)]

pub mod exit_status;
pub mod housekeeping;
pub mod image;
pub mod reaping;
pub mod signals;
pub mod stopping;
pub mod terminal;

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use serde::{Deserialize, Serialize};

use super::Trouble;
use super::container::{Container, End, Launch, failed};
use super::inits::{Init, Kind, Spelling, Wish};
use crate::sys::Errno;

/// One case: a row of a table.
pub struct Case {
    /// What it is called; it begins with its clause.
    pub name: &'static str,
    /// The clause of the contract.
    pub clause: &'static str,
    /// The number of the known pitfall, if it is one.
    pub pitfall: Option<u8>,
    /// What passes.
    pub shows: &'static str,
    /// Asks.
    pub ask: fn(&Room) -> Verdict,
}

/// A row.
const fn case(
    name: &'static str,
    clause: &'static str,
    pitfall: u8,
    shows: &'static str,
    ask: fn(&Room) -> Verdict,
) -> Case {
    Case { name, clause, pitfall: if pitfall == 0 { None } else { Some(pitfall) }, shows, ask }
}

/// All cases, in the order of the contract.
pub fn all() -> impl Iterator<Item = &'static Case> {
    let tables = [
        signals::CASES,
        reaping::CASES,
        exit_status::CASES,
        stopping::CASES,
        terminal::CASES,
        housekeeping::CASES,
        image::CASES,
    ];
    tables.into_iter().flatten()
}

/// What became of a case.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "lowercase")]
pub enum Outcome {
    /// As it should be.
    Pass {
        /// How often it was tried, if it is a race.
        #[serde(skip_serializing_if = "Option::is_none")]
        trials: Option<u32>,
    },
    /// Not as it should be.
    Fail {
        /// What should have been.
        expected: String,
        /// What was.
        seen: String,
    },
    /// Not asked.
    Skip {
        /// Why not.
        why: String,
    },
}

/// Why a case is over before its end.
#[derive(Debug)]
pub enum Stop {
    /// The init does not do what it should.
    Fail {
        /// What should have been.
        expected: String,
        /// What was.
        seen: String,
    },
    /// It cannot be asked of this init, or here.
    Skip(String),
    /// It could not be asked.
    Trouble(Trouble),
}

impl<E: Into<Trouble>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Trouble(error.into())
    }
}

/// The init does what it should: after so many trials, if it is a race.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pass(pub Option<u32>);

/// What a case returns.
pub type Verdict = Result<Pass, Stop>;

/// It passes.
pub const PASS: Verdict = Ok(Pass(None));

impl From<Verdict> for Outcome {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Ok(Pass(trials)) => Self::Pass { trials },
            Err(Stop::Fail { expected, seen }) => Self::Fail { expected, seen },
            Err(Stop::Skip(why)) => Self::Skip { why },
            Err(Stop::Trouble(trouble)) => Self::Skip { why: format!("could not be asked: {trouble}") },
        }
    }
}

/// A failure.
pub fn fail(expected: impl fmt::Display, seen: impl fmt::Display) -> Stop {
    Stop::Fail { expected: expected.to_string(), seen: seen.to_string() }
}

/// Fails unless it is so.
pub fn check(holds: bool, expected: impl fmt::Display, seen: impl fmt::Display) -> Result<(), Stop> {
    if holds { Ok(()) } else { Err(fail(expected, seen)) }
}

/// What was waited for, or a failure that says so.
pub trait Awaited<T> {
    /// Fails if it did not come.
    fn or_fail(self, expected: &str) -> Result<T, Stop>;
}

impl<T> Awaited<T> for Result<T, String> {
    fn or_fail(self, expected: &str) -> Result<T, Stop> {
        self.map_err(|why| fail(expected, why))
    }
}

/// Fails unless the init ends with this exit code.
pub fn check_end(end: Result<End, String>, code: i32) -> Result<(), Stop> {
    let expected = format!("exit code {code}");
    let end = end.or_fail(&expected)?;
    check(end.code() == code, expected, end)
}

/// Where a case asks: an init, and what there is here.
pub struct Room {
    /// The init.
    pub init: Init,
    /// This program.
    pub lab: PathBuf,
    /// There are other users, and all that root may do.
    pub is_root: bool,
    /// How long an answer may take here.
    pub patience: Duration,
}

impl Room {
    /// The words of a subject.
    pub fn subject(&self, words: &[&str]) -> Vec<OsString> {
        let own = [self.lab.clone().into_os_string(), "subject".into()];
        own.into_iter().chain(words.iter().map(OsString::from)).collect()
    }

    /// The init with a subject under it.
    pub fn with(&self, words: &[&str]) -> Launch {
        self.launch(&Spelling::default(), self.subject(words))
    }

    /// The same, with an option.
    pub fn with_wish(&self, wish: Wish, words: &[&str]) -> Result<Launch, Stop> {
        Ok(self.launch(&self.spelled(wish)?, self.subject(words)))
    }

    /// How the init spells it, or why the case cannot be asked.
    pub fn spelled(&self, wish: Wish) -> Result<Spelling, Stop> {
        let why = || match self.init.kind {
            Kind::None => Stop::Skip("there is no init".into()),
            _ => Stop::Skip(format!("{} has no option {}", self.init.name, wish.what())),
        };
        wish.spelled(self.init.kind).ok_or_else(why)
    }

    /// The init with these words behind it.
    pub fn launch(&self, spelling: &Spelling, command: Vec<OsString>) -> Launch {
        let launch = match &self.init.program {
            None => {
                let program = command.first().map(PathBuf::from).unwrap_or_default();
                Launch::new(program, command, self.patience)
            }
            Some(program) => {
                let mut words = self.init.words_with(spelling);
                words.extend(command);
                Launch::new(program.clone(), words, self.patience)
            }
        };
        spelling.variable.into_iter().fold(launch, |launch, (name, value)| launch.variable(name, value))
    }

    /// Starts a subject and waits for its handshake.
    pub fn ready(&self, words: &[&str]) -> Result<Container, Stop> {
        ready(self.with(words))
    }

    /// The case is about the init itself.
    pub fn needs_init(&self) -> Result<(), Stop> {
        if self.init.kind == Kind::None { Err(Stop::Skip("there is no init".into())) } else { Ok(()) }
    }

    /// The case needs a second user, or a right that only root has.
    pub fn needs_root(&self, what: &str) -> Result<(), Stop> {
        if self.is_root { Ok(()) } else { Err(Stop::Skip(format!("{what} needs root"))) }
    }

    /// An empty folder in memory, which only this case sees.
    pub fn folder(&self) -> Result<PathBuf, Stop> {
        let own = [Some(&self.lab), self.init.program.as_ref()];
        let is_free = |folder: &PathBuf| folder.is_dir() && !own.iter().flatten().any(|path| path.starts_with(folder));
        let folders = ["/mnt", "/media", "/srv", "/opt", "/sys", "/tmp", "/home", "/run"].map(PathBuf::from);
        let folder = folders.into_iter().find(is_free).ok_or_else(|| Stop::Skip("there is no folder to use".into()))?;
        mount(Some("none"), &folder, Some("tmpfs"), MsFlags::empty(), None::<&str>)
            .map_err(failed("mount(\"tmpfs\")"))?;
        Ok(folder)
    }
}

/// Starts it and waits for the subject's handshake.
pub fn ready(launch: Launch) -> Result<Container, Stop> {
    let mut container = launch.start()?;
    handshake(&mut container)?;
    Ok(container)
}

/// Waits for a subject's handshake.
pub fn handshake(container: &mut Container) -> Result<(), Stop> {
    let line = container.line().or_fail("a command that starts")?;
    check(line == "ready", "a command that starts", format!("{line:?}"))
}

/// What `subject status` tells of its start.
pub fn status(launch: Launch) -> Result<serde_json::Value, Stop> {
    let expected = "the command's status";
    let line = launch.start()?.line().or_fail(expected)?;
    serde_json::from_str(&line).map_err(|_| fail(expected, format!("{line:?}")))
}

/// The next line is this one.
pub fn check_line(container: &mut Container, expected: &str) -> Result<(), Stop> {
    let line = container.line().or_fail(expected)?;
    check(line == expected, expected, format!("{line:?}"))
}

/// `ESRCH` and the like, as a stop.
pub fn call(call: &'static str) -> impl Fn(Errno) -> Stop {
    move |errno| Stop::Trouble(failed(call)(errno))
}
