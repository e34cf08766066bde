//! Counts an init's system calls, with ptrace(2): how many, not how long, as each costs far more under it.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::ffi::CString;
use std::thread::sleep;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout, execv};

use super::container::{Container, failed};
use super::inits::Init;
use crate::lab::Trouble;
use crate::sys::lab::{Forked, fork};
use crate::sys::process::exit;

/// How often to look for news where there is none.
const LOOK_AGAIN: Duration = Duration::from_micros(50);

/// System calls from the init's exec until it waits with its command running: its own, and those of the process that
/// becomes the command until its exec, that included.
pub fn calls_of_start(init: &Init) -> Result<u64, Trouble> {
    let mut container = Container::start_traced(init)?;
    let stopped = waitpid(container.pid, Some(WaitPidFlag::__WALL))?;
    if !matches!(stopped, WaitStatus::Stopped(_, Signal::SIGTRAP)) {
        // The exec failed, and the reason is told as at any other start.
        container.wait_for_start()?;
    }
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXEC;
    ptrace::setoptions(container.pid, options).map_err(failed("ptrace(PTRACE_SETOPTIONS)"))?;
    let mut counter = Counter::new(&container);
    go_on(container.pid, None)?;
    // The command's own start is let go at its exec; its answers come then.
    while !(counter.command_runs && container.sleeps()?) {
        counter.next()?;
    }
    container.wait_for_start()?;
    counter.until(|| container.sleeps())?;
    Ok(counter.calls())
}

/// System calls of the init for `count` signals, each sent when it sleeps again.
pub fn calls_of_signals(container: &mut Container, count: u32) -> Result<u64, Trouble> {
    ptrace::seize(container.pid, Options::PTRACE_O_TRACESYSGOOD).map_err(failed("ptrace(PTRACE_SEIZE)"))?;
    ptrace::interrupt(container.pid).map_err(failed("ptrace(PTRACE_INTERRUPT)"))?;
    let mut counter = Counter::new(container);
    // Stopping it interrupts the call that it waits in: let it come to rest again before anything counts.
    waitpid(container.pid, Some(WaitPidFlag::__WALL))?;
    go_on(container.pid, None)?;
    counter.until(|| container.sleeps())?;
    let before = counter.stops;
    for _ in 0..count {
        container.signal()?;
        let mut answered = false;
        while !answered {
            counter.next()?;
            answered = container.answer_now()?.is_some();
        }
        counter.until(|| container.sleeps())?;
    }
    Ok((counter.stops - before).div_ceil(2))
}

/// System calls of a command and all its descendants, from its exec to the end of the last of them.
pub fn calls_of_all(words: &[CString]) -> Result<u64, Trouble> {
    let program = words.first().ok_or_else(|| Trouble("no command".into()))?;
    let child = match fork()? {
        Forked::Child => {
            let never = silence().and_then(|()| ptrace::traceme()).and_then(|()| execv(program, words));
            exit(never.map_or(127, |never| match never {}));
        }
        Forked::Parent(child) => Pid::from_raw(child),
    };
    waitpid(child, Some(WaitPidFlag::__WALL))?;
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL;
    ptrace::setoptions(child, options).map_err(failed("ptrace(PTRACE_SETOPTIONS)"))?;
    go_on(child, None)?;
    let mut stops: HashMap<Pid, u64> = HashMap::new();
    loop {
        match waitpid(None, Some(WaitPidFlag::__WALL)) {
            Err(Errno::ECHILD) => break,
            Err(errno) => return Err(errno.into()),
            Ok(WaitStatus::PtraceSyscall(pid)) => {
                *stops.entry(pid).or_default() += 1;
                go_on(pid, None)?;
            }
            Ok(WaitStatus::Stopped(pid, Signal::SIGSTOP | Signal::SIGTRAP) | WaitStatus::PtraceEvent(pid, ..)) => {
                go_on(pid, None)?;
            }
            Ok(WaitStatus::Stopped(pid, signal)) => go_on(pid, Some(signal))?,
            Ok(_) => {}
        }
    }
    // The last call of each has no return.
    Ok(stops.values().map(|stops| stops.div_ceil(2)).sum())
}

fn silence() -> nix::Result<()> {
    let null = open("/dev/null", OFlag::O_RDWR, Mode::empty())?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)
}

/// Stops at the entry and at the exit of calls.
struct Counter {
    init: Pid,
    /// What there is to say if it ends.
    ended: String,
    stops: u64,
    /// Those of the process that becomes the command.
    others: HashMap<Pid, u64>,
    command_runs: bool,
}

impl Counter {
    fn new(container: &Container) -> Self {
        let ended = container.trouble("it ended while its system calls were counted").to_string();
        Self { init: container.pid, ended, stops: 0, others: HashMap::new(), command_runs: false }
    }

    /// A call that waits has entered and not come back.
    fn calls(&self) -> u64 {
        self.stops.div_ceil(2) + self.others.values().map(|stops| stops.div_ceil(2)).sum::<u64>()
    }

    /// Goes on until there is no news and `at_rest` says so.
    fn until(&mut self, mut at_rest: impl FnMut() -> Result<bool, Trouble>) -> Result<(), Trouble> {
        while self.next()? || !at_rest()? {}
        Ok(())
    }

    /// Takes one piece of news, if there is any, and lets its process go on. False: there was none.
    fn next(&mut self) -> Result<bool, Trouble> {
        let status = waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG))?;
        match status {
            WaitStatus::StillAlive => {
                sleep(LOOK_AGAIN);
                return Ok(false);
            }
            WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..) => {
                if pid == self.init {
                    return Err(Trouble(self.ended.clone()));
                }
            }
            WaitStatus::PtraceSyscall(pid) => {
                *self.stops_of(pid) += 1;
                go_on(pid, None)?;
            }
            WaitStatus::PtraceEvent(pid, _, event) if event == ptrace::Event::PTRACE_EVENT_EXEC as i32 => {
                self.command_runs = true;
                ptrace::detach(pid, None).map_err(failed("ptrace(PTRACE_DETACH)"))?;
            }
            // A new process begins with STOP, which is the tracer's alone; a seized one stops at PTRACE_INTERRUPT.
            WaitStatus::Stopped(pid, Signal::SIGSTOP | Signal::SIGTRAP) | WaitStatus::PtraceEvent(pid, ..) => {
                go_on(pid, None)?;
            }
            // On its way to the init, as without us.
            WaitStatus::Stopped(pid, signal) => go_on(pid, Some(signal))?,
            WaitStatus::Continued(_) => {}
        }
        Ok(true)
    }

    fn stops_of(&mut self, pid: Pid) -> &mut u64 {
        if pid == self.init { &mut self.stops } else { self.others.entry(pid).or_default() }
    }
}

/// `PTRACE_SYSCALL`: until the next entry or exit. ESRCH: it was killed meanwhile.
fn go_on(pid: Pid, signal: Option<Signal>) -> Result<(), Trouble> {
    match ptrace::syscall(pid, signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(failed("ptrace(PTRACE_SYSCALL)")(errno)),
    }
}
