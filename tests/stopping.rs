//! Clauses T: how a container ends. And `--unshare`: the two of us end together.

mod common;

use std::fs;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use common::{Init, Running, assert_one_line, children, lab, sexton, sh, stat, status_field, subject, wait_for};

const HUP: i32 = 1;
const INT: i32 = 2;
const QUIT: i32 = 3;
const KILL: i32 = 9;
const USR1: i32 = 10;
const USR2: i32 = 12;
const TERM: i32 = 15;
const CONT: i32 = 18;

/// Far more than any of these tests takes, and less than the times that must not be waited for.
const SOON: Duration = Duration::from_secs(15);

/// Sexton as PID 1 or not; scripts find the subjects as `$LAB subject`.
fn init(is_pid1: bool, options: &[&str]) -> Init {
    let init = Init::new(options).env("LAB", lab());
    if is_pid1 { init } else { init.not_pid1() }
}

/// A process that is no child of ours and may be left: it is gone at the end of the test.
struct Stray(i32);

impl Drop for Stray {
    fn drop(&mut self) {
        for pid in children(self.0).into_iter().chain([self.0]) {
            // SAFETY: no memory is passed.
            unsafe { libc::kill(pid, KILL) };
        }
    }
}

fn kill(pid: i32, signal: i32) {
    // SAFETY: no memory is passed.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "kill({pid}, {signal})");
}

/// The process is there and no zombie.
fn lives(pid: i32) -> bool {
    stat(pid).is_some_and(|(state, _)| state != 'Z')
}

/// The init blocks all signals: from now on none is lost.
#[track_caller]
fn listening(running: Running) -> Running {
    wait_for("the init to block signals", || {
        status_field(running.pid, "SigBlk").filter(|mask| mask == "fffffffffffbfeff")
    });
    running
}

/// The init has taken every signal that was sent, and has nothing more to do.
#[track_caller]
fn idle(running: &Running) {
    wait_for("the init to take its signals", || {
        let pending = status_field(running.pid, "ShdPnd").expect("the init is gone");
        let (state, _) = stat(running.pid).expect("the init is gone");
        (pending == "0000000000000000" && state == 'S').then_some(())
    });
}

/// What `docker exec` does: enters the PID namespace of `pid`, as a process whose parent is outside.
fn entering(pid: i32) -> impl FnMut() -> io::Result<()> + Send + Sync {
    let namespace = fs::File::open(format!("/proc/{pid}/ns/pid")).unwrap();
    move || {
        // SAFETY: passes integers only.
        if unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWPID) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: this process was just forked; both sides only make system calls until exec or _exit.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: passes integers only.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            return Ok(());
        }
        for fd in 0..1024 {
            // SAFETY: nothing in this process uses a descriptor afterwards.
            unsafe { libc::close(fd) };
        }
        let mut status = 0;
        // SAFETY: status is live.
        unsafe { libc::waitpid(pid, &raw mut status, 0) };
        // SAFETY: ends the process.
        unsafe { libc::_exit(if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 99 }) }
    }
}

/// A process that came into the namespace of `init` from outside.
fn stranger<const N: usize>(init: &Running, words: [&str; N]) -> Running {
    let pid = init.pid;
    Init::exactly(lab()).args(["subject"]).args(words).not_pid1().prepare(entering(pid)).start()
}

/// Pitfalls 11 and 12: leftovers that were reparented and have a session of their own get TERM and the time to finish.
#[test]
fn t1_leftovers_finish_their_work() {
    for is_pid1 in [true, false] {
        let words = ["stubborn", "--after", "300", "--say", "finished", "--left-behind"];
        let output = init(is_pid1, &[]).args(subject(words)).run();
        assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (0, "ready\nfinished\n", ""));
    }
}

