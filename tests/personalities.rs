//! Clauses P: under a peer's name sexton behaves as that peer does. The same scripts run under the real peers, where
//! Debian's packages are installed, and the results are compared.

mod common;

use std::path::Path;
use std::time::Duration;

use common::{Init, Output, Running, sh, stat, status_field, subject, wait_for};

const TINI: &str = "/usr/bin/tini";
const DUMB_INIT: &str = "/usr/bin/dumb-init";
const CATATONIT: &str = "/usr/bin/catatonit";

/// Whether the real one is here. In CI it has to be.
fn is_here(peer: &str) -> bool {
    let here = Path::new(peer).exists();
    assert!(here || std::env::var_os("CI").is_none(), "{peer} is not installed");
    if !here {
        eprintln!("skipped: no {peer} here, so nothing is compared");
    }
    here
}

/// The name of a peer.
fn name(peer: &str) -> &str {
    peer.rsplit('/').next().unwrap_or(peer)
}

/// Sexton under the peer's name, and the peer itself if it is here.
fn both(peer: &str, options: &[&str]) -> Vec<(bool, Init)> {
    let mut both = vec![(true, Init::named(name(peer), options))];
    if is_here(peer) {
        both.push((false, Init::exactly(peer).args(options.to_vec())));
    }
    both
}

/// The exit code, the same for both.
#[track_caller]
fn assert_codes(peer: &str, options: &[&str], expected: i32) {
    for (ours, init) in both(peer, options) {
        let output = init.run();
        assert_eq!(output.code, expected, "{} {options:?}, ours: {ours}: {}", name(peer), output.stderr);
        if ours && !output.stderr.is_empty() && expected != 0 {
            common::assert_one_line(&output.stderr);
            assert_eq!(output.stdout, "");
        }
    }
}

#[test]
fn p1_tini_exit_codes() {
    for (options, code) in [
        (&[][..], 1),
        (&["--nope", "x"], 1),
        (&["-Z", "x"], 1),
        (&["-e", "300", "true"], 1),
        (&["-p", "NOPE", "true"], 1),
        (&["/nowhere"], 127),
        (&["/etc"], 126),
        (&["-h"], 0),
        (&["-l"], 0),
        (&["--version"], 0),
        (&["-s", "-v", "-w", "-g", "--", "true"], 0),
        (&["-e", "7", "--", "sh", "-c", "exit 7"], 0),
        (&["--", "sh", "-c", "exit 9"], 9),
        (&["--", "sh", "-c", "kill -TERM $$"], 143),
    ] {
        assert_codes(TINI, options, code);
    }
}

#[test]
fn p2_dumb_init_exit_codes() {
    for (options, code) in [
        (&[][..], 1),
        (&["--nope", "x"], 1),
        (&["-r", "TERM", "true"], 1),
        (&["-r", "99:1", "true"], 1),
        (&["/nowhere"], 2),
        (&["/etc"], 2),
        (&["-h"], 0),
        (&["--version"], 0),
        (&["-c", "sh", "-c", "exit 9"], 9),
        (&["--single-child", "--verbose", "--rewrite", "15:3", "--", "true"], 0),
        (&["--", "sh", "-c", "kill -TERM $$"], 143),
    ] {
        assert_codes(DUMB_INIT, options, code);
    }
}

#[test]
fn p3_catatonit_exit_codes() {
    for (options, code) in [
        (&[][..], 1),
        (&["--nope", "x"], 1),
        (&["/nowhere"], 1),
        (&["/etc"], 1),
        (&["-h"], 0),
        (&["-V"], 0),
        (&["-L"], 0),
        (&["-g", "--", "sh", "-c", "exit 9"], 9),
        (&["--", "sh", "-c", "kill -TERM $$"], 143),
    ] {
        assert_codes(CATATONIT, options, code);
    }
}

/// A script that tells its children's signals as well: `parent USR1` and `child USR1`.
const FAMILY: &str = "sh -c 'trap \"echo child\" USR1; echo ready; while :; do sleep 0.05; done' & \
                      trap 'echo parent' USR1; wait; while :; do sleep 0.05; done";

/// Who of the family got a USR1: the lines printed, sorted.
fn who_gets_it(init: Init) -> Vec<String> {
    let mut running = init.args(["--"]).args(sh(FAMILY)).start().ready();
    // The trap of the parent is set before it waits; its child was ready before, so wait for the parent's too.
    let command = running.command();
    wait_for("the trap", || {
        let caught = u64::from_str_radix(&status_field(command, "SigCgt")?, 16).ok()?;
        (caught & 1 << 9 != 0).then_some(())
    });
    running.kill(libc::SIGUSR1);
    let mut lines = vec![running.line()];
    lines.extend(running.try_line(Duration::from_millis(300)));
    lines.sort();
    lines
}

