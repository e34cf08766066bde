//! What an audit has seen, for people and as JSON.
#![forbid(unsafe_code)]

use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;

use super::observation::{Disposition, End, Process, STOPS};
use super::stage::Stage;
use super::verdict::{Finding, findings, meaning};
use crate::signal::Signal;

/// Everything.
#[derive(Serialize, Debug, Default)]
pub struct Report {
    /// What was looked at.
    pub subject: String,
    /// Its command, as the image has it.
    pub entrypoint: Vec<String>,
    /// What stops it.
    pub stop_signal: String,
    /// It became ready, or quiet.
    pub ready: bool,
    /// Somebody said when it is ready.
    pub ready_was_asked: bool,
    /// Until then.
    pub start_seconds: f64,
    /// All of them, by their numbers inside.
    pub processes: Vec<Process>,
    /// The stop.
    pub stopped: Stopped,
    /// What an orchestrator makes of the exit code.
    pub meaning: &'static str,
    /// What is wrong, or good to know.
    pub findings: Vec<Finding>,
}

/// How the stop went.
#[derive(Serialize, Debug, Default)]
pub struct Stopped {
    /// The signal.
    pub signal: String,
    /// From it to the end.
    pub seconds: f64,
    /// The time was up, and all was killed.
    pub was_killed: bool,
    /// As an engine tells it.
    pub exit_code: i32,
    /// There was nothing to stop.
    pub ended_by_itself: bool,
    /// So says the engine.
    pub out_of_memory: bool,
}

impl Report {
    /// Of one that has started.
    pub fn new(stage: &Stage, asked: Option<Signal>, took: Duration) -> Self {
        let signal = asked.or_else(|| stage.stop_signal()).unwrap_or(Signal::TERM);
        Self {
            subject: stage.subject(),
            entrypoint: stage.entrypoint(),
            stop_signal: signal.to_string(),
            start_seconds: took.as_secs_f64(),
            ..Self::default()
        }
    }

    /// What stops it.
    pub fn signal(&self) -> Signal {
        self.stop_signal.parse().unwrap_or(Signal::TERM)
    }

    /// All has been seen: what does it mean?
    pub fn judge(&mut self) {
        self.meaning = meaning(self.stopped.exit_code);
        self.findings = findings(self);
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = format!("{}\n", self.subject);
        if !self.processes.is_empty() {
            self.processes(&mut text);
        }
        let code = self.stopped.exit_code;
        let _ = if self.stopped.ended_by_itself {
            writeln!(text, "\nIt ended by itself after {:.1} s: exit code {code}, {}", self.start_seconds, self.meaning)
        } else {
            let how = if self.stopped.was_killed { ", when it was killed" } else { "" };
            writeln!(
                text,
                "\n{} stopped it in {:.1} s{how}: exit code {code}, {}",
                self.stop_signal, self.stopped.seconds, self.meaning
            )
        };
        for finding in &self.findings {
            let _ = writeln!(text, "\n{}  {}", if finding.is_wrong { "WRONG" } else { "note " }, finding.what);
            if let Some(mend) = &finding.mend {
                let _ = writeln!(text, "       {mend}");
            }
        }
        if self.findings.is_empty() {
            text += "\nAll is well.\n";
        }
        text
    }

    /// A line for each.
    fn processes(&self, text: &mut String) {
        let heads = ["pid", "parent", "name"].map(str::to_owned).to_vec();
        let heads = heads.into_iter().chain(STOPS.map(|signal| signal.to_string().replace("SIG", "")));
        let mut rows = vec![heads.chain(["when stopped".to_owned()]).collect::<Vec<_>>()];
        for process in &self.processes {
            let mut row = vec![process.pid.to_string(), process.parent.to_string(), process.name.clone()];
            row.extend(STOPS.map(|signal| {
                match process.on(signal) {
                    _ if process.is_zombie() => "",
                    Disposition::Caught => "caught",
                    Disposition::Ignored => "ignored",
                    // For it the kernel makes no difference between the two.
                    Disposition::Default if process.pid == 1 => "dropped",
                    Disposition::Default => "ends it",
                }
                .to_owned()
            }));
            row.push(ending(process));
            rows.push(row);
        }
        let columns = rows.first().map_or(0, Vec::len);
        let width = |at: usize| rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max();
        let widths: Vec<_> = (0..columns).map(|at| width(at).unwrap_or(0)).collect();
        text.push('\n');
        for row in &rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let _ = write!(line, "  {cell:<width$}");
            }
            let _ = writeln!(text, "{}", line.trim_end());
        }
    }
}

fn ending(process: &Process) -> String {
    let after = process.ended_after_ms.map_or_else(String::new, |time| format!(" after {time} ms"));
    match &process.end {
        Some(End::Dead) => "a zombie".to_owned(),
        Some(End::Exited { code: 0 }) => format!("ended{after}"),
        Some(End::Exited { code }) => format!("ended with {code}{after}"),
        Some(End::Signaled { signal }) if process.outlived_grace => format!("was ended by {signal}{after}"),
        Some(End::Signaled { signal }) => format!("ended by {signal}{after}"),
        Some(End::Unknown) if process.outlived_grace => format!("was killed{after}"),
        Some(End::Unknown) => format!("ended{after}"),
        Some(End::Together) => format!("ended with PID 1{after}"),
        Some(End::Killed) => format!("was killed{after}"),
        None => "not known".to_owned(),
    }
}
