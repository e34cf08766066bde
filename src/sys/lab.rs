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
