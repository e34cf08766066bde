//! Starting processes, waiting for them, and what prctl(2) sets.

use std::ffi::{c_char, c_int, c_void};
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use super::action::Action;
use super::signal::{Disposition, SignalSet, set_disposition, set_mask};
use super::{Errno, signal};
use crate::signal::Signal;

/// How a process ended or changed, as waitid(2) tells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WaitStatus {
    /// It called exit(2) with this code.
    Exited(u8),
    /// This signal ended it.
    Signaled(Signal),
    /// This signal stopped it; it lives.
    Stopped(Signal),
}

/// Whom waitid(2) asks about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Who {
    /// One child.
    Child(i32),
    /// Any child.
    Any,
}

impl Who {
    fn for_waitid(self) -> (libc::idtype_t, libc::id_t) {
        match self {
            Self::Child(pid) => (libc::P_PID, libc::id_t::try_from(pid).unwrap_or(0)),
            Self::Any => (libc::P_ALL, 0),
        }
    }
}

/// What waitid(2) found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Waited {
    /// This child changed; if it ended it is reaped now.
    Changed(i32, WaitStatus),
    /// There are such children, and nothing to tell of them.
    Nothing,
    /// There is no such child (ECHILD).
    NoChild,
}

/// `waitid(2)` with WNOHANG: reaps one child that ended, or, with `stopped`, tells of one that stopped.
pub fn wait(who: Who, stopped: bool) -> Waited {
    let (kind, id) = who.for_waitid();
    let options = libc::WEXITED | libc::WNOHANG | if stopped { libc::WSTOPPED } else { 0 };
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: info is live, and of the type that the call fills.
    let result = unsafe { libc::waitid(kind, id, info.as_mut_ptr(), options) };
    if result != 0 {
        return Waited::NoChild;
    }
    // SAFETY: it was zeroed, which is a valid siginfo_t, and filled by the kernel if there was news.
    match changed(unsafe { info.assume_init() }) {
        Some((pid, status)) => Waited::Changed(pid, status),
        None => Waited::Nothing,
    }
}

/// What waitid(2) wrote; `None`: nothing.
fn changed(info: libc::siginfo_t) -> Option<(i32, WaitStatus)> {
    // SAFETY: si_pid lies inside the structure; for waitid the kernel fills it, and 0 stands for no news.
    let pid = unsafe { info.si_pid() };
    if pid == 0 {
        return None;
    }
    // SAFETY: as above, waitid fills si_status.
    let value = unsafe { info.si_status() };
    let by = || Signal::new(i64::from(value)).unwrap_or(Signal::KILL);
    let status = match info.si_code {
        libc::CLD_EXITED => WaitStatus::Exited(low_byte(value)),
        libc::CLD_STOPPED | libc::CLD_TRAPPED => WaitStatus::Stopped(by()),
        _ => WaitStatus::Signaled(by()),
    };
    Some((pid, status))
}

fn low_byte(value: i32) -> u8 {
    value.to_le_bytes()[0]
}

/// `waitid(2)` with WNOHANG and WNOWAIT: a child that has ended and is not reaped yet, which it stays.
pub fn peek(who: Who) -> Option<i32> {
    let (kind, id) = who.for_waitid();
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: info is live, and of the type that the call fills.
    let result = unsafe { libc::waitid(kind, id, info.as_mut_ptr(), libc::WEXITED | libc::WNOHANG | libc::WNOWAIT) };
    // SAFETY: it was zeroed, which is a valid siginfo_t, and filled by the kernel if there was news.
    let info = unsafe { info.assume_init() };
    // SAFETY: si_pid lies inside the structure; 0 stands for no news.
    let pid = unsafe { info.si_pid() };
    (result == 0 && pid != 0).then_some(pid)
}

/// The group, session and terminal that the command starts in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Group {
    /// A process group of its own.
    Own,
    /// A session of its own; with `true` stdin's terminal becomes its controlling terminal.
    Session(bool),
    /// That of sexton.
    Same,
}

