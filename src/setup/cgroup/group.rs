//! The command's groups: made, held, and removed with all that is in them.
//!
//! A group that a sexton has made is sticky, and locked as long as that sexton lives. One that is sticky and not locked is
//! a dead sexton's: what is in it is killed, and it is removed.
#![forbid(unsafe_code)]

use std::os::fd::{BorrowedFd, OwnedFd};
use std::thread::sleep;
use std::time::{Duration, Instant};

use log::warn;
use nix::unistd::getpid;

use super::folder::{Folder, OURS, READ_ONLY};
use super::limit::{Setting, controller};
use super::place::Place;
use super::v1::fill_cpuset;
use super::v2::{self, Enabled};
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
    /// Whose groups they are, in the order in which they were made.
    kinds: Vec<Kind>,
    /// Of each the group above, and it itself.
    folders: Vec<Folder>,
    /// The `cgroup.procs` that the command writes to, to join.
    pub procs: Vec<OwnedFd>,
    /// Controllers that were enabled since sexton left its own group.
    enabled: Vec<String>,
}

/// Whose group it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// The command's.
    Command,
    /// One above that a sexton has made, with this sexton's lock: who is last removes it.
    Parent,
    /// Sexton's own, below the one that it was in.
    Outside,
}

/// The name of this sexton's groups: no other process of this PID namespace has the same.
pub fn own_name() -> String {
    let pid = getpid().as_raw();
    let start = procfs::stat(pid).map_or(0, |stat| stat.start);
    format!("{PREFIX}{pid}-{start}")
}

/// Whether it may be one of [`own_name`].
fn is_own_name(name: &[u8]) -> bool {
    let Some(numbers) = name.strip_prefix(PREFIX.as_bytes()) else { return false };
    let mut parts = 0;
    for part in numbers.split(|byte| *byte == b'-') {
        parts += 1;
        if part.is_empty() || !part.iter().all(u8::is_ascii_digit) {
            return false;
        }
    }
    parts == 2
}

