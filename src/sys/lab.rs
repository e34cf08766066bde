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
