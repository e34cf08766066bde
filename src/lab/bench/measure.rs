//! The rounds: what is measured, in which order.
#![forbid(unsafe_code)]

use std::fs::File;
use std::thread::sleep;
use std::time::Duration;

use super::command::Request;
use super::container::{Container, Memory};
use super::inits::Init;
use super::report::{Idle, Measured, Orphans, Report, Resident, SignalCost, StartCost};
use super::statistics::{median, percentile};
use super::{Task, trace};
use crate::lab::Trouble;
use crate::lab::progress::Progress;

/// Starts in a round.
const STARTS: u32 = 40;
/// Signals after each start: few, as times depend on where each start's memory lies more than on anything else.
const SIGNALS: u32 = 25;
/// Signals before those, for what is touched for the first time.
const FIRST_SIGNALS: u32 = 5;
/// Signals before memory is looked at again.
const MANY_SIGNALS: u32 = 1000;
/// Orphans that die in a round, at each number of live ones.
const ORPHANS: u32 = 1000;
/// Orphans before anything counts: sexton shifts gears at the first.
const FIRST_ORPHANS: u32 = 20;
/// What an init puts off, such as sexton's walk through all children, is done by then.
const PUT_OFF: Duration = Duration::from_millis(300);
/// Signals whose system calls are counted.
const TRACED_SIGNALS: u32 = 100;

/// All that was measured of one init.
#[derive(Default)]
struct Samples {
    starts: Vec<f64>,
    faults: Vec<f64>,
    latencies: Vec<f64>,
    /// One vector for each number of live orphans.
    cpu: Vec<Vec<f64>>,
    rates: Vec<Vec<f64>>,
    at_start: Vec<Memory>,
    used: Vec<Memory>,
    calls_of_start: u64,
    calls_of_signals: u64,
    switches: u64,
}

/// Measures everything.
pub fn all(task: &Task, progress: &Progress) -> Result<Report, Trouble> {
    let inits = &task.inits;
    let per_live = || vec![Vec::new(); task.live.len()];
    let mut all: Vec<Samples> =
        inits.iter().map(|_| Samples { cpu: per_live(), rates: per_live(), ..Samples::default() }).collect();
    for init in inits {
        // Pages of a program that was just built and is not on the disk yet would count as dirty.
        File::open(init.words.first().ok_or_else(|| Trouble("no command".into()))?)?.sync_all()?;
    }
    progress.tell("counting system calls");
    for (init, samples) in inits.iter().zip(&mut all) {
        count_calls(init, samples)?;
    }
    let none = Init::none().map_err(Trouble)?;
    let mut floor = Vec::new();
    for round in 0..task.runs * STARTS {
        progress.step(round as usize, (task.runs * STARTS) as usize, "starts and signals");
        floor.push(microseconds(Container::start(&none)?.started()?.nanoseconds));
        for (init, samples) in inits.iter().zip(&mut all) {
            let mut container = Container::start(init)?;
            container.settle()?;
            samples.starts.push(microseconds(container.started()?.nanoseconds));
            samples.faults.push(number(container.faults()?));
            for at in 0..FIRST_SIGNALS + SIGNALS {
                let latency = microseconds(container.signal_latency()?);
                if at >= FIRST_SIGNALS {
                    samples.latencies.push(latency);
                }
            }
        }
    }
    for round in 0..task.runs {
        for (init, samples) in inits.iter().zip(&mut all) {
            progress.step(round as usize, task.runs as usize, &format!("orphans: {}", init.name));
            one_life(init, &task.live, samples)?;
        }
    }
    progress.tell(&format!("idle for {} s", task.idle));
    watch_idle(task, &mut all)?;
    progress.clear();
    let floor = median(&floor);
    let measured = inits.iter().zip(&all).map(|(init, samples)| samples.summary(init, &task.live, floor)).collect();
    Ok(Report::new(task, floor, ORPHANS, measured))
}

