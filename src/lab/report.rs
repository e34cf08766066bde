//! What became of the cases: as a table, as Markdown, as JSON, as JUnit's XML.
#![forbid(unsafe_code)]

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::cases::{Case, Outcome};
use super::inits::Init;

/// A whole run.
#[derive(Serialize, Deserialize, Debug)]
pub struct Report {
    /// The kernel's release.
    pub kernel: String,
    /// Whether it was asked as root.
    pub root: bool,
    /// The inits, in the order of the results.
    pub inits: Vec<Asked>,
    /// The cases, in the order of the contract.
    pub cases: Vec<Row>,
}

/// An init that was asked.
#[derive(Serialize, Deserialize, Debug)]
pub struct Asked {
    /// As the table calls it.
    pub name: String,
    /// Its words; empty: no init.
    pub command: String,
}

/// A case, and what became of it.
#[derive(Serialize, Deserialize, Debug)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// The clause of the contract.
    pub clause: String,
    /// The number of the known pitfall.
    pub pitfall: Option<u8>,
    /// What passes.
    pub shows: String,
    /// One for each init.
    pub results: Vec<Cell>,
}

/// What became of a case with one init.
#[derive(Serialize, Deserialize, Debug, Clone)]
pub struct Cell {
    /// The init's name.
    pub init: String,
    /// How it went.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// How long it took.
    pub seconds: f64,
}

impl Row {
    /// A case that nothing is known of yet.
    pub fn new(case: &Case) -> Self {
        Self {
            name: case.name.to_owned(),
            clause: case.clause.to_owned(),
            pitfall: case.pitfall,
            shows: case.shows.to_owned(),
            results: Vec::new(),
        }
    }
}

impl From<&Init> for Asked {
    fn from(init: &Init) -> Self {
        Self { name: init.name.clone(), command: init.line() }
    }
}

/// How many passed, failed and were skipped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Count {
    /// As it should be.
    pub passed: usize,
    /// Not so.
    pub failed: usize,
    /// Not asked.
    pub skipped: usize,
}

impl Report {
    /// The results of one init, with their cases.
    fn of(&self, init: usize) -> impl Iterator<Item = (&Row, &Cell)> {
        self.cases.iter().filter_map(move |row| Some((row, row.results.get(init)?)))
    }

    /// The sums of one init.
    pub fn count(&self, init: usize) -> Count {
        self.of(init).fold(Count::default(), |mut count, (_, cell)| {
            match cell.outcome {
                Outcome::Pass { .. } => count.passed += 1,
                Outcome::Fail { .. } => count.failed += 1,
                Outcome::Skip { .. } => count.skipped += 1,
            }
            count
        })
    }

    /// For people at a terminal.
    pub fn table(&self) -> String {
        let first = self.cases.iter().map(|row| row.name.len()).max().unwrap_or(0);
        let widths: Vec<usize> = self.inits.iter().map(|init| init.name.chars().count().max(9)).collect();
        let line = |name: &str, cells: Vec<String>| {
            let cells = cells
                .iter()
                .zip(&widths)
                .fold(String::new(), |line, (cell, width)| line + &format!("  {cell:<width$}"));
            format!("{name:<first$}{cells}").trim_end().to_owned() + "\n"
        };
        let mut text = line("", self.inits.iter().map(|init| init.name.clone()).collect());
        for row in &self.cases {
            text += &line(&row.name, row.results.iter().map(|cell| word(&cell.outcome)).collect());
        }
        for (index, init) in self.inits.iter().enumerate() {
            let Count { passed, failed, skipped } = self.count(index);
            let _ = writeln!(text, "\n{}: {passed} passed, {failed} failed, {skipped} skipped", init.name);
            for (row, cell) in self.of(index) {
                match &cell.outcome {
                    Outcome::Pass { .. } => {}
                    Outcome::Fail { expected, seen } => {
                        let pitfall = row.pitfall.map(|number| format!(" (pitfall {number})")).unwrap_or_default();
                        let _ = writeln!(text, "  FAIL {}{pitfall}: {}", row.name, row.shows);
                        let _ = writeln!(text, "       expected: {expected}\n       seen:     {seen}");
                    }
                    Outcome::Skip { why } => {
                        let _ = writeln!(text, "  skip {}: {why}", row.name);
                    }
                }
            }
        }
        text
    }

