//! Limits in version 1's files (Documentation/admin-guide/cgroup-v1 of the kernel).
#![forbid(unsafe_code)]

use super::folder::Folder;
use super::place::disk;
use super::{Controller, Rate, Setting, UNLIMITED, Wanted};
use crate::setup::step::SetupError;

/// The quota's period, in microseconds: docker's.
pub const PERIOD: i64 = 100_000;

/// What is written for one controller, in this order.
pub fn settings(wanted: &Wanted, controller: Controller) -> Result<Vec<Setting<'_>>, SetupError> {
    let mut list = Vec::new();
    let mut add = |option, file, value: Option<i64>| {
        list.extend(value.map(|value| Setting::new(option, file, value.to_string())));
    };
    match controller {
        Controller::Memory => {
            // A new group has no limits: going down, memory must come before memory and swap, which cannot be less.
            add("--memory", "memory.limit_in_bytes", wanted.memory);
            add("--memory-swap", "memory.memsw.limit_in_bytes", wanted.memory_and_swap());
            add("--memory-reservation", "memory.soft_limit_in_bytes", wanted.memory_reservation);
            add("--memory-swappiness", "memory.swappiness", wanted.memory_swappiness);
            add("--oom-kill-disable", "memory.oom_control", wanted.oom_kill_disable.then_some(1));
            for setting in list.iter_mut().filter(|setting| setting.option == "--memory-swap") {
                setting.implied = wanted.memory_swap.is_none();
            }
        }
        Controller::Cpu => {
            add("--cpus", "cpu.cfs_period_us", wanted.cpus.map(|_| PERIOD));
            add("--cpus", "cpu.cfs_quota_us", wanted.cpus.map(|cpus| cpus * (PERIOD / 1000)));
            add("--cpu-shares", "cpu.shares", wanted.cpu_shares);
        }
        Controller::Cpuset => {
            let texts = [
                ("--cpuset-cpus", "cpuset.cpus", &wanted.cpuset_cpus),
                ("--cpuset-mems", "cpuset.mems", &wanted.cpuset_mems),
            ];
            for (option, file, text) in texts {
                list.extend(text.as_deref().map(|text| Setting::new(option, file, text)));
            }
        }
        Controller::Pids => {
            list.extend(wanted.pids.map(|pids| Setting::new("--pids-limit", "pids.max", max_or(pids))));
        }
        Controller::Io => {
            // CFQ's file went with CFQ in Linux 5.0; BFQ's came in 4.12.
            list.extend(wanted.blkio_weight.map(|weight| Setting {
                or: Some(("blkio.weight", weight.to_string())),
                ..Setting::new("--blkio-weight", "blkio.bfq.weight", weight.to_string())
            }));
            for device in &wanted.devices {
                let file = match device.rate {
                    Rate::ReadBytes => "blkio.throttle.read_bps_device",
                    Rate::WriteBytes => "blkio.throttle.write_bps_device",
                    Rate::ReadOperations => "blkio.throttle.read_iops_device",
                    Rate::WriteOperations => "blkio.throttle.write_iops_device",
                };
                list.push(Setting::new(device.rate.option(), file, format!("{} {}", disk(device)?, device.limit)));
            }
        }
    }
    Ok(list)
}

/// A number, or what stands for no limit where -1 does not.
pub fn max_or(number: i64) -> String {
    if number == UNLIMITED { "max".into() } else { number.to_string() }
}

/// A new cpuset has neither CPUs nor memory nodes, and nobody can join it: it gets those of the group above.
pub fn fill_cpuset(above: &Folder, folder: &Folder) -> Result<(), SetupError> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if folder.read(file)?.trim().is_empty() {
            folder.write(file, above.read(file)?.trim(), "the cpuset controller would not have what its parent has")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(wanted: &Wanted, controller: Controller) -> Vec<String> {
        let settings = settings(wanted, controller).unwrap();
        settings.iter().map(|setting| format!("{}={}", setting.file, setting.value)).collect()
    }

    #[test]
    fn g1_memory_comes_before_memory_and_swap() {
        let mut wanted = Wanted { memory: Some(1 << 20), ..Wanted::default() };
        let files = ["memory.limit_in_bytes=1048576", "memory.memsw.limit_in_bytes=2097152"];
        assert_eq!(written(&wanted, Controller::Memory), files);
        assert!(settings(&wanted, Controller::Memory).unwrap()[1].implied);
        wanted.memory_swap = Some(UNLIMITED);
        assert_eq!(written(&wanted, Controller::Memory)[1], "memory.memsw.limit_in_bytes=-1");
        assert!(!settings(&wanted, Controller::Memory).unwrap()[1].implied);
    }

    #[test]
    fn g1_cpus_are_a_quota_of_a_tenth_of_a_second() {
        let wanted = Wanted { cpus: Some(1500), cpu_shares: Some(512), ..Wanted::default() };
        let files = ["cpu.cfs_period_us=100000", "cpu.cfs_quota_us=150000", "cpu.shares=512"];
        assert_eq!(written(&wanted, Controller::Cpu), files);
    }

    #[test]
    fn g1_no_limit_of_processes_is_max() {
        assert_eq!(written(&Wanted { pids: Some(UNLIMITED), ..Wanted::default() }, Controller::Pids), ["pids.max=max"]);
        assert_eq!(written(&Wanted { pids: Some(5), ..Wanted::default() }, Controller::Pids), ["pids.max=5"]);
    }
}