impl Group {
    /// Descriptors that are needed until the end.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.folders.iter().map(Folder::descriptor)
    }

    /// Makes the group of one hierarchy and writes its limits. A `fixed` name is the only one.
    pub fn make(&mut self, place: &Place, name: &str, fixed: bool) -> Result<(), SetupError> {
        let before = self.kinds.len();
        match self.try_make(place, name, fixed) {
            Err(_) if !place.needed => {
                self.remove_from(before);
                Ok(())
            }
            result => result,
        }
    }

    fn try_make(&mut self, place: &Place, name: &str, fixed: bool) -> Result<(), SetupError> {
        let hierarchy = &place.hierarchy;
        let is_cpuset = !hierarchy.unified && hierarchy.has("cpuset");
        let mut above = Folder::open(&hierarchy.top)?;
        // The way to sexton's own group, as long as this one is the same.
        let mut own = hierarchy.own.as_deref().map(parts);
        for part in parts(&place.below) {
            let is_own = own.as_mut().map(Iterator::next);
            self.enable(&above, place, is_own == Some(None))?;
            // Where sexton itself is nobody removes anything; beyond, another sexton may be about to.
            let hold = is_own != Some(Some(part));
            if hold {
                own = None;
            }
            let folder = above.enter(part, hold)?;
            let filled = if is_cpuset { fill_cpuset(&above, &folder) } else { Ok(()) };
            above = if hold && folder.is_ours() {
                let copy = folder.again();
                // Before a failure is told, so that it is removed.
                self.add(Kind::Parent, above, folder);
                copy?
            } else {
                folder
            };
            filled?;
        }
        self.enable(&above, place, own.map(|mut own| own.next()) == Some(None))?;
        let folder = make_and_lock(&above, name, fixed)?;
        self.add(Kind::Command, above, folder);
        let [.., above, folder] = &*self.folders else { return Ok(()) };
        if is_cpuset {
            fill_cpuset(above, folder)?;
        }
        for setting in &place.settings {
            apply(folder, setting)?;
        }
        if !place.needed {
            // To leave the group above one must be allowed to write there too.
            above.procs()?;
        }
        self.procs.push(folder.procs()?);
        Ok(())
    }

    fn add(&mut self, kind: Kind, above: Folder, folder: Folder) {
        self.kinds.push(kind);
        self.folders.push(above);
        self.folders.push(folder);
    }

    /// Enables the controllers of a place for the groups below; `is_own`: this is the group that sexton is in.
    fn enable(&mut self, folder: &Folder, place: &Place, is_own: bool) -> Result<(), SetupError> {
        for setting in place.settings.iter().filter(|_| place.hierarchy.unified) {
            let name = controller(&setting.file);
            // The files of the groups themselves need none.
            if name == "cgroup" {
                continue;
            }
            let mut enabled = v2::enable(folder, name)?;
            if enabled == Enabled::Busy
                && is_own
                && let Some(outside) = v2::evacuate(folder, &own_name())?
            {
                self.add(Kind::Outside, folder.again()?, outside);
                enabled = v2::enable(folder, name)?;
            }
            match enabled {
                Enabled::Busy => return Err(v2::refused(folder, name, Errno::EBUSY)),
                Enabled::Now if is_own => self.enabled.push(name.to_owned()),
                _ => {}
            }
        }
        Ok(())
    }

    /// Kills all in the groups and removes them.
    pub fn remove(&mut self) {
        self.remove_from(0);
    }

    fn remove_from(&mut self, first: usize) {
        let pairs = self.folders.chunks_exact(2).zip(&self.kinds).skip(first);
        for (pair, kind) in pairs {
            if let ([above, folder], Kind::Command) = (pair, kind)
                && let Err(errno) = remove(above, folder, REMOVE_LIMIT)
            {
                warn!("{}: {}: it stays", folder.call("rmdir", "", ""), errno_name(errno));
            }
        }
        while self.kinds.len() > first {
            let (Some(kind), Some(folder), Some(above)) = (self.kinds.pop(), self.folders.pop(), self.folders.pop())
            else {
                break;
            };
            match kind {
                Kind::Command => {}
                // Who else needs it holds it.
                Kind::Parent => {
                    if folder.lock() {
                        let _ = above.remove_folder(folder.name());
                    }
                }
                Kind::Outside => v2::come_back(&above, &folder, &self.enabled),
            }
        }
    }
}

/// The names on a way from group to group.
fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|part| !part.is_empty())
}

/// Makes a group below that is this sexton's alone.
fn make_and_lock(above: &Folder, name: &str, fixed: bool) -> Result<Folder, SetupError> {
    let (stem, first) = name.rsplit_once('-').unwrap_or((name, ""));
    let first: u64 = first.parse().unwrap_or(0);
    for number in (first..).take(NAMES) {
        let own = format!("{stem}-{number}");
        let name = if fixed { name } else { &own };
        match try_make_and_lock(above, name, fixed) {
            Ok(Some(folder)) => return Ok(folder),
            Ok(None) => {}
            Err(errno) => return Err(above.cannot_make(name, errno)),
        }
    }
    Err(above.cannot_make(name, Errno::EBUSY))
}

