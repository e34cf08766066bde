//! Clauses S: signals.
#![forbid(unsafe_code)]

use std::fs::File;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use super::{Awaited, Case, PASS, Pass, Room, Stop, Verdict, call, case, check, check_end, fail, ready, status};
use crate::lab::container::{Container, Launch};
use crate::lab::inits::Wish;
use crate::lab::processes::state;
use crate::signal::Signal;
use crate::sys::lab::container::{CAP_KILL, drop_capability};
use crate::sys::lab::{Forked, fork};
use crate::sys::process::exit;
use crate::sys::signal::{Queued, kill, queue};

/// The rows.
pub const CASES: &[Case] = &[
    case("s1-first-instant", "S1", 2, "a TERM that is pending when the init begins reaches the command", first_instant),
    case("s2-usual", "S2", 0, "each usual signal from outside reaches the command once", usual),
    case("s2-fault", "S2", 4, "ILL TRAP ABRT BUS FPE SEGV SYS from outside reach the command", fault),
    case("s2-job-control", "S2", 4, "TSTP TTIN TTOU from outside reach the command as what they are", job_control),
    case("s2-child", "S2", 0, "a CHLD that a process sent reaches the command", child),
    case("s2-inside", "S2", 0, "signals from a process inside the container reach the command", inside),
    case("s2-libc", "S2", 0, "32 and 33, which C libraries keep to themselves, reach the command", libc_own),
    case("s3-real-time", "S3", 5, "each real-time signal reaches the command under its number", real_time),
    case("s3-queue", "S3", 0, "50 real-time signals in a row are 50 for the command", queued),
    case("s3-value", "S3", 0, "a queued signal keeps its value", value),
    case("s4-early-term", "S4", 2, "a TERM 0 to 1 ms after the start is not lost", early),
    case("s4-early-term-group", "S4", 2, "nor if signals go to the command's group", early_group),
    case("s4-early-term-only", "S4", 2, "nor if they go to the command only", early_only),
    case(
        "s5-nothing-of-its-own",
        "S5",
        6,
        "a log whose reader is gone sends the command no signal",
        nothing_of_its_own,
    ),
    case("s6-ignored", "S6", 8, "signals that came in as ignored are ignored in the command (nohup)", ignored),
    case("s6-mask", "S6", 8, "signals that came in as blocked are blocked in the command", mask),
    case("s6-nothing-added", "S6", 8, "nothing else is blocked or ignored in the command", nothing_added),
    case("s7-default", "S7", 0, "a signal with the default action ends the command, and the init with 128+n", default),
    case("s7-caught", "S7", 0, "a handler runs once for each of 50 signals", caught),
    case("s7-ignored", "S7", 0, "a signal that the command ignores changes nothing", ignored_changes_nothing),
    case("s8-group", "S8", 0, "with the option for it the command's whole group gets the signal", group),
    case("s8-command-only", "S8", 0, "otherwise the command alone gets it", command_only),
    case("s9-rewrite", "S9", 0, "a signal is forwarded as another one", rewrite),
    case("s9-discard", "S9", 0, "a signal is discarded", discard),
    case("s10-eperm", "S10", 3, "a signal that the init may not send does not end it", eperm),
    case("s11-sender", "S11", 0, "the log names a signal's sender", sender),
];

/// A signal that nobody else sends and that is forwarded after those below it: by its arrival the others have arrived.
const LAST: i32 = 30;

fn number(line: &str) -> i32 {
    line.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0)
}

fn signal(number: i32) -> Result<Signal, Stop> {
    Signal::new(i64::from(number)).ok_or_else(|| Stop::Skip(format!("there is no signal {number}")))
}

fn names(numbers: &[i32]) -> String {
    let name = |number: &i32| Signal::new(i64::from(*number)).map_or_else(String::new, |signal| signal.to_string());
    numbers.iter().map(name).collect::<Vec<_>>().join(" ")
}

