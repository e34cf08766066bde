//! Signal masks, dispositions, sending and receiving, over all 64 signals.

use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use super::Errno;
use crate::signal::Signal;

/// The kernel's `sigset_t`: bit n-1 stands for signal n.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(transparent)]
pub struct SignalSet(u64);

/// The size that the `rt_sig*` calls want to be told.
const SET_SIZE: usize = size_of::<SignalSet>();

impl SignalSet {
    /// No signal.
    pub const EMPTY: Self = Self(0);
    /// Every signal. The kernel itself leaves KILL and STOP out of a mask.
    pub const FULL: Self = Self(u64::MAX);

    /// Just this one.
    pub fn only(signal: Signal) -> Self {
        Self(1 << (signal.number() - 1))
    }

    /// Whether it holds `signal`.
    pub fn contains(self, signal: Signal) -> bool {
        self.0 & Self::only(signal).0 != 0
    }

    /// With `signal` in it.
    #[must_use]
    pub fn with(self, signal: Signal) -> Self {
        Self(self.0 | Self::only(signal).0)
    }
}

/// `rt_sigprocmask(2)`: replaces the calling thread's mask and returns the one before. It cannot fail.
pub fn set_mask(set: SignalSet) -> SignalSet {
    change_mask(libc::SIG_SETMASK, set)
}

/// `rt_sigprocmask(2)`: takes `set` out of the mask and returns the one before. It cannot fail.
pub fn unblock(set: SignalSet) -> SignalSet {
    change_mask(libc::SIG_UNBLOCK, set)
}

fn change_mask(how: i32, set: SignalSet) -> SignalSet {
    let mut before = SignalSet::EMPTY;
    // SAFETY: both pointers are to live sets of the kernel's own layout, whose size is passed along.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, how, &raw const set, &raw mut before, SET_SIZE) };
    before
}

/// What happens when a signal arrives that is not blocked, as far as an init cares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Disposition {
    /// The kernel's default action.
    Default,
    /// Nothing.
    Ignore,
}

/// The kernel's `struct sigaction` (not the C library's). All zero is the default disposition.
#[repr(C)]
#[derive(Default)]
struct KernelAction {
    handler: usize,
    flags: usize,
    #[cfg(target_arch = "x86_64")]
    restorer: usize,
    mask: SignalSet,
}

/// `rt_sigaction(2)`: sets a disposition and returns whether the signal was ignored before. Without effect for KILL and
/// STOP.
pub fn set_disposition(signal: Signal, disposition: Disposition) -> bool {
    let handler = if disposition == Disposition::Ignore { libc::SIG_IGN } else { libc::SIG_DFL };
    let action = KernelAction { handler, ..KernelAction::default() };
    let mut before = KernelAction::default();
    // SAFETY: both are live and of the kernel's layout; ignoring or defaulting runs no code of ours.
    unsafe { libc::syscall(libc::SYS_rt_sigaction, signal.number(), &raw const action, &raw mut before, SET_SIZE) };
    before.handler == libc::SIG_IGN
}

/// One signal as signalfd(2) tells it.
pub type SignalInfo = libc::signalfd_siginfo;

/// How many signals one read takes at the most: 16 × 128 bytes, half a page of stack.
pub const BATCH: usize = 16;

/// `signalfd4(2)`, Linux 2.6.27: a descriptor that all blocked signals are read from; CLOEXEC, never blocking.
pub struct SignalFd(OwnedFd);

impl SignalFd {
    /// Opens one for every signal.
    pub fn open() -> Result<Self, Errno> {
        let set = SignalSet::FULL;
        // SAFETY: the set is live and of the kernel's layout, whose size is passed along.
        let fd = unsafe {
            libc::syscall(libc::SYS_signalfd4, -1, &raw const set, SET_SIZE, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        };
        let fd = Errno::result(i32::try_from(fd).unwrap_or(-1))?;
        // SAFETY: the call succeeded, so this is a new descriptor that nobody else owns.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Takes pending signals, lowest number first, as many as fit, and returns how many: 0 when none is pending.
    pub fn read(&self, buffer: &mut [MaybeUninit<SignalInfo>; BATCH]) -> usize {
        let size = size_of::<SignalInfo>();
        // SAFETY: the kernel writes whole records only, and at most as many bytes as the buffer has.
        let count = unsafe { libc::read(self.0.as_raw_fd(), buffer.as_mut_ptr().cast(), size * BATCH) };
        usize::try_from(count).map_or(0, |bytes| bytes / size)
    }

    /// The records that the last [`SignalFd::read`] into `buffer` filled.
    pub fn filled(buffer: &[MaybeUninit<SignalInfo>; BATCH], count: usize) -> &[SignalInfo] {
        let count = count.min(BATCH);
        // SAFETY: read() returned count, so that many records were written; the type has no invalid bit patterns.
        unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast(), count) }
    }

