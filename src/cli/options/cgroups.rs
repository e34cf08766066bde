//! The options of cgroups. Their names, units and meanings are docker's.
#![forbid(unsafe_code)]

use std::ffi::OsStr;

use super::{Options, row, text};
use crate::cli::{Invalid, Row};
use crate::setup::cgroup::{UNLIMITED, What};

const CGROUPS: &str = "Cgroups (SIZE: 64M, 1g, or bytes; -1: unlimited)";

/// Its rows, in the order of the help.
pub const ROWS: &[Row] = &[
    row("memory", None, "SIZE", CGROUPS, "the most memory", |o, v| size(o, What::Memory, v)),
    row("memory-swap", None, "SIZE", CGROUPS, "the most memory and swap together (twice --memory)", |o, v| {
        size(o, What::MemorySwap, v)
    }),
    row("memory-reservation", None, "SIZE", CGROUPS, "memory left to it when the machine runs short", |o, v| {
        size(o, What::MemoryReservation, v)
    }),
    row("memory-swappiness", None, "0..100", CGROUPS, "how readily its memory is swapped (v1)", |o, v| {
        number(o, What::MemorySwappiness, v, 0, 100)
    }),
    row("oom-kill-disable", None, "", CGROUPS, "out of memory it waits instead of being killed (v1)", |o, _| {
        o.setup.cgroup.ask(What::OomKillDisable, 1, "");
        Ok(())
    }),
    row("cpus", None, "NUMBER", CGROUPS, "the most CPU time: 1.5 is one and a half CPUs", cpus),
    row("cpu-shares", None, "2..262144", CGROUPS, "its weight when CPUs are short (1024)", |o, v| {
        number(o, What::CpuShares, v, 2, 262_144)
    }),
    row("cpuset-cpus", None, "LIST", CGROUPS, "the CPUs it may run on: 0-2,5", |o, v| list(o, What::CpusetCpus, v)),
    row("cpuset-mems", None, "LIST", CGROUPS, "the memory nodes it may use", |o, v| list(o, What::CpusetMems, v)),
    row("pids-limit", None, "COUNT", CGROUPS, "the most processes and threads", |o, v| {
        number(o, What::Pids, v, 1, 1 << 31)
    }),
    row("blkio-weight", None, "10..1000", CGROUPS, "its weight at disks whose scheduler heeds it", |o, v| {
        number(o, What::BlkioWeight, v, 10, 1000)
    }),
    row("device-read-bps", None, "PATH:SIZE", CGROUPS, "the most bytes a second from a disk (repeatable)", |o, v| {
        device(o, What::ReadBytes, v)
    }),
    row("device-write-bps", None, "PATH:SIZE", CGROUPS, "the same to a disk (repeatable)", |o, v| {
        device(o, What::WriteBytes, v)
    }),
    row("device-read-iops", None, "PATH:COUNT", CGROUPS, "the most reads a second (repeatable)", |o, v| {
        device(o, What::ReadOperations, v)
    }),
    row("device-write-iops", None, "PATH:COUNT", CGROUPS, "the most writes a second (repeatable)", |o, v| {
        device(o, What::WriteOperations, v)
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
    row("cgroup-name", None, "NAME", CGROUPS, "its name (sexton-PID-START)", name),
];

/// Bytes: a whole number, and a unit of 1024, 1024², … bytes.
fn bytes(text: &str) -> Option<i64> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let shift = match unit.as_bytes() {
        [b'b' | b'B'] => 0,
        [b'k' | b'K'] => 10,
        [b'm' | b'M'] => 20,
        [b'g' | b'G'] => 30,
        [b't' | b'T'] => 40,
        _ => return whole(text),
    };
    whole(digits)?.checked_mul(1 << shift)
}

/// Digits only: no sign, no blank.
fn whole(text: &str) -> Option<i64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then_some(text)?.parse().ok()
}

fn size(options: &mut Options, what: What, value: &OsStr) -> Result<(), Invalid> {
    let text = text(value)?;
    let unlimited = (text == "-1" && what != What::MemoryReservation).then_some(UNLIMITED);
    let number = unlimited.or_else(|| bytes(text).filter(|number| *number > 0));
    options.setup.cgroup.ask(what, number.ok_or("write a size: a whole number with b, k, m, g or t, such as 64M")?, "");
    Ok(())
}

fn number(options: &mut Options, what: What, value: &OsStr, least: i64, most: i64) -> Result<(), Invalid> {
    let text = text(value)?;
    let unlimited = (text == "-1" && what == What::Pids).then_some(UNLIMITED);
    let number = unlimited.or_else(|| whole(text).filter(|number| (least..=most).contains(number)));
    let wrong = || format!("not a whole number from {least} to {most}");
    options.setup.cgroup.ask(what, number.ok_or_else(wrong)?, "");
    Ok(())
}

