//! The command's groups: made, held, and removed with all that is in them.
//!
//! A group that a sexton has made is sticky, and locked as long as that sexton lives. One that is sticky and not locked is
//! a dead sexton's: what is in it is killed, and it is removed.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use log::warn;
use nix::unistd::getpid;

use super::Setting;
use super::folder::{Folder, OURS, READ_ONLY, each_pid};
use super::place::Place;
use super::v1::fill_cpuset;
use super::v2::{self, Enabled, Evacuated};
use crate::procfs;
use crate::setup::step::SetupError;
use crate::signal::Signal;
use crate::sys::signal::kill;
use crate::sys::{Errno, errno_name};

/// What all names that sexton finds by itself begin with.
const PREFIX: &str = "sexton-";
/// How many names are tried.
const NAMES: usize = 1000;
/// How long those in a group have to be gone after KILL: only what waits in the kernel takes time.
const REMOVE_LIMIT: Duration = Duration::from_secs(5);
/// The same for what a dead sexton left, at a start.
const SWEEP_LIMIT: Duration = Duration::from_secs(1);
/// The first and the longest pause between two tries.
const PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);
/// How often to ask whether all in a group are frozen.
const FREEZE_TRIES: usize = 50;

/// The command's groups.
#[derive(Default, Debug)]
pub struct Group {
    members: Vec<Member>,
    /// Groups above that a sexton has made, outermost first, with their lock.
    parents: Vec<Member>,
    evacuated: Option<Evacuated>,
}

/// A group of one hierarchy.
#[derive(Debug)]
struct Member {
    /// The group above.
    above: Folder,
    /// It.
    folder: Folder,
    /// Its cgroup.procs, until the command has it.
    procs: Option<OwnedFd>,
}

/// The name of this sexton's groups: no other process of this PID namespace has the same.
pub fn own_name() -> String {
    let pid = getpid().as_raw();
    let start = procfs::stat(pid).map_or(0, |stat| stat.start);
    format!("{PREFIX}{pid}-{start}")
}

/// Whether it may be one of [`own_name`].
fn is_own_name(name: &[u8]) -> bool {
    let is_number = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let mut numbers = name.strip_prefix(PREFIX.as_bytes()).unwrap_or_default().splitn(2, |byte| *byte == b'-');
    numbers.next().is_some_and(is_number) && numbers.next().is_some_and(is_number)
}

impl Group {
    /// Descriptors that are needed until the end.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let members = self.members.iter().chain(&self.parents).flat_map(|member| [&member.above, &member.folder]);
        let evacuated = self.evacuated.iter().flat_map(|evacuated| [&evacuated.from, &evacuated.to]);
        members.chain(evacuated).map(Folder::descriptor)
    }

    /// What the command writes to, to join.
    pub fn take_procs(&mut self) -> impl Iterator<Item = OwnedFd> {
        self.members.iter_mut().filter_map(|member| member.procs.take())
    }

    /// Makes the group of one hierarchy and writes its limits. A `fixed` name is the only one.
    pub fn make(&mut self, place: &Place<'_>, name: &str, fixed: bool) -> Result<(), SetupError> {
        let before = (self.members.len(), self.parents.len());
        match self.try_make(place, name, fixed) {
            Err(_) if !place.needed => {
                self.remove_from(before.0, before.1);
                Ok(())
            }
            result => result,
        }
    }

    fn try_make(&mut self, place: &Place<'_>, name: &str, fixed: bool) -> Result<(), SetupError> {
        let hierarchy = &place.hierarchy;
        let is_cpuset = !hierarchy.unified && hierarchy.has("cpuset");
        let mut folder = Folder::open(&hierarchy.top)?;
        let mut so_far = PathBuf::new();
        let mut rest = place.below.iter();
        loop {
            if hierarchy.unified {
                let is_own = hierarchy.own.as_ref() == Some(&so_far);
                self.enable(&folder, &place.controllers, is_own)?;
            }
            let Some(part) = rest.next() else { break };
            so_far.push(part);
            // Where sexton itself is nobody removes anything; beyond, another sexton may be about to.
            let hold = !hierarchy.own.as_ref().is_some_and(|own| own.starts_with(&so_far));
            let below = folder.enter(part, hold)?;
            if is_cpuset {
                fill_cpuset(&folder, &below)?;
            }
            if hold && below.is_ours() {
                self.parents.push(Member { above: folder, folder: below.again()?, procs: None });
            }
            folder = below;
        }
        let made = make_and_lock(&folder, name, fixed)?;
        self.members.push(Member { above: folder, folder: made, procs: None });
        let Some(member) = self.members.last_mut() else { return Ok(()) };
        if is_cpuset {
            fill_cpuset(&member.above, &member.folder)?;
        }
        for setting in &place.settings {
            apply(&member.folder, setting)?;
        }
        if !place.needed {
            // To leave the group above one must be allowed to write there too.
            member.above.procs()?;
        }
        member.procs = Some(member.folder.procs()?);
        Ok(())
    }

    /// Enables controllers for the groups below.
    fn enable(&mut self, folder: &Folder, controllers: &[&str], is_own: bool) -> Result<(), SetupError> {
        for controller in controllers {
            let mut enabled = v2::enable(folder, controller)?;
            if enabled == Enabled::Busy && is_own && self.evacuated.is_none() {
                self.evacuated = v2::evacuate(folder, &own_name())?;
                enabled = v2::enable(folder, controller)?;
            }
            match (enabled, &mut self.evacuated) {
                (Enabled::Busy, _) => return Err(v2::busy(folder, controller)),
                (Enabled::Now, Some(evacuated)) if is_own => evacuated.enabled.push((*controller).to_owned()),
                _ => {}
            }
        }
        Ok(())
    }

    /// Kills all in the groups and removes them.
    pub fn remove(&mut self) {
        self.remove_from(0, 0);
        if let Some(evacuated) = self.evacuated.take() {
            evacuated.undo();
        }
    }

    fn remove_from(&mut self, members: usize, parents: usize) {
        for member in self.members.drain(members..) {
            if let Err(errno) = remove(&member.above, &member.folder, REMOVE_LIMIT) {
                warn!("{}: {}: it stays", member.folder.call("rmdir", "", ""), errno_name(errno));
            }
        }
        for parent in self.parents.drain(parents..).rev() {
            // Who else needs it holds it.
            if parent.folder.lock() {
                let _ = parent.above.remove_folder(parent.folder.name());
            }
        }
    }
}

