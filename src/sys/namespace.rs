//! What nix has not of namespaces.

use std::ffi::c_int;

use super::Errno;

/// `CLONE_NEWTIME`, Linux 5.6; for unshare(2) and setns(2) only.
pub const CLONE_NEWTIME: c_int = 0x80;

/// `setdomainname(2)`. EINVAL: longer than 64 bytes; EPERM: without `CAP_SYS_ADMIN`.
pub fn set_domainname(name: &str) -> Result<(), Errno> {
    // SAFETY: the bytes are live and only read, and their number is passed along.
    Errno::result(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) }).map(drop)
}
