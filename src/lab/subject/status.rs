//! What a process was started with, as JSON.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs;

use nix::unistd::{Pid, getpgrp, getpid, getppid, getsid, tcgetpgrp};
use serde::Serialize;

use crate::lab::{Trouble, say};
use crate::setup::limits;
use crate::sys::limit;

/// Masks and capability sets are as in /proc/PID/status: hexadecimal, the lowest bit for signal 1 or capability 0.
#[derive(Serialize)]
struct Status {
    pid: i32,
    ppid: i32,
    pgid: i32,
    sid: i32,
    /// The foreground group of the terminal that stdin is; -1: it is none of ours.
    foreground: i32,
    cwd: String,
    fds: Vec<u32>,
    env: Vec<String>,
    blocked: String,
    ignored: String,
    caught: String,
    capabilities: BTreeMap<&'static str, String>,
    no_new_privs: bool,
    /// 0: none, 1: strict, 2: a filter.
    seccomp: u8,
    /// As readlink(2) has them: `pid:[4026531836]`.
    namespaces: BTreeMap<String, String>,
    /// The lines of /proc/self/cgroup: number, controllers, path.
    cgroups: Vec<String>,
    /// Soft and hard, by ulimit's names; null: unlimited.
    limits: BTreeMap<&'static str, [Option<u64>; 2]>,
}

/// Prints it as one line.
pub fn print() -> Result<u8, Trouble> {
    // First of all: what is opened later must not be in it.
    let fds = open_descriptors()?;
    let text = fs::read_to_string("/proc/self/status")?;
    let field = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.unwrap_or_default().trim().to_owned()
    };
    let sets = [
        ("inheritable", "CapInh"),
        ("permitted", "CapPrm"),
        ("effective", "CapEff"),
        ("bounding", "CapBnd"),
        ("ambient", "CapAmb"),
    ];
    let status = Status {
        pid: getpid().as_raw(),
        ppid: getppid().as_raw(),
        pgid: getpgrp().as_raw(),
        sid: getsid(None)?.as_raw(),
        foreground: tcgetpgrp(std::io::stdin()).map_or(-1, Pid::as_raw),
        cwd: std::env::current_dir()?.to_string_lossy().into_owned(),
        fds,
        env: std::env::vars_os().map(|(name, value)| format!("{}={}", name.display(), value.display())).collect(),
        blocked: field("SigBlk"),
        ignored: field("SigIgn"),
        caught: field("SigCgt"),
        capabilities: sets.map(|(name, key)| (name, field(key))).into(),
        no_new_privs: field("NoNewPrivs") == "1",
        seccomp: field("Seccomp").parse().unwrap_or(0),
        namespaces: namespaces()?,
        cgroups: fs::read_to_string("/proc/self/cgroup")?.lines().map(str::to_owned).collect(),
        limits: resource_limits()?,
    };
    say(&serde_json::to_string(&status)?)?;
    Ok(0)
}

/// The descriptors that were open before we looked, in their order.
fn open_descriptors() -> Result<Vec<u32>, Trouble> {
    let mut numbers: Vec<u32> = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        let is_the_listing = fs::read_link(entry.path()).is_ok_and(|to| to.starts_with("/proc"));
        if let Ok(number) = entry.file_name().to_string_lossy().parse()
            && !is_the_listing
        {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn namespaces() -> Result<BTreeMap<String, String>, Trouble> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc/self/ns")? {
        let entry = entry?;
        let link = fs::read_link(entry.path())?;
        found.insert(entry.file_name().to_string_lossy().into_owned(), link.to_string_lossy().into_owned());
    }
    Ok(found)
}

fn resource_limits() -> Result<BTreeMap<&'static str, [Option<u64>; 2]>, Trouble> {
    let mut found = BTreeMap::new();
    for (name, resource, _) in limits::NAMES {
        let now = limit::current(resource)?;
        found.insert(name, [now.soft, now.hard].map(|value| (value != limit::UNLIMITED).then_some(value)));
    }
    Ok(found)
}
