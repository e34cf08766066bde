//! Clauses Y: the terminal.
#![forbid(unsafe_code)]

use std::os::fd::RawFd;
use std::time::Instant;

use super::{Awaited, Case, PASS, Room, Stop, Verdict, call, case, check, check_end, fail, ready, status};
use crate::lab::container::{Container, Launch, Place};
use crate::lab::processes::state;
use crate::lab::pty::{INTERRUPT, Pty, QUIT, SUSPEND};
use crate::signal::Signal;
use crate::sys::process::{WaitStatus, Waited, Who, wait};
use crate::sys::signal::kill;

/// The rows.
pub const CASES: &[Case] = &[
    case("y1-foreground", "Y1", 0, "the command's group is the terminal's foreground", foreground),
    case("y1-foreground-job", "Y1", 0, "the same, not PID 1, as the job of a shell", foreground_job),
    case("y1-background", "Y1", 0, "started in the background it does not take the terminal", background),
    case("y2-stays-stopped", "Y2", 0, "as PID 1, Ctrl-Z stops the command alone, and CONT continues it", stays_stopped),
    case("y2-job-control", "Y2", 0, "not PID 1, Ctrl-Z stops it with its command, and fg continues both", job_control),
    case("y3-closed-stdin", "Y3", 7, "a closed stdin is no error", closed_stdin),
    case("y3-closed-output", "Y3", 0, "a closed stdout or stderr is no error", closed),
    case("y3-not-ours", "Y3", 0, "a stdin that is somebody else's terminal is no error", not_ours),
    case("y3-hung-up", "Y3", 0, "a stdin that is a terminal which hung up is no error", hung_up),
    case("y4-keys", "Y4", 0, "Ctrl-C, Ctrl-\\ and a window's new size reach the command once", keys),
    case("y4-start", "Y4", 14, "with a terminal no signal comes that nobody sent", start),
    case("y4-hang-up", "Y4", 0, "a hang-up reaches the command as HUP, once", hang_up),
];

fn open() -> Result<Pty, Stop> {
    Pty::open().map_err(|why| Stop::Skip(format!("no terminal can be made: {why}")))
}

fn number(status: &serde_json::Value, name: &str) -> Result<i64, Stop> {
    let number = status.get(name).and_then(serde_json::Value::as_i64);
    number.ok_or_else(|| fail(format!("{name} in the command's status"), status))
}

fn is_foreground(launch: Launch) -> Verdict {
    let status = status(launch)?;
    let (group, foreground) = (number(&status, "pgid")?, number(&status, "foreground")?);
    check(group == foreground, format!("foreground group {group}, the command's"), foreground)?;
    PASS
}

fn foreground(room: &Room) -> Verdict {
    let pty = open()?;
    is_foreground(room.with(&["status"]).stdin(pty.slave()?).place(Place::Terminal))
}

fn foreground_job(room: &Room) -> Verdict {
    let pty = open()?;
    pty.become_shell()?;
    is_foreground(room.with(&["status"]).stdin(pty.slave()?).not_pid1().place(Place::Job))
}

fn background(room: &Room) -> Verdict {
    room.needs_init()?;
    let pty = open()?;
    pty.become_shell()?;
    let own = nix::unistd::getpgrp().as_raw();
    let launch = room.with(&["default"]).stdin(pty.slave()?).not_pid1().place(Place::BackgroundJob);
    let _container = ready(launch)?;
    let seen = pty.foreground();
    check(seen == own, "the foreground is the shell's", format!("it is group {seen}, the shell is {own}"))?;
    PASS
}

/// Waits until a process has this state.
fn await_state(container: &mut Container, pid: i32, letter: char) -> Result<(), Stop> {
    let word = if letter == 'T' { "stops" } else { "goes on" };
    container.wait_for(|_| (state(pid) == Some(letter)).then_some(())).or_fail(&format!("the command {word}"))
}

fn stays_stopped(room: &Room) -> Verdict {
    room.needs_init()?;
    let mut pty = open()?;
    let mut container = ready(room.with(&["trap"]).stdin(pty.slave()?).place(Place::Terminal))?;
    let command = container.command().or_fail("a command")?;
    for _ in 0..3 {
        pty.write(SUSPEND)?;
        await_state(&mut container, command, 'T')?;
        container.signal(Signal::CONT);
        let line = container.line().or_fail("CONT reaches the command")?;
        check(line.starts_with("SIGCONT "), "CONT reaches the command", format!("{line:?}"))?;
    }
    container.signal(Signal::TERM);
    check_end(container.end(), 0)?;
    PASS
}

