//! `sexton-lab check`: what it finds in the inits that are known, in some that are broken on purpose, and in sexton.

mod common;

use std::collections::BTreeSet;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::{children, has, lab, sexton, stat, wait_for};
use serde_json::Value;

/// Runs it with these words.
fn check<S: AsRef<std::ffi::OsStr>>(words: &[S]) -> Output {
    Command::new(lab()).arg("check").args(words).stdin(Stdio::null()).output().unwrap()
}

/// Which cases failed and which were skipped, for each init, in the order of the words.
fn results(inits: &[String], only: &[&str]) -> Vec<(BTreeSet<String>, BTreeSet<String>)> {
    let mut words = vec!["--format".to_owned(), "json".to_owned()];
    for init in inits {
        words.extend(["--init".to_owned(), init.clone()]);
    }
    for glob in only {
        words.extend(["--only".to_owned(), (*glob).to_owned()]);
    }
    let output = check(&words);
    let text = String::from_utf8(output.stdout).unwrap();
    let report: Value =
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text} {}", String::from_utf8_lossy(&output.stderr)));
    let cases = report["cases"].as_array().unwrap();
    let with = |init: usize, result: &str| -> BTreeSet<String> {
        let is_so = |case: &&Value| case["results"][init]["result"] == result;
        cases.iter().filter(is_so).map(|case| case["name"].as_str().unwrap().to_owned()).collect()
    };
    (0..inits.len()).map(|init| (with(init, "fail"), with(init, "skip"))).collect()
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn sexton_words() -> String {
    match std::env::var("SEXTON_TEST_DENY") {
        Ok(errno) => format!("sexton={} deny --errno {errno} -- {} --", lab().display(), sexton().display()),
        Err(_) => format!("sexton={} --", sexton().display()),
    }
}

#[test]
fn sexton_passes_everything() {
    let denied = std::env::var_os("SEXTON_TEST_DENY").is_some();
    let (failed, skipped) = results(&[sexton_words()], &[]).remove(0);
    if denied {
        // Behind another program its options are not known, nor can it be put into an image alone.
        assert!(failed.is_subset(&names(&["t5-daemonised", "h4-scratch"])), "{failed:?}");
    } else {
        assert_eq!((failed, skipped), (names(&[]), names(&[])));
    }
}

/// What no init but sexton does: forward CHLD, and 32 and 33; keep a value; wait for leftovers; let stdout and stdin go;
/// write without waiting; say which interpreter is missing; refuse junk; cost nothing in a crowd.
const NOBODY_DOES: [&str; 15] = [
    "s2-child",
    "s2-job-control",
    "s2-libc",
    "s3-value",
    "r4-cost",
    "x5-interpreter",
    "x5-junk",
    "t1-all-ended",
    "t1-background",
    "t1-daemon",
    "t1-stopped",
    "t5-daemonised",
    "h1-stdin",
    "h1-stdout",
    "h2-broken",
];

/// The failures that are known of Debian 12's packages, and no other.
#[test]
fn the_known_failures_of_the_peers_are_found() {
    let tini = [
        "s2-fault",
        "s4-early-term-group",
        "s10-eperm",
        "r1-subreaper",
        "r2-sigchld-ignored",
        "r5-idle",
        "x4-stdout",
        "t8-parent-death-race",
        "y1-background",
        "y2-job-control",
        "y3-closed-stdin",
        "h1-descriptors",
        "h1-folder",
        "h2-full",
        "h4-scratch",
        "h5-listen-pid",
        "h7-options-end",
    ];
    let dumb_init = [
        "s1-first-instant",
        "s4-early-term",
        "s4-early-term-group",
        "s4-early-term-only",
        "s5-nothing-of-its-own",
        "s6-ignored",
        "s6-mask",
        "r1-subreaper",
        "r2-given-back",
        "x3-not-executable",
        "x3-not-found",
        "y1-foreground-job",
        "y2-stays-stopped",
        "h1-descriptors",
        "h2-full",
        "h4-scratch",
        "h5-listen-pid",
    ];
    let catatonit = [
        "s2-fault",
        "s4-early-term-group",
        "s5-nothing-of-its-own",
        "s6-nothing-added",
        "r2-sigchld-ignored",
        "x3-not-executable",
        "x3-not-found",
        "y1-background",
        "y2-job-control",
        "y2-stays-stopped",
        "h1-folder",
        "h2-full",
        "h7-options-end",
    ];
    let peers = [("tini", &tini[..]), ("dumb-init", &dumb_init), ("catatonit", &catatonit)];
    if !peers.iter().all(|(name, _)| has(&format!("/usr/bin/{name}"))) {
        return;
    }
    let words = ["/usr/bin/tini --", "/usr/bin/dumb-init", "/usr/bin/catatonit --"].map(str::to_owned);
    for ((name, own), (failed, _)) in peers.iter().zip(results(&words, &[])) {
        let known: BTreeSet<String> = &names(own) | &names(&NOBODY_DOES);
        assert_eq!(failed, known, "{name}");
    }
}

