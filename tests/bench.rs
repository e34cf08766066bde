//! `sexton-lab bench`: that it tells every number of each init, refuses bad input, and leaves nothing behind. What the
//! numbers are is no test's business.

mod common;

use std::process::{Command, Output, Stdio};

use common::{children, folder, lab, sexton, stat, wait_for};
use serde_json::Value;

fn bench(words: &[&str]) -> Command {
    let mut command = Command::new(lab());
    command.arg("bench").args(words).stdin(Stdio::null());
    command
}

fn run(words: &[&str]) -> Output {
    bench(words).output().unwrap()
}

/// The number at this path, such as `start.added_us`.
fn number(of: &Value, path: &str) -> f64 {
    let found = path.split('.').fold(of, |value, key| &value[key]);
    found.as_f64().unwrap_or_else(|| panic!("no number {path} in {of}"))
}

#[test]
fn each_init_has_every_number() {
    let folder = folder("bench");
    let plot = folder.join("plot.svg");
    let sexton = sexton();
    let words = [
        "--init",
        &format!("one={}", sexton.display()),
        "--init",
        &format!("two={} -w", sexton.display()),
        "--runs=1",
        "--live=50,0",
        "--idle=0",
        "--format=json",
        "--plot",
        plot.to_str().unwrap(),
    ];
    let output = run(&words);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["base"], "one");
    for path in ["cpus", "runs", "start_without_init_us", "orphans_each", "idle_seconds"] {
        number(&report, path);
    }
    let inits = report["inits"].as_array().unwrap();
    assert_eq!(inits.len(), 2);
    for (init, name) in inits.iter().zip(["one", "two"]) {
        assert_eq!(init["name"], name);
        for path in [
            "file_bytes",
            "start.added_us",
            "start.total_us",
            "start.page_faults",
            "start.system_calls",
            "signal.median_us",
            "signal.p99_us",
            "signal.system_calls",
            "memory_at_start.rss_kb",
            "memory_at_start.dirty_kb",
            "memory_used.rss_kb",
            "memory_used.dirty_kb",
            "idle.switches",
        ] {
            number(init, path);
        }
        // Sorted, whatever the order on the command line.
        let live: Vec<_> = init["orphans"].as_array().unwrap().iter().map(|point| number(point, "live")).collect();
        assert_eq!(live, [0.0, 50.0]);
        for point in init["orphans"].as_array().unwrap() {
            number(point, "cpu_us");
            assert!(number(point, "per_second") > 0.0);
        }
        // What cannot be but so: an init was there, and it did something.
        assert!(number(init, "start.system_calls") > 1.0 && number(init, "signal.system_calls") >= 1.0, "{init}");
        assert!(number(init, "memory_at_start.rss_kb") > 0.0 && number(init, "file_bytes") > 0.0, "{init}");
        for key in ["start.added_us", "signal.median_us", "orphans.50.cpu_us", "memory_used.dirty_kb"] {
            assert!(init["ratios"].get(key).is_some(), "{key} in {init}");
        }
    }
    let drawn = std::fs::read_to_string(&plot).unwrap();
    assert!(drawn.starts_with("<svg ") && drawn.ends_with("</svg>\n"), "{drawn}");
    assert_eq!(drawn.matches("<polyline ").count(), 2);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_table_names_each_init() {
    let output = run(&["--init", sexton().to_str().unwrap(), "--runs=1", "--live=0", "--idle=0", "--cpu=all"]);
    assert!(output.status.success(), "{output:?}");
    let table = String::from_utf8(output.stdout).unwrap();
    for part in ["Start", "Signal", "Orphans", "Memory"] {
        assert!(table.contains(part), "{table}");
    }
    assert_eq!(table.matches("\n  sexton ").count(), 5, "{table}");
}

#[test]
fn bad_input_is_one_line_and_2() {
    let sexton = sexton();
    let sexton = sexton.to_str().unwrap();
    for words in [
        &["--runs", "0"][..],
        &["--runs", "many"],
        &["--live", "1,x"],
        &["--format", "xml"],
        &["--cpu", "none"],
        &["--cpu", "100000"],
        &["--nothing"],
        &["--init", "/no/such/init"],
        &["--init", "no-such-init-in-path"],
        &["--init", ""],
        &["--init", "sh 'x"],
        &["--init", sexton, "--init", sexton],
        &["--init", sexton, "--only", "tini"],
        &["--init", sexton, "--plot", "/no/such/folder/x.svg"],
    ] {
        let output = run(words);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {output:?}");
        assert!(output.stdout.is_empty(), "{words:?}: {output:?}");
        let line = String::from_utf8(output.stderr).unwrap();
        assert!(line.starts_with("sexton-lab: ") && line.lines().count() == 1, "{words:?}: {line}");
    }
}

#[test]
fn an_init_that_does_not_run_its_command_is_told() {
    let output = run(&["--init", "/bin/true", "--runs=1", "--live=0", "--idle=0"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let line = String::from_utf8(output.stderr).unwrap();
    assert!(line.starts_with("sexton-lab: true: ") && line.lines().count() == 1, "{line}");
}

#[test]
fn an_interrupted_bench_leaves_nothing_behind() {
    let sexton = sexton();
    let mut running =
        bench(&["--init", sexton.to_str().unwrap(), "--runs=1", "--live=2000", "--idle=0"]).spawn().unwrap();
    let bench = running.id().cast_signed();
    // In the midst of making orphans.
    let (init, orphans) = wait_for("an init with orphans", || {
        let init = *children(bench).first()?;
        Some((init, children(init))).filter(|(_, orphans)| orphans.len() >= 200)
    });
    // SAFETY: no memory is passed.
    unsafe { libc::kill(bench, libc::SIGINT) };
    assert!(!running.wait().unwrap().success());
    // What is dead may wait for whoever adopted it.
    let is_dead = |pid: i32| stat(pid).is_none_or(|(state, _)| state == 'Z');
    wait_for("the end of all", || [&[init][..], &orphans].concat().into_iter().all(is_dead).then_some(()));
}

/// The peers may be missing; sexton and the floor are always there.
#[test]
fn a_container_of_ones_own_is_measured_beside_others() {
    let output = run(&["--setup", "--runs=1", "--format=json"]);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let runners = report["runners"].as_array().unwrap();
    let names: Vec<_> = runners.iter().map(|runner| runner["name"].as_str().unwrap()).collect();
    for name in [report["base"].as_str().unwrap(), "sexton, cgroup", "nothing between"] {
        assert!(names.contains(&name), "{name} in {names:?}, not {}", report["unable"]);
    }
    for runner in runners {
        for path in ["median_ms", "p90_ms", "ratio", "system_calls"] {
            assert!(number(runner, path) > 0.0, "{path} of {runner}");
        }
    }
}
