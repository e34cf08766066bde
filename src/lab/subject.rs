//! Things to put under an init. Each says `ready` on stdout first, and is as good or as bad a child as its name says.
#![forbid(unsafe_code)]

pub mod broken_init;
pub mod probe;

use std::ffi::OsString;
use std::io::Read;
use std::mem::MaybeUninit;
use std::thread::sleep;
use std::time::Duration;

use clap::Subcommand;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{Pid, getpid, getppid, setsid};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;

use super::{Trouble, load, say};
use crate::signal::Signal;
use crate::sys::lab::{Forked, fork, pause, zombie};
use crate::sys::process::exit;
use crate::sys::signal::{BATCH, Disposition, SignalFd, SignalSet, kill, set_disposition, set_mask};

/// What it is.
#[derive(Subcommand, Debug)]
pub enum Kind {
    /// Catches signals with handlers and prints each with its sender; ends on TERM with 0
    Trap {
        /// Do not end on TERM
        #[arg(long)]
        stay: bool,
        /// Which signals; default: HUP INT QUIT USR1 USR2 TERM WINCH CONT
        signals: Vec<Signal>,
    },
    /// Prints all 64 signals as they come: `number code value sender`; ends on KILL only, or after `--count`
    Receive {
        /// End with 0 after so many
        #[arg(long)]
        count: Option<usize>,
    },
    /// Ignores these signals and waits for stdin's end or a signal
    Ignore {
        /// Which
        #[arg(required = true)]
        signals: Vec<Signal>,
    },
    /// Has all defaults and waits for a signal
    Default,
    /// Prints what it was started with, as JSON, and ends
    Status,
    /// Makes children that it never waits for, then waits for a signal
    Zombie {
        /// How many
        #[arg(long, default_value_t = 1)]
        count: u32,
    },
    /// Makes orphans
    Orphan {
        /// How many
        #[arg(long, default_value_t = 1)]
        count: u32,
        /// How many a second; 0: as many as it can
        #[arg(long, default_value_t = 0)]
        rate: u32,
        /// How many milliseconds each lives after its parent's end
        #[arg(long, default_value_t = 0)]
        lifetime: u64,
        /// Wait for a signal when done, having said `done`
        #[arg(long)]
        stay: bool,
        /// End with this code when done
        #[arg(long, default_value_t = 0)]
        code: u8,
    },
    /// Ends at once and leaves a daemon in a session of its own, which runs this command
    Daemonize {
        /// The daemon's command
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Ends so long after TERM, or never
    Stubborn {
        /// Milliseconds from TERM to the end; absent: never
        #[arg(long)]
        after: Option<u64>,
        /// What to print at the end
        #[arg(long)]
        say: Option<String>,
        /// In a session of its own, and in the background: it is left behind by its parent, which ends with 0
        #[arg(long)]
        left_behind: bool,
    },
    /// Stops itself, then ends with 0 when continued
    Stop,
    /// Ends with a code or by a signal
    Exit {
        /// The code
        #[arg(default_value_t = 0)]
        code: u8,
        /// The signal
        #[arg(long)]
        signal: Option<Signal>,
    },
    /// Ends in the same instant as an orphan of its own
    ExitRace {
        /// The code
        code: u8,
        /// How many orphans
        #[arg(long, default_value_t = 1)]
        count: u32,
    },
    /// Takes memory
    EatMemory(load::Memory),
    /// Uses a CPU
    BurnCpu(load::Cpu),
    /// Makes processes that make processes
    ForkBomb(load::Bomb),
    /// Writes to a disk
    Write(load::Disk),
    /// Be an init, with faults
    BrokenInit(broken_init::Faults),
    /// What one conformance case needs
    #[command(flatten)]
    Probe(probe::Kind),
}

/// Is what was asked for; returns the exit code.
pub fn run(kind: &Kind) -> Result<u8, Trouble> {
    match kind {
        Kind::Trap { stay, signals } => trap(*stay, signals),
        Kind::Receive { count } => receive(*count),
        Kind::Ignore { signals } => ignore(signals),
        Kind::Default => {
            for signal in Signal::all() {
                set_disposition(signal, Disposition::Default);
            }
            set_mask(SignalSet::EMPTY);
            say("ready")?;
            Ok(pause())
        }
        Kind::Status => status(),
        Kind::Zombie { count } => {
            for _ in 0..*count {
                zombie()?;
            }
            say("ready")?;
            Ok(pause())
        }
        Kind::Orphan { count, rate, lifetime, stay, code } => orphans(*count, *rate, *lifetime, *stay, *code),
        Kind::Daemonize { command } => daemonize(command),
        Kind::Stubborn { after, say, left_behind } => stubborn(*after, say.as_deref(), *left_behind),
        Kind::Stop => {
            say("ready")?;
            kill(getpid().as_raw(), Some(Signal::STOP))?;
            say("continued")?;
            Ok(0)
        }
        Kind::Exit { code, signal } => {
            if let Some(signal) = signal {
                set_disposition(*signal, Disposition::Default);
                set_mask(SignalSet::EMPTY);
                kill(getpid().as_raw(), Some(*signal))?;
            }
            Ok(*code)
        }
        Kind::ExitRace { code, count } => exit_race(*code, *count),
        Kind::EatMemory(asked) => load::eat_memory(asked),
        Kind::BurnCpu(asked) => load::burn_cpu(asked),
        Kind::ForkBomb(asked) => load::fork_bomb(asked),
        Kind::Write(asked) => load::write(asked),
        Kind::BrokenInit(faults) => broken_init::run(faults),
        Kind::Probe(kind) => probe::run(kind),
    }
}

fn trap(stay: bool, signals: &[Signal]) -> Result<u8, Trouble> {
    let usual = [1, 2, 3, 10, 12, 15, 18, 28];
    let numbers: Vec<i32> =
        if signals.is_empty() { usual.to_vec() } else { signals.iter().map(|signal| signal.number()).collect() };
    let mut caught = SignalsInfo::<WithOrigin>::new(numbers)?;
    say("ready")?;
    for origin in &mut caught {
        let sender = origin.process.map_or(0, |process| process.pid);
        let signal =
            Signal::new(i64::from(origin.signal)).ok_or_else(|| Trouble("a signal without a number".into()))?;
        say(&format!("{signal} {} {sender}", origin.signal))?;
        if signal == Signal::TERM && !stay {
            return Ok(0);
        }
    }
    Ok(0)
}

fn receive(count: Option<usize>) -> Result<u8, Trouble> {
    set_mask(SignalSet::FULL);
    let signals = SignalFd::open()?;
    say("ready")?;
    let mut seen = 0;
    let mut buffer = [const { MaybeUninit::uninit() }; BATCH];
    while count.is_none_or(|count| seen < count) {
        poll(&mut [PollFd::new(signals.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE)?;
        let got = signals.read(&mut buffer);
        for info in SignalFd::filled(&buffer, got) {
            say(&format!("{} {} {} {}", info.ssi_signo, info.ssi_code, info.ssi_ptr, info.ssi_pid))?;
        }
        seen += got;
    }
    Ok(0)
}

fn ignore(signals: &[Signal]) -> Result<u8, Trouble> {
    for signal in signals {
        set_disposition(*signal, Disposition::Ignore);
    }
    say("ready")?;
    Ok(pause())
}

/// `/proc/self/status` has masks and dispositions as they came; the rest is asked for.
fn status() -> Result<u8, Trouble> {
    let mut text = String::new();
    std::fs::File::open("/proc/self/status")?.read_to_string(&mut text)?;
    let mut fields = vec![
        ("pid", getpid().to_string()),
        ("ppid", getppid().to_string()),
        ("pgid", nix::unistd::getpgrp().to_string()),
        ("sid", nix::unistd::getsid(None)?.to_string()),
        ("foreground", nix::unistd::tcgetpgrp(std::io::stdin()).map_or(-1, Pid::as_raw).to_string()),
        ("cwd", quoted(&std::env::current_dir()?.to_string_lossy())),
        ("fds", format!("[{}]", open_descriptors()?.join(","))),
        (
            "env",
            format!(
                "[{}]",
                std::env::vars_os()
                    .map(|(k, v)| quoted(&format!("{}={}", k.display(), v.display())))
                    .collect::<Vec<_>>()
                    .join(",")
            ),
        ),
    ];
    for (name, key) in [("blocked", "SigBlk"), ("ignored", "SigIgn"), ("caught", "SigCgt"), ("capabilities", "CapEff")]
    {
        let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).unwrap_or("").trim();
        fields.push((name, quoted(value)));
    }
    let pairs: Vec<_> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    say(&format!("{{{}}}", pairs.join(",")))?;
    Ok(0)
}

/// The descriptors that were open before we looked.
fn open_descriptors() -> Result<Vec<String>, Trouble> {
    let mut numbers: Vec<u32> = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        let is_the_listing = std::fs::read_link(entry.path()).is_ok_and(|to| to.starts_with("/proc"));
        if let Ok(number) = entry.file_name().to_string_lossy().parse()
            && !is_the_listing
        {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers.iter().map(u32::to_string).collect())
}

/// A JSON string.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            control if control.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(control))),
            other => quoted.push(other),
        }
    }
    quoted + "\""
}