/// Without an init, and with a shell in its place.
#[test]
fn what_a_shell_or_nothing_does_not_do() {
    let words = [String::new(), "shell=/bin/sh -c '\"$0\" \"$@\"; exit $?'".to_owned()];
    let all = results(&words, &["s7-*", "r1-*", "x1-*", "h7-bytes"]);
    assert_eq!(all[0].0, names(&["s7-default", "r1-orphans", "x1-signals"]));
    assert_eq!(all[0].1, names(&["r1-subreaper"]));
    assert_eq!(all[1].0, names(&["s7-default", "s7-caught", "r1-subreaper"]));
}

/// Each fault of an init that is else the same fails exactly the cases that it should.
#[test]
fn a_broken_init_fails_what_it_should() {
    let broken = |name: &str, faults: &str| format!("{name}={} subject broken-init {faults} --", lab().display());
    let faults: [(&str, &[&str]); 6] = [
        ("--never-reaps", &["r1-orphans"]),
        ("--swallows USR1", &["s2-inside", "s2-usual", "s7-caught", "s7-default"]),
        ("--doubles RTMIN+1", &["s3-real-time"]),
        ("--leaks-mask", &["s6-nothing-added", "s7-caught"]),
        ("--wrong-status", &["s7-default", "s7-ignored", "x1-codes", "x1-signals", "t1-stubborn", "x3-not-found"]),
        ("--talks", &["s7-default", "s7-ignored", "s7-caught", "r1-orphans"]),
    ];
    let inits: Vec<String> = std::iter::once(broken("sound", ""))
        .chain((1..).zip(&faults).map(|(number, (fault, _))| broken(&format!("fault{number}"), fault)))
        .collect();
    let only = [
        "s2-usual",
        "s2-inside",
        "s3-real-time",
        "s6-nothing-added",
        "s7-*",
        "r1-orphans",
        "x1-*",
        "x3-not-found",
        "t1-stubborn",
    ];
    let all = results(&inits, &only);
    assert_eq!(all[0], (names(&[]), names(&[])), "the sound one");
    for ((fault, expected), (failed, _)) in faults.iter().zip(&all[1..]) {
        let expected = names(expected);
        if *fault == "--talks" {
            assert!(expected.is_subset(failed), "{fault}: {failed:?}");
        } else {
            assert_eq!(*failed, expected, "{fault}");
        }
    }
}

/// An init that never ends is no end of ours.
#[test]
fn one_that_hangs_is_found_and_gone() {
    let init = format!("hangs={} subject broken-init --hangs-at-end --", lab().display());
    let began = Instant::now();
    let all = results(&[init], &["x1-codes", "r3-*", "s7-caught"]);
    assert_eq!(all[0].0, names(&["x1-codes", "r3-same-instant", "s7-caught"]));
    assert!(began.elapsed() < Duration::from_mins(1), "{:?}", began.elapsed());
}

#[test]
fn only_named_inits_count_for_the_exit_code() {
    let broken = format!("broken={} subject broken-init --wrong-status --", lab().display());
    let sound = format!("sound={} subject broken-init --", lab().display());
    let code = |words: &[&str]| check(words).status.code();
    assert_eq!(code(&["--only", "x1-codes", "--init", &broken]), Some(1));
    assert_eq!(code(&["--only", "x1-codes", "--init", &sound]), Some(0));
    assert_eq!(code(&["--only", "x1-codes", "--init", &sound, "--init", &broken]), Some(1));
    // Nobody has named tini, which fails this.
    assert_eq!(code(&["--only", "r2-sigchld-ignored"]), Some(0));
}

#[test]
fn bad_input_is_one_line_and_2() {
    for (words, says) in [
        (&["--init", "/no/such/init"][..], "no program /no/such/init"),
        (&["--init", "sh 'x"], "a quote is not closed"),
        (&["--init", "sh", "--init", "/bin/sh --"], "two inits are called sh"),
        (&["--only", "z9*"], "no such case"),
        (&["--jobs", "0"], "0"),
        (&["--format", "yaml"], "yaml"),
    ] {
        let output = check(words);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {stderr}");
        assert!(stderr.contains(says) && output.stdout.is_empty(), "{words:?}: {stderr}");
    }
    let output = check(&["--init", "/no/such/init"]);
    common::assert_one_line(&String::from_utf8_lossy(&output.stderr).replace("sexton-lab: ", "sexton: "));
}

