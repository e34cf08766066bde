//! Clauses R: reaping.
#![forbid(unsafe_code)]

use std::fs;
use std::io::Write;
use std::time::{Duration, Instant};

use super::{Awaited, Case, PASS, Pass, Room, Stop, Verdict, case, check, check_end, check_line, fail, ready, status};
use crate::lab::container::Container;
use crate::lab::inits::Wish;
use crate::lab::processes::{children_of, state, status_field, zombies_of};
use crate::signal::Signal;

/// The rows.
pub const CASES: &[Case] = &[
    case("r1-orphans", "R1", 0, "200 orphans that die as PID 1's children are all gone", orphans),
    case("r1-subreaper", "R1", 0, "not PID 1, the init takes the orphans below it and reaps them", subreaper),
    case(
        "r2-sigchld-ignored",
        "R2",
        1,
        "started with SIGCHLD ignored, it still sees the command's end",
        sigchld_ignored,
    ),
    case("r2-given-back", "R2", 0, "and the command gets SIGCHLD ignored, as it came in", given_back),
    case("r3-same-instant", "R3", 10, "command and orphans end at once: the status is right", same_instant),
    case("r4-cost", "R4", 18, "an orphan's end costs no more among 3,000 live orphans", cost),
    case("r5-idle", "R5", 0, "no wake-up in 3 idle seconds", idle),
    case("r6-named", "R6", 0, "each reaped orphan is named on stderr", named),
];

fn orphans(room: &Room) -> Verdict {
    let mut container = room.ready(&["orphan", "--count", "200", "--stay"])?;
    check_line(&mut container, "done")?;
    gone(&mut container)?;
    PASS
}

/// No zombie is left below the init.
fn gone(container: &mut Container) -> Result<(), Stop> {
    let pid = container.pid;
    let mut left = 0;
    let gone = container.wait_for(|_| {
        left = zombies_of(pid).len();
        (left == 0).then_some(())
    });
    gone.map_err(|why| fail("no zombie is left", format!("{left} zombies, and {why}")))
}

fn subreaper(room: &Room) -> Verdict {
    room.needs_init()?;
    let orphans = ["orphan", "--count", "5", "--lifetime", "300", "--stay"];
    let mut container = ready(room.with(&orphans).not_pid1())?;
    check_line(&mut container, "done")?;
    let command = container.command().or_fail("a command")?;
    let pid = container.pid;
    let is_orphan = |child: &i32| *child != command;
    // Those that the init does not take come to us: we are PID 1 here.
    let strays = children_of(1).into_iter().filter(|child| *child != pid && is_orphan(child)).count();
    check(strays == 0, "its orphans are its children", format!("{strays} of 5 are PID 1's"))?;
    gone(&mut container)?;
    let gone = container.wait_for(|_| (children_of(pid) == [command]).then_some(()));
    gone.or_fail("its orphans end and are gone")?;
    PASS
}

fn sigchld_ignored(room: &Room) -> Verdict {
    let mut container = room.with(&["exit", "7"]).ignoring(Signal::CHLD).start()?;
    check_end(container.end(), 7)?;
    PASS
}

fn given_back(room: &Room) -> Verdict {
    let status = status(room.with(&["status"]).ignoring(Signal::CHLD))?;
    let ignored = status.get("ignored").and_then(serde_json::Value::as_str).unwrap_or_default();
    let set = u64::from_str_radix(ignored, 16)?;
    check(set & 1 << (Signal::CHLD.number() - 1) != 0, "CHLD is ignored in the command", format!("ignored: {set:#x}"))?;
    PASS
}

/// How often command and orphans end at once.
const RACES: u32 = 60;

fn same_instant(room: &Room) -> Verdict {
    for trial in 1..=RACES {
        let (code, count) = (trial.to_string(), (1 + trial % 10).to_string());
        let mut container = room.with(&["exit-race", &code, "--count", &count]).start()?;
        let expected = format!("exit code {code}");
        let end = container.end().map_err(|why| fail(&expected, format!("trial {trial} of {RACES}: {why}")))?;
        check(end.code().unsigned_abs() == trial, expected, format!("trial {trial} of {RACES}: {end}"))?;
    }
    Ok(Pass(Some(RACES)))
}

