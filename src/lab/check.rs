//! The conformance suite: every case for every init, each in a process and namespaces of its own, in parallel.
//!
//! The process that asks is PID 1 of a PID namespace, and dies with us: whatever a case starts, nothing of it stays.
#![forbid(unsafe_code)]

pub mod room;

use std::fs;
use std::io::Write;
use std::mem::MaybeUninit;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::cases::{self, Case, Outcome};
use super::inits::{Init, matches};
use super::progress::Progress;
use super::report::{Asked, Cell, Report, Row};
use super::{Trouble, say};
use crate::signal::Signal;
use crate::sys::signal::{BATCH, SignalFd, SignalSet, set_mask};
use room::{Worker, can_be_made, wait_for_any};

/// What is asked for.
#[derive(Args, Debug)]
pub struct Words {
    /// An init to check: what stands before a command, `COMMAND` or `NAME=COMMAND`, in a shell's quoting; the empty one is
    /// no init. Default: sexton, tini, dumb-init and catatonit, as far as they are here
    #[arg(long = "init", value_name = "COMMAND")]
    inits: Vec<String>,
    /// List the cases, and ask none
    #[arg(long)]
    list: bool,
    /// Ask only cases whose name, clause or pitfall (`pitfall-7`) this is; * stands for anything
    #[arg(long, value_name = "GLOB", value_delimiter = ',')]
    only: Vec<String>,
    /// How to print the results
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// How many cases at once. Default: four for each CPU
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    jobs: Option<u32>,
    /// How many seconds an answer may take. Default: 8, and more on a machine that is slow at the moment
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=3600))]
    patience: Option<u32>,
}

/// How to print the results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Markdown,
    Json,
    Junit,
}

/// A case takes at the most so many answers' time, however many it waits for.
const ANSWERS: u32 = 15;

/// Asks and tells. Bad input: one line, and 2. An init that was named fails: 1.
pub fn run(words: &Words) -> Result<u8, Trouble> {
    let (inits, cases) = match task(words) {
        Ok(task) => task,
        Err(line) => {
            let _ = writeln!(std::io::stderr(), "sexton-lab: {line}");
            return Ok(2);
        }
    };
    if words.list {
        return list(&cases);
    }
    let mut run = Run::new(words, inits, cases)?;
    if let Some(signal) = run.ask_all()? {
        return Ok(128 + signal.byte());
    }
    let report = run.report();
    match words.format {
        Format::Table => say(report.table().trim_end())?,
        Format::Markdown => say(report.markdown().trim_end())?,
        Format::Json => say(&serde_json::to_string_pretty(&report)?)?,
        Format::Junit => say(report.junit().trim_end())?,
    }
    let counts: Vec<_> = (0..report.inits.len()).map(|init| report.count(init)).collect();
    if let Some(index) = counts.iter().position(|count| count.passed + count.failed == 0) {
        let name = report.inits.get(index).map_or("", |init| &init.name);
        return Err(Trouble(format!("{name}: no case could be asked")));
    }
    let failed = counts.iter().any(|count| count.failed > 0);
    Ok(u8::from(failed && !words.inits.is_empty()))
}

/// Which inits and which cases.
fn task(words: &Words) -> Result<(Vec<Init>, Vec<&'static Case>), String> {
    let pitfall = |case: &Case| case.pitfall.map(|number| format!("pitfall-{number}")).unwrap_or_default();
    let is_meant = |pattern: &String, case: &Case| {
        let lower = pattern.to_lowercase();
        matches(&lower, case.name) || matches(&lower, &case.clause.to_lowercase()) || matches(&lower, &pitfall(case))
    };
    if let Some(pattern) = words.only.iter().find(|pattern| !cases::all().any(|case| is_meant(pattern, case))) {
        return Err(format!("--only '{pattern}': no such case; see --list"));
    }
    let is_wanted = |case: &&Case| words.only.is_empty() || words.only.iter().any(|pattern| is_meant(pattern, case));
    let cases = cases::all().filter(is_wanted).collect();
    let inits = if words.inits.is_empty() {
        Init::usual()
    } else {
        words.inits.iter().map(|text| Init::from_words(text)).collect::<Result<Vec<_>, _>>()?
    };
    if inits.is_empty() {
        return Err("no init is here: name one with --init".to_owned());
    }
    for (index, init) in inits.iter().enumerate() {
        if inits.iter().skip(index + 1).any(|other| other.name == init.name) {
            return Err(format!("two inits are called {}: name one of them with --init NAME=COMMAND", init.name));
        }
    }
    Ok((inits, cases))
}

