//! The new root: mounted on top of the old one, and entered when all is in place.
//!
//! It lies at `/`, where no path but `/..` comes by, so that it needs no folder made for it and hides nothing: what the
//! old root has is found as before until the new one is entered.
#![forbid(unsafe_code)]

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::NixPath;
use nix::fcntl::{AT_FDCWD, OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use nix::unistd::{chdir, chroot, fchdir, mkdir, pivot_root};

use super::step::{SetupError, State, Step};
use super::{Layers, Root, advice, failed, show};
use crate::sys::Errno;
use crate::sys::mount::{attach, copy_tree};

/// Where the topmost mount on `/` is found.
const ON_TOP: &str = "/..";

/// Opens a folder, O_PATH.
pub fn open_folder(path: &str) -> Result<OwnedFd, SetupError> {
    open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|errno| failed("open", Path::new(path), errno, advice(errno)))
}

/// Mounts the new root.
pub struct NewRoot<'a>(pub &'a Root, pub bool);

impl Step for NewRoot<'_> {
    fn run(&self, state: &mut State) -> Result<(), SetupError> {
        state.mounts.covers = 1;
        state.mounts.root = Some(match self.0 {
            Root::Folder(path) => copy(path)?,
            Root::Overlay(layers) => {
                let user = if self.1 || in_user_namespace() { ",userxattr" } else { "" };
                if layers.upper.is_none() {
                    state.mounts.covers += 1;
                }
                overlay(layers, user)?
            }
        });
        Ok(())
    }
}

impl fmt::Display for NewRoot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Root::Folder(path) => write!(f, "a new root: {}", path.display()),
            Root::Overlay(layers) => {
                write!(f, "a new root: an overlay of {}", show(&layers.lower))?;
                match &layers.upper {
                    Some((upper, _)) => write!(f, ", changes in {}", upper.display()),
                    None => f.write_str(", changes in memory, gone at the end"),
                }
            }
        }
    }
}

/// Copies the mounts at a folder and below it.
fn copy(path: &Path) -> Result<OwnedFd, SetupError> {
    let copied = path.with_nix_path(|path| copy_tree(AT_FDCWD, path)).and_then(std::convert::identity);
    let mounted = match copied {
        Ok(tree) => attach(tree.as_fd(), AT_FDCWD, c"/").map(|()| Some(tree)),
        Err(Errno::ENOSYS | Errno::EPERM) => {
            let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
            mount(Some(path), "/", None::<&str>, flags, None::<&str>).map(|()| None)
        }
        Err(errno) => Err(errno),
    };
    match mounted {
        Ok(Some(tree)) => Ok(tree),
        Ok(None) => open_folder(ON_TOP),
        Err(errno) => {
            let advice = match errno {
                Errno::ENOENT => "no such folder; make it, or take another",
                Errno::ENOTDIR => "the root must be a folder",
                _ => advice(errno),
            };
            Err(failed("mount", path, errno, advice))
        }
    }
}

/// Mounts an overlay (Documentation/filesystems/overlayfs.rst). Without a folder for the changes they are in memory.
fn overlay(layers: &Layers, more: &str) -> Result<OwnedFd, SetupError> {
    // In memory or not, the working folder may be another one from here on.
    let here = if layers.all().all(|path| path.is_absolute()) { PathBuf::new() } else { super::working_folder()? };
    let mut data = b"lowerdir=".to_vec();
    for (index, path) in layers.lower.iter().enumerate() {
        if index > 0 {
            data.push(b':');
        }
        escape(&mut data, &here.join(path));
    }
    let (upper, work) = match &layers.upper {
        Some((upper, work)) => (here.join(upper), here.join(work)),
        None => in_memory()?,
    };
    for (name, path) in [(",upperdir=", upper), (",workdir=", work)] {
        data.extend_from_slice(name.as_bytes());
        escape(&mut data, &path);
    }
    data.extend_from_slice(more.as_bytes());
    let data = std::ffi::OsString::from_vec(data);
    mount(Some("overlay"), ON_TOP, Some("overlay"), MsFlags::empty(), Some(data.as_os_str())).map_err(|errno| {
        let advice = match errno {
            Errno::ENOENT => "one of the folders is not there",
            Errno::ENODEV => "this kernel has no overlay file system (modprobe overlay)",
            Errno::EPERM => "not permitted; in a user namespace it needs Linux 5.11",
            Errno::EINVAL => {
                "upper and work must be on one writable file system that is no overlay itself, and not in each other; \
                 in a user namespace it needs Linux 5.11"
            }
            Errno::ELOOP => "one folder is in another one of them",
            Errno::EBUSY => "upper or work is used by another overlay; take folders of their own",
            _ => advice(errno),
        };
        let call = format!("mount(\"overlay\", \"/\", {:?})", data.display());
        SetupError::call(call, errno, advice)
    })?;
    open_folder(ON_TOP)
}

/// Makes the folders for an overlay's changes in memory, and goes there.
fn in_memory() -> Result<(PathBuf, PathBuf), SetupError> {
    let made = mount(Some("tmpfs"), "/", Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
        .and_then(|()| chdir(ON_TOP))
        .and_then(|()| ["upper", "work"].iter().try_for_each(|name| mkdir(*name, Mode::from_bits_retain(0o755))));
    made.map_err(|errno| failed("mount", Path::new("tmpfs"), errno, advice(errno)))?;
    Ok(("upper".into(), "work".into()))
}

/// Adds a path as the overlay file system reads it.
fn escape(data: &mut Vec<u8>, path: &Path) {
    for byte in path.as_os_str().as_bytes() {
        if matches!(byte, b'\\' | b':' | b',') {
            data.push(b'\\');
        }
        data.push(*byte);
    }
}

/// Whether this process is in a user namespace that is not the machine's: there trusted.* attributes cannot be set, and
/// an overlay has to take user.* ones.
fn in_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    !map.is_empty() && !map.split_ascii_whitespace().eq(["0", "0", "4294967295"])
}

/// Enters the new root, and lets the old one go.
pub struct Enter;

impl Step for Enter {
    fn run(&self, state: &mut State) -> Result<(), SetupError> {
        let Some(root) = state.mounts.root.take() else { return Ok(()) };
        let told = |call: &str, errno, advice| SetupError::call(call, errno, advice);
        fchdir(&root).map_err(|errno| told("fchdir(root)", errno, "the kernel refused"))?;
        match pivot_root(".", ".") {
            Ok(()) => {
                // The old root lies on the new one now, and on it maybe what an overlay kept in memory.
                for _ in 0..state.mounts.covers {
                    umount2(".", MntFlags::MNT_DETACH).map_err(|errno| {
                        told(
                            "umount2(\".\", MNT_DETACH)",
                            errno,
                            "the old root could not be let go; the kernel refused",
                        )
                    })?;
                }
                Ok(())
            }
            // An initramfs cannot be moved. The new root lies on it already, as if moved there: `..` leads from the new
            // root to the old one's `/` and thus back to what lies on it, so that nobody gets below by path.
            Err(Errno::EINVAL) => chroot(".").map_err(|errno| told("chroot(\".\")", errno, advice(errno))),
            Err(errno) => {
                let advice = match errno {
                    Errno::EPERM | Errno::ENOSYS => "forbidden, maybe by a seccomp filter; let it pass pivot_root",
                    _ => "the kernel refused",
                };
                Err(told("pivot_root(\".\", \".\")", errno, advice))
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
        escape(&mut data, Path::new("/a:b,c\\d"));
        assert_eq!(data, b"/a\\:b\\,c\\\\d");
    }
}
