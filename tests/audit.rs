//! `sexton-lab audit` of commands: good ones and bad ones, and that nothing of them is left. (Of images: tests/engines.)

mod common;

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::{children, lab, sexton, stat, wait_for};
use serde_json::Value;

fn audit(options: &[&str], command: &[&str]) -> Command {
    let mut audit = Command::new(lab());
    audit.arg("audit").args(["--grace", "1"]).args(options).arg("--").args(command).stdin(Stdio::null());
    audit
}

fn run(options: &[&str], command: &[&str]) -> Output {
    audit(options, command).output().unwrap()
}

/// The report as JSON, and the exit code.
fn report(options: &[&str], command: &[&str]) -> (Value, i32) {
    let output = run(&[&["--format", "json"], options].concat(), command);
    assert!(output.stderr.is_empty(), "{output:?}");
    (serde_json::from_slice(&output.stdout).unwrap(), output.status.code().unwrap())
}

/// What was found wrong, and how it is mended.
fn wrong(report: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let findings = report["findings"].as_array().unwrap().iter().filter(|finding| finding["is_wrong"] == true);
    findings.map(|finding| (text(&finding["what"]), text(&finding["mend"]))).collect()
}

fn process(report: &Value, pid: i32) -> &Value {
    let all = report["processes"].as_array().unwrap();
    all.iter().find(|process| process["pid"] == pid).unwrap_or_else(|| panic!("no {pid} in {report}"))
}

#[test]
fn a_good_one_is_well() {
    let (sexton, lab) = (sexton(), lab());
    let command = [sexton.to_str().unwrap(), "--", lab.to_str().unwrap(), "subject", "trap"];
    let (report, code) = report(&[], &command);
    assert_eq!((code, wrong(&report)), (0, vec![]), "{report}");
    assert_eq!((&report["stopped"]["exit_code"], &report["stopped"]["was_killed"]), (&0.into(), &false.into()));
    assert_eq!((&process(&report, 1)["name"], &process(&report, 2)["parent"]), (&"sexton".into(), &1.into()));
    for pid in [1, 2] {
        assert_eq!(process(&report, pid)["dispositions"]["SIGTERM"], "caught");
        assert_ne!(process(&report, pid)["end"]["how"], "killed");
    }
    let text = String::from_utf8(run(&[], &command).stdout).unwrap();
    // An older kernel cannot always tell an end shortly before PID 1's from one with it.
    assert!(text.contains("sexton") && (text.ends_with("All is well.\n") || text.contains("from 6.15 on")), "{text}");
}

#[test]
fn a_shell_form_entrypoint_hears_nothing() {
    let (report, code) = report(&[], &["sh", "-c", "sleep 1000; true"]);
    let found = wrong(&report);
    assert_eq!((code, found.len()), (1, 1), "{report}");
    assert!(found[0].0.contains("PID 1 is a shell (sh) that passes no signal on"), "{found:?}");
    assert!(found[0].1.starts_with("ENTRYPOINT [\"/sexton\", \"--\", \"sh\""), "{found:?}");
    assert_eq!((&report["stopped"]["was_killed"], &report["stopped"]["exit_code"]), (&true.into(), &137.into()));
    assert_eq!(process(&report, 2)["end"]["how"], "killed");
    assert_eq!(process(&report, 2)["outlived_grace"], true);
}

#[test]
fn zombies_are_laid_at_their_parents_door() {
    let lab = lab();
    let lab = lab.to_str().unwrap();
    let (as_pid1, code) = report(&[], &[lab, "subject", "zombie", "--count", "3"]);
    let found = wrong(&as_pid1);
    assert!(code == 1 && found.iter().any(|(what, _)| what.starts_with("3 zombies: PID 1 ")), "{found:?}");
    assert_eq!(process(&as_pid1, 2)["end"]["how"], "dead");
    // Under the best init, too: their parent lives.
    let sexton = sexton();
    let (below, code) =
        report(&[], &[sexton.to_str().unwrap(), "-e", "143", "--", lab, "subject", "zombie", "--count", "2"]);
    let found = wrong(&below);
    assert_eq!((code, found.len()), (1, 1), "{found:?}");
    assert!(found[0].0.starts_with("2 zombies of pid 2 ") && found[0].1.starts_with("no init can"), "{found:?}");
}

