//! The options of namespaces.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::path::PathBuf;

use super::{Options, row, text};
use crate::cli::{Invalid, Row};
use crate::setup::idmap::Range;
use crate::setup::namespaces::Kind;

const NAMESPACES: &str = "Namespaces";

/// Its rows, in the order of the help.
pub const ROWS: &[Row] = &[
    row(
        "unshare",
        None,
        "LIST",
        NAMESPACES,
        "new namespaces: all, or some of pid,mount,net,uts,ipc,\ncgroup,user,time; in a new pid one sexton is PID 1",
        unshare,
    ),
    row("join", None, "KIND:PATH|PID", NAMESPACES, "enter another's, by its file or its process (repeatable)", join),
    row("map-root", None, "", NAMESPACES, "user: who starts sexton is root inside", |options, _| {
        options.setup.idmap.root = true;
        Ok(())
    }),
    row(
        "map-users",
        None,
        "INNER:OUTER:COUNT",
        NAMESPACES,
        "user: these users inside are those outside (repeatable)",
        |o, value| {
            o.setup.idmap.users.push(range(value)?);
            Ok(())
        },
    ),
    row(
        "map-groups",
        None,
        "INNER:OUTER:COUNT",
        NAMESPACES,
        "user: the same for groups (repeatable)",
        |options, value| {
            options.setup.idmap.groups.push(range(value)?);
            Ok(())
        },
    ),
    row("map-auto", None, "", NAMESPACES, "user: map what /etc/subuid and /etc/subgid grant", |options, _| {
        options.setup.idmap.auto = true;
        Ok(())
    }),
    row("hostname", None, "NAME", NAMESPACES, "uts: the hostname", |options, value| {
        options.setup.namespaces.hostname = Some(name(value)?);
        Ok(())
    }),
    row("domainname", None, "NAME", NAMESPACES, "uts: the NIS domain name", |options, value| {
        options.setup.namespaces.domainname = Some(name(value)?);
        Ok(())
    }),
    row(
        "boottime",
        None,
        "SECONDS",
        NAMESPACES,
        "time: what the clock since boot is ahead; may be negative",
        |options, value| {
            options.setup.namespaces.boottime = Some(seconds(value)?);
            Ok(())
        },
    ),
    row("monotonic", None, "SECONDS", NAMESPACES, "time: the same for the monotonic clock", |options, value| {
        options.setup.namespaces.monotonic = Some(seconds(value)?);
        Ok(())
    }),
];

fn kind(name: &str) -> Result<Kind, Invalid> {
    Kind::of(name)
        .ok_or_else(|| format!("{name:?} is no kind of namespace: use pid, mount, net, uts, ipc, cgroup, user, time"))
}

fn unshare(options: &mut Options, value: &OsStr) -> Result<(), Invalid> {
    let kinds = &mut options.setup.namespaces.unshare;
    for name in text(value)?.split(',') {
        if name == "all" {
            for kind in Kind::ALL {
                kinds.add(kind);
            }
        } else {
            kinds.add(kind(name)?);
        }
    }
    Ok(())
}

/// `--join KIND:PATH|PID`.
fn join(options: &mut Options, value: &OsStr) -> Result<(), Invalid> {
    let (name, whose) = text(value)?.split_once(':').ok_or("write KIND:PATH or KIND:PID, such as net:1234")?;
    let kind = kind(name)?;
    let path = match whose.parse::<u32>() {
        Ok(pid) => PathBuf::from(format!("/proc/{pid}/ns/{}", kind.file())),
        Err(_) if whose.contains('/') => PathBuf::from(whose),
        Err(_) => return Err(format!("{whose:?} is neither a process id nor a path")),
    };
    options.setup.namespaces.join.push((kind, path));
    Ok(())
}

fn range(value: &OsStr) -> Result<Range, Invalid> {
    let wrong = || "write INNER:OUTER:COUNT, such as 0:100000:65536".to_owned();
    let numbers: Result<Vec<u32>, _> = text(value)?.split(':').map(str::parse).collect();
    match numbers.map_err(|_| wrong())?[..] {
        [inner, outer, count] if count > 0 => Ok(Range { inner, outer, count }),
        _ => Err(wrong()),
    }
}

/// A name of at most 64 bytes (`__NEW_UTS_LEN`).
fn name(value: &OsStr) -> Result<String, Invalid> {
    let name = text(value)?;
    if name.is_empty() || name.len() > 64 || name.contains('\0') {
        return Err("a name has 1 to 64 bytes".into());
    }
    Ok(name.to_owned())
}

fn seconds(value: &OsStr) -> Result<i64, Invalid> {
    text(value)?.parse().map_err(|_| "not a whole number of seconds".into())
}