/// Makes a group below that is this sexton's alone.
fn make_and_lock(above: &Folder, name: &str, fixed: bool) -> Result<Folder, SetupError> {
    let (stem, first) = name.rsplit_once('-').unwrap_or((name, ""));
    let first: u64 = first.parse().unwrap_or(0);
    for number in (first..).take(NAMES) {
        let own = format!("{stem}-{number}");
        let name = OsStr::new(if fixed { name } else { &own });
        match try_make_and_lock(above, name, fixed) {
            Ok(Some(folder)) => return Ok(folder),
            Ok(None) => {}
            Err(errno) => return Err(above.cannot_make(name, errno)),
        }
    }
    Err(above.cannot_make(name.as_ref(), Errno::EBUSY))
}

/// One try; `None`: another one may do.
fn try_make_and_lock(above: &Folder, name: &OsStr, fixed: bool) -> Result<Option<Folder>, Errno> {
    match above.try_make(name, OURS) {
        // Between the two, who sweeps may have taken it for a dead sexton's.
        Ok(folder) => Ok((folder.lock() && folder.is_there()).then_some(folder)),
        Err(Errno::ENOENT) if above.is_there() => Ok(None),
        Err(Errno::EEXIST) if !fixed => Ok(None),
        Err(Errno::EEXIST) => match above.at(name) {
            Ok(folder) if !folder.is_ours() => Err(Errno::EEXIST),
            Ok(folder) if !folder.lock() => Err(Errno::EBUSY),
            // A dead sexton's.
            Ok(folder) => remove(above, &folder, REMOVE_LIMIT).map(|()| None),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno),
        },
        Err(errno) => Err(errno),
    }
}

fn apply(folder: &Folder, setting: &Setting<'_>) -> Result<(), SetupError> {
    let (mut file, mut value) = (setting.file.as_ref(), setting.value.as_ref());
    let mut result = folder.try_write(file, value);
    if let (Err(Errno::ENOENT), Some((other, text))) = (result, &setting.or) {
        (file, value) = (*other, text.as_str());
        result = folder.try_write(file, value);
    }
    match result {
        Err(Errno::ENOENT) if setting.implied => Ok(()),
        Err(errno) => Err(refused(folder, setting.option, file, value, errno)),
        Ok(()) => Ok(()),
    }
}