#[test]
fn t1_many_leftovers_all_finish_and_the_status_is_the_commands() {
    let script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
            $LAB subject stubborn --after 50 --say finished --left-behind || exit 99
        done; exit 7";
    for is_pid1 in [true, false] {
        let output = init(is_pid1, &["--grace", "25s"]).args(sh(script)).run();
        assert_eq!((output.code, output.stdout.matches("finished").count()), (7, 20), "{}", output.stderr);
    }
}

#[test]
fn t1_leftovers_finish_when_the_command_is_ended_by_a_signal() {
    for is_pid1 in [true, false] {
        let script = "$LAB subject stubborn --after 50 --say finished --left-behind; kill -KILL $$";
        let output = init(is_pid1, &[]).args(sh(script)).run();
        assert_eq!((output.code, output.stdout.as_str()), (128 + KILL, "ready\nfinished\n"));
    }
}

/// A process that is stopped gets its TERM only when it is continued.
#[test]
fn pitfall_19_t1_a_stopped_leftover_finishes_too() {
    let script = "sh -c 'trap \"echo finished; exit\" TERM; kill -STOP $$; sleep 0; exit' &
        until grep -q 'State:.T' /proc/$!/status; do :; done
        exit 5";
    for is_pid1 in [true, false] {
        let output = init(is_pid1, &["--grace", "25s"]).args(sh(script)).run();
        assert_eq!((output.code, output.stdout.as_str()), (5, "finished\n"), "{}", output.stderr);
    }
}

#[test]
fn t1_exits_the_moment_that_the_last_is_gone() {
    for is_pid1 in [true, false] {
        let words = subject(["stubborn", "--after", "100", "--left-behind"]);
        let mut running = init(is_pid1, &["--grace", "60m"]).args(words).start().ready();
        let began = Instant::now();
        assert_eq!(running.code(), 0);
        assert!(began.elapsed() < SOON);
    }
}

#[test]
fn t1_after_the_grace_period_leftovers_are_killed() {
    for is_pid1 in [true, false] {
        let began = Instant::now();
        let script = "$LAB subject stubborn --left-behind; exit 3";
        let mut running = init(is_pid1, &["--grace", "300ms"]).args(sh(script)).start();
        assert_eq!(running.code(), 3);
        assert!((Duration::from_millis(300)..SOON).contains(&began.elapsed()), "{:?}", began.elapsed());
        assert!(running.stdout_ends_within(SOON), "one is left");
    }
}

/// As tini does it: whoever is left is left alone.
#[test]
fn t1_grace_0_exits_at_once() {
    let script = "$LAB subject trap & read line; echo $!; read line; exit 4";
    let (reader, mut writer) = io::pipe().unwrap();
    let mut running = init(false, &["--grace", "0"]).stdin(reader).args(sh(script)).start().ready();
    writer.write_all(b"\n").unwrap();
    let left = Stray(running.line().parse().unwrap());
    drop(writer);
    assert_eq!(running.code(), 4);
    assert!(lives(left.0));
    // Nothing but this has reached it.
    kill(left.0, USR1);
    assert!(running.line().starts_with("SIGUSR1 "));
    kill(left.0, TERM);
    assert!(running.line().starts_with("SIGTERM "));
    // As PID 1 it takes all with it.
    let began = Instant::now();
    let output = init(true, &["--grace", "0"]).args(subject(["stubborn", "--left-behind"])).run();
    assert_eq!((output.code, output.stdout.as_str()), (0, "ready\n"));
    assert!(began.elapsed() < SOON);
}

/// Signals that come while leftovers have their time reach all of them.
#[test]
fn t1_a_signal_during_the_grace_period_goes_to_all_leftovers() {
    for is_pid1 in [true, false] {
        let script = "$LAB subject trap --stay USR1 TERM & $LAB subject trap --stay USR1 TERM &
            read line; exit 6";
        let (reader, writer) = io::pipe().unwrap();
        let mut running = init(is_pid1, &["--grace", "25s"]).stdin(reader).args(sh(script)).start().ready().ready();
        drop(writer);
        for _ in 0..2 {
            assert!(running.line().starts_with("SIGTERM 15 "));
        }
        running.kill(USR1);
        for _ in 0..2 {
            assert!(running.line().starts_with("SIGUSR1 10 "));
        }
        for pid in children(running.pid) {
            kill(pid, KILL);
        }
        assert_eq!(running.code(), 6);
    }
}

