//! Clauses S: signals.

#![allow(clippy::multiple_unsafe_ops_per_block)]

mod common;

use std::process::Command;
use std::time::Duration;

use common::{Init, Running, lab, sh, status_field, subject, wait_for};

/// All that can be caught.
fn catchable() -> impl Iterator<Item = i32> {
    (1..=64).filter(|n| ![libc::SIGKILL, libc::SIGSTOP].contains(n))
}

/// The first word of a line.
fn first(line: &str) -> i32 {
    line.split(' ').next().unwrap().parse().unwrap()
}

/// A field of the subject's JSON that holds a mask.
fn mask(json: &str, field: &str) -> u64 {
    let text = json.split(&format!("\"{field}\":\"")).nth(1).unwrap();
    u64::from_str_radix(text.split('"').next().unwrap(), 16).unwrap()
}

const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// S1, S2, pitfalls 4 and 5: every signal, fault signals too, from outside the namespace.
#[test]
fn s2_every_signal_is_forwarded_once() {
    for is_pid1 in [true, false] {
        let init = Init::new(&[]).args(subject(["receive"]));
        let mut running = if is_pid1 { init } else { init.not_pid1() }.start().ready();
        for signal in catchable() {
            running.kill(signal);
            assert_eq!(first(&running.line()), signal);
        }
        assert_eq!(running.try_line(Duration::from_millis(50)), None, "one came twice");
    }
}

/// S2: from a process inside, to which PID 1 is nothing special.
#[test]
fn s2_signals_from_inside_are_forwarded_too() {
    // Not before the subject blocks them all.
    let script = "until grep -q 'SigBlk:.fffffffffffbfeff' /proc/$$/status; do sleep 0.01; done; for n in 1 2 3 4 5 6 7 8 10 11 12 15 17 20 21 22 28 31; do kill -$n 1; sleep 0.02; done";
    let line = format!("({script}) & exec {} subject receive --count 18", lab().display());
    let output = Init::new(&[]).args(sh(&line)).run();
    let mut got: Vec<i32> = output.stdout.lines().skip(1).map(first).collect();
    // The first few may have come before the subject was ready, and the shell's own SIGCHLD is not ours.
    got.sort_unstable();
    assert_eq!(got, [1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 15, 17, 20, 21, 22, 28, 31]);
}

/// S1: blocked before anything else, so that even PID 1 loses none.
#[test]
fn s1_all_signals_are_blocked_in_sexton() {
    let running = Init::new(&[]).args(subject(["default"])).start().ready();
    let blocked = u64::from_str_radix(&status_field(running.pid, "SigBlk").unwrap(), 16).unwrap();
    assert_eq!(blocked, !(bit(libc::SIGKILL) | bit(libc::SIGSTOP)));
}

#[test]
fn s3_real_time_signals_keep_order_number_and_value() {
    for options in [&[][..], &["-g"]] {
        let mut running = Init::new(options).args(subject(["receive"])).start().ready();
        let values: Vec<String> = (1000..1200).map(|n: u64| (n << 20).to_string()).collect();
        let pid = running.pid.to_string();
        let queued = Command::new(lab()).args(["sigqueue", &pid, "RTMIN+3"]).args(&values).status().unwrap();
        assert!(queued.success());
        for value in &values {
            let line = running.line();
            let words: Vec<&str> = line.split(' ').collect();
            assert_eq!(words[0], "37");
            // A group cannot be sent a value before Linux 6.9, nor where a filter forbids it.
            if options.is_empty() {
                assert_eq!((words[1], words[2]), ("-1", value.as_str()));
            }
        }
    }
}

/// What became of one start that got a TERM after `delay`.
fn trial(options: &[&str], is_pid1: bool, delay: Duration) -> i32 {
    let mut all = options.to_vec();
    if is_pid1 {
        // Blocked from outside, a TERM before PID 1's first instruction stays pending; the command gets it unblocked.
        all.push("--reset-signals");
    }
    let init = Init::new(&all).args(["/bin/sleep", "600"]);
    let mut running = if is_pid1 { init.blocking(libc::SIGTERM) } else { init.not_pid1() }.start();
    let began = std::time::Instant::now();
    while began.elapsed() < delay {
        std::hint::spin_loop();
    }
    running.kill(libc::SIGTERM);
    running.code()
}

