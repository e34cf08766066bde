//! What /proc tells about processes. Every answer may be missing: there may be no /proc, and processes end.
//!
//! Nothing here allocates: PID 1 asks these questions on a machine that may be out of memory.
#![forbid(unsafe_code)]

use std::fmt::{self, Write};
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;

use crate::sys::fd::NamesOf;

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

/// More than any stat line takes (its name is 15 bytes, its 50 numbers 20 digits at the most), and than any path here.
const ROOM: usize = 1024 + 128;

/// A text of limited length on the stack.
struct Text {
    bytes: [u8; ROOM],
    length: usize,
}

impl Text {
    const fn new() -> Self {
        Self { bytes: [0; ROOM], length: 0 }
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or(&[])
    }
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.get_mut(self.length..).and_then(|rest| rest.get_mut(..text.len())).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.length += text.len();
        Ok(())
    }
}

/// The content of a process's file.
fn read(pid: i32, file: &str) -> Option<Text> {
    let mut path = Text::new();
    write!(path, "/proc/{pid}/{file}").ok()?;
    let mut text = Text::new();
    text.length = File::open(std::str::from_utf8(path.as_bytes()).ok()?).ok()?.read(&mut text.bytes).ok()?;
    Some(text)
}

/// What /proc says of a process.
pub fn stat(pid: i32) -> Option<Stat> {
    parse_stat(read(pid, "stat")?.as_bytes())
}

/// The name of the program that a process runs.
pub struct Name(Text);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_bytes().trim_ascii_end().utf8_chunks().try_for_each(|chunk| f.write_str(chunk.valid()))
    }
}

/// The name of the program that a process runs, at most 15 bytes (`TASK_COMM_LEN`).
pub fn name(pid: i32) -> Option<Name> {
    read(pid, "comm").map(Name)
}

/// Calls `visit` with each process that /proc lists. `None`: there is no /proc.
pub fn each(mut visit: impl FnMut(i32)) -> Option<()> {
    let folder = File::open("/proc").ok()?;
    let mut names = NamesOf::new(folder.as_fd());
    let mut any = false;
    while let Some(name) = names.read() {
        if let Some(pid) = std::str::from_utf8(name).ok().and_then(|name| name.parse().ok()) {
            any = true;
            visit(pid);
        }
    }
    any.then_some(())
}

/// How often to ask again for the parents of a process one of which has just ended.
const ASKED_AGAIN: usize = 16;

/// Whether the process that was seen is below `root`.
pub fn is_below(seen: Stat, pid: i32, root: i32) -> bool {
    let mut parent = seen.parent;
    let mut asked_again = 0;
    loop {
        if parent == root {
            return true;
        }
        if parent <= 1 || asked_again == ASKED_AGAIN {
            return false;
        }
        parent = if let Some(stat) = stat(parent) {
            stat.parent
        } else {
            // The parent is gone; the process has another one now.
            asked_again += 1;
            match stat(pid) {
                Some(now) if now.start == seen.start => now.parent,
                _ => return false,
            }
        };
    }
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
        let seen = stat(own).unwrap();
        let mut found = false;
        each(|pid| found |= pid == own).unwrap();
        assert!(found && is_below(seen, own, seen.parent));
        assert!(!is_below(seen, own, own), "not below itself");
        assert!(name(own).is_some_and(|name| !name.to_string().is_empty()));
        assert!(stat(-1).is_none() && name(-1).is_none());
    }
}
