//! Clauses R: reaping, in all three gears.

#![allow(clippy::multiple_unsafe_ops_per_block)]

mod common;

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

use common::{Init, Running, children, lab, sh, stat, status_field, subject, wait_for, zombies_of};

/// Whether the kernel can reap by itself and still tell the command's status (Linux 6.15), and no filter forbids it.
fn has_first_gear() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|word| word.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    version >= (6, 15) && std::env::var_os("SEXTON_TEST_DENY").is_none()
}

/// Sexton in each gear that this kernel has.
fn gears() -> Vec<(u8, Init)> {
    let mut gears = vec![(2, Init::denied("ENOSYS", &["-v"])), (3, Init::new(&["-v", "-w"]))];
    if has_first_gear() {
        gears.push((1, Init::new(&["-v"])));
    }
    gears
}

/// The longest time that a zombie with this parent was seen, until `is_over`.
fn longest_zombie(init: i32, mut is_over: impl FnMut() -> bool) -> Duration {
    let mut since: HashMap<i32, Instant> = HashMap::new();
    let mut longest = Duration::ZERO;
    while !is_over() {
        let now = zombies_of(init);
        since.retain(|pid, _| now.contains(pid));
        for pid in now {
            longest = longest.max(since.entry(pid).or_insert_with(Instant::now).elapsed());
        }
    }
    longest
}

/// R1: with up to 100 processes none is seen for 20 ms. Looking takes time too, and these machines are shared: what is
/// asserted is ten times that, far below what an init that misses one takes.
#[test]
fn r1_no_zombie_stays() {
    for (gear, init) in gears() {
        let mut running = init
            .args(subject(["orphan", "--count", "500", "--rate", "500", "--lifetime", "20", "--stay"]))
            .start()
            .ready();
        let pid = running.pid;
        let longest = longest_zombie(pid, || running.try_line(Duration::ZERO).is_some());
        assert!(longest < Duration::from_millis(200), "gear {gear}: a zombie stayed {longest:?}");
        wait_for("the last orphans to be gone", || (children(pid).len() == 1).then_some(()));
        running.kill(libc::SIGTERM);
        let stderr = running.finish().stderr;
        assert!(stderr.contains(&format!("(gear {gear})")), "{stderr}");
    }
}

/// R1, R4, pitfall 18: thousands of live orphans, among which a few die.
#[test]
fn r1_no_zombie_stays_among_thousands_of_orphans() {
    let count = if fs::read_to_string("/proc/meminfo").unwrap().contains("MemTotal:        2") { 1000 } else { 4000 };
    for (gear, init) in gears() {
        let many = format!("{} subject orphan --count {count} --lifetime 600000", lab().display());
        let few = format!("{} subject orphan --count 200 --rate 200 --stay", lab().display());
        let mut running = init.args(sh(&format!("{many}; exec {few}"))).start().ready();
        assert_eq!(running.line(), "done");
        assert_eq!(running.line(), "ready");
        let pid = running.pid;
        let longest = longest_zombie(pid, || running.try_line(Duration::ZERO).is_some());
        assert!(longest < Duration::from_secs(2), "gear {gear}: a zombie stayed {longest:?}");
        wait_for("the dead to be gone", || zombies_of(pid).is_empty().then_some(()));
        running.kill(libc::SIGTERM);
        assert_eq!(running.finish().code, 143, "gear {gear}");
    }
}

/// R1: not PID 1, sexton makes itself the subreaper.
#[test]
fn r1_as_a_child_subreaper() {
    let script = "(sh -c 'sleep 0.1; echo $PPID >&3' &) 3>&1; sleep 0.5; echo $PPID";
    let running = Init::new(&[]).not_pid1().args(sh(script)).start();
    let pid = running.pid.to_string();
    let output = running.finish();
    let parents: Vec<&str> = output.stdout.lines().collect();
    // The orphan's parent may be read before or after its first one ended; the command's is sexton.
    assert_eq!(parents.last(), Some(&pid.as_str()), "{output:?}");
    let adopted = Init::new(&[]).not_pid1().args(subject(["orphan", "--count", "5", "--lifetime", "60000", "--stay"]));
    let mut running = adopted.start().ready();
    assert_eq!(running.line(), "done");
    wait_for("five orphans", || (children(running.pid).len() == 6).then_some(()));
}

