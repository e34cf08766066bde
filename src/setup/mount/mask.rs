//! What of /proc and /sys a container does not get to see, or may not write to: the paths are those of the OCI runtimes
//! (containers/common and moby have the same lists).
#![forbid(unsafe_code)]

use std::fmt;
use std::os::fd::AsFd;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, mknod, stat};
use nix::sys::statfs::{FsType, PROC_SUPER_MAGIC, SYSFS_MAGIC, fstatfs};
use nix::unistd::fchdir;

use super::bind::flags_of;
use super::place::{self, Missing};
use super::step::{SetupError, State, Step};
use super::{advice, failed};
use crate::sys::Errno;

/// An empty file lies on these.
const FILES: &[&str] = &["kcore", "keys", "latency_stats", "timer_list", "timer_stats", "sched_debug"];
/// An empty folder lies on these.
const FOLDERS: &[&str] = &["acpi", "asound", "scsi"];
/// These are read-only.
const READ_ONLY: &[&str] = &["bus", "fs", "irq", "sys", "sysrq-trigger"];
/// The same as [`FOLDERS`], of /sys.
const FOLDERS_OF_SYS: &[&str] = &["firmware", "devices/virtual/powercap"];

/// An empty file that takes in all that is written to it.
const NULL: &str = "/dev/null";
/// Its stand-in where there is no /dev: a file on a mount on top of everything.
const STAND_IN: &str = "/../null";

/// Masks, of what is really a procfs or sysfs: there no name is a link that could lead elsewhere, and what is mounted on
/// it stays where it is.
pub struct Mask;

impl Step for Mask {
    fn run(&self, state: &mut State) -> Result<(), SetupError> {
        let Some(root) = &state.mounts.root else { return Ok(()) };
        if let Some(flags) = go_to(root.as_fd(), "/proc", PROC_SUPER_MAGIC)? {
            let has_null = stat(NULL).is_ok_and(|stat| stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFCHR.bits());
            if !has_null {
                let made = mount(Some("tmpfs"), "/", Some("tmpfs"), MsFlags::MS_NOEXEC, Some("size=4k"))
                    .and_then(|()| mknod(STAND_IN, SFlag::S_IFREG, Mode::from_bits_retain(0o444), 0));
                made.map_err(|errno| failed("mount", Path::new("tmpfs"), errno, advice(errno)))?;
            }
            for name in FILES {
                let from = if has_null { NULL } else { STAND_IN };
                lay("/proc", name, mount(Some(from), *name, None::<&str>, MsFlags::MS_BIND, None::<&str>))?;
            }
            if !has_null {
                let _ = umount2("/..", MntFlags::MNT_DETACH);
            }
            empty("/proc", FOLDERS)?;
            for name in READ_ONLY {
                let bound = MsFlags::MS_BIND | MsFlags::MS_REC;
                let remount = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | flags;
                let done = mount(Some(*name), *name, None::<&str>, bound, None::<&str>)
                    .and_then(|()| mount(None::<&str>, *name, None::<&str>, remount, None::<&str>));
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
fn go_to(root: std::os::fd::BorrowedFd<'_>, path: &str, kind: FsType) -> Result<Option<MsFlags>, SetupError> {
    let Ok(folder) = place::find(root, Path::new(path), Missing::Fail) else { return Ok(None) };
    if !fstatfs(&folder).is_ok_and(|stat| stat.filesystem_type() == kind) {
        return Ok(None);
    }
    fchdir(&folder).map_err(|errno| failed("fchdir", Path::new(path), errno, advice(errno)))?;
    Ok(Some(flags_of(folder.as_fd())))
}

fn empty(of: &str, names: &[&str]) -> Result<(), SetupError> {
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    names.iter().try_for_each(|name| lay(of, name, mount(Some("tmpfs"), *name, Some("tmpfs"), flags, None::<&str>)))
}

/// Not every kernel has each of them.
fn lay(of: &str, name: &str, result: Result<(), Errno>) -> Result<(), SetupError> {
    match result {
        Ok(()) | Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(()),
        Err(errno) => Err(failed("mount", &Path::new(of).join(name), errno, advice(errno))),
    }
}
