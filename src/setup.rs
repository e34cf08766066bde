//! The steps before the command runs, in their order, and nothing else. A step that fails stops everything.
//!
//! With a PID namespace there are two of us from here on: the one outside supervises the one inside like any command;
//! the one inside is PID 1 and goes on to start the command. Neither outlives the other.
#![forbid(unsafe_code)]

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Pid, pipe2, setpgid};

use crate::cli::options::Namespaces;
use crate::signal::Signal;
use crate::sys::process::{Forked, Started, fork_into, set_parent_death_signal};
use crate::sys::{Errno, errno_name};

/// Which of the two we are after the setup.
pub enum Side {
    /// There is one process only.
    Only,
    /// Inside: PID 1 of the new namespace.
    Inside,
    /// Outside: this process is to be supervised, and the pipe held until the end.
    Outside(Started, OwnedFd),
}

/// A setup step that failed.
#[derive(Debug)]
pub struct SetupError {
    call: &'static str,
    errno: Errno,
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let advice = match self.errno {
            Errno::EPERM => "not permitted; run as root, with CAP_SYS_ADMIN",
            Errno::EINVAL => "this kernel has no such namespace",
            Errno::ENOSPC => "too many namespaces; see /proc/sys/user/max_pid_namespaces",
            Errno::EAGAIN => "no more processes; a pids limit or RLIMIT_NPROC is reached",
            Errno::ENOENT => "there is no such folder; make it in the image",
            _ => "the kernel refused",
        };
        write!(f, "{}: {}: {advice}", self.call, errno_name(self.errno))
    }
}

fn failed(call: &'static str) -> impl Fn(Errno) -> SetupError {
    move |errno| SetupError { call, errno }
}

/// Does what was asked for.
pub fn run(wanted: Namespaces) -> Result<Side, SetupError> {
    if !wanted.pid {
        if wanted.mount {
            unshare(CloneFlags::CLONE_NEWNS).map_err(failed("unshare(CLONE_NEWNS)"))?;
            make_mounts_private()?;
        }
        return Ok(Side::Only);
    }
    let (flags, call) = if wanted.mount {
        (CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS, "clone(CLONE_NEWPID|CLONE_NEWNS)")
    } else {
        (CloneFlags::CLONE_NEWPID, "clone(CLONE_NEWPID)")
    };
    // Nothing is ever written: its end says that the other side is dead.
    let (alive, held) = pipe2(OFlag::O_CLOEXEC).map_err(failed("pipe2(O_CLOEXEC)"))?;
    match fork_into(flags.bits()).map_err(failed(call))? {
        Forked::Parent(started) => {
            // Both sides do it, so that it is done whoever comes first.
            let pid = Pid::from_raw(started.pid);
            let _ = setpgid(pid, pid);
            Ok(Side::Outside(started, held))
        }
        Forked::Child => {
            drop(held);
            die_with_parent(&alive)?;
            let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
            if wanted.mount {
                make_mounts_private()?;
                mount_proc()?;
            }
            Ok(Side::Inside)
        }
    }
}

/// KILL comes when the one outside dies, also if it died before we asked: then nobody holds the pipe any more.
fn die_with_parent(alive: &OwnedFd) -> Result<(), SetupError> {
    set_parent_death_signal(Signal::KILL).map_err(failed("prctl(PR_SET_PDEATHSIG)"))?;
    let mut set = [PollFd::new(alive.as_fd(), PollFlags::empty())];
    if poll(&mut set, PollTimeout::ZERO).is_ok_and(|ready| ready > 0) {
        crate::sys::process::exit(128 + 9);
    }
    Ok(())
}

/// What is mounted in here does not show outside, and the other way round.
fn make_mounts_private() -> Result<(), SetupError> {
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .map_err(failed("mount(\"/\", MS_REC|MS_PRIVATE)"))
}

/// A /proc that shows the new PID namespace.
fn mount_proc() -> Result<(), SetupError> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, None::<&str>).map_err(failed("mount(\"proc\", \"/proc\")"))
}