fn cpus(options: &mut Options, value: &OsStr) -> Result<(), Invalid> {
    // The kernel's least quota is 1 ms, and the period 100 ms.
    let number = thousandths(text(value)?).filter(|number| (10..=1 << 30).contains(number));
    let number = number.ok_or("write CPUs as 0.01 or more, at most three decimals: 1.5")?;
    options.setup.cgroup.ask(What::Cpus, number, "");
    Ok(())
}

/// `1.5` is 1500.
fn thousandths(text: &str) -> Option<i64> {
    let (units, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let scale = match decimals.len() {
        1 => 100,
        2 => 10,
        3 => 1,
        _ => return None,
    };
    let units = if units.is_empty() { 0 } else { whole(units)? };
    units.checked_mul(1000)?.checked_add(whole(decimals)? * scale)
}

/// Numbers and ranges, as cpuset(7) has them; the kernel knows which of them exist.
fn list(options: &mut Options, what: What, value: &OsStr) -> Result<(), Invalid> {
    let list = text(value)?;
    if list.is_empty() || !list.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b',' | b'-')) {
        return Err("write numbers and ranges, such as 0-2,5".into());
    }
    options.setup.cgroup.ask(what, 0, list);
    Ok(())
}

fn device(options: &mut Options, what: What, value: &OsStr) -> Result<(), Invalid> {
    let parts = text(value)?.rsplit_once(':').filter(|(path, _)| path.starts_with('/'));
    let (path, rate) = parts.ok_or("write PATH:RATE, such as /dev/sda:10M")?;
    let rate = if matches!(what, What::ReadBytes | What::WriteBytes) { bytes(rate) } else { whole(rate) };
    let rate = rate.filter(|rate| *rate > 0).ok_or("write bytes a second as 10M, operations as a whole number")?;
    options.setup.cgroup.ask(what, rate, path);
    Ok(())
}

/// `--cgroup-conf FILE=VALUE`: the file is named after its controller.
fn conf(options: &mut Options, value: &OsStr) -> Result<(), Invalid> {
    let value = text(value)?;
    let (file, _) = value.split_once('=').ok_or("write FILE=VALUE, such as memory.high=32M")?;
    let (controller, rest) = file.split_once('.').unwrap_or_default();
    if controller.is_empty() || rest.is_empty() || !is_name(file) {
        return Err("a file is named CONTROLLER.NAME, such as memory.high".into());
    }
    if controller == "cgroup" && matches!(rest, "procs" | "threads" | "kill" | "type" | "subtree_control") {
        return Err(format!("{file} is sexton's to write"));
    }
    options.setup.cgroup.ask(What::Conf, 0, value);
    Ok(())
}

fn parent(options: &mut Options, value: &OsStr) -> Result<(), Invalid> {
    let path = text(value)?;
    if path.is_empty() || path.split('/').any(|part| part == "..") {
        return Err("write a path without \"..\"".into());
    }
    options.setup.cgroup.parent = Some(path.to_owned());
    Ok(())
}

fn name(options: &mut Options, value: &OsStr) -> Result<(), Invalid> {
    let name = text(value)?;
    if !is_name(name) {
        return Err("a name has 1 to 255 bytes, and no /".into());
    }
    options.setup.cgroup.name = Some(name.to_owned());
    Ok(())
}

/// Whether it may be the name of one group or file.
fn is_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && name.len() <= 255 && !name.bytes().any(|byte| matches!(byte, b'/' | b'\n' | 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g1_sizes_are_dockers() {
        for (text, number) in
            [("1", 1), ("512b", 512), ("64M", 64 << 20), ("1g", 1 << 30), ("10K", 10 << 10), ("2t", 2 << 40)]
        {
            assert_eq!(bytes(text), Some(number), "{text}");
        }
        for text in ["", "M", "-5", "+5", "1.5g", "64MB", "64 M", "9223372036854775807k", "ä", "1ä"] {
            assert_eq!(bytes(text), None, "{text:?}");
        }
    }

    #[test]
    fn g1_cpus_are_counted_in_thousandths() {
        for (text, number) in [("1", 1000), ("1.5", 1500), (".5", 500), ("0.01", 10), ("0.125", 125), ("2.05", 2050)] {
            assert_eq!(thousandths(text), Some(number), "{text}");
        }
        for text in ["", ".", "1.", "1.2345", "-1", "1.-5", "x", "1,5", "9223372036854775807"] {
            assert!(thousandths(text).is_none_or(|number| number < 10), "{text:?}");
        }
    }

    #[test]
    fn g1_names_stay_in_their_folder() {
        for bad in ["", ".", "..", "a/b", "a\nb"] {
            assert!(!is_name(bad), "{bad:?}");
        }
        assert!(is_name("web.1"));
    }
}
