//! The options of mounts.
#![forbid(unsafe_code)]

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::{Options, row};
use crate::cli::{Invalid, Row};
use crate::setup::mount::{Layers, Mount, Root, What};

const MOUNTS: &str = "Mounts, in the order given; they need --unshare mount";

/// Its rows, in the order of the help.
pub const ROWS: &[Row] = &[
    row(
        "root",
        None,
        "DIR",
        MOUNTS,
        "the new root; with a new pid namespace its /proc is mounted,\n/sys and /dev only if asked for",
        |options, value| new_root(options, Root::Folder(path(value.as_bytes())?)),
    ),
    row(
        "overlay",
        None,
        "lower=DIR[:DIR…][,upper=DIR,work=DIR]",
        MOUNTS,
        "an overlay as the new root; without upper, changes are kept\nin memory and gone at the end",
        |options, value| new_root(options, Root::Overlay(layers(value)?)),
    ),
    row(
        "bind",
        None,
        "SRC:DST[:ro]",
        MOUNTS,
        "SRC shows at DST too, with all mounted below it; DST is made\nif it is missing (repeatable)",
        bind,
    ),
    row(
        "tmpfs",
        None,
        "DST[:size=N[,mode=M]]",
        MOUNTS,
        "an empty folder in memory, size as 64m or 10%, mode as 755\n(1777) (repeatable)",
        tmpfs,
    ),
    row("proc", None, "[=DST]", MOUNTS, "a new proc (/proc)", |options, value| kernel(options, value, What::Proc)),
    row("sys", None, "[=DST]", MOUNTS, "a sysfs (/sys), read-only", |options, value| kernel(options, value, What::Sys)),
    row(
        "dev",
        None,
        "[=DST]",
        MOUNTS,
        "a small /dev: null zero full random urandom tty pts shm\nmqueue, and console if there is a terminal",
        |options, value| kernel(options, value, What::Dev),
    ),
    row("read-only", None, "", MOUNTS, "the root is read-only; what else is asked for is not", |options, _| {
        options.setup.mounts.read_only = true;
        Ok(())
    }),
    row("chdir", None, "DIR", MOUNTS, "the command's working folder (with a new root: /)", |options, value| {
        absolute(value.as_bytes())?;
        options.setup.mounts.chdir = Some(path(value.as_bytes())?);
        Ok(())
    }),
];

fn new_root(options: &mut Options, root: Root) -> Result<(), Invalid> {
    match options.setup.mounts.root.replace(root) {
        None => Ok(()),
        Some(_) => Err("there is one root; give one --root or --overlay".into()),
    }
}

fn path(value: &[u8]) -> Result<CString, Invalid> {
    let path = CString::new(value).unwrap_or_default();
    if path.is_empty() { Err("the path is empty".into()) } else { Ok(path) }
}

/// A place in the root.
fn absolute(value: &[u8]) -> Result<PathBuf, Invalid> {
    let value = OsStr::from_bytes(value);
    if value.as_bytes().starts_with(b"/") {
        Ok(value.into())
    } else {
        Err(format!("{:?} must begin with /", value.display()))
    }
}

/// A place to mount on.
fn place(value: &[u8]) -> Result<PathBuf, Invalid> {
    let place = absolute(value)?;
    let is_root = value.split(|byte| *byte == b'/').all(|part| matches!(part, b"" | b"." | b".."));
    if is_root { Err("that is the root itself; use --root".into()) } else { Ok(place) }
}

fn put(options: &mut Options, at: PathBuf, what: What) {
    options.setup.mounts.mounts.push(Mount { at, what });
}

/// `--proc`, `--sys`, `--dev`: where they always are, or elsewhere.
fn kernel(options: &mut Options, value: &OsStr, what: What) -> Result<(), Invalid> {
    let usual: &[u8] = match what {
        What::Proc => b"/proc",
        What::Sys => b"/sys",
        _ => b"/dev",
    };
    put(options, place(if value.is_empty() { usual } else { value.as_bytes() })?, what);
    Ok(())
}

/// `--bind SRC:DST[:ro]`.
fn bind(options: &mut Options, value: &OsStr) -> Result<(), Invalid> {
    let parts: Vec<_> = value.as_bytes().split(|byte| *byte == b':').collect();
    let (source, at, read_only) = match parts[..] {
        [source, at] | [source, at, b"rw"] => (source, at, false),
        [source, at, b"ro"] => (source, at, true),
        _ => return Err("write SRC:DST or SRC:DST:ro; a path with a colon cannot be bound".into()),
    };
    let source = path(source)?;
    put(options, place(at)?, What::Bind(source, read_only));
    Ok(())
}

/// `--tmpfs DST[:size=N[,mode=M]]`.
fn tmpfs(options: &mut Options, value: &OsStr) -> Result<(), Invalid> {
    let (at, settings) = split_at(value.as_bytes(), b':');
    let at = place(at)?;
    let mut data = Vec::new();
    for setting in settings.split(|byte| *byte == b',').filter(|setting| !setting.is_empty()) {
        let is_good = match split_at(setting, b'=') {
            (b"size", value) => is_size(value),
            (b"mode", value) => (1..=4).contains(&value.len()) && value.iter().all(|byte| (b'0'..=b'7').contains(byte)),
            _ => false,
        };
        if !is_good {
            return Err("write DST:size=64m,mode=755; a size may end in k, m, g or %, a mode is octal".into());
        }
        data.extend_from_slice(setting);
        data.push(b',');
    }
    data.pop();
    put(options, at, What::Tmpfs(CString::new(data).unwrap_or_default()));
    Ok(())
}