#[test]
fn the_list_names_every_clause_and_every_pitfall() {
    let output = check(&["--list"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let words: BTreeSet<&str> = text.split_whitespace().collect();
    for clause in (1..=11).map(|n| format!("S{n}")).chain((1..=6).map(|n| format!("R{n}"))) {
        assert!(words.contains(clause.as_str()), "{clause}");
    }
    for clause in ["X1", "X2", "X3", "T1", "T2", "T3", "Y1", "Y2", "Y3", "Y4", "H1", "H2", "H3", "H4"] {
        assert!(words.contains(clause), "{clause}");
    }
    for pitfall in 1..=19 {
        let output = check(&["--list", "--only", &format!("pitfall-{pitfall}")]);
        assert!(output.status.success() && !output.stdout.is_empty(), "pitfall {pitfall}");
    }
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (name, clause) = (words.next().unwrap(), words.next().unwrap());
        assert_eq!(name.split('-').next(), Some(clause.to_lowercase().as_str()), "{line}");
    }
}

/// The text between the tags of elements that are well nested, as far as this format needs it.
fn elements(xml: &str) -> Vec<String> {
    let (mut open, mut all) = (Vec::new(), Vec::new());
    for tag in xml.split('<').skip(1).map(|part| part.split_once('>').expect("a tag that ends").0) {
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "well nested");
        } else if !tag.starts_with('?') {
            let name = tag.split_whitespace().next().unwrap().trim_end_matches('/').to_owned();
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            all.push(tag.to_owned());
            if !tag.ends_with('/') {
                open.push(name);
            }
        }
    }
    assert!(open.is_empty(), "{open:?}");
    all
}

#[test]
fn every_format_tells_the_same() {
    let init = format!("a<b&c={} subject broken-init --wrong-status --", lab().display());
    let run = |format: &str| {
        let words = ["--format", format, "--init", &init, "--only", "x1-codes,x2-mapped,r3-same-instant,h7-bytes"];
        String::from_utf8(check(&words).stdout).unwrap()
    };
    let json: Value = serde_json::from_str(&run("json")).unwrap();
    let result = |index: usize| json["cases"][index]["results"][0]["result"].as_str().unwrap().to_owned();
    assert_eq!([0, 1, 2, 3].map(result), ["fail", "fail", "skip", "pass"]);
    // Codes 0 and 1 are right even so.
    assert_eq!(json["cases"][1]["results"][0]["expected"], "exit code 2");
    let junit = elements(&run("junit"));
    let count = |name: &str| junit.iter().filter(|tag| tag.starts_with(name)).count();
    assert_eq!((count("testcase"), count("failure"), count("skipped")), (4, 2, 1), "{junit:?}");
    let suite = junit.iter().find(|tag| tag.starts_with("testsuite ")).unwrap();
    assert!(suite.contains("name=\"a&lt;b&amp;c\" tests=\"4\" failures=\"2\" errors=\"0\" skipped=\"1\""), "{suite}");
    let table = run("table");
    assert!(table.contains("1 passed, 2 failed, 1 skipped"), "{table}");
    let rows: Vec<_> =
        run("markdown").lines().filter(|line| line.starts_with("| ")).map(|line| line.matches('|').count()).collect();
    assert_eq!(rows, [4; 6]);
}

/// A run that is ended by a signal, or killed, leaves no process.
#[test]
fn nothing_stays_behind() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGKILL] {
        let init = format!("hangs={} subject broken-init --hangs-at-end --", lab().display());
        let mut run = Command::new(lab())
            .args(["check", "--init", &init, "--only", "x1-*,s7-*,t1-*", "--jobs", "6"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let pid = run.id().cast_signed();
        let workers = wait_for("the cases to run", || Some(children(pid)).filter(|pids| pids.len() >= 6));
        let below = wait_for("inits", || {
            Some(workers.iter().flat_map(|pid| children(*pid)).collect::<Vec<_>>()).filter(|pids| !pids.is_empty())
        });
        // SAFETY: no memory is passed.
        unsafe { libc::kill(pid, signal) };
        let status = run.wait().unwrap();
        let expected = if signal == libc::SIGKILL { None } else { Some(128 + signal) };
        assert_eq!(status.code(), expected);
        wait_for("all to be gone", || workers.iter().chain(&below).all(|pid| stat(*pid).is_none()).then_some(()));
    }
}

/// As an ordinary user it asks in a user namespace, and skips what only root can ask.
#[test]
fn an_ordinary_user_can_ask() {
    if !has("/usr/bin/setpriv") {
        return;
    }
    let folder = common::folder("check-user");
    let copy = |name: &str, from: std::path::PathBuf| {
        common::write_program(&folder.join(name), &std::fs::read(from).unwrap(), 0o755)
    };
    let (lab, sexton) = (copy("sexton-lab", lab()), copy("sexton", sexton()));
    let output = Command::new("/usr/bin/setpriv")
        .args(["--reuid=54321", "--regid=54321", "--clear-groups"])
        .arg(lab)
        .args(["check", "--init", &format!("{} --", sexton.display())])
        .output()
        .unwrap();
    let (text, why) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if why.contains("no PID namespace can be made here") {
        eprintln!("skipped: {why}");
        return;
    }
    assert_eq!(output.status.code(), Some(0), "{text}{why}");
    let skipped: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("  skip ")).collect();
    assert!(skipped.iter().all(|line| line.contains("needs root")) && skipped.len() == 3, "{skipped:?}");
}
