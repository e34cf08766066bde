//! Will this container behave? Starts it, looks at every process in it, stops it as an engine would, and says what was
//! wrong, and which line mends it.
#![forbid(unsafe_code)]

pub mod observation;
pub mod report;
pub mod stage;
pub mod verdict;

use std::ffi::OsString;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};

use super::progress::Progress;
use super::{Trouble, say};
use crate::signal::Signal;
use observation::{Process, Watch};
use report::{Report, Stopped};
use stage::Stage;

/// What is asked for.
#[derive(Args, Debug)]
pub struct Words {
    /// The engine that runs the image: docker, podman, or one of them with options of its own, in a shell's quoting
    #[arg(long, value_name = "COMMAND", default_value = "docker")]
    engine: String,
    /// What else stands between the engine's `create` and the image, in a shell's quoting: '-e PASSWORD=x'
    #[arg(long, value_name = "OPTIONS", default_value = "", allow_hyphen_values = true)]
    options: String,
    /// It is ready when it prints this text, or listens on this TCP port; else when nothing new happens for a second
    #[arg(long, value_name = "TEXT|PORT")]
    ready: Option<String>,
    /// How many seconds it may take until it is ready, or quiet
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    patience: u64,
    /// How many seconds a stop may take before everything is killed
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    grace: u64,
    /// The signal that stops it. Default: the image's, or TERM
    #[arg(long)]
    stop_signal: Option<Signal>,
    /// How to print the result
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// An image and its arguments; or, behind --, a command, which becomes PID 1 of namespaces of its own
    #[arg(
        required = true,
        value_name = "IMAGE [ARG...] | -- COMMAND",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    subject: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// How often to look while it starts.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// With nothing new for so long it is quiet.
const QUIET: Duration = Duration::from_secs(1);
/// A zombie that is seen twice, so far apart, is not just on its way.
const ZOMBIE_STAYS: Duration = Duration::from_millis(500);
/// From KILL to the end; no machine is so slow.
const DYING: Duration = Duration::from_mins(1);

/// Looks and tells: 0 if all is well, 1 if something is wrong, 130 if interrupted. `given` is the whole command line.
pub fn run(words: &Words, given: &[OsString]) -> Result<u8, Trouble> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }
    let before = given.len().checked_sub(words.subject.len() + 1).and_then(|at| given.get(at));
    let stage = if before.is_some_and(|word| word == "--") {
        Stage::command(&words.subject)
    } else {
        Stage::engine(&words.engine, &words.options, &words.subject)
    };
    let mut stage = match stage {
        Ok(stage) => stage,
        Err(trouble) => {
            let _ = writeln!(std::io::stderr(), "sexton-lab: {trouble}");
            return Ok(2);
        }
    };
    let mut audit = Audit { words, stage: &mut stage, interrupted: &interrupted };
    let Some(report) = audit.all(&Progress::new())? else { return Ok(130) };
    match words.format {
        Format::Text => say(report.text().trim_end())?,
        Format::Json => say(&serde_json::to_string_pretty(&report)?)?,
    }
    Ok(u8::from(report.findings.iter().any(|finding| finding.is_wrong)))
}

struct Audit<'a> {
    words: &'a Words,
    stage: &'a mut Stage,
    interrupted: &'a AtomicBool,
}

/// What its start came to.
enum Start {
    Ready,
    /// It goes on making processes or using the CPU, or never says that it is ready.
    Restless,
    Over,
}

impl Audit<'_> {
    /// All of it; `None`: somebody wants us to end.
    fn all(&mut self, progress: &Progress) -> Result<Option<Report>, Trouble> {
        let began = Instant::now();
        progress.tell("waiting until it is quiet");
        let start = self.wait_until_ready()?;
        if self.is_interrupted() {
            return Ok(None);
        }
        let mut report = Report::new(self.stage, self.words.stop_signal, began.elapsed());
        report.ready = matches!(start, Start::Ready);
        report.ready_was_asked = self.words.ready.is_some();
        if matches!(start, Start::Over) {
            report.stopped =
                Stopped { exit_code: self.stage.exit_code()?, ended_by_itself: true, ..Stopped::default() };
        } else {
            report.processes = self.look_twice();
            progress.tell("stopping it");
            if let Some(stopped) = self.stop(report.signal(), &mut report.processes)? {
                report.stopped = stopped;
            } else {
                return Ok(None);
            }
        }
        report.judge();
        Ok(Some(report))
    }

    fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    fn wait_until_ready(&mut self) -> Result<Start, Trouble> {
        let deadline = Instant::now() + Duration::from_secs(self.words.patience);
        let mut calm_since = Instant::now();
        let mut activity = (Vec::new(), 0);
        while Instant::now() < deadline && !self.is_interrupted() {
            if self.stage.is_over()? {
                return Ok(Start::Over);
            }
            let now = observation::activity(self.stage.pid1());
            // A process more or less, or more than a twentieth of a CPU.
            if now.0 != activity.0 || now.1 > activity.1 + observation::ticks(QUIET) / 20 {
                activity = now;
                calm_since = Instant::now();
            }
            let is_ready = match &self.words.ready {
                None => calm_since.elapsed() >= QUIET,
                Some(ready) => match ready.parse::<u16>() {
                    Ok(port) => observation::listens(self.stage.pid1(), port),
                    Err(_) => self.stage.output()?.contains(ready.as_str()),
                },
            };
            if is_ready {
                return Ok(Start::Ready);
            }
            self.stage.drain();
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(Start::Restless)
    }

    /// Every process, the zombies among them only if they stay.
    fn look_twice(&mut self) -> Vec<Process> {
        let first = observation::all(self.stage.pid1());
        if first.iter().any(Process::is_zombie) {
            std::thread::sleep(ZOMBIE_STAYS);
        }
        let second = observation::all(self.stage.pid1());
        let stays = |process: &Process| first.iter().any(|earlier| earlier.pid == process.pid && earlier.is_zombie());
        second.into_iter().filter(|process| !process.is_zombie() || stays(process)).collect()
    }

    /// Stops it, and watches each process end.
    fn stop(&mut self, signal: Signal, processes: &mut [Process]) -> Result<Option<Stopped>, Trouble> {
        let mut watch = Watch::new(processes);
        let grace = Duration::from_secs(self.words.grace);
        let began = Instant::now();
        self.stage.begin_stop(signal)?;
        let mut was_killed = false;
        while !self.stage.is_over()? {
            watch.look(processes, self.stage.pid1(), began);
            if self.is_interrupted() {
                return Ok(None);
            }
            if !was_killed && began.elapsed() >= grace {
                was_killed = true;
                watch.mark_stubborn(processes);
                self.stage.kill()?;
            }
            if began.elapsed() >= grace + DYING {
                return Err(Trouble(format!("it does not die of KILL in {} s: look for state D", DYING.as_secs())));
            }
            self.stage.drain();
        }
        let took = began.elapsed();
        watch.close(processes, took);
        Ok(Some(Stopped {
            signal: signal.to_string(),
            seconds: took.as_secs_f64(),
            was_killed,
            exit_code: self.stage.exit_code()?,
            ended_by_itself: false,
            out_of_memory: self.stage.out_of_memory(),
        }))
    }
}
