//! The maps of a new user namespace: who is who in it (user_namespaces(7)).
//!
//! They are written from outside, once, before the process inside does anything. An ordinary user may map but himself;
//! for more, newuidmap(1) knows what /etc/subuid grants him.
#![forbid(unsafe_code)]

use std::ffi::{CString, OsStr};
use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use nix::unistd::{Gid, Uid, getegid, geteuid, setgroups, setresgid, setresuid};

use super::step::{SetupError, State, Step};
use crate::spawn;
use crate::sys::{Errno, errno_of, process::WaitStatus};

/// So many ids from `inner` inside are those from `outer` outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// The first inside.
    pub inner: u32,
    /// The first outside.
    pub outer: u32,
    /// How many.
    pub count: u32,
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.inner, self.outer, self.count)
    }
}

impl Range {
    fn has(self, inner: u32) -> bool {
        inner >= self.inner && inner - self.inner < self.count
    }
}

/// What is wanted of the maps.
#[derive(Default, Debug)]
pub struct Wanted {
    /// `--map-root`: who starts sexton is root inside.
    pub root: bool,
    /// `--map-users`.
    pub users: Vec<Range>,
    /// `--map-groups`.
    pub groups: Vec<Range>,
    /// `--map-auto`: what /etc/subuid and /etc/subgid grant, from 0, or from 1 with `root`.
    pub auto: bool,
}

impl Wanted {
    /// Whether anything was asked for.
    pub fn any(&self) -> bool {
        self.root || self.auto || !self.users.is_empty() || !self.groups.is_empty()
    }

    /// What goes together and what does not.
    pub fn check(&self, new_namespace: bool) -> Result<(), String> {
        if self.any() && !new_namespace {
            return Err("--map-root, --map-users, --map-groups and --map-auto need --unshare user".into());
        }
        for (option, ranges) in [("--map-users", &self.users), ("--map-groups", &self.groups)] {
            if !ranges.is_empty() && (self.root || self.auto) {
                return Err(format!("{option} says all; leave out --map-root and --map-auto"));
            }
        }
        Ok(())
    }
}

/// Users or groups.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    User,
    Group,
}

impl Kind {
    fn map_file(self) -> &'static str {
        if self == Self::User { "uid_map" } else { "gid_map" }
    }

    fn grants_file(self) -> &'static str {
        if self == Self::User { "/etc/subuid" } else { "/etc/subgid" }
    }

    fn helper(self) -> &'static str {
        if self == Self::User { "newuidmap" } else { "newgidmap" }
    }

    fn own(self) -> u32 {
        if self == Self::User { geteuid().as_raw() } else { getegid().as_raw() }
    }
}

/// Writes both maps of the process inside.
pub struct Write<'a>(pub &'a Wanted);

impl Step for Write<'_> {
    fn run(&self, state: &mut State) -> Result<(), SetupError> {
        let Some(inside) = state.inside else { return Ok(()) };
        self.write(Kind::Group, inside)?;
        self.write(Kind::User, inside)
    }
}

impl Write<'_> {
    fn ranges(&self, kind: Kind) -> Result<Vec<Range>, SetupError> {
        let given = if kind == Kind::User { &self.0.users } else { &self.0.groups };
        if !given.is_empty() {
            return Ok(given.clone());
        }
        let own = kind.own();
        let mut ranges = Vec::new();
        if self.0.root {
            ranges.push(Range { inner: 0, outer: own, count: 1 });
        }
        if self.0.auto {
            ranges.push(Range { inner: u32::from(self.0.root), ..granted(kind)? });
        }
        if ranges.is_empty() && geteuid().is_root() {
            return own_map(kind);
        }
        if ranges.is_empty() {
            ranges.push(Range { inner: own, outer: own, count: 1 });
        }
        Ok(ranges)
    }

    fn write(&self, kind: Kind, inside: i32) -> Result<(), SetupError> {
        let ranges = self.ranges(kind)?;
        let only_self = matches!(ranges[..], [Range { outer, count: 1, .. }] if outer == kind.own());
        if geteuid().is_root() || only_self {
            if kind == Kind::Group && !geteuid().is_root() {
                // Or who is denied something as a member of a group could leave it.
                write_file(inside, "setgroups", "deny")?;
            }
            let lines: Vec<_> = ranges.iter().map(|r| format!("{} {} {}", r.inner, r.outer, r.count)).collect();
            return write_file(inside, kind.map_file(), &lines.join("\n"));
        }
        let mut words = vec![kind.helper().to_owned(), inside.to_string()];
        words.extend(ranges.iter().flat_map(|r| [r.inner, r.outer, r.count]).map(|number| number.to_string()));
        let call = words.join(" ");
        let words = words.into_iter().filter_map(|word| CString::new(word).ok()).collect::<Vec<_>>();
        match spawn::run_helper(kind.helper(), &words) {
            Ok(WaitStatus::Exited(0)) => Ok(()),
            Ok(status) => {
                let advice = format!("it {status}; {} must grant these ids to this user", kind.grants_file());
                Err(SetupError::found(call, advice))
            }
            Err(errno) => {
                Err(SetupError::call(call, errno, "install uidmap (newuidmap, newgidmap), or use --map-root"))
            }
        }
    }
}

