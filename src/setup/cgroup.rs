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
pub mod place;
pub mod v1;
pub mod v2;

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

pub use group::Group;

use super::step::{SetupError, State, Step, Steps};
use crate::sys::action::Action;
use place::{Place, places};

/// No limit: `-1`.
pub const UNLIMITED: i64 = -1;

/// What is wanted.
#[derive(Default, Debug)]
pub struct Wanted {
    /// `--memory`: bytes, or [`UNLIMITED`].
    pub memory: Option<i64>,
    /// `--memory-swap`: bytes of memory and swap together, or [`UNLIMITED`].
    pub memory_swap: Option<i64>,
    /// `--memory-reservation`: bytes.
    pub memory_reservation: Option<i64>,
    /// `--memory-swappiness`: 0 to 100.
    pub memory_swappiness: Option<i64>,
    /// `--oom-kill-disable`.
    pub oom_kill_disable: bool,
    /// `--cpus`: thousandths of a CPU.
    pub cpus: Option<i64>,
    /// `--cpu-shares`: 2 to 262144.
    pub cpu_shares: Option<i64>,
    /// `--cpuset-cpus`: numbers and ranges.
    pub cpuset_cpus: Option<String>,
    /// `--cpuset-mems`: numbers and ranges.
    pub cpuset_mems: Option<String>,
    /// `--pids-limit`: processes and threads, or [`UNLIMITED`].
    pub pids: Option<i64>,
    /// `--blkio-weight`: 10 to 1000.
    pub blkio_weight: Option<i64>,
    /// `--device-read-bps` and its like.
    pub devices: Vec<Device>,
    /// `--cgroup-conf`: files of the group, and what is written to them.
    pub conf: Vec<(String, String)>,
    /// `--cgroup-parent`.
    pub parent: Option<PathBuf>,
    /// `--cgroup-name`.
    pub name: Option<String>,
}

/// A limit on the traffic of one disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Device {
    /// The disk's device file.
    pub path: String,
    /// What is limited.
    pub rate: Rate,
    /// How much a second.
    pub limit: i64,
}

/// What is limited of a disk's traffic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rate {
    /// Bytes read.
    ReadBytes,
    /// Bytes written.
    WriteBytes,
    /// Reads.
    ReadOperations,
    /// Writes.
    WriteOperations,
}

impl Rate {
    /// Whether bytes are counted.
    pub fn is_bytes(self) -> bool {
        matches!(self, Self::ReadBytes | Self::WriteBytes)
    }

    fn option(self) -> &'static str {
        match self {
            Self::ReadBytes => "--device-read-bps",
            Self::WriteBytes => "--device-write-bps",
            Self::ReadOperations => "--device-read-iops",
            Self::WriteOperations => "--device-write-iops",
        }
    }
}

/// The controllers that the options are about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Controller {
    /// Memory and swap.
    Memory,
    /// CPU time.
    Cpu,
    /// CPUs and memory nodes.
    Cpuset,
    /// Processes and threads.
    Pids,
    /// Disks.
    Io,
}

impl Controller {
    const ALL: [Self; 5] = [Self::Memory, Self::Cpu, Self::Cpuset, Self::Pids, Self::Io];

    /// Its name, in version 2 or in version 1.
    pub fn name(self, unified: bool) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Cpuset => "cpuset",
            Self::Pids => "pids",
            Self::Io if unified => "io",
            Self::Io => "blkio",
        }
    }
}

/// One file of the group, and what is written to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Setting<'a> {
    /// The option that wants it.
    pub option: &'static str,
    /// The file.
    pub file: Cow<'a, str>,
    /// The text.
    pub value: Cow<'a, str>,
    /// Another file and text, where the first is not there.
    pub or: Option<(&'static str, String)>,
    /// It follows from another option: where the file is not there, nothing that was asked for is missing.
    pub implied: bool,
}

impl<'a> Setting<'a> {
    /// A setting that was asked for.
    pub fn new(option: &'static str, file: &'static str, value: impl Into<Cow<'a, str>>) -> Self {
        Self { option, file: file.into(), value: value.into(), or: None, implied: false }
    }
}

impl Wanted {
    /// What goes together and what does not.
    pub fn check(&self) -> Result<(), String> {
        let memory = self.memory.filter(|memory| *memory != UNLIMITED);
        if let Some(swap) = self.memory_swap.filter(|swap| *swap != UNLIMITED) {
            match memory {
                None => return Err("--memory-swap limits memory and swap together; it needs --memory".into()),
                Some(memory) if memory > swap => {
                    return Err("--memory-swap is memory and swap together; it cannot be less than --memory".into());
                }
                Some(_) => {}
            }
        }
        if self.memory_reservation.zip(memory).is_some_and(|(reserved, memory)| reserved > memory) {
            return Err("--memory-reservation cannot be more than --memory".into());
        }
        Ok(())
    }

    /// Whether a group is needed.
    fn any(&self) -> bool {
        self.name.is_some()
            || self.parent.is_some()
            || !self.conf.is_empty()
            || Controller::ALL.into_iter().any(|controller| self.needs(controller))
    }

    /// Whether an option is about this controller.
    fn needs(&self, controller: Controller) -> bool {
        match controller {
            Controller::Memory => {
                self.oom_kill_disable
                    || [self.memory, self.memory_swap, self.memory_reservation, self.memory_swappiness]
                        .iter()
                        .any(Option::is_some)
            }
            Controller::Cpu => self.cpus.is_some() || self.cpu_shares.is_some(),
            Controller::Cpuset => self.cpuset_cpus.is_some() || self.cpuset_mems.is_some(),
            Controller::Pids => self.pids.is_some(),
            Controller::Io => self.blkio_weight.is_some() || !self.devices.is_empty(),
        }
    }

    /// Memory and swap together: as asked for, or docker's default of twice the memory.
    fn memory_and_swap(&self) -> Option<i64> {
        let twice = || self.memory.map(|memory| if memory == UNLIMITED { memory } else { memory.saturating_mul(2) });
        self.memory_swap.or_else(twice)
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
        group::sweep(&place::parents(self.0)?);
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
        let places = places(self.0)?;
        let name = self.0.name.clone().unwrap_or_else(group::own_name);
        let group = state.group.get_or_insert_default();
        places.iter().try_for_each(|place| group.make(place, &name, self.0.name.is_some()))
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
        let name = self.0.name.clone().unwrap_or_else(group::own_name);
        places.iter().try_for_each(|place| explain(f, place, &name))
    }
}

fn explain(f: &mut fmt::Formatter<'_>, place: &Place<'_>, name: &str) -> fmt::Result {
    let version = if place.hierarchy.unified { "v2" } else { "v1" };
    write!(f, "\n      {} ({version}", place.path().join(name).display())?;
    if !place.needed {
        f.write_str("; holds it together at the end")?;
    }
    f.write_str(")")?;
    for setting in &place.settings {
        write!(f, "\n        {} = {}", setting.file, setting.value)?;
    }
    Ok(())
}

/// The command's process joins, by itself.
struct Join;

impl Step for Join {
    fn run(&self, state: &mut State) -> Result<(), SetupError> {
        let joined = state.group.iter_mut().flat_map(Group::take_procs).map(Action::JoinCgroup);
        state.actions.extend(joined);
        Ok(())
    }
}

impl fmt::Display for Join {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the command joins the cgroup")
    }
}
