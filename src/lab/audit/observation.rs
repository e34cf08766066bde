//! What /proc tells of the processes in a container, before and while it is stopped.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;

use crate::lab::processes::status_field;
use crate::procfs;
use crate::signal::Signal;
use crate::sys::process::{WaitStatus, pidfd_open, pidfd_status};

/// What a process does with a signal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Disposition {
    /// The kernel does: it ends the process or, if that is PID 1, nothing.
    Default,
    /// Nothing.
    Ignored,
    /// It has a handler, or has blocked it, and so waits for it.
    Caught,
}

/// How a process ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case", tag = "how")]
pub enum End {
    /// It was a zombie from the beginning.
    Dead,
    /// By itself, with this code.
    Exited {
        /// Its exit code.
        code: u8,
    },
    /// By this signal.
    Signaled {
        /// Which.
        signal: String,
    },
    /// Before PID 1, by itself or by a signal: this kernel does not tell (Linux 6.15 does).
    Unknown,
    /// Together with PID 1. Whether the kernel had to kill it, this kernel does not tell (Linux 6.15 does).
    Together,
    /// The kernel killed it, as PID 1 ended or the time was up.
    Killed,
}

/// A process in the container.
#[derive(Clone, Debug, Serialize)]
pub struct Process {
    /// Inside.
    pub pid: i32,
    /// Inside; 0: outside.
    pub parent: i32,
    /// Its program's name.
    pub name: String,
    /// As proc_pid_stat(5) has it.
    pub state: char,
    /// Of the signals that stop things.
    pub dispositions: BTreeMap<String, Disposition>,
    /// How it ended.
    pub end: Option<End>,
    /// Milliseconds from the stop signal to its end.
    pub ended_after_ms: Option<u128>,
    /// It lived when the time was up.
    pub outlived_grace: bool,
    #[serde(skip)]
    outside: i32,
}

/// What a stop may be made of.
pub const STOPS: [Signal; 4] = [Signal::TERM, Signal::INT, Signal::QUIT, Signal::HUP];

impl Process {
    /// Whether it is dead and nobody has waited for it.
    pub fn is_zombie(&self) -> bool {
        self.state == 'Z'
    }

    /// What it does with this signal.
    pub fn on(&self, signal: Signal) -> Disposition {
        self.dispositions.get(&signal.to_string()).copied().unwrap_or(Disposition::Default)
    }

    /// One that nobody started.
    #[cfg(test)]
    pub fn for_test(pid: i32, parent: i32, name: &str, state: char, term: Disposition) -> Self {
        Self {
            pid,
            parent,
            name: name.to_owned(),
            state,
            dispositions: [(Signal::TERM.to_string(), term)].into(),
            end: None,
            ended_after_ms: None,
            outlived_grace: false,
            outside: 0,
        }
    }

    fn look(outside: i32, of: &BTreeMap<i32, i32>) -> Option<Self> {
        let stat = procfs::stat(outside)?;
        let inside = *of.get(&outside)?;
        let mask = |field: &str| {
            status_field(outside, field).and_then(|text| u64::from_str_radix(&text, 16).ok()).unwrap_or(0)
        };
        let (caught, ignored, blocked) = (mask("SigCgt"), mask("SigIgn"), mask("SigBlk"));
        let has = |mask: u64, signal: Signal| mask >> (signal.number() - 1) & 1 == 1;
        let disposition = |signal| {
            if has(ignored, signal) {
                Disposition::Ignored
            } else if has(caught, signal) || has(blocked, signal) {
                // What is blocked is waited for by other means (signalfd(2), sigwait(3)), in the usual case.
                Disposition::Caught
            } else {
                Disposition::Default
            }
        };
        let state = char::from(stat.state);
        Some(Self {
            pid: inside,
            parent: of.get(&stat.parent).copied().unwrap_or(0),
            name: status_field(outside, "Name").unwrap_or_default(),
            state,
            dispositions: STOPS.iter().map(|signal| (signal.to_string(), disposition(*signal))).collect(),
            end: (state == 'Z').then_some(End::Dead),
            ended_after_ms: None,
            outlived_grace: false,
            outside,
        })
    }
}

/// The processes in PID 1's namespace: their numbers out here, and in there.
fn members(pid1: i32) -> BTreeMap<i32, i32> {
    let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let Some(own) = namespace(pid1) else { return BTreeMap::new() };
    let mut members = BTreeMap::new();
    let _ = procfs::each(|pid| {
        if is_member(pid, pid1, &own, namespace(pid))
            && let Some(inside) = status_field(pid, "NSpid").and_then(|text| text.split('\t').next_back()?.parse().ok())
        {
            members.insert(pid, inside);
        }
    });
    members
}

/// A zombie has no namespace that could be read: then its parent's counts.
fn is_member(pid: i32, pid1: i32, own: &PathBuf, namespace: Option<PathBuf>) -> bool {
    match namespace {
        Some(namespace) => namespace == *own,
        None => procfs::stat(pid).is_some_and(|stat| stat.state == b'Z' && procfs::is_below(stat, pid, pid1)),
    }
}

/// Every process of the container, in the order of their numbers inside.
pub fn all(pid1: i32) -> Vec<Process> {
    let members = members(pid1);
    let mut all: Vec<_> = members.keys().filter_map(|pid| Process::look(*pid, &members)).collect();
    all.sort_by_key(|process| process.pid);
    all
}

