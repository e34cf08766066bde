//! From words to [`Options`]. Parsing validates and never acts.
//!
//! Every option is one row of a table ([`options::TABLE`], and one table for each peer whose name sexton answers to):
//! its names, its value, its place in the help, and what it sets.
#![forbid(unsafe_code)]

pub mod duration;
pub mod options;
pub mod personality;

use std::ffi::{OsStr, OsString};
use std::fmt::{self, Write};

use lexopt::Arg;

pub use options::Options;
pub use personality::Personality;

/// The environment variable that holds more options, in shell quoting, read before those of the command line.
pub const OPTIONS_VARIABLE: &str = "SEXTON_OPTS";

/// One option.
pub struct Row {
    /// Its name behind two dashes; empty if it has none.
    pub long: &'static str,
    /// Its name behind one dash.
    pub short: Option<char>,
    /// What its value is called in the help; empty if it takes none, and `[=NAME]` if it may be left out.
    pub value: &'static str,
    /// The heading it stands under in the help.
    pub section: &'static str,
    /// What it does, in a line.
    pub help: &'static str,
    /// Checks the value and notes it.
    pub set: fn(&mut Options, &OsStr) -> Result<(), Invalid>,
}

/// Options in the order of the help, in parts.
pub type Table = &'static [&'static [Row]];

/// Why a value was refused.
pub type Invalid = String;

/// What the words ask for.
#[derive(Debug)]
pub enum Request {
    /// To run.
    Run(Box<Options>),
    /// To print this on stdout, or on stderr for a peer that prints it there.
    Print(Output, String),
}

/// Where a text goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What was wrong with the words.
#[derive(Debug)]
pub struct UsageError {
    /// Whether the words came from SEXTON_OPTS.
    from_environment: bool,
    /// What is wrong and what to do, in a line.
    message: String,
    /// The exit code that the name we were called by wants.
    pub code: u8,
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.from_environment {
            write!(f, "{OPTIONS_VARIABLE}: ")?;
        }
        f.write_str(&self.message)
    }
}

/// Reads the command line, and before it what SEXTON_OPTS holds. `words` begins with the program's own name.
pub fn parse(words: &[OsString], variable: &dyn Fn(&str) -> Option<OsString>) -> Result<Request, UsageError> {
    let (name, words) = words.split_first().map_or((OsStr::new("sexton"), &[][..]), |(name, rest)| (name, rest));
    let personality = Personality::of(name);
    let mut options = personality.defaults(variable);
    let fail = |from_environment, message| UsageError { from_environment, message, code: personality.codes().usage };
    if let Some(text) = variable(OPTIONS_VARIABLE) {
        let words = split(&text).map_err(|why| fail(true, why))?;
        let rest = read(&mut options, options::TABLE, &words).map_err(|why| fail(true, why))?;
        if rest > 0 {
            let word = words[words.len() - rest].to_string_lossy();
            return Err(fail(true, format!("{word:?} is no option; the command belongs on the command line")));
        }
    }
    options.command_words = read(&mut options, personality.table(), words).map_err(|why| fail(false, why))?;
    if let Some((output, print)) = options.print.take() {
        return Ok(Request::Print(output, print(personality)));
    }
    check(&options, personality).map_err(|why| fail(false, why))?;
    Ok(Request::Run(Box::new(options)))
}

/// What no single option can know.
fn check(options: &Options, personality: Personality) -> Result<(), String> {
    match (options.pause, options.command_words) {
        (false, 0) => Err(personality.no_command()),
        (true, 1..) => Err("--pause runs no command, but one was given; leave one of them out".into()),
        _ => Ok(()),
    }
}

/// Splits a text as a shell splits words.
fn split(text: &OsStr) -> Result<Vec<OsString>, String> {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let mut words = shlex::bytes::Shlex::new(text.as_bytes());
    let split = words.by_ref().map(OsString::from_vec).collect();
    if words.had_error { Err("a quote is not closed, or a backslash ends the text".into()) } else { Ok(split) }
}

/// Reads options up to the first word that is none, or `--`; returns how many words are left behind them.
fn read(options: &mut Options, table: Table, words: &[OsString]) -> Result<usize, String> {
    let mut parser = lexopt::Parser::from_args(words);
    loop {
        let (name, row) = match parser.next().map_err(|e| e.to_string())? {
            None => return Ok(0),
            Some(Arg::Value(_)) => {
                let behind = parser.raw_args().map_or(0, |rest| rest.as_slice().len());
                return Ok(behind + 1);
            }
            Some(Arg::Short(letter)) => (format!("-{letter}"), rows(table).find(|row| row.short == Some(letter))),
            Some(Arg::Long(long)) => {
                (format!("--{long}"), rows(table).find(|row| row.long == long && !long.is_empty()))
            }
        };
        let row = row.ok_or_else(|| unknown(table, &name))?;
        let value = if row.value.is_empty() {
            OsString::new()
        } else if row.value.starts_with('[') {
            parser.optional_value().unwrap_or_default()
        } else {
            parser.value().map_err(|_| format!("{name} needs a value: {name} {}", row.value))?
        };
        (row.set)(options, &value).map_err(|why| format!("{name} {}: {why}", value.to_string_lossy()))?;
    }
}

/// All rows of a table.
fn rows(table: Table) -> impl Iterator<Item = &'static Row> {
    table.iter().copied().flatten()
}

/// Says that there is no such option, and which one is nearest.
fn unknown(table: Table, name: &str) -> String {
    let nearest = rows(table)
        .filter(|row| !row.long.is_empty())
        .map(|row| (strsim::levenshtein(row.long, name.trim_start_matches('-')), row.long))
        .min()
        .filter(|(distance, long)| *distance <= 1 + long.len() / 3 && name.starts_with("--"));
    match nearest {
        Some((_, long)) => format!("{name}: unknown option; did you mean --{long}?"),
        None => format!("{name}: unknown option; --help lists them"),
    }
}

/// The help text of a table: sections, each with its rows.
pub fn help(usage: &str, table: Table, tail: &str) -> String {
    let mut text = format!("{usage}\n");
    let mut section = "";
    for row in rows(table) {
        if row.section != section {
            section = row.section;
            let _ = writeln!(text, "\n{section}:");
        }
        let short = row.short.map_or("    ".to_owned(), |letter| format!("-{letter}"));
        let between = if row.short.is_some() && !row.long.is_empty() { ", " } else { "" };
        let long = if row.long.is_empty() { String::new() } else { format!("--{}", row.long) };
        let space = if row.value.starts_with('[') { "" } else { " " };
        let mut names = format!("{short}{between}{long}{space}{}", row.value);
        if names.len() > 25 {
            let _ = writeln!(text, "  {names}");
            names.clear();
        }
        for line in row.help.split('\n') {
            let _ = writeln!(text, "  {names:25} {line}");
            names.clear();
        }
    }
    text.push_str(tail);
    text
}

#[cfg(test)]
mod tests;