/// All that the new process needs between clone(2) and execve(2), prepared beforehand: there it may not allocate.
#[derive(Debug)]
pub struct Launch<'a> {
    /// Paths to try in turn, each ended by a zero byte, one behind the other: what a walk through PATH yields.
    pub paths: &'a [u8],
    /// The null-ended argument vector.
    pub argv: *const *const c_char,
    /// The null-ended environment.
    pub envp: *const *const c_char,
    /// Where the process writes its own pid as decimal text (the value of LISTEN_PID), at least 11 bytes, if anywhere.
    pub pid_text: Option<*mut u8>,
    /// Group and session.
    pub group: Group,
    /// The terminal whose foreground the new group becomes.
    pub terminal: Option<RawFd>,
    /// What the new process does to itself before the exec, in this order.
    pub actions: &'a [Action],
    /// The mask that the command starts with.
    pub mask: SignalSet,
    /// Signals that go back to ignored before the exec.
    pub ignore: SignalSet,
    /// Signals that go back to the default before the exec.
    pub reset: SignalSet,
}

/// A process that was started.
#[derive(Debug)]
pub struct Started {
    /// Its process id.
    pub pid: i32,
    /// Its pidfd (Linux 5.2), CLOEXEC; absent where the kernel or a seccomp filter does not give one.
    pub pidfd: Option<OwnedFd>,
}

/// Why nothing was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaunchError {
    /// clone(2) failed: EAGAIN at a pids limit, ENOMEM.
    Clone(Errno),
    /// The action with this index failed.
    Action(usize, Errno),
    /// Each path failed to execute; the errno that says most, as execvp(3) chooses it.
    Exec(Errno),
}

/// The kernel's flag, which the C libraries' headers of old lack.
const CLONE_PIDFD: c_int = 0x1000;
/// The stack of a process between clone and exec. Our wrappers need some hundred bytes; a C library's clone some more.
const LAUNCH_STACK: usize = 8192;

#[repr(align(16))]
struct Stack(MaybeUninit<[u8; LAUNCH_STACK]>);

/// What the new process works on; it shares our memory, so its result needs no pipe.
struct Shared<'a> {
    launch: &'a Launch<'a>,
    failure: Option<LaunchError>,
}

/// Starts the command: clone(2) with `CLONE_VM | CLONE_VFORK`, so that no page is copied and we go on once the new
/// program runs (or the start has failed). Its process group exists by then.
///
/// All signals must be blocked: none may be handled in the new process while it shares our memory.
pub fn launch(launch: &Launch<'_>) -> Result<Started, LaunchError> {
    let mut shared = Shared { launch, failure: None };
    let argument: *mut c_void = (&raw mut shared).cast();
    let started = vfork(run_launch, argument).map_err(LaunchError::Clone)?;
    match shared.failure {
        None => Ok(started),
        Some(failure) => {
            wait_gone(started.pid);
            Err(failure)
        }
    }
}

/// clone(2) with a pidfd, or without one where that is refused.
fn vfork(run: extern "C" fn(*mut c_void) -> c_int, argument: *mut c_void) -> Result<Started, Errno> {
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    clone_on_own_stack(run, flags | CLONE_PIDFD, argument).or_else(|errno| match errno {
        Errno::EAGAIN | Errno::ENOMEM => Err(errno),
        _ => clone_on_own_stack(run, flags, argument),
    })
}

fn clone_on_own_stack(
    run: extern "C" fn(*mut c_void) -> c_int,
    flags: c_int,
    argument: *mut c_void,
) -> Result<Started, Errno> {
    let mut stack = Stack(MaybeUninit::uninit());
    let mut pidfd: RawFd = -1;
    // SAFETY: the result points one past the end of the stack, which is what "top" means to clone(2).
    let top = unsafe { stack.0.as_mut_ptr().cast::<u8>().add(LAUNCH_STACK) };
    // SAFETY: with CLONE_VFORK this frame, and so stack, argument and pidfd, outlives the child's use of our memory;
    // all signals are blocked, so nothing else runs on either side meanwhile; the child only calls execve or _exit.
    let pid = unsafe { libc::clone(run, top.cast(), flags, argument, &raw mut pidfd) };
    let pid = Errno::result(pid)?;
    let pidfd = (flags & CLONE_PIDFD != 0 && pidfd >= 0).then(|| {
        // SAFETY: the kernel has just put a new descriptor here, which nobody else owns (before 5.2 it stays -1).
        unsafe { OwnedFd::from_raw_fd(pidfd) }
    });
    Ok(Started { pid, pidfd })
}

