//! The names sexton answers to: its own, and those of the inits that it can stand in for.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::time::Duration;

use super::options::{self, Options, print, print_on_stderr, row};
use super::{Table, help};
use crate::setup::Setup;
use crate::signal::Signal;
use crate::sys::process::Group;

/// Whose options, codes and manners are in force.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Personality {
    /// Our own.
    Sexton,
    /// tini 0.19, also as docker-init.
    Tini,
    /// dumb-init 1.2.5.
    DumbInit,
    /// catatonit 0.2, also as podman-init.
    Catatonit,
}

/// The exit codes for failures before the command runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Codes {
    /// The command line is wrong.
    pub usage: u8,
    /// A step before the command failed.
    pub setup: u8,
    /// The command was found and cannot be executed.
    pub not_executable: u8,
    /// The command was not found.
    pub not_found: u8,
}

/// How long leftovers have if nothing was said.
const GRACE: Duration = Duration::from_secs(5);

impl Personality {
    /// By the last part of the name that the program was called by.
    pub fn of(name: &OsStr) -> Self {
        match Path::new(name).file_name().and_then(OsStr::to_str) {
            Some("tini" | "tini-static" | "docker-init") => Self::Tini,
            Some("dumb-init") => Self::DumbInit,
            Some("catatonit" | "podman-init") => Self::Catatonit,
            _ => Self::Sexton,
        }
    }

    /// The name that the peer knows itself by.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sexton => "sexton",
            Self::Tini => "tini",
            Self::DumbInit => "dumb-init",
            Self::Catatonit => "catatonit",
        }
    }

    /// Exit codes (`field.md`: as measured on each peer).
    pub fn codes(self) -> Codes {
        match self {
            Self::Sexton => Codes { usage: 125, setup: 125, not_executable: 126, not_found: 127 },
            Self::Tini => Codes { usage: 1, setup: 1, not_executable: 126, not_found: 127 },
            Self::DumbInit => Codes { usage: 1, setup: 1, not_executable: 2, not_found: 2 },
            Self::Catatonit => Codes { usage: 1, setup: 1, not_executable: 1, not_found: 1 },
        }
    }

    /// The options it takes.
    pub fn table(self) -> Table {
        match self {
            Self::Sexton => options::TABLE,
            Self::Tini => TINI,
            Self::DumbInit => DUMB_INIT,
            Self::Catatonit => CATATONIT,
        }
    }

    /// What holds before any option, the peer's own variables included.
    pub fn defaults(self, variable: &dyn Fn(&str) -> Option<OsString>) -> Options {
        let mut options = Options {
            personality: self,
            command_words: 0,
            to_group: false,
            rewrites: options::Rewrites::default(),
            exit_codes: options::ExitCodes::default(),
            grace: if self == Self::Sexton { GRACE } else { Duration::ZERO },
            kill_after: None,
            stop_delay: Duration::ZERO,
            wait: false,
            pause: false,
            parent_death: None,
            reset_signals: false,
            warn_reaped: false,
            verbosity: 0,
            setup: Setup::default(),
            explain: false,
            group: Group::Own,
            term_group_at_end: false,
            suspend_with_command: false,
            subreaper_asked: false,
            print: None,
        };
        match self {
            Self::Sexton => {}
            Self::Tini => {
                // Any value counts, the empty one too, as in tini.
                options.subreaper_asked = variable("TINI_SUBREAPER").is_some();
                options.to_group = variable("TINI_KILL_PROCESS_GROUP").is_some();
                if let Some(level) = variable("TINI_VERBOSITY").and_then(|text| text.to_str()?.parse::<i8>().ok()) {
                    // tini counts from 0 (fatal) with 1 (warnings) as default; ours is 0 for warnings.
                    options.verbosity = level.saturating_sub(1).max(-1);
                }
            }
            Self::DumbInit => {
                if variable("DUMB_INIT_DEBUG").is_some_and(|value| value == "1") {
                    options.verbosity = 1;
                }
                in_session(&mut options, variable("DUMB_INIT_SETSID").is_none_or(|value| value != "0"));
            }
            Self::Catatonit => {
                if variable("CATATONIT_DEBUG").is_some() {
                    options.verbosity = 2;
                }
            }
        }
        options
    }

    /// What to say when there is no command.
    pub fn no_command(self) -> String {
        match self {
            Self::Sexton => "no command given: sexton [OPTIONS] [--] COMMAND [ARGUMENT...]".into(),
            Self::Tini => "no program given; Usage: tini [OPTIONS] PROGRAM -- [ARGS] | --version".into(),
            Self::DumbInit => "Usage: dumb-init [option] program [args]; Try dumb-init --help for full usage.".into(),
            Self::Catatonit => "no command given; usage: catatonit [-ghLPV] [--] <progname> [<arguments>...]".into(),
        }
    }

    /// The text of `--help`.
    pub fn help(self) -> String {
        match self {
            Self::Sexton => help(
                "Usage: sexton [OPTIONS] [--] COMMAND [ARGUMENT...]\n\
                 Runs COMMAND as a container's init: forwards every signal to it, reaps every orphan,\n\
                 stops what it leaves behind, and exits with its status.",
                options::TABLE,
                "\nMore options can stand in SEXTON_OPTS; SEXTON_LOG sets what is logged (as -vv: debug).\n\
                 Exit codes: the command's own; 128+n if signal n ended it; 125 usage or set-up,\n\
                 126 not executable, 127 not found.\n",
            ),
            Self::Tini => help(
                "tini (sexton)\nUsage: tini [OPTIONS] PROGRAM -- [ARGS] | --version",
                TINI,
                "\nVariables: TINI_SUBREAPER, TINI_KILL_PROCESS_GROUP, TINI_VERBOSITY;\nSEXTON_OPTS adds sexton's options.\n",
            ),
            Self::DumbInit => help(
                "dumb-init v1.2.5 (sexton)\nUsage: dumb-init [option] command [[arg] ...]",
                DUMB_INIT,
                "\nVariables: DUMB_INIT_SETSID, DUMB_INIT_DEBUG; SEXTON_OPTS adds sexton's options.\n",
            ),
            Self::Catatonit => help(
                "usage: catatonit [-ghLPV] [--] <progname> [<arguments>...]",
                CATATONIT,
                "\nVariables: CATATONIT_DEBUG; SEXTON_OPTS adds sexton's options.\n",
            ),
        }
    }

    /// The text of `--version`. docker reads `tini version X - git.H`.
    pub fn version(self) -> String {
        match self {
            Self::Sexton => concat!("sexton ", env!("CARGO_PKG_VERSION"), "\n").into(),
            Self::Tini => "tini version 0.19.0 - git.sexton\n".into(),
            Self::DumbInit => "dumb-init v1.2.5\n".into(),
            Self::Catatonit => "tini version 0.2.0_catatonit\n".into(),
        }
    }

    fn licence(self) -> String {
        format!("This {} is sexton, under the MIT licence or the Apache licence 2.0, as you choose.\n", self.name())
    }
}