/// The numbers that `subject receive` tells of until the init has nothing more to forward.
fn received(container: &mut Container) -> Result<Vec<i32>, String> {
    container.idle()?;
    container.signal(Signal::new(i64::from(LAST)).unwrap_or(Signal::KILL));
    let mut numbers = Vec::new();
    loop {
        match number(&container.line()?) {
            LAST => return Ok(numbers),
            other => numbers.push(other),
        }
    }
}

/// Sends each by `send`, and fails unless each arrives once.
fn each_arrives(
    container: &mut Container,
    signals: &[i32],
    send: impl Fn(&Container, Signal) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let expected = "each arrives once";
    let mut lost = Vec::new();
    for number in signals {
        send(container, signal(*number)?)?;
        match received(container)
            .map_err(|why| fail(expected, format!("after {}: {why}", names(&[*number]))))?
            .as_slice()
        {
            [one] if one == number => {}
            [] => lost.push(*number),
            other => return Err(fail(expected, format!("{} came as {}", names(&[*number]), names(other)))),
        }
    }
    check(lost.is_empty(), expected, format!("not forwarded: {}", names(&lost)))
}

fn from_outside(container: &Container, signal: Signal) -> Result<(), Stop> {
    container.signal(signal);
    Ok(())
}

fn usual(room: &Room) -> Verdict {
    let mut container = room.ready(&["receive"])?;
    let usual = [1, 2, 3, 10, 12, 13, 14, 15, 16, 18, 23, 24, 25, 26, 27, 28, 29];
    each_arrives(&mut container, &usual, from_outside)?;
    PASS
}

fn fault(room: &Room) -> Verdict {
    let mut container = room.ready(&["receive"])?;
    each_arrives(&mut container, &[4, 5, 6, 7, 8, 11, 31], from_outside)?;
    PASS
}

fn job_control(room: &Room) -> Verdict {
    let mut wrong = Vec::new();
    for number in [20, 21, 22] {
        let mut container = room.ready(&["receive"])?;
        let command = container.command().or_fail("a command")?;
        container.signal(signal(number)?);
        match received(&mut container) {
            Ok(seen) if seen == [number] => {}
            Ok(seen) if seen.is_empty() => wrong.push(format!("{} is not forwarded", names(&[number]))),
            Err(_) if state(command) == Some('T') => wrong.push(format!("{} came as SIGSTOP", names(&[number]))),
            Ok(seen) => wrong.push(format!("{} came as {}", names(&[number]), names(&seen))),
            Err(why) => wrong.push(format!("after {}: {why}", names(&[number]))),
        }
    }
    check(wrong.is_empty(), "each arrives as what it is", wrong.join(", "))?;
    PASS
}

fn child(room: &Room) -> Verdict {
    let mut container = room.ready(&["receive"])?;
    each_arrives(&mut container, &[Signal::CHLD.number()], from_outside)?;
    PASS
}

/// Signals the init from a process inside its PID namespace, as `docker exec … kill 1` does.
fn from_inside(container: &Container, signal: Signal) -> Result<(), Stop> {
    let namespace = File::open(format!("/proc/{}/ns/pid", container.pid))?;
    let Forked::Parent(child) = fork().map_err(call("fork()"))? else {
        if setns(&namespace, CloneFlags::CLONE_NEWPID).is_err() {
            exit(1);
        }
        match fork() {
            // In here PID 1 is the init.
            Ok(Forked::Child) => exit(u8::from(kill(1, Some(signal)).is_err())),
            Ok(Forked::Parent(inside)) => exit(u8::from(!is_success(inside))),
            Err(_) => exit(1),
        }
    };
    if is_success(child) { Ok(()) } else { Err(Stop::Skip("nobody can enter the PID namespace: setns(2)".into())) }
}

fn is_success(child: i32) -> bool {
    matches!(waitpid(Pid::from_raw(child), None), Ok(nix::sys::wait::WaitStatus::Exited(_, 0)))
}

fn inside(room: &Room) -> Verdict {
    let mut container = room.ready(&["receive"])?;
    each_arrives(&mut container, &[1, 2, 3, 10, 12, 15, 28], from_inside)?;
    PASS
}

