//! The new root: mounted on top of the old one, and entered when all is in place.
//!
//! It lies at `/`, where no path but `/..` comes by, so that it needs no folder made for it and hides nothing: what the
//! old root has is found as before until the new one is entered.
#![forbid(unsafe_code)]

use std::ffi::{CStr, CString};
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{AT_FDCWD, OFlag, open};
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{chdir, chroot, fchdir, mkdir, pivot_root};

use super::step::{SetupError, State, Step};
use super::{Layers, Root, advice, failed, path};
use crate::sys::Errno;
use crate::sys::mount::{attach, copy_tree, mount};

/// Where the topmost mount on `/` is found.
const ON_TOP: &CStr = c"/..";

/// Opens a folder, O_PATH.
pub fn open_folder(folder: &CStr) -> Result<OwnedFd, SetupError> {
    open(folder, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|errno| failed("open(", path(folder), errno, advice(errno)))
}

/// Mounts the new root.
pub struct NewRoot<'a>(pub &'a Root, pub bool);

impl Step for NewRoot<'_> {
    fn run(&self, state: &mut State) -> Result<(), SetupError> {
        state.mounts.covers = 1;
        state.mounts.root = Some(match self.0 {
            Root::Folder(folder) => copy(folder)?,
            Root::Overlay(layers) => {
                if layers.upper.is_none() {
                    state.mounts.covers += 1;
                }
                overlay(layers, self.1 || in_user_namespace())?
            }
        });
        Ok(())
    }
}

impl fmt::Display for NewRoot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Root::Folder(folder) => write!(f, "a new root: {}", path(folder).display()),
            Root::Overlay(layers) => {
                f.write_str("a new root: an overlay of")?;
                for lower in &layers.lower {
                    write!(f, " {}", path(lower).display())?;
                }
                match &layers.upper {
                    Some((upper, _)) => write!(f, ", changes in {}", path(upper).display()),
                    None => f.write_str(", changes in memory, gone at the end"),
                }
            }
        }
    }
}

/// Copies the mounts at a folder and below it.
fn copy(folder: &CStr) -> Result<OwnedFd, SetupError> {
    let mounted = match copy_tree(AT_FDCWD, folder) {
        Ok(tree) => attach(tree.as_fd(), AT_FDCWD, c"/").map(|()| Some(tree)),
        Err(Errno::ENOSYS | Errno::EPERM) => {
            mount(folder, c"/", c"", MsFlags::MS_BIND | MsFlags::MS_REC, c"").map(|()| None)
        }
        Err(errno) => Err(errno),
    };
    match mounted {
        Ok(Some(tree)) => Ok(tree),
        Ok(None) => open_folder(ON_TOP),
        Err(errno) => {
            let advice = match errno {
                Errno::ENOENT => "no such folder; make it, or take another",
                Errno::ENOTDIR | Errno::EINVAL => "the root must be a folder, and in a mount of this namespace",
                _ => advice(errno),
            };
            Err(failed("open_tree(", path(folder), errno, advice))
        }
    }
}

/// Mounts an overlay (Documentation/filesystems/overlayfs.rst). Without a folder for the changes they are in memory.
fn overlay(layers: &Layers, user: bool) -> Result<OwnedFd, SetupError> {
    let mut data = Vec::new();
    let mut lower = layers.lower.clone();
    if layers.upper.is_none() {
        // From the next call on the working folder is another one, and `..` may lead up to what lies on `/`.
        for folder in &mut lower {
            *folder = whole_path(folder)?;
        }
        in_memory()?;
    }
    for (index, folder) in lower.iter().enumerate() {
        data.extend_from_slice(if index == 0 { b"lowerdir=" } else { b":" });
        escape(&mut data, folder);
    }
    let (upper, work) =
        layers.upper.as_ref().map_or((UPPER, WORK), |(upper, work)| (upper.as_c_str(), work.as_c_str()));
    data.extend_from_slice(b",upperdir=");
    escape(&mut data, upper);
    data.extend_from_slice(b",workdir=");
    escape(&mut data, work);
    if user {
        data.extend_from_slice(b",userxattr");
    }
    let data = CString::new(data).unwrap_or_default();
    mount(c"overlay", ON_TOP, c"overlay", MsFlags::empty(), &data).map_err(|errno| {
        let advice = match errno {
            Errno::ENOENT => "one of the folders is not there",
            Errno::ENODEV => "this kernel has no overlay file system (modprobe overlay)",
            Errno::EINVAL => {
                "upper and work must be on one writable file system that is no overlay itself, and not in each other; \
                 in a user namespace it needs Linux 5.11"
            }
            Errno::ELOOP => "one folder is in another one of them",
            Errno::EBUSY => "upper or work is used by another overlay; take folders of their own",
            _ => advice(errno),
        };
        failed("mount(overlay, ", path(&data), errno, advice)
    })?;
    open_folder(ON_TOP)
}