fn count_calls(init: &Init, samples: &mut Samples) -> Result<(), Trouble> {
    samples.calls_of_start = trace::calls_of_start(init)?;
    let mut container = Container::start(init)?;
    container.ask(Request::Die(FIRST_ORPHANS))?;
    container.settle()?;
    samples.calls_of_signals = trace::calls_of_signals(&mut container, TRACED_SIGNALS)?;
    Ok(())
}

/// The memory of an init that has worked, and orphans, more and more of them.
fn one_life(init: &Init, live: &[u32], samples: &mut Samples) -> Result<(), Trouble> {
    let mut container = Container::start(init)?;
    container.settle()?;
    samples.at_start.push(container.memory()?);
    container.ask(Request::Die(FIRST_ORPHANS))?;
    for _ in 0..MANY_SIGNALS {
        container.signal_latency()?;
    }
    container.ask(Request::Die(ORPHANS))?;
    container.settle()?;
    samples.used.push(container.memory()?);
    let mut living = 0;
    for ((live, cpu), rates) in live.iter().zip(&mut samples.cpu).zip(&mut samples.rates) {
        if *live > living {
            container.ask(Request::Live(*live - living))?;
            living = *live;
        }
        container.settle()?;
        let before = container.cpu()?;
        let nanoseconds = container.ask(Request::Die(ORPHANS))?;
        container.settle()?;
        cpu.push(microseconds(container.cpu()? - before) / f64::from(ORPHANS));
        rates.push(f64::from(ORPHANS) / Duration::from_nanos(nanoseconds).as_secs_f64());
    }
    Ok(())
}

/// All at the same time: they have nothing to do.
fn watch_idle(task: &Task, all: &mut [Samples]) -> Result<(), Trouble> {
    let mut containers = task.inits.iter().map(Container::start).collect::<Result<Vec<_>, _>>()?;
    for container in &mut containers {
        container.ask(Request::Die(FIRST_ORPHANS))?;
    }
    sleep(PUT_OFF);
    let before = containers.iter().map(Container::switches).collect::<Result<Vec<_>, _>>()?;
    sleep(Duration::from_secs(task.idle.into()));
    for ((container, before), samples) in containers.iter().zip(before).zip(all) {
        samples.switches = container.switches()? - before;
    }
    Ok(())
}

impl Samples {
    fn summary(&self, init: &Init, live: &[u32], floor: f64) -> Measured {
        let start = median(&self.starts);
        Measured {
            name: init.name.clone(),
            command: init.words.iter().take(init.own_words).map(|word| word.to_string_lossy().into_owned()).collect(),
            old_kernel: init.denied.is_some(),
            file_bytes: init.file_size(),
            start: StartCost {
                added_us: start - floor,
                total_us: start,
                page_faults: median(&self.faults),
                system_calls: number(self.calls_of_start),
            },
            signal: SignalCost {
                median_us: median(&self.latencies),
                p99_us: percentile(&self.latencies, 99).unwrap_or(0.0),
                system_calls: number(self.calls_of_signals) / f64::from(TRACED_SIGNALS),
            },
            orphans: (live.iter().zip(&self.cpu).zip(&self.rates))
                .map(|((live, cpu), rates)| Orphans { live: *live, cpu_us: median(cpu), per_second: median(rates) })
                .collect(),
            memory_at_start: resident(&self.at_start),
            memory_used: resident(&self.used),
            idle: Idle { switches: number(self.switches) },
            ratios: std::collections::BTreeMap::new(),
        }
    }
}

fn resident(samples: &[Memory]) -> Resident {
    let of =
        |field: fn(&Memory) -> u64| median(&samples.iter().map(|memory| number(field(memory))).collect::<Vec<_>>());
    Resident { rss_kb: of(|memory| memory.rss), dirty_kb: of(|memory| memory.dirty) }
}

fn microseconds(nanoseconds: u64) -> f64 {
    number(nanoseconds) / 1000.0
}

/// Counts here are far below 2^52.
#[allow(clippy::cast_precision_loss)]
fn number(count: u64) -> f64 {
    count as f64
}
