//! Each of sexton-lab's subjects does what its name says, as /proc shows it.

mod common;

use std::fs;
use std::time::{Duration, Instant};

use common::{Init, Output, Running, children, folder, lab, stat, status_field, wait_for, zombies_of};

/// The subject with nothing between it and us.
fn subject(words: &[&str]) -> Init {
    Init::exactly(lab()).not_pid1().args(["subject"]).args(words.iter().copied())
}

fn start(words: &[&str]) -> Running {
    subject(words).start().ready()
}

fn run(words: &[&str]) -> Output {
    subject(words).run()
}

/// A mask of /proc/PID/status.
fn mask(pid: i32, field: &str) -> u64 {
    u64::from_str_radix(&status_field(pid, field).unwrap(), 16).unwrap()
}

fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// User and system time of a process, in clock ticks (proc_pid_stat(5), fields 14 and 15).
fn ticks(pid: i32) -> (u64, u64) {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = text[text.rfind(')').unwrap() + 2..].split(' ').collect();
    (fields[11].parse().unwrap(), fields[12].parse().unwrap())
}

/// A size of /proc/PID/status, in kB.
fn kilobytes(pid: i32, field: &str) -> u64 {
    status_field(pid, field).unwrap().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn trap_prints_name_number_value_and_sender() {
    let mut trap = start(&["trap", "USR1", "RTMIN+1", "TERM"]);
    let own = std::process::id();
    assert_eq!(mask(trap.pid, "SigCgt") & (bit(10) | bit(15) | bit(35)), bit(10) | bit(15) | bit(35));
    trap.kill(libc::SIGUSR1);
    assert_eq!(trap.line(), format!("SIGUSR1 10 0 {own}"));
    let pid = trap.pid.to_string();
    let mut queue = Init::exactly(lab()).not_pid1().args(["sigqueue", &pid, "RTMIN+1", "7", "8"]).start();
    assert_eq!(queue.code(), 0);
    for value in [7, 8] {
        assert_eq!(trap.line(), format!("SIGRTMIN+1 35 {value} {}", queue.pid));
    }
    trap.kill(libc::SIGTERM);
    assert_eq!(trap.finish().code, 0);
}

#[test]
fn trap_with_stay_outlives_term() {
    let mut trap = start(&["trap", "--stay"]);
    trap.kill(libc::SIGTERM);
    assert!(trap.line().starts_with("SIGTERM 15 0 "));
    trap.kill(libc::SIGTERM);
    assert!(trap.line().starts_with("SIGTERM 15 0 "));
}

#[test]
fn receive_prints_all_and_counts() {
    let mut receive = start(&["receive", "--count", "2"]);
    assert_eq!(mask(receive.pid, "SigBlk"), !(bit(libc::SIGKILL) | bit(libc::SIGSTOP)));
    receive.kill(64);
    assert_eq!(receive.line(), format!("64 0 0 {}", std::process::id()));
    receive.kill(libc::SIGSEGV);
    assert!(receive.line().starts_with("11 "));
    assert_eq!(receive.finish().code, 0);
}

#[test]
fn ignore_and_default_have_these_dispositions() {
    let ignore = start(&["ignore", "HUP", "TERM"]);
    assert_eq!(mask(ignore.pid, "SigIgn") & (bit(1) | bit(15) | bit(2)), bit(1) | bit(15));
    let default = subject(&["default"]).ignoring(libc::SIGHUP).blocking(libc::SIGTERM).start().ready();
    assert_eq!((mask(default.pid, "SigIgn"), mask(default.pid, "SigBlk"), mask(default.pid, "SigCgt")), (0, 0, 0));
    default.kill(libc::SIGTERM);
    assert_eq!(default.finish().code, 128 + libc::SIGTERM);
}

#[test]
fn status_prints_what_proc_says() {
    let init = subject(&["status"]).ignoring(libc::SIGHUP).blocking(libc::SIGUSR1).env("WITNESS", "a \"b\" \\ \u{7}");
    let mut running = init.start();
    let line = running.line();
    let status: serde_json::Value = serde_json::from_str(&line).unwrap();
    let own = |field: &str| status_field(std::process::id().cast_signed(), field).unwrap();
    assert_eq!((&status["pid"], &status["ppid"]), (&running.pid.into(), &std::process::id().into()));
    let bits = |field: &str| u64::from_str_radix(status[field].as_str().unwrap(), 16).unwrap();
    assert_eq!((bits("ignored") & bit(1), bits("blocked"), bits("caught")), (bit(1), bit(10), 0));
    assert!(status["env"].as_array().unwrap().contains(&"WITNESS=a \"b\" \\ \u{7}".into()));
    assert_eq!(status["capabilities"]["bounding"], own("CapBnd").as_str());
    assert_eq!(status["no_new_privs"], own("NoNewPrivs") == "1");
    for kind in ["pid", "mnt", "net", "uts", "ipc", "cgroup", "user"] {
        let target = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        assert_eq!(status["namespaces"][kind], target.to_str().unwrap());
    }
    let cgroups = fs::read_to_string("/proc/self/cgroup").unwrap();
    assert_eq!(status["cgroups"], cgroups.lines().collect::<serde_json::Value>());
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let files: Vec<u64> = files.split_whitespace().take(2).map(|number| number.parse().unwrap()).collect();
    assert_eq!(status["limits"]["nofile"], serde_json::json!(files));
    assert_eq!(running.finish().code, 0);
}

#[test]
fn zombie_makes_so_many_and_keeps_them() {
    let zombie = start(&["zombie", "--count", "7"]);
    wait_for("7 zombies", || (zombies_of(zombie.pid).len() == 7).then_some(()));
}

/// Without an init they are those of PID 1 of their namespace: that is the subject itself here, which waits for no orphan.
#[test]
fn orphan_makes_so_many_of_such_a_depth() {
    for (depth, left) in [("1", 5), ("3", 15)] {
        let mut orphan = Init::exactly(lab())
            .args(["subject", "orphan", "--count", "5", "--depth", depth, "--stay"])
            .start()
            .ready();
        assert_eq!(orphan.line(), "done");
        wait_for("the orphans' zombies", || (zombies_of(orphan.pid).len() == left).then_some(()));
    }
}

#[test]
fn orphan_has_a_lifetime_a_rate_and_a_code() {
    let mut orphan = Init::exactly(lab())
        .args(["subject", "orphan", "--count", "3", "--lifetime", "600000", "--stay"])
        .start()
        .ready();
    assert_eq!(orphan.line(), "done");
    assert_eq!((children(orphan.pid).len(), zombies_of(orphan.pid).len()), (3, 0));
    drop(orphan);
    let began = Instant::now();
    let output = run(&["orphan", "--count", "4", "--rate", "20", "--code", "9"]);
    assert_eq!((output.code, output.stdout.as_str()), (9, "ready\ndone\n"));
    assert!(began.elapsed() >= Duration::from_millis(200), "four at 20 a second: {:?}", began.elapsed());
}

/// The daemon is an orphan, in a session that it does not lead.
#[test]
fn daemonize_leaves_its_command_in_another_session() {
    let output =
        Init::new(&["--wait"]).args(common::subject(["daemonize", "--"])).args(common::subject(["status"])).run();
    let (ready, json) = output.stdout.split_once('\n').unwrap();
    let status: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!((output.code, ready, &status["ppid"]), (0, "ready", &1.into()), "{output:?}");
    assert_ne!(status["sid"], status["pid"]);
    assert_ne!(status["sid"], 0, "a session outside of the namespace");
    assert_eq!(status["sid"], status["pgid"]);
}

#[test]
fn setsid_leads_a_session_and_hands_the_code_on() {
    let setsid = start(&["setsid"]);
    let leader = wait_for("the leader", || {
        let all = std::iter::once(setsid.pid).chain(children(setsid.pid));
        all.into_iter().find(|pid| {
            nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(*pid))).is_ok_and(|sid| sid.as_raw() == *pid)
        })
    });
    // SAFETY: passes integers only; the process is one of ours.
    unsafe { libc::kill(leader, libc::SIGKILL) };
    let output =
        run(&["setsid", "--", "/bin/sh", "-c", "read _ _ _ _ _ sid _ </proc/$$/stat; echo $(($$ - sid)); exit 5"]);
    assert_eq!((output.code, output.stdout.as_str()), (5, "ready\n0\n"), "{output:?}");
}