impl fmt::Display for Write<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("map ids")?;
        for (kind, name) in [(Kind::User, "users"), (Kind::Group, "groups")] {
            match self.ranges(kind) {
                Ok(ranges) => {
                    let ranges: Vec<_> = ranges.iter().map(Range::to_string).collect();
                    write!(f, ", {name} {} (inside:outside:count)", ranges.join(" "))?;
                }
                Err(why) => write!(f, ", {name}: cannot: {why}")?,
            }
        }
        Ok(())
    }
}

fn write_file(inside: i32, file: &str, text: &str) -> Result<(), SetupError> {
    let path = format!("/proc/{inside}/{file}");
    fs::write(&path, text).map_err(|error| {
        let errno = errno_of(&error);
        let advice = match errno {
            Errno::ENOENT => "needs /proc",
            Errno::EPERM => "these ids are not this process's to give; map only its own, or run as root",
            Errno::EINVAL => "ranges may not overlap, and an id must exist outside",
            Errno::EROFS => "/proc is read-only here",
            _ => "the kernel refused",
        };
        SetupError::call(format!("write({path:?}, {:?})", text.trim_end()), errno, advice)
    })
}

/// Everybody to himself: each range that exists out here.
fn own_map(kind: Kind) -> Result<Vec<Range>, SetupError> {
    let path = format!("/proc/self/{}", kind.map_file());
    let text =
        fs::read_to_string(&path).map_err(|error| SetupError::io(format!("read({path:?})"), &error, "needs /proc"))?;
    Ok(text.lines().filter_map(existing).collect())
}

/// A line of /proc/PID/uid_map, as far as it says which ids exist inside.
fn existing(line: &str) -> Option<Range> {
    let mut numbers = line.split_ascii_whitespace().map(str::parse);
    let (inner, _, count) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
    let _: u32 = inner;
    Some(Range { inner, outer: inner, count })
}

/// The first range that is granted to this user (subuid(5)): by name or by number.
fn granted(kind: Kind) -> Result<Range, SetupError> {
    let path = kind.grants_file();
    let uid = geteuid().as_raw();
    let name = name_of(uid);
    let text = fs::read(path)
        .map_err(|error| SetupError::io(format!("open({path:?})"), &error, "--map-auto takes the ids from there"))?;
    text.split(|byte| *byte == b'\n').find_map(|line| grant(line, uid, name.as_deref())).ok_or_else(|| {
        SetupError::found(
            format!("{path:?}"),
            format!("grants nothing to uid {uid}; add it (usermod --add-subuids), or use --map-root"),
        )
    })
}

fn grant(line: &[u8], uid: u32, name: Option<&[u8]>) -> Option<Range> {
    let mut fields = line.split(|byte| *byte == b':');
    let who = fields.next()?;
    let mut number = || OsStr::from_bytes(fields.next()?).to_str()?.trim().parse::<u32>().ok();
    let (outer, count) = (number()?, number()?);
    let is_ours = Some(who) == name || who == uid.to_string().as_bytes();
    (is_ours && count > 0).then_some(Range { inner: 0, outer, count })
}

/// A user's name, from /etc/passwd itself: NSS is no business of a static program.
fn name_of(uid: u32) -> Option<Vec<u8>> {
    let text = fs::read("/etc/passwd").ok()?;
    text.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        let name = fields.next()?;
        let number: u32 = std::str::from_utf8(fields.nth(1)?).ok()?.parse().ok()?;
        (number == uid).then(|| name.to_vec())
    })
}

/// Inside, where root is mapped: becomes root, so that what is made from here on is root's.
pub struct BecomeRoot;

impl Step for BecomeRoot {
    fn run(&self, _: &mut State) -> Result<(), SetupError> {
        let (root, group) = (Uid::from_raw(0), Gid::from_raw(0));
        let maps = |file: &str| {
            let text = fs::read_to_string(file).unwrap_or_default();
            text.lines().filter_map(existing).any(|range| range.has(0))
        };
        if maps("/proc/self/gid_map") {
            // Where setgroups is denied the groups of outside stay.
            let _ = setgroups(&[]);
            setresgid(group, group, group)
                .map_err(|errno| SetupError::call("setresgid(0, 0, 0)", errno, "the kernel refused"))?;
        }
        if maps("/proc/self/uid_map") {
            setresuid(root, root, root)
                .map_err(|errno| SetupError::call("setresuid(0, 0, 0)", errno, "the kernel refused"))?;
        }
        Ok(())
    }
}

impl fmt::Display for BecomeRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("become root of the user namespace, if it has one")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n2_a_grant_is_by_name_or_by_number() {
        let range = Range { inner: 0, outer: 100_000, count: 65_536 };
        assert_eq!(grant(b"ann:100000:65536", 1000, Some(b"ann")), Some(range));
        assert_eq!(grant(b"1000:100000:65536", 1000, Some(b"ann")), Some(range));
        for line in [&b"bob:100000:65536"[..], b"ann:100000:0", b"ann:x:1", b"ann", b""] {
            assert_eq!(grant(line, 1000, Some(b"ann")), None, "{line:?}");
        }
    }

    #[test]
    fn n2_everybody_stays_himself() {
        assert_eq!(existing("         0     100000      65536"), Some(Range { inner: 0, outer: 0, count: 65_536 }));
        assert_eq!(existing(""), None);
    }
}
