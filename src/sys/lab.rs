//! What only sexton-lab does.

pub mod container;

use super::Errno;

/// What fork(2) returned.
#[derive(Debug, PartialEq, Eq)]
pub enum Forked {
    /// In the new process.
    Child,
    /// In the one that called: the new one's pid.
    Parent(i32),
}

/// `fork(2)`.
pub fn fork() -> Result<Forked, Errno> {
    // SAFETY: the lab's subjects have one thread, so the child finds no lock taken and may go on as it likes.
    let pid = Errno::result(unsafe { libc::fork() })?;
    Ok(if pid == 0 { Forked::Child } else { Forked::Parent(pid) })
}

/// `clone(2)` with CLONE_VFORK: as fork, but this process waits until its child has ended, in a sleep that only KILL ends
/// (kernel/fork.c, wait_for_vfork_done).
pub fn suspending_fork() -> Result<Forked, Errno> {
    let flags = libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: without CLONE_VM the child has memory of its own, so it needs no stack, and may go on as after fork.
    let pid = Errno::result(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) })?;
    Ok(if pid == 0 { Forked::Child } else { Forked::Parent(i32::try_from(pid).unwrap_or(-1)) })
}

/// What a handler is told of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caught {
    /// Which.
    pub number: i32,
    /// What sigqueue(3) gave it; 0 where nothing did.
    pub value: usize,
    /// The sender's pid; 0: the kernel, or a process outside of our PID namespace.
    pub sender: i32,
}

/// Reads a `siginfo_t` that the kernel has filled (sigaction(2)).
pub fn caught_of(info: &libc::siginfo_t) -> Caught {
    // A sender has its pid there, and so has a child; what the kernel and timers send has other things.
    let is_sent = info.si_code <= 0 && info.si_code != libc::SI_TIMER || info.si_signo == libc::SIGCHLD;
    let has_value = info.si_code == libc::SI_QUEUE;
    // SAFETY: with this code the field is there; all bit patterns are valid.
    let value = if has_value { unsafe { info.si_value() }.sival_ptr.addr() } else { 0 };
    // SAFETY: with these codes the field is there; all bit patterns are valid.
    let sender = if is_sent { unsafe { info.si_pid() } } else { 0 };
    Caught { number: info.si_signo, value, sender }
}

/// Makes a child that ends at once and is not waited for.
pub fn zombie() -> Result<(), Errno> {
    match fork()? {
        Forked::Child => super::process::exit(0),
        Forked::Parent(_) => Ok(()),
    }
}

/// `pause(2)`, for ever: only a signal's default action ends it.
pub fn pause() -> u8 {
    loop {
        // SAFETY: has no arguments, and returns only after a handler.
        unsafe { libc::pause() };
    }
}

/// `sigaction(2)`: from now on each `signal` writes the time of its handler to stdout, 8 bytes in this machine's order:
/// nanoseconds of `CLOCK_MONOTONIC`. A call that it interrupts is restarted.
pub fn stamp_on(signal: nix::sys::signal::Signal) -> Result<(), Errno> {
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, sigaction};
    let action = SigAction::new(SigHandler::Handler(write_stamp), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler calls only what is safe in one (signal-safety(7)): clock_gettime and write.
    unsafe { sigaction(signal, &action) }.map(drop)
}

extern "C" fn write_stamp(_: std::ffi::c_int) {
    let [_, stdout, _] = super::fd::all_standard();
    // A reader that is gone reads no more stamps; there is nobody to tell.
    let _ = super::fd::write(stdout, &monotonic().to_ne_bytes());
}

/// `clock_gettime(CLOCK_MONOTONIC)` in nanoseconds: the same clock in all processes. It cannot fail.
pub fn monotonic() -> u64 {
    use nix::time::{ClockId, clock_gettime};
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_or(0, |time| time.tv_sec().unsigned_abs() * 1_000_000_000 + time.tv_nsec().unsigned_abs())
}
