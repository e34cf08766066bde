//! Clauses T: how a container ends.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::ptrace::{self, Options};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use super::{Awaited, Case, PASS, Room, Stop, Verdict, call, case, check, check_end, fail, handshake, ready};
use crate::lab::container::{Container, Launch};
use crate::lab::inits::{Spelling, Wish};
use crate::lab::processes::{all, state};
use crate::signal::Signal;
use crate::sys::lab::container::call_of;
use crate::sys::signal::kill;

/// The rows.
pub const CASES: &[Case] = &[
    case("t1-background", "T1", 11, "a background process that needs 0.3 s after TERM gets both", background),
    case("t1-daemon", "T1", 12, "at a stop a setsid'ed daemon gets TERM and the time to finish", daemon),
    case("t1-stopped", "T1", 19, "a leftover that is stopped gets TERM, and CONT to see it", stopped),
    case("t1-stubborn", "T1", 0, "a leftover that ignores TERM does not hold the end up for ever", stubborn),
    case("t1-no-delay", "T1", 0, "with nothing left the end comes within 3 s", no_delay),
    case("t1-all-ended", "T1", 0, "not PID 1, no leftover survives the init", all_ended),
    case("t2-others", "T2", 0, "not PID 1, a process that is no descendant gets no signal", others),
    case("t3-kill-after", "T3", 0, "a command that ignores TERM is killed after the time, and is 137", kill_after),
    case("t5-daemonised", "T5", 13, "a command that daemonises itself lives on", daemonised),
    case("t8-parent-death", "T8", 15, "the parent's death is told", parent_death),
    case("t8-parent-death-race", "T8", 15, "also if it died just before prctl(PR_SET_PDEATHSIG)", parent_death_race),
    case("t1-stopped-command", "T1", 19, "a stopped command gets TERM once CONT is forwarded", stopped_command),
];

/// A leftover comes to its end, and the init after it.
fn finishes(container: &mut Container, code: i32) -> Verdict {
    let expected = "it finishes";
    match container.late_line() {
        Ok(line) => check(line == "finished", expected, format!("{line:?}"))?,
        Err(why) => return Err(fail(expected, gone(container).unwrap_or(why))),
    }
    check_end(container.late_end(), code)?;
    PASS
}

/// All is over too early, if it is.
fn gone(container: &mut Container) -> Option<String> {
    container.has_ended().map(|end| format!("it is gone before it was done, with {end}"))
}

fn background(room: &Room) -> Verdict {
    finishes(&mut room.ready(&["leave-behind", "--after", "300", "--code", "7"])?, 7)
}

fn daemon(room: &Room) -> Verdict {
    let mut container = room.ready(&["leave-behind", "--after", "300", "--session", "--stay"])?;
    container.signal(Signal::TERM);
    finishes(&mut container, 0)
}

fn stopped(room: &Room) -> Verdict {
    finishes(&mut room.ready(&["leave-behind", "--after", "0", "--stopped", "--code", "5"])?, 5)
}

fn stubborn(room: &Room) -> Verdict {
    let mut container = room.ready(&["leave-behind", "--session", "--code", "3"])?;
    check_end(container.late_end(), 3)?;
    PASS
}

/// Far more than an end takes, and less than the times that inits wait for leftovers.
const AT_ONCE: Duration = Duration::from_secs(3);

fn no_delay(room: &Room) -> Verdict {
    // What a slow machine makes of the same without an init does not count.
    let time = |launch: Launch| {
        let began = Instant::now();
        let mut container = launch.start()?;
        container.late_end().or_fail("an end").map(|_| began.elapsed())
    };
    let alone = Launch::new(room.lab.clone(), room.subject(&["exit"]), room.patience);
    let (alone, taken) = (time(alone)?, time(room.with(&["exit"]))?);
    check(taken < AT_ONCE + 5 * alone, "an end within 3 s", format!("{:.1} s", taken.as_secs_f32()))?;
    PASS
}

fn all_ended(room: &Room) -> Verdict {
    room.needs_init()?;
    let mut container = ready(room.with(&["leave-behind", "--session", "--code", "3"]).not_pid1())?;
    check_end(container.late_end(), 3)?;
    let left = all().into_iter().filter(|pid| state(*pid).is_some_and(|state| state != 'Z')).count();
    check(left == 0, "no leftover lives", format!("{left} of 1"))?;
    PASS
}

fn others(room: &Room) -> Verdict {
    room.needs_init()?;
    let alone = Launch::new(room.lab.clone(), room.subject(&["trap", "--stay"]), room.patience);
    let mut other = ready(alone.not_pid1())?;
    let mut container = ready(room.with(&["leave-behind", "--session", "--stay"]).not_pid1())?;
    container.signal(Signal::TERM);
    container.late_end().or_fail("an end")?;
    check(other.has_ended().is_none(), "it lives", "it has ended")?;
    other.signal(usr1());
    let line = other.line().or_fail("it lives")?;
    check(line.starts_with("SIGUSR1 "), "no signal but our own", format!("{line:?}"))?;
    PASS
}

fn kill_after(room: &Room) -> Verdict {
    let mut container = ready(room.with_wish(Wish::KillAfter, &["trap", "--stay"])?)?;
    container.signal(Signal::TERM);
    check_end(container.late_end(), 137)?;
    PASS
}