#[test]
fn t2_a_process_that_is_no_descendant_gets_nothing() {
    let mut sibling = Init::exactly(lab()).args(["subject", "trap"]).not_pid1().start().ready();
    for options in [&["--grace", "200ms"][..], &["-k", "100ms"]] {
        // A stubborn grandchild in a session of its own, so that TERM, CONT and KILL are all sent.
        let script = "$LAB subject stubborn --left-behind; $LAB subject daemonize -- $LAB subject trap --stay; exit 3";
        let mut running = init(false, options).args(sh(script)).start();
        if options[0] == "-k" {
            running.kill(TERM);
        }
        assert!(running.ends_within(SOON));
        assert!(running.stdout_ends_within(SOON), "setsid'ed grandchildren are left");
    }
    sibling.kill(USR1);
    assert!(sibling.line().starts_with("SIGUSR1 "), "only this was sent to it");
    sibling.kill(TERM);
    assert!(sibling.line().starts_with("SIGTERM "));
    assert_eq!(sibling.code(), 0);
}

#[test]
fn t2_descendants_of_descendants_are_signalled_while_their_parents_live() {
    // Three generations, each in a session of its own.
    let script = "setsid sh -c 'trap \"wait; echo one\" TERM
            setsid sh -c \"trap \\\"echo two; exit\\\" TERM; echo ready; while :; do sleep 0.05; done\" & wait' &
        read line; exit 2";
    let (reader, writer) = io::pipe().unwrap();
    let mut running = init(false, &["--grace", "25s"]).stdin(reader).args(sh(script)).start().ready();
    drop(writer);
    let mut lines = [running.line(), running.line()];
    lines.sort();
    assert_eq!((lines, running.code()), (["one".to_owned(), "two".to_owned()], 2));
}

/// What came by `docker exec` is no child of PID 1, but it is in the container: it gets TERM and the time to finish.
#[test]
fn t2_as_pid1_strangers_in_the_namespace_finish_too() {
    let (reader, writer) = io::pipe().unwrap();
    let mut running = init(true, &["--grace", "25s"]).stdin(reader).args(sh("read line; exit 9")).start();
    let mut came = stranger(&running, ["stubborn", "--after", "300", "--say", "finished"]).ready();
    let began = Instant::now();
    drop(writer);
    assert_eq!(running.code(), 9);
    assert!(began.elapsed() < SOON);
    assert_eq!((came.line().as_str(), came.code()), ("finished", 0));
}

#[test]
fn t3_kill_after_the_first_stop_signal() {
    for is_pid1 in [true, false] {
        for signal in [TERM, INT, QUIT, HUP] {
            let began = Instant::now();
            let mut running = init(is_pid1, &["-k", "300ms"]).args(subject(["trap", "--stay"])).start().ready();
            running.kill(signal);
            assert!(running.line().contains(&format!(" {signal} ")));
            assert_eq!(running.code(), 128 + KILL, "signal {signal}");
            assert!((Duration::from_millis(300)..SOON).contains(&began.elapsed()), "{:?}", began.elapsed());
        }
    }
}

#[test]
fn t3_more_stop_signals_do_not_start_the_time_again() {
    let mut running = init(true, &["--kill-after", "300ms"]).args(subject(["trap", "--stay"])).start().ready();
    let began = Instant::now();
    while !running.ends_within(Duration::from_millis(20)) {
        assert!(began.elapsed() < SOON, "it lives for ever");
        running.kill(TERM);
    }
    assert_eq!(running.code(), 128 + KILL);
}

