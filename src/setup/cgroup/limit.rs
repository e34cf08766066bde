//! Limits: the table of their options and files, and what is written.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use super::v2::weight_of;
use crate::setup::step::SetupError;

/// No limit: `-1`.
pub const UNLIMITED: i64 = -1;

/// What can be limited, in the order in which it is written: a new group has no limits, so memory comes before memory and
/// swap, which cannot be less; and what was asked for by the file's name comes last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// Bytes, or [`UNLIMITED`].
    Memory,
    /// Bytes of memory and swap together, or [`UNLIMITED`].
    MemorySwap,
    /// Bytes.
    MemoryReservation,
    /// 0 to 100.
    MemorySwappiness,
    /// 1.
    OomKillDisable,
    /// Thousandths of a CPU.
    Cpus,
    /// 2 to 262144.
    CpuShares,
    /// A list.
    CpusetCpus,
    /// A list.
    CpusetMems,
    /// Processes and threads, or [`UNLIMITED`].
    Pids,
    /// 10 to 1000.
    BlkioWeight,
    /// Bytes a second, of the disk that the text names.
    ReadBytes,
    /// The same, written.
    WriteBytes,
    /// Reads a second.
    ReadOperations,
    /// Writes a second.
    WriteOperations,
    /// `FILE=VALUE`.
    Conf,
}

/// Of each: the option, and the file in version 1 and in version 2.
const TABLE: [(What, &str, &str, &str); 16] = [
    (What::Memory, "--memory", "memory.limit_in_bytes", "memory.max"),
    (What::MemorySwap, "--memory-swap", "memory.memsw.limit_in_bytes", "memory.swap.max"),
    (What::MemoryReservation, "--memory-reservation", "memory.soft_limit_in_bytes", "memory.low"),
    (What::MemorySwappiness, "--memory-swappiness", "memory.swappiness", ""),
    (What::OomKillDisable, "--oom-kill-disable", "memory.oom_control", ""),
    (What::Cpus, "--cpus", "cpu.cfs_quota_us", "cpu.max"),
    (What::CpuShares, "--cpu-shares", "cpu.shares", "cpu.weight"),
    (What::CpusetCpus, "--cpuset-cpus", "cpuset.cpus", "cpuset.cpus"),
    (What::CpusetMems, "--cpuset-mems", "cpuset.mems", "cpuset.mems"),
    (What::Pids, "--pids-limit", "pids.max", "pids.max"),
    (What::BlkioWeight, "--blkio-weight", "blkio.bfq.weight", "io.bfq.weight"),
    (What::ReadBytes, "--device-read-bps", "blkio.throttle.read_bps_device", "io.max"),
    (What::WriteBytes, "--device-write-bps", "blkio.throttle.write_bps_device", "io.max"),
    (What::ReadOperations, "--device-read-iops", "blkio.throttle.read_iops_device", "io.max"),
    (What::WriteOperations, "--device-write-iops", "blkio.throttle.write_iops_device", "io.max"),
    (What::Conf, "--cgroup-conf", "", ""),
];

impl What {
    /// All, in their order.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|(what, ..)| *what)
    }

    /// Whether it may be asked for more than once.
    pub fn is_repeatable(self) -> bool {
        matches!(self, Self::ReadBytes | Self::WriteBytes | Self::ReadOperations | Self::WriteOperations | Self::Conf)
    }
}

/// A limit that was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asked {
    /// Of what.
    pub what: What,
    /// How much.
    pub number: i64,
    /// A list, a disk, or a file and its value.
    pub text: String,
}

/// One file of the group, and what is written to it.
#[derive(PartialEq, Eq, Debug)]
pub struct Setting {
    /// The option that wants it.
    pub option: &'static str,
    /// The file.
    pub file: String,
    /// The text.
    pub value: String,
    /// It follows from another option: where the file is not there, nothing that was asked for is missing.
    pub implied: bool,
}

/// The controller that a file belongs to.
pub fn controller(file: &str) -> &str {
    file.split_once('.').unwrap_or((file, "")).0
}

