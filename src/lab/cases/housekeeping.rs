//! Clauses H1 to H3, H5 and H7: what an init keeps, what it survives, and what it passes on.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;

use nix::unistd::chdir;

use super::{Awaited, Case, PASS, Room, Stop, Verdict, call, case, check, check_end, check_line, fail, ready, status};
use crate::lab::container::{Container, Launch, failed};
use crate::lab::inits::{Kind, Spelling, Wish};
use crate::lab::processes::{children_of, descriptors};
use crate::signal::Signal;
use crate::sys::lab::container::{Resource, fill, limit};

/// The rows.
pub const CASES: &[Case] = &[
    case("h1-folder", "H1", 0, "the init's working directory is /, so that no mount is kept busy", folder),
    case("h1-descriptors", "H1", 0, "the init keeps no inherited descriptor open", let_go),
    case("h1-command-keeps", "H1", 0, "the command has each inherited descriptor", command_keeps),
    case("h1-stdout", "H1", 0, "stdout is at its end when the command closes it", stdout),
    case("h1-stdin", "H1", 0, "who writes to stdin sees when the command closes it", stdin),
    case("h2-full", "H2", 0, "verbose, with a stderr that takes no more, the init still works", full),
    case("h2-broken", "H2", 6, "verbose, with a stderr whose reader is gone, the init still works", broken),
    case("h2-closed", "H2", 0, "verbose, with a closed stderr, the init still works", closed),
    case("h2-full-disk", "H2", 0, "verbose, with a stderr on a full disk, the init still works", full_disk),
    case(
        "h3-no-memory",
        "H3",
        0,
        "without memory, processes and descriptors to be had, the init still works",
        no_memory,
    ),
    case("h5-listen-pid", "H5", 17, "a LISTEN_PID that names the init names the command", listen_pid),
    case(
        "h5-listen-pid-others",
        "H5",
        17,
        "any other LISTEN_PID, LISTEN_FDS and NOTIFY_SOCKET pass through",
        listen_others,
    ),
    case("h7-options-end", "H7", 9, "options behind the command's name are the command's", options_end),
    case("h7-bytes", "H7", 9, "arguments are bytes, not UTF-8", bytes),
];

/// High numbers, which nothing else has here.
const NUMBERS: [i32; 3] = [100, 101, 150];

fn folder(room: &Room) -> Verdict {
    room.needs_init()?;
    let launch = room.with(&["default"]).prepare(|| chdir("/proc").map_err(failed("chdir()")));
    let mut container = ready(launch)?;
    // By number, as names of another mount namespace may look different from here.
    let number = |link: &str| fs::metadata(link).map(|folder| (folder.dev(), folder.ino())).ok();
    let [folder, top] = ["cwd", "root"].map(|link| format!("/proc/{}/{link}", container.pid));
    let is_root = |_: &mut Container| (number(&folder) == number(&top)).then_some(());
    container.wait_for(is_root).map_err(|_| fail("/", "the folder that it was started in"))?;
    PASS
}

fn inheriting(room: &Room, words: &[&str]) -> Result<Launch, Stop> {
    let file = File::open("/")?;
    NUMBERS.iter().try_fold(room.with(words), |launch, number| Ok(launch.giving(file.try_clone()?, *number)))
}

fn let_go(room: &Room) -> Verdict {
    room.needs_init()?;
    let mut container = ready(inheriting(room, &["default"])?)?;
    let pid = container.pid;
    let kept = || descriptors(pid).into_iter().filter(|(number, _)| NUMBERS.contains(number)).count();
    let let_go = container.wait_for(|_| (kept() == 0).then_some(()));
    let_go.map_err(|_| fail("none of 3 is kept", format!("{} are", kept())))?;
    PASS
}

fn command_keeps(room: &Room) -> Verdict {
    let mut container = ready(inheriting(room, &["default"])?)?;
    let command = container.command().or_fail("a command")?;
    let kept: Vec<i32> =
        descriptors(command).into_iter().map(|(number, _)| number).filter(|number| *number > 2).collect();
    check(kept == NUMBERS, format!("it has {NUMBERS:?}"), format!("{kept:?}"))?;
    PASS
}

fn stdout(room: &Room) -> Verdict {
    let mut container = room.ready(&["let-go", "1"])?;
    let over = container.wait_for(|container| container.stdout_is_over().then_some(()));
    over.map_err(|why| fail("an end of stdout", format!("it is still open: {why}")))?;
    let end = container.has_ended();
    check(end.is_none(), "while the command runs", "it has ended")?;
    PASS
}

fn stdin(room: &Room) -> Verdict {
    let mut container = room.ready(&["let-go", "0"])?;
    let Some(mut stdin) = container.stdin.take() else { return Err(Stop::Skip("there is no stdin".into())) };
    let over = container.wait_for(|_| stdin.write_all(b"x").is_err().then_some(()));
    over.map_err(|why| fail("a broken pipe", format!("it is still open: {why}")))?;
    PASS
}

/// An init with much to say does all its work: orphans, signals, and the command's end.
fn still_works(mut container: Container) -> Result<(), Stop> {
    // Some inits write to stdout as well, which is another case.
    while container.line().or_fail("done")? != "done" {}
    container.signal(Signal::TERM);
    check_end(container.end(), 143)
}

