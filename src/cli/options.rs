//! What can be asked of sexton, and the table of its options.
#![forbid(unsafe_code)]

mod cgroups;
mod credentials;
mod limits;
mod mounts;
mod namespaces;
mod network;

use std::ffi::OsStr;
use std::time::Duration;

use super::{Invalid, Output, Personality, Row, Table, duration};
use crate::setup::Setup;
use crate::signal::Signal;
use crate::sys::process::Group;

/// A validated command line. Nothing has been done yet.
#[derive(Debug)]
pub struct Options {
    /// The name sexton was called by.
    pub personality: Personality,
    /// How many of the last words of the command line are the command's.
    pub command_words: usize,
    /// Forward to the command's process group.
    pub to_group: bool,
    /// What each signal (by number) is forwarded as; `None` is discarded.
    pub rewrites: Rewrites,
    /// What each exit code becomes.
    pub exit_codes: ExitCodes,
    /// How long leftovers have after the command's end; zero: they get no signal.
    pub grace: Duration,
    /// How long the command has after the first stop signal.
    pub kill_after: Option<Duration>,
    /// How long a first TERM is held back.
    pub stop_delay: Duration,
    /// Wait for leftovers without a signal.
    pub wait: bool,
    /// Run no command.
    pub pause: bool,
    /// The signal that comes when our parent dies.
    pub parent_death: Option<Signal>,
    /// Give the command an empty mask and default dispositions.
    pub reset_signals: bool,
    /// Name each reaped orphan.
    pub warn_reaped: bool,
    /// -1 for -q, 0, 1 for -v, 2 for -vv.
    pub verbosity: i8,
    /// What is set up before the command runs.
    pub setup: Setup,
    /// Print the plan, and do nothing.
    pub explain: bool,
    /// The command's group and session.
    pub group: Group,
    /// TERM goes to the command's group when the command ends, and nobody waits (dumb-init).
    pub term_group_at_end: bool,
    /// TSTP, TTIN and TTOU stop sexton itself too (dumb-init in a session of its own).
    pub suspend_with_command: bool,
    /// `-s` was given to tini.
    pub subreaper_asked: bool,
    /// A text was asked for instead.
    pub print: Option<(Output, Text)>,
}

/// A text that depends on the name sexton was called by.
pub type Text = fn(Personality) -> String;

/// What each signal is forwarded as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrites([u8; Signal::COUNT as usize + 1]);

impl Default for Rewrites {
    fn default() -> Self {
        let mut table = [0; Signal::COUNT as usize + 1];
        for (number, entry) in (0..=Signal::COUNT).zip(&mut table) {
            *entry = number;
        }
        Self(table)
    }
}

impl Rewrites {
    /// Forwards `from` as `to`, or not at all.
    pub fn set(&mut self, from: Signal, to: Option<Signal>) {
        self.0[usize::from(from.byte())] = to.map_or(0, Signal::byte);
    }

    /// What `signal` is forwarded as; `None`: discarded.
    pub fn apply(&self, signal: Signal) -> Option<Signal> {
        Signal::new(i64::from(self.0[usize::from(signal.byte())]))
    }
}

/// What each exit code becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExitCodes([u8; 256]);

impl Default for ExitCodes {
    fn default() -> Self {
        let mut table = [0; 256];
        for (code, entry) in (0..=u8::MAX).zip(&mut table) {
            *entry = code;
        }
        Self(table)
    }
}

impl ExitCodes {
    /// What `code` becomes.
    pub fn apply(&self, code: u8) -> u8 {
        self.0[usize::from(code)]
    }
}

/// Sexton's own options, in the order of the help.
pub const TABLE: Table =
    &[BEHAVIOUR, namespaces::ROWS, mounts::ROWS, network::ROWS, cgroups::ROWS, credentials::ROWS, limits::ROWS, TELL];

const BEHAVIOUR: &[Row] = &[
    row("group", Some('g'), "", SIGNALS, "forward to the command's process group", group),
    row("rewrite", Some('r'), "FROM:TO", SIGNALS, "forward signal FROM as TO; TO=0 discards it (repeatable)", rewrite),
    row("reset-signals", None, "", SIGNALS, "start the command with an empty mask, all signals default", reset_signals),
    row("parent-death", Some('p'), "SIG", SIGNALS, "get SIG when sexton's own parent dies", parent_death),
    row(
        "grace",
        None,
        "DURATION",
        STOPPING,
        "leftovers get TERM when the command ends, then this long\nbefore KILL (5s); 0: exit at once",
        grace,
    ),
    row(
        "kill-after",
        Some('k'),
        "DURATION",
        STOPPING,
        "KILL everything this long after the first TERM, INT, QUIT\nor HUP",
        kill_after,
    ),
    row("stop-delay", None, "DURATION", STOPPING, "hold a TERM back this long; a second one goes at once", stop_delay),
    row("wait", None, "", STOPPING, "when the command ends, wait for all it left behind", wait),
    row("exit-code", Some('e'), "CODE[:NEW]", STOPPING, "turn exit code CODE into NEW (0) (repeatable)", exit_code),
    row("pause", Some('P'), "", STOPPING, "run no command: reap until TERM or INT", pause),
];

const TELL: &[Row] = &[
    row("explain", None, "", TELLING, "print what would be set up, step by step, and do nothing", explain),
    row("warn-reaped", Some('w'), "", TELLING, "name each orphan that was reaped", warn_reaped),
    row("verbose", Some('v'), "", TELLING, "say what happens; twice: each orphan too", verbose),
    row("quiet", Some('q'), "", TELLING, "errors only", quiet),
    row("help", Some('h'), "", TELLING, "this text", |options, _| print(options, Personality::help)),
    row("version", Some('V'), "", TELLING, "sexton's version", |options, _| print(options, Personality::version)),
];

