//! Resource limits and priority (prlimit(2), getpriority(2)).

use std::ffi::{c_int, c_long};
use std::fmt;
use std::ptr;

use super::Errno;

/// No limit (`RLIM64_INFINITY`).
pub const UNLIMITED: u64 = u64::MAX;

/// A resource and its two limits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limit {
    /// `RLIMIT_*`.
    pub resource: u32,
    /// What is in force.
    pub soft: u64,
    /// How far the process may raise that.
    pub hard: u64,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |f: &mut fmt::Formatter<'_>, value: u64| match value {
            UNLIMITED => f.write_str("unlimited"),
            value => write!(f, "{value}"),
        };
        part(f, self.soft)?;
        f.write_str(":")?;
        part(f, self.hard)
    }
}

/// `struct rlimit64`: soft, hard.
type Pair = [u64; 2];

/// `prlimit(2)` of this process, Linux 2.6.36: sets the limit, returns what it was. Allocates nothing. EPERM: a hard limit
/// is raised without CAP_SYS_RESOURCE, or RLIMIT_NOFILE above nr_open.
pub fn prlimit(limit: Limit) -> Result<Limit, Errno> {
    let new: Pair = [limit.soft, limit.hard];
    let mut old: Pair = [0; 2];
    // SAFETY: both are live, and laid out as struct rlimit64.
    Errno::result(unsafe { libc::syscall(libc::SYS_prlimit64, 0, limit.resource, new.as_ptr(), old.as_mut_ptr()) })?;
    Ok(Limit { resource: limit.resource, soft: old[0], hard: old[1] })
}

/// `prlimit(2)`, asking only.
pub fn current(resource: u32) -> Result<Limit, Errno> {
    let mut now: Pair = [0; 2];
    // SAFETY: the structure is live and laid out as struct rlimit64; a null one stands for no change.
    Errno::result(unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, ptr::null::<Pair>(), now.as_mut_ptr()) })?;
    Ok(Limit { resource, soft: now[0], hard: now[1] })
}

/// `getpriority(2)` of this process: the nice value. The system call itself returns 20 less it.
pub fn nice() -> Result<c_int, Errno> {
    // SAFETY: passes integers only.
    let answer: c_long = Errno::result(unsafe { libc::syscall(libc::SYS_getpriority, libc::PRIO_PROCESS, 0) })?;
    Ok(20 - c_int::try_from(answer).unwrap_or(20))
}

/// `setpriority(2)` of this process. EACCES: lower without CAP_SYS_NICE.
pub fn set_nice(nice: c_int) -> Result<(), Errno> {
    // SAFETY: passes integers only.
    Errno::result(unsafe { libc::syscall(libc::SYS_setpriority, libc::PRIO_PROCESS, 0, nice) }).map(drop)
}
