//! Clause H4: what an init needs, which is nothing.
#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::unistd::{Gid, Uid, chdir, chroot, setgroups, setresgid, setresuid};

use super::{Awaited, Case, PASS, Room, Stop, Verdict, case, check, check_end, check_line, fail, handshake};
use crate::lab::container::{Launch, failed};
use crate::lab::{Trouble, deny};
use crate::signal::Signal;

/// The rows.
pub const CASES: &[Case] = &[
    case("h4-no-proc", "H4", 0, "it works without /proc", no_proc),
    case("h4-no-dev", "H4", 0, "it works without /dev", no_dev),
    case("h4-read-only", "H4", 0, "it works on a read-only root", read_only),
    case("h4-any-user", "H4", 0, "it works as any user", any_user),
    case("h4-scratch", "H4", 0, "it works in an image of nothing but itself and the command", scratch),
    case("h4-enosys", "H4", 0, "it works where newer system calls answer ENOSYS", enosys),
    case("h4-eperm", "H4", 0, "it works where newer system calls answer EPERM", eperm),
];

/// The init does there what it does here.
fn works(room: &Room, launch: impl Fn(&[&str]) -> Result<Launch, Stop>) -> Verdict {
    works_here(|words| Ok(room.with(words))).map_err(|stop| match stop {
        Stop::Fail { expected, seen } => Stop::Skip(format!("it works nowhere: expected {expected}, seen {seen}")),
        stop => stop,
    })?;
    works_here(launch)
}

/// The init does its work: forwards a signal, reaps orphans, passes a status on.
fn works_here(launch: impl Fn(&[&str]) -> Result<Launch, Stop>) -> Verdict {
    let start = |words: &[&str]| launch(words)?.start().map_err(|why| fail("an init that starts", why));
    let mut container = start(&["trap"])?;
    handshake(&mut container)?;
    container.signal(Signal::HUP);
    let line = container.line().or_fail("HUP is forwarded")?;
    check(line.starts_with("SIGHUP "), "HUP is forwarded", format!("{line:?}"))?;
    container.signal(Signal::TERM);
    check_end(container.end(), 0)?;
    let mut container = start(&["orphan", "--count", "20", "--code", "7"])?;
    handshake(&mut container)?;
    check_line(&mut container, "done")?;
    check_end(container.late_end(), 7)?;
    PASS
}

/// Nothing is to be seen of this folder any more.
fn hide(folder: &'static str) -> impl Fn() -> Result<(), Trouble> {
    move || {
        if !Path::new(folder).is_dir() {
            return Ok(());
        }
        let flags = MsFlags::MS_RDONLY;
        mount(Some("none"), folder, Some("tmpfs"), flags, None::<&str>).map_err(failed("mount(\"tmpfs\")"))
    }
}

fn no_proc(room: &Room) -> Verdict {
    works(room, |words| Ok(room.with(words).prepare(hide("/proc"))))
}

fn no_dev(room: &Room) -> Verdict {
    works(room, |words| Ok(room.with(words).prepare(hide("/dev"))))
}

fn read_only(room: &Room) -> Verdict {
    room.needs_root("a read-only root")?;
    works(room, |words| {
        Ok(room.with(words).prepare(|| {
            let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
            mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).map_err(failed("mount(MS_RDONLY)"))
        }))
    })
}

/// Nobody's number.
const USER: u32 = 1_234_567;

fn become_user() -> Result<(), Trouble> {
    let (group, user) = (Gid::from_raw(USER), Uid::from_raw(USER));
    setgroups(&[]).map_err(failed("setgroups()"))?;
    setresgid(group, group, group).map_err(failed("setresgid()"))?;
    setresuid(user, user, user).map_err(failed("setresuid()"))
}

fn any_user(room: &Room) -> Verdict {
    room.needs_root("another user")?;
    // Where that user can come, wherever the programs are.
    let folder = room.folder()?;
    let copy = |from: &Path, name: &str| fs::copy(from, folder.join(name)).map(|_| folder.join(name));
    let mut init = room.init.clone();
    init.program = init.program.map(|program| copy(&program, "init")).transpose()?;
    let lab = copy(&room.lab, "lab")?;
    let there = Room { init, lab, is_root: room.is_root, patience: room.patience };
    works(room, |words| Ok(there.with(words).prepare(become_user)))
}

fn enosys(room: &Room) -> Verdict {
    works(room, |words| denied(room, words, "ENOSYS"))
}

fn eperm(room: &Room) -> Verdict {
    works(room, |words| denied(room, words, "EPERM"))
}

fn denied(room: &Room, words: &[&str], errno: &'static str) -> Result<Launch, Stop> {
    let answer: deny::Answer = errno.parse().map_err(|why| Stop::Skip(format!("{errno}: {why}")))?;
    Ok(room.with(words).prepare(move || deny::install(answer)))
}

fn is_static(program: &Path) -> Result<bool, Stop> {
    // The program header that names a loader (PT_INTERP) names it in the file's first page.
    let head = fs::read(program)?;
    Ok(!head.iter().take(4096).copied().collect::<Vec<_>>().windows(4).any(|bytes| bytes == b"/ld-"))
}

fn scratch(room: &Room) -> Verdict {
    if !is_static(&room.lab)? {
        return Err(Stop::Skip("sexton-lab itself is not static".into()));
    }
    let image = room.folder()?;
    fs::copy(&room.lab, image.join("lab"))?;
    if let Some(program) = &room.init.program {
        fs::copy(program, image.join("init"))?;
    }
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(None::<&str>, &image, None::<&str>, flags, None::<&str>).map_err(failed("mount(MS_RDONLY)"))?;
    works(room, |words| {
        let image = image.clone();
        let mut command = room.subject(words);
        if let Some(first) = command.first_mut() {
            *first = "/lab".into();
        }
        let launch = if room.init.program.is_some() {
            let all = room.init.words.iter().cloned().chain(command).collect();
            room.with(words).program("/init".into(), all)
        } else {
            room.with(words).program("/lab".into(), command)
        };
        Ok(launch.prepare(move || {
            chroot(&image).map_err(failed("chroot()"))?;
            chdir("/").map_err(failed("chdir()"))
        }))
    })
}
