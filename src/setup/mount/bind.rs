//! Binds: what is at one place shows at another as well, and maybe only to be read.
#![forbid(unsafe_code)]

use std::ffi::{CStr, CString, OsString};
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::mount::MsFlags;
use nix::sys::stat::Mode;
use nix::sys::statfs::fstatfs;

use super::place::{self, Missing};
use super::step::SetupError;
use super::{advice, failed, path};
use crate::sys::Errno;
use crate::sys::mount::{attach, copy_tree, mount, set_read_only};

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
        Which::Below if flags_of(top).contains(MsFlags::MS_RDONLY) => set_read_only(top, true, true),
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
pub fn flags_of(mounted: BorrowedFd<'_>) -> MsFlags {
    // These four have the same values as their ST_ twins (statfs(2)); the access times stay if none of them is named.
    let same = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    fstatfs(mounted).map_or(MsFlags::empty(), |stat| MsFlags::from_bits_retain(stat.flags().bits()) & same)
}

/// Remounts one by one.
fn remount(top: BorrowedFd<'_>, which: Which, at: &Path) -> Result<(), SetupError> {
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    let one = |mounted: BorrowedFd<'_>, name: &Path| {
        mount(c"", &by_number(mounted), c"", flags | flags_of(mounted), c"")
            .map_err(|errno| failed("mount(MS_REMOUNT|MS_BIND|MS_RDONLY, ", name, errno, advice(errno)))
    };
    if which != Which::Top {
        for below in paths_below(top)? {
            // One that is covered by another cannot be reached, nor written to.
            let Ok(mounted) = place::find(top, &below, Missing::Fail) else { continue };
            one(mounted.as_fd(), &at.join(&below))?;
        }
    }
    if which == Which::Below { Ok(()) } else { one(top, at) }
}

/// The places of all mounts below this one, relative to it, from /proc/self/mountinfo.
fn paths_below(top: BorrowedFd<'_>) -> Result<Vec<PathBuf>, SetupError> {
    let read = |path: &str| {
        fs::read(path).map_err(|error| {
            let errno = Errno::from_raw(error.raw_os_error().unwrap_or(0));
            failed("open(", Path::new(path), errno, "mount_setattr(2) is refused here, and without it /proc is needed")
        })
    };
    let info = read(&format!("/proc/self/fdinfo/{}", top.as_raw_fd()))?;
    let id = info.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"mnt_id:")).unwrap_or_default();
    Ok(below(&read("/proc/self/mountinfo")?, id.trim_ascii()))
}

/// The mounts below the mount of this id in the text of mountinfo (proc_pid_mountinfo(5)), relative to it.
fn below(mountinfo: &[u8], top: &[u8]) -> Vec<PathBuf> {
    // Id, parent's id, device, what is mounted of it, and where.
    let lines = || {
        mountinfo.split(|byte| *byte == b'\n').filter_map(|line| {
            let mut fields = line.split(|byte| *byte == b' ');
            Some((fields.next()?, fields.next()?, fields.nth(2)?))
        })
    };
    let base = lines().find(|(id, ..)| *id == top).map_or(&b"/"[..], |(.., place)| place);
    let base = base.strip_suffix(b"/").unwrap_or(base);
    let mut inside = vec![top];
    let mut found = Vec::new();
    // The order of the lines is not promised to be from parents to children.
    loop {
        let before = inside.len();
        for (id, parent, place) in lines() {
            if inside.contains(&parent) && !inside.contains(&id) {
                inside.push(id);
                let place = unescaped(place.strip_prefix(base).unwrap_or(place));
                found.push(PathBuf::from(OsString::from_vec(place)));
            }
        }
        if inside.len() == before {
            return found;
        }
    }
}

/// `\040` and its like are the bytes that they number, in octal.
fn unescaped(mut text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some((first, behind)) = text.split_first() {
        match text {
            [b'\\', high @ b'0'..=b'3', middle @ b'0'..=b'7', low @ b'0'..=b'7', behind @ ..] => {
                bytes.push((high - b'0') << 6 | (middle - b'0') << 3 | (low - b'0'));
                text = behind;
            }
            _ => {
                bytes.push(*first);
                text = behind;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n4_the_mounts_below_one_are_found() {
        let text = b"1 0 8:1 / / rw - ext4 a rw\n\
                     5 4 8:2 / /mnt/x/a\\040b/c rw - tmpfs b rw\n\
                     3 1 8:1 /srv /mnt/x rw - ext4 a rw\n\
                     4 3 8:2 / /mnt/x/a\\040b rw - tmpfs b rw\n\
                     6 1 8:2 / /mnt/xy rw - tmpfs b rw\n";
        let found = below(text, b"3");
        assert_eq!(found, [Path::new("/a b"), Path::new("/a b/c")]);
        assert_eq!(below(text, b"1").len(), 4);
        assert!(below(text, b"6").is_empty() && below(b"", b"1").is_empty());
    }

    #[test]
    fn n4_only_octal_numbers_are_unescaped() {
        assert_eq!(unescaped(b"a\\040b\\134"), b"a b\\");
        assert_eq!(unescaped(b"a\\09b\\0"), b"a\\09b\\0");
    }
}
