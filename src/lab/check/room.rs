//! The process that asks one case: PID 1 of a PID namespace, with mounts of its own, in a user namespace where that is
//! what it takes.
#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::CloneFlags;
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, getegid, geteuid, pipe2};

use crate::lab::Trouble;
use crate::lab::cases::{Awaited, Outcome, Room, Stop, check_end};
use crate::lab::container::failed;
use crate::lab::inits::Init;
use crate::signal::Signal;
use crate::sys::process::{Forked, exit, fork_into, set_parent_death_signal};
use crate::sys::signal::{SignalSet, kill, set_mask};

/// How often to look at the deadlines.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// A process that asks.
pub struct Worker {
    /// Which cell.
    pub number: usize,
    /// Since when.
    pub began: Instant,
    pid: i32,
    told: File,
}

impl Worker {
    /// Forks it. `ask` runs in the new process and gets the path of this program; we have no thread but this one.
    pub fn start(number: usize, is_root: bool, ask: impl FnOnce(PathBuf) -> Outcome) -> Result<Self, Trouble> {
        let pipe = || pipe2(OFlag::O_CLOEXEC).map_err(failed("pipe2(O_CLOEXEC)"));
        let ((go_read, go), (told, tell)) = (pipe()?, pipe()?);
        let map = (!is_root).then(|| (geteuid().as_raw(), getegid().as_raw()));
        let mut namespaces = CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS;
        namespaces.set(CloneFlags::CLONE_NEWUSER, !is_root);
        let lab = std::env::current_exe()?;
        match fork_into(namespaces.bits()).map_err(failed("clone(CLONE_NEWPID|CLONE_NEWNS)"))? {
            Forked::Parent(started) => {
                drop(tell);
                let worker = Self { number, began: Instant::now(), pid: started.pid, told: told.into() };
                File::from(go).write_all(&[0])?;
                Ok(worker)
            }
            Forked::Child => {
                drop((told, go));
                set_mask(SignalSet::FULL);
                let outcome = match enter(&go_read, map) {
                    Ok(()) => ask(lab),
                    Err(trouble) => Outcome::Skip { why: format!("could not be asked: {trouble}") },
                };
                let text = serde_json::to_vec(&outcome).unwrap_or_default();
                let _ = File::from(tell).write_all(&text);
                exit(0);
            }
        }
    }

    /// What became of the case, if it is over.
    pub fn outcome(&mut self) -> Option<Outcome> {
        if !is_ready(self.told.as_fd()) {
            return None;
        }
        let mut text = Vec::new();
        let _ = self.told.read_to_end(&mut text);
        let lost = |_| Outcome::Skip { why: "could not be asked: the process that asks has ended".into() };
        Some(serde_json::from_slice(&text).unwrap_or_else(lost))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Nothing in the namespace is left when its PID 1 is waited for.
        let _ = kill(self.pid, Some(Signal::KILL));
        let _ = waitpid(Pid::from_raw(self.pid), None);
    }
}

fn is_ready(descriptor: BorrowedFd<'_>) -> bool {
    poll(&mut [PollFd::new(descriptor, PollFlags::POLLIN)], PollTimeout::ZERO).is_ok_and(|count| count > 0)
}

/// Waits until one of them may be over, or a signal is there, or some time has passed.
pub fn wait_for_any(workers: &[Worker], signals: BorrowedFd<'_>) {
    let told = workers.iter().map(|worker| worker.told.as_fd());
    let mut set: Vec<_> = told.chain([signals]).map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
    let _ = poll(&mut set, PollTimeout::try_from(LOOK_AGAIN).unwrap_or(PollTimeout::ZERO));
}

/// In the new process: dies with its parent, is root of its namespaces, and has a /proc of its own.
pub fn enter(go: &OwnedFd, map: Option<(u32, u32)>) -> Result<(), Trouble> {
    set_parent_death_signal(Signal::KILL).map_err(failed("prctl(PR_SET_PDEATHSIG)"))?;
    // If the parent died before it could be told to take us along, this end has no other.
    if nix::unistd::read(go, &mut [0]) != Ok(1) {
        exit(1);
    }
    if let Some((user, group)) = map {
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
        fs::write("/proc/self/gid_map", format!("0 {group} 1"))?;
    }
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(failed("mount(\"/\", MS_REC|MS_PRIVATE)"))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, none).map_err(failed("mount(\"proc\", \"/proc\")"))
}

/// What can be done here.
#[derive(Clone, Copy, Debug)]
pub struct Here {
    /// Namespaces without a user namespace.
    pub is_root: bool,
    /// How long an answer may take.
    pub patience: Duration,
}

/// Answers take a fraction of this on a machine at rest.
const PATIENCE: Duration = Duration::from_secs(8);
/// And no machine is so slow.
const MOST_PATIENCE: Duration = Duration::from_secs(30);
/// An answer may take as long as so many starts of a container.
const STARTS: u32 = 500;

/// Tries it: whether a case can be asked here at all, and how fast this machine is.
pub fn can_be_made() -> Result<Here, Trouble> {
    let try_as = |is_root| {
        let began = Instant::now();
        let mut worker = Worker::start(0, is_root, |lab| {
            let init = Init::from_words("").unwrap_or_else(|_| exit(1));
            let room = Room { init, lab, is_root, patience: MOST_PATIENCE };
            let end = || -> Result<_, Stop> {
                let mut container = room.with(&["exit", "7"]).start()?;
                check_end(Ok(container.end().or_fail("an end")?), 7)?;
                super::cases::PASS
            };
            Outcome::from(end())
        })?;
        loop {
            wait_for_any(&[], worker.told.as_fd());
            match worker.outcome() {
                Some(Outcome::Pass { .. }) => return Ok(began.elapsed()),
                Some(Outcome::Skip { why }) => return Err(Trouble(why)),
                Some(Outcome::Fail { seen, .. }) => return Err(Trouble(seen)),
                None if began.elapsed() > MOST_PATIENCE => return Err(Trouble("no container can be started".into())),
                None => {}
            }
        }
    };
    let here =
        |is_root| move |taken: Duration| Here { is_root, patience: (taken * STARTS).clamp(PATIENCE, MOST_PATIENCE) };
    let as_root = geteuid().is_root().then(|| try_as(true).map(here(true)));
    match as_root {
        Some(Ok(here)) => Ok(here),
        _ => try_as(false).map(here(false)).map_err(|trouble| {
            Trouble(format!("no PID namespace can be made here: {trouble}: run it as root, or allow user namespaces"))
        }),
    }
}