/// R2, pitfall 1.
#[test]
fn r2_sigchld_inherited_as_ignored() {
    for (gear, init) in gears() {
        let script = "(sleep 0.05 &); sleep 0.2; exit 7";
        assert_eq!(init.ignoring(libc::SIGCHLD).args(sh(script)).run().code, 7, "gear {gear}");
    }
}

/// R3, pitfall 10: the command and 1 or 10 orphans end in the same instant.
#[test]
fn r3_the_status_is_right_when_all_end_at_once() {
    for round in 0..60 {
        for (gear, init) in gears() {
            let code = round + 1;
            // An orphan that dies first makes sexton shift to its gear.
            let race = format!("{} subject exit-race {code} --count {}", lab().display(), 1 + round % 10);
            let output = init.args(sh(&format!("(true &); exec {race}"))).run();
            assert_eq!(output.code, code, "gear {gear}");
        }
    }
}

/// R3, X1: the command's own end while the kernel reaps.
#[test]
fn r3_every_kind_of_end_in_the_first_gear() {
    if !has_first_gear() {
        eprintln!("skipped: no first gear here");
        return;
    }
    for (end, code) in [("exit 0", 0), ("exit 255", 255), ("kill -KILL $$", 137), ("kill -SEGV $$", 139)] {
        let output = Init::new(&["-v"]).args(sh(&format!("(sleep 0.01 &); sleep 0.2; {end}"))).run();
        assert!(output.stderr.contains("(gear 1)"), "{}", output.stderr);
        assert_eq!(output.code, code, "{end}");
    }
}

fn switches(pid: i32) -> u64 {
    status_field(pid, "voluntary_ctxt_switches").unwrap().parse().unwrap()
}

/// Waits until the init has slept for a while.
fn settle(running: &Running) {
    let mut last = (u64::MAX, Instant::now());
    wait_for("the init to settle", || {
        let now = switches(running.pid);
        if now != last.0 {
            last = (now, Instant::now());
        }
        (last.1.elapsed() > Duration::from_millis(300) && stat(running.pid)?.0 == 'S').then_some(())
    });
}

/// R4: the kernel reaps, and sexton does not even wake up.
#[test]
fn r4_in_the_first_gear_orphans_cost_nothing() {
    if !has_first_gear() {
        eprintln!("skipped: no first gear here");
        return;
    }
    let (stdin, end) = std::io::pipe().unwrap();
    let script = format!("(true &); read line; exec {} subject orphan --count 1000 --stay", lab().display());
    let mut running = Init::new(&["-v"]).stdin(stdin).args(sh(&script)).start();
    settle(&running);
    let before = switches(running.pid);
    drop(end);
    assert_eq!((running.line(), running.line()), ("ready".into(), "done".into()));
    settle(&running);
    assert_eq!(switches(running.pid) - before, 0);
}

#[test]
fn r5_nothing_happens_and_nobody_wakes_up() {
    for (gear, init) in gears() {
        let mut running = init.args(subject(["orphan", "--count", "3", "--stay"])).start().ready();
        assert_eq!(running.line(), "done");
        settle(&running);
        let before = switches(running.pid);
        std::thread::sleep(Duration::from_secs(10));
        assert_eq!(switches(running.pid), before, "gear {gear}");
    }
}

#[test]
fn r6_each_reaped_orphan_is_named() {
    let output = Init::new(&["-w"]).args(sh("(sleep 0.05 &); (sleep 0.1 &); sleep 0.4")).run();
    let named = |line: &&str| line.starts_with("sexton: reaped zombie process with pid=") && line.contains('(');
    assert_eq!(output.stderr.lines().filter(named).count(), 2, "{}", output.stderr);
    assert!(output.stderr.contains("(sleep)"), "{}", output.stderr);
}
