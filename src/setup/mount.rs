//! Mounts: what the command sees as files (mount_namespaces(7)).
//!
//! All is mounted while the old root is still there: what is bound is in it, and without its /proc and /sys in sight a
//! user namespace would get none of its own (mount_too_revealing() in the kernel's fs/namespace.c). Each place is found
//! beneath the new root by `place` and mounted on by descriptor, so that nothing lands outside. The new root is entered
//! last.
#![forbid(unsafe_code)]

mod bind;
mod fresh;
mod mask;
mod place;
mod root;

use std::ffi::{CStr, CString, OsStr};
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::mount::MsFlags;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{chdir, getcwd};

use super::namespaces::{self, Kind};
use super::step::{self, SetupError, State, Step, Steps};
use crate::sys::Errno;
use crate::sys::action::Action;
use crate::sys::mount::mount;
use bind::Which;

/// What is wanted.
#[derive(Default, Debug)]
pub struct Wanted {
    /// `--root` or `--overlay`.
    pub root: Option<Root>,
    /// What is mounted, in this order.
    pub mounts: Vec<Mount>,
    /// `--read-only`: the root.
    pub read_only: bool,
    /// `--chdir`: the command's working folder.
    pub chdir: Option<CString>,
}

/// A new root.
#[derive(Clone, Debug)]
pub enum Root {
    /// `--root`: a folder, with all that is mounted below it.
    Folder(CString),
    /// `--overlay`.
    Overlay(Layers),
}

/// The folders of an overlay.
#[derive(Clone, Default, Debug)]
#[cfg_attr(test, derive(PartialEq, Eq))]
pub struct Layers {
    /// Those that are only read, the uppermost first.
    pub lower: Vec<CString>,
    /// The one that takes the changes, and one for the kernel to work in. Without them changes are in memory.
    pub upper: Option<(CString, CString)>,
}

/// A mount.
#[derive(Clone, Debug)]
pub struct Mount {
    /// Where, in the root.
    pub at: PathBuf,
    /// What.
    pub what: What,
}

/// What is mounted.
#[derive(Clone, Debug)]
#[cfg_attr(test, derive(PartialEq, Eq))]
pub enum What {
    /// `--bind`: what is at this path of the old root, read-only or not.
    Bind(CString, bool),
    /// `--tmpfs`: memory, with these options (tmpfs(5)).
    Tmpfs(CString),
    /// `--proc`.
    Proc,
    /// `--sys`.
    Sys,
    /// `--dev`.
    Dev,
}

/// What the steps have made.
#[derive(Default, Debug)]
pub struct Made {
    /// The root that all is mounted beneath.
    root: Option<OwnedFd>,
    /// What is to be bound, the last first.
    sources: Vec<bind::Source>,
    /// The /dev out here.
    dev: Option<OwnedFd>,
    /// How many mounts have to go when the new root is entered.
    covers: u32,
    /// The working folder to go back to.
    folder: Option<CString>,
}

impl Wanted {
    /// What goes together and what does not.
    pub fn check(&self, namespaces: &namespaces::Wanted) -> Result<(), String> {
        let first = match (&self.root, self.mounts.first()) {
            (Some(Root::Folder(_)), _) => "--root",
            (Some(Root::Overlay(_)), _) => "--overlay",
            (None, Some(first)) => first.what.option(),
            (None, None) if self.read_only => "--read-only",
            (None, None) => return Ok(()),
        };
        if namespaces.own(Kind::Mount) {
            return Ok(());
        }
        Err(format!("{first} needs a mount namespace of its own, or it would change the machine; add --unshare mount"))
    }

    fn any(&self) -> bool {
        self.root.is_some() || !self.mounts.is_empty() || self.read_only
    }

    /// In the new mount namespace.
    pub fn inside<'a>(&'a self, namespaces: &'a namespaces::Wanted) -> Steps<'a> {
        let mut steps = Steps::new();
        let any = self.any();
        if !namespaces.unshare.has(Kind::Mount) {
            if !any {
                return steps;
            }
            // What is joined is another's: it is not changed, and a new root would be one for all that are in it.
            steps.push(Box::new(Copy));
        }
        steps.push(Box::new(Private));
        let new_proc =
            namespaces.unshare.has(Kind::Pid) && !self.mounts.iter().any(|mount| matches!(mount.what, What::Proc));
        if !any {
            if new_proc {
                steps.push(Box::new(Proc { beneath: false }));
            }
            return steps;
        }
        // What is asked for is meant as it is seen from outside, so it is opened before anything covers it.
        steps.push(Box::new(Open(self)));
        if let Some(root) = &self.root {
            steps.push(Box::new(root::NewRoot(root, namespaces.unshare.has(Kind::User))));
        }
        // What comes with the root is read-only before anything is mounted that shall not be; an overlay is but one
        // mount.
        if self.read_only && !matches!(self.root, Some(Root::Overlay(_))) {
            steps.push(Box::new(ReadOnly(Which::Below)));
        }
        if new_proc {
            steps.push(Box::new(Proc { beneath: true }));
        }
        for mount in &self.mounts {
            steps.push(Box::new(Put(mount)));
        }
        if self.root.is_some() {
            steps.push(Box::new(mask::Mask));
        }
        // The root itself only now: folders to mount on may have to be made in it.
        if self.read_only {
            steps.push(Box::new(ReadOnly(Which::Top)));
        }
        steps.push(if self.root.is_some() { Box::new(root::Enter) } else { Box::new(Return) });
        steps
    }