    /// For poll(2).
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.0)
    }
}

/// `rt_sigtimedwait(2)` without waiting: takes one pending signal of `set`, and says whether there was one.
pub fn take_pending(set: SignalSet) -> bool {
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: set and time are live; a null siginfo pointer is allowed and means that nothing is written.
    let taken = unsafe {
        libc::syscall(
            libc::SYS_rt_sigtimedwait,
            &raw const set,
            ptr::null::<libc::siginfo_t>(),
            &raw const now,
            SET_SIZE,
        )
    };
    taken > 0
}

/// `kill(2)`: `pid` > 0 a process, -1 everyone that may be signalled, < -1 a process group. `None` only asks.
pub fn kill(pid: i32, signal: Option<Signal>) -> Result<(), Errno> {
    // SAFETY: no memory is passed.
    Errno::result(unsafe { libc::kill(pid, signal.map_or(0, Signal::number)) }).map(drop)
}

/// A signal's load, as sigqueue(3) gives it, and who sent it first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queued {
    /// The sender's process id.
    pub pid: i32,
    /// The sender's user id.
    pub uid: u32,
    /// `sigval`: an int or a pointer, as the sender meant it.
    pub value: u64,
}

/// The start of the kernel's `siginfo_t` for a queued signal (`struct siginfo`, `_rt`), at its full size of 128 bytes.
#[repr(C)]
struct QueuedInfo {
    signo: i32,
    errno: i32,
    code: i32,
    pad: i32,
    pid: i32,
    uid: u32,
    value: u64,
    rest: [u64; 12],
}

impl QueuedInfo {
    fn new(signal: Signal, queued: Queued) -> Self {
        Self {
            signo: signal.number(),
            errno: 0,
            code: libc::SI_QUEUE,
            pad: 0,
            pid: queued.pid,
            uid: queued.uid,
            value: queued.value,
            rest: [0; 12],
        }
    }
}

/// `rt_sigqueueinfo(2)`: sends `signal` with its value to a process. EAGAIN: the receiver's queue is full.
pub fn queue(pid: i32, signal: Signal, queued: Queued) -> Result<(), Errno> {
    let info = QueuedInfo::new(signal, queued);
    // SAFETY: info is live and 128 bytes long, the kernel's siginfo_t; it is only read.
    Errno::result(unsafe { libc::syscall(libc::SYS_rt_sigqueueinfo, pid, signal.number(), &raw const info) }).map(drop)
}

/// Whom a pidfd's signal goes to: the process, or the group that it leads (Linux 6.9).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// As kill(pid).
    Process,
    /// As kill(-pid): `PIDFD_SIGNAL_PROCESS_GROUP`.
    Group,
}

/// `pidfd_send_signal(2)`, Linux 5.1: like kill(2), and never hits another process that got the same number.
/// ENOSYS or EPERM: not there, or forbidden by a seccomp filter; use [`kill`].
pub fn send_to_pidfd(
    pidfd: BorrowedFd<'_>,
    signal: Option<Signal>,
    queued: Option<Queued>,
    scope: Scope,
) -> Result<(), Errno> {
    const PIDFD_SIGNAL_PROCESS_GROUP: u32 = 1 << 2;
    let flags = if scope == Scope::Group { PIDFD_SIGNAL_PROCESS_GROUP } else { 0 };
    let info = signal.zip(queued).map(|(signal, queued)| QueuedInfo::new(signal, queued));
    let info = info.as_ref().map_or(ptr::null(), ptr::from_ref);
    let number = signal.map_or(0, Signal::number);
    // SAFETY: info is null or points to a live siginfo_t of 128 bytes, which the kernel only reads.
    Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), number, info, flags) })
        .map(drop)
}