fn refused(folder: &Folder, option: &str, file: &str, value: &str, errno: Errno) -> SetupError {
    let controller = file.split('.').next().unwrap_or_default();
    let why = match errno {
        Errno::ENOENT if file.contains("swap") || file.contains("memsw") => {
            "has no such file in this kernel, which must count swap (boot with swapaccount=1)"
        }
        Errno::ENOENT => "has no such file in this kernel",
        Errno::EINVAL | Errno::ERANGE => "takes no such value",
        Errno::ENODEV => "limits no such device; name a whole disk, no partition",
        Errno::EACCES if controller == "cpuset" => "gives no more than the group above has",
        Errno::EACCES | Errno::EPERM => "does not let this user write; run as root",
        Errno::EBUSY => "is in use so that this cannot be changed",
        Errno::EROFS => READ_ONLY,
        Errno::EOPNOTSUPP => "does not support this here",
        _ => "refused",
    };
    let advice = format!("the {controller} controller {why}; change or leave out {option}");
    SetupError::call(folder.call("write", file, value), errno, advice)
}

/// Removes the groups of dead sextons below these groups, as far as possible.
pub fn sweep(parents: &[PathBuf]) {
    for parent in parents {
        let Ok(above) = Folder::open(parent) else { continue };
        for name in above.names(|name| name.starts_with(PREFIX.as_bytes())) {
            match name.as_bytes().strip_suffix(v2::OUTSIDE.as_bytes()) {
                // Where a sexton that is dead had moved itself; only an empty one can be removed.
                Some(stem) if is_own_name(stem) => drop(above.remove_folder(&name)),
                None if is_own_name(name.as_bytes()) => sweep_one(&above, &name),
                _ => {}
            }
        }
    }
}

fn sweep_one(above: &Folder, name: &OsStr) {
    if let Ok(folder) = above.at(name)
        && folder.is_ours()
        && folder.lock()
    {
        let _ = remove(above, &folder, SWEEP_LIMIT);
    }
}

/// Kills all in a group and removes it. EBUSY: some are not gone in time.
fn remove(above: &Folder, folder: &Folder, limit: Duration) -> Result<(), Errno> {
    let mut deadline = None;
    let mut pause = PAUSE;
    loop {
        match above.remove_folder(folder.name()) {
            Ok(()) | Err(Errno::ENOENT) => return Ok(()),
            // As long as a process in it is not gone, or groups are below it.
            Err(Errno::EBUSY) => {}
            Err(errno) => return Err(errno),
        }
        let now = Instant::now();
        if now > *deadline.get_or_insert(now + limit) {
            return Err(Errno::EBUSY);
        }
        kill_all(folder);
        remove_below(folder);
        sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn remove_below(folder: &Folder) {
    for below in folder.below() {
        remove_below(&below);
        let _ = folder.remove_folder(below.name());
    }
}

/// KILL to all in a group and below it: at once (`cgroup.kill`, Linux 5.14), or one by one while they are frozen, so that
/// none is made meanwhile and no process id changes its meaning; where there is no freezer, one by one.
fn kill_all(folder: &Folder) {
    if folder.try_write("cgroup.kill", "1").is_ok() {
        return;
    }
    // Version 2 since Linux 5.2; version 1's freezer.
    let ways = [("cgroup.freeze", "1", "0", "cgroup.events", "frozen 1"), FREEZER];
    let frozen = ways.into_iter().find(|(file, freeze, ..)| folder.try_write(file, freeze).is_ok());
    if let Some((.., file, word)) = frozen {
        for _ in 0..FREEZE_TRIES {
            if folder.read(file).is_ok_and(|text| text.contains(word)) {
                break;
            }
            sleep(PAUSE);
        }
    }
    kill_each(folder);
    if let Some((file, _, thaw, ..)) = frozen {
        // Whatever happened: who is frozen does not die of KILL in version 1.
        let _ = folder.try_write(file, thaw);
    }
}

const FREEZER: (&str, &str, &str, &str, &str) = ("freezer.state", "FROZEN", "THAWED", "freezer.state", "FROZEN");

fn kill_each(folder: &Folder) {
    each_pid(folder, |pid| {
        if pid > 0 {
            let _ = kill(pid, Some(Signal::KILL));
        }
    });
    for below in folder.below() {
        kill_each(&below);
        let _ = below.try_write(FREEZER.0, FREEZER.2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g2_only_names_of_sextons_own_are_swept() {
        assert!(is_own_name(own_name().as_bytes()));
        for foreign in
            ["sexton-docker-ye9defcq", "sexton-1", "sexton-1-", "sexton--1", "sexton-1-2x", "sexton-1-2-3", "web"]
        {
            assert!(!is_own_name(foreign.as_bytes()), "{foreign}");
        }
    }
}