#[test]
fn t3_other_signals_do_not_start_the_time() {
    let mut running = init(true, &["-k", "100ms"]).args(subject(["trap", "--stay"])).start().ready();
    for (signal, name) in [(USR1, "SIGUSR1 "), (USR2, "SIGUSR2 "), (CONT, "SIGCONT ")] {
        running.kill(signal);
        assert!(running.line().starts_with(name));
    }
    assert!(!running.ends_within(Duration::from_millis(400)));
    running.kill(TERM);
    assert_eq!(running.code(), 128 + KILL);
}

#[test]
fn t3_everything_is_killed_not_only_the_command() {
    for is_pid1 in [true, false] {
        let script = "$LAB subject daemonize -- $LAB subject trap --stay; exec $LAB subject trap --stay";
        let running = init(is_pid1, &["-k", "100ms"]).args(sh(script)).start();
        let mut running = running.ready().ready().ready();
        running.kill(TERM);
        assert_eq!(running.code(), 128 + KILL);
        assert!(running.stdout_ends_within(SOON));
    }
}

/// Where the kernel reaps (gear 1), a command that is KILLed is gone before sexton can wait for it: its status is still right.
#[test]
fn t3_x1_the_status_is_right_while_the_kernel_reaps() {
    for is_pid1 in [true, false] {
        for round in 0..20 {
            let script = "$LAB subject orphan --count 3; exec $LAB subject stubborn";
            let mut running = init(is_pid1, &["-k", "1ms"]).args(sh(script)).start().ready();
            assert_eq!((running.line(), running.line()), ("done".into(), "ready".into()));
            running.kill(TERM);
            assert_eq!(running.code(), 128 + KILL, "round {round}");
        }
    }
}

#[test]
fn t3_a_command_that_ends_in_time_has_its_own_status() {
    let mut running = init(true, &["-k", "25s"]).args(subject(["stubborn", "--after", "10"])).start().ready();
    let began = Instant::now();
    running.kill(TERM);
    assert_eq!(running.code(), 0);
    assert!(began.elapsed() < SOON);
}

#[test]
fn t4_a_term_is_held_back_and_all_else_goes_at_once() {
    for is_pid1 in [true, false] {
        let mut running = init(is_pid1, &["--stop-delay", "500ms"]).args(subject(["trap"])).start().ready();
        let began = Instant::now();
        running.kill(TERM);
        running.kill(USR1);
        assert!(running.line().starts_with("SIGUSR1 "));
        running.kill(INT);
        assert!(running.line().starts_with("SIGINT "));
        assert!(running.line().starts_with("SIGTERM "));
        assert!(began.elapsed() >= Duration::from_millis(500), "{:?}", began.elapsed());
        assert_eq!(running.code(), 0);
    }
}

#[test]
fn t4_a_second_term_is_forwarded_at_once_and_once() {
    let mut running = init(true, &["--stop-delay", "10m"]).args(subject(["trap", "--stay"])).start().ready();
    running.kill(TERM);
    // Once this is here the first one has been taken.
    running.kill(USR1);
    assert!(running.line().starts_with("SIGUSR1 "));
    running.kill(TERM);
    assert!(running.line().starts_with("SIGTERM "));
    running.kill(USR2);
    assert!(running.line().starts_with("SIGUSR2 "), "the first is not forwarded as well");
}

#[test]
fn t4_a_command_that_ends_meanwhile_is_not_waited_for() {
    let mut running = init(true, &["--stop-delay", "10m"]).args(subject(["default"])).start().ready();
    let began = Instant::now();
    running.kill(TERM);
    running.kill(USR1);
    assert_eq!(running.code(), 128 + USR1);
    assert!(began.elapsed() < SOON);
}

#[test]
fn t4_the_time_to_kill_begins_after_the_delay() {
    let options = ["--stop-delay", "300ms", "-k", "300ms"];
    let mut running = init(true, &options).args(subject(["stubborn"])).start().ready();
    let began = Instant::now();
    running.kill(TERM);
    assert_eq!(running.code(), 128 + KILL);
    assert!((Duration::from_millis(600)..SOON).contains(&began.elapsed()), "{:?}", began.elapsed());
}

