//! A group's folder, held open: its files are reached through the descriptor, whatever is mounted later, and its lock
//! says that a sexton lives.
//!
//! flock(2) is known across PID namespaces, which process ids are not, and the kernel lets it go when its holder dies.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};

use crate::setup::step::SetupError;
use crate::sys::fd::NamesOf;
use crate::sys::{Errno, fd};

/// The way out where cgroups are mounted read-only: in a container.
pub const READ_ONLY: &str = "cgroups are read-only in this container; give the limits to the container engine, or start \
                             it with writable cgroups (docker run --privileged)";
/// The mode of a group that a sexton has made and may remove. Nobody else makes groups sticky; mkdir(2) sets it at once.
pub const OURS: u32 = 0o1755;
const STICKY: u32 = 0o1000;

/// How often a folder that another sexton is about to remove is looked for again.
const TRIES: usize = 100;
const PAUSE: Duration = Duration::from_millis(1);

/// The folder.
#[derive(Debug)]
pub struct Folder {
    file: File,
    path: PathBuf,
}

impl Folder {
    /// The top of a hierarchy.
    pub fn open(path: &Path) -> Result<Self, SetupError> {
        let file = File::open(path).map_err(|error| {
            let errno = Errno::from_raw(error.raw_os_error().unwrap_or(0));
            SetupError::call(
                format!("open({:?})", path.display()),
                errno,
                "cgroups are mounted there, but cannot be read",
            )
        })?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// A group below.
    pub fn at(&self, name: &OsStr) -> Result<Self, Errno> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(&self.file, name, flags, Mode::empty())?;
        Ok(Self { file: file.into(), path: self.path.join(name) })
    }

    /// The same, once more.
    pub fn again(&self) -> Result<Self, SetupError> {
        let copy = fd::duplicate(self.file.as_fd());
        let copy = copy.ok_or_else(|| SetupError::call("fcntl(F_DUPFD)", Errno::EMFILE, "raise RLIMIT_NOFILE"))?;
        Ok(Self { file: copy.into(), path: self.path.clone() })
    }

    /// Its name in the group above.
    pub fn name(&self) -> &OsStr {
        self.path.file_name().unwrap_or_default()
    }

    /// The descriptor.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// A call on one of its files, for messages.
    pub fn call(&self, call: &str, file: &str, text: &str) -> String {
        let path = self.path.join(file);
        if text.is_empty() {
            return format!("{call}({:?})", path.display());
        }
        format!("{call}({:?}, {text:?})", path.display())
    }

    /// Makes a group below.
    pub fn make(&self, name: &str, mode: u32) -> Result<Self, SetupError> {
        self.try_make(name.as_ref(), mode).map_err(|errno| self.cannot_make(name.as_ref(), errno))
    }

    /// mkdir(2), then open(2).
    pub fn try_make(&self, name: &OsStr, mode: u32) -> Result<Self, Errno> {
        mkdirat(&self.file, name, Mode::from_bits_truncate(mode))?;
        self.at(name)
    }

    /// Why a group cannot be made below.
    pub fn cannot_make(&self, name: &OsStr, errno: Errno) -> SetupError {
        let advice = match errno {
            Errno::EROFS => READ_ONLY,
            Errno::EACCES | Errno::EPERM => {
                "this group is not this user's; run as root, or start sexton in a group that is delegated (systemd-run \
                 --user --scope -p Delegate=yes)"
            }
            Errno::EEXIST => "sexton did not make this group; take another name, or remove it",
            Errno::EBUSY => "another sexton's group has this name; take another one",
            Errno::EAGAIN | Errno::ENOSPC => "too many groups; see cgroup.max.descendants and cgroup.max.depth",
            Errno::ENOENT => "the group above is gone",
            _ => "the kernel refused",
        };
        SetupError::call(format!("mkdir({:?})", self.path.join(name).display()), errno, advice)
    }

    /// The group below, made if it is not there. With `hold`, one that a sexton has made is held, so that no other one
    /// removes it.
    pub fn enter(&self, name: &OsStr, hold: bool) -> Result<Self, SetupError> {
        let mut last = Errno::ENOENT;
        for _ in 0..TRIES {
            let folder = self.at(name).or_else(|errno| match errno {
                Errno::ENOENT => self.try_make(name, OURS),
                errno => Err(errno),
            });
            match folder {
                Ok(folder) if !hold || !folder.is_ours() => return Ok(folder),
                Ok(folder) if folder.file.try_lock_shared().is_ok() && folder.is_there() => return Ok(folder),
                Ok(_) => last = Errno::EBUSY,
                // Made, or removed, by another one in between.
                Err(errno @ (Errno::EEXIST | Errno::ENOENT)) => last = errno,
                Err(errno) => return Err(self.cannot_make(name, errno)),
            }
            std::thread::sleep(PAUSE);
        }
        Err(self.cannot_make(name, last))
    }