/// The new process, on its own stack in the parent's memory. It must not allocate, nor return to its caller's frames.
extern "C" fn run_launch(argument: *mut c_void) -> c_int {
    // SAFETY: launch() passes a live Shared and is suspended until we exec or exit, so this is the only reference.
    let shared = unsafe { &mut *argument.cast::<Shared<'_>>() };
    let launch = shared.launch;
    // SAFETY: getpid has no preconditions.
    let own = unsafe { libc::getpid() };
    match launch.group {
        Group::Own => {
            // SAFETY: passes no memory. It fails only for a session leader, whose group is its own already.
            unsafe { libc::setpgid(0, 0) };
        }
        Group::Session(terminal) => {
            // SAFETY: passes no memory. A process just made leads no group, so it cannot fail.
            unsafe { libc::setsid() };
            if terminal {
                // SAFETY: TIOCSCTTY takes an integer. Failing means that stdin is no terminal that we may have.
                unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) };
            }
        }
        Group::Same => {}
    }
    if let Some(terminal) = launch.terminal {
        // SAFETY: TIOCSPGRP reads one pid_t, which is live. SIGTTOU is blocked, so it neither stops us nor fails for it.
        unsafe { libc::ioctl(terminal, libc::TIOCSPGRP, &raw const own) };
    }
    if let Some(text) = launch.pid_text {
        // SAFETY: the caller gave room for 11 bytes, and the parent does not look while we run.
        write_decimal(unsafe { std::slice::from_raw_parts_mut(text, 11) }, own.unsigned_abs());
    }
    for (index, action) in launch.actions.iter().enumerate() {
        if let Err(errno) = action.perform() {
            shared.failure = Some(LaunchError::Action(index, errno));
            leave();
        }
    }
    for signal in Signal::all() {
        if launch.reset.contains(signal) {
            set_disposition(signal, Disposition::Default);
        } else if launch.ignore.contains(signal) {
            set_disposition(signal, Disposition::Ignore);
        }
    }
    set_mask(launch.mask);
    shared.failure = Some(LaunchError::Exec(execute(launch)));
    leave()
}

/// Leaves at once, without the exit handlers of the parent whose memory this is. The user's seccomp filter may refuse even
/// that, and then musl's `_exit` would try for ever.
fn leave() -> ! {
    // SAFETY: passes an integer, and the process ends.
    unsafe { libc::syscall(libc::SYS_exit_group, 127) };
    bad_instruction()
}

#[cfg(target_arch = "x86_64")]
fn bad_instruction() -> ! {
    // SAFETY: touches nothing; the kernel ends this process by a signal, blocked or not.
    unsafe { std::arch::asm!("ud2", options(noreturn, nomem, nostack)) }
}

#[cfg(not(target_arch = "x86_64"))]
fn bad_instruction() -> ! {
    std::process::abort()
}

/// execve(2) of each path in turn; returns only if none could be executed. The choice of errno is execvp(3)'s: a file
/// that was found and refused says more than one that is not there.
fn execute(launch: &Launch<'_>) -> Errno {
    let mut result = Errno::ENOENT;
    for path in launch.paths.split_inclusive(|byte| *byte == 0) {
        // SAFETY: path ends in a zero byte; the vectors are null-ended arrays of C strings, as Launch demands.
        unsafe { libc::execve(path.as_ptr().cast(), launch.argv, launch.envp) };
        match Errno::last() {
            // In PATH the next folder may have it; a path that was given is just not there, and how says more.
            Errno::ENOENT | Errno::ENOTDIR if path.len() < launch.paths.len() => {}
            Errno::EACCES => result = Errno::EACCES,
            other => return other,
        }
    }
    result
}