/// Which processes there are, and the clock ticks that they have used.
pub fn activity(pid1: i32) -> (Vec<i32>, u64) {
    let all: Vec<_> = members(pid1).into_keys().collect();
    let used = |pid: &i32| -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // proc_pid_stat(5): utime and stime are fields 14 and 15, the third is the first behind the name.
        let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
        Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
    };
    let ticks = all.iter().filter_map(used).sum();
    (all, ticks)
}

/// Clock ticks in a time: 100 a second (`USER_HZ`).
pub fn ticks(time: Duration) -> u64 {
    time.as_secs() * 100
}

/// Whether something in PID 1's network listens on this TCP port.
pub fn listens(pid1: i32, port: u16) -> bool {
    let wanted = format!(":{port:04X}");
    ["tcp", "tcp6"].iter().any(|file| {
        let text = fs::read_to_string(format!("/proc/{pid1}/net/{file}")).unwrap_or_default();
        text.lines().skip(1).any(|line| {
            let mut fields = line.split_ascii_whitespace().skip(1);
            // The local address, the remote one, and the state: 0A is LISTEN.
            fields.next().is_some_and(|local| local.ends_with(&wanted)) && fields.nth(1) == Some("0A")
        })
    })
}

/// How long to wait for an end before looking at other things.
const LOOK_CLOSELY: Duration = Duration::from_millis(5);

/// Sees processes end.
pub struct Watch(Vec<Option<OwnedFd>>);

impl Watch {
    /// From now on.
    pub fn new(processes: &[Process]) -> Self {
        Self(processes.iter().map(|process| pidfd_open(process.outside).ok()).collect())
    }

    /// Waits a moment, or until one ends, and notes who has ended.
    pub fn look(&mut self, processes: &mut [Process], pid1: i32, began: Instant) {
        let lives = |process: &Process| process.end.is_none() && process.ended_after_ms.is_none();
        let living = processes.iter().zip(&self.0).filter(|(process, _)| lives(process));
        let mut set: Vec<_> =
            living.filter_map(|(_, pidfd)| Some(PollFd::new(pidfd.as_ref()?.as_fd(), PollFlags::POLLIN))).collect();
        let _ = poll(&mut set, PollTimeout::try_from(LOOK_CLOSELY).unwrap_or(PollTimeout::ZERO));
        for (process, pidfd) in processes.iter_mut().zip(&self.0) {
            if process.end.is_some() || !has_ended(process.outside, pidfd.as_ref()) {
                continue;
            }
            process.ended_after_ms.get_or_insert_with(|| began.elapsed().as_millis());
            // As long as PID 1 does not end, nobody is killed for it.
            let by_itself = (process.pid == 1 || !is_exiting(pid1)).then_some(End::Unknown);
            process.end = end_of(pidfd.as_ref()).or(by_itself);
        }
    }

    /// The time is up: who is still there?
    pub fn mark_stubborn(&self, processes: &mut [Process]) {
        for process in processes.iter_mut().filter(|process| process.end.is_none()) {
            process.outlived_grace = true;
        }
    }

    /// PID 1 is gone, and who was still there with it.
    pub fn close(&mut self, processes: &mut [Process], took: Duration) {
        for (process, pidfd) in processes.iter_mut().zip(&self.0) {
            let last = end_of(pidfd.as_ref());
            // What was seen ended and not yet waited for tells its status now.
            if matches!(process.end, None | Some(End::Unknown)) {
                let guess = match process.end.take() {
                    Some(end) => end,
                    None if process.pid == 1 => End::Unknown,
                    None if process.outlived_grace => End::Killed,
                    None => End::Together,
                };
                process.end = Some(last.unwrap_or(guess));
                process.ended_after_ms.get_or_insert(took.as_millis());
            }
            let is_kill = |end: &End| matches!(end, End::Signaled { signal } if *signal == Signal::KILL.to_string());
            if process.pid != 1 && process.end.as_ref().is_some_and(is_kill) {
                process.end = Some(End::Killed);
            }
        }
    }
}

fn has_ended(pid: i32, pidfd: Option<&OwnedFd>) -> bool {
    match pidfd {
        Some(pidfd) => {
            let mut set = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
            poll(&mut set, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
        }
        None => procfs::stat(pid).is_none_or(|stat| stat.state == b'Z'),
    }
}

/// `PF_EXITING` among the flags of proc_pid_stat(5): it ends, and if it is PID 1 then all others do. Also if it is gone.
fn is_exiting(pid: i32) -> bool {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let flags = text.rsplit_once(')').and_then(|(_, fields)| fields.split_ascii_whitespace().nth(6));
    flags.and_then(|flags| flags.parse::<u32>().ok()).is_none_or(|flags| flags & 4 != 0)
}

fn end_of(pidfd: Option<&OwnedFd>) -> Option<End> {
    Some(match pidfd_status(pidfd?.as_fd()).ok()?? {
        WaitStatus::Exited(code) => End::Exited { code },
        WaitStatus::Signaled(signal) | WaitStatus::Stopped(signal) => End::Signaled { signal: signal.to_string() },
    })
}