    /// Whether a sexton of this user has made it.
    pub fn is_ours(&self) -> bool {
        let made = self.file.metadata();
        made.is_ok_and(|made| made.mode() & STICKY != 0 && made.uid() == geteuid().as_raw())
    }

    /// Takes it for this sexton alone, until the descriptor is closed.
    pub fn lock(&self) -> bool {
        self.file.try_lock().is_ok()
    }

    /// Whether it has not been removed: then it would have no files.
    pub fn is_there(&self) -> bool {
        self.has("cgroup.procs")
    }

    /// Whether it has such a file.
    pub fn has(&self, file: &str) -> bool {
        fstatat(&self.file, file, AtFlags::empty()).is_ok()
    }

    fn open_file(&self, file: &str, flags: OFlag) -> Result<OwnedFd, Errno> {
        openat(&self.file, file, flags | OFlag::O_CLOEXEC, Mode::empty())
    }

    /// What a file says.
    pub fn read(&self, file: &str) -> Result<String, SetupError> {
        let mut text = String::new();
        let read = self.open_file(file, OFlag::O_RDONLY).and_then(|opened| {
            let read = File::from(opened).read_to_string(&mut text);
            read.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))
        });
        read.map_err(|errno| SetupError::call(self.call("read", file, ""), errno, "this cgroup is not to be read"))?;
        Ok(text)
    }

    /// One write(2).
    pub fn try_write(&self, file: &str, text: &str) -> Result<(), Errno> {
        fd::write(self.open_file(file, OFlag::O_WRONLY)?.as_fd(), text.as_bytes()).map(drop)
    }

    /// The same, with advice if it fails.
    pub fn write(&self, file: &str, text: &str, advice: &'static str) -> Result<(), SetupError> {
        self.try_write(file, text).map_err(|errno| SetupError::call(self.call("write", file, text), errno, advice))
    }

    /// `cgroup.procs`, to be written by those who join.
    pub fn procs(&self) -> Result<OwnedFd, SetupError> {
        let file = "cgroup.procs";
        let opened = self.open_file(file, OFlag::O_WRONLY);
        opened.map_err(|errno| SetupError::call(self.call("open", file, ""), errno, "this group is not this user's"))
    }

    /// Removes a group below. EBUSY: processes or groups are in it.
    pub fn remove_folder(&self, name: &OsStr) -> Result<(), Errno> {
        unlinkat(&self.file, name, UnlinkatFlags::RemoveDir)
    }

    /// The names of what is in it, groups and files, that are not refused.
    pub fn names(&self, mut wanted: impl FnMut(&[u8]) -> bool) -> Vec<OsString> {
        let mut found = Vec::new();
        // Its own position: that of a descriptor that is held moves.
        if let Ok(own) = self.at(OsStr::new(".")) {
            let mut names = NamesOf::new(own.descriptor());
            while let Some(name) = names.read() {
                if !matches!(name, b"." | b"..") && wanted(name) {
                    found.push(OsStr::from_bytes(name).to_owned());
                }
            }
        }
        found
    }

    /// The groups below.
    pub fn below(&self) -> Vec<Self> {
        self.names(|_| true).iter().filter_map(|name| self.at(name).ok()).collect()
    }
}

/// Calls `visit` with each process in a group, as cgroup.procs has them: 0 is one that this PID namespace does not know.
pub fn each_pid(folder: &Folder, mut visit: impl FnMut(i32)) {
    let Ok(procs) = folder.open_file("cgroup.procs", OFlag::O_RDONLY) else { return };
    let mut file = File::from(procs);
    let mut buffer = [0; 1024];
    let mut number = None;
    while let Ok(count @ 1..) = file.read(&mut buffer) {
        for byte in buffer.iter().take(count) {
            if byte.is_ascii_digit() {
                number = Some(number.unwrap_or(0) * 10 + i32::from(byte - b'0'));
            } else if let Some(pid) = number.take() {
                visit(pid);
            }
        }
    }
}
