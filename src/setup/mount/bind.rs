//! Binds: what is at one place shows at another as well, and maybe only to be read.
#![forbid(unsafe_code)]

use std::ffi::{CStr, CString, OsStr};
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::mount::MsFlags;
use nix::sys::stat::Mode;
use nix::sys::statfs::{Statfs, fstatfs};

use super::place::{self, Missing};
use super::step::SetupError;
use super::{advice, failed, path};
use crate::sys::mount::{attach, copy_tree, mount, read_link, set_read_only};
use crate::sys::{Errno, errno_of};

/// What is to be bound, opened while its path means what was meant.
#[derive(Debug)]
pub struct Source {
    fd: OwnedFd,
    /// It is a copy of the mounts there, and not just a descriptor of the place.
    is_copy: bool,
}

impl Source {
    /// Opens a path that is relative to a folder.
    pub fn open_in(folder: BorrowedFd<'_>, path: &CStr) -> Result<Self, Errno> {
        match copy_tree(folder, path) {
            Ok(fd) => Ok(Self { fd, is_copy: true }),
            Err(Errno::ENOSYS | Errno::EPERM) => {
                let fd = openat(folder, path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
                Ok(Self { fd, is_copy: false })
            }
            Err(errno) => Err(errno),
        }
    }

    /// The place itself.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Mounts it at this place, with all that is mounted below it: a part of it alone could show what a mount hides, so
    /// that a user namespace may not have it.
    ///
    /// mount(2) knows no descriptors: without the newer calls it takes /proc.
    pub fn attach(&self, place: BorrowedFd<'_>) -> Result<(), Errno> {
        if self.is_copy {
            return attach(self.as_fd(), place, c"");
        }
        let (from, to) = (by_number(self.as_fd()), by_number(place));
        mount(&from, &to, c"", MsFlags::MS_BIND | MsFlags::MS_REC, c"")
    }
}

/// The path by which /proc knows a descriptor.
pub fn by_number(fd: BorrowedFd<'_>) -> CString {
    CString::new(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap_or_default()
}

/// Opens what is to be bound.
pub fn open(source: &CStr) -> Result<Source, SetupError> {
    Source::open_in(AT_FDCWD, source).map_err(|errno| {
        let advice = match errno {
            Errno::ENOENT => "there is nothing to bind; make it first",
            Errno::EINVAL => "it is in no mount of this namespace, so it cannot be bound",
            _ => advice(errno),
        };
        failed("open_tree(", path(source), errno, advice)
    })
}

/// Binds at a place beneath the root, which is made if it is missing.
pub fn bind(root: BorrowedFd<'_>, source: &Source, at: &Path, read_only: bool) -> Result<(), SetupError> {
    let place = place::find(root, at, Missing::Like(source.as_fd()))
        .map_err(|errno| failed("openat(", at, errno, super::place_advice(errno)))?;
    // Read-only before anyone can write: as long as it is attached nowhere.
    let is_done = read_only && source.is_copy && set_read_only(source.as_fd(), true, true).is_ok();
    source.attach(place.as_fd()).map_err(|errno| {
        let advice = match errno {
            Errno::ENOTDIR | Errno::EINVAL => "one of the two is a folder, the other is not; or they are in each other",
            Errno::ENOENT => "open_tree(2) is refused here, and without it /proc is needed; mount it",
            _ => advice(errno),
        };
        failed("move_mount(", at, errno, advice)
    })?;
    if !read_only || is_done {
        return Ok(());
    }
    if source.is_copy {
        return make_read_only(source.as_fd(), Which::All, at);
    }
    let mounted = place::find(root, at, Missing::Fail);
    let mounted = mounted.map_err(|errno| failed("openat(", at, errno, super::place_advice(errno)))?;
    make_read_only(mounted.as_fd(), Which::All, at)
}

/// Which mounts of a tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Which {
    /// The one at its top.
    Top,
    /// Those below.
    Below,
    /// All.
    All,
}

/// Makes mounts read-only. `at` is for the error's words.
pub fn make_read_only(top: BorrowedFd<'_>, which: Which, at: &Path) -> Result<(), SetupError> {
    let result = match which {
        Which::Top | Which::All => set_read_only(top, which == Which::All, true),
        // There is no call for it; but what was read-only before must stay so (and may be locked so).
        Which::Below if fstatfs(top).is_ok_and(|stat| flags_of(&stat).contains(MsFlags::MS_RDONLY)) => {
            set_read_only(top, true, true)
        }
        Which::Below => set_read_only(top, true, true).and_then(|()| set_read_only(top, false, false)),
    };
    match result {
        Ok(()) => Ok(()),
        Err(Errno::ENOSYS | Errno::EPERM) => remount(top, which, at),
        Err(errno) => {
            let advice = match errno {
                Errno::EINVAL => "it is no mount, as in a chroot; use --root",
                _ => advice(errno),
            };
            Err(failed("mount_setattr(", at, errno, advice))
        }
    }
}

/// The flags that a remount has to say again: what it leaves out it would clear, and in a user namespace it may not.
pub fn flags_of(stat: &Statfs) -> MsFlags {
    // These four have the same values as their ST_ twins (statfs(2)); the access times stay if none of them is named.
    let same = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    MsFlags::from_bits_retain(stat.flags().bits()) & same
}

/// Remounts one by one.
fn remount(top: BorrowedFd<'_>, which: Which, at: &Path) -> Result<(), SetupError> {
    if which != Which::Top {
        let wrong = |call, path: &CStr, errno| {
            failed(call, super::path(path), errno, "mount_setattr(2) is refused here, and without it /proc is needed")
        };
        let link = by_number(top);
        let base = read_link(AT_FDCWD, &link).map_err(|errno| wrong("readlink(", &link, errno))?;
        let mountinfo = fs::read("/proc/self/mountinfo")
            .map_err(|error| wrong("open(", c"/proc/self/mountinfo", errno_of(&error)))?;
        for line in mountinfo.split(|byte| *byte == b'\n') {
            let Some(below) = place_below(line, &base) else { continue };
            let below = Path::new(OsStr::from_bytes(&below));
            let result = place::find(top, below, Missing::Fail).and_then(|place| remount_one(place.as_fd()));
            match result {
                // Not of this tree, but of one that lies under it; or covered by another, and so out of reach.
                Ok(()) | Err(Errno::EINVAL | Errno::ENOENT | Errno::ENOTDIR) => {}
                Err(errno) => return Err(failed(REMOUNT, below, errno, advice(errno))),
            }
        }
    }
    if which == Which::Below {
        return Ok(());
    }
    remount_one(top).map_err(|errno| failed(REMOUNT, at, errno, advice(errno)))
}

const REMOUNT: &str = "mount(MS_REMOUNT|MS_BIND|MS_RDONLY, ";

fn remount_one(place: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | flags_of(&fstatfs(place)?);
    mount(c"", &by_number(place), c"", flags, c"")
}

/// Where the mount of a line of /proc/self/mountinfo (proc_pid_mountinfo(5)) is, if that is below `base`: relative to it.
fn place_below(line: &[u8], base: &[u8]) -> Option<Vec<u8>> {
    let place = unescaped(line.split(|byte| *byte == b' ').nth(4)?);
    let below = place.strip_prefix(base.strip_suffix(b"/").unwrap_or(base))?;
    (below.len() > 1 && below.starts_with(b"/")).then(|| below.to_vec())
}

/// `\040` and its like are the bytes that they number, in octal.
fn unescaped(mut text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some((first, behind)) = text.split_first() {
        text = behind;
        match text {
            [high @ b'0'..=b'3', middle @ b'0'..=b'7', low @ b'0'..=b'7', behind @ ..] if *first == b'\\' => {
                bytes.push((high - b'0') << 6 | (middle - b'0') << 3 | (low - b'0'));
                text = behind;
            }
            _ => bytes.push(*first),
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n4_the_mounts_below_one_are_found() {
        let below = |place: &str, base: &str| {
            let line = format!("5 4 8:2 / {place} rw,relatime shared:1 - tmpfs b rw");
            place_below(line.as_bytes(), base.as_bytes()).map(|place| String::from_utf8(place).unwrap())
        };
        assert_eq!(below("/mnt/x/a\\040b/c", "/mnt/x").as_deref(), Some("/a b/c"));
        assert_eq!(below("/mnt/x", "/").as_deref(), Some("/mnt/x"));
        assert_eq!(below("/mnt/a\\040b/c", "/mnt/a b").as_deref(), Some("/c"));
        for (place, base) in [("/mnt/x", "/mnt/x"), ("/mnt/xy", "/mnt/x"), ("/mnt", "/mnt/x"), ("/", "/")] {
            assert_eq!(below(place, base), None, "{place} {base}");
        }
        assert_eq!(place_below(b"", b"/"), None);
    }

    #[test]
    fn n4_only_octal_numbers_are_unescaped() {
        assert_eq!(unescaped(b"a\\040b\\134"), b"a b\\");
        assert_eq!(unescaped(b"a\\09b\\0"), b"a\\09b\\0");
    }
}
