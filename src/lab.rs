//! sexton-lab: for those who test containers. Nothing of it is in sexton.
//!
//! It starts without the language's runtime, as sexton does, so that what it tells of its own signals is what it got.
#![forbid(unsafe_code)]

pub mod audit;
pub mod bench;
pub mod cases;
pub mod check;
pub mod container;
pub mod deny;
pub mod inits;
pub mod load;
pub mod processes;
pub mod progress;
pub mod pty;
pub mod report;
pub mod subject;

use std::ffi::{CString, OsString, c_int};
use std::fmt;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;

use clap::{Parser, Subcommand};

use crate::signal::Signal;
use crate::sys::entry::Arguments;
use crate::sys::signal::{Queued, queue};

/// Puts inits, commands and images under test.
#[derive(Parser)]
#[command(name = "sexton-lab", version, about)]
struct Words {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Be something to put under an init; it says `ready` first
    Subject {
        #[command(subcommand)]
        kind: subject::Kind,
    },
    /// Ask any init what the contract of a good one says
    Check(check::Words),
    /// Tell whether an image's or a command's container will behave: signals, zombies, its stop
    Audit(audit::Words),
    /// Measure inits side by side
    Bench(bench::Words),
    /// Run a command under a seccomp filter that refuses newer system calls
    Deny {
        /// What the calls answer: ENOSYS or EPERM
        #[arg(long)]
        errno: deny::Answer,
        /// The command and its arguments
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Send a signal with a value, as sigqueue(3) does
    Sigqueue {
        /// Whom
        pid: i32,
        /// Which
        signal: Signal,
        /// What
        #[arg(required = true)]
        values: Vec<u64>,
    },
}

/// What went wrong, in a line.
#[derive(Debug)]
pub struct Trouble(String);

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: std::error::Error> From<E> for Trouble {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// Writes a line to stdout and passes it on at once.
pub fn say(line: &str) -> Result<(), Trouble> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// The whole program. Bad input gets exit code 2, as everything else that fails gets 1.
pub fn start(arguments: Arguments) -> c_int {
    let words = arguments.words();
    if let Some(code) = bench::command::run_if_asked(&words) {
        return c_int::from(code);
    }
    let given = words.clone();
    let words = match Words::try_parse_from(words) {
        Ok(words) => words,
        Err(error) => return refuse(&error),
    };
    let result = match words.action {
        Action::Subject { kind } => subject::run(&kind),
        Action::Check(words) => check::run(&words),
        Action::Audit(words) => audit::run(&words, &given),
        Action::Bench(words) => bench::run(&words),
        Action::Deny { errno, command } => deny_and_run(errno, &command),
        Action::Sigqueue { pid, signal, values } => send_values(pid, signal, &values),
    };
    match result {
        Ok(code) => c_int::from(code),
        Err(trouble) => {
            let _ = writeln!(std::io::stderr(), "sexton-lab: {trouble}");
            1
        }
    }
}

/// Help goes to stdout as it is; bad input is told in one line.
fn refuse(error: &clap::Error) -> c_int {
    let text = error.to_string();
    let line = text.strip_prefix("error: ").and_then(|text| text.split_once("\n\n"));
    let _ = match line {
        // Missing arguments are listed below the first line.
        Some((line, _)) => {
            let words: Vec<_> = line.split_ascii_whitespace().collect();
            writeln!(std::io::stderr(), "sexton-lab: {}", words.join(" "))
        }
        None => error.print(),
    };
    error.exit_code()
}

fn deny_and_run(answer: deny::Answer, command: &[OsString]) -> Result<u8, Trouble> {
    let words = command.iter().map(|word| CString::new(word.as_bytes())).collect::<Result<Vec<_>, _>>()?;
    let program = words.first().ok_or_else(|| Trouble("no command".into()))?;
    deny::install(answer)?;
    // Not by std, which sets SIGPIPE to its default first.
    match nix::unistd::execvp(program, &words) {
        Err(error) => Err(Trouble(format!("execve({}): {error}", program.to_string_lossy()))),
        Ok(never) => match never {},
    }
}

fn send_values(pid: i32, signal: Signal, values: &[u64]) -> Result<u8, Trouble> {
    let own = i32::try_from(std::process::id())?;
    for value in values {
        queue(pid, signal, Queued { pid: own, uid: nix::unistd::getuid().as_raw(), value: *value })?;
    }
    Ok(0)
}
