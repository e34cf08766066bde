//! The one loop: waits for signals, the command's end, and the next deadline, and does what the rooms below decide.
//!
//! It owns no policy, allocates nothing, and nothing in it ends sexton but the end that [`stop`] decides on.
#![forbid(unsafe_code)]

pub mod reap;
pub mod signals;
pub mod stop;
pub mod terminal;

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use log::{info, warn};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use crate::cli::options::Rewrites;
use crate::everyone::Everyone;
use crate::foreground::Foreground;
use crate::procfs;
use crate::signal::Signal;
use crate::sys::process::{self, Started, WaitStatus, Waited, Who};
use crate::sys::signal::{BATCH, Disposition, Scope, SignalFd, SignalInfo, kill};
use crate::sys::{Errno, errno_name, signal as calls};
use reap::{Gear, Reaper};
use signals::{Forward, Meaning, Received};
use stop::{Step, Stop};
use terminal::OnStop;

/// How long the kernel may take between a process's end and the record of its status.
const STATUS_RETRY: Duration = Duration::from_micros(100);
/// How often to look for signals and the command's end where poll is refused.
const POLL_REFUSED: Duration = Duration::from_millis(5);
/// How often to look whether strangers in our PID namespace are gone: their end is nobody's news to us.
const STRANGERS_RETRY: Duration = Duration::from_millis(20);

/// What the loop has to know, fixed at the start.
pub struct Policy {
    /// How the container ends.
    pub stop: stop::Rules,
    /// What each signal is forwarded as.
    pub rewrites: Rewrites,
    /// Forward to the command's group.
    pub to_group: bool,
    /// Name each reaped orphan.
    pub warn_reaped: bool,
    /// The word for it: scripts look for the peers' own.
    pub reaped: &'static str,
    /// Sexton is PID 1.
    pub is_pid1: bool,
    /// TSTP, TTIN and TTOU stop sexton itself as well.
    pub suspend_with_command: bool,
    /// The command got it.
    pub foreground: Option<Foreground>,
}

impl Policy {
    /// Whether sexton stops when the command does.
    fn has_job_control(&self) -> bool {
        terminal::on_stop(self.is_pid1, self.foreground.is_some()) == OnStop::Suspend
    }
}

/// The state of the loop.
struct Supervisor {
    policy: Policy,
    own: i32,
    signals: SignalFd,
    command: Option<Started>,
    /// The command's group, for as long as anything may be sent there.
    group: Option<i32>,
    status: Option<WaitStatus>,
    stop: Stop,
    reaper: Reaper,
    everyone: Everyone,
    /// To look again then, whatever else happens.
    look_again: Option<Instant>,
    /// The last signal that was forwarded, to explain the end.
    last: Option<Forward>,
}

/// Supervises `command` (`None`: pause) to the end; returns its status.
pub fn supervise(command: Option<Started>, signals: SignalFd, policy: Policy) -> WaitStatus {
    let own = nix::unistd::getpid().as_raw();
    let sees_each = policy.warn_reaped || log::log_enabled!(log::Level::Debug) || policy.stop.wait;
    // A SIGCHLD that is ignored tells of no stop either.
    let has_pidfd = command.as_ref().is_some_and(|command| command.pidfd.is_some());
    let mut supervisor = Supervisor {
        own,
        signals,
        group: command.as_ref().map(|command| command.pid),
        command,
        status: None,
        stop: Stop::new(policy.stop.clone()),
        reaper: Reaper::new(sees_each, (has_pidfd || policy.stop.pause) && !policy.has_job_control()),
        everyone: Everyone::new(policy.is_pid1, own),
        look_again: None,
        last: None,
        policy,
    };
    let refused = !has_pidfd && supervisor.command.is_some();
    if refused {
        info!("no pidfd of the command: clone(CLONE_PIDFD) is refused here");
    }
    if sees_each {
        info!("reaping by hand, each one is looked at (gear 3)");
    } else if refused {
        info!("reaping by hand (gear 2)");
    }
    let status = supervisor.run();
    if let Some(foreground) = supervisor.policy.foreground.filter(|_| !supervisor.policy.is_pid1) {
        foreground.take_back(supervisor.group);
    }
    status
}

impl Supervisor {
    fn run(&mut self) -> WaitStatus {
        // What died before there was a loop; its SIGCHLD is pending as well.
        loop {
            let (signalled, ended) = self.wait();
            if signalled && self.take_signals() {
                break;
            }
            if ended && self.command_may_have_ended() {
                break;
            }
            if self.on_time() {
                break;
            }
        }
        self.status.unwrap_or(WaitStatus::Exited(0))
    }

