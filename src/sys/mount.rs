//! What nix has not of mounts: the calls of Linux 5.2 and later, which take a mount as a descriptor.
//! ENOSYS and EPERM of theirs may be a seccomp filter's; each caller knows an older way for both.

use std::ffi::{CStr, c_int, c_uint};
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::mount::MsFlags;

use super::Errno;

/// The kernel's constants (linux/mount.h, linux/fcntl.h), which the C libraries' headers of old lack.
const OPEN_TREE_CLONE: c_int = 1;
const MOVE_MOUNT_F_EMPTY_PATH: c_uint = 0x04;
const MOVE_MOUNT_T_EMPTY_PATH: c_uint = 0x40;
const AT_RECURSIVE: c_int = 0x8000;
const MOUNT_ATTR_RDONLY: u64 = 1;

/// `mount(2)`. The same as nix has, but for C strings only: that it is not made anew for each type of path halves what
/// mounts add to the program.
pub fn mount(source: &CStr, at: &CStr, kind: &CStr, flags: MsFlags, data: &CStr) -> Result<(), Errno> {
    let or_null = |text: &CStr| if text.is_empty() { std::ptr::null() } else { text.as_ptr() };
    // SAFETY: all pointers are to live C strings, which are only read, or null, which stands for none.
    let result =
        unsafe { libc::mount(or_null(source), at.as_ptr(), or_null(kind), flags.bits(), or_null(data).cast()) };
    Errno::result(result).map(drop)
}

/// The kernel's `struct mount_attr` in its first form (32 bytes, Linux 5.12).
#[repr(C)]
struct Attributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// `readlinkat(2)`: what a symbolic link says; an empty path is the link that `folder` itself is. EINVAL, or ENOENT for an
/// empty path: it is no link.
pub fn read_link(folder: BorrowedFd<'_>, path: &CStr) -> Result<Vec<u8>, Errno> {
    // The kernel's PATH_MAX: no link is longer.
    let mut text = vec![0_u8; 4096];
    // SAFETY: the path is a live C string, and the room for the text is live and of the size that is passed along.
    let length = unsafe { libc::readlinkat(folder.as_raw_fd(), path.as_ptr(), text.as_mut_ptr().cast(), text.len()) };
    text.truncate(Errno::result(length)?.unsigned_abs());
    Ok(text)
}

/// `open_tree(2)` with `OPEN_TREE_CLONE | AT_RECURSIVE`, Linux 5.2: a copy of what is mounted at `path` and below, not
/// attached anywhere. Without it: mount(2) with `MS_BIND | MS_REC`. EINVAL: `path` is in no mount of this namespace.
pub fn copy_tree(folder: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OPEN_TREE_CLONE | AT_RECURSIVE | libc::O_CLOEXEC;
    // SAFETY: the path is a live C string, which is only read.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, folder.as_raw_fd(), path.as_ptr(), flags) };
    let fd = Errno::result(RawFd::try_from(fd).unwrap_or(-1))?;
    // SAFETY: the call succeeded, so this is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `move_mount(2)`, Linux 5.2: attaches a copied tree at `path` (of which the last symbolic link is not followed) or, if
/// that is empty, at `folder` itself, which may be a file. Without it: as [`copy_tree`].
pub fn attach(tree: BorrowedFd<'_>, folder: BorrowedFd<'_>, path: &CStr) -> Result<(), Errno> {
    let to_itself = if path.is_empty() { MOVE_MOUNT_T_EMPTY_PATH } else { 0 };
    let (tree, folder, flags) = (tree.as_raw_fd(), folder.as_raw_fd(), MOVE_MOUNT_F_EMPTY_PATH | to_itself);
    // SAFETY: both paths are live C strings, which are only read.
    let result = unsafe { libc::syscall(libc::SYS_move_mount, tree, c"".as_ptr(), folder, path.as_ptr(), flags) };
    Errno::result(result).map(drop)
}

/// `mount_setattr(2)` with `MOUNT_ATTR_RDONLY`, Linux 5.12: makes a mount read-only or writable, with `all` also those
/// below it. Without it: a remount of each.
pub fn set_read_only(mount: BorrowedFd<'_>, all: bool, read_only: bool) -> Result<(), Errno> {
    let (set, clear) = if read_only { (MOUNT_ATTR_RDONLY, 0) } else { (0, MOUNT_ATTR_RDONLY) };
    let attributes = Attributes { set, clear, propagation: 0, user_namespace: 0 };
    let flags = libc::AT_EMPTY_PATH | if all { AT_RECURSIVE } else { 0 };
    let (fd, size) = (mount.as_raw_fd(), size_of::<Attributes>());
    // SAFETY: the path is a C string, the structure is live, only read, and of the size that is passed along.
    let result =
        unsafe { libc::syscall(libc::SYS_mount_setattr, fd, c"".as_ptr(), flags, &raw const attributes, size) };
    Errno::result(result).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_have_the_published_size() {
        assert_eq!(size_of::<Attributes>(), 32);
    }
}