/// Pitfall 13.
#[test]
fn t5_a_daemon_lives_on_and_signals_reach_all() {
    for is_pid1 in [true, false] {
        let daemon = "$LAB subject daemonize -- $LAB subject trap;";
        let running = init(is_pid1, &["--wait"]).args(sh(&format!("{daemon}{daemon}{daemon} exit 5"))).start();
        // Each daemon, and each one who made it.
        let mut running = running.ready().ready().ready().ready().ready().ready();
        wait_for("the command's end", || {
            let all = children(running.pid);
            let names = all.iter().filter_map(|pid| status_field(*pid, "Name"));
            (all.len() == 3 && names.filter(|name| name.starts_with("sexton")).count() == 3).then_some(())
        });
        for (signal, name) in [(USR1, "SIGUSR1 "), (HUP, "SIGHUP "), (TERM, "SIGTERM ")] {
            running.kill(signal);
            for _ in 0..3 {
                let line = running.line();
                assert!(line.starts_with(name), "{line}");
            }
        }
        assert_eq!(running.code(), 5);
    }
}

#[test]
fn t5_sexton_ends_with_the_last_one() {
    let script = "$LAB subject daemonize -- /bin/sh -c 'read line; exit 1'; exit 5";
    for is_pid1 in [true, false] {
        let (reader, writer) = io::pipe().unwrap();
        let mut running = init(is_pid1, &["--wait"]).stdin(reader).args(sh(script)).start().ready();
        wait_for("the daemon alone", || {
            let all = children(running.pid);
            let command = all.first().and_then(|pid| fs::read(format!("/proc/{pid}/cmdline")).ok())?;
            (all.len() == 1 && command.starts_with(b"/bin/sh\0-c\0read")).then_some(())
        });
        idle(&running);
        assert!(lives(running.pid));
        drop(writer);
        assert_eq!(running.code(), 5);
    }
}

#[test]
fn t5_kill_after_holds_for_leftovers_too() {
    for is_pid1 in [true, false] {
        let words = subject(["stubborn", "--left-behind"]);
        let mut running = init(is_pid1, &["--wait", "-k", "300ms"]).args(words).start().ready();
        assert!(!running.ends_within(Duration::from_millis(400)), "no signal, no end");
        let began = Instant::now();
        running.kill(TERM);
        assert_eq!(running.code(), 0);
        assert!((Duration::from_millis(300)..SOON).contains(&began.elapsed()), "{:?}", began.elapsed());
        assert!(running.stdout_ends_within(SOON));
    }
}

#[test]
fn t6_what_is_no_duration_is_a_usage_error() {
    for value in ["", "x", "5x", "-1", "5 s", "s", "1.5.5s", "99999999999999999999s", "0x10"] {
        let output = init(true, &["--grace", value]).args(subject(["exit"])).run();
        assert_eq!(output.code, 125, "{value:?}");
        assert_one_line(&output.stderr);
    }
    for value in ["500ms", "5s", "1m30s", "0", "7"] {
        let output = init(true, &["--grace", value, "-k", value, "--stop-delay", value]).args(subject(["exit"])).run();
        assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{value:?}");
    }
}

#[test]
fn t7_pause_ends_with_0_on_term_and_int() {
    for is_pid1 in [true, false] {
        for (option, signal) in [("-P", TERM), ("--pause", INT)] {
            let running = listening(init(is_pid1, &[option]).start());
            for other in [HUP, QUIT, USR1, USR2, CONT, 17, 28, 34, 64] {
                running.kill(other);
            }
            idle(&running);
            running.kill(signal);
            let output = running.finish();
            assert_eq!((output.code, output.stderr.as_str()), (0, ""));
        }
    }
}

