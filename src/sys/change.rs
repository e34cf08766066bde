//! What a new process changes of its limits and credentials between clone(2) and execve(2): without an allocation, in
//! memory that it shares with its parent, each by the raw system call (see [`super::action`]).

use std::ffi::{CString, c_int, c_long};
use std::fmt;
use std::os::fd::{AsRawFd, OwnedFd};

use super::capability::{Sets, set_own};
use super::limit::{Limit, prlimit};
use super::{Errno, seccomp};
use crate::setup::capability::Capabilities;

/// One change. Its words ([`fmt::Display`]) are the call, as strace shows it.
#[derive(Debug)]
pub enum Change {
    /// `write(2)` to `self/oom_score_adj` below this /proc, which need not be mounted where the command is. As long as a
    /// process is in its vfork, it alone is changed, though it shares its memory (`__set_oom_adj`, fs/proc/base.c).
    OomScore(OwnedFd, CString),
    /// `prlimit(2)`; the name of the limit.
    Limit(&'static str, Limit),
    /// `setpriority(2)`.
    Nice(c_int),
    /// `umask(2)`.
    Umask(u32),
    /// `prctl(PR_CAPBSET_DROP)` of each.
    DropBounding(Capabilities),
    /// `prctl(PR_SET_KEEPCAPS)`: the permitted set survives the change of the user.
    KeepCapabilities,
    /// `setgroups(2)`.
    Groups(Vec<libc::gid_t>),
    /// `setresgid(2)`, all three.
    Group(libc::gid_t),
    /// `setresuid(2)`, all three.
    User(libc::uid_t),
    /// `capset(2)`.
    Capabilities(Sets),
    /// `prctl(PR_CAP_AMBIENT_RAISE)` of each.
    Ambient(Capabilities),
    /// `prctl(PR_SET_NO_NEW_PRIVS)`.
    NoNewPrivileges,
    /// `seccomp(SECCOMP_SET_MODE_FILTER)` with these flags.
    Filter(Vec<seccomp::Instruction>, u32),
}

impl Change {
    /// Does it. Allocates nothing.
    pub fn perform(&self) -> Result<(), Errno> {
        match self {
            Self::OomScore(proc, score) => write_own(proc, score),
            Self::Limit(_, limit) => prlimit(*limit).map(drop),
            // SAFETY: passes integers only.
            Self::Nice(nice) => result(unsafe { libc::syscall(libc::SYS_setpriority, libc::PRIO_PROCESS, 0, *nice) }),
            // SAFETY: passes an integer only.
            Self::Umask(mask) => result(unsafe { libc::syscall(libc::SYS_umask, *mask) }),
            Self::DropBounding(set) => {
                set.numbers().try_for_each(|number| prctl(libc::PR_CAPBSET_DROP, number.into(), 0))
            }
            Self::KeepCapabilities => prctl(libc::PR_SET_KEEPCAPS, 1, 0),
            // SAFETY: the list is live, and its length is passed along.
            Self::Groups(list) => result(unsafe { libc::syscall(SYS_SETGROUPS, list.len(), list.as_ptr()) }),
            // SAFETY: passes integers only.
            Self::Group(id) => result(unsafe { libc::syscall(SYS_SETRESGID, *id, *id, *id) }),
            // SAFETY: passes integers only.
            Self::User(id) => result(unsafe { libc::syscall(SYS_SETRESUID, *id, *id, *id) }),
            Self::Capabilities(sets) => set_own(sets),
            Self::Ambient(set) => set
                .numbers()
                .try_for_each(|number| prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE.into(), number.into())),
            Self::NoNewPrivileges => prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0),
            Self::Filter(program, flags) => seccomp::install(program, *flags),
        }
    }

    /// The way out, if it failed so.
    pub fn advice(&self, errno: Errno) -> &'static str {
        match (self, errno) {
            (Self::OomScore(..), Errno::EACCES) => "only CAP_SYS_RESOURCE of the machine lowers it; take a higher one",
            (Self::OomScore(..), Errno::EROFS) => READ_ONLY,
            (Self::Limit(_, limit), _) => limit_advice(*limit),
            (Self::Nice(_), Errno::EACCES | Errno::EPERM) => "below what it is now needs CAP_SYS_NICE of the machine",
            (Self::DropBounding(_), Errno::EPERM) => "needs CAP_SETPCAP; run as root, or add --unshare user",
            (Self::Groups(_), Errno::EPERM) => {
                "needs CAP_SETGID, and a user namespace that allows it (--map-groups, not --map-root alone)"
            }
            (Self::Groups(_) | Self::Group(_) | Self::User(_), Errno::EINVAL) => {
                "this id is not mapped in the user namespace; map it with --map-users and --map-groups, or --map-auto"
            }
            (Self::Group(_), Errno::EPERM) => "needs CAP_SETGID; run as root, and with SETGID not taken away",
            (Self::User(_), Errno::EPERM) => "needs CAP_SETUID; run as root, and with SETUID not taken away",
            (Self::User(_), Errno::EAGAIN) => "this user has too many processes; raise --ulimit nproc",
            (Self::Ambient(_), Errno::EPERM) => "the securebits forbid ambient capabilities; leave --ambient-caps out",
            (Self::Filter(..), Errno::EACCES) => "needs CAP_SYS_ADMIN, or --no-new-privs",
            (Self::Filter(..), Errno::EINVAL) => "no valid program, or this kernel has no seccomp filters",
            (Self::Filter(..), Errno::ENOMEM) => "all filters together are too long; take a shorter profile",
            _ => "the kernel refused, or a filter: that of --seccomp comes last with --no-new-privs",
        }
    }
}

