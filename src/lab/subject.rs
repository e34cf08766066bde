//! Things to put under an init. Each says `ready` on stdout first, and is as good or as bad a child as its name says.
#![forbid(unsafe_code)]

pub mod broken_init;
pub mod probe;
pub mod status;

use std::ffi::OsString;
use std::io::Read;
use std::mem::MaybeUninit;
use std::thread::sleep;
use std::time::Duration;

use clap::{Args, Subcommand};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{Pid, getpid, getppid, setsid};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::{SignalOnly, WithRawSiginfo};

use super::{Trouble, load, say};
use crate::signal::Signal;
use crate::sys::lab::{Caught, Forked, caught_of, fork, pause, suspending_fork, zombie};
use crate::sys::process::exit;
use crate::sys::signal::{BATCH, Disposition, SignalFd, SignalSet, kill, set_disposition, set_mask};

/// What it is.
#[derive(Subcommand, Debug)]
pub enum Kind {
    /// Catches signals with handlers and prints each: `name number value sender`; ends on TERM with 0
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
    /// Prints what it was started with, as JSON, and ends: no `ready`, for the reader wants all of it
    Status,
    /// Makes children that it never waits for, then waits for a signal
    Zombie {
        /// How many
        #[arg(long, default_value_t = 1)]
        count: u32,
    },
    /// Makes orphans
    Orphan(Orphans),
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
    /// Waits uninterruptibly (state D), as on a disk that is gone: counts for the load average, and only KILL ends it
    SleepD {
        /// For so many milliseconds; absent: for ever
        #[arg(long)]
        millis: Option<u64>,
    },
    /// Becomes a session's leader and runs this command, or waits for a signal
    Setsid {
        /// The command
        #[arg(last = true)]
        command: Vec<OsString>,
    },
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

/// What orphans.
#[derive(Args, Debug)]
pub struct Orphans {
    /// How many
    #[arg(long, default_value_t = 1)]
    count: u32,
    /// How many a second; 0: as many as it can
    #[arg(long, default_value_t = 0)]
    rate: u32,
    /// How many milliseconds each lives after its parent's end
    #[arg(long, default_value_t = 0)]
    lifetime: u64,
    /// Each is the last of so many generations of which all others end at once: each of them an orphan or its maker
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    depth: u32,
    /// Wait for a signal when done, having said `done`
    #[arg(long)]
    stay: bool,
    /// End with this code when done
    #[arg(long, default_value_t = 0)]
    code: u8,
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
        Kind::Status => status::print(),
        Kind::Zombie { count } => {
            for _ in 0..*count {
                zombie()?;
            }
            say("ready")?;
            Ok(pause())
        }
        Kind::Orphan(asked) => orphans(asked),
        Kind::Daemonize { command } => daemonize(command),
        Kind::Stubborn { after, say, left_behind } => stubborn(*after, say.as_deref(), *left_behind),
        Kind::Stop => {
            say("ready")?;
            kill(getpid().as_raw(), Some(Signal::STOP))?;
            say("continued")?;
            Ok(0)
        }
        Kind::SleepD { millis } => sleep_uninterruptibly(*millis),
        Kind::Setsid { command } => lead_session(command),
        Kind::Exit { code, signal } => {
            say("ready")?;
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
    let mut caught = SignalsInfo::<WithRawSiginfo>::new(numbers)?;
    say("ready")?;
    for info in &mut caught {
        let Caught { number, value, sender } = caught_of(&info);
        let signal = Signal::new(i64::from(number)).ok_or_else(|| Trouble("a signal without a number".into()))?;
        say(&format!("{signal} {number} {value} {sender}"))?;
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

fn orphans(asked: &Orphans) -> Result<u8, Trouble> {
    say("ready")?;
    let pause_between = if asked.rate == 0 { Duration::ZERO } else { Duration::from_secs(1) / asked.rate };
    for _ in 0..asked.count {
        // A child that leaves a grandchild behind and ends; only the child is ours to wait for.
        match fork()? {
            Forked::Child => {
                for _ in 0..asked.depth {
                    if let Ok(Forked::Parent(_)) | Err(_) = fork() {
                        exit(0);
                    }
                }
                sleep(Duration::from_millis(asked.lifetime));
                exit(0);
            }
            Forked::Parent(child) => nix::sys::wait::waitpid(Pid::from_raw(child), None)?,
        };
        sleep(pause_between);
    }
    say("done")?;
    Ok(if asked.stay { pause() } else { asked.code })
}

fn daemonize(command: &[OsString]) -> Result<u8, Trouble> {
    say("ready")?;
    if let Forked::Child = fork()? {
        setsid()?;
        if let Forked::Child = fork()? {
            return become_command(command);
        }
    }
    Ok(0)
}

fn lead_session(command: &[OsString]) -> Result<u8, Trouble> {
    // The leader of a group cannot become a session's (setsid(2)); its child can, and the group waits for it.
    if nix::unistd::getpgrp() == getpid()
        && let Forked::Parent(child) = fork()?
    {
        return Ok(match nix::sys::wait::waitpid(Pid::from_raw(child), None)? {
            nix::sys::wait::WaitStatus::Exited(_, code) => code.to_le_bytes()[0],
            _ => 1,
        });
    }
    setsid()?;
    say("ready")?;
    if command.is_empty() { Ok(pause()) } else { become_command(command) }
}

fn become_command(command: &[OsString]) -> Result<u8, Trouble> {
    use std::os::unix::process::CommandExt;
    let (program, arguments) = command.split_first().ok_or_else(|| Trouble("no command".into()))?;
    Err(std::process::Command::new(program).args(arguments).exec().into())
}

/// The parent of a vfork(2) waits so for its child's end, and any user may do it. All is blocked, or else each deadly
/// signal would end it as KILL does (kernel/signal.c, complete_signal); the child has this mask too.
fn sleep_uninterruptibly(millis: Option<u64>) -> Result<u8, Trouble> {
    let own = getpid();
    set_mask(SignalSet::FULL);
    say("ready")?;
    if let Forked::Child = suspending_fork()? {
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
        if getppid() == own {
            sleep(millis.map_or(Duration::MAX, Duration::from_millis));
        }
        exit(0);
    }
    say("done")?;
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
        let mut caught = SignalsInfo::<SignalOnly>::new([Signal::TERM.number()])?;
        drop(tell);
        return end_after_term(&mut caught, after, word);
    }
    let mut caught = SignalsInfo::<SignalOnly>::new([Signal::TERM.number()])?;
    say("ready")?;
    end_after_term(&mut caught, after, word)
}

fn end_after_term(caught: &mut SignalsInfo<SignalOnly>, after: Option<u64>, word: Option<&str>) -> Result<u8, Trouble> {
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