fn libc_own(room: &Room) -> Verdict {
    let mut container = room.ready(&["receive"])?;
    each_arrives(&mut container, &[32, 33], from_outside)?;
    PASS
}

fn real_time(room: &Room) -> Verdict {
    let mut container = room.ready(&["receive"])?;
    let all: Vec<i32> = (34..=64).collect();
    each_arrives(&mut container, &all, from_outside)?;
    PASS
}

/// Queues so many of RTMIN+3, and returns what the command got: number, code, value.
fn queue_some(room: &Room, count: u64) -> Result<Vec<(i32, String, u64)>, Stop> {
    let mut container = room.ready(&["receive"])?;
    for value in 0..count {
        let queued = Queued { pid: 1, uid: 0, value: (value + 1) << 20 };
        queue(container.pid, signal(37)?, queued).map_err(call("rt_sigqueueinfo()"))?;
    }
    container.idle().or_fail("an init that takes its signals")?;
    container.signal(signal(LAST)?);
    let mut all = Vec::new();
    loop {
        let line = container.line().or_fail("all of them")?;
        let mut words = line.split(' ');
        let (Some(number), Some(code), Some(value)) = (words.next(), words.next(), words.next()) else { continue };
        match number.parse() {
            Ok(LAST) => return Ok(all),
            Ok(number) => all.push((number, code.to_owned(), value.parse().unwrap_or(0))),
            Err(_) => {}
        }
    }
}

fn queued(room: &Room) -> Verdict {
    let all = queue_some(room, 50)?;
    let count = all.iter().filter(|(number, ..)| *number == 37).count();
    check(count == 50, "50 of SIGRTMIN+3", format!("{count} of it, {} in all", all.len()))?;
    PASS
}

fn value(room: &Room) -> Verdict {
    let all = queue_some(room, 5)?;
    let expected: Vec<_> = (1..=5).map(|value: u64| (37, "-1".to_owned(), value << 20)).collect();
    let told = |all: &[(i32, String, u64)]| format!("{:?}", all.iter().map(|(.., value)| value).collect::<Vec<_>>());
    check(all == expected, format!("the values {}", told(&expected)), told(&all))?;
    PASS
}

/// How often a start gets an early TERM.
const TRIALS: u32 = 120;

/// Starts it again and again, each time with a TERM at another moment. All starts have TERM blocked, so that it waits for
/// the init instead of being dropped (PID 1) or ending it.
fn early_terms(launch: impl Fn() -> Launch, trials: u32, delay: impl Fn(u32) -> Option<Duration>) -> Verdict {
    for trial in 1..=trials {
        let expected = format!("TERM reaches the command, {trials} times");
        let delay = delay(trial);
        let mut container = launch().blocking(Signal::TERM).start_after(|container| {
            if delay.is_none() {
                container.signal(Signal::TERM);
            }
        })?;
        let began = Instant::now();
        if let Some(delay) = delay {
            while began.elapsed() < delay {
                std::hint::spin_loop();
            }
            container.signal(Signal::TERM);
        }
        let when = delay
            .map_or("pending at the start".to_owned(), |delay| format!("{} µs after the start", delay.as_micros()));
        let arrived = match container.line() {
            Ok(_) => received(&mut container).map(|seen| seen == [Signal::TERM.number()]),
            Err(why) => Err(why),
        };
        let arrived = match (arrived, container.has_ended()) {
            // It came between the command's exec and its first instruction, and some inits unblock it there.
            (_, Some(end)) => end.code() == 128 + Signal::TERM.number(),
            (Ok(arrived), None) => arrived,
            (Err(why), None) => return Err(fail(expected, format!("trial {trial}, {when}: {why}"))),
        };
        check(arrived, expected, format!("lost in trial {trial}, {when}"))?;
    }
    Ok(Pass(Some(trials)))
}

fn first_instant(room: &Room) -> Verdict {
    early_terms(|| room.with(&["receive"]), 20, |_| None)
}

