//! Cgroups: limits on what the command and all below it use (cgroups(7)).
//!
//! A group is made below sexton's own (or `--cgroup-parent`) in each hierarchy that a limit needs; the limits are written
//! before anyone is in it; the command's process enters it by itself before its exec, so that nothing of the command is
//! ever outside. Sexton is never in it. At the end all in it is killed and the group removed. A limit that this system
//! cannot hold is an error, never a warning.
//!
//! | option | unit | version 1 | version 2 |
//! |---|---|---|---|
//! | `--memory` | bytes | `memory.limit_in_bytes` | `memory.max` |
//! | `--memory-swap` | bytes, with memory | `memory.memsw.limit_in_bytes` | `memory.swap.max`, without memory |
//! | `--memory-reservation` | bytes | `memory.soft_limit_in_bytes` | `memory.low` |
//! | `--memory-swappiness` | 0 to 100 | `memory.swappiness` | none: an error |
//! | `--oom-kill-disable` | | `memory.oom_control` | none: an error |
//! | `--cpus` | CPUs, to a thousandth | `cpu.cfs_quota_us`, µs in each 100 ms | `cpu.max` |
//! | `--cpu-shares` | 2 to 262144 | `cpu.shares` | `cpu.weight`, 1 to 10000 |
//! | `--cpuset-cpus`, `--cpuset-mems` | lists | `cpuset.cpus`, `cpuset.mems` | the same |
//! | `--pids-limit` | processes and threads | `pids.max` | the same |
//! | `--blkio-weight` | 10 to 1000 | `blkio.bfq.weight` or `blkio.weight` | `io.bfq.weight` or `io.weight` |
//! | `--device-read-bps`, … | bytes, operations a second | `blkio.throttle.*_device` | `io.max` |
#![forbid(unsafe_code)]

pub mod folder;
pub mod group;
pub mod limit;
pub mod place;
pub mod v1;
pub mod v2;

use std::fmt;

pub use group::Group;
pub use limit::{UNLIMITED, What};

use super::step::{SetupError, State, Step, Steps};
use crate::sys::action::Action;
use limit::Asked;
use place::places;

/// What is wanted.
#[derive(Default, Debug)]
pub struct Wanted {
    /// Limits.
    asked: Vec<Asked>,
    /// `--cgroup-parent`.
    pub parent: Option<String>,
    /// `--cgroup-name`.
    pub name: Option<String>,
}

impl Wanted {
    /// Adds a limit. One that is not [`What::is_repeatable`] takes the place of an earlier one.
    pub fn ask(&mut self, what: What, number: i64, text: &str) {
        if !what.is_repeatable() {
            self.asked.retain(|asked| asked.what != what);
        }
        self.asked.push(Asked { what, number, text: text.to_owned() });
    }

    /// The number that was asked for.
    fn number(&self, what: What) -> Option<i64> {
        self.asked.iter().find(|asked| asked.what == what).map(|asked| asked.number)
    }

    /// What goes together and what does not.
    pub fn check(&self) -> Result<(), String> {
        let memory = self.number(What::Memory).filter(|memory| *memory != UNLIMITED);
        if let Some(swap) = self.number(What::MemorySwap).filter(|swap| *swap != UNLIMITED) {
            if memory.is_none() {
                return Err("--memory-swap limits memory and swap together; it needs --memory".into());
            }
            if memory > Some(swap) {
                return Err("--memory-swap is memory and swap together; it cannot be less than --memory".into());
            }
        }
        if memory.is_some() && self.number(What::MemoryReservation) > memory {
            return Err("--memory-reservation cannot be more than --memory".into());
        }
        Ok(())
    }

    /// Whether a group is needed.
    fn any(&self) -> bool {
        self.name.is_some() || self.parent.is_some() || !self.asked.is_empty()
    }

    /// The group's name.
    fn name(&self) -> String {
        self.name.clone().unwrap_or_else(group::own_name)
    }

    /// Before anything is new: the groups are made, and their limits written.
    pub fn outside(&self) -> Steps<'_> {
        if !self.any() {
            return Vec::new();
        }
        vec![Box::new(Sweep(self)), Box::new(Make(self))]
    }

    /// The command joins.
    pub fn command(&self) -> Steps<'_> {
        if self.any() { vec![Box::new(Join)] } else { Vec::new() }
    }
}

/// Removes the groups of sextons that were killed, and kills what is left in them.
struct Sweep<'a>(&'a Wanted);

impl Step for Sweep<'_> {
    fn run(&self, _: &mut State) -> Result<(), SetupError> {
        // Those of other limits are in other hierarchies.
        for hierarchy in place::hierarchies()? {
            if let Some(below) = place::below(self.0, &hierarchy) {
                group::sweep(&format!("{}{below}", hierarchy.top));
            }
        }
        Ok(())
    }
}

impl fmt::Display for Sweep<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("kill what is left in the cgroups of sextons that are dead, and remove them")
    }
}

/// Makes the groups and writes their limits.
struct Make<'a>(&'a Wanted);

impl Step for Make<'_> {
    fn run(&self, state: &mut State) -> Result<(), SetupError> {
        let name = self.0.name();
        let group = state.group.get_or_insert_default();
        for place in &places(self.0)? {
            group.make(place, &name, self.0.name.is_some())?;
        }
        Ok(())
    }

    fn undo(&self, state: &mut State) {
        if let Some(mut group) = state.group.take() {
            group.remove();
        }
    }
}

impl fmt::Display for Make<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("make the cgroup")?;
        let places = match places(self.0) {
            Ok(places) => places,
            Err(why) => return write!(f, ": cannot: {why}"),
        };
        let name = self.0.name();
        for place in &places {
            let version = if place.hierarchy.unified { "v2" } else { "v1" };
            let why = if place.needed { "" } else { "; to end it in one go" };
            write!(f, "\n      {}{}/{name} ({version}{why})", place.hierarchy.top, place.below)?;
            for setting in &place.settings {
                write!(f, "\n        {} = {}", setting.file, setting.value)?;
            }
        }
        Ok(())
    }
}

/// The command's process joins, by itself.
struct Join;

impl Step for Join {
    fn run(&self, state: &mut State) -> Result<(), SetupError> {
        if let Some(group) = &mut state.group {
            state.actions.extend(group.procs.drain(..).map(Action::JoinCgroup));
        }
        Ok(())
    }
}

impl fmt::Display for Join {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the command joins the cgroup")
    }
}