#[test]
fn p1_p2_p3_who_gets_the_signals() {
    let parent = vec!["parent".to_owned()];
    let all = vec!["child".to_owned(), "parent".to_owned()];
    for (peer, options, expected) in [
        (TINI, &[][..], &parent),
        (TINI, &["-g"], &all),
        (DUMB_INIT, &[], &all),
        (DUMB_INIT, &["-c"], &parent),
        (CATATONIT, &[], &parent),
        (CATATONIT, &["-g"], &all),
    ] {
        for (ours, init) in both(peer, options) {
            assert_eq!(&who_gets_it(init), expected, "{} {options:?}, ours: {ours}", name(peer));
        }
    }
    for (variable, value, peer, expected) in [
        ("TINI_KILL_PROCESS_GROUP", "", TINI, &all),
        ("DUMB_INIT_SETSID", "0", DUMB_INIT, &parent),
        ("DUMB_INIT_SETSID", "1", DUMB_INIT, &all),
    ] {
        for (ours, init) in both(peer, &[]) {
            assert_eq!(&who_gets_it(init.env(variable, value)), expected, "{variable}={value}, ours: {ours}");
        }
    }
}

/// A number from the subject's JSON.
fn number(json: &str, field: &str) -> i32 {
    let rest = json.split(&format!("\"{field}\":")).nth(1).unwrap();
    rest.split([',', '}']).next().unwrap().parse().unwrap()
}

#[test]
fn p1_p2_p3_group_and_session_of_the_command() {
    for (peer, options) in [(TINI, &[][..]), (DUMB_INIT, &[]), (DUMB_INIT, &["-c"]), (CATATONIT, &[])] {
        let results: Vec<_> = both(peer, options)
            .into_iter()
            .map(|(_, init)| {
                let json = init.args(["--"]).args(subject(["status"])).run().stdout;
                let pid = number(&json, "pid");
                (number(&json, "pgid") == pid, number(&json, "sid") == pid)
            })
            .collect();
        let expected = match (peer, options.is_empty()) {
            (DUMB_INIT, true) => (true, true),
            (DUMB_INIT, false) => (false, false),
            _ => (true, false),
        };
        for result in results {
            assert_eq!(result, expected, "{} {options:?}", name(peer));
        }
    }
}

#[test]
fn p1_tini_says_what_scripts_look_for() {
    for (ours, init) in both(TINI, &["-w"]) {
        let output = init.args(["--"]).args(sh("(sleep 0.05 &); sleep 0.3")).run();
        assert!(output.stderr.contains("Reaped zombie process with pid="), "ours: {ours}: {}", output.stderr);
        assert!(output.stderr.starts_with("[WARN  tini ("), "ours: {ours}: {}", output.stderr);
    }
    for (ours, init) in both(TINI, &["true"]) {
        let output = init.not_pid1().run();
        assert!(output.stderr.contains("zombie reaping won't work"), "ours: {ours}: {}", output.stderr);
    }
    for asked in [Init::named("tini", &["-s", "true"]), Init::named("tini", &["true"]).env("TINI_SUBREAPER", "")] {
        assert_eq!(asked.not_pid1().run().stderr, "");
    }
    // Silent at level 0, as tini is.
    for (ours, init) in both(TINI, &["true"]) {
        assert_eq!(init.env("TINI_VERBOSITY", "0").not_pid1().run().stderr, "", "ours: {ours}");
    }
}

#[test]
fn p1_version_in_the_form_that_docker_reads() {
    for program in ["tini", "docker-init"] {
        let Output { code, stdout, .. } = Init::named(program, &["--version"]).run();
        let (version, commit) = stdout.trim_end().split_once(" - ").unwrap();
        assert_eq!((code, version), (0, "tini version 0.19.0"));
        assert!(commit.starts_with("git."), "{commit}");
    }
    assert!(Init::new(&["--version"]).run().stdout.starts_with("sexton "));
}