const SIGNALS: &str = "Signals";
const STOPPING: &str = "Stopping";
const TELLING: &str = "Telling";

/// A row, in the order of its columns.
pub const fn row(
    long: &'static str,
    short: Option<char>,
    value: &'static str,
    section: &'static str,
    help: &'static str,
    set: fn(&mut Options, &OsStr) -> Result<(), Invalid>,
) -> Row {
    Row { long, short, value, section, help, set }
}

/// Notes a text to be printed; the first one asked for wins.
pub fn print(options: &mut Options, text: Text) -> Result<(), Invalid> {
    options.print.get_or_insert((Output::Stdout, text));
    Ok(())
}

/// The same, on stderr.
pub fn print_on_stderr(options: &mut Options, text: Text) -> Result<(), Invalid> {
    options.print.get_or_insert((Output::Stderr, text));
    Ok(())
}

/// A value that is text.
pub fn text(value: &OsStr) -> Result<&str, Invalid> {
    value.to_str().ok_or_else(|| "not UTF-8".into())
}

fn signal(name: &str) -> Result<Signal, Invalid> {
    name.parse().map_err(|why| format!("{name:?}: {why}"))
}

fn time(value: &OsStr) -> Result<Duration, Invalid> {
    text(value).ok().and_then(duration::parse).ok_or_else(|| "not a duration: use 500ms, 5s, 1m30s, or seconds".into())
}

fn code(name: &str) -> Result<u8, Invalid> {
    let digits = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
    name.parse().ok().filter(|_| digits).ok_or_else(|| format!("{name:?} is no exit code: use 0 to 255"))
}

/// `-g`.
pub fn group(options: &mut Options, _: &OsStr) -> Result<(), Invalid> {
    options.to_group = true;
    Ok(())
}

/// `-r FROM:TO`.
pub fn rewrite(options: &mut Options, value: &OsStr) -> Result<(), Invalid> {
    let (from, to) = text(value)?.split_once(':').ok_or("write FROM:TO, such as TERM:QUIT or HUP:0")?;
    let from = signal(from)?;
    if matches!(from, Signal::KILL | Signal::STOP) {
        return Err(format!("{from} can be neither caught nor rewritten"));
    }
    options.rewrites.set(from, if to == "0" { None } else { Some(signal(to)?) });
    Ok(())
}

fn reset_signals(options: &mut Options, _: &OsStr) -> Result<(), Invalid> {
    options.reset_signals = true;
    Ok(())
}

/// `-p SIG`.
pub fn parent_death(options: &mut Options, value: &OsStr) -> Result<(), Invalid> {
    options.parent_death = Some(signal(text(value)?)?);
    Ok(())
}

fn grace(options: &mut Options, value: &OsStr) -> Result<(), Invalid> {
    options.grace = time(value)?;
    options.term_group_at_end = false;
    Ok(())
}

fn kill_after(options: &mut Options, value: &OsStr) -> Result<(), Invalid> {
    options.kill_after = Some(time(value)?);
    Ok(())
}

fn stop_delay(options: &mut Options, value: &OsStr) -> Result<(), Invalid> {
    options.stop_delay = time(value)?;
    Ok(())
}

fn wait(options: &mut Options, _: &OsStr) -> Result<(), Invalid> {
    options.wait = true;
    Ok(())
}

/// `-e CODE` or `-e CODE:NEW`.
pub fn exit_code(options: &mut Options, value: &OsStr) -> Result<(), Invalid> {
    let (from, to) = text(value)?.split_once(':').unwrap_or((text(value)?, "0"));
    options.exit_codes.0[usize::from(code(from)?)] = code(to)?;
    Ok(())
}

/// `-P`.
pub fn pause(options: &mut Options, _: &OsStr) -> Result<(), Invalid> {
    options.pause = true;
    Ok(())
}

fn explain(options: &mut Options, _: &OsStr) -> Result<(), Invalid> {
    options.explain = true;
    Ok(())
}

/// `-w`.
pub fn warn_reaped(options: &mut Options, _: &OsStr) -> Result<(), Invalid> {
    options.warn_reaped = true;
    Ok(())
}

/// `-v`.
pub fn verbose(options: &mut Options, _: &OsStr) -> Result<(), Invalid> {
    options.verbosity = options.verbosity.saturating_add(1);
    Ok(())
}

fn quiet(options: &mut Options, _: &OsStr) -> Result<(), Invalid> {
    options.verbosity = -1;
    Ok(())
}

/// One row's value, taken or refused, for the tests beside the rows.
#[cfg(test)]
mod tests_support {
    use std::ffi::OsStr;

    use super::{Options, Row};
    use crate::cli::Personality;

    fn set(rows: &[Row], option: &str, value: &str) -> Result<Options, String> {
        let row = rows.iter().find(|row| row.long == option).unwrap();
        let mut options = Personality::Sexton.defaults(&|_| None);
        (row.set)(&mut options, OsStr::new(value)).map(|()| options)
    }

    #[track_caller]
    pub fn taken(rows: &[Row], option: &str, value: &str) -> Options {
        set(rows, option, value).unwrap_or_else(|why| panic!("--{option} {value}: {why}"))
    }

    #[track_caller]
    pub fn refused(rows: &[Row], option: &str, value: &str) -> String {
        set(rows, option, value).err().unwrap_or_else(|| panic!("--{option} {value} is taken"))
    }
}