/// One try; `None`: another one may do.
fn try_make_and_lock(above: &Folder, name: &str, fixed: bool) -> Result<Option<Folder>, Errno> {
    match above.try_make(name.as_bytes(), OURS) {
        Ok(folder) if folder.lock() && folder.is_there() => Ok(Some(folder)),
        // Between the two, who sweeps may have taken it for a dead sexton's. Or it cannot be locked at all.
        Ok(_) => {
            let _ = above.remove_folder(name.as_bytes());
            Ok(None)
        }
        Err(Errno::ENOENT) if above.is_there() => Ok(None),
        Err(Errno::EEXIST) if !fixed => Ok(None),
        Err(Errno::EEXIST) => match above.at(name.as_bytes()) {
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

fn apply(folder: &Folder, setting: &Setting) -> Result<(), SetupError> {
    let (mut file, mut value) = (setting.file.clone(), setting.value.clone());
    let mut result = folder.try_write(&file, &value);
    // BFQ is a module; version 1 had CFQ until Linux 5.0, and version 2 has iocost, with 1 to 10000 for 10 to 1000.
    if let (Err(Errno::ENOENT), Some(scheduler)) = (result, file.strip_suffix("bfq.weight")) {
        if let (Ok(weight), "io.") = (value.parse::<i64>(), scheduler) {
            value = (1 + (weight - 10) * 9999 / 990).to_string();
        }
        file = format!("{scheduler}weight");
        result = folder.try_write(&file, &value);
    }
    let Err(errno) = result else { return Ok(()) };
    if errno == Errno::ENOENT && setting.implied {
        return Ok(());
    }
    let why = match errno {
        Errno::ENOENT if setting.option == "--memory-swap" => {
            "has no such file in this kernel, which must count swap (boot with swapaccount=1)"
        }
        Errno::ENOENT => "has no such file in this kernel",
        Errno::EINVAL | Errno::ERANGE => "takes no such value",
        Errno::ENODEV => "limits no such device; name a whole disk, no partition",
        Errno::EACCES if file.starts_with("cpuset.") => "gives no more than the group above has",
        Errno::EACCES | Errno::EPERM => "does not let this user write; run as root",
        Errno::EBUSY => "is in use so that this cannot be changed",
        Errno::EROFS => READ_ONLY,
        Errno::EOPNOTSUPP => "does not support this here",
        _ => "refused",
    };
    let advice = format!("the {} controller {why}; change or leave out {}", controller(&file), setting.option);
    Err(SetupError::call(folder.call("write", &file, &value), errno, advice))
}

/// Removes the groups of dead sextons below this one, as far as possible.
pub fn sweep(parent: &str) {
    let Ok(above) = Folder::open(parent) else { return };
    above.each_name(&mut |name| {
        if let Some(stem) = name.strip_suffix(v2::OUTSIDE.as_bytes())
            && is_own_name(stem)
        {
            // Where a sexton that is dead had moved itself; only an empty one can be removed.
            let _ = above.remove_folder(name);
        } else if is_own_name(name)
            && let Ok(folder) = above.at(name)
            && folder.is_ours()
            && folder.lock()
        {
            let _ = remove(&above, &folder, SWEEP_LIMIT);
        }
    });
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
    folder.each_below(&mut |name, below| {
        remove_below(&below);
        let _ = folder.remove_folder(name);
    });
}

/// KILL to all in a group and below it: at once (`cgroup.kill`, Linux 5.14), or one by one while they are frozen, so that
/// none is made meanwhile and no process id changes its meaning; where there is no freezer, one by one.
fn kill_all(folder: &Folder) {
    if folder.try_write("cgroup.kill", "1").is_ok() {
        return;
    }
    for (file, freeze, thaw, state, frozen) in FREEZERS {
        if folder.try_write(file, freeze).is_ok() {
            for _ in 0..FREEZE_TRIES {
                if folder.try_read(state).is_ok_and(|text| text.lines().any(|line| line == frozen)) {
                    break;
                }
                sleep(PAUSE);
            }
            kill_each(folder);
            // Whatever happened: who is frozen does not die of KILL in version 1.
            let _ = folder.try_write(file, thaw);
            return;
        }
    }
    kill_each(folder);
}

/// Version 2's since Linux 5.2, and version 1's: a file, what freezes, what thaws, and where a line says that all are frozen.
const FREEZERS: [(&str, &str, &str, &str, &str); 2] = [
    ("cgroup.freeze", "1", "0", "cgroup.events", "frozen 1"),
    ("freezer.state", "FROZEN", "THAWED", "freezer.state", "FROZEN"),
];

fn kill_each(folder: &Folder) {
    folder.each_pid(&mut |pid| {
        if pid > 0 {
            let _ = kill(pid, Some(Signal::KILL));
        }
    });
    folder.each_below(&mut |_, below| {
        kill_each(&below);
        for (file, _, thaw, ..) in FREEZERS {
            let _ = below.try_write(file, thaw);
        }
    });
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