/// The way out where the OOM score cannot be written.
pub const READ_ONLY: &str = "/proc is read-only here; have the engine set it (docker run --oom-score-adj)";

/// The way out, if this limit cannot be set.
fn limit_advice(limit: Limit) -> &'static str {
    if limit.resource == RLIMIT_NOFILE {
        return "only CAP_SYS_RESOURCE of the machine raises a hard limit, and nothing above /proc/sys/fs/nr_open; take less";
    }
    "only CAP_SYS_RESOURCE of the machine raises a hard limit; take less, or have sexton started with more"
}

/// The C libraries disagree on its type.
#[allow(clippy::cast_sign_loss)]
const RLIMIT_NOFILE: u32 = libc::RLIMIT_NOFILE as _;

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OomScore(_, score) => write!(f, "write(\"/proc/self/oom_score_adj\", {score:?})"),
            Self::Limit(name, limit) => write!(f, "prlimit({name}, {limit})"),
            Self::Nice(nice) => write!(f, "setpriority(PRIO_PROCESS, {nice})"),
            Self::Umask(mask) => write!(f, "umask({mask:03o})"),
            Self::DropBounding(set) => write!(f, "prctl(PR_CAPBSET_DROP, {set})"),
            Self::KeepCapabilities => f.write_str("prctl(PR_SET_KEEPCAPS, 1)"),
            Self::Groups(list) => write!(f, "setgroups({list:?})"),
            Self::Group(id) => write!(f, "setresgid({id}, {id}, {id})"),
            Self::User(id) => write!(f, "setresuid({id}, {id}, {id})"),
            Self::Capabilities(sets) => write!(f, "capset({}, inheritable {})", sets.permitted, sets.inheritable),
            Self::Ambient(set) => write!(f, "prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, {set})"),
            Self::NoNewPrivileges => f.write_str("prctl(PR_SET_NO_NEW_PRIVS, 1)"),
            Self::Filter(program, _) => write!(f, "seccomp(SECCOMP_SET_MODE_FILTER, {} instructions)", program.len()),
        }
    }
}

// Where there are two, those that take 32-bit ids.
#[cfg(target_pointer_width = "64")]
use libc::{
    SYS_getgroups as SYS_GETGROUPS, SYS_setgroups as SYS_SETGROUPS, SYS_setresgid as SYS_SETRESGID,
    SYS_setresuid as SYS_SETRESUID,
};
#[cfg(target_pointer_width = "32")]
use libc::{
    SYS_getgroups32 as SYS_GETGROUPS, SYS_setgroups32 as SYS_SETGROUPS, SYS_setresgid32 as SYS_SETRESGID,
    SYS_setresuid32 as SYS_SETRESUID,
};

/// Whether `setgroups(2)` is allowed: asked with more groups than there can be, so that nothing changes (EINVAL; the
/// permission is looked at first, kernel/groups.c).
pub fn may_set_groups() -> bool {
    const TOO_MANY: usize = 65_537;
    // SAFETY: the kernel reads no list of that length; there is none.
    let answer = unsafe { libc::syscall(SYS_SETGROUPS, TOO_MANY, std::ptr::null::<libc::gid_t>()) };
    result(answer) != Err(Errno::EPERM)
}

/// `getgroups(2)`: whether these are our supplementary groups already. More than there is room for are others.
pub fn has_groups(groups: &[libc::gid_t]) -> bool {
    let mut ours: [libc::gid_t; 64] = [0; 64];
    // SAFETY: the list is live, and its length is passed along.
    let count = unsafe { libc::syscall(SYS_GETGROUPS, ours.len(), ours.as_mut_ptr()) };
    let ours = usize::try_from(count).ok().and_then(|count| ours.get(..count));
    ours.is_some_and(|ours| groups.iter().all(|gid| ours.contains(gid)) && ours.iter().all(|gid| groups.contains(gid)))
}

fn result(value: c_long) -> Result<(), Errno> {
    Errno::result(value).map(drop)
}

/// `prctl(2)` with integers.
fn prctl(option: c_int, second: c_long, third: c_long) -> Result<(), Errno> {
    // SAFETY: passes integers only.
    result(unsafe { libc::syscall(libc::SYS_prctl, option, second, third, 0, 0) })
}

/// Writes to this process's own file below `proc`.
fn write_own(proc: &OwnedFd, score: &CString) -> Result<(), Errno> {
    let path = c"self/oom_score_adj";
    let flags = libc::O_WRONLY | libc::O_CLOEXEC;
    // SAFETY: the path is a C string constant.
    let fd = unsafe { libc::syscall(libc::SYS_openat, proc.as_raw_fd(), path.as_ptr(), flags) };
    result(fd)?;
    // SAFETY: the bytes are live, and their number is passed along.
    let written = unsafe { libc::syscall(libc::SYS_write, fd, score.as_ptr(), score.as_bytes().len()) };
    let written = result(written);
    // SAFETY: the descriptor was opened here, and nobody else knows it.
    unsafe { libc::syscall(libc::SYS_close, fd) };
    written
}