#[test]
fn who_ignores_term_has_to_be_killed() {
    let lab = lab();
    let lab = lab.to_str().unwrap();
    let (ignoring, code) = report(&[], &["sh", "-c", "trap '' TERM; trap 'exit 0' QUIT; sleep 1000 & wait; wait"]);
    assert_eq!((code, &process(&ignoring, 1)["dispositions"]["SIGTERM"]), (1, &"ignored".into()));
    assert_eq!(wrong(&ignoring)[0].1, "STOPSIGNAL SIGQUIT", "{ignoring}");
    let (mended, _) =
        report(&["--stop-signal", "QUIT"], &["sh", "-c", "trap '' TERM; trap 'exit 0' QUIT; sleep 1000 & wait; wait"]);
    assert_eq!(mended["stopped"]["was_killed"], false);
    let (stubborn, code) = report(&[], &[lab, "subject", "stubborn"]);
    assert!(code == 1 && wrong(&stubborn)[0].0.contains("got SIGTERM and did not end in 1 s"), "{stubborn}");
}

#[test]
fn a_daemon_that_gets_no_time_is_named() {
    let lab = lab();
    let lab = lab.to_str().unwrap();
    let script = format!("{lab} subject stubborn --after 300 --left-behind; trap 'exit 0' TERM; sleep 1000 & wait");
    let (alone, code) = report(&[], &["sh", "-c", &script]);
    let daemon = alone["processes"].as_array().unwrap().iter().find(|process| process["name"] == "sexton-lab").unwrap();
    if daemon["end"]["how"] == "together" {
        // An older kernel: it cannot be known, and so is no error.
        assert!(code == 0 && alone["findings"][0]["what"].as_str().unwrap().contains("from 6.15 on"), "{alone}");
    } else {
        let found = wrong(&alone);
        assert!(code == 1 && found[0].0.contains("killed without having ended"), "{found:?}");
        assert!(found[0].0.contains("sexton-lab"), "{found:?}");
    }
    let sexton = sexton();
    let (below, code) = report(&[], &[sexton.to_str().unwrap(), "--", "sh", "-c", &script]);
    assert_eq!((code, wrong(&below)), (0, vec![]), "{below}");
}

#[test]
fn it_waits_for_a_word_or_ends_by_itself() {
    let script = "sleep 0.3; echo all set; trap 'exit 0' TERM; while :; do sleep 0.05; done";
    let (ready, code) = report(&["--ready", "all set"], &["sh", "-c", script]);
    assert_eq!((code, &ready["ready"]), (0, &true.into()), "{ready}");
    assert!(ready["start_seconds"].as_f64().unwrap() >= 0.3);
    let (never, code) = report(&["--ready", "nowhere to be seen", "--patience", "1"], &["sh", "-c", script]);
    assert_eq!((code, &never["ready"]), (1, &false.into()), "{never}");
    let (over, code) = report(&[], &["sh", "-c", "exit 3"]);
    assert_eq!((code, &over["stopped"]["ended_by_itself"]), (1, &true.into()), "{over}");
    assert_eq!(over["stopped"]["exit_code"], 3);
    assert_eq!(report(&[], &["true"]).1, 0);
}

#[test]
fn bad_input_is_one_line_and_2() {
    for words in [
        &["audit"][..],
        &["audit", "--", "/no/such/command"],
        &["audit", "--grace", "x", "--", "true"],
        &["audit", "--engine", "kvm", "image"],
        &["audit", "--stop-signal", "NONE", "--", "true"],
        &["audit", "no-such-image-here"],
    ] {
        // An engine that is not there to be asked is the same for all machines.
        let output = Command::new(lab()).args(words).env("PATH", "/nowhere").output().unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{words:?}: {output:?}");
        let line = String::from_utf8(output.stderr).unwrap();
        assert!(line.starts_with("sexton-lab: ") && line.lines().count() == 1, "{words:?}: {line}");
    }
}

#[test]
fn interrupted_it_leaves_nothing() {
    let mut audit = audit(&["--patience", "600", "--ready", "never"], &["sh", "-c", "setsid sleep 1000 & sleep 1000"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let own = audit.id().cast_signed();
    let pid1 = wait_for("PID 1", || children(own).first().copied());
    let inside = wait_for("its children", || Some(children(pid1)).filter(|all| all.len() == 2));
    // SAFETY: passes integers; the process is ours.
    unsafe { libc::kill(own, libc::SIGINT) };
    let began = Instant::now();
    assert_eq!(audit.wait().unwrap().code(), Some(130));
    assert!(began.elapsed() < Duration::from_secs(10));
    for pid in inside.into_iter().chain([pid1]) {
        wait_for("its end", || stat(pid).is_none_or(|(state, _)| state == 'Z').then_some(()));
    }
}
