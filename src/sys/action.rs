//! What a new process does to itself between clone(2) and execve(2): prepared beforehand as a list, and carried out
//! without an allocation, in memory that it shares with its parent.
//!
//! Every call is the raw system call: the C library's setuid(3) and its like would tell all threads of the process.

use std::ffi::{CString, c_int};
use std::fmt;
use std::os::fd::{AsRawFd, OwnedFd};

use super::Errno;
use super::change::Change;
use crate::signal::Signal;

/// One act. Its words ([`fmt::Display`]) are the call, as strace shows it.
#[derive(Debug)]
pub enum Action {
    /// `write(2)` of "0" to a cgroup's `cgroup.procs`: the writer itself joins (cgroups(7)).
    JoinCgroup(OwnedFd),
    /// `unshare(2)`.
    Unshare(c_int, &'static str),
    /// `chdir(2)`.
    ChangeFolder(CString),
    /// `prctl(PR_SET_PDEATHSIG)`.
    DieWithParent(Signal),
    /// A limit or a credential.
    Change(Change),
}

impl Action {
    /// Does it. Allocates nothing.
    pub fn perform(&self) -> Result<(), Errno> {
        let result = match self {
            // SAFETY: the bytes are a live constant.
            Self::JoinCgroup(procs) => unsafe { libc::syscall(libc::SYS_write, procs.as_raw_fd(), c"0".as_ptr(), 1) },
            // SAFETY: passes an integer only.
            Self::Unshare(flags, _) => unsafe { libc::syscall(libc::SYS_unshare, *flags) },
            // SAFETY: the path is a live C string.
            Self::ChangeFolder(path) => unsafe { libc::syscall(libc::SYS_chdir, path.as_ptr()) },
            // SAFETY: passes integers only.
            Self::DieWithParent(signal) => unsafe {
                libc::syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, signal.number(), 0, 0, 0)
            },
            Self::Change(change) => return change.perform(),
        };
        Errno::result(result).map(drop)
    }
}

impl Action {
    /// The way out, if it failed so.
    pub fn advice(&self, errno: Errno) -> &'static str {
        match (self, errno) {
            (Self::Change(change), _) => change.advice(errno),
            (Self::JoinCgroup(_), Errno::EPERM | Errno::EACCES) => "the cgroup is not this user's; have it delegated",
            (Self::JoinCgroup(_), Errno::ENOSPC) => "the cpuset of the group above has no CPUs or no memory nodes",
            (Self::JoinCgroup(_), Errno::EOPNOTSUPP) => "the group above is threaded; take another --cgroup-parent",
            (Self::JoinCgroup(_), Errno::EINVAL) => "a real-time process needs real-time runtime in its group",
            (Self::JoinCgroup(_), Errno::EBUSY) => "the group has controllers enabled for groups below it",
            (Self::ChangeFolder(_), Errno::ENOENT) => "no such folder; make it, or take another",
            (Self::ChangeFolder(_), Errno::EACCES) => "not permitted for the command's user",
            (_, Errno::EPERM) => "not permitted",
            (_, Errno::EINVAL) => "this kernel does not know it",
            _ => "the kernel refused",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::JoinCgroup(_) => f.write_str("write(cgroup.procs, \"0\")"),
            Self::Unshare(_, name) => write!(f, "unshare({name})"),
            Self::ChangeFolder(path) => write!(f, "chdir({path:?})"),
            Self::DieWithParent(signal) => write!(f, "prctl(PR_SET_PDEATHSIG, {signal})"),
            Self::Change(change) => change.fmt(f),
        }
    }
}