    /// What the command does to itself.
    pub fn command(&self) -> Steps<'_> {
        self.chdir.iter().map(|folder| -> Box<dyn Step> { Box::new(ChangeFolder(folder)) }).collect()
    }
}

impl What {
    fn option(&self) -> &'static str {
        match self {
            Self::Bind(..) => "--bind",
            Self::Tmpfs(_) => "--tmpfs",
            Self::Proc => "--proc",
            Self::Sys => "--sys",
            Self::Dev => "--dev",
        }
    }
}

/// A call that failed: its words up to the path, which is its last argument.
#[cold]
#[inline(never)]
fn failed(call: &str, path: &Path, errno: Errno, advice: &'static str) -> SetupError {
    SetupError::call(format!("{call}{:?})", path.display()), errno, advice)
}

/// A C string as a path.
fn path(text: &CStr) -> &Path {
    Path::new(OsStr::from_bytes(text.to_bytes()))
}

fn advice(errno: Errno) -> &'static str {
    match errno {
        Errno::EPERM => "not permitted; run as root (CAP_SYS_ADMIN), or add user to --unshare",
        Errno::EACCES => "a folder on the way is closed to this user",
        Errno::ENOENT => "no such file or folder; make it, or take another",
        Errno::ENOTDIR => "not a folder",
        Errno::ELOOP => "too many symbolic links",
        Errno::ENODEV => "this kernel does not have this file system",
        Errno::ENOSPC => "too many mounts; see /proc/sys/fs/mount-max",
        _ => "the kernel refused",
    }
}

/// Why there is no place to mount on.
fn place_advice(errno: Errno) -> &'static str {
    match errno {
        Errno::EROFS => "it is missing, and cannot be made on a read-only file system; make it before",
        Errno::EACCES | Errno::EPERM => "it is missing, and this user may not make it; make it before",
        Errno::ENOTDIR => "there is a file on the way",
        Errno::EBUSY => "that is the root itself; use --root",
        Errno::ENOSPC => "it is missing, and there is no space to make it (or no inodes); make some, or make it before",
        _ => advice(errno),
    }
}

/// The path of the working folder.
fn working_folder() -> Result<CString, SetupError> {
    getcwd().and_then(|folder| CString::new(folder.into_os_string().into_vec()).map_err(|_| Errno::EINVAL)).map_err(
        |errno| SetupError::call("getcwd()", errno, "the working folder is gone; start in another, or use --chdir"),
    )
}

/// A copy of the joined namespace.
struct Copy;

impl Step for Copy {
    fn run(&self, _: &mut State) -> Result<(), SetupError> {
        unshare(CloneFlags::CLONE_NEWNS).map_err(|errno| SetupError::call("unshare(CLONE_NEWNS)", errno, advice(errno)))
    }
}

impl fmt::Display for Copy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a copy of the joined mount namespace, so that what is mounted in it is this command's alone")
    }
}

/// What is mounted in here does not show outside, and the other way round. Private, not slave: what is mounted outside
/// later would come in through a slave, and there it would be writable below a read-only bind. The price is unshare(1)'s:
/// without a new root, a file system that is unmounted outside stays in use in here.
struct Private;

impl Step for Private {
    fn run(&self, _: &mut State) -> Result<(), SetupError> {
        mount(c"", c"/", c"", MsFlags::MS_REC | MsFlags::MS_PRIVATE, c"").map_err(|errno| {
            let advice = match errno {
                Errno::EINVAL => "the root is no mount, as in a chroot; bind it on itself before (mount --bind)",
                _ => advice(errno),
            };
            failed("mount(MS_REC|MS_PRIVATE, ", Path::new("/"), errno, advice)
        })
    }
}

impl fmt::Display for Private {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("mounts are private")
    }
}