fn orphans(count: u32, rate: u32, lifetime: u64, stay: bool, code: u8) -> Result<u8, Trouble> {
    say("ready")?;
    let pause_between = if rate == 0 { Duration::ZERO } else { Duration::from_secs(1) / rate };
    for _ in 0..count {
        // A child that leaves a grandchild behind and ends; only the child is ours to wait for.
        match fork()? {
            Forked::Child => {
                if let Ok(Forked::Child) = fork() {
                    sleep(Duration::from_millis(lifetime));
                }
                exit(0);
            }
            Forked::Parent(child) => nix::sys::wait::waitpid(Pid::from_raw(child), None)?,
        };
        sleep(pause_between);
    }
    say("done")?;
    Ok(if stay { pause() } else { code })
}

fn daemonize(command: &[OsString]) -> Result<u8, Trouble> {
    use std::os::unix::process::CommandExt;
    say("ready")?;
    if let Forked::Child = fork()? {
        setsid()?;
        if let (Forked::Child, Some((program, arguments))) = (fork()?, command.split_first()) {
            let error = std::process::Command::new(program).args(arguments).exec();
            return Err(error.into());
        }
    }
    Ok(0)
}

fn stubborn(after: Option<u64>, word: Option<&str>, left_behind: bool) -> Result<u8, Trouble> {
    if left_behind {
        let (ready, tell) = nix::unistd::pipe()?;
        if let Forked::Parent(_) = fork()? {
            drop(tell);
            // The daemon closes its end once it listens for TERM.
            std::fs::File::from(ready).read_to_end(&mut Vec::new())?;
            say("ready")?;
            return Ok(0);
        }
        setsid()?;
        drop(ready);
        let mut caught = SignalsInfo::<WithOrigin>::new([Signal::TERM.number()])?;
        drop(tell);
        return end_after_term(&mut caught, after, word);
    }
    let mut caught = SignalsInfo::<WithOrigin>::new([Signal::TERM.number()])?;
    say("ready")?;
    end_after_term(&mut caught, after, word)
}

fn end_after_term(caught: &mut SignalsInfo<WithOrigin>, after: Option<u64>, word: Option<&str>) -> Result<u8, Trouble> {
    for _ in caught {
        if let Some(after) = after {
            sleep(Duration::from_millis(after));
            if let Some(word) = word {
                say(word)?;
            }
            return Ok(0);
        }
    }
    Ok(0)
}

fn exit_race(code: u8, count: u32) -> Result<u8, Trouble> {
    let (wait, go) = nix::unistd::pipe()?;
    for _ in 0..count {
        match fork()? {
            Forked::Child => {
                if let Ok(Forked::Child) = fork() {
                    drop(go);
                    let _ = std::fs::File::from(wait).read(&mut [0]);
                }
                exit(0);
            }
            Forked::Parent(child) => nix::sys::wait::waitpid(Pid::from_raw(child), None)?,
        };
    }
    say("ready")?;
    // All ends of the pipe close with this process: its orphans end when it does.
    exit(code)
}
