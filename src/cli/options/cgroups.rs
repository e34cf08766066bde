//! The options of cgroups. Their names, units and meanings are docker's.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use super::{Options, row, text};
use crate::cli::{Invalid, Row};
use crate::setup::cgroup::{Device, Rate, UNLIMITED};

const CGROUPS: &str = "Cgroups (sizes: 64M, 1g, or bytes; -1: unlimited)";

/// Its rows, in the order of the help.
pub const ROWS: &[Row] = &[
    row("memory", None, "SIZE", CGROUPS, "the most memory", |o, value| {
        o.setup.cgroup.memory = Some(size_or_unlimited(value)?);
        Ok(())
    }),
    row("memory-swap", None, "SIZE", CGROUPS, "the most memory and swap together (twice --memory)", |o, value| {
        o.setup.cgroup.memory_swap = Some(size_or_unlimited(value)?);
        Ok(())
    }),
    row("memory-reservation", None, "SIZE", CGROUPS, "memory left to it when the machine runs short", |o, value| {
        o.setup.cgroup.memory_reservation = Some(size(value)?);
        Ok(())
    }),
    row("memory-swappiness", None, "0..100", CGROUPS, "how readily its memory is swapped (v1)", |o, value| {
        o.setup.cgroup.memory_swappiness = Some(number(value, 0, 100)?);
        Ok(())
    }),
    row("oom-kill-disable", None, "", CGROUPS, "out of memory it waits instead of being killed (v1)", |o, _| {
        o.setup.cgroup.oom_kill_disable = true;
        Ok(())
    }),
    row("cpus", None, "NUMBER", CGROUPS, "the most CPU time: 1.5 is one and a half CPUs", |o, value| {
        o.setup.cgroup.cpus = Some(thousandths(value)?);
        Ok(())
    }),
    row("cpu-shares", None, "2..262144", CGROUPS, "its weight when CPUs are short (1024)", |o, value| {
        o.setup.cgroup.cpu_shares = Some(number(value, 2, 262_144)?);
        Ok(())
    }),
    row("cpuset-cpus", None, "LIST", CGROUPS, "the CPUs it may run on: 0-2,5", |o, value| {
        o.setup.cgroup.cpuset_cpus = Some(list(value)?);
        Ok(())
    }),
    row("cpuset-mems", None, "LIST", CGROUPS, "the memory nodes it may use", |o, value| {
        o.setup.cgroup.cpuset_mems = Some(list(value)?);
        Ok(())
    }),
    row("pids-limit", None, "COUNT", CGROUPS, "the most processes and threads", |o, value| {
        o.setup.cgroup.pids = Some(if value == "-1" { UNLIMITED } else { number(value, 1, 1 << 31)? });
        Ok(())
    }),
    row("blkio-weight", None, "10..1000", CGROUPS, "its weight at disks whose scheduler heeds it", |o, value| {
        o.setup.cgroup.blkio_weight = Some(number(value, 10, 1000)?);
        Ok(())
    }),
    row(
        "device-read-bps",
        None,
        "PATH:SIZE",
        CGROUPS,
        "the most bytes a second from a disk (repeatable)",
        |o, value| device(o, Rate::ReadBytes, value),
    ),
    row("device-write-bps", None, "PATH:SIZE", CGROUPS, "the same to a disk", |o, value| {
        device(o, Rate::WriteBytes, value)
    }),
    row("device-read-iops", None, "PATH:COUNT", CGROUPS, "the most reads a second (repeatable)", |o, value| {
        device(o, Rate::ReadOperations, value)
    }),
    row("device-write-iops", None, "PATH:COUNT", CGROUPS, "the most writes a second (repeatable)", |o, value| {
        device(o, Rate::WriteOperations, value)
    }),
    row("cgroup-conf", None, "FILE=VALUE", CGROUPS, "any other file of its cgroup: memory.high=32M (repeatable)", conf),
    row(
        "cgroup-parent",
        None,
        "PATH",
        CGROUPS,
        "the group to be below: /PATH from the top of what is\nmounted, PATH from sexton's own group (the default)",
        parent,
    ),
    row("cgroup-name", None, "NAME", CGROUPS, "its name (sexton-PID-START)", |o, value| {
        o.setup.cgroup.name = Some(name(text(value)?)?.to_owned());
        Ok(())
    }),
];

/// Bytes: a whole number, and a unit of 1024, 1024², … bytes.
fn size(value: &OsStr) -> Result<i64, Invalid> {
    let wrong = || "write a size: a whole number with b, k, m, g or t, such as 64M".to_owned();
    let text = text(value)?;
    let (digits, shift) = match text.as_bytes().last().map(u8::to_ascii_lowercase) {
        Some(b'b') => (1, 0),
        Some(b'k') => (1, 10),
        Some(b'm') => (1, 20),
        Some(b'g') => (1, 30),
        Some(b't') => (1, 40),
        _ => (0, 0),
    };
    let number = whole(text.get(..text.len() - digits).unwrap_or_default()).filter(|number| *number > 0);
    number.and_then(|number| number.checked_mul(1 << shift)).ok_or_else(wrong)
}

fn size_or_unlimited(value: &OsStr) -> Result<i64, Invalid> {
    if value == "-1" { Ok(UNLIMITED) } else { size(value) }
}

/// Digits only: no sign, no blank.
fn whole(text: &str) -> Option<i64> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

