//! What of /proc and /sys a container does not get to see, or may not write to: the paths are those of the OCI runtimes
//! (containers/common and moby have the same lists).
#![forbid(unsafe_code)]

use std::ffi::CStr;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sys::stat::{Mode, SFlag, mknod, stat};
use nix::sys::statfs::{FsType, PROC_SUPER_MAGIC, SYSFS_MAGIC, fstatfs};
use nix::unistd::fchdir;

use super::bind::flags_of;
use super::place::{self, Missing};
use super::step::{SetupError, State, Step};
use super::{advice, failed, path, place_advice};
use crate::sys::Errno;
use crate::sys::mount::mount;

/// An empty file lies on these.
const FILES: &[&CStr] = &[c"kcore", c"keys", c"latency_stats", c"timer_list", c"timer_stats", c"sched_debug"];
/// An empty folder lies on these.
const FOLDERS: &[&CStr] = &[c"acpi", c"asound", c"scsi"];
/// These are read-only.
const READ_ONLY: &[&CStr] = &[c"bus", c"fs", c"irq", c"sys", c"sysrq-trigger"];
/// The same as [`FOLDERS`], of /sys.
const FOLDERS_OF_SYS: &[&CStr] = &[c"firmware", c"devices/virtual/powercap"];

/// An empty file that takes in all that is written to it.
const NULL: &CStr = c"/dev/null";
/// Its stand-in where there is no /dev: a file on a mount on top of everything.
const STAND_IN: &CStr = c"/../null";

/// Masks, of what is really a procfs or sysfs: there no name is a link that could lead elsewhere, and what is mounted on
/// it stays where it is.
pub struct Mask;

impl Step for Mask {
    fn run(&self, state: &mut State) -> Result<(), SetupError> {
        let Some(root) = &state.mounts.root else { return Ok(()) };
        if let Some(flags) = go_to(root.as_fd(), "/proc", PROC_SUPER_MAGIC)? {
            let has_null = stat(NULL).is_ok_and(|stat| stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFCHR.bits());
            if !has_null {
                let made = mount(c"tmpfs", c"/", c"tmpfs", MsFlags::MS_NOEXEC, c"size=4k")
                    .and_then(|()| mknod(STAND_IN, SFlag::S_IFREG, Mode::from_bits_retain(0o444), 0));
                made.map_err(|errno| failed("mount(tmpfs, ", Path::new("/"), errno, advice(errno)))?;
            }
            for name in FILES {
                let from = if has_null { NULL } else { STAND_IN };
                lay("/proc", name, mount(from, name, c"", MsFlags::MS_BIND, c""))?;
            }
            if !has_null {
                let _ = umount2(c"/..", MntFlags::MNT_DETACH);
            }
            empty("/proc", FOLDERS)?;
            for name in READ_ONLY {
                let bound = MsFlags::MS_BIND | MsFlags::MS_REC;
                let remount = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | flags;
                let done = mount(name, name, c"", bound, c"").and_then(|()| mount(c"", name, c"", remount, c""));
                lay("/proc", name, done)?;
            }
        }
        if go_to(root.as_fd(), "/sys", SYSFS_MAGIC)?.is_some() {
            empty("/sys", FOLDERS_OF_SYS)?;
        }
        Ok(())
    }
}

impl fmt::Display for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("what tells of the machine is masked in /proc and /sys, what sets it is read-only")
    }
}

/// Goes to a folder of the new root, if it is of this kind; returns its flags.
fn go_to(root: BorrowedFd<'_>, at: &str, kind: FsType) -> Result<Option<MsFlags>, SetupError> {
    let at = Path::new(at);
    let folder = match place::find(root, at, Missing::Fail) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
        found => found.map_err(|errno| failed("openat(", at, errno, place_advice(errno)))?,
    };
    let stat = fstatfs(&folder).map_err(|errno| failed("fstatfs(", at, errno, advice(errno)))?;
    if stat.filesystem_type() != kind {
        return Ok(None);
    }
    fchdir(&folder).map_err(|errno| failed("fchdir(", at, errno, advice(errno)))?;
    Ok(Some(flags_of(&stat)))
}

fn empty(of: &str, names: &[&CStr]) -> Result<(), SetupError> {
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    names.iter().try_for_each(|name| lay(of, name, mount(c"tmpfs", name, c"tmpfs", flags, c"")))
}

/// Not every kernel has each of them.
fn lay(of: &str, name: &CStr, result: Result<(), Errno>) -> Result<(), SetupError> {
    match result {
        Ok(()) | Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(()),
        Err(errno) => Err(failed("mount(", &Path::new(of).join(path(name)), errno, advice(errno))),
    }
}
