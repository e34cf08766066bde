//! A group's folder, held open: its files are reached through the descriptor, whatever is mounted later, and its lock
//! says that a sexton lives.
//!
//! flock(2) is known across PID namespaces, which process ids are not, and the kernel lets it go when its holder dies.
#![forbid(unsafe_code)]

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::thread::sleep;
use std::time::Duration;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, geteuid, read, unlinkat};

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
/// More than the files of version 1 and version 2 that are read here hold: they fit into a page.
const ROOM: usize = 4096;

/// The folder.
#[derive(Debug)]
pub struct Folder {
    file: File,
    path: String,
    /// It was made here.
    is_new: bool,
}

impl Folder {
    /// By its path.
    pub fn open(path: &str) -> Result<Self, SetupError> {
        let file = File::open(path).map_err(|error| {
            SetupError::io(format!("open({path:?})"), &error, "cgroups are mounted there, but cannot be read")
        })?;
        Ok(Self { file, path: path.to_owned(), is_new: false })
    }

    /// openat(2): a file, or a group below.
    fn open_at(&self, name: &[u8], flags: OFlag) -> Result<OwnedFd, Errno> {
        openat(&self.file, name, flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW, Mode::empty())
    }

    /// A group below.
    pub fn at(&self, name: &[u8]) -> Result<Self, Errno> {
        let file = self.open_at(name, OFlag::O_DIRECTORY)?.into();
        Ok(Self { file, path: format!("{}/{}", self.path, String::from_utf8_lossy(name)), is_new: false })
    }

    /// The same, once more.
    pub fn again(&self) -> Result<Self, SetupError> {
        let copy = fd::duplicate(self.file.as_fd());
        let copy = copy.ok_or_else(|| SetupError::call("fcntl(F_DUPFD)", Errno::EMFILE, ""))?;
        Ok(Self { file: copy.into(), path: self.path.clone(), is_new: self.is_new })
    }

    /// Its name in the group above.
    pub fn name(&self) -> &[u8] {
        self.path.rsplit('/').next().unwrap_or_default().as_bytes()
    }

    /// The descriptor.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// A call on one of its files, for messages.
    pub fn call(&self, call: &str, file: &str, text: &str) -> String {
        let path = format!("{}/{file}", self.path);
        if text.is_empty() { format!("{call}({path:?})") } else { format!("{call}({path:?}, {text:?})") }
    }

    /// mkdir(2), then open(2).
    pub fn try_make(&self, name: &[u8], mode: u32) -> Result<Self, Errno> {
        mkdirat(&self.file, name, Mode::from_bits_truncate(mode))?;
        let opened = self.at(name);
        if opened.is_err() {
            let _ = self.remove_folder(name);
        }
        Ok(Self { is_new: true, ..opened? })
    }

    /// Why a group cannot be made below.
    pub fn cannot_make(&self, name: &str, errno: Errno) -> SetupError {
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
        SetupError::call(self.call("mkdir", name, ""), errno, advice)
    }

    /// The group below, made if it is not there. With `hold`, one that a sexton has made is held, so that no other one
    /// removes it.
    pub fn enter(&self, name: &str, hold: bool) -> Result<Self, SetupError> {
        let mut last = Errno::ENOENT;
        for _ in 0..TRIES {
            let mut folder = self.at(name.as_bytes());
            if let Err(Errno::ENOENT) = folder {
                folder = self.try_make(name.as_bytes(), OURS);
            }
            match folder {
                Ok(folder) => {
                    if !hold || !folder.is_ours() || (fd::lock(folder.descriptor(), false).is_ok() && folder.is_there())
                    {
                        return Ok(folder);
                    }
                    last = Errno::EBUSY;
                }
                // Made, or removed, by another one in between.
                Err(errno @ (Errno::EEXIST | Errno::ENOENT)) => last = errno,
                Err(errno) => return Err(self.cannot_make(name, errno)),
            }
            sleep(PAUSE);
        }
        Err(self.cannot_make(name, last))
    }