#[test]
fn stubborn_ends_late_or_never() {
    let stubborn = start(&["stubborn", "--after", "300", "--say", "saved"]);
    let began = Instant::now();
    stubborn.kill(libc::SIGTERM);
    let output = stubborn.finish();
    assert_eq!((output.code, output.stdout.as_str()), (0, "saved\n"));
    assert!(began.elapsed() >= Duration::from_millis(300));

    let mut never = start(&["stubborn"]);
    never.kill(libc::SIGTERM);
    assert!(!never.ends_within(Duration::from_millis(300)));
}

#[test]
fn stop_stops_until_it_is_continued() {
    let mut stop = start(&["stop"]);
    wait_for("state T", || stat(stop.pid).filter(|(state, _)| *state == 'T'));
    stop.kill(libc::SIGCONT);
    assert_eq!(stop.line(), "continued");
    assert_eq!(stop.finish().code, 0);
}

#[test]
fn exit_ends_by_code_or_by_signal() {
    for (words, code) in [(&["exit"][..], 0), (&["exit", "77"], 77), (&["exit", "--signal", "SEGV"], 128 + 11)] {
        let output = run(words);
        assert_eq!((output.code, output.stdout.as_str()), (code, "ready\n"), "{words:?}");
    }
}

#[test]
fn sleep_d_waits_uninterruptibly_and_ends_by_kill_alone() {
    let mut sleeper = start(&["sleep-d"]);
    let state = || stat(sleeper.pid).map(|(state, _)| state);
    wait_for("state D", || (state() == Some('D')).then_some(()));
    let child = children(sleeper.pid);
    sleeper.kill(libc::SIGTERM);
    assert!(!sleeper.ends_within(Duration::from_millis(200)), "TERM must wait");
    sleeper.kill(libc::SIGKILL);
    assert_eq!(sleeper.code(), 128 + libc::SIGKILL);
    wait_for("its child's end", || stat(child[0]).is_none_or(|(state, _)| state == 'Z').then_some(()));
    assert_eq!(run(&["sleep-d", "--millis", "20"]).stdout, "ready\ndone\n");
}