#[test]
fn t7_pause_reaps_meanwhile() {
    for options in [&["-P"][..], &["-P", "-w"]] {
        let mut running = listening(init(true, options).start());
        for _ in 0..2 {
            assert_eq!(stranger(&running, ["orphan", "--count", "50", "--lifetime", "20"]).code(), 0);
            wait_for("all orphans to be gone", || children(running.pid).is_empty().then_some(()));
        }
        assert!(lives(running.pid));
        running.kill(TERM);
        assert_eq!(running.code(), 0);
        let stderr = running.finish().stderr;
        let expected = if options.len() == 2 { 100 } else { 0 };
        assert_eq!(stderr.matches("reaped zombie process with pid=").count(), expected, "{stderr}");
    }
}

#[test]
fn t7_at_the_end_of_a_pause_all_others_finish() {
    let mut running = listening(init(true, &["-P", "--grace", "25s"]).start());
    let mut came = stranger(&running, ["stubborn", "--after", "200", "--say", "finished"]).ready();
    running.kill(TERM);
    assert_eq!((running.code(), came.line().as_str()), (0, "finished"));
}

/// A shell that runs sexton in the background, prints its pid, and waits; sexton has these options and runs `trap`.
fn below_a_shell(options: &str) -> (Running, Stray) {
    let script = format!("$SEXTON {options} -- $LAB subject trap --stay & read line; echo $!; wait");
    let (reader, mut writer) = io::pipe().unwrap();
    let shell = Init::program("/bin/sh", &["-c", &script]).env("LAB", lab()).env("SEXTON", sexton());
    let mut shell = shell.stdin(reader).not_pid1().start().ready();
    writer.write_all(b"\n").unwrap();
    let pid = shell.line().parse().unwrap();
    (shell, Stray(pid))
}

#[test]
fn t8_the_parents_death_is_forwarded() {
    for options in ["-p USR1", "--parent-death=SIGUSR1", "-p USR1 --unshare pid,mount"] {
        let (mut shell, init) = below_a_shell(options);
        shell.kill(KILL);
        let line = shell.line();
        assert!(line.starts_with("SIGUSR1 10 "), "{line}");
        kill(init.0, USR2);
        assert!(shell.line().starts_with("SIGUSR2 "), "it came once");
        kill(init.0, KILL);
    }
}

#[test]
fn t8_as_pid1_too() {
    let mut running = init(true, &["-p", "USR1"]).args(subject(["trap"])).start().ready();
    let init = Stray(running.pid);
    let (_, parent) = stat(init.0).unwrap();
    kill(parent, KILL);
    assert!(running.line().starts_with("SIGUSR1 10 "));
    kill(init.0, TERM);
    assert!(running.line().starts_with("SIGTERM 15 "));
    assert!(running.stdout_ends_within(SOON));
}

#[test]
fn t8_without_it_nothing_comes() {
    let (mut shell, init) = below_a_shell("");
    shell.kill(KILL);
    wait_for("another parent", || stat(init.0).filter(|(_, parent)| *parent != shell.pid));
    kill(init.0, USR2);
    assert!(shell.line().starts_with("SIGUSR2 "));
    kill(init.0, KILL);
}

const UNSHARE: &[&str] = &["--unshare", "pid,mount"];

#[test]
fn unshare_exit_codes_pass() {
    for is_pid1 in [true, false] {
        for code in [0, 1, 7, 125, 255] {
            let output = init(is_pid1, UNSHARE).args(subject(["exit", &code.to_string()])).run();
            assert_eq!((output.code, output.stderr.as_str()), (code, ""));
        }
        for signal in [HUP, KILL, 11, TERM, 64] {
            let output = init(is_pid1, UNSHARE).args(subject(["exit", "--signal", &signal.to_string()])).run();
            assert_eq!((output.code, output.stderr.as_str()), (128 + signal, ""));
        }
        for (program, code) in [("/nowhere/at/all", 127), ("/etc", 126)] {
            let output = init(is_pid1, UNSHARE).args([program]).run();
            assert_eq!(output.code, code);
            assert_one_line(&output.stderr);
        }
    }
    let output = init(false, &["--unshare", "pid", "-e", "7:70"]).args(subject(["exit", "7"])).run();
    assert_eq!(output.code, 70);
}