/// Every fourth is there from the start, the others come within a millisecond.
fn spread(trial: u32) -> Option<Duration> {
    (!trial.is_multiple_of(4)).then(|| Duration::from_micros(u64::from(trial) * 7919 % 1000))
}

fn early(room: &Room) -> Verdict {
    early_terms(|| room.with(&["receive"]), TRIALS, spread)
}

fn early_group(room: &Room) -> Verdict {
    let spelling = room.spelled(Wish::Group)?;
    early_terms(|| room.launch(&spelling, room.subject(&["receive"])), TRIALS, spread)
}

fn early_only(room: &Room) -> Verdict {
    let spelling = room.spelled(Wish::CommandOnly)?;
    early_terms(|| room.launch(&spelling, room.subject(&["receive"])), TRIALS, spread)
}

fn nothing_of_its_own(room: &Room) -> Verdict {
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    let mut container = ready(room.with_wish(Wish::Verbose, &["receive"])?.stderr(writer))?;
    each_arrives(&mut container, &[12, 12, 12], from_outside)?;
    PASS
}

/// A field of `subject status`, which is a set of signals.
fn signal_set(launch: Launch, field: &str) -> Result<u64, Stop> {
    let status = status(launch)?;
    let text = status.get(field).and_then(serde_json::Value::as_str).unwrap_or_default();
    Ok(u64::from_str_radix(text, 16)?)
}

fn bits(signals: &[Signal]) -> u64 {
    signals.iter().fold(0, |set, signal| set | 1 << (signal.number() - 1))
}

fn told(set: u64) -> String {
    let all: Vec<i32> = Signal::all().filter(|signal| set & bits(&[*signal]) != 0).map(Signal::number).collect();
    if all.is_empty() { "none".to_owned() } else { names(&all) }
}

fn ignored(room: &Room) -> Verdict {
    let given = [Signal::HUP, Signal::PIPE];
    let launch = given.iter().fold(room.with(&["status"]), |launch, signal| launch.ignoring(*signal));
    let seen = signal_set(launch, "ignored")?;
    check(seen & bits(&given) == bits(&given), format!("ignored: {}", told(bits(&given))), told(seen))?;
    PASS
}

fn mask(room: &Room) -> Verdict {
    let given = [signal(10)?, Signal::TERM];
    let launch = given.iter().fold(room.with(&["status"]), |launch, signal| launch.blocking(*signal));
    let seen = signal_set(launch, "blocked")?;
    check(seen & bits(&given) == bits(&given), format!("blocked: {}", told(bits(&given))), told(seen))?;
    PASS
}

fn nothing_added(room: &Room) -> Verdict {
    for field in ["blocked", "ignored"] {
        let seen = signal_set(room.with(&["status"]), field)?;
        check(seen == 0, format!("{field}: none"), told(seen))?;
    }
    PASS
}

fn default(room: &Room) -> Verdict {
    for number in [1, 2, 3, 10, 12, 13, 14, 15] {
        let mut container = room.ready(&["default"])?;
        container.signal(signal(number)?);
        check_end(container.end().map_err(|why| format!("after {}: {why}", names(&[number]))), 128 + number)?;
    }
    PASS
}

fn caught(room: &Room) -> Verdict {
    let mut container = room.ready(&["trap", "USR1", "TERM"])?;
    for round in 1..=50 {
        container.signal(signal(10)?);
        let line = container.line().map_err(|why| fail("50 times USR1", format!("after {round}: {why}")))?;
        check(line.starts_with("SIGUSR1 10 "), "50 times USR1", format!("{line:?}"))?;
    }
    container.signal(Signal::TERM);
    let line = container.line().or_fail("then TERM")?;
    check(line.starts_with("SIGTERM 15 "), "50 times USR1, then TERM", format!("{line:?}"))?;
    check_end(container.end(), 0)?;
    PASS
}