fn job_control(room: &Room) -> Verdict {
    room.needs_init()?;
    let mut pty = open()?;
    pty.become_shell()?;
    let mut container = ready(room.with(&["trap"]).stdin(pty.slave()?).not_pid1().place(Place::Job))?;
    let command = container.command().or_fail("a command")?;
    let own = nix::unistd::getpgrp().as_raw();
    for _ in 0..2 {
        pty.write(SUSPEND)?;
        await_state(&mut container, command, 'T')?;
        let init = container.pid;
        // What a shell waits for.
        let stops = container.wait_for(|_| {
            matches!(wait(Who::Child(init), true), Waited::Changed(_, WaitStatus::Stopped(_))).then_some(())
        });
        stops.or_fail("the init stops too, so that the shell sees it")?;
        pty.set_foreground(own)?;
        // The shell's fg.
        pty.set_foreground(init)?;
        kill(-init, Some(Signal::CONT)).map_err(call("kill()"))?;
        let line = container.line().or_fail("the command is continued")?;
        check(line.starts_with("SIGCONT "), "the command is continued", format!("{line:?}"))?;
        pty.write(INTERRUPT)?;
        let line = container.line().or_fail("Ctrl-C reaches the command")?;
        check(line.starts_with("SIGINT "), "Ctrl-C reaches the command", format!("{line:?}"))?;
    }
    PASS
}

fn runs_without(room: &Room, numbers: &[RawFd]) -> Result<(), Stop> {
    let launch = numbers.iter().fold(room.with(&["exit", "7"]), |launch, number| launch.closing(*number));
    check_end(launch.start()?.end().map_err(|why| format!("closed: {numbers:?}: {why}")), 7)
}

fn closed_stdin(room: &Room) -> Verdict {
    runs_without(room, &[0])?;
    runs_without(room, &[0, 1, 2])?;
    PASS
}

fn closed(room: &Room) -> Verdict {
    for numbers in [&[1][..], &[2], &[1, 2]] {
        runs_without(room, numbers)?;
    }
    PASS
}

fn not_ours(room: &Room) -> Verdict {
    let pty = open()?;
    check_end(room.with(&["exit", "7"]).stdin(pty.slave()?).start()?.end(), 7)?;
    PASS
}

fn hung_up(room: &Room) -> Verdict {
    let pty = open()?;
    let slave = pty.slave()?;
    pty.hang_up();
    check_end(room.with(&["exit", "7"]).stdin(slave).start()?.end(), 7)?;
    PASS
}

/// The names of the signals that `subject trap` has printed until the init has nothing more to forward.
fn names(container: &mut Container) -> Result<Vec<String>, Stop> {
    let expected = "a command that hears signals";
    let name = |line: String| line.split(' ').next().unwrap_or_default().to_owned();
    let mut all = Vec::new();
    for signal in [10, 12] {
        container.idle().or_fail(expected)?;
        let sentinel = Signal::new(signal).unwrap_or(Signal::KILL);
        container.signal(sentinel);
        loop {
            let line = name(container.line().or_fail(expected)?);
            if line == sentinel.to_string() {
                break;
            }
            all.push(line);
        }
    }
    all.sort();
    Ok(all)
}

fn keys(room: &Room) -> Verdict {
    let mut pty = open()?;
    let mut container = ready(room.with(&["trap"]).stdin(pty.slave()?).place(Place::Terminal))?;
    for (round, (key, name)) in (1..).zip([(INTERRUPT, "SIGINT"), (QUIT, "SIGQUIT"), ("", "SIGWINCH")]) {
        if key.is_empty() {
            pty.resize(30 + round, 100)?;
        } else {
            pty.write(key)?;
        }
        // The terminal signals by itself.
        let first = container.line().or_fail(name)?;
        check(first.starts_with(&format!("{name} ")), name, format!("{first:?}"))?;
        let more = names(&mut container)?;
        check(more.is_empty(), format!("{name} once"), format!("and then {more:?}"))?;
    }
    PASS
}

/// How often an init starts on a terminal.
const STARTS: u32 = 10;

fn start(room: &Room) -> Verdict {
    for trial in 1..=STARTS {
        let pty = open()?;
        let mut container = ready(room.with(&["trap"]).stdin(pty.slave()?).place(Place::Terminal))?;
        let seen = names(&mut container)?;
        check(seen.is_empty(), "no signal", format!("trial {trial} of {STARTS}: {seen:?}"))?;
        // One that came before the handler was there has ended the command: its default action.
        let mut container = room.with(&["exit", "9"]).stdin(pty.slave()?).start()?;
        check_end(container.end(), 9)?;
    }
    Ok(super::Pass(Some(STARTS)))
}

fn hang_up(room: &Room) -> Verdict {
    let pty = open()?;
    let mut container = ready(room.with(&["trap"]).stdin(pty.slave()?).place(Place::Terminal))?;
    pty.hang_up();
    // The kernel sends CONT with it, to whoever leads the session.
    let (mut hups, began) = (0, Instant::now());
    while hups == 0 {
        let line = container.line().or_fail("HUP")?;
        hups += usize::from(line.starts_with("SIGHUP "));
        check(began.elapsed() < room.patience, "HUP", format!("{line:?}"))?;
    }
    let more = names(&mut container)?;
    hups += more.iter().filter(|name| *name == "SIGHUP").count();
    check(hups == 1, "HUP once", format!("{hups} times"))?;
    PASS
}
