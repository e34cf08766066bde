//! Namespaces (N1, N2, N3): made, entered, mapped, named, and gone when sexton is.

mod common;

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{
    Init, Output, Running, as_user, assert_refused, children, folder, for_anyone, has, sh, stat, subject, wait_for,
};

/// Each kind's name, and its file in /proc/PID/ns.
const KINDS: [(&str, &str); 8] = [
    ("user", "user"),
    ("cgroup", "cgroup"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("net", "net"),
    ("time", "time"),
    ("pid", "pid"),
    ("mount", "mnt"),
];
const SOON: Duration = Duration::from_secs(10);

/// Not as PID 1: what is new is new by sexton alone.
fn init(options: &[&str]) -> Init {
    Init::new(options).not_pid1()
}

/// As uid 1000, from a copy that he can reach.
fn users(name: &str, options: &[&str]) -> Init {
    Init::program(for_anyone(name), options).not_pid1().prepare(as_user(1000))
}

#[track_caller]
fn said(output: Output) -> String {
    assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{output:?}");
    output.stdout
}

/// The namespaces of a process, by their files' names.
fn namespaces_of(pid: i32) -> BTreeMap<String, PathBuf> {
    let link = |file: &str| fs::read_link(format!("/proc/{pid}/ns/{file}"));
    KINDS.iter().map(|(_, file)| ((*file).to_owned(), link(file).unwrap())).collect()
}

/// Those that differ, in the order of their names.
fn differing(one: &BTreeMap<String, PathBuf>, other: &BTreeMap<String, PathBuf>) -> Vec<String> {
    one.iter().filter(|(file, link)| other[*file] != **link).map(|(file, _)| file.clone()).collect()
}

/// A command that runs: the last of the line of children, by its pid as we see it.
fn command_of(running: &Running) -> i32 {
    let mut pid = running.pid;
    while let Some(child) = children(pid).first() {
        pid = *child;
    }
    pid
}

fn waiting(options: &[&str]) -> Running {
    init(options).args(subject(["trap", "--stay"])).start().ready()
}

fn own_namespaces() -> BTreeMap<String, PathBuf> {
    namespaces_of(std::process::id().cast_signed())
}

#[test]
fn n1_what_is_asked_for_is_new_and_nothing_else() {
    let own = own_namespaces();
    let files = |names: &[&str]| {
        let mut files: Vec<_> =
            KINDS.iter().filter(|(name, _)| names.contains(name)).map(|(_, file)| (*file).to_owned()).collect();
        files.sort();
        files
    };
    let all: Vec<_> = KINDS.iter().map(|(name, _)| *name).collect();
    for (name, _) in KINDS {
        let running = waiting(&["--unshare", name]);
        assert_eq!(differing(&namespaces_of(command_of(&running)), &own), files(&[name]));
    }
    for names in [&["user", "net"][..], &["time", "uts", "ipc"], &["pid", "mount", "cgroup"], &["net", "uts"], &all] {
        let running = waiting(&["--unshare", &names.join(",")]);
        assert_eq!(differing(&namespaces_of(command_of(&running)), &own), files(names));
    }
    let running = waiting(&["--unshare", "uts,net", "--unshare", "all"]);
    assert_eq!(differing(&namespaces_of(command_of(&running)), &own), files(&all));
}

#[test]
fn n1_sexton_itself_is_pid_1_of_a_new_pid_namespace() {
    let running = waiting(&["--unshare", "pid,mount"]);
    let command = command_of(&running);
    let inner = children(running.pid)[0];
    assert_eq!(children(inner), [command]);
    assert_eq!(namespaces_of(inner)["pid"], namespaces_of(command)["pid"]);
    let output = init(&["--unshare", "pid,mount"]).args(sh("echo $PPID $$; cat /proc/1/comm")).run();
    assert_eq!(said(output), "1 2\nsexton\n");
}

#[test]
fn n1_another_process_namespaces_are_joined() {
    let target = waiting(&["--unshare", "all", "--hostname", "target"]);
    let pid = command_of(&target);
    let (own, theirs) = (own_namespaces(), namespaces_of(pid));
    assert_eq!(differing(&own, &theirs).len(), 8);
    for (name, file) in KINDS {
        for whose in [pid.to_string(), format!("/proc/{pid}/ns/{file}")] {
            let running = waiting(&["--join", &format!("{name}:{whose}")]);
            let joined = namespaces_of(command_of(&running));
            assert_eq!(differing(&joined, &own), [file], "{name}:{whose}");
            assert_eq!(joined[file], theirs[file]);
        }
    }
    // In any order: it is sexton's business in which they can be joined.
    for reversed in [false, true] {
        let mut words: Vec<String> = KINDS.iter().map(|(name, _)| format!("--join={name}:{pid}")).collect();
        if reversed {
            words.reverse();
        }
        let options: Vec<_> = words.iter().map(String::as_str).collect();
        let running = waiting(&options);
        assert_eq!(namespaces_of(command_of(&running)), theirs);
        drop(running);
        let script = "cat /proc/sys/kernel/hostname; cat /proc/1/comm; kill -0 2 && echo seen";
        assert_eq!(said(init(&options).args(sh(script)).run()), "target\nsexton\nseen\n");
    }
    // Some joined, others new.
    let join = format!("net:{pid}");
    let mixed = waiting(&["--join", &join, "--unshare", "uts,pid,mount"]);
    let found = namespaces_of(command_of(&mixed));
    assert_eq!(found["net"], theirs["net"]);
    assert_eq!(differing(&found, &own), ["mnt", "net", "pid", "uts"]);
}

/// Who joins waits, forwards and hands the code on, as with namespaces of its own.
#[test]
fn n1_in_a_joined_pid_namespace_signals_and_codes_come_through() {
    let target = waiting(&["--unshare", "pid,mount"]);
    let join = [format!("--join=pid:{}", command_of(&target)), format!("--join=mount:{}", command_of(&target))];
    let options: Vec<_> = join.iter().map(String::as_str).collect();
    let mut running = init(&options).args(subject(["trap"])).start().ready();
    running.kill(libc::SIGUSR1);
    assert!(running.line().starts_with("SIGUSR1 10 "));
    running.kill(libc::SIGTERM);
    assert_eq!(running.finish().code, 0);
    for (script, code) in [("exit 7", 7), ("kill -KILL $$", 128 + libc::SIGKILL)] {
        assert_eq!(init(&options).args(sh(script)).run().code, code);
    }
    assert_eq!(said(init(&options).args(subject(["orphan", "--count", "20"])).run()), "ready\ndone\n");
    // It was a guest there: the target still runs, and nothing else does.
    assert!(stat(command_of(&target)).is_some_and(|(state, _)| state == 'S'));
    assert_eq!(children(children(target.pid)[0]), [command_of(&target)]);
}

#[test]
fn n1_signals_go_in_and_codes_come_out() {
    for list in ["pid", "user", "time", "pid,mount,user", "all"] {
        let mut running = init(&["--unshare", list]).args(subject(["trap"])).start().ready();
        for (signal, name) in
            [(libc::SIGHUP, "SIGHUP 1 "), (libc::SIGUSR1, "SIGUSR1 10 "), (libc::SIGWINCH, "SIGWINCH ")]
        {
            running.kill(signal);
            let line = running.line();
            assert!(line.starts_with(name), "{list}: {line}");
        }
        running.kill(libc::SIGTERM);
        assert_eq!(running.finish().code, 0);
        let ends = [("exit 7", 7), ("kill -KILL $$", 128 + 9), ("kill -SEGV $$", 128 + 11), ("exec /nowhere", 127)];
        for (script, code) in ends {
            assert_eq!(init(&["--unshare", list]).args(sh(script)).run().code, code, "{list}: {script}");
        }
        for (words, code) in [("/no/such/file", 127), ("/etc/passwd", 126)] {
            let output = init(&["--unshare", list]).args([words]).run();
            assert_eq!((output.code, output.stderr.lines().count()), (code, 1), "{list}: {output:?}");
        }
        let real_time = init(&["--unshare", list]).args(subject(["receive", "--count", "3"])).start();
        let mut real_time = real_time.ready();
        for signal in [64, 34, 50] {
            real_time.kill(signal);
            assert!(real_time.line().starts_with(&format!("{signal} ")), "{list}");
        }
        assert_eq!(real_time.finish().code, 0);
    }
}

/// All that is inside holds the command's stdout, sexton itself on neither side: its end says that all are gone.
#[test]
fn n1_kill_either_side_and_nothing_is_left() {
    let rounds: u32 = std::env::var("SEXTON_KILL_TRIALS").map_or(40, |text| text.parse().unwrap());
    for round in 0..rounds {
        let list = ["pid", "user", "user,time", "all"][round as usize / 2 % 4];
        let mut outside = waiting(&["--unshare", list]);
        let inside = children(outside.pid)[0];
        let command = command_of(&outside);
        let victim = if round % 2 == 0 { outside.pid } else { inside };
        // SAFETY: passes integers; the process is one of ours, and not waited for yet.
        unsafe { libc::kill(victim, libc::SIGKILL) };
        assert_eq!(outside.code(), 128 + libc::SIGKILL, "round {round}");
        assert!(outside.stdout_ends_within(SOON), "round {round}, {list}: the command lives");
        for pid in [inside, command] {
            wait_for("its end", || stat(pid).is_none_or(|(state, _)| state == 'Z').then_some(()));
        }
    }
}

#[test]
fn n2_root_maps_everybody_to_himself() {
    let [users, groups] = ["uid_map", "gid_map"].map(|file| {
        let text = fs::read_to_string(format!("/proc/self/{file}")).unwrap();
        let lines = text.lines().map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        // Whoever exists here, whoever that may be outside.
        lines.map(|numbers| format!("{0} {0} {1}\n", numbers[0], numbers[2])).collect::<Vec<_>>().concat()
    });
    assert_eq!(maps(init(&["--unshare", "user"])), (users, groups, "0 0 allow".into()));
}

/// Both maps of a command, and what it is: user, group, whether setgroups(2) is allowed.
fn maps(init: Init) -> (String, String, String) {
    let script = "tr -s ' ' </proc/self/uid_map; echo --; tr -s ' ' </proc/self/gid_map; echo --
        echo $(id -u) $(id -g) $(cat /proc/self/setgroups)";
    let text = said(init.args(sh(script)).run());
    let parts: Vec<_> = text.split("--\n").collect();
    let lines = |text: &str| text.lines().map(|line| format!("{}\n", line.trim())).collect::<Vec<_>>().concat();
    (lines(parts[0]), lines(parts[1]), parts[2].trim().into())
}

/// An ordinary user may make user namespaces here, or else the test is skipped.
fn users_may() -> bool {
    let output = users("users-may", &["--unshare", "user"]).args(["true"]).run();
    if output.code != 0 {
        eprintln!("skipped: an ordinary user gets no user namespace here: {}", output.stderr);
    }
    output.code == 0
}

#[test]
fn n2_an_ordinary_user_maps_himself() {
    if !users_may() {
        return;
    }
    let own = |options: &[&str]| maps(users("maps", options));
    assert_eq!(own(&["--unshare", "user"]), ("1000 1000 1\n".into(), "1000 1000 1\n".into(), "1000 1000 deny".into()));
    assert_eq!(
        own(&["--unshare", "user", "--map-root"]),
        ("0 1000 1\n".into(), "0 1000 1\n".into(), "0 0 deny".into())
    );
    let options = ["--unshare", "user", "--map-users", "7:1000:1", "--map-groups", "8:1000:1"];
    assert_eq!(own(&options), ("7 1000 1\n".into(), "8 1000 1\n".into(), "7 8 deny".into()));
    // As root of his own he may do all that needs no more than that.
    let options = ["--unshare", "all", "--map-root", "--hostname", "his"];
    assert_eq!(said(users("all", &options).args(sh("hostname; id -u; echo $$")).run()), "his\n0\n2\n");
    for (option, helper) in [("--map-users", "newuidmap"), ("--map-groups", "newgidmap")] {
        let output = users("others", &["--unshare", "user", option, "0:0:1"]).args(["/bin/echo", "ran"]).run();
        assert_refused_by(helper, &output);
    }
}

/// The helper may have said why in words of its own; sexton's are the last.
#[track_caller]
fn assert_refused_by(helper: &str, output: &Output) {
    let last = output.stderr.lines().last().unwrap_or_default();
    assert_eq!((output.code, output.stdout.as_str()), (125, ""), "{output:?}");
    assert!(last.starts_with(&format!("sexton: {helper} ")), "{output:?}");
}

#[test]
fn n2_root_maps_whom_it_likes() {
    let options = "--unshare user --map-users 0:100000:1000 --map-users 5000:300000:10 --map-groups 0:200000:1000";
    let options: Vec<_> = options.split(' ').collect();
    let (users, groups, who) = maps(init(&options));
    assert_eq!((&*users, &*groups, &*who), ("0 100000 1000\n5000 300000 10\n", "0 200000 1000\n", "0 0 allow"));
    // Seen from outside, too.
    let running = waiting(&options);
    let status = fs::read_to_string(format!("/proc/{}/status", command_of(&running))).unwrap();
    assert!(status.contains("Uid:\t100000\t100000\t100000\t100000\n"), "{status}");
    assert!(status.contains("Gid:\t200000\t200000\t200000\t200000\n"), "{status}");
    let output = init(&["--unshare", "user", "--map-users", "0:5:10", "--map-users", "5:50:10"]).args(["true"]).run();
    assert_refused(&output, &["uid_map\", \"0 5 10\\n5 50 10\")", "EINVAL", "overlap"]);
}

/// Puts this file over that one, in the process that becomes sexton and has mounts of its own.
fn cover(file: &Path, over: &str) -> impl Fn() -> io::Result<()> + Send + Sync + 'static {
    let path = |path: &str| CString::new(path).unwrap();
    let (file, over) = (path(file.to_str().unwrap()), path(over));
    move || {
        // SAFETY: the paths are live C strings; a bind has neither type nor data.
        let result =
            unsafe { libc::mount(file.as_ptr(), over.as_ptr(), std::ptr::null(), libc::MS_BIND, std::ptr::null()) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// As uid 1000, whose name is `ann`, where these are /etc/subuid and /etc/subgid.
fn granted(name: &str, grants: &str, options: &[&str]) -> Init {
    let files = folder(name);
    let write = |name: &str, text: &str| {
        let path = files.join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let accounts = write("passwd", "root:x:0:0::/:/bin/sh\nann:x:1000:1000::/:/bin/sh\n");
    let covers = [
        cover(&accounts, "/etc/passwd"),
        cover(&write("subuid", grants), "/etc/subuid"),
        cover(&write("subgid", grants), "/etc/subgid"),
    ];
    let mut become_user = as_user(1000);
    Init::program(for_anyone(name), options)
        .prepare(move || covers.iter().try_for_each(|cover| cover()).and_then(|()| become_user()))
}

#[test]
fn n2_map_auto_maps_what_was_granted() {
    // The filter of these tiers forbids what newuidmap(1) is: more privileged than who calls it.
    if std::env::var_os("SEXTON_TEST_DENY").is_some() || !has("/usr/bin/newuidmap") || !users_may() {
        return;
    }
    let grants = "bob:1:1\nann:100000:65536\n";
    for (options, map, who) in [
        (&["--unshare", "user", "--map-auto"][..], "0 100000 65536\n", "0 0 allow"),
        (&["--unshare", "user", "--map-auto", "--map-root"], "0 1000 1\n1 100000 65536\n", "0 0 allow"),
        (
            &["--unshare", "user", "--map-users", "0:100007:3", "--map-groups", "0:100007:3"],
            "0 100007 3\n",
            "0 0 allow",
        ),
    ] {
        assert_eq!(maps(granted("granted", grants, options)), (map.into(), map.into(), who.into()), "{options:?}");
    }
    let output = granted("granted", grants, &["--unshare", "user", "--map-groups", "0:7:3"]).args(["true"]).run();
    assert_refused_by("newgidmap", &output);
    assert!(output.stderr.contains("/etc/subgid must grant"), "{output:?}");
}

#[test]
fn n2_map_auto_without_a_grant_is_refused() {
    if !has("/etc/subuid") || !users_may() {
        return;
    }
    let output = granted("nothing", "bob:100000:65536\n", &["--unshare", "user", "--map-auto"]).args(["true"]).run();
    assert_refused(&output, &["/etc/subgid", "grants nothing to uid 1000", "--map-root"]);
}

#[test]
fn n3_names_are_set_inside_only() {
    let names = "cat /proc/sys/kernel/hostname /proc/sys/kernel/domainname";
    let before = said(init(&[]).args(sh(names)).run());
    for list in ["uts", "uts,user", "all"] {
        let options = ["--unshare", list, "--hostname", "box", "--domainname", "example.org"];
        assert_eq!(said(init(&options).args(sh(names)).run()), "box\nexample.org\n", "{list}");
    }
    assert_eq!(said(init(&[]).args(sh(names)).run()), before);
    let long = "x".repeat(64);
    assert_eq!(said(init(&["--unshare", "uts", "--hostname", &long]).args(["hostname"]).run()).trim(), long);
}

/// Seconds of /proc/uptime, CLOCK_BOOTTIME.
fn uptime(text: &str) -> f64 {
    text.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn n3_clocks_are_ahead_or_behind_inside() {
    let outside = uptime(&fs::read_to_string("/proc/uptime").unwrap());
    for (ahead, monotonic) in [(86_400_i32, 500_i32), (0, 0), (-1, -1)] {
        let (boot, mono) = (ahead.to_string(), monotonic.to_string());
        let options = ["--unshare", "time,pid,mount", "--boottime", &boot, "--monotonic", &mono];
        let text = said(init(&options).args(sh("cat /proc/uptime /proc/self/timens_offsets")).run());
        let mut lines = text.lines();
        let inside = uptime(lines.next().unwrap());
        let difference = inside - outside - f64::from(ahead);
        assert!((0.0..60.0).contains(&difference), "{inside} inside, {outside} outside, {ahead} s ahead");
        let offsets: Vec<Vec<_>> = lines.map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(offsets, [["monotonic", &*mono, "0"], ["boottime", &*boot, "0"]]);
    }
    for option in ["--boottime", "--monotonic"] {
        let output = init(&["--unshare", "time", option, "-99999999999"]).args(["true"]).run();
        assert_refused(&output, &["timens_offsets", "ERANGE", "negative"]);
    }
}

#[test]
fn n1_wrong_combinations_are_found_while_planning() {
    let own = format!("net:{}", std::process::id());
    for (options, words) in [
        (&["--boottime", "5"][..], &["--boottime", "add --unshare time"][..]),
        (&["--monotonic", "5", "--unshare", "pid"], &["--monotonic", "add --unshare time"]),
        (&["--hostname", "x"], &["--hostname", "add --unshare uts"]),
        (&["--domainname", "x", "--unshare", "mount"], &["--domainname", "add --unshare uts"]),
        (&["--map-root"], &["need --unshare user"]),
        (&["--map-auto", "--unshare", "pid"], &["need --unshare user"]),
        (&["--map-users", "0:0:1"], &["need --unshare user"]),
        (&["--unshare", "user", "--map-root", "--map-users", "0:0:1"], &["--map-users", "leave out --map-root"]),
        (&["--unshare", "user", "--map-auto", "--map-groups", "0:0:1"], &["--map-groups", "--map-auto"]),
        (&["--unshare", "net", "--join", &own], &["--join net and --unshare net"]),
        (&["--join", &own, "--join", &own], &["--join net", "twice"]),
        (&["--unshare", "pids"], &["--unshare", "pids", "cgroup,user,time", "pid, mount"]),
        (&["--unshare", ""], &["--unshare"]),
        (&["--join", "net"], &["--join", "net:1234"]),
        (&["--join", "disk:1"], &["disk", "net, uts"]),
        (&["--join", "net:x"], &["neither a process id nor a path"]),
        (&["--unshare", "user", "--map-users", "0:1"], &["INNER:OUTER:COUNT"]),
        (&["--unshare", "user", "--map-users", "0:1:0"], &["INNER:OUTER:COUNT"]),
        (&["--unshare", "uts", "--hostname", ""], &["--hostname", "1 to 64"]),
        (&["--unshare", "uts", "--hostname", &"x".repeat(65)], &["--hostname", "1 to 64"]),
        (&["--unshare", "time", "--boottime", "soon"], &["--boottime", "seconds"]),
    ] {
        let output = init(options).args(["/bin/echo", "ran"]).run();
        let words: Vec<_> = words.iter().filter(|word| !word.contains("cgroup,user,time")).copied().collect();
        assert_refused(&output, &words);
    }
}

#[test]
fn n1_what_cannot_be_joined_is_told() {
    let gone = {
        let mut over = init(&[]).args(["true"]).start();
        over.code();
        over.pid
    };
    let own = std::process::id();
    for (join, words) in [
        (format!("net:{gone}"), &["open(", "ENOENT", "no such process"][..]),
        ("net:/nowhere/net".into(), &["open(\"/nowhere/net\")", "ENOENT"]),
        ("net:/etc/passwd".into(), &["setns(\"/etc/passwd\", CLONE_NEWNET)", "EINVAL", "no namespace"]),
        (format!("uts:/proc/{own}/ns/net"), &["setns(", "CLONE_NEWUTS", "EINVAL", "of this kind"]),
        (format!("user:{own}"), &["setns(", "CLONE_NEWUSER", "EINVAL", "own"]),
    ] {
        assert_refused(&init(&["--join", &join]).args(["/bin/echo", "ran"]).run(), words);
    }
    let target = waiting(&["--unshare", "net"]);
    let join = format!("net:{}", command_of(&target));
    let output = users("joining", &["--join", &join]).args(["/bin/echo", "ran"]).run();
    assert_refused(&output, &["open(", "EACCES", "as root"]);
}

#[test]
fn n1_without_privilege_the_refusal_says_the_way_out() {
    for (list, words) in [
        ("pid", &["clone(CLONE_NEWPID)", "EPERM", "add user"][..]),
        ("net,uts", &["unshare(CLONE_NEWUTS|CLONE_NEWNET)", "EPERM", "add user"]),
        ("time", &["unshare(CLONE_NEWTIME)", "EPERM", "add user"]),
    ] {
        assert_refused(&users("refused", &["--unshare", list]).args(["/bin/echo", "ran"]).run(), words);
    }
    // Where no user namespace may be made any more.
    let forbidding = ["--unshare", "user,pid,mount", "--map-root"];
    let sexton = common::sexton();
    let script =
        format!("echo 0 >/proc/sys/user/max_user_namespaces; {} --unshare user /bin/echo ran", sexton.display());
    let output = init(&forbidding).args(sh(&script)).run();
    assert_refused(&output, &["clone(CLONE_NEWUSER)", "ENOSPC", "max_*_namespaces"]);
}

#[test]
fn n1_explain_needs_no_privilege_and_does_nothing() {
    let witness = folder("explain").join("ran");
    let mut options = vec!["--explain", "--unshare", "all", "--map-root", "--hostname", "box", "--domainname", "org"];
    options.extend(["--boottime", "5", "--monotonic", "-7"]);
    let output = users("explain", &options).args(["touch", witness.to_str().unwrap()]).run();
    let text = said(output);
    let places: Vec<_> = [
        "a second sexton is started, in new namespaces: user, ipc, uts, net, pid, mount",
        "map ids, users 0:1000:1 (inside:outside:count), groups 0:1000:1",
        "a new time namespace, boottime +5 s, monotonic -7 s",
        "lo is up",
        "mounts are private",
        "the hostname box",
        "the domain name org",
        "a new cgroup namespace",
        "then touch is started",
    ]
    .iter()
    .map(|words| text.find(words).unwrap_or_else(|| panic!("{words:?} is not in {text}")))
    .collect();
    assert!(places.is_sorted(), "{places:?} in {text}");
    assert!(!witness.exists());
    let join = format!("net:{}", std::process::id());
    assert!(said(init(&["--explain", "--join", &join]).args(["true"]).run()).contains("join the net namespace"));
}
