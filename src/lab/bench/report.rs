//! The result, as a table for people and as JSON for programs.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use serde::Serialize;

use super::Task;

/// Everything.
#[derive(Serialize, Debug)]
pub struct Report {
    /// `uname -r`.
    pub kernel: String,
    /// The processor's name.
    pub processor: String,
    /// How many CPUs there are.
    pub cpus: usize,
    /// The one that everything was kept on, if it was.
    pub kept_on_cpu: Option<usize>,
    /// Rounds.
    pub runs: u32,
    /// The init that ratios are to.
    pub base: String,
    /// Microseconds from an exec to the first act of the command where no init is between.
    pub start_without_init_us: f64,
    /// Orphans that died for each sample.
    pub orphans_each: u32,
    /// Seconds without work.
    pub idle_seconds: u32,
    /// The base first.
    pub inits: Vec<Measured>,
}

/// One init. Medians of all rounds, if nothing else is said.
#[derive(Serialize, Debug)]
pub struct Measured {
    /// As given, or its file's name and options.
    pub name: String,
    /// Program and options.
    pub command: Vec<String>,
    /// It ran under a filter that refuses calls newer than Linux 5.0.
    pub old_kernel: bool,
    /// The size of the program.
    pub file_bytes: u64,
    /// From its exec to the command's.
    pub start: StartCost,
    /// From kill(2) to the command's handler.
    pub signal: SignalCost,
    /// Reaping, at each number of live orphans.
    pub orphans: Vec<Orphans>,
    /// Memory when the command runs.
    pub memory_at_start: Resident,
    /// Memory after 1,000 signals and 1,000 orphans.
    pub memory_used: Resident,
    /// Without work.
    pub idle: Idle,
    /// Each number by that of the base; null where that is 0.
    pub ratios: BTreeMap<String, Option<f64>>,
}

/// From the exec of the init to the first act of its command.
#[derive(Serialize, Debug)]
pub struct StartCost {
    /// Microseconds more than without an init.
    pub added_us: f64,
    /// Microseconds.
    pub total_us: f64,
    /// Minor page faults of the init, until it waits.
    pub page_faults: f64,
    /// System calls until the init waits, with those of the process that becomes the command.
    pub system_calls: f64,
}

/// A signal that is forwarded.
#[derive(Serialize, Debug)]
pub struct SignalCost {
    /// Microseconds.
    pub median_us: f64,
    /// Microseconds that 99 of 100 stay below.
    pub p99_us: f64,
    /// System calls of the init for each signal.
    pub system_calls: f64,
}

/// Reaping orphans that die as fast as they can be made.
#[derive(Serialize, Debug)]
pub struct Orphans {
    /// How many others lived meanwhile.
    pub live: u32,
    /// Microseconds of the init's CPU time for each.
    pub cpu_us: f64,
    /// How many a second were made, and gone.
    pub per_second: f64,
}

/// Memory.
#[derive(Serialize, Debug)]
pub struct Resident {
    /// Resident, what is shared with others included, in kB.
    pub rss_kb: f64,
    /// Private and written to, in kB.
    pub dirty_kb: f64,
}

/// Without work.
#[derive(Serialize, Debug)]
pub struct Idle {
    /// How often the init ran.
    pub switches: f64,
}

/// A number of an init, under the name that it has in `ratios`.
type Number = (&'static str, &'static str, usize, fn(&Measured) -> f64);

/// Name, head of its column, decimals.
const START: [Number; 4] = [
    ("start.added_us", "added µs", 0, |init| init.start.added_us),
    ("start.page_faults", "page faults", 0, |init| init.start.page_faults),
    ("start.system_calls", "system calls", 0, |init| init.start.system_calls),
    ("file_bytes", "file kB", 0, kilobytes),
];
const SIGNAL: [Number; 3] = [
    ("signal.median_us", "median µs", 1, |init| init.signal.median_us),
    ("signal.p99_us", "p99 µs", 1, |init| init.signal.p99_us),
    ("signal.system_calls", "system calls", 2, |init| init.signal.system_calls),
];
const MEMORY: [Number; 5] = [
    ("memory_at_start.rss_kb", "RSS", 0, |init| init.memory_at_start.rss_kb),
    ("memory_at_start.dirty_kb", "dirty", 0, |init| init.memory_at_start.dirty_kb),
    ("memory_used.rss_kb", "RSS later", 0, |init| init.memory_used.rss_kb),
    ("memory_used.dirty_kb", "dirty later", 0, |init| init.memory_used.dirty_kb),
    ("idle.switches", "wake-ups", 0, |init| init.idle.switches),
];

#[allow(clippy::cast_precision_loss)] // No program has 2^52 bytes.
fn kilobytes(init: &Measured) -> f64 {
    init.file_bytes as f64 / 1000.0
}

impl Report {
    /// Puts it together, ratios included.
    pub fn new(task: &Task, floor: f64, orphans_each: u32, mut inits: Vec<Measured>) -> Self {
        let all = inits.iter().map(Measured::numbers).collect::<Vec<_>>();
        for (init, numbers) in inits.iter_mut().zip(&all) {
            let base = all.first().unwrap_or(numbers);
            init.ratios = numbers
                .iter()
                .zip(base)
                .map(|((name, value), (_, base))| (name.clone(), ratio(*value, *base)))
                .collect();
        }
        let (kernel, processor, cpus) = machine();
        Self {
            kernel,
            processor,
            cpus,
            kept_on_cpu: task.cpu,
            runs: task.runs,
            base: inits.first().map(|init| init.name.clone()).unwrap_or_default(),
            start_without_init_us: floor,
            orphans_each,
            idle_seconds: task.idle,
            inits,
        }
    }