impl Asked {
    /// The option, and the file in version 1 or in version 2; empty: it has none.
    pub fn file(&self, unified: bool) -> (&'static str, &str) {
        let (_, option, v1, v2) = TABLE.get(self.what as usize).copied().unwrap_or((self.what, "", "", ""));
        let file = match self.what {
            What::Conf => self.text.split_once('=').unwrap_or_default().0,
            _ if unified => v2,
            _ => v1,
        };
        (option, file)
    }

    /// What is written; `memory` is that of `--memory`.
    pub fn value(&self, unified: bool, memory: Option<i64>) -> Result<String, SetupError> {
        let key = match self.what {
            What::Conf => return Ok(self.text.split_once('=').unwrap_or_default().1.to_owned()),
            What::CpusetCpus | What::CpusetMems => return Ok(self.text.clone()),
            What::ReadBytes => "rbps=",
            What::WriteBytes => "wbps=",
            What::ReadOperations => "riops=",
            What::WriteOperations => "wiops=",
            _ => "",
        };
        let mut number = self.number;
        if number == UNLIMITED && (unified || self.what == What::Pids) {
            return Ok("max".to_owned());
        }
        match self.what {
            // Microseconds in the period, which is 100 ms if nobody changes it.
            What::Cpus => number *= 100,
            What::CpuShares if unified => number = weight_of(number),
            // In version 2 swap has a limit of its own.
            What::MemorySwap if unified => number -= memory.unwrap_or(0),
            _ => {}
        }
        if key.is_empty() {
            return Ok(number.to_string());
        }
        let disk = disk(&self.text)?;
        let key = if unified { key } else { "" };
        Ok(format!("{}:{} {key}{number}", libc::major(disk), libc::minor(disk)))
    }
}

/// A disk's number.
fn disk(path: &str) -> Result<u64, SetupError> {
    let found = fs::metadata(path).map_err(|error| {
        SetupError::io(format!("stat({path:?})"), &error, "name a disk that is there, such as /dev/sda")
    })?;
    if !found.file_type().is_block_device() {
        return Err(SetupError::found(format!("{path:?}"), "no block device; name a disk, such as /dev/sda"));
    }
    Ok(found.rdev())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(what: What, number: i64, unified: bool) -> String {
        let asked = Asked { what, number, text: String::new() };
        format!("{}={}", asked.file(unified).1, asked.value(unified, Some(100)).unwrap())
    }

    #[test]
    fn g1_each_row_is_in_its_place() {
        for (number, what) in What::all().enumerate() {
            assert_eq!(what as usize, number);
        }
        let place = |what| What::all().position(|other| other == what);
        assert!(place(What::Memory) < place(What::MemorySwap), "the lower limit first, in version 1");
    }

    #[test]
    fn g1_swap_is_counted_with_memory_or_without() {
        assert_eq!(written(What::MemorySwap, 150, false), "memory.memsw.limit_in_bytes=150");
        assert_eq!(written(What::MemorySwap, 150, true), "memory.swap.max=50");
        assert_eq!(written(What::MemorySwap, 100, true), "memory.swap.max=0");
        assert_eq!(written(What::MemorySwap, UNLIMITED, false), "memory.memsw.limit_in_bytes=-1");
        assert_eq!(written(What::MemorySwap, UNLIMITED, true), "memory.swap.max=max");
    }

    #[test]
    fn g1_numbers_are_written_as_each_version_has_them() {
        assert_eq!(written(What::Memory, UNLIMITED, false), "memory.limit_in_bytes=-1");
        assert_eq!(written(What::Pids, UNLIMITED, false), "pids.max=max");
        assert_eq!(written(What::Pids, 5, true), "pids.max=5");
        assert_eq!(written(What::Cpus, 1500, false), "cpu.cfs_quota_us=150000");
        assert_eq!(written(What::Cpus, 10, true), "cpu.max=1000");
        assert_eq!(written(What::CpuShares, 512, false), "cpu.shares=512");
        assert_eq!(written(What::CpuShares, 1024, true), "cpu.weight=100");
    }
}