/// How many live orphans there are, and how many die among them.
const CROWD: u32 = 3000;
const DYING: u32 = 300;
/// What reaping one may cost more in a crowd, whatever it costs without, in nanoseconds: page faults, cold caches.
const ALLOWED: u64 = 10_000;

fn cost(room: &Room) -> Verdict {
    room.needs_init()?;
    let alone = cost_of_one(room, 0)?;
    let crowded = cost_of_one(room, CROWD)?;
    let told = |nanoseconds: u64| format!("{:.1} µs", Duration::from_nanos(nanoseconds).as_secs_f64() * 1e6);
    let allowed = alone * 2 + ALLOWED;
    check(
        crowded <= allowed,
        format!("at most {} each: it is {} without the crowd", told(allowed), told(alone)),
        told(crowded),
    )?;
    PASS
}

/// The init's CPU time for an orphan's end, in nanoseconds, while so many other orphans live.
fn cost_of_one(room: &Room, live: u32) -> Result<u64, Stop> {
    let (live, dying) = (live.to_string(), DYING.to_string());
    let mut container = room.with(&["crowd", "--live", &live, "--dying", &dying]).start()?;
    let first = container.line().map_err(|why| Stop::Skip(format!("no {live} orphans here: {why}")))?;
    check(first == "ready", "a command that starts", format!("{first:?}"))?;
    // The first time is for whatever is done once: another way to reap, pages touched first.
    let mut used = 0;
    for _ in 0..2 {
        container.idle().or_fail("an init that comes to rest")?;
        let before = cpu(container.pid)?;
        if let Some(stdin) = &mut container.stdin {
            stdin.write_all(b"\n")?;
        }
        check_line(&mut container, "done")?;
        gone(&mut container)?;
        container.idle().or_fail("an init that comes to rest")?;
        used = cpu(container.pid)? - before;
    }
    Ok(used / u64::from(DYING))
}

/// CPU time so far, in nanoseconds.
fn cpu(pid: i32) -> Result<u64, Stop> {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat"))
        .map_err(|_| Stop::Skip("this kernel has no /proc/PID/schedstat".into()))?;
    Ok(text.split_ascii_whitespace().next().unwrap_or_default().parse()?)
}

fn idle(room: &Room) -> Verdict {
    room.needs_init()?;
    let mut container = room.ready(&["orphan", "--count", "3", "--stay"])?;
    check_line(&mut container, "done")?;
    let pid = container.pid;
    let switches =
        || status_field(pid, "voluntary_ctxt_switches").and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let mut last = (switches(), Instant::now());
    // It has come to rest when it sleeps for longer than anything that it still has to do takes.
    let settled = container.wait_for(|_| {
        let now = switches();
        if now != last.0 {
            last = (now, Instant::now());
        }
        (last.1.elapsed() > Duration::from_millis(500) && state(pid) == Some('S')).then_some(())
    });
    settled.or_fail("an init that comes to rest")?;
    let before = switches();
    std::thread::sleep(Duration::from_secs(3));
    let count = switches() - before;
    check(count == 0, "no wake-up in 3 s", format!("{count}"))?;
    PASS
}

fn named(room: &Room) -> Verdict {
    let spelling = room.spelled(Wish::NameReaped)?;
    let mut container = ready(room.launch(&spelling, room.subject(&["orphan", "--count", "3", "--stay"])))?;
    check_line(&mut container, "done")?;
    let lines = |text: &str| {
        text.lines().filter(|line| line.to_lowercase().contains("reaped zombie process with pid=")).count()
    };
    let named = container.wait_for(|container| (lines(&container.stderr_so_far()) >= 3).then_some(()));
    named.map_err(|why| {
        fail("3 lines about 3 orphans", format!("{} of them, and {why}", lines(&container.stderr_so_far())))
    })?;
    PASS
}