    /// For people.
    pub fn table(&self) -> String {
        let place = self.kept_on_cpu.map_or_else(|| "not pinned".to_owned(), |cpu| format!("all on CPU {cpu}"));
        let mut text = format!(
            "Linux {}, {} × {}, {place}; {} rounds, medians; (ratio to {})\n",
            self.kernel, self.cpus, self.processor, self.runs, self.base
        );
        let floor = self.start_without_init_us;
        text +=
            &format!("\nStart: what the init adds from its exec to its command's start ({floor:.0} µs without init)\n");
        text += &self.numbers(&START);
        text += "\nSignal: from kill(2) to the command's handler\n";
        text += &self.numbers(&SIGNAL);
        text += "\nOrphans: µs of the init's CPU for each that dies while so many others live\n";
        text += &self.growth(1, |orphans| orphans.cpu_us);
        text += "\nOrphans a second, made and gone, as fast as they can be made\n";
        text += &self.growth(0, |orphans| orphans.per_second);
        let seconds = self.idle_seconds;
        text += &format!("\nMemory in kB, at the start and after signals and orphans; wake-ups in {seconds} idle s\n");
        text += &self.numbers(&MEMORY);
        text
    }

    fn numbers(&self, columns: &[Number]) -> String {
        let heads = columns.iter().map(|(_, head, ..)| (*head).to_owned()).collect();
        let rows = self.inits.iter().map(|init| {
            columns.iter().map(|(.., decimals, of)| self.cell(*decimals, init, |init| Some(of(init)))).collect()
        });
        aligned(heads, self.inits.iter().map(|init| init.name.clone()), rows)
    }

    fn growth(&self, decimals: usize, of: fn(&Orphans) -> f64) -> String {
        let live = self.inits.first().map_or(&[][..], |init| &init.orphans);
        let heads = live.iter().map(|orphans| format!("{} live", orphans.live)).collect();
        let rows = self.inits.iter().map(|init| {
            (0..live.len()).map(|at| self.cell(decimals, init, |init| init.orphans.get(at).map(of))).collect()
        });
        aligned(heads, self.inits.iter().map(|init| init.name.clone()), rows)
    }

    /// A number and its ratio.
    fn cell(&self, decimals: usize, init: &Measured, of: impl Fn(&Measured) -> Option<f64>) -> String {
        let value = of(init).unwrap_or(0.0);
        let base = self.inits.first().and_then(of).unwrap_or(0.0);
        let ratio = ratio(value, base).map_or_else(|| "(  – )".to_owned(), |ratio| format!("({ratio:.2})"));
        format!("{value:.decimals$} {ratio}")
    }
}

/// The kernel's release, the processor's name, and how many CPUs there are: not those that we may use, which is one.
pub fn machine() -> (String, String, usize) {
    let text = |path| std::fs::read_to_string(path).unwrap_or_default();
    let info = text("/proc/cpuinfo");
    let processor =
        info.lines().find_map(|line| Some(line.strip_prefix("model name")?.split_once(':')?.1.trim().to_owned()));
    let cpus = info.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = text("/proc/sys/kernel/osrelease").trim().to_owned();
    (kernel, processor.unwrap_or_else(|| std::env::consts::ARCH.to_owned()), cpus)
}

/// `None`: the base is 0.
pub fn ratio(value: f64, base: f64) -> Option<f64> {
    (base.abs() > f64::EPSILON).then(|| value / base)
}

/// A table: a head over each column, a name before each row.
pub fn aligned(
    heads: Vec<String>,
    names: impl Iterator<Item = String>,
    rows: impl Iterator<Item = Vec<String>>,
) -> String {
    let names: Vec<_> = [String::new()].into_iter().chain(names).collect();
    let wide = |text: &String| text.chars().count();
    let first = names.iter().map(wide).max().unwrap_or(0);
    let rows: Vec<_> = [heads].into_iter().chain(rows).collect();
    let mut text = String::new();
    for (name, row) in names.iter().zip(&rows) {
        let mut line = format!("  {name:first$}");
        for (at, cell) in row.iter().enumerate() {
            let width = rows.iter().filter_map(|row| row.get(at)).map(wide).max().unwrap_or(0);
            line += &format!("  {cell:>width$}");
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

impl Measured {
    /// All numbers that ratios are told of.
    fn numbers(&self) -> Vec<(String, f64)> {
        let plain = [&START[..], &SIGNAL, &MEMORY].concat();
        let mut numbers: Vec<_> = plain.iter().map(|(name, .., of)| ((*name).to_owned(), of(self))).collect();
        for orphans in &self.orphans {
            numbers.push((format!("orphans.{}.cpu_us", orphans.live), orphans.cpu_us));
            numbers.push((format!("orphans.{}.per_second", orphans.live), orphans.per_second));
        }
        numbers
    }
}
