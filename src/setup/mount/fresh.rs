//! File systems of the kernel's own making, new: tmpfs, proc, sysfs, and a small /dev.
#![forbid(unsafe_code)]

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{AT_FDCWD, OFlag, open};
use nix::mount::MsFlags;
use nix::sys::stat::{Mode, SFlag, fstat, makedev, mknod, umask};
use nix::unistd::{UnlinkatFlags, fchdir, isatty, mkdir, symlinkat, unlinkat};

use super::bind::{self, Source, by_number};
use super::place::{self, Missing};
use super::step::SetupError;
use super::{advice, failed, path, place_advice};
use crate::sys::Errno;
use crate::sys::fd::all_standard;
use crate::sys::mount::{mount, read_link};

/// Goes to a folder beneath the root, made if it is missing. What is mounted on `.` then lands there: no path is walked
/// again.
fn go(root: BorrowedFd<'_>, at: &Path) -> Result<(), SetupError> {
    let gone = place::find(root, at, Missing::Folder).and_then(fchdir);
    gone.map_err(|errno| failed("openat(", at, errno, place_advice(errno)))
}

/// Mounts a new file system of this kind.
fn fresh(place: &CStr, kind: &CStr, flags: MsFlags, data: &CStr) -> Result<(), Errno> {
    mount(kind, place, kind, flags, data)
}

const NO_PROGRAMS: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

/// A tmpfs.
pub fn tmpfs(root: BorrowedFd<'_>, at: &Path, data: &CStr) -> Result<(), SetupError> {
    go(root, at)?;
    fresh(c".", c"tmpfs", MsFlags::MS_NOSUID | MsFlags::MS_NODEV, data).map_err(|errno| {
        let advice = match errno {
            Errno::EINVAL => "this kernel does not take these options; check size and mode",
            _ => advice(errno),
        };
        failed("mount(tmpfs, ", at, errno, advice)
    })
}

/// A procfs, of the PID namespace; if there shall be a folder for it, and is none, there is no need of one.
pub fn proc(root: BorrowedFd<'_>, at: &Path, missing: Missing<'_>) -> Result<(), SetupError> {
    match (place::find(root, at, missing).and_then(fchdir), missing) {
        (Ok(()), _) => {}
        (Err(Errno::ENOENT), Missing::Fail) => return Ok(()),
        (Err(errno), _) => return Err(failed("openat(", at, errno, place_advice(errno))),
    }
    fresh(c".", c"proc", NO_PROGRAMS, c"").or_else(|errno| match errno {
        // The very same is there already.
        Errno::EBUSY => Ok(()),
        _ => Err(failed("mount(proc, ", at, errno, proc_advice(errno))),
    })
}

/// Why there is no procfs.
pub fn proc_advice(errno: Errno) -> &'static str {
    match errno {
        Errno::EPERM => {
            "in a user namespace it needs pid in --unshare, and a /proc out here that is not masked \
             (as container engines do, unless told otherwise)"
        }
        _ => advice(errno),
    }
}

/// A sysfs, read-only as OCI runtimes mount it: it sets the machine. A user namespace has none of its own without a
/// network namespace of its own, so it gets the one that is there.
pub fn sys(root: BorrowedFd<'_>, at: &Path) -> Result<(), SetupError> {
    go(root, at)?;
    match fresh(c".", c"sysfs", NO_PROGRAMS | MsFlags::MS_RDONLY, c"") {
        Ok(()) => Ok(()),
        Err(Errno::EPERM | Errno::EBUSY) => bind::bind(root, &bind::open(c"/sys")?, at, true),
        Err(errno) => Err(failed("mount(sysfs, ", at, errno, advice(errno))),
    }
}

/// The devices that each program may count on, with their numbers (Documentation/admin-guide/devices.txt).
const DEVICES: &[(&CStr, u64, u64)] =
    &[(c"null", 1, 3), (c"zero", 1, 5), (c"full", 1, 7), (c"random", 1, 8), (c"urandom", 1, 9), (c"tty", 5, 0)];
