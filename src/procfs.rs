//! What /proc tells about processes. Every answer may be missing: there may be no /proc, and processes end.
#![forbid(unsafe_code)]

use std::fs;

/// A line of /proc/PID/stat, as far as it is used here (proc_pid_stat(5)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stat {
    /// One letter: `Z` for a zombie.
    pub state: u8,
    /// The parent's process id.
    pub parent: i32,
    /// When it started, in clock ticks since the machine did: together with the pid this is one process for ever.
    pub start: u64,
}

/// Reads a line of /proc/PID/stat. The name, second field, may hold blanks and parentheses.
pub fn parse_stat(line: &[u8]) -> Option<Stat> {
    let after_name = line.iter().rposition(|byte| *byte == b')')?;
    let fields = std::str::from_utf8(line.get(after_name + 1..)?).ok()?;
    let mut fields = fields.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let parent = fields.next()?.parse().ok()?;
    // state is field 3, the parent 4, the start 22.
    let start = fields.nth(17)?.parse().ok()?;
    Some(Stat { state, parent, start })
}

/// What /proc says of a process.
pub fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// The name of the program that a process runs, at most 15 bytes (`TASK_COMM_LEN`).
pub fn name(pid: i32) -> Option<String> {
    let text = fs::read(format!("/proc/{pid}/comm")).ok()?;
    Some(String::from_utf8_lossy(&text).trim_end().to_owned())
}

/// Every process that /proc lists. `None`: there is no /proc.
pub fn pids() -> Option<impl Iterator<Item = i32>> {
    let entries = fs::read_dir("/proc").ok()?;
    Some(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()))
}

/// All processes below `root`, each with the proof that it is itself. `None`: there is no /proc.
pub fn descendants(root: i32) -> Option<Vec<(i32, Stat)>> {
    let all: Vec<(i32, Stat)> = pids()?.filter_map(|pid| Some((pid, stat(pid)?))).collect();
    let mut found: Vec<(i32, Stat)> = Vec::new();
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        for entry in all.iter().filter(|(_, stat)| stat.parent == parent) {
            parents.push(entry.0);
            found.push(*entry);
        }
    }
    (!all.is_empty()).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let line = b"42 (a) b) c (d) Z 7 42 42 0 -1 4 0 0 0 0 1 2 3 4 20 0 1 0 123456 0 0";
        assert_eq!(parse_stat(line), Some(Stat { state: b'Z', parent: 7, start: 123_456 }));
        assert_eq!(parse_stat(b"42 (x"), None);
        assert_eq!(parse_stat(b""), None);
    }

    #[test]
    fn this_process_is_found_below_its_parent() {
        let own = i32::try_from(std::process::id()).unwrap();
        let parent = stat(own).unwrap().parent;
        assert!(descendants(parent).unwrap().iter().any(|(pid, _)| *pid == own));
    }
}