/// A /proc that shows the new PID namespace, if there is a folder for it: of another one it would show lies.
struct Proc {
    /// The root is one that all is mounted beneath, and not just our own.
    beneath: bool,
}

impl Step for Proc {
    fn run(&self, state: &mut State) -> Result<(), SetupError> {
        let at = Path::new("/proc");
        if let Some(root) = state.mounts.root.as_ref().filter(|_| self.beneath) {
            return fresh::proc(root.as_fd(), at, place::Missing::Fail);
        }
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        match mount(c"proc", c"/proc", c"proc", flags, c"") {
            Err(errno) if errno != Errno::ENOENT => Err(failed("mount(proc, ", at, errno, fresh::proc_advice(errno))),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Proc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a new /proc, if there is a folder for it")
    }
}

/// Opens what later steps take from the old root.
struct Open<'a>(&'a Wanted);

impl Step for Open<'_> {
    fn run(&self, state: &mut State) -> Result<(), SetupError> {
        let made = &mut state.mounts;
        if self.0.root.is_none() {
            made.root = Some(root::open_folder(c"/")?);
            if self.0.chdir.is_none() {
                made.folder = Some(working_folder()?);
            }
        }
        if self.0.mounts.iter().any(|mount| matches!(mount.what, What::Dev)) {
            // Where there is none, all devices have to be made.
            made.dev = root::open_folder(c"/dev").ok();
        }
        for mount in self.0.mounts.iter().rev() {
            if let What::Bind(source, _) = &mount.what {
                made.sources.push(bind::open(source)?);
            }
        }
        Ok(())
    }
}

impl fmt::Display for Open<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("open what is bound, and the root")
    }
}

/// One mount.
struct Put<'a>(&'a Mount);

impl Step for Put<'_> {
    fn run(&self, state: &mut State) -> Result<(), SetupError> {
        let made = &mut state.mounts;
        let Some(root) = made.root.as_ref().map(AsFd::as_fd) else { return Ok(()) };
        let at = &self.0.at;
        match &self.0.what {
            What::Bind(_, read_only) => match made.sources.pop() {
                Some(source) => bind::bind(root, &source, at, *read_only),
                None => Ok(()),
            },
            What::Tmpfs(data) => fresh::tmpfs(root, at, data),
            What::Proc => fresh::proc(root, at, place::Missing::Folder),
            What::Sys => fresh::sys(root, at),
            What::Dev => fresh::dev(root, at, made.dev.as_ref()),
        }
    }
}

impl fmt::Display for Put<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.0.at.display();
        match &self.0.what {
            What::Bind(source, read_only) => {
                write!(f, "at {at}: {}{}", path(source).display(), if *read_only { ", read-only" } else { "" })
            }
            What::Tmpfs(data) => {
                let data = path(data);
                write!(f, "at {at}: a tmpfs{}{}", if data.as_os_str().is_empty() { "" } else { " " }, data.display())
            }
            What::Proc => write!(f, "at {at}: a new proc"),
            What::Sys => write!(f, "at {at}: a sysfs, read-only"),
            What::Dev => write!(f, "at {at}: a small /dev"),
        }
    }
}

/// Makes the root read-only, or what is mounted below it.
struct ReadOnly(Which);

impl Step for ReadOnly {
    fn run(&self, state: &mut State) -> Result<(), SetupError> {
        match &state.mounts.root {
            Some(root) => bind::make_read_only(root.as_fd(), self.0, Path::new("/")),
            None => Ok(()),
        }
    }
}

impl fmt::Display for ReadOnly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0 == Which::Top {
            "the root is read-only"
        } else {
            "what comes with the root is read-only"
        })
    }
}

/// Goes back to the working folder by its path: what was mounted on it is what the command sees there.
struct Return;

impl Step for Return {
    fn run(&self, state: &mut State) -> Result<(), SetupError> {
        let Some(folder) = std::mem::take(&mut state.mounts).folder else { return Ok(()) };
        chdir(folder.as_c_str()).map_err(|errno| {
            failed("chdir(", path(&folder), errno, "the working folder is not to be reached any more; add --chdir")
        })
    }
}

impl fmt::Display for Return {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("go back to the working folder")
    }
}

/// The command's working folder.
struct ChangeFolder<'a>(&'a CString);

impl Step for ChangeFolder<'_> {
    fn run(&self, state: &mut State) -> Result<(), SetupError> {
        state.actions.push(Action::ChangeFolder(self.0.clone()));
        Ok(())
    }
}

impl fmt::Display for ChangeFolder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the command starts in {}", path(self.0).display())
    }
}
