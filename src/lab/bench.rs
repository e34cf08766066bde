//! Measures inits side by side: start-up, signals, reaping, memory, idleness. It tells and never judges.
//!
//! Each init runs as PID 1 of a new PID namespace. The inits take turns within each round, so that what disturbs the
//! machine disturbs all of them, and medians are told.
#![forbid(unsafe_code)]

pub mod command;
pub mod container;
pub mod inits;
pub mod measure;
pub mod plot;
pub mod report;
pub mod setup;
pub mod statistics;
pub mod trace;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Args, ValueEnum};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde::Serialize;

use super::progress::Progress;
use super::{Trouble, say};
use inits::Init;

/// What is asked for.
#[derive(Args, Debug)]
pub struct Words {
    /// An init to measure, CMD or NAME=CMD; the first is what ratios are to. Default: tini-static, sexton, and the peers
    /// in PATH
    #[arg(long = "init", value_name = "CMD")]
    inits: Vec<String>,
    /// Measure only the inits of these names; * stands for anything
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    only: Vec<String>,
    /// How many rounds; each has 40 starts, 1,000 signals, and 1,000 orphans for each number of live ones
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    runs: u32,
    /// How many other orphans live while 1,000 die
    #[arg(long, value_name = "COUNT,...", value_delimiter = ',', default_value = "0,1000,5000,10000")]
    live: Vec<u32>,
    /// For how many seconds to watch the inits do nothing
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    idle: u32,
    /// Keep everything on this one CPU, or `all`: let the kernel spread it. Default: the last CPU that we may use
    #[arg(long, value_name = "NUMBER|all")]
    cpu: Option<Place>,
    /// Measure containers of one's own instead: a whole life that does nothing, by sexton, unshare, bwrap, crun, runc
    #[arg(long, conflicts_with_all = ["inits", "only", "live", "idle", "plot"])]
    setup: bool,
    /// How to print the result
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Draw the cost of an orphan over the number of live ones, as SVG
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

/// Where to run.
#[derive(Clone, Copy, Debug)]
enum Place {
    Cpu(usize),
    All,
}

impl FromStr for Place {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "all" {
            return Ok(Self::All);
        }
        text.parse().map(Self::Cpu).map_err(|_| "use a number, or all")
    }
}

/// How to print the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

impl Format {
    fn print<R: Serialize>(self, report: &R, table: fn(&R) -> String) -> Result<(), Trouble> {
        match self {
            Self::Table => say(table(report).trim_end()),
            Self::Json => say(&serde_json::to_string_pretty(report)?),
        }
    }
}

/// What will be measured: all that can be wrong with the words was found out.
#[derive(Debug)]
pub struct Task {
    /// The base first.
    pub inits: Vec<Init>,
    /// Rounds.
    pub runs: u32,
    /// Numbers of live orphans, rising.
    pub live: Vec<u32>,
    /// Seconds.
    pub idle: u32,
    /// The one CPU to stay on.
    pub cpu: Option<usize>,
}

/// Measures and tells. Bad input: one line, and 2.
pub fn run(words: &Words) -> Result<u8, Trouble> {
    let task = match task(words) {
        Ok(task) => task,
        Err(line) => {
            let _ = writeln!(std::io::stderr(), "sexton-lab: {line}");
            return Ok(2);
        }
    };
    if words.setup {
        let report = setup::all(task.runs, task.cpu, &Progress::new())?;
        return words.format.print(&report, setup::Report::table).map(|()| 0);
    }
    let report = measure::all(&task, &Progress::new())?;
    words.format.print(&report, report::Report::table)?;
    if let Some(file) = &words.plot {
        std::fs::write(file, plot::svg(&report))
            .map_err(|error| Trouble(format!("open({}): {error}", file.display())))?;
    }
    Ok(0)
}

fn task(words: &Words) -> Result<Task, String> {
    let inits = if words.inits.is_empty() {
        inits::usual()?
    } else {
        words.inits.iter().map(|text| Init::from_words(text)).collect::<Result<_, _>>()?
    };
    let inits = inits::only(inits, &words.only)?;
    if inits.is_empty() {
        return Err(
            "no init is here: neither sexton beside this program nor tini, dumb-init or catatonit in PATH".into()
        );
    }
    for (index, init) in inits.iter().enumerate() {
        if inits.iter().skip(index + 1).any(|other| other.name == init.name) {
            return Err(format!("two inits are called {}; name them: --init NAME=CMD", init.name));
        }
    }
    if let Some(file) = &words.plot
        && !file.parent().is_some_and(|folder| folder == Path::new("") || folder.is_dir())
    {
        return Err(format!("--plot {}: no such folder", file.display()));
    }
    let cpu = match words.cpu {
        Some(Place::All) => None,
        Some(Place::Cpu(cpu)) => Some(cpu),
        None => last_cpu(),
    };
    if let Some(cpu) = cpu {
        stay_on(cpu).map_err(|errno| format!("--cpu {cpu}: {errno}"))?;
    }
    let mut live = words.live.clone();
    live.sort_unstable();
    live.dedup();
    Ok(Task { inits, runs: words.runs, live, idle: words.idle, cpu })
}

/// On one CPU all inits have the same way to go, and times vary by a few percent. Spread over CPUs they depend on which
/// of them sleeps, and vary threefold.
fn last_cpu() -> Option<usize> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).ok()?;
    (0..CpuSet::count()).rev().find(|cpu| allowed.is_set(*cpu).unwrap_or(false))
}

fn stay_on(cpu: usize) -> nix::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set)
}