fn ignored_changes_nothing(room: &Room) -> Verdict {
    let mut container = room.ready(&["ignore", "HUP", "USR1"])?;
    let command = container.command().or_fail("a command")?;
    for signal in [Signal::HUP, signal(10)?] {
        container.signal(signal);
        container.idle().or_fail("an init that takes its signals")?;
    }
    let end = container.has_ended();
    check(end.is_none(), "the command runs on", end.map_or_else(String::new, |end| end.to_string()))?;
    kill(command, Some(Signal::KILL)).map_err(call("kill()"))?;
    check_end(container.end(), 137)?;
    PASS
}

/// Who of a command and its two children gets a USR2.
fn who_gets_it(launch: Launch) -> Result<Vec<String>, Stop> {
    let mut container = ready(launch)?;
    container.signal(signal(12)?);
    container.idle().or_fail("an init that takes its signals")?;
    container.signal(signal(LAST)?);
    let mut got = Vec::new();
    loop {
        let line = container.line().or_fail("the command gets it")?;
        if line == format!("command {LAST}") {
            break;
        }
        got.push(line);
    }
    // The children's lines may be behind the command's.
    while let Ok(line) = container.line() {
        got.push(line);
    }
    got.retain(|line| line.ends_with(" 12"));
    got.sort();
    Ok(got)
}

fn group(room: &Room) -> Verdict {
    let got = who_gets_it(room.with_wish(Wish::Group, &["family"])?)?;
    check(
        got == ["child 12", "child 12", "command 12"],
        "the command and both its children get it",
        format!("{got:?}"),
    )?;
    PASS
}

fn command_only(room: &Room) -> Verdict {
    let got = who_gets_it(room.with_wish(Wish::CommandOnly, &["family"])?)?;
    check(got == ["command 12"], "the command gets it, and no child", format!("{got:?}"))?;
    PASS
}

fn rewrite(room: &Room) -> Verdict {
    let wish = Wish::Rewrite(Signal::TERM, Some(Signal::QUIT));
    let mut container = ready(room.with_wish(wish, &["receive"])?)?;
    container.signal(Signal::TERM);
    let seen = received(&mut container).or_fail("TERM comes as QUIT")?;
    check(seen == [Signal::QUIT.number()], "TERM comes as SIGQUIT", names(&seen))?;
    PASS
}

fn discard(room: &Room) -> Verdict {
    let wish = Wish::Rewrite(Signal::TERM, None);
    let mut container = ready(room.with_wish(wish, &["receive"])?)?;
    container.signal(Signal::TERM);
    let seen = received(&mut container).or_fail("no TERM")?;
    check(seen.is_empty(), "no TERM", names(&seen))?;
    PASS
}

fn eperm(room: &Room) -> Verdict {
    room.needs_root("a second user")?;
    room.needs_init()?;
    let launch = room.with(&["become", "61234"]);
    let mut container = ready(launch.prepare(|| Ok(drop_capability(CAP_KILL)?)))?;
    for signal in [Signal::TERM, signal(10)?] {
        container.signal(signal);
        container.idle().or_fail("an init that lives on")?;
    }
    let end = container.has_ended();
    check(end.is_none(), "an init that lives on", end.map_or_else(String::new, |end| end.to_string()))?;
    // We may signal the command; its end is still seen.
    let command = container.command().map_err(|_| fail("an init that lives on", "it has ended"))?;
    kill(command, Some(Signal::KILL)).map_err(call("kill()"))?;
    check_end(container.end(), 128 + Signal::KILL.number())?;
    PASS
}

fn sender(room: &Room) -> Verdict {
    let mut container = ready(room.with_wish(Wish::NameSender, &["receive"])?)?;
    from_inside(&container, signal(12)?)?;
    check_line_number(&mut container, 12)?;
    let named = container.wait_for(|container| {
        let text = container.stderr_so_far();
        text.lines().any(|line| line.contains("USR2") && line.contains("pid ")).then_some(())
    });
    named.map_err(|why| fail("a line that names signal and pid", format!("{why}: {:?}", container.stderr_so_far())))?;
    PASS
}

fn check_line_number(container: &mut Container, expected: i32) -> Result<(), Stop> {
    let line = container.line().or_fail("the signal arrives")?;
    check(number(&line) == expected, format!("signal {expected}"), format!("{line:?}"))
}