/// Before and behind the first of these bytes.
fn split_at(text: &[u8], byte: u8) -> (&[u8], &[u8]) {
    let at = text.iter().position(|found| *found == byte).unwrap_or(text.len());
    (text.get(..at).unwrap_or_default(), text.get(at + 1..).unwrap_or_default())
}

/// A number, and k, m, g or % (tmpfs(5)). 0 is none: the kernel takes it for no limit at all.
fn is_size(value: &[u8]) -> bool {
    let (last, before) = value.split_last().unwrap_or((&b'0', value));
    let number = if b"kmgKMG%".contains(last) { before } else { value };
    number.first().is_some_and(|first| *first != b'0') && number.iter().all(u8::is_ascii_digit)
}

/// `lower=DIR[:DIR…][,upper=DIR,work=DIR]`.
fn layers(value: &OsStr) -> Result<Layers, Invalid> {
    let (mut lower, mut upper, mut work) = (Vec::new(), None, None);
    for setting in value.as_bytes().split(|byte| *byte == b',') {
        let (name, value) = split_at(setting, b'=');
        match name {
            b"lower" => {
                for folder in value.split(|byte| *byte == b':') {
                    lower.push(path(folder)?);
                }
            }
            b"upper" => upper = Some(path(value)?),
            b"work" => work = Some(path(value)?),
            _ => return Err("write lower=DIR[:DIR…][,upper=DIR,work=DIR]; a path with a comma cannot be taken".into()),
        }
    }
    let upper = match (upper, work) {
        (Some(upper), Some(work)) => Some((upper, work)),
        (None, None) => None,
        _ => return Err("upper and work go together: two empty folders on one file system".into()),
    };
    if lower.is_empty() { Err("lower=DIR is missing".into()) } else { Ok(Layers { lower, upper }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Request, parse};
    use std::ffi::OsString;

    fn ask(words: &[&str]) -> Result<crate::setup::mount::Wanted, String> {
        let words: Vec<_> = ["sexton"].iter().chain(words).chain(&["x"]).map(OsString::from).collect();
        match parse(&words, &|_| None) {
            Ok(Request::Run(options)) => Ok(options.setup.mounts),
            Ok(Request::Print(..)) => Err("text".into()),
            Err(why) => Err(why.to_string()),
        }
    }

    #[test]
    fn n4_mounts_keep_their_order() {
        let words = ["--tmpfs=/a", "--proc", "--bind", "x:/b:ro", "--dev=/d", "--sys", "--bind", "/y:/c"];
        let found: Vec<_> = ask(&words).unwrap().mounts.into_iter().map(|mount| (mount.at, mount.what)).collect();
        let wanted = [
            ("/a", What::Tmpfs(c"".into())),
            ("/proc", What::Proc),
            ("/b", What::Bind(c"x".into(), true)),
            ("/d", What::Dev),
            ("/sys", What::Sys),
            ("/c", What::Bind(c"/y".into(), false)),
        ];
        assert_eq!(found, wanted.map(|(at, what)| (PathBuf::from(at), what)));
    }

    #[test]
    fn n4_a_tmpfs_has_a_size_and_a_mode() {
        let data = |value: &str| match ask(&["--tmpfs", value]).map(|wanted| wanted.mounts[0].what.clone()) {
            Ok(What::Tmpfs(data)) => data.into_string().unwrap(),
            other => panic!("{other:?}"),
        };
        assert_eq!(data("/x:size=64m"), "size=64m");
        assert_eq!(data("/x:mode=700,size=10%"), "mode=700,size=10%");
        for value in
            ["/x:size=", "/x:size=0", "/x:size=-1", "/x:mode=9", "/x:mode=77777", "/x:uid=0", "x", "/", "/.", ""]
        {
            assert!(ask(&["--tmpfs", value]).is_err(), "{value}");
        }
    }

    #[test]
    fn n4_an_overlay_has_layers() {
        let layers = |value: &str| match ask(&["--overlay", value]).map(|wanted| wanted.root) {
            Ok(Some(Root::Overlay(layers))) => Ok(layers),
            Ok(_) => panic!(),
            Err(why) => Err(why),
        };
        let found = layers("lower=/a:/b,upper=u,work=w").unwrap();
        assert_eq!(found, Layers { lower: vec![c"/a".into(), c"/b".into()], upper: Some((c"u".into(), c"w".into())) });
        for value in
            ["", "/a", "lower=", "lower=/a:", "upper=u,work=w", "lower=/a,upper=u", "lower=/a,work=w", "lower=/a,x=y"]
        {
            assert!(layers(value).is_err(), "{value}");
        }
    }

    #[test]
    fn n4_bad_values_are_refused() {
        for words in [
            ["--bind", "/a"],
            ["--bind", "/a:"],
            ["--bind", ":/b"],
            ["--bind", "/a:b"],
            ["--bind", "/a:/b:rx"],
            ["--bind", "/a:/"],
            ["--bind", "/a:/b:ro:c"],
            ["--root", ""],
            ["--chdir", "x"],
        ] {
            assert!(ask(&words).is_err(), "{words:?}");
        }
        assert!(ask(&["--root", "/a", "--overlay", "lower=/b"]).is_err());
        assert!(matches!(ask(&["--root", "a"]).unwrap().root, Some(Root::Folder(path)) if path.as_c_str() == c"a"));
    }
}