fn number(value: &OsStr, least: i64, most: i64) -> Result<i64, Invalid> {
    let number = whole(text(value)?).filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("not a whole number from {least} to {most}"))
}

/// `1.5` is 1500.
fn thousandths(value: &OsStr) -> Result<i64, Invalid> {
    let text = text(value)?;
    let (units, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let units = if units.is_empty() { Some(0) } else { whole(units) };
    let scale = [100, 10, 1].get(decimals.len().wrapping_sub(1)).copied();
    let parts = units.zip(whole(decimals).zip(scale)).filter(|(units, _)| *units <= 1 << 20);
    let number = parts.map(|(units, (decimals, scale))| units * 1000 + decimals * scale);
    // The kernel's least quota is a thousandth of a second (CFS_QUOTA min 1 ms); the period is a tenth.
    number
        .filter(|number| *number >= 10)
        .ok_or_else(|| "write CPUs as 0.01 or more, at most three decimals: 1.5".into())
}

/// Numbers and ranges, as cpuset(7) has them.
fn list(value: &OsStr) -> Result<String, Invalid> {
    let list = text(value)?;
    let is_range = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        whole(from).zip(whole(to)).is_some_and(|(from, to)| from <= to)
    };
    if list.split(',').all(is_range) {
        Ok(list.to_owned())
    } else {
        Err("write numbers and ranges, such as 0-2,5".into())
    }
}

fn device(options: &mut Options, rate: Rate, value: &OsStr) -> Result<(), Invalid> {
    let wrong = || "write PATH:RATE, such as /dev/sda:10M".to_owned();
    let (path, limit) = text(value)?.rsplit_once(':').ok_or_else(wrong)?;
    if !path.starts_with('/') {
        return Err(wrong());
    }
    let limit = OsStr::new(limit);
    let limit = if rate.is_bytes() { size(limit)? } else { number(limit, 1, i64::MAX)? };
    options.setup.cgroup.devices.push(Device { path: path.to_owned(), rate, limit });
    Ok(())
}

/// `--cgroup-conf FILE=VALUE`: the file is named after its controller.
fn conf(options: &mut Options, value: &OsStr) -> Result<(), Invalid> {
    let (file, value) = text(value)?.split_once('=').ok_or("write FILE=VALUE, such as memory.high=32M")?;
    let (controller, rest) = name(file)?.split_once('.').unwrap_or_default();
    if controller.is_empty() || rest.is_empty() {
        return Err(format!("{file:?}: a file is named CONTROLLER.NAME, such as memory.high"));
    }
    if controller == "cgroup" && matches!(rest, "procs" | "threads" | "kill" | "type" | "subtree_control") {
        return Err(format!("{file} is sexton's to write"));
    }
    options.setup.cgroup.conf.push((file.to_owned(), value.to_owned()));
    Ok(())
}

fn parent(options: &mut Options, value: &OsStr) -> Result<(), Invalid> {
    let path = Path::new(value);
    if value.is_empty() || path.components().any(|part| matches!(part, Component::ParentDir)) {
        return Err("write a path without \"..\"".into());
    }
    options.setup.cgroup.parent = Some(PathBuf::from(path));
    Ok(())
}

/// A name of one group or file.
fn name(name: &str) -> Result<&str, Invalid> {
    let is_name = !matches!(name, "" | "." | "..") && name.len() <= 255 && !name.contains(['/', '\n', '\0']);
    if is_name { Ok(name) } else { Err("a name has 1 to 255 bytes, and no /".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g1_sizes_are_dockers() {
        for (text, bytes) in
            [("1", 1), ("512b", 512), ("64M", 64 << 20), ("1g", 1 << 30), ("10K", 10 << 10), ("2t", 2 << 40)]
        {
            assert_eq!(size(OsStr::new(text)), Ok(bytes), "{text}");
        }
        for text in ["", "M", "0", "-5", "+5", "1.5g", "64MB", "64 M", "9223372036854775807k", "ä", "1ä", "0m"] {
            assert!(size(OsStr::new(text)).is_err(), "{text:?}");
        }
        assert_eq!(size_or_unlimited(OsStr::new("-1")), Ok(UNLIMITED));
        assert!(size_or_unlimited(OsStr::new("-2")).is_err());
    }

    #[test]
    fn g1_cpus_are_counted_in_thousandths() {
        for (text, number) in [("1", 1000), ("1.5", 1500), (".5", 500), ("0.01", 10), ("0.125", 125), ("2.05", 2050)] {
            assert_eq!(thousandths(OsStr::new(text)), Ok(number), "{text}");
        }
        for text in ["", ".", "1.", "0", "0.009", "1.2345", "-1", "1.-5", "x", "1,5", "99999999999"] {
            assert!(thousandths(OsStr::new(text)).is_err(), "{text:?}");
        }
    }

    #[test]
    fn g1_lists_are_numbers_and_ranges() {
        for good in ["0", "0-3", "0,2-4,7"] {
            assert_eq!(list(OsStr::new(good)).as_deref(), Ok(good));
        }
        for bad in ["", ",", "0-", "-1", "3-1", "a", "0 1", "0,"] {
            assert!(list(OsStr::new(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn g1_names_stay_in_their_folder() {
        for bad in ["", ".", "..", "a/b", "a\nb"] {
            assert!(name(bad).is_err(), "{bad:?}");
        }
        assert_eq!(name("web.1"), Ok("web.1"));
    }
}