    /// For a page of documentation.
    pub fn markdown(&self) -> String {
        let mut text = String::from(
            "# What inits do\n\nEach row is a case of `sexton-lab check`, by the clause that it belongs to. This page is its output:\n\n",
        );
        text += "```sh\nsexton-lab check --format markdown";
        for init in &self.inits {
            let _ = write!(text, " \\\n    --init {}", quoted(init));
        }
        text += "\n```\n\n";
        let who = if self.root { "as root" } else { "in a user namespace" };
        let _ = writeln!(text, "Asked on Linux {}, {who}. A number is how often a race was tried.\n", self.kernel);
        let names: Vec<&str> = self.inits.iter().map(|init| init.name.as_str()).collect();
        let _ = writeln!(text, "| case | what passes | {} |", names.join(" | "));
        let _ = writeln!(text, "|---|---|{}", "---|".repeat(names.len()));
        for row in &self.cases {
            let cells: Vec<String> = row.results.iter().map(|cell| mark(&cell.outcome)).collect();
            let _ = writeln!(text, "| `{}` | {} | {} |", row.name, escaped(&row.shows), cells.join(" | "));
        }
        let sums: Vec<String> = (0..names.len()).map(|init| self.count(init).passed.to_string()).collect();
        let _ = writeln!(text, "| **passed**, of {} | | {} |", self.cases.len(), sums.join(" | "));
        text += "\n## What was seen instead\n";
        for (index, init) in self.inits.iter().enumerate() {
            let mut lines = String::new();
            for (row, cell) in self.of(index) {
                match &cell.outcome {
                    Outcome::Fail { expected, seen } => {
                        let pitfall = row.pitfall.map(|number| format!(" (pitfall {number})")).unwrap_or_default();
                        let _ = writeln!(
                            lines,
                            "- `{}`{pitfall}: expected {}; seen: {}",
                            row.name,
                            escaped(expected),
                            escaped(seen)
                        );
                    }
                    Outcome::Skip { why } => {
                        let _ = writeln!(lines, "- `{}` was not asked: {}", row.name, escaped(why));
                    }
                    Outcome::Pass { .. } => {}
                }
            }
            if !lines.is_empty() {
                let _ = write!(text, "\n### {}\n\n{lines}", init.name);
            }
        }
        text
    }

    /// For build servers: a suite for each init.
    pub fn junit(&self) -> String {
        let mut text =
            String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"sexton-lab check\">\n");
        for (index, init) in self.inits.iter().enumerate() {
            let Count { passed, failed, skipped } = self.count(index);
            let seconds: f64 = self.of(index).map(|(_, cell)| cell.seconds).sum();
            let _ = writeln!(
                text,
                "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{failed}\" errors=\"0\" skipped=\"{skipped}\" time=\"{seconds:.3}\">",
                xml(&init.name),
                passed + failed + skipped
            );
            for (row, cell) in self.of(index) {
                let _ = write!(
                    text,
                    "    <testcase classname=\"{}.{}\" name=\"{}\" time=\"{:.3}\"",
                    xml(&init.name),
                    row.clause,
                    row.name,
                    cell.seconds
                );
                let _ = match &cell.outcome {
                    Outcome::Pass { .. } => writeln!(text, "/>"),
                    Outcome::Fail { expected, seen } => writeln!(
                        text,
                        "><failure message=\"{}\">expected: {}\nseen: {}</failure></testcase>",
                        xml(&row.shows),
                        xml(expected),
                        xml(seen)
                    ),
                    Outcome::Skip { why } => writeln!(text, "><skipped message=\"{}\"/></testcase>", xml(why)),
                };
            }
            text += "  </testsuite>\n";
        }
        text + "</testsuites>\n"
    }
}

fn word(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Pass { trials: None } => "pass".to_owned(),
        Outcome::Pass { trials: Some(trials) } => format!("pass {trials}x"),
        Outcome::Fail { .. } => "FAIL".to_owned(),
        Outcome::Skip { .. } => "skip".to_owned(),
    }
}

fn mark(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Pass { trials: None } => "yes".to_owned(),
        Outcome::Pass { trials: Some(trials) } => format!("yes, {trials}"),
        Outcome::Fail { .. } => "**no**".to_owned(),
        Outcome::Skip { .. } => "–".to_owned(),
    }
}

/// The value of `--init` for it.
fn quoted(init: &Asked) -> String {
    let is_usual = Init::from_words(&init.command).is_ok_and(|usual| usual.name == init.name);
    let line = if is_usual { init.command.clone() } else { format!("{}={}", init.name, init.command) };
    shlex::try_quote(&line).map_or_else(|_| line.clone(), std::borrow::Cow::into_owned)
}

/// For a cell of a Markdown table.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('|', "\\|").replace('<', "\\<").replace('*', "\\*").replace('\n', " ")
}

/// Text of an XML attribute or element. What XML cannot hold becomes a question mark.
fn xml(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        match character {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\n' | '\t' => escaped.push(character),
            control if control.is_control() || matches!(control, '\u{fffe}' | '\u{ffff}') => escaped.push('?'),
            other => escaped.push(other),
        }
    }
    escaped
}