    /// Whether a sexton of this user has made it.
    pub fn is_ours(&self) -> bool {
        let made = self.file.metadata();
        self.is_new || made.is_ok_and(|made| made.mode() & STICKY != 0 && made.uid() == geteuid().as_raw())
    }

    /// Takes it for this sexton alone, until the descriptor is closed.
    pub fn lock(&self) -> bool {
        fd::lock(self.descriptor(), true).is_ok()
    }

    /// Whether it has not been removed: then it would have no files.
    pub fn is_there(&self) -> bool {
        self.has("cgroup.procs")
    }

    /// Whether it has such a file. Who cannot tell (EMFILE) will be told by the next call.
    pub fn has(&self, file: &str) -> bool {
        !matches!(self.open_at(file.as_bytes(), OFlag::O_PATH), Err(Errno::ENOENT | Errno::ENODEV))
    }

    /// What a file says.
    pub fn read(&self, file: &str) -> Result<String, SetupError> {
        self.try_read(file)
            .map_err(|errno| SetupError::call(self.call("read", file, ""), errno, "this cgroup is not to be read"))
    }

    /// One read(2).
    pub fn try_read(&self, file: &str) -> Result<String, Errno> {
        let mut room = [0; ROOM];
        let opened = self.open_at(file.as_bytes(), OFlag::O_RDONLY)?;
        let count = read(opened, &mut room)?;
        Ok(String::from_utf8_lossy(room.get(..count).unwrap_or_default()).into_owned())
    }

    /// One write(2).
    pub fn try_write(&self, file: &str, text: &str) -> Result<(), Errno> {
        fd::write(self.open_at(file.as_bytes(), OFlag::O_WRONLY)?.as_fd(), text.as_bytes()).map(drop)
    }

    /// `cgroup.procs`, to be written by those who join.
    pub fn procs(&self) -> Result<OwnedFd, SetupError> {
        let file = "cgroup.procs";
        self.open_at(file.as_bytes(), OFlag::O_WRONLY)
            .map_err(|errno| SetupError::call(self.call("open", file, ""), errno, "this group is not this user's"))
    }

    /// Removes a group below. EBUSY: processes or groups are in it.
    pub fn remove_folder(&self, name: &[u8]) -> Result<(), Errno> {
        unlinkat(&self.file, name, UnlinkatFlags::RemoveDir)
    }

    /// Calls `visit` with the name of each group below and of each file, but those that begin with a point.
    pub fn each_name(&self, visit: &mut dyn FnMut(&[u8])) {
        // Its own position: that of a descriptor that is held moves.
        let Ok(own) = self.open_at(b".", OFlag::O_DIRECTORY) else { return };
        let mut names = NamesOf::new(own.as_fd());
        while let Some(name) = names.read() {
            if !name.starts_with(b".") {
                visit(name);
            }
        }
    }

    /// Calls `visit` with each group below.
    pub fn each_below(&self, visit: &mut dyn FnMut(&[u8], Self)) {
        self.each_name(&mut |name| {
            if let Ok(below) = self.at(name) {
                visit(name, below);
            }
        });
    }

    /// Calls `visit` with each process, as cgroup.procs has them: 0 is one that this PID namespace does not know.
    pub fn each_pid(&self, visit: &mut dyn FnMut(i32)) {
        let Ok(procs) = self.open_at(b"cgroup.procs", OFlag::O_RDONLY) else { return };
        let mut room = [0; ROOM];
        let mut number = None;
        while let Ok(count @ 1..) = read(&procs, &mut room) {
            for byte in room.iter().take(count) {
                if byte.is_ascii_digit() {
                    number = Some(number.unwrap_or(0) * 10 + i32::from(byte - b'0'));
                } else if let Some(pid) = number.take() {
                    visit(pid);
                }
            }
        }
    }
}
