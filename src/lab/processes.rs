//! The processes of our PID namespace, from /proc.
#![forbid(unsafe_code)]

use std::fs;

use crate::procfs;

/// Every process but PID 1 and us, lowest number first.
pub fn all() -> Vec<i32> {
    let own = i32::try_from(std::process::id()).unwrap_or(1);
    let mut pids = Vec::new();
    let _ = procfs::each(|pid| pids.push(pid));
    pids.retain(|pid| *pid != 1 && *pid != own);
    pids.sort_unstable();
    pids
}

/// The children of a process, lowest number first.
pub fn children_of(parent: i32) -> Vec<i32> {
    all().into_iter().filter(|pid| procfs::stat(*pid).is_some_and(|stat| stat.parent == parent)).collect()
}

/// Children of a process that are dead and not reaped.
pub fn zombies_of(parent: i32) -> Vec<i32> {
    let is_zombie = |pid: &i32| procfs::stat(*pid).is_some_and(|stat| stat.parent == parent && stat.state == b'Z');
    all().into_iter().filter(is_zombie).collect()
}

/// A process's state, one letter of `proc_pid_stat(5)`.
pub fn state(pid: i32) -> Option<char> {
    procfs::stat(pid).map(|stat| char::from(stat.state))
}

/// A field of `/proc/PID/status`.
pub fn status_field(pid: i32, field: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    text.lines().find_map(|line| Some(line.strip_prefix(field)?.strip_prefix(':')?.trim().to_owned()))
}

/// Whether a process is `sexton-lab subject …`, and not the one that is an init itself.
pub fn is_subject(pid: i32) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words = line.split(|byte| *byte == 0).skip(1);
    words.next() == Some(b"subject") && words.next() != Some(b"broken-init")
}

/// What a process's descriptors above 2 are.
pub fn descriptors(pid: i32) -> Vec<(i32, String)> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let mut found: Vec<_> = entries
        .flatten()
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.parse().ok()?;
            Some((number, fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned()))
        })
        .collect();
    found.sort();
    found
}