fn daemonised(room: &Room) -> Verdict {
    // Where there is no option for it, there is the usual behaviour.
    let spelling = Wish::Wait.spelled(room.init.kind).unwrap_or_default();
    let mut daemon = room.subject(&["daemonize", "--"]);
    daemon.extend(room.subject(&["trap"]));
    let mut container = ready(room.launch(&spelling, daemon))?;
    let line = container.line();
    let seen = || line.clone().map_or_else(|why| why, |line| format!("{line:?}"));
    check(line == Ok("ready".into()), "the daemon lives", gone(&mut container).unwrap_or_else(seen))?;
    // Long enough for an end that has begun.
    std::thread::sleep(Duration::from_millis(200));
    let end = container.has_ended();
    check(end.is_none(), "the daemon lives", end.map_or_else(String::new, |end| format!("all is over: {end}")))?;
    PASS
}

fn usr1() -> Signal {
    Signal::new(10).unwrap_or(Signal::HUP)
}

/// The init that wants USR1 at its parent's death. It waits for CONT before it is executed.
struct Orphaned {
    container: Container,
    init: i32,
}

/// Starts a process that starts the init and ends at our word.
fn under_a_parent(room: &Room, spelling: &Spelling) -> Result<Launch, Stop> {
    let mut words = room.subject(&["short-parent", "--"]);
    let Some(program) = &room.init.program else { return Err(Stop::Skip("there is no init".into())) };
    let mut command = room.init.words_with(spelling);
    if let Some(first) = command.first_mut() {
        *first = program.clone().into_os_string();
    }
    words.extend(command);
    words.extend(room.subject(&["receive"]));
    let lab: PathBuf = room.lab.clone();
    // Blocked, it waits for the command to ask for it.
    Ok(room.with(&[]).program(lab, words).not_pid1().blocking(usr1()))
}

impl Orphaned {
    fn start(room: &Room) -> Result<Self, Stop> {
        let spelling = room.spelled(Wish::ParentDeath)?;
        let mut container = under_a_parent(room, &spelling)?.start()?;
        let line = container.line().or_fail("a parent")?;
        let init = line.strip_prefix("child ").and_then(|pid| pid.parse().ok());
        let init = init.ok_or_else(|| fail("a parent", format!("{line:?}")))?;
        Ok(Self { container, init })
    }

    /// Ends the parent, and waits until the init has another one.
    fn end_parent(&mut self) -> Result<(), Stop> {
        self.container.signal(Signal::KILL);
        let own = i32::try_from(std::process::id())?;
        let init = self.init;
        let is_ours = || crate::procfs::stat(init).is_none_or(|stat| stat.parent == own);
        let ended = self.container.wait_for(|container| (container.has_ended().is_some() && is_ours()).then_some(()));
        ended.map(drop).or_fail("the parent's end")
    }

    /// The command gets USR1, from nobody but the kernel.
    fn is_told(&mut self) -> Result<(), Stop> {
        // The container's end is the parent's, of which nothing has to be told.
        let line = self.container.line().map_err(|_| fail("USR1 for the parent's death", "no signal"))?;
        check(line.starts_with("10 "), "USR1 for the parent's death", format!("{line:?}"))
    }
}

fn parent_death(room: &Room) -> Verdict {
    let mut orphaned = Orphaned::start(room)?;
    kill(orphaned.init, Some(Signal::CONT)).map_err(call("kill()"))?;
    handshake(&mut orphaned.container)?;
    orphaned.end_parent()?;
    orphaned.is_told()?;
    PASS
}

/// A debugger stops the init at its call of prctl(PR_SET_PDEATHSIG), and meanwhile the parent dies.
fn parent_death_race(room: &Room) -> Verdict {
    let mut orphaned = Orphaned::start(room)?;
    let init = Pid::from_raw(orphaned.init);
    let no_tracing = |errno| Stop::Skip(format!("no tracing here: ptrace(): {errno}"));
    ptrace::seize(init, Options::PTRACE_O_TRACESYSGOOD).map_err(no_tracing)?;
    ptrace::interrupt(init).map_err(no_tracing)?;
    let _ = kill(orphaned.init, Some(Signal::CONT));
    let arms = |pid| {
        call_of(pid).map(|call| {
            call.is_some_and(|call| {
                call.number == libc::SYS_prctl && call.first == u64::from(libc::PR_SET_PDEATHSIG.unsigned_abs())
            })
        })
    };
    let began = Instant::now();
    loop {
        check(began.elapsed() < room.patience, "a call of prctl(PR_SET_PDEATHSIG)", "none")?;
        match waitpid(init, None).map_err(call("waitpid()"))? {
            WaitStatus::PtraceSyscall(pid) if arms(pid).map_err(no_tracing)? => break,
            WaitStatus::Exited(..) | WaitStatus::Signaled(..) => {
                return Err(fail("a call of prctl(PR_SET_PDEATHSIG)", "the init has ended"));
            }
            WaitStatus::Stopped(pid, signal) if signal != nix::sys::signal::Signal::SIGTRAP => {
                ptrace::syscall(pid, Some(signal).filter(|signal| *signal != nix::sys::signal::Signal::SIGSTOP))
                    .map_err(no_tracing)?;
            }
            _ => ptrace::syscall(init, None).map_err(no_tracing)?,
        }
    }
    orphaned.end_parent()?;
    ptrace::detach(init, None).map_err(no_tracing)?;
    let line = orphaned.container.line().or_fail("a command that starts")?;
    check(line == "ready", "a command that starts", format!("{line:?}"))?;
    orphaned.is_told()?;
    PASS
}

fn stopped_command(room: &Room) -> Verdict {
    let mut container = room.ready(&["default"])?;
    let command = container.command().or_fail("a command")?;
    kill(command, Some(Signal::STOP)).map_err(call("kill()"))?;
    let stops = container.wait_for(|_| (state(command) == Some('T')).then_some(()));
    stops.or_fail("a command that stops")?;
    container.signal(Signal::TERM);
    container.idle().or_fail("an init that takes its signals")?;
    container.signal(Signal::CONT);
    check_end(container.end(), 143)?;
    PASS
}