/// Writes `number` in decimal and a zero byte behind it.
fn write_decimal(text: &mut [u8], number: u32) {
    let mut digits = [0; 10];
    let mut rest = number;
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    let digits = digits.get(first..).unwrap_or(&[]);
    for (to, from) in text.iter_mut().zip(digits.iter().chain(&[0])) {
        *to = *from;
    }
}

/// waitid(2) for a child that is about to be gone, over EINTR; its status, if it was ours to wait for.
pub fn wait_gone(pid: i32) -> Option<WaitStatus> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let id = libc::id_t::try_from(pid).unwrap_or(0);
    // SAFETY: info is live and of the type that the call fills; __WALL also finds a child that ends without a signal.
    while unsafe { libc::waitid(libc::P_PID, id, info.as_mut_ptr(), libc::WEXITED | libc::__WALL) } != 0
        && Errno::last() == Errno::EINTR
    {}
    // SAFETY: it was zeroed, which is a valid siginfo_t, and filled by the kernel if there was such a child.
    changed(unsafe { info.assume_init() }).map(|(_, status)| status)
}

/// What fork(2) returns.
#[derive(Debug)]
pub enum Forked {
    /// In the new process.
    Child,
    /// In the one that called.
    Parent(Started),
}

/// clone(2) like fork(2), with new namespaces (`CLONE_NEW*`). EPERM: without `CAP_SYS_ADMIN`; EINVAL: not in this kernel.
pub fn fork_into(namespaces: c_int) -> Result<Forked, Errno> {
    let mut pidfd: RawFd = -1;
    let flags = namespaces | libc::SIGCHLD;
    let mut call = |flags: c_int| {
        // SAFETY: without CLONE_VM and with a null stack this is fork(2): the child has its own copy of everything,
        // and no other thread exists whose locks it could find taken.
        #[cfg(target_arch = "x86_64")]
        let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, &raw mut pidfd, 0, 0) };
        // SAFETY: as above; most architectures take the last two arguments in the other order, and both are null.
        #[cfg(not(target_arch = "x86_64"))]
        let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, &raw mut pidfd, 0, 0) };
        Errno::result(i32::try_from(pid).unwrap_or(-1))
    };
    let mut pid = call(flags | CLONE_PIDFD);
    if matches!(pid, Err(Errno::EPERM | Errno::EINVAL | Errno::ENOSYS)) {
        pid = call(flags);
    }
    let pid = pid?;
    if pid == 0 {
        return Ok(Forked::Child);
    }
    let pidfd = (pidfd >= 0).then(|| {
        // SAFETY: the kernel has just put a new descriptor here, which nobody else owns.
        unsafe { OwnedFd::from_raw_fd(pidfd) }
    });
    Ok(Forked::Parent(Started { pid, pidfd }))
}

/// The kernel's `struct pidfd_info` in its first published form (64 bytes, Linux 6.13).
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup_id: u64,
    ids: [u32; 11],
    exit_code: i32,
}

/// `PIDFD_INFO_EXIT`, Linux 6.15: the field exit_code is asked for, or was filled.
const PIDFD_INFO_EXIT: u64 = 1 << 3;
/// `PIDFD_GET_INFO`: `_IOWR(0xFF, 11, struct pidfd_info)`.
const PIDFD_GET_INFO: u64 = (3 << 30) | ((size_of::<PidfdInfo>() as u64) << 16) | (0xFF << 8) | 0x0B;