/// Where an overlay's changes are in memory.
const UPPER: &CStr = c"upper";
const WORK: &CStr = c"work";

/// Makes these two, and goes there.
fn in_memory() -> Result<(), SetupError> {
    let before = umask(Mode::empty());
    let made = mount(c"tmpfs", c"/", c"tmpfs", MsFlags::empty(), c"mode=755")
        .and_then(|()| chdir(ON_TOP))
        .and_then(|()| mkdir(UPPER, Mode::from_bits_retain(0o755)))
        .and_then(|()| mkdir(WORK, Mode::from_bits_retain(0o755)));
    umask(before);
    made.map_err(|errno| failed("mount(tmpfs, ", Path::new("/"), errno, advice(errno)))
}

/// The path of a folder from the root, without links and dots.
fn whole_path(folder: &CStr) -> Result<CString, SetupError> {
    let here = open_folder(c".")?;
    chdir(folder).map_err(|errno| failed("chdir(", path(folder), errno, advice(errno)))?;
    let whole = super::working_folder()?;
    fchdir(here).map_err(|errno| failed("fchdir(", Path::new("."), errno, advice(errno)))?;
    Ok(whole)
}

/// Adds a path as the overlay file system reads it.
fn escape(data: &mut Vec<u8>, path: &CStr) {
    for byte in path.to_bytes() {
        if matches!(byte, b'\\' | b':' | b',') {
            data.push(b'\\');
        }
        data.push(*byte);
    }
}

/// What /proc/self/uid_map says in the machine's own user namespace.
const ALL_IDS: &[u8] = b"         0          0 4294967295\n";

/// Whether this process is in another one: there trusted.* attributes cannot be set, and an overlay takes user.* ones.
fn in_user_namespace() -> bool {
    std::fs::read("/proc/self/uid_map").is_ok_and(|map| map != ALL_IDS)
}

/// Enters the new root, and lets the old one go.
pub struct Enter;

impl Step for Enter {
    fn run(&self, state: &mut State) -> Result<(), SetupError> {
        let made = std::mem::take(&mut state.mounts);
        let Some(root) = made.root else { return Ok(()) };
        let here = Path::new(".");
        fchdir(&root).map_err(|errno| failed("fchdir(", Path::new("/"), errno, advice(errno)))?;
        match pivot_root(c".", c".") {
            // The old root lies on the new one now, and on it maybe what an overlay keeps in memory.
            Ok(()) => (0..made.covers).try_for_each(|_| umount2(c".", MntFlags::MNT_DETACH)).map_err(|errno| {
                failed("umount2(MNT_DETACH, ", here, errno, "the old root could not be let go; the kernel refused")
            }),
            // An initramfs cannot be moved. The new root lies on it already, as if moved there: `..` leads from the new
            // root to the old one's `/` and thus back to what lies on it, so that nobody gets below by path.
            Err(Errno::EINVAL) => chroot(c".").map_err(|errno| failed("chroot(", here, errno, advice(errno))),
            Err(errno) => {
                let advice = match errno {
                    Errno::EPERM | Errno::ENOSYS => "forbidden, maybe by a seccomp filter; let it pass pivot_root",
                    _ => "the kernel refused",
                };
                Err(failed("pivot_root(\".\", ", here, errno, advice))
            }
        }
    }
}

impl fmt::Display for Enter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("enter the new root; the old one is let go")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n4_a_path_of_an_overlay_is_escaped() {
        let mut data = Vec::new();
        escape(&mut data, c"/a:b,c\\d");
        assert_eq!(data, b"/a\\:b\\,c\\\\d");
    }
}