/// P2: at the command's end its group gets TERM, and dumb-init is gone at once; tini and catatonit just go.
#[test]
fn p1_p2_p3_what_becomes_of_leftovers() {
    let script = "trap 'echo got it >&3' TERM; echo ready; while :; do sleep 0.05; done";
    for (peer, gets_term) in [(TINI, false), (DUMB_INIT, true), (CATATONIT, false)] {
        for (ours, init) in both(peer, &[]) {
            // Not PID 1, so that the leftover outlives the init; it prints where the reader is ours.
            let line = format!("exec 3>&1; sh -c \"{script}\" & read line; exit 5");
            let (stdin, mut end) = std::io::pipe().unwrap();
            let mut running = init.not_pid1().stdin(stdin).args(["--"]).args(sh(&line)).start().ready();
            let leftover = grandchild(&running);
            std::io::Write::write_all(&mut end, b"\n").unwrap();
            assert_eq!(running.code(), 5);
            let got = running.try_line(Duration::from_millis(500));
            // SAFETY: passes integers; the leftover is this test's own.
            unsafe { libc::kill(leftover, libc::SIGKILL) };
            assert_eq!(got.is_some(), gets_term, "{}, ours: {ours}: {got:?}", name(peer));
        }
    }
}

fn grandchild(running: &Running) -> i32 {
    let command = running.command();
    wait_for("the leftover", || common::children(command).first().copied())
}

/// P2: TSTP stops the session (as STOP, which an orphaned group obeys) and dumb-init itself; CONT continues both.
#[test]
fn p2_dumb_init_suspends_and_resumes() {
    for signal in [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU] {
        for (ours, init) in both(DUMB_INIT, &[]) {
            let running = init.not_pid1().args(["--"]).args(subject(["default"])).start().ready();
            let command = running.command();
            running.kill(signal);
            for pid in [command, running.pid] {
                wait_for("the stop", || stat(pid).filter(|(state, _)| *state == 'T'));
            }
            running.kill(libc::SIGCONT);
            for pid in [running.pid, command] {
                wait_for("the resumption", || stat(pid).filter(|(state, _)| *state == 'S'));
            }
            running.kill(libc::SIGTERM);
            assert_eq!(running.finish().code, 143, "ours: {ours}");
        }
    }
}

#[test]
fn p2_dumb_init_rewrites_by_number() {
    for (ours, init) in both(DUMB_INIT, &["-r", "15:10", "-r", "12:0"]) {
        let mut running = init.args(["--"]).args(subject(["trap", "USR1", "USR2", "TERM"])).start().ready();
        running.kill(libc::SIGUSR2);
        running.kill(libc::SIGTERM);
        assert!(running.line().starts_with("SIGUSR1 "), "ours: {ours}");
    }
}

/// P3, T7: catatonit -P runs nothing, and TERM and INT end it.
#[test]
fn p3_pause() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        for (ours, init) in both(CATATONIT, &["-P"]) {
            let running = init.start();
            wait_for("the pause", || stat(running.pid).filter(|(state, _)| *state == 'S'));
            if ours {
                wait_for("a signalfd", || {
                    std::fs::read_dir(format!("/proc/{}/fd", running.pid)).ok()?.flatten().find(|entry| {
                        std::fs::read_link(entry.path()).is_ok_and(|to| to.to_string_lossy().contains("signalfd"))
                    })
                });
                running.kill(signal);
                assert_eq!(running.finish().code, 0);
            }
        }
    }
}

/// P4: sexton's own clauses hold under every name. One from each letter.
#[test]
fn p4_sextons_clauses_hold_under_every_name() {
    for peer in ["tini", "docker-init", "dumb-init", "catatonit", "podman-init"] {
        // R2: SIGCHLD inherited as ignored.
        assert_eq!(Init::named(peer, &[]).ignoring(libc::SIGCHLD).args(sh("exit 7")).run().code, 7, "{peer}");
        // S2: a fault signal that a process sent.
        let mut running = Init::named(peer, &[]).args(subject(["receive", "--count", "1"])).start().ready();
        running.kill(libc::SIGSEGV);
        assert!(running.line().starts_with("11 "), "{peer}");
        assert_eq!(running.code(), 0);
        // H7: options end at the first word that is none.
        let output = Init::named(peer, &[]).args(sh("echo $1")).args(["sh", "-h"]).run();
        assert_eq!(output.stdout, "-h\n", "{peer}");
        // H6: SEXTON_OPTS adds to a peer's options.
        let output = Init::named(peer, &[]).env("SEXTON_OPTS", "-e 7:3").args(sh("exit 7")).run();
        assert_eq!(output.code, 3, "{peer}");
    }
}