/// S4, pitfall 2. `SEXTON_S4_TRIALS` sets how many starts there are.
#[test]
fn s4_no_signal_is_lost_between_start_and_exec() {
    let trials: u64 = std::env::var("SEXTON_S4_TRIALS").ok().and_then(|n| n.parse().ok()).unwrap_or(3000);
    for number in 0..trials {
        let delay = Duration::from_micros(number * 7919 % 1000);
        let options: &[&str] = if number % 2 == 0 { &[] } else { &["-g"] };
        let is_pid1 = number % 4 < 2;
        // A lost TERM would let it sleep; code() has a deadline.
        assert_eq!(trial(options, is_pid1, delay), 143, "trial {number}, {delay:?}, {options:?}, PID 1: {is_pid1}");
    }
}

/// S5, pitfall 6: SIGPIPE of sexton's own log is not the command's.
#[test]
fn s5_a_broken_log_sends_the_command_nothing() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut running = Init::new(&["-vv"]).stderr(writer).args(subject(["receive"])).start().ready();
    for _ in 0..20 {
        running.kill(libc::SIGUSR1);
        assert_eq!(first(&running.line()), libc::SIGUSR1);
    }
    assert_eq!(running.try_line(Duration::from_millis(50)), None);
}

/// S6, pitfall 8.
#[test]
fn s6_mask_and_ignored_set_are_those_that_came_in() {
    let bare = Init::exactly(lab()).args(["subject", "status"]).run().stdout;
    let plain = Init::new(&[]).args(subject(["status"])).run().stdout;
    // What the tester was started with comes through as well.
    let before = mask(&bare, "ignored");
    assert_eq!((mask(&plain, "blocked"), mask(&plain, "ignored")), (0, before), "{plain}");
    assert_eq!((mask(&plain, "caught"), mask(&bare, "caught")), (0, 0));

    let changed = |options: &[&str]| {
        let init = Init::new(options).ignoring(libc::SIGHUP).ignoring(libc::SIGPIPE).ignoring(libc::SIGCHLD);
        init.blocking(libc::SIGUSR1).blocking(33).args(subject(["status"])).run().stdout
    };
    let kept = changed(&[]);
    assert_eq!(mask(&kept, "blocked"), bit(libc::SIGUSR1) | bit(33));
    assert_eq!(mask(&kept, "ignored"), before | bit(libc::SIGHUP) | bit(libc::SIGPIPE) | bit(libc::SIGCHLD));
    let reset = changed(&["--reset-signals"]);
    assert_eq!((mask(&reset, "blocked"), mask(&reset, "ignored")), (0, 0));
}

#[test]
fn s7_default_catch_and_ignore() {
    let ends = |signal| {
        let running = Init::new(&[]).args(subject(["default"])).start().ready();
        running.kill(signal);
        running.finish().code
    };
    for signal in catchable().filter(|n| ![17, 18, 20, 21, 22, 23, 28].contains(n)) {
        assert_eq!(ends(signal), 128 + signal);
    }
    let mut caught = Init::new(&[]).args(subject(["trap", "USR1", "TERM"])).start().ready();
    for _ in 0..50 {
        caught.kill(libc::SIGUSR1);
        assert!(caught.line().starts_with("SIGUSR1 10 "));
    }
    caught.kill(libc::SIGTERM);
    assert_eq!(caught.finish().code, 0);
    let ignored = Init::new(&[]).args(subject(["ignore", "HUP", "USR1"])).start().ready();
    ignored.kill(libc::SIGHUP);
    ignored.kill(libc::SIGUSR1);
    // Signals of different numbers are forwarded lowest first, so both went before this one.
    ignored.kill(libc::SIGTERM);
    assert_eq!(ignored.finish().code, 143);
}