/// Links, and where they lead.
const LINKS: &[(&CStr, &CStr)] = &[
    (c"fd", c"/proc/self/fd"),
    (c"stdin", c"/proc/self/fd/0"),
    (c"stdout", c"/proc/self/fd/1"),
    (c"stderr", c"/proc/self/fd/2"),
    (c"ptmx", c"pts/ptmx"),
];

/// A small /dev. `outer` is the one out here, for what may not be made anew.
pub fn dev(root: BorrowedFd<'_>, at: &Path, outer: Option<&OwnedFd>) -> Result<(), SetupError> {
    let wrong = |name: &CStr, errno| {
        let advice = match errno {
            Errno::EPERM | Errno::ENOENT => {
                "devices may not be made here, and there is no /dev out here that has them all"
            }
            _ => advice(errno),
        };
        failed("mount(", &at.join(path(name)), errno, advice)
    };
    go(root, at)?;
    fresh(c".", c"tmpfs", MsFlags::MS_NOSUID, c"mode=755,size=64k").map_err(|errno| wrong(c"", errno))?;
    // Into what was mounted. It is nobody else's yet, so that from here on names will do.
    place::find(root, at, Missing::Fail).and_then(fchdir).map_err(|errno| wrong(c"", errno))?;
    let before = umask(Mode::empty());
    let mut name = c"";
    let made = fill(outer, &mut name);
    umask(before);
    made.map_err(|errno| wrong(name, errno))
}

/// Fills the working folder. `name`: what it is at.
fn fill(outer: Option<&OwnedFd>, name: &mut &'static CStr) -> Result<(), Errno> {
    for (device, major, minor) in DEVICES {
        *name = device;
        make_device(device, makedev(*major, *minor), outer)?;
    }
    for (link, to) in LINKS {
        *name = link;
        symlinkat(*to, AT_FDCWD, *link)?;
    }
    for (folder, kind, flags, data) in [
        // Group 5 is tty's everywhere; in a user namespace it may be nobody's.
        (c"pts", c"devpts", TERMINALS, c"newinstance,ptmxmode=666,mode=620,gid=5"),
        (c"shm", c"tmpfs", NO_PROGRAMS, c"mode=1777,size=64m"),
        (c"mqueue", c"mqueue", NO_PROGRAMS, c""),
    ] {
        *name = folder;
        mkdir(folder, Mode::from_bits_retain(0o755))?;
        match fresh(folder, kind, flags, data) {
            Err(_) if kind == c"devpts" => fresh(folder, kind, flags, c"newinstance,ptmxmode=666,mode=620")?,
            // It is not in every kernel, and of an IPC namespace of others a user namespace has none.
            Err(_) if kind == c"mqueue" => unlinkat(AT_FDCWD, folder, UnlinkatFlags::RemoveDir)?,
            other => other?,
        }
    }
    if let Some(terminal) = terminal() {
        *name = c"console";
        lay(&terminal, c"console")?;
    }
    Ok(())
}

const TERMINALS: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC);

/// Makes a device or, where that is not permitted (a user namespace, a container), binds the outer one.
fn make_device(name: &CStr, number: u64, outer: Option<&OwnedFd>) -> Result<(), Errno> {
    match (mknod(name, SFlag::S_IFCHR, Mode::from_bits_retain(0o666), number), outer) {
        (Err(Errno::EPERM), Some(outer)) => lay(&Source::open_in(outer.as_fd(), name)?, name),
        (made, _) => made,
    }
}

/// Mounts a device on an empty file.
fn lay(source: &Source, name: &CStr) -> Result<(), Errno> {
    mknod(name, SFlag::S_IFREG, Mode::from_bits_retain(0o444), 0)?;
    let place = open(name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
    source.attach(place.as_fd())
}

/// The terminal that sexton was given, by its own name out here; it has none in a new devpts.
fn terminal() -> Option<Source> {
    let standard = all_standard().into_iter().find(|fd| isatty(fd).unwrap_or(false))?;
    let path = read_link(AT_FDCWD, &by_number(standard)).ok()?;
    let source = Source::open_in(AT_FDCWD, &CString::new(path).ok()?).ok()?;
    // The name may be of another devpts.
    let is_it = fstat(source.as_fd()).ok()?.st_rdev == fstat(standard).ok()?.st_rdev;
    is_it.then_some(source)
}