/// `ioctl(PIDFD_GET_INFO)`, Linux 6.15: how the process ended, even after it was reaped; `None` as long as it was not.
/// ENOTTY, EINVAL: this kernel does not know it.
pub fn pidfd_status(pidfd: BorrowedFd<'_>) -> Result<Option<WaitStatus>, Errno> {
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: info is live and of the size that the request's number states.
    Errno::result(unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO as _, &raw mut info) })?;
    if info.mask & PIDFD_INFO_EXIT == 0 {
        return Ok(None);
    }
    let code = info.exit_code;
    Ok(Some(match Signal::new(i64::from(code & 0x7f)) {
        None => WaitStatus::Exited(low_byte(code >> 8)),
        Some(by) => WaitStatus::Signaled(by),
    }))
}

/// The exit code of the probe of [`kernel_keeps_status`], as good as any that is not 0.
const PROBE_CODE: u8 = 42;

extern "C" fn run_probe(_: *mut c_void) -> c_int {
    // SAFETY: leaves at once, without the exit handlers of the parent whose memory this is.
    unsafe { libc::_exit(c_int::from(PROBE_CODE)) }
}

/// Whether a pidfd keeps the status of a process that is reaped already, tried with a child of our own: only then may
/// the kernel be told to reap by itself. All signals must be blocked. EAGAIN: no process could be made now.
pub fn kernel_keeps_status() -> Result<bool, Errno> {
    // Without an exit signal (the low byte), so that no SIGCHLD tells of this child.
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | CLONE_PIDFD;
    let probe = clone_on_own_stack(run_probe, flags, ptr::null_mut())?;
    wait_gone(probe.pid);
    let Some(pidfd) = probe.pidfd else { return Ok(false) };
    let status = pidfd_status(std::os::fd::AsFd::as_fd(&pidfd))?;
    Ok(status == Some(WaitStatus::Exited(PROBE_CODE)))
}

/// `prctl(PR_SET_CHILD_SUBREAPER)`, Linux 3.4: orphans below us become our children.
pub fn become_subreaper() -> Result<(), Errno> {
    // SAFETY: passes integers only.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }).map(drop)
}

/// `prctl(PR_SET_PDEATHSIG)`: `signal` comes when the parent dies. It is lost if the parent is dead already: look after.
pub fn set_parent_death_signal(signal: Signal) -> Result<(), Errno> {
    // SAFETY: passes integers only.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal.number(), 0, 0, 0) }).map(drop)
}

/// `ioctl(TIOCNOTTY)` on stdin: gives the controlling terminal up, so that the command's session can have it. A session
/// leader's foreground group gets HUP and CONT for it.
pub fn give_terminal_up() {
    // SAFETY: the request takes no argument. It fails if stdin is not our controlling terminal: then nothing is lost.
    unsafe { libc::ioctl(0, libc::TIOCNOTTY) };
}

/// `pidfd_open(2)`, Linux 5.3. ESRCH: no such process.
pub fn pidfd_open(pid: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: passes integers only.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = Errno::result(i32::try_from(fd).unwrap_or(-1))?;
    // SAFETY: the call succeeded, so this is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `_exit(2)`: ends without exit handlers or buffers.
pub fn exit(code: u8) -> ! {
    // SAFETY: ends the process; nothing of ours runs afterwards.
    unsafe { libc::_exit(c_int::from(code)) }
}

/// Stops this process as Ctrl-Z would have: SIGTSTP with its default action, let through for a moment. Returns when
/// SIGCONT came, or at once where stopping is not possible (an orphaned process group, SIGTSTP ignored).
pub fn suspend() {
    let _ = signal::kill(0, Some(Signal::TSTP));
    let before = signal::unblock(SignalSet::only(Signal::TSTP));
    set_mask(before);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h5_the_pid_is_written_as_decimal_text() {
        for (number, text) in [(0, "0"), (7, "7"), (4_194_304, "4194304"), (u32::MAX, "4294967295")] {
            let mut buffer = [0xff; 11];
            write_decimal(&mut buffer, number);
            assert_eq!(&buffer[..text.len()], text.as_bytes());
            assert_eq!(buffer[text.len()], 0);
        }
    }

    #[test]
    fn pidfd_info_has_the_published_size() {
        assert_eq!(size_of::<PidfdInfo>(), 64);
    }
}
