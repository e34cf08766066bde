//! File systems of the kernel's own making, new: tmpfs, proc, sysfs, and a small /dev.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, fstat, makedev, mknod, umask};
use nix::unistd::{UnlinkatFlags, fchdir, isatty, mkdir, symlinkat, unlinkat};

use super::bind::{self, Source};
use super::place::{self, Missing};
use super::step::SetupError;
use super::{advice, failed, place_advice};
use crate::sys::Errno;
use crate::sys::fd::all_standard;

/// Goes to a folder beneath the root, made if it is missing. What is mounted on `.` then lands there: no path is walked
/// again.
fn go(root: BorrowedFd<'_>, at: &Path) -> Result<(), SetupError> {
    let gone = place::find(root, at, Missing::Folder).and_then(fchdir);
    gone.map_err(|errno| failed("openat", at, errno, place_advice(errno)))
}

/// Mounts a new file system of this kind.
fn fresh(place: &str, kind: &str, flags: MsFlags, data: &str) -> Result<(), Errno> {
    mount(Some(kind), place, Some(kind), flags, Some(data))
}

const NO_PROGRAMS: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

/// A tmpfs.
pub fn tmpfs(root: BorrowedFd<'_>, at: &Path, data: &str) -> Result<(), SetupError> {
    go(root, at)?;
    fresh(".", "tmpfs", MsFlags::MS_NOSUID | MsFlags::MS_NODEV, data).map_err(|errno| {
        let advice = match errno {
            Errno::EINVAL => "this kernel does not take these options; check size and mode",
            _ => advice(errno),
        };
        failed("mount(tmpfs)", at, errno, advice)
    })
}

/// A procfs, of the PID namespace.
pub fn proc(root: BorrowedFd<'_>, at: &Path) -> Result<(), SetupError> {
    go(root, at)?;
    fresh(".", "proc", NO_PROGRAMS, "").or_else(|errno| match errno {
        // The very same is there already.
        Errno::EBUSY => Ok(()),
        _ => Err(failed("mount(proc)", at, errno, proc_advice(errno))),
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
    match fresh(".", "sysfs", NO_PROGRAMS | MsFlags::MS_RDONLY, "") {
        Ok(()) => Ok(()),
        Err(Errno::EPERM | Errno::EBUSY) => {
            let path = Path::new("/sys");
            let source = Source::open(path).map_err(|errno| failed("open_tree", path, errno, advice(errno)))?;
            bind::bind(root, &source, at, true)
        }
        Err(errno) => Err(failed("mount(sysfs)", at, errno, advice(errno))),
    }
}

/// The devices that each program may count on, with their numbers (Documentation/admin-guide/devices.txt).
const DEVICES: &[(&str, u64, u64)] =
    &[("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
/// Links, and where they lead.
const LINKS: &[(&str, &str)] = &[
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// A small /dev. `outer` is the one out here, for what may not be made anew.
pub fn dev(root: BorrowedFd<'_>, at: &Path, outer: Option<&OwnedFd>) -> Result<(), SetupError> {
    let wrong = |name: &str, errno| {
        let path = if name.is_empty() { at.to_owned() } else { at.join(name) };
        failed("mount", &path, errno, advice(errno))
    };
    go(root, at)?;
    fresh(".", "tmpfs", MsFlags::MS_NOSUID, "mode=755,size=64k").map_err(|errno| wrong("", errno))?;
    // Into what was mounted. It is nobody else's yet, so that from here on names will do.
    place::find(root, at, Missing::Fail).and_then(fchdir).map_err(|errno| wrong("", errno))?;
    let before = umask(Mode::empty());
    let made = fill(outer);
    umask(before);
    made.map_err(|(name, errno)| wrong(name, errno))
}

/// Fills the working folder.
fn fill(outer: Option<&OwnedFd>) -> Result<(), (&'static str, Errno)> {
    for (name, major, minor) in DEVICES {
        device(name, makedev(*major, *minor), outer).map_err(|errno| (*name, errno))?;
    }
    for (name, to) in LINKS {
        symlinkat(*to, AT_FDCWD, *name).map_err(|errno| (*name, errno))?;
    }
    let folder = |name: &'static str| mkdir(name, Mode::from_bits_retain(0o755)).map_err(|errno| (name, errno));
    let named = |name: &'static str, flags, data| {
        let kind = match name {
            "pts" => "devpts",
            "shm" => "tmpfs",
            other => other,
        };
        fresh(name, kind, flags, data).map_err(|errno| (name, errno))
    };
    folder("pts")?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    // Group 5 is tty's everywhere; in a user namespace it may be nobody's.
    named("pts", flags, "newinstance,ptmxmode=666,mode=620,gid=5")
        .or_else(|_| named("pts", flags, "newinstance,ptmxmode=666,mode=620"))?;
    folder("shm")?;
    named("shm", NO_PROGRAMS, "mode=1777,size=64m")?;
    folder("mqueue")?;
    if fresh("mqueue", "mqueue", NO_PROGRAMS, "").is_err() {
        // It is not in every kernel, and of an IPC namespace of others a user namespace has none.
        let _ = unlinkat(AT_FDCWD, "mqueue", UnlinkatFlags::RemoveDir);
    }
    if let Some(terminal) = terminal() {
        lay(&terminal, "console").map_err(|errno| ("console", errno))?;
    }
    Ok(())
}

/// Makes a device or, where that is not permitted (a user namespace, a container), binds the outer one.
fn device(name: &str, number: u64, outer: Option<&OwnedFd>) -> Result<(), Errno> {
    match (mknod(name, SFlag::S_IFCHR, Mode::from_bits_retain(0o666), number), outer) {
        (Err(Errno::EPERM), Some(outer)) => lay(&Source::open_in(outer.as_fd(), Path::new(name))?, name),
        (made, _) => made,
    }
}

/// Mounts a device on an empty file.
fn lay(source: &Source, name: &str) -> Result<(), Errno> {
    mknod(name, SFlag::S_IFREG, Mode::from_bits_retain(0o444), 0)?;
    let place = open(name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
    source.attach(place.as_fd())
}

/// The terminal that sexton was given, by its own name out here; it has none in a new devpts.
fn terminal() -> Option<Source> {
    let standard = all_standard().into_iter().find(|fd| isatty(fd).unwrap_or(false))?;
    let number = std::os::fd::AsRawFd::as_raw_fd(&standard);
    let path: PathBuf = std::fs::read_link(format!("/proc/self/fd/{number}")).ok()?;
    let source = Source::open(&path).ok()?;
    // The name may be of another devpts.
    let is_it = fstat(source.as_fd()).ok()?.st_rdev == fstat(standard).ok()?.st_rdev;
    is_it.then_some(source)
}