fn list(cases: &[&Case]) -> Result<u8, Trouble> {
    let name = cases.iter().map(|case| case.name.len()).max().unwrap_or(0);
    for case in cases {
        let pitfall = case.pitfall.map_or_else(String::new, |number| format!("pitfall {number}"));
        say(format!("{:<name$}  {:<3}  {pitfall:<10}  {}", case.name, case.clause, case.shows).trim_end())?;
    }
    Ok(0)
}

/// Everything that is to be asked, and what is known so far.
struct Run {
    inits: Vec<Init>,
    cases: Vec<&'static Case>,
    is_root: bool,
    patience: Duration,
    jobs: usize,
    signals: SignalFd,
    /// By case and init.
    cells: Vec<Option<Cell>>,
    progress: Progress,
}

impl Run {
    fn new(words: &Words, inits: Vec<Init>, cases: Vec<&'static Case>) -> Result<Self, Trouble> {
        // From here on these are read, so that nothing stays behind.
        let ends = [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM];
        set_mask(ends.into_iter().fold(SignalSet::EMPTY, SignalSet::with));
        let signals = SignalFd::open()?;
        let here = can_be_made()?;
        let patience = words.patience.map_or(here.patience, |seconds| Duration::from_secs(seconds.into()));
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let jobs = words.jobs.and_then(|jobs| usize::try_from(jobs).ok()).unwrap_or(4 * cpus);
        let count = inits.len() * cases.len();
        let progress = Progress::new();
        Ok(Self {
            inits,
            cases,
            is_root: here.is_root,
            patience,
            jobs,
            signals,
            cells: (0..count).map(|_| None).collect(),
            progress,
        })
    }

    /// Asks all; a signal ends it before.
    fn ask_all(&mut self) -> Result<Option<Signal>, Trouble> {
        let mut next = 0;
        let mut workers: Vec<Worker> = Vec::new();
        loop {
            while workers.len() < self.jobs && next < self.cells.len() {
                workers.push(self.start(next)?);
                next += 1;
            }
            if workers.is_empty() {
                self.progress.clear();
                return Ok(None);
            }
            wait_for_any(&workers, self.signals.as_fd());
            if let Some(signal) = self.signal() {
                self.progress.clear();
                return Ok(Some(signal));
            }
            let deadline = self.patience * ANSWERS;
            let mut index = 0;
            while let Some(worker) = workers.get_mut(index) {
                let outcome = worker.outcome().or_else(|| {
                    (worker.began.elapsed() > deadline).then(|| Outcome::Fail {
                        expected: "an end of the case".into(),
                        seen: format!("none after {:.0} s", deadline.as_secs_f32()),
                    })
                });
                let Some(outcome) = outcome else {
                    index += 1;
                    continue;
                };
                let worker = workers.swap_remove(index);
                self.note(worker.number, outcome, worker.began.elapsed());
            }
        }
    }

    fn note(&mut self, number: usize, outcome: Outcome, taken: Duration) {
        let init = self.inits.get(number % self.inits.len()).map(|init| init.name.clone()).unwrap_or_default();
        let done = self.cells.iter().flatten().count();
        self.progress.step(done + 1, self.cells.len(), &init);
        let cell = Cell { init, outcome, seconds: (taken.as_secs_f64() * 1000.0).round() / 1000.0 };
        if let Some(place) = self.cells.get_mut(number) {
            *place = Some(cell);
        }
    }

    fn start(&self, number: usize) -> Result<Worker, Trouble> {
        let init = self.inits.get(number % self.inits.len());
        let case = self.cases.get(number / self.inits.len());
        let (Some(init), Some(case)) = (init, case) else { return Err(Trouble("no such cell".into())) };
        Worker::start(number, self.is_root, |lab| {
            let room = cases::Room { init: init.clone(), lab, is_root: self.is_root, patience: self.patience };
            Outcome::from((case.ask)(&room))
        })
    }

    /// The signal that ends us.
    fn signal(&self) -> Option<Signal> {
        let mut buffer = [const { MaybeUninit::uninit() }; BATCH];
        let count = self.signals.read(&mut buffer);
        SignalFd::filled(&buffer, count).first().and_then(|info| Signal::new(i64::from(info.ssi_signo)))
    }

    fn report(self) -> Report {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
        let mut cells = self.cells.into_iter().flatten();
        let cases = self.cases.iter().map(|case| {
            let results = cells.by_ref().take(self.inits.len()).collect();
            Row { results, ..Row::new(case) }
        });
        let cases = cases.collect();
        Report { kernel, root: self.is_root, inits: self.inits.iter().map(Asked::from).collect(), cases }
    }
}
