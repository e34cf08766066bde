//! The only unsafe code of the crate: one system call a wrapper, each with the reason why it is sound.
//!
//! Signals go through the raw system calls, because every C library keeps some real-time signals to itself
//! (glibc 32 and 33, musl 32 to 34) and silently takes them out of each set that passes through its wrappers;
//! an init must block and forward those too. What nix wraps without loss is called through nix.

pub mod action;
pub mod capability;
pub mod change;
pub mod entry;
pub mod fd;
#[cfg(feature = "lab")]
pub mod lab;
pub mod limit;
pub mod mount;
pub mod namespace;
pub mod netlink;
pub mod process;
pub mod seccomp;
pub mod signal;

pub use nix::errno::Errno;

/// The number of an error of the standard library; 0 if it has none.
pub fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}

/// The name of an error as `errno(3)` and strace write it, such as `ENOENT`.
pub fn errno_name(errno: Errno) -> &'static str {
    match errno {
        Errno::EPERM => "EPERM",
        Errno::ENOENT => "ENOENT",
        Errno::ESRCH => "ESRCH",
        Errno::EINTR => "EINTR",
        Errno::EIO => "EIO",
        Errno::ENXIO => "ENXIO",
        Errno::E2BIG => "E2BIG",
        Errno::ENOEXEC => "ENOEXEC",
        Errno::EBADF => "EBADF",
        Errno::ECHILD => "ECHILD",
        Errno::EAGAIN => "EAGAIN",
        Errno::ENOMEM => "ENOMEM",
        Errno::EACCES => "EACCES",
        Errno::EFAULT => "EFAULT",
        Errno::EBUSY => "EBUSY",
        Errno::EEXIST => "EEXIST",
        Errno::ENODEV => "ENODEV",
        Errno::ENOTDIR => "ENOTDIR",
        Errno::EISDIR => "EISDIR",
        Errno::EINVAL => "EINVAL",
        Errno::ENFILE => "ENFILE",
        Errno::EMFILE => "EMFILE",
        Errno::ENOTTY => "ENOTTY",
        Errno::ETXTBSY => "ETXTBSY",
        Errno::ENOSPC => "ENOSPC",
        Errno::EROFS => "EROFS",
        Errno::EPIPE => "EPIPE",
        Errno::ERANGE => "ERANGE",
        Errno::ENAMETOOLONG => "ENAMETOOLONG",
        Errno::ENOSYS => "ENOSYS",
        Errno::ELOOP => "ELOOP",
        Errno::ELIBBAD => "ELIBBAD",
        Errno::EOPNOTSUPP => "EOPNOTSUPP",
        Errno::ENETUNREACH => "ENETUNREACH",
        Errno::EHOSTUNREACH => "EHOSTUNREACH",
        Errno::EADDRINUSE => "EADDRINUSE",
        Errno::EADDRNOTAVAIL => "EADDRNOTAVAIL",
        Errno::EAFNOSUPPORT => "EAFNOSUPPORT",
        Errno::EPROTONOSUPPORT => "EPROTONOSUPPORT",
        Errno::ENOBUFS => "ENOBUFS",
        Errno::EOVERFLOW => "EOVERFLOW",
        Errno::EUSERS => "EUSERS",
        Errno::EDOM => "EDOM",
        Errno::EMLINK => "EMLINK",
        Errno::EFBIG => "EFBIG",
        Errno::ESPIPE => "ESPIPE",
        Errno::EDEADLK => "EDEADLK",
        Errno::ENOTEMPTY => "ENOTEMPTY",
        Errno::ENODATA => "ENODATA",
        Errno::ESTALE => "ESTALE",
        Errno::EXDEV => "EXDEV",
        Errno::ENOTBLK => "ENOTBLK",
        Errno::ENETDOWN => "ENETDOWN",
        Errno::EBADMSG => "EBADMSG",
        _ => "errno",
    }
}
