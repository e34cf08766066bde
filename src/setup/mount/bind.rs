//! Binds: what is at one place shows at another as well, and maybe only to be read.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::NixPath;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::Mode;
use nix::sys::statfs::fstatfs;

use super::place::{self, Missing};
use super::step::SetupError;
use super::{advice, failed};
use crate::sys::Errno;
use crate::sys::mount::{attach, copy_tree, set_read_only};

/// What is to be bound, opened while its path means what was meant.
#[derive(Debug)]
pub struct Source {
    fd: OwnedFd,
    /// It is a copy of the mounts there, and not just a descriptor of the place.
    is_copy: bool,
}

impl Source {
    /// Opens a path.
    pub fn open(path: &Path) -> Result<Self, Errno> {
        Self::open_in(AT_FDCWD, path)
    }

    /// Opens a path that is relative to a folder.
    pub fn open_in(folder: BorrowedFd<'_>, path: &Path) -> Result<Self, Errno> {
        match path.with_nix_path(|path| copy_tree(folder, path))? {
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
        let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
        mount(Some(from.as_str()), to.as_str(), None::<&str>, flags, None::<&str>)
    }
}

/// The path by which /proc knows a descriptor.
fn by_number(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Opens all sources, in their order.
pub fn open_all<'a>(paths: impl Iterator<Item = &'a Path>) -> Result<VecDeque<Source>, SetupError> {
    paths
        .map(|path| {
            Source::open(path).map_err(|errno| {
                let advice = match errno {
                    Errno::ENOENT => "there is nothing to bind; make it first",
                    Errno::EINVAL => "it is in no mount of this namespace, so it cannot be bound",
                    _ => advice(errno),
                };
                failed("open_tree", path, errno, advice)
            })
        })
        .collect()
}

/// Binds at a place beneath the root, which is made if it is missing.
pub fn bind(root: BorrowedFd<'_>, source: &Source, at: &Path, read_only: bool) -> Result<(), SetupError> {
    let place = place::find(root, at, Missing::Like(source.as_fd()))
        .map_err(|errno| failed("openat", at, errno, super::place_advice(errno)))?;
    // Read-only before anyone can write: as long as it is attached nowhere.
    let is_done = read_only && source.is_copy && set_read_only(source.as_fd(), true, true).is_ok();
    source.attach(place.as_fd()).map_err(|errno| {
        let advice = match errno {
            Errno::ENOTDIR | Errno::EINVAL => "one of the two is a folder, the other is not; or they are in each other",
            Errno::ENOENT => "open_tree(2) is refused here, and without it /proc is needed; mount it",
            _ => advice(errno),
        };
        failed("move_mount", at, errno, advice)
    })?;
    if !read_only || is_done {
        return Ok(());
    }
    if source.is_copy {
        return make_read_only(source.as_fd(), Which::All, at);
    }
    let mounted = place::find(root, at, Missing::Fail);
    let mounted = mounted.map_err(|errno| failed("openat", at, errno, super::place_advice(errno)))?;
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
            Err(failed("mount_setattr", at, errno, advice))
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
        let (path, flags) = (by_number(mounted), flags | flags_of(mounted));
        mount(None::<&str>, path.as_str(), None::<&str>, flags, None::<&str>)
            .map_err(|errno| failed("mount(MS_REMOUNT|MS_BIND|MS_RDONLY)", name, errno, advice(errno)))
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
            failed("open", Path::new(path), errno, "mount_setattr(2) is refused here, and without it /proc is needed")
        })
    };
    let info = read(&format!("/proc/self/fdinfo/{}", top.as_raw_fd()))?;
    let id = info
        .split(|byte| *byte == b'\n')
        .find_map(|line| std::str::from_utf8(line.strip_prefix(b"mnt_id:")?).ok()?.trim().parse().ok());
    Ok(below(&read("/proc/self/mountinfo")?, id.unwrap_or(0)))
}

/// The mounts below mount `top` in the text of mountinfo (proc_pid_mountinfo(5)), relative to it.
fn below(mountinfo: &[u8], top: u32) -> Vec<PathBuf> {
    let mounts: Vec<_> = mountinfo.split(|byte| *byte == b'\n').filter_map(Entry::of).collect();
    let base = mounts.iter().find(|mount| mount.id == top).map_or(&b"/"[..], |mount| mount.place);
    let base = base.strip_suffix(b"/").unwrap_or(base);
    let mut inside = vec![top];
    let mut found = Vec::new();
    // The order of the lines is not promised to be from parents to children.
    loop {
        let before = inside.len();
        for mount in &mounts {
            if inside.contains(&mount.parent) && !inside.contains(&mount.id) {
                inside.push(mount.id);
                if let Some(place) = mount.place.strip_prefix(base) {
                    found.push(PathBuf::from(std::ffi::OsString::from_vec(unescaped(place))));
                }
            }
        }
        if inside.len() == before {
            return found;
        }
    }
}

/// What is needed of a line of mountinfo.
struct Entry<'a> {
    id: u32,
    parent: u32,
    place: &'a [u8],
}

impl<'a> Entry<'a> {
    fn of(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ');
        let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse().ok();
        let (id, parent) = (number()?, number()?);
        Some(Self { id, parent, place: fields.nth(2)? })
    }
}

/// `\040` and its like are the bytes that they number, in octal.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &behind[3..];
            }
            None => {
                bytes.push(*first);
                rest = behind;
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
        let found = below(text, 3);
        assert_eq!(found, [Path::new("/a b"), Path::new("/a b/c")]);
        assert_eq!(below(text, 1).len(), 4);
        assert!(below(text, 6).is_empty() && below(b"", 1).is_empty());
    }

    #[test]
    fn n4_only_octal_numbers_are_unescaped() {
        assert_eq!(unescaped(b"a\\040b\\134"), b"a b\\");
        assert_eq!(unescaped(b"a\\09b\\0"), b"a\\09b\\0");
    }
}