/// The command and a child of it each tell of a USR1.
fn family(options: &[&str]) -> Running {
    let child = format!("{} subject trap USR1", lab().display());
    let script = format!("trap 'echo shell' USR1; {child} & {child} & while :; do wait; done");
    let mut running = Init::new(options).args(sh(&script)).start().ready();
    assert_eq!(running.line(), "ready");
    running
}

#[test]
fn s8_the_group_gets_it_with_g_and_not_without() {
    for (options, expected) in [(&["-g"][..], 3), (&[], 1)] {
        let mut running = family(options);
        running.kill(libc::SIGUSR1);
        let mut lines: Vec<String> = (0..expected).map(|_| running.line()).collect();
        assert_eq!(running.try_line(Duration::from_millis(100)), None, "{options:?}");
        lines.retain(|line| !line.starts_with("SIGUSR1 10 "));
        assert_eq!(lines, ["shell"], "{options:?}");
    }
}

#[test]
fn s9_signals_are_rewritten_and_discarded() {
    let options = ["-r", "TERM:QUIT", "-r", "SIGHUP:0", "-r", "10:RTMIN+2", "--rewrite=RTMAX:winch"];
    let mut running = Init::new(&options).args(subject(["receive"])).start().ready();
    for (sent, got) in [(libc::SIGTERM, libc::SIGQUIT), (libc::SIGUSR1, 36), (64, libc::SIGWINCH), (12, 12)] {
        running.kill(libc::SIGHUP);
        running.kill(sent);
        assert_eq!(first(&running.line()), got, "signal {sent}");
    }
}

/// S10, pitfall 3: the command has become another user, and sexton has no `CAP_KILL` to signal it with.
#[test]
fn s10_a_failing_kill_is_survived() {
    if !common::has("/usr/bin/setpriv") {
        return;
    }
    let script = "echo ready; read line; exit 9";
    let (stdin, end) = std::io::pipe().unwrap();
    let mut running = Init::exactly("/usr/bin/setpriv")
        .args(["--bounding-set=-kill", "--inh-caps=-kill"])
        .args([common::sexton().into_os_string(), "-v".into()])
        .args(["/usr/bin/setpriv", "--reuid=61234", "--clear-groups", "/bin/sh", "-c", script])
        .stdin(stdin)
        .start()
        .ready();
    running.kill(libc::SIGTERM);
    running.kill(libc::SIGUSR1);
    drop(end);
    let code = running.code();
    let output = running.finish();
    assert_eq!(code, 9, "{}", output.stderr);
    assert!(output.stderr.contains("SIGTERM): EPERM"), "{}", output.stderr);
}

/// S11: who sent it.
#[test]
fn s11_the_sender_is_named() {
    // Lines come in the order of their events: once the second signal is told, the first was.
    let script = "trap 'exit 0' HUP; trap '' USR2; kill -USR2 1; kill -HUP 1; while :; do sleep 0.05; done";
    let output = Init::new(&["-v"]).args(sh(script)).run();
    assert!(output.stderr.contains("SIGUSR2 from pid 2 (sh), uid 0"), "{}", output.stderr);

    let running = Init::new(&["-v"]).args(subject(["default"])).start().ready();
    running.kill(libc::SIGTERM);
    let stderr = running.finish().stderr;
    assert!(stderr.contains("SIGTERM from outside this PID namespace"), "{stderr}");
    assert!(stderr.contains("was ended by SIGTERM, sent by outside"), "{stderr}");
}

/// Pitfall 15: see T8. Pitfall 19: a stopped command keeps TERM pending until CONT; as PID 1's child nobody continues it
/// but who sends CONT.
#[test]
fn pitfall_19_a_stopped_command_gets_term_with_cont() {
    let running = Init::new(&[]).args(subject(["default"])).start().ready();
    let command = running.command();
    running.kill(libc::SIGTSTP);
    wait_for("the stop", || common::stat(command).filter(|(state, _)| *state == 'T'));
    running.kill(libc::SIGTERM);
    running.kill(libc::SIGCONT);
    assert_eq!(running.finish().code, 143);
}