#[test]
fn unshare_proc_shows_only_the_namespace() {
    for is_pid1 in [true, false] {
        let script = "echo $$; cd /proc; ls -d [0-9]* | sort -n | head -n 2; ls -d [0-9]* | wc -l; readlink 1/exe";
        let output = init(is_pid1, UNSHARE).args(sh(script)).run();
        let lines: Vec<_> = output.stdout.lines().map(str::trim).collect();
        assert_eq!(lines[..3], ["2", "1", "2"], "{output:?}");
        // The two, and those of the pipeline.
        assert!((2..=5).contains(&lines[3].parse::<i32>().unwrap()), "{output:?}");
        assert_eq!(fs::canonicalize(lines[4]).unwrap(), fs::canonicalize(sexton()).unwrap());
    }
    // Nothing of it shows outside.
    assert!(lives(std::process::id().cast_signed()));
}

#[test]
fn unshare_signals_go_in_and_leftovers_finish() {
    for is_pid1 in [true, false] {
        let mut running = init(is_pid1, UNSHARE).args(subject(["trap"])).start().ready();
        for (signal, name) in [(HUP, "SIGHUP "), (USR1, "SIGUSR1 "), (28, "SIGWINCH "), (TERM, "SIGTERM ")] {
            running.kill(signal);
            assert!(running.line().starts_with(name));
        }
        assert_eq!(running.finish().code, 0);
        let words = ["stubborn", "--after", "200", "--say", "finished", "--left-behind"];
        let output = init(is_pid1, UNSHARE).args(subject(words)).run();
        assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (0, "ready\nfinished\n", ""));
    }
}

/// All that is inside holds the command's stdout, sexton itself on neither side: its end says that all are gone.
#[test]
fn unshare_when_one_is_killed_nothing_is_left() {
    let script = "$LAB subject stubborn --left-behind; $LAB subject daemonize -- $LAB subject trap --stay
        exec $LAB subject trap --stay";
    for round in 0..50 {
        let mut outside = init(false, UNSHARE).args(sh(script)).start().ready().ready();
        let inside = outside.command();
        let victim = if round % 2 == 0 { outside.pid } else { inside };
        kill(victim, KILL);
        assert_eq!(outside.code(), 128 + KILL);
        assert!(outside.stdout_ends_within(SOON), "round {round}");
        wait_for("the inside's end", || (!lives(inside)).then_some(()));
    }
}

/// The same at any moment of the start.
#[test]
fn unshare_when_the_one_outside_is_killed_early_nothing_is_left() {
    for round in 0..150 {
        let mut outside = init(false, UNSHARE).args(subject(["trap", "--stay"])).start();
        let until = Instant::now() + Duration::from_micros(20 * round);
        while Instant::now() < until {}
        outside.kill(KILL);
        assert!(outside.stdout_ends_within(SOON), "round {round}");
        assert_eq!(outside.code(), 128 + KILL);
    }
}

#[test]
fn unshare_stops_by_the_rules_inside() {
    let began = Instant::now();
    let options = [UNSHARE, &["--grace", "300ms"]].concat();
    let output = init(false, &options).args(subject(["stubborn", "--left-behind"])).run();
    assert_eq!(output.code, 0);
    assert!((Duration::from_millis(300)..SOON).contains(&began.elapsed()), "{:?}", began.elapsed());
    let options = [UNSHARE, &["-k", "100ms"]].concat();
    let mut running = init(false, &options).args(subject(["stubborn"])).start().ready();
    running.kill(TERM);
    assert_eq!(running.code(), 128 + KILL);
    let options = [UNSHARE, &["--pause"]].concat();
    let mut running = listening(init(false, &options).start());
    let inside = running.command();
    running.kill(TERM);
    assert_eq!(running.code(), 0);
    assert!(!lives(inside));
}