/// dumb-init's two ways: a session of its own, all of whose group gets the signals, or the one child.
fn in_session(options: &mut Options, session: bool) {
    options.group = if session { Group::Session(true) } else { Group::Same };
    options.to_group = session;
    options.term_group_at_end = true;
    options.suspend_with_command = true;
    for signal in [Signal::TSTP, Signal::TTIN, Signal::TTOU] {
        // An orphaned group is not stopped by these, so dumb-init sends the one stop signal that always stops.
        options.rewrites.set(signal, Some(if session { Signal::STOP } else { signal }));
    }
}

const OPTIONS: &str = "Options";

const TINI: Table = &[&[
    row("version", None, "", OPTIONS, "show the version", |o, _| print(o, Personality::version)),
    row("", Some('h'), "", OPTIONS, "this text", |o, _| print(o, Personality::help)),
    row("", Some('s'), "", OPTIONS, "become a child subreaper (sexton does so by itself)", |o, _| {
        o.subreaper_asked = true;
        Ok(())
    }),
    row("", Some('p'), "SIGNAL", OPTIONS, "get SIGNAL when the parent dies", options::parent_death),
    row("", Some('v'), "", OPTIONS, "say more; up to three times", options::verbose),
    row("", Some('w'), "", OPTIONS, "name each process that was reaped", options::warn_reaped),
    row("", Some('g'), "", OPTIONS, "signals go to the child's process group", options::group),
    row("", Some('e'), "EXIT_CODE", OPTIONS, "turn EXIT_CODE into 0", options::exit_code),
    row("", Some('l'), "", OPTIONS, "show the licence", |o, _| print(o, Personality::licence)),
]];

const DUMB_INIT: Table = &[&[
    row("single-child", Some('c'), "", OPTIONS, "no session: signals go to the direct child only", |o, _| {
        in_session(o, false);
        Ok(())
    }),
    row("rewrite", Some('r'), "s:r", OPTIONS, "forward signal s as r; 0 discards it (repeatable)", options::rewrite),
    row("verbose", Some('v'), "", OPTIONS, "say what happens", options::verbose),
    row("help", Some('h'), "", OPTIONS, "this text", |o, _| print_on_stderr(o, Personality::help)),
    row("version", Some('V'), "", OPTIONS, "show the version", |o, _| print_on_stderr(o, Personality::version)),
]];

const CATATONIT: Table = &[&[
    row("", Some('g'), "", OPTIONS, "signals go to the child's process group", options::group),
    row("help", Some('h'), "", OPTIONS, "this text", |o, _| print_on_stderr(o, Personality::help)),
    row("license", Some('L'), "", OPTIONS, "show the licence", |o, _| print(o, Personality::licence)),
    row("pause", Some('P'), "", OPTIONS, "run no command: reap until TERM or INT", options::pause),
    row("version", Some('V'), "", OPTIONS, "show the version", |o, _| print(o, Personality::version)),
]];