/// With orphans, and lines to write about them.
const TALK: [&str; 5] = ["orphan", "--count", "20", "--lifetime", "1"];

fn talking(room: &Room) -> Result<Launch, Stop> {
    room.needs_init()?;
    room.with_wish(Wish::Verbose, &[&TALK[..], &["--stay"]].concat())
}

fn full(room: &Room) -> Verdict {
    let (_reader, writer) = std::io::pipe()?;
    fill(writer.as_fd()).map_err(call("write()"))?;
    still_works(ready(talking(room)?.stderr(writer))?)?;
    PASS
}

fn broken(room: &Room) -> Verdict {
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    still_works(ready(talking(room)?.stderr(writer))?)?;
    PASS
}

fn closed(room: &Room) -> Verdict {
    still_works(ready(talking(room)?.closing(2))?)?;
    PASS
}

fn full_disk(room: &Room) -> Verdict {
    let full = File::options().write(true).open("/dev/full");
    let full = full.map_err(|why| Stop::Skip(format!("there is no /dev/full: {why}")))?;
    still_works(ready(talking(room)?.stderr(OwnedFd::from(full)))?)?;
    PASS
}

fn no_memory(room: &Room) -> Verdict {
    room.needs_init()?;
    // What it does not do in the best of times it need not do now.
    without_memory(room, &[]).map_err(|_| Stop::Skip("it does not work here with all of them either".into()))?;
    let all = [Resource::Memory, Resource::Data, Resource::Processes, Resource::FileSize, Resource::Signals];
    without_memory(room, &all)?;
    without_memory(room, &[&all[..], &[Resource::Files]].concat())
}

fn without_memory(room: &Room, lost: &[Resource]) -> Verdict {
    let mut container = room.ready(&["crowd", "--live", "20", "--dying", "50"])?;
    container.idle().or_fail("an init that comes to rest")?;
    for resource in lost {
        limit(container.pid, *resource, 0).map_err(call("prlimit()"))?;
    }
    if let Some(stdin) = &mut container.stdin {
        stdin.write_all(b"\n")?;
    }
    check_line(&mut container, "done")?;
    let pid = container.pid;
    let reaped = container.wait_for(|_| (children_of(pid).len() == 21).then_some(()));
    reaped.map_err(|why| fail("50 orphans are reaped", format!("{} are left, and {why}", children_of(pid).len())))?;
    container.signal(Signal::TERM);
    check_end(container.late_end(), 143)?;
    PASS
}

/// The command's pid and variables, from `subject status`.
fn environment(launch: Launch) -> Result<(i64, Vec<String>), Stop> {
    let status = status(launch)?;
    let variables = status.get("env").and_then(serde_json::Value::as_array).cloned().unwrap_or_default();
    let variables = variables.iter().filter_map(serde_json::Value::as_str).map(str::to_owned).collect();
    Ok((status.get("pid").and_then(serde_json::Value::as_i64).unwrap_or(0), variables))
}

fn named(variables: &[String], name: &str) -> String {
    variables.iter().find_map(|variable| variable.strip_prefix(name)).unwrap_or("unset").to_owned()
}

fn listen_pid(room: &Room) -> Verdict {
    let (pid, variables) = environment(room.with(&["status"]).variable("LISTEN_PID", "1").variable("LISTEN_FDS", "2"))?;
    let seen = named(&variables, "LISTEN_PID=");
    check(seen == pid.to_string(), format!("LISTEN_PID={pid}, the command's"), format!("LISTEN_PID={seen}"))?;
    PASS
}

fn listen_others(room: &Room) -> Verdict {
    let given = [("LISTEN_PID", "77"), ("LISTEN_FDS", "2"), ("NOTIFY_SOCKET", "@n")];
    let launch = given.iter().fold(room.with(&["status"]), |launch, (name, value)| launch.variable(name, value));
    let (_, variables) = environment(launch)?;
    for (name, value) in given {
        let seen = named(&variables, &format!("{name}="));
        check(seen == value, format!("{name}={value}"), format!("{name}={seen}"))?;
    }
    PASS
}

fn options_end(room: &Room) -> Verdict {
    room.needs_init()?;
    let mut bare = room.init.clone();
    // The word that says it is what must not be needed.
    if bare.kind != Kind::Other && bare.words.last().is_some_and(|word| word == "--") {
        bare.words.pop();
    }
    let bare = Room { init: bare, lab: room.lab.clone(), is_root: room.is_root, patience: room.patience };
    let mut container = bare.with(&["arguments", "-h", "--version", "-g"]).start()?;
    for expected in ["-h", "--version", "-g"] {
        check_line(&mut container, expected)?;
    }
    check_end(container.end(), 0)?;
    PASS
}

fn bytes(room: &Room) -> Verdict {
    let mut command = room.subject(&["arguments"]);
    command.push(OsString::from_vec(b"\xff\xfe \xc3(".to_vec()));
    let mut container = room.launch(&Spelling::default(), command).start()?;
    check_line(&mut container, r"\xff\xfe \xc3(")?;
    check_end(container.end(), 0)?;
    PASS
}