#[test]
fn fork_bomb_is_bounded() {
    let mut bomb = Init::exactly(lab()).args(["subject", "fork-bomb", "--count", "40"]).start().ready();
    assert_eq!(bomb.line(), "done");
    let all = || {
        let found = fs::read_dir(format!("/proc/{}/root/proc", bomb.pid)).unwrap().flatten();
        found.filter(|entry| entry.file_name().to_string_lossy().parse::<i32>().is_ok()).count()
    };
    // Each of 40 bytes made one process.
    wait_for("41 processes", || (all() == 41).then_some(()));
}

#[test]
fn burn_cpu_uses_the_time_that_it_says() {
    for (words, in_kernel) in [(&["burn-cpu"][..], false), (&["burn-cpu", "--system"], true)] {
        let burner = start(words);
        let (user, system) =
            wait_for("50 ticks", || Some(ticks(burner.pid)).filter(|(user, system)| user + system >= 50));
        assert_eq!(in_kernel, system > 10, "{user} user, {system} system");
    }
    let began = Instant::now();
    assert_eq!(run(&["burn-cpu", "--millis", "200"]).code, 0);
    assert!(began.elapsed() >= Duration::from_millis(200));
}

#[test]
fn eat_memory_touches_reserves_or_caches() {
    let done = |words: &[&str]| {
        let mut eater = start(words);
        assert_eq!(eater.line(), "done");
        eater
    };
    let eater = done(&["eat-memory", "24", "--stay"]);
    assert!(kilobytes(eater.pid, "RssAnon") >= 24 << 10);
    let eater = done(&["eat-memory", "24", "--untouched", "--stay"]);
    assert!(kilobytes(eater.pid, "RssAnon") < 8 << 10);
    assert!(kilobytes(eater.pid, "VmSize") >= 24 << 10);
    let file = folder("cache").join("file");
    let eater = done(&["eat-memory", "24", "--cache", file.to_str().unwrap(), "--stay"]);
    assert!(kilobytes(eater.pid, "RssAnon") < 8 << 10);
    assert!(!file.exists(), "nothing is left behind");
    let held = fs::read_dir(format!("/proc/{}/fd", eater.pid)).unwrap().flatten();
    let sizes: Vec<_> = held.filter_map(|entry| fs::metadata(entry.path()).ok()).map(|file| file.len()).collect();
    assert!(sizes.contains(&(24 << 20)), "{sizes:?}");
}

#[test]
fn write_tells_its_times_and_removes_its_file() {
    let file = folder("write").join("file");
    // Not in memory: there O_DIRECT is refused by older kernels.
    for options in [&[][..], &["--read"]] {
        let words = [&["write", file.to_str().unwrap(), "--mib", "2", "--block", "64"], options].concat();
        let output = run(&words);
        let lines: Vec<_> = output.stdout.lines().map(|line| line.split(' ').next().unwrap()).collect();
        let expected = if options.is_empty() { &["ready", "written"][..] } else { &["ready", "written", "read"] };
        assert_eq!((output.code, lines.as_slice()), (0, expected), "{output:?}");
        assert!(!file.exists());
    }
}

#[test]
fn bad_words_are_one_line_and_exit_code_2() {
    for words in
        [&[][..], &["nothing"], &["trap", "NOSUCH"], &["ignore"], &["exit", "256"], &["orphan", "--depth", "0"]]
    {
        let output = run(words);
        assert_eq!((output.code, output.stdout.as_str()), (2, ""), "{words:?}: {output:?}");
        assert!(words.is_empty() || output.stderr.lines().count() == 1, "{words:?}: {}", output.stderr);
    }
}
