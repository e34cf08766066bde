//! What a process does to itself before it becomes the init of a container, and what is done to that from outside.

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr;

use crate::sys::Errno;

/// `dup2(2)`: the same open file under this number, inherited over exec(2). What was there is closed.
///
/// For a process that is about to exec: nothing in it may own the number.
pub fn place(from: BorrowedFd<'_>, number: RawFd) -> Result<(), Errno> {
    // SAFETY: passes integers only; by the rule above nobody's descriptor is closed behind their back.
    Errno::result(unsafe { libc::dup2(from.as_raw_fd(), number) }).map(drop)
}

/// `close(2)` of a number that nothing in this process owns.
pub fn close(number: RawFd) {
    // SAFETY: passes an integer only; by the rule above nobody's descriptor is closed behind their back.
    unsafe { libc::close(number) };
}

/// `ioctl(TIOCSCTTY)`: makes this the controlling terminal of the session that we lead. EPERM: it is another session's.
pub fn take_terminal(terminal: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: the request takes an integer.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) }).map(drop)
}

/// `ioctl(TIOCSWINSZ)`: the size of a terminal's window; its foreground group gets WINCH if it changes.
pub fn set_window(terminal: BorrowedFd<'_>, rows: u16, columns: u16) -> Result<(), Errno> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the request reads one winsize, which is live.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) }).map(drop)
}

/// What prlimit(2) limits, as far as it is used here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resource {
    /// `RLIMIT_AS`: memory.
    Memory,
    /// `RLIMIT_DATA`: memory to write to.
    Data,
    /// `RLIMIT_NPROC`: processes of the user.
    Processes,
    /// `RLIMIT_NOFILE`: descriptors.
    Files,
    /// `RLIMIT_FSIZE`: the size of files.
    FileSize,
    /// `RLIMIT_SIGPENDING`: queued signals of the user.
    Signals,
    /// `RLIMIT_CORE`: the size of core dumps.
    Core,
}

/// `prlimit(2)`, Linux 2.6.36: both limits of a process. 0: our own.
pub fn limit(pid: i32, resource: Resource, value: u64) -> Result<(), Errno> {
    let which = match resource {
        Resource::Memory => libc::RLIMIT_AS,
        Resource::Data => libc::RLIMIT_DATA,
        Resource::Processes => libc::RLIMIT_NPROC,
        Resource::Files => libc::RLIMIT_NOFILE,
        Resource::FileSize => libc::RLIMIT_FSIZE,
        Resource::Signals => libc::RLIMIT_SIGPENDING,
        Resource::Core => libc::RLIMIT_CORE,
    };
    let new = libc::rlimit { rlim_cur: value, rlim_max: value };
    // SAFETY: the new limit is live and only read; a null pointer means that the old one is not asked for.
    Errno::result(unsafe { libc::prlimit(pid, which, &raw const new, ptr::null_mut()) }).map(drop)
}

/// `CAP_KILL`: to signal processes of other users.
pub const CAP_KILL: u32 = 5;

/// `prctl(PR_CAPBSET_DROP)`: no program that is executed from now on has this capability.
pub fn drop_capability(number: u32) -> Result<(), Errno> {
    // SAFETY: passes integers only.
    Errno::result(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) }).map(drop)
}

/// Writes to a pipe until it takes no byte more.
pub fn fill(pipe: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: passes integers only.
    let flags = Errno::result(unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_GETFL) })?;
    // SAFETY: passes integers only.
    Errno::result(unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) })?;
    while crate::sys::fd::write(pipe, b"x").is_ok() {}
    // SAFETY: passes integers only.
    Errno::result(unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETFL, flags) }).map(drop)
}

/// The argument of a tracee's system call, at whose entry it is stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Call {
    /// The call's number.
    pub number: i64,
    /// Its first argument.
    pub first: u64,
}

/// `ptrace(PTRACE_GET_SYSCALL_INFO)`, Linux 5.3. `None`: the tracee is not at the entry of a call.
pub fn call_of(pid: nix::unistd::Pid) -> Result<Option<Call>, Errno> {
    let info = nix::sys::ptrace::syscall_info(pid)?;
    if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return Ok(None);
    }
    // SAFETY: op says that it is this member of the union that the kernel has filled.
    let entry = unsafe { info.u.entry };
    Ok(Some(Call { number: i64::try_from(entry.nr).unwrap_or(-1), first: entry.args[0] }))
}