    /// Waits for a signal, the command's end, or the next deadline; says which of the first two it was.
    fn wait(&self) -> (bool, bool) {
        let deadline = [self.stop.deadline(), self.reaper.deadline(), self.look_again].into_iter().flatten().min();
        let timeout = deadline.map(|due| TimeSpec::from_duration(due.saturating_duration_since(Instant::now())));
        let signals = PollFd::new(self.signals.as_fd(), PollFlags::POLLIN);
        let (polled, ready) = if let Some(pidfd) = self.pidfd() {
            let mut set = [signals, PollFd::new(pidfd, PollFlags::POLLIN)];
            (ppoll(&mut set, timeout, None), (is_ready(&set[0]), is_ready(&set[1])))
        } else {
            let mut set = [signals];
            (ppoll(&mut set, timeout, None), (is_ready(&set[0]), false))
        };
        if polled.is_err() {
            // No signal interrupts, as all are blocked; but somebody may have set RLIMIT_NOFILE below the number of
            // descriptors that are polled (EINVAL, poll(2)). Then look for oneself, from time to time.
            std::thread::sleep(POLL_REFUSED);
            return (true, true);
        }
        ready
    }

    fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.command.as_ref()?.pidfd.as_ref().map(AsFd::as_fd)
    }

    /// Reads what signals are pending and acts on each. True: it is over.
    fn take_signals(&mut self) -> bool {
        let mut buffer = [const { MaybeUninit::<SignalInfo>::uninit() }; BATCH];
        let count = self.signals.read(&mut buffer);
        for info in SignalFd::filled(&buffer, count) {
            let Some(received) = received(info) else { continue };
            let over = match signals::meaning(received, self.own) {
                Meaning::Own => false,
                Meaning::ChildChanged(pid) => {
                    self.reaper.on_child_signal();
                    self.child_changed(pid)
                }
                Meaning::Forward(forward) => {
                    if forward.signal == Signal::CHLD {
                        // A child's end may be behind it: pending signals of one number are one.
                        self.reaper.on_child_signal();
                    }
                    self.forward_as_ruled(forward)
                }
            };
            if over {
                return true;
            }
        }
        false
    }

    fn forward_as_ruled(&mut self, forward: Forward) -> bool {
        let asked = forward.signal;
        let Some(signal) = self.policy.rewrites.apply(asked) else {
            info!("{asked} from {}: discarded", Sender(forward));
            return false;
        };
        if signal == asked {
            info!("{asked} from {}", Sender(forward));
        } else {
            info!("{asked} from {}: forwarded as {signal}", Sender(forward));
        }
        let step = self.stop.on_signal(asked, Forward { signal, ..forward }, Instant::now());
        let over = self.execute(step);
        if self.policy.suspend_with_command && matches!(asked, Signal::TSTP | Signal::TTIN | Signal::TTOU) {
            info!("suspending self with the command ({asked})");
            let _ = kill(self.own, Some(Signal::STOP));
        }
        over
    }

    /// Does what the rules decided. True: it is over.
    fn execute(&mut self, step: Step) -> bool {
        match step {
            Step::Nothing => false,
            Step::Forward(forward) => {
                self.last = Some(forward);
                if let Err(errno) = self.send(forward) {
                    warn!(
                        "kill({}, {}): {}: the signal could not be forwarded",
                        self.target(),
                        forward.signal,
                        errno_name(errno)
                    );
                }
                false
            }
            Step::ForwardToAll(forward) => {
                self.everyone.send(forward.signal);
                false
            }
            Step::TermAll => {
                self.everyone.send(Signal::TERM);
                self.everyone.send(Signal::CONT);
                false
            }
            Step::KillAll => {
                // Perhaps nobody is: to find those that get TERM takes long among thousands of others' processes.
                if self.everyone_counts() {
                    return true;
                }
                warn!("KILL to all that is left");
                self.everyone.send(Signal::KILL);
                self.walk()
            }
            Step::TermGroupAndFinish => {
                if let Some(group) = self.group {
                    let _ = kill(-group, Some(Signal::TERM));
                }
                true
            }
            Step::EndPause => self.ended(WaitStatus::Exited(0)),
            Step::Finish => true,
        }
    }

    /// Whom kill(2) is asked to signal.
    fn target(&self) -> i32 {
        let pid = self.group.unwrap_or(0);
        if self.policy.to_group { -pid } else { pid }
    }

    fn send(&self, forward: Forward) -> Result<(), Errno> {
        let Some(command) = self.command.as_ref() else { return Ok(()) };
        let scope = if self.policy.to_group { Scope::Group } else { Scope::Process };
        let by_kernel = self.reaper.gear() == Gear::Kernel;
        // A process that the kernel reaps may be gone and its number taken: only the pidfd is sure to mean the command.
        // A group cannot be sent a value but through it.
        if let Some(pidfd) = &command.pidfd
            && (by_kernel || (scope == Scope::Group && forward.queued.is_some()))
        {
            let sent = calls::send_to_pidfd(pidfd.as_fd(), Some(forward.signal), forward.queued, scope);
            if by_kernel || sent.is_ok() {
                return sent.or_else(|errno| if errno == Errno::ESRCH { Ok(()) } else { Err(errno) });
            }
        }
        match forward.queued {
            // A full queue takes no more values, but still the signal itself.
            Some(queued) if scope == Scope::Process => {
                calls::queue(command.pid, forward.signal, queued).or_else(|_| kill(command.pid, Some(forward.signal)))
            }
            _ => kill(self.target(), Some(forward.signal)),
        }
    }

    /// A SIGCHLD told of `pid`. True: it is over.
    fn child_changed(&mut self, pid: i32) -> bool {
        let is_command = self.command.as_ref().is_some_and(|command| command.pid == pid);
        if is_command {
            return self.ask_for_command();
        }
        // The walk finds it anyway; but if walking is paced, this one need not wait.
        self.reap(Who::Child(pid)) == Some(Over)
    }

    /// Asks waitid for the command itself: its end never waits for a walk. True: it is over.
    fn ask_for_command(&mut self) -> bool {
        let Some(pid) = self.command.as_ref().map(|command| command.pid) else { return false };
        match process::wait(Who::Child(pid), self.policy.has_job_control()) {
            Waited::Changed(_, WaitStatus::Stopped(by)) => {
                info!("the command was stopped by {by}; stopping too");
                if let Some(foreground) = &self.policy.foreground {
                    foreground.suspend(pid);
                }
                false
            }
            Waited::Changed(_, status) => self.ended(status),
            Waited::Nothing => false,
            // The kernel had reaped it before we took that back.
            Waited::NoChild => match self.pidfd().map(process::pidfd_status) {
                Some(Ok(Some(status))) => self.ended(status),
                _ => false,
            },
        }
    }

    /// The pidfd says that the command has ended. True: it is over.
    fn command_may_have_ended(&mut self) -> bool {
        if self.reaper.gear() != Gear::Kernel {
            return self.ask_for_command();
        }
        if let Some(Ok(Some(status))) = self.pidfd().map(process::pidfd_status) {
            return self.ended(status);
        }
        // It is dead, and its status not yet on record: the kernel is about to write it (or a debugger to let it go).
        std::thread::sleep(STATUS_RETRY);
        false
    }

    /// The command has ended with this status. True: it is over.
    fn ended(&mut self, status: WaitStatus) -> bool {
        self.status = Some(status);
        if self.command.take().is_some() {
            match self.last {
                Some(last) if status == WaitStatus::Signaled(last.signal) => {
                    info!("the command {status}, sent by {}", Sender(last));
                }
                _ => info!("the command {status}"),
            }
        }
        let step = self.stop.on_end(Instant::now());
        if step == Step::Finish || step == Step::TermGroupAndFinish {
            return self.execute(step);
        }
        self.everyone_counts() || self.execute(step)
    }

    /// From now on it matters when the last one is gone: look at each end. True: nobody is left, it is over.
    fn everyone_counts(&mut self) -> bool {
        if self.reaper.gear() == Gear::Kernel {
            calls::set_disposition(Signal::CHLD, Disposition::Default);
        }
        self.reaper.on_ending();
        self.walk()
    }

    /// Reaps every child that is dead. True: it is over.
    fn walk(&mut self) -> bool {
        let began = Instant::now();
        let mut all = true;
        let over = loop {
            match self.reap(Who::Any) {
                Some(Reaped) => {
                    // Each find costs a look at all that live; what has just died is found by its own number.
                    if self.take_signals() {
                        break true;
                    }
                    if !self.reaper.walk_goes_on(began, Instant::now()) {
                        all = false;
                        break false;
                    }
                }
                Some(Over) => break true,
                Some(NobodyLeft) => break self.nobody_left(),
                None => break false,
            }
        };
        self.reaper.on_walk(began, Instant::now(), all);
        over
    }

    /// We have no child. True: it is over.
    fn nobody_left(&mut self) -> bool {
        self.look_again = None;
        if self.command.is_some() {
            return self.ask_for_command();
        }
        if self.stop.waits_for_strangers() && self.everyone.has_strangers() {
            self.look_again = Some(Instant::now() + STRANGERS_RETRY);
            return false;
        }
        let step = self.stop.on_nothing_left();
        self.execute(step)
    }

    /// Reaps one child, if it is dead.
    fn reap(&mut self, who: Who) -> Option<ReapOutcome> {
        let looks =
            self.reaper.gear() == Gear::EachOne && (self.policy.warn_reaped || log::log_enabled!(log::Level::Debug));
        let dead = looks.then(|| process::peek(who)).flatten();
        let name = dead.and_then(procfs::name);
        match process::wait(dead.map_or(who, Who::Child), false) {
            Waited::Nothing => None,
            Waited::NoChild => Some(NobodyLeft).filter(|_| who == Who::Any),
            Waited::Changed(pid, status) => {
                if self.command.as_ref().is_some_and(|command| command.pid == pid) {
                    return Some(if self.ended(status) { Over } else { Reaped });
                }
                self.tell_reaped(pid, name);
                if self.reaper.should_ask_kernel() && !self.stop.is_ending() {
                    self.ask_kernel();
                }
                Some(Reaped)
            }
        }
    }

    fn tell_reaped(&self, pid: i32, name: Option<procfs::Name>) {
        let level = if self.policy.warn_reaped { log::Level::Warn } else { log::Level::Debug };
        let reaped = self.policy.reaped;
        match name {
            Some(name) => log::log!(level, "{reaped} zombie process with pid={pid} ({name})"),
            None => log::log!(level, "{reaped} zombie process with pid={pid} (?)"),
        }
    }

    /// Asks the kernel whether it can reap by itself and keep the command's status; if so, lets it.
    fn ask_kernel(&mut self) {
        let scope = if self.policy.to_group { Scope::Group } else { Scope::Process };
        let can_send = self.pidfd().map(|pidfd| calls::send_to_pidfd(pidfd, None, None, scope));
        let answer = match can_send {
            // Without a command there is no status to keep.
            None if self.policy.stop.pause => Ok(true),
            // The command is a zombie or gone: its end comes first.
            Some(Err(Errno::ESRCH)) => return,
            Some(Ok(()) | Err(Errno::EPERM))
                if self.pidfd().is_some_and(|fd| process::pidfd_status(fd) == Ok(None)) =>
            {
                process::kernel_keeps_status()
            }
            Some(Err(errno)) => Err(errno),
            Some(Ok(())) | None => Ok(false),
        };
        match answer {
            // No process can be made just now; ask again at the next orphan.
            Err(Errno::EAGAIN | Errno::ENOMEM) => {}
            Ok(true) => {
                self.reaper.on_kernel_answer(true);
                calls::set_disposition(Signal::CHLD, Disposition::Ignore);
                info!("the kernel reaps orphans (gear 1)");
            }
            Ok(false) | Err(_) => {
                self.reaper.on_kernel_answer(false);
                let why = answer.err().map_or("no status in a pidfd after the end", errno_name);
                info!("ioctl(PIDFD_GET_INFO): {why}: reaping by hand (gear 2)");
            }
        }
    }

    /// Does what is due. True: it is over.
    fn on_time(&mut self) -> bool {
        if self.stop.deadline().is_none() && !self.reaper.walk_is_wanted() && self.look_again.is_none() {
            return false;
        }
        let now = Instant::now();
        if self.look_again.is_some_and(|due| due <= now) {
            self.look_again = None;
            if self.stop.is_ending() && self.walk() {
                return true;
            }
        }
        if self.reaper.walk_is_due(now) && self.walk() {
            return true;
        }
        loop {
            match self.stop.on_time(now) {
                Step::Nothing => return false,
                step => {
                    if self.execute(step) {
                        return true;
                    }
                }
            }
        }
    }
}

/// What came of trying to reap one child.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ReapOutcome {
    Reaped,
    NobodyLeft,
    Over,
}
use ReapOutcome::{NobodyLeft, Over, Reaped};

fn is_ready(entry: &PollFd<'_>) -> bool {
    entry.revents().is_some_and(|events| !events.is_empty())
}

/// A record of signalfd(2), read.
fn received(info: &SignalInfo) -> Option<Received> {
    Some(Received {
        signal: Signal::new(i64::from(info.ssi_signo))?,
        code: info.ssi_code,
        pid: i32::try_from(info.ssi_pid).unwrap_or(0),
        uid: info.ssi_uid,
        value: info.ssi_ptr,
    })
}

/// Writes who sent a signal: looked up only when it is written.
struct Sender(Forward);

impl std::fmt::Display for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.sender {
            0 if self.0.by_kernel() => f.write_str("the kernel or the terminal"),
            0 => write!(f, "outside this PID namespace, uid {}", self.0.uid),
            pid => match procfs::name(pid) {
                Some(name) => write!(f, "pid {pid} ({name}), uid {}", self.0.uid),
                None => write!(f, "pid {pid}, uid {}", self.0.uid),
            },
        }
    }
}
