//! Clauses C: who the command runs as, what it may, its limits and its environment.

#![allow(clippy::multiple_unsafe_ops_per_block)]

mod common;

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use common::{
    Init, Output, Running, as_user, assert_refused_with, folder, for_anyone, has, sexton, sh, status_field,
    write_program,
};

/// What the command's shell prints.
#[track_caller]
fn prints(options: &[&str], script: &str) -> String {
    said(Init::new(options).args(sh(script)).run())
}

#[track_caller]
fn said(output: Output) -> String {
    assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{:?}", output.stdout);
    output.stdout
}

/// Sexton as it is, also where the other tests run it under a filter, which brings no_new_privs with it.
fn bare(options: &[&str]) -> Init {
    Init::exactly(sexton()).args(options)
}

/// The five sets of the command: inheritable, permitted, effective, bounding, ambient.
#[track_caller]
fn sets(init: Init) -> [u64; 5] {
    let text = said(init.args(["/bin/cat", "/proc/self/status"]).run());
    sets_in(&text)
}

#[track_caller]
fn sets_in(status: &str) -> [u64; 5] {
    ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"].map(|name| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    })
}

/// Our own.
fn own() -> [u64; 5] {
    sets_in(&fs::read_to_string("/proc/self/status").unwrap())
}

const NET_BIND_SERVICE: u64 = 1 << 10;
const NET_RAW: u64 = 1 << 13;

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nann:x:1000:100::/home/ann:/bin/sh\nbob:x:1001:1001:::\n";
const GROUP: &str = "root:x:0:\nusers:x:100:\nwheel:x:10:bob,ann\nadm:x:4:ann\nann:x:1000:ann2\n";

fn path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

/// In a mount namespace of its own these are /etc/passwd and /etc/group.
fn with_accounts(init: Init) -> Init {
    let folder = folder(&format!("accounts-{:?}", std::thread::current().id()));
    let files = [("passwd", PASSWD), ("group", GROUP)].map(|(name, text)| {
        fs::write(folder.join(name), text).unwrap();
        (path(&folder.join(name)), CString::new(format!("/etc/{name}")).unwrap())
    });
    init.prepare(move || {
        for (from, to) in &files {
            let none = std::ptr::null();
            // SAFETY: the paths are live C strings; a bind mount takes no data.
            if unsafe { libc::mount(from.as_ptr(), to.as_ptr(), none, libc::MS_BIND, none.cast()) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    })
}

/// A program that every user can reach.
fn copy(of: &str, name: &str, mode: u32) -> PathBuf {
    let folder = folder(name);
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    write_program(&folder.join("copy"), &fs::read(of).unwrap(), mode)
}

#[test]
fn c1_a_user_by_name_has_its_group_its_groups_and_its_home() {
    let script = "id -u; id -g; id -G; echo $HOME";
    for (user, expected) in [
        ("ann", "1000\n100\n100 4 10\n/home/ann\n"),
        ("1000", "1000\n100\n100 4 10\n/home/ann\n"),
        ("ann:wheel", "1000\n10\n10\n/home/ann\n"),
        ("ann:7", "1000\n7\n7\n/home/ann\n"),
        ("bob", "1001\n1001\n1001 10\n/\n"),
        ("4242", "4242\n0\n0\n/\n"),
        ("4242:users", "4242\n100\n100\n/\n"),
        ("root", "0\n0\n0\n/root\n"),
    ] {
        let output = with_accounts(Init::new(&["--user", user])).env("HOME", "/elsewhere").args(sh(script)).run();
        assert_eq!(said(output), expected, "{user}");
    }
}

#[test]
fn c1_supplementary_groups_are_those_that_were_asked_for() {
    for (options, expected) in [
        (&["--user", "ann", "--groups", "wheel,77"][..], "100 10 77\n"),
        (&["--user", "ann", "--groups", ""], "100\n"),
        (&["--groups", "users,5"], "0 100 5\n"),
    ] {
        let output = with_accounts(Init::new(options)).args(["/usr/bin/id", "-G"]).run();
        let mut groups: Vec<_> = said(output).split_whitespace().map(str::to_owned).collect();
        let mut wanted: Vec<_> = expected.split_whitespace().map(str::to_owned).collect();
        groups.sort();
        wanted.sort();
        assert_eq!(groups, wanted, "{options:?}");
    }
}

#[test]
fn c1_a_name_that_is_not_there_is_refused() {
    let refused = |options: &[&str]| with_accounts(Init::new(options)).args(sh("echo ran")).run();
    assert_refused_with(&refused(&["--user", "carol"]), 125, &["\"carol\"", "/etc/passwd", "number"]);
    assert_refused_with(&refused(&["--user", "ann:staff"]), 125, &["\"staff\"", "/etc/group", "number"]);
    assert_refused_with(&refused(&["--groups", "staff"]), 125, &["\"staff\"", "/etc/group"]);
    // A pipe in its place does not hang.
    let script = "mount -t tmpfs none /etc && mkfifo /etc/passwd && exec \"$0\" --user ann true";
    let output = Init::exactly("/bin/sh").args(["-c".into(), script.into(), sexton().into_os_string()]).run();
    assert_refused_with(&output, 125, &["open(\"/etc/passwd\")", "EINVAL"]);
    let script = "mount -t tmpfs none /etc && exec \"$0\" --user ann true";
    let output = Init::exactly("/bin/sh").args(["-c".into(), script.into(), sexton().into_os_string()]).run();
    assert_refused_with(&output, 125, &["open(\"/etc/passwd\")", "ENOENT", "number"]);
    let script = "mount -t tmpfs none /etc && exec \"$0\" --user 5:6 /bin/true";
    let output = Init::exactly("/bin/sh").args(["-c".into(), script.into(), sexton().into_os_string()]).run();
    assert_eq!(output.code, 0, "numbers need no file");
    // But one that is there could say something else than group 0.
    for (user, code) in [("5", 125), ("5:6", 0)] {
        let script = format!("mount -t tmpfs none /etc && mkfifo /etc/passwd && exec \"$0\" --user {user} /bin/true");
        let output = Init::exactly("/bin/sh").args(["-c".into(), script.into(), sexton().into_os_string()]).run();
        assert_eq!(output.code, code, "{output:?}");
        assert_eq!(output.stderr.contains("open(\"/etc/passwd\"): EINVAL"), code != 0, "{output:?}");
    }
    let script = "cp /etc/passwd /tmp/$$; mount -t tmpfs none /etc; mv /tmp/$$ /etc/passwd; mkdir /etc/group; exec \"$0\" --user daemon true";
    let output = Init::exactly("/bin/sh").args(["-c".into(), script.into(), sexton().into_os_string()]).run();
    assert_refused_with(&output, 125, &["open(\"/etc/group\")", "EINVAL", "--groups"]);
}

/// A process in a mount namespace of its own, where this script has run.
fn elsewhere(script: &str) -> Running {
    Init::exactly("/bin/sh").args(["-c".to_owned(), format!("{script}\necho ready; read line")]).start_with_stdin()
}

trait StartWithStdin {
    fn start_with_stdin(self) -> Running;
}

impl StartWithStdin for Init {
    /// stdin never ends by itself.
    fn start_with_stdin(self) -> Running {
        let (reader, writer) = io::pipe().unwrap();
        // Held until this test program ends.
        std::mem::forget(writer);
        self.stdin(reader).start().ready()
    }
}

#[test]
fn c1_names_are_those_of_the_new_root_and_what_is_outside_is_read_outside() {
    let folder = folder("new-root");
    fs::write(folder.join("passwd"), PASSWD.replace("1000", "1234")).unwrap();
    fs::write(folder.join("variables"), "FROM=outside\n").unwrap();
    fs::write(folder.join("profile"), MKDIR_DENIED).unwrap();
    let hidden = folder.display();
    let other = elsewhere(&format!("mount --bind {hidden}/passwd /etc/passwd; mount -t tmpfs none {hidden}"));
    let join = format!("mount:{}", other.pid);
    let file = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let (variables, profile) = (file("variables"), file("profile"));
    let options =
        ["--join", &join, "--user", "ann", "--env-file", &variables, "--seccomp", &profile, "--env", "PATH=/bin"];
    let script = format!("id -u; echo $FROM; ls {hidden}; mkdir /tmp/no 2>&1");
    let output = Init::new(&options).not_pid1().args(["sh", "-c", &script]).run();
    assert_eq!((output.stderr.as_str(), output.code), ("", 1));
    assert_eq!(output.stdout.lines().take(2).collect::<Vec<_>>(), ["1234", "outside"]);
    assert!(output.stdout.contains("No space left"), "{}", output.stdout);
}

#[test]
fn c1_an_id_that_is_not_mapped_is_refused_with_the_way_out() {
    let program = for_anyone("unmapped");
    let init = |options: &[&str]| Init::program(&program, options).prepare(as_user(61_000)).args(["/bin/true"]);
    assert_refused_with(
        &init(&["--unshare", "user", "--map-root", "--user", "5:0"]).run(),
        125,
        &["setresuid(5", "EINVAL", "--map-users"],
    );
    assert_refused_with(
        &init(&["--unshare", "user", "--map-root", "--groups", "0"]).run(),
        125,
        &["setgroups([0])", "EPERM"],
    );
    assert_refused_with(&init(&["--user", "5:61000"]).run(), 125, &["setgroups(", "EPERM", "CAP_SETGID"]);
    assert_refused_with(
        &init(&["--cap-drop", "NET_RAW"]).run(),
        125,
        &["PR_CAPBSET_DROP, NET_RAW", "EPERM", "CAP_SETPCAP"],
    );
    // Root of that namespace is the one who is mapped; his groups cannot change, and do not.
    assert_eq!(init(&["--unshare", "user", "--map-root", "--user", "0", "--cap-drop", "ALL"]).run().code, 0);
}

#[test]
fn c2_nothing_asked_nothing_changed() {
    let own = own();
    assert_eq!(sets(Init::new(&[])), own);
    assert_eq!(sets(Init::new(&["--user", "0"])), own);
    assert_eq!(sets(Init::new(&["--groups", "5"])), own);
    assert_eq!(sets(Init::new(&["--no-new-privs"])), own);
}

#[test]
fn c2_what_was_dropped_is_gone_from_all_five_sets() {
    let [_, _, _, all, _] = own();
    for (options, expected) in [
        (&["--cap-drop", "ALL"][..], [0; 5]),
        (
            &["--cap-drop", "ALL", "--cap-add", "cap_net_bind_service"],
            [0, NET_BIND_SERVICE, NET_BIND_SERVICE, NET_BIND_SERVICE, 0],
        ),
        (&["--cap-drop", "net_raw"], [0, all & !NET_RAW, all & !NET_RAW, all & !NET_RAW, 0]),
        (&["--cap-add", "ALL", "--cap-drop", "NET_RAW"], [0, all & !NET_RAW, all & !NET_RAW, all & !NET_RAW, 0]),
        (&["--cap-drop", "NET_RAW", "--cap-add", "NET_RAW"], [0, all, all, all, 0]),
        (&["--user", "1000"], [0, 0, 0, all, 0]),
        (&["--user", "1000", "--cap-drop", "NET_RAW"], [0, 0, 0, all & !NET_RAW, 0]),
        (&["--user", "1000", "--cap-drop", "ALL", "--cap-add", "NET_RAW,net_bind_service"], {
            [0, 0, 0, NET_RAW | NET_BIND_SERVICE, 0]
        }),
        (&["--user", "1000", "--cap-drop", "ALL", "--cap-add", "NET_RAW", "--ambient-caps"], [NET_RAW; 5]),
        (&["--cap-drop", "ALL", "--cap-add", "NET_RAW", "--ambient-caps"], [NET_RAW; 5]),
        (&["--user", "1000", "--cap-drop", "ALL", "--ambient-caps"], [0; 5]),
    ] {
        assert_eq!(sets(Init::new(options)), expected, "{options:?}");
    }
}

#[test]
fn c2_sexton_keeps_what_the_command_loses() {
    let mut running = bare(&["--user", "1000", "--cap-drop", "ALL", "--no-new-privs", "--ulimit", "nofile=9"])
        .args(sh("trap 'echo caught; exit 3' TERM; echo ready; read line <&- ; while :; do sleep 0.1; done"))
        .start()
        .ready();
    let effective = status_field(running.pid, "CapEff").unwrap();
    assert_eq!(u64::from_str_radix(&effective, 16).unwrap(), own()[2]);
    assert_eq!(status_field(running.pid, "NoNewPrivs").unwrap(), "0");
    // Another user's process gets its signals.
    running.kill(libc::SIGTERM);
    assert_eq!(running.line(), "caught");
    assert_eq!(running.code(), 3);
}

/// Inner sexton below an outer one that has dropped something.
fn below(outer: &[&str], inner: &[&str]) -> Output {
    Init::new(outer).args([sexton()]).args(inner).args(["/bin/sh", "-c", "echo ran"]).run()
}

#[test]
fn c1_what_sexton_has_not_it_does_not_give() {
    let refused = below(&["--cap-drop", "NET_RAW"], &["--cap-add", "net_raw,CHOWN"]);
    assert_refused_with(&refused, 125, &["--cap-add NET_RAW:", "docker run --cap-add"]);
    // An ordinary user may have it in his bounding set, and has it not.
    let refused = Init::new(&["--user", "1000"])
        .args([for_anyone("has-not")])
        .args(["--cap-drop", "ALL", "--cap-add", "NET_RAW", "--ambient-caps", "/bin/echo", "ran"])
        .run();
    assert_refused_with(&refused, 125, &["--cap-add NET_RAW:", "run as root"]);
    assert_eq!(below(&["--cap-drop", "NET_RAW"], &["--cap-add", "ALL"]).stdout, "ran\n");
    assert_eq!(below(&["--cap-drop", "NET_RAW"], &["--cap-drop", "NET_RAW"]).stdout, "ran\n");
    let refused = below(&["--cap-drop", "SETPCAP"], &["--cap-drop", "NET_RAW"]);
    assert_refused_with(&refused, 125, &["PR_CAPBSET_DROP", "EPERM", "CAP_SETPCAP"]);
    let refused = below(&["--cap-drop", "SETUID"], &["--user", "1000"]);
    assert_refused_with(&refused, 125, &["setresuid(1000", "EPERM", "CAP_SETUID"]);
    let refused = below(&["--cap-drop", "SETGID"], &["--user", "1000:5"]);
    assert_refused_with(&refused, 125, &["setgroups([5])", "EPERM", "CAP_SETGID"]);
}

#[test]
fn c2_the_groups_of_root_do_not_stay_when_they_cannot_be_left() {
    // Without CAP_SETGID, and a group that is ours already.
    let output = Init::new(&["--groups", "0,4", "--cap-drop", "SETGID"])
        .args([sexton()])
        .args(["--user", "4242", "/bin/sh", "-c", "echo ran"])
        .run();
    assert_refused_with(&output, 125, &["setgroups([0])", "EPERM"]);
}

#[test]
fn c1_usage_errors_name_what_to_write() {
    for (options, words) in [
        (&["--cap-add", "NETRAW"][..], &["NETRAW", "did you mean NET_RAW?"][..]),
        (&["--cap-drop", ""], &["ALL"]),
        (&["--ambient-caps"], &["--cap-drop ALL --cap-add"]),
        (&["--user", ""], &["--user", "number"]),
        (&["--user", "ann:"], &["group"]),
        (&["--groups", "a,,b"], &["group"]),
        (&["--ulimit", "files=3"], &["files", "nofile"]),
        (&["--ulimit", "nofile=5:3"], &["SOFT:HARD"]),
        (&["--oom-score-adj", "1001"], &["-1000 to 1000"]),
        (&["--nice", "20"], &["-20 to 19"]),
        (&["--umask", "8"], &["octal"]),
        (&["--env", "=x"], &["NAME=VALUE"]),
        (&["--env", "SEXTON_OPTS=x"], &["never passed on"]),
        (&["--seccomp", ""], &["file"]),
    ] {
        assert_refused_with(&Init::new(options).args(sh("echo ran")).run(), 125, words);
    }
}

/// Sets `security.capability` (version 2, capabilities(7)): permitted, and with `effective` in force at once.
fn set_file_capability(file: &Path, capability: u64, effective: bool) -> bool {
    let mut data = (0x0200_0000_u32 | u32::from(effective)).to_le_bytes().to_vec();
    data.extend(u32::try_from(capability).unwrap().to_le_bytes());
    data.extend([0; 12]);
    let (file, name) = (path(file), c"security.capability");
    // SAFETY: all is live, and the length is that of the data.
    unsafe { libc::setxattr(file.as_ptr(), name.as_ptr(), data.as_ptr().cast(), data.len(), 0) == 0 }
}

#[test]
fn c2_file_capabilities_count_as_far_as_the_bounding_set_goes() {
    let permitted = copy("/bin/cat", "file-capability", 0o755);
    let effective = copy("/bin/cat", "file-capability-effective", 0o755);
    if !set_file_capability(&permitted, NET_RAW, false) || !set_file_capability(&effective, NET_RAW, true) {
        eprintln!("skipped: no file capabilities in {}", permitted.display());
        return;
    }
    let run = |options: &[&str], file: &Path| {
        bare(options).args(["--user", "1000"]).args([file.as_os_str(), "/proc/self/status".as_ref()]).run()
    };
    let with = ["--cap-drop", "ALL", "--cap-add", "NET_RAW"];
    assert_eq!(sets_in(&said(run(&with, &effective))), [0, NET_RAW, NET_RAW, NET_RAW, 0]);
    assert_eq!(sets_in(&said(run(&with, &permitted))), [0, NET_RAW, 0, NET_RAW, 0]);
    assert_eq!(sets_in(&said(run(&["--cap-drop", "ALL"], &permitted))), [0; 5]);
    // A file that needs it at once does not run without it.
    assert_refused_with(&run(&["--cap-drop", "ALL"], &effective), 126, &["EPERM", "file capabilities"]);
    let no_new = [&with[..], &["--no-new-privs"]].concat();
    assert_eq!(sets_in(&said(run(&no_new, &effective))), [0, 0, 0, NET_RAW, 0]);
    fs::remove_file(&permitted).unwrap();
    fs::remove_file(&effective).unwrap();
}

#[test]
fn c1_no_new_privileges_by_set_user_id() {
    let program = copy("/usr/bin/id", "set-user-id", 0o4755);
    let euid = |options: &[&str]| said(bare(options).args([program.as_os_str(), "-u".as_ref()]).run());
    if euid(&["--user", "1000"]) != "0\n" {
        eprintln!("skipped: set-user-ID does not count in {}", program.display());
        return;
    }
    assert_eq!(euid(&["--user", "1000", "--no-new-privs"]), "1000\n");
    fs::remove_file(&program).unwrap();
    assert!(prints(&["--no-new-privs"], "cat /proc/self/status").contains("NoNewPrivs:\t1\n"));
}

/// A limit's soft and hard value.
fn limit_of(pid: i32, name: &str) -> (String, String) {
    let text = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    let mut fields = line.split_ascii_whitespace();
    (fields.next().unwrap().into(), fields.next().unwrap().into())
}

#[test]
fn c1_limits_are_the_commands_and_not_sextons() {
    let limits = [
        ("as", "Max address space"),
        ("core", "Max core file size"),
        ("cpu", "Max cpu time"),
        ("data", "Max data size"),
        ("fsize", "Max file size"),
        ("locks", "Max file locks"),
        ("memlock", "Max locked memory"),
        ("msgqueue", "Max msgqueue size"),
        ("nofile", "Max open files"),
        ("nproc", "Max processes"),
        ("rss", "Max resident set"),
        ("rttime", "Max realtime timeout"),
        ("sigpending", "Max pending signals"),
        ("stack", "Max stack size"),
    ];
    // What each has to begin with, and a value that all of them can hold.
    let wanted = |name: &str| if matches!(name, "as" | "data" | "stack" | "fsize") { "300000000" } else { "900" };
    let mut options = Vec::new();
    for (name, kernel) in limits {
        let hard = limit_of(std::process::id().cast_signed(), kernel).1;
        if hard == "unlimited" || hard.parse::<u64>().unwrap() >= 300_000_000 || wanted(name) == "900" {
            let values = if hard == "0" { "0".into() } else { format!("{0}:{0}", wanted(name)) };
            options.extend(["--ulimit".to_owned(), format!("{name}={values}")]);
        }
    }
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    let running = Init::new(&options).args(common::subject(["trap"])).start().ready();
    let command = running.command();
    let tester = std::process::id().cast_signed();
    for pair in options.chunks(2) {
        let (name, values) = pair[1].split_once('=').unwrap();
        let kernel = limits.iter().find(|(known, _)| *known == name).unwrap().1;
        let value = values.split(':').next().unwrap().to_owned();
        assert_eq!(limit_of(command, kernel), (value.clone(), value), "{name}");
        assert_eq!(limit_of(running.pid, kernel), limit_of(tester, kernel), "{name}");
    }
    assert!(options.len() > 20, "{options:?}");
    running.kill(libc::SIGTERM);
    assert_eq!(running.finish().code, 0);
}

#[test]
fn c1_the_soft_limit_may_be_lower_and_the_last_one_counts() {
    let options = ["--ulimit", "nofile=7", "--ulimit", "nofile=20:40", "--ulimit", "core=0:unlimited"];
    let tester = std::process::id().cast_signed();
    let hard_core = limit_of(tester, "Max core file size").1;
    let options = if hard_core == "unlimited" { &options[..] } else { &options[..4] };
    assert_eq!(prints(options, "ulimit -Sn; ulimit -Hn"), "20\n40\n");
}

#[test]
fn c1_a_command_that_is_starved_does_not_starve_sexton() {
    // Nothing may be opened, mapped or forked by the command; sexton goes on and tells its end.
    let options = ["--ulimit", "nofile=0", "--ulimit", "fsize=0", "--ulimit", "sigpending=0", "--ulimit", "nproc=0"];
    let output = Init::new(&options).args(common::subject(["exit", "7"])).run();
    assert_eq!((output.code, output.stderr.as_str()), (7, ""));
    let output = Init::new(&["--ulimit", "as=1"]).args(common::subject(["exit", "7"])).run();
    assert!(output.code > 128, "the kernel ends it: {output:?}");
}

#[test]
fn c1_no_more_processes_for_this_user_is_said() {
    let _other = Init::new(&["--user", "61007"]).args(sh("echo ready; read line")).start_with_stdin();
    let output = Init::new(&["--user", "61007", "--ulimit", "nproc=0", "/bin/true"]).run();
    assert_refused_with(&output, 126, &["EAGAIN", "nproc"]);
}

#[test]
fn c1_what_only_the_machines_root_may_is_refused() {
    let without = ["--cap-drop", "SYS_RESOURCE,SYS_NICE", "--ulimit", "nofile=100:200"];
    let refused = below(&without, &["--ulimit", "nofile=100:300"]);
    assert_refused_with(&refused, 125, &["prlimit(RLIMIT_NOFILE, 100:300)", "EPERM", "CAP_SYS_RESOURCE", "nr_open"]);
    // Inside a user namespace the capability is another.
    let refused = below(&without, &["--unshare", "user", "--ulimit", "nofile=300"]);
    assert_refused_with(&refused, 125, &["prlimit(RLIMIT_NOFILE, 300:300)", "EPERM"]);
    let refused = below(&without, &["--oom-score-adj", "-1000"]);
    assert_refused_with(&refused, 125, &["oom_score_adj", "-1000", "EACCES", "CAP_SYS_RESOURCE"]);
    let refused = below(&without, &["--nice", "-1"]);
    assert_refused_with(&refused, 125, &["setpriority", "-1", "EACCES", "CAP_SYS_NICE"]);
    assert_refused_with(&Init::new(&["--ulimit", "nofile=unlimited", "/bin/true"]).run(), 125, &["nr_open"]);
    // What is as it is needs no right.
    assert_eq!(below(&without, &["--ulimit", "nofile=150:200", "--nice", "19"]).stdout, "ran\n");
}

#[test]
fn c1_the_score_is_the_commands_alone() {
    let score = |pid: i32| fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap().trim().to_owned();
    let tester = std::process::id().cast_signed();
    for more in [&[][..], &["--user", "1000"], &["--unshare", "user,pid,mount"], &["--unshare", "user", "--user", "33"]]
    {
        let options = [&["--oom-score-adj", "700"], more].concat();
        let output = Init::new(&options).args(sh("cat /proc/self/oom_score_adj /proc/$PPID/oom_score_adj")).run();
        assert_eq!(said(output), format!("700\n{}\n", score(tester)), "{more:?}");
    }
    let mapped = ["--unshare", "user", "--map-users", "0:100000:65536", "--map-groups", "0:100000:65536"];
    let options = [&mapped[..], &["--oom-score-adj", "300"]].concat();
    assert_eq!(prints(&options, "id -u; cat /proc/self/oom_score_adj"), "0\n300\n");
    // Where the command is there is no /proc at all.
    let other = elsewhere("mount -t tmpfs none /proc");
    let join = format!("mount:{}", other.pid);
    let options = ["--join", &join, "--oom-score-adj", "600"];
    let running = Init::new(&options).not_pid1().args(common::subject(["trap"])).start().ready();
    assert_eq!(score(running.command()), "600");
    assert_eq!(score(running.pid), score(tester));
}

#[test]
fn c1_without_any_proc_the_score_is_refused() {
    let script = "mount -t tmpfs none /proc && exec \"$0\" --oom-score-adj 5 /bin/true";
    let output = Init::exactly("/bin/sh").args(["-c".into(), script.into(), sexton().into_os_string()]).run();
    assert_refused_with(&output, 125, &["open(\"/proc/self/oom_score_adj\")", "ENOENT", "--oom-score-adj"]);
    let script = "mount -o remount,bind,ro /proc && exec \"$0\" --oom-score-adj 5 /bin/true";
    let output = Init::exactly("/bin/sh").args(["-c".into(), script.into(), sexton().into_os_string()]).run();
    assert_refused_with(&output, 125, &["oom_score_adj", "EROFS", "read-only"]);
}

#[test]
fn c1_umask_and_nice() {
    assert_eq!(prints(&["--umask", "027"], "umask"), "0027\n");
    assert_eq!(prints(&["--umask", "0"], "umask"), "0000\n");
    assert_eq!(prints(&["--nice", "7", "--user", "1000"], "nice"), "7\n");
    let nice = |pid: i32| {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        text[text.rfind(')').unwrap()..].split(' ').nth(17).unwrap().to_owned()
    };
    let running = Init::new(&["--nice", "19"]).args(common::subject(["trap"])).start().ready();
    assert_eq!((nice(running.command()), nice(running.pid)), ("19".into(), nice(std::process::id().cast_signed())));
}

#[test]
fn c1_variables_are_added_over_what_is_there() {
    let folder = folder("variables");
    let (first, second) = (folder.join("first"), folder.join("second"));
    fs::write(&first, "\u{feff}# a comment\nA=first\nB=first\n\n  C=\"first\" # x\nPASSED\nMISSING\n").unwrap();
    fs::write(&second, "B=second\nD=second").unwrap();
    let (first, second) = (first.to_string_lossy().into_owned(), second.to_string_lossy().into_owned());
    let options = ["--env", "D=line", "--env-file", &first, "--env-file", &second, "--env", "D=last", "--env", "GONE"];
    let run = |more: &[&str]| {
        let init = Init::new(&[&options, more].concat()).env("PASSED", "through").env("A", "old").env("KEPT", "1");
        let mut lines: Vec<_> = said(init.args(["/usr/bin/env"]).run()).lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let wanted = ["A=first", "B=second", "C=\"first\" # x", "D=last", "PASSED=through"];
    assert_eq!(run(&["--clear-env"]), wanted);
    let all = run(&[]);
    for line in wanted {
        let name = &line[..=line.find('=').unwrap()];
        assert_eq!(all.iter().filter(|one| one.starts_with(name)).collect::<Vec<_>>(), [line]);
    }
    assert!(all.iter().any(|line| line == "KEPT=1"));
}

#[test]
fn c1_sexton_opts_are_not_passed_on() {
    let env = |opts: &str| said(Init::new(&["/usr/bin/env"]).env("SEXTON_OPTS", opts).run());
    assert!(env("--env A=1").contains("A=1\n") && !env("--env A=1").contains("SEXTON_OPTS"));
    assert_eq!(env("--clear-env --env 'A=b c'"), "A=b c\n");
}

#[test]
fn c1_home_is_the_users_unless_it_is_asked_for() {
    let home = |options: &[&str]| {
        let options = [&["--user", "ann"], options].concat();
        said(with_accounts(Init::new(&options)).env("HOME", "/elsewhere").args(sh("echo $HOME")).run())
    };
    assert_eq!(home(&[]), "/home/ann\n");
    assert_eq!(home(&["--clear-env"]), "/home/ann\n");
    assert_eq!(home(&["--env", "HOME=/data"]), "/data\n");
    assert_eq!(home(&["--env", "HOME"]), "/elsewhere\n");
    assert_eq!(said(Init::new(&[]).env("HOME", "/elsewhere").args(sh("echo $HOME")).run()), "/elsewhere\n");
}

#[test]
fn c1_the_command_is_looked_for_in_its_own_path() {
    let folder = folder("own-path");
    write_program(&folder.join("only-here"), b"#!/bin/sh\nexit 9\n", 0o755);
    let path = format!("PATH={}", folder.display());
    assert_eq!(Init::new(&["--env", &path, "only-here"]).run().code, 9);
    let missing = Init::new(&["--env", "PATH=/nowhere", "only-here"]).env("PATH", &path[5..]).run();
    assert_refused_with(&missing, 127, &["not found in PATH (/nowhere)"]);
    assert_refused_with(
        &Init::new(&["--clear-env", "only-here"]).env("PATH", &path[5..]).run(),
        127,
        &["/bin:/usr/bin"],
    );
}

#[test]
fn c1_an_env_file_that_cannot_be_read_is_refused() {
    let folder = folder("bad-variables");
    let run = |file: &Path| Init::new(&["--env-file", &file.to_string_lossy(), "/bin/echo", "ran"]).run();
    assert_refused_with(&run(&folder.join("none")), 125, &["open(", "ENOENT", "--env-file"]);
    assert_refused_with(&run(&folder), 125, &["EISDIR"]);
    let file = folder.join("file");
    for (text, word) in [("A=1\nA B=2\n", "line 2"), ("=1", "line 1"), ("A=1\n\nSEXTON_OPTS=x", "line 3")] {
        fs::write(&file, text).unwrap();
        assert_refused_with(&run(&file), 125, &[word]);
    }
}

const MKDIR_DENIED: &str = r#"{
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["mkdir", "mkdirat", "a_call_of_tomorrow"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]
}"#;

/// A file with this content.
fn file(name: &str, content: impl AsRef<[u8]>) -> String {
    let folder = folder(name);
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(folder.join("file"), content).unwrap();
    folder.join("file").to_string_lossy().into_owned()
}

#[test]
fn c1_a_profile_refuses_what_it_says() {
    let profile = file("profile", MKDIR_DENIED);
    for more in [&[][..], &["--no-new-privs"], &["--user", "1000"], &["--user", "1000", "--no-new-privs"]] {
        let options = [&["--seccomp", &profile], more].concat();
        let text = said(
            bare(&options)
                .args(sh("mkdir /tmp/no 2>&1 || grep -h ^Seccomp: /proc/self/status /proc/$PPID/status"))
                .run(),
        );
        assert!(text.contains("No space left on device"), "{more:?}: {text}");
        assert!(text.ends_with("Seccomp:\t2\nSeccomp:\t0\n"), "sexton itself goes without: {text}");
    }
}

#[test]
fn c1_a_profile_looks_at_arguments_and_capabilities() {
    // kill(PID, 0) and kill(PID, CONT), as a shell's builtin makes them, tell by errno what became of the call.
    let profile = file(
        "arguments",
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1, "syscalls": [
            {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28,
             "args": [{"index": 1, "value": 18, "op": "SCMP_CMP_EQ"}]},
            {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5,
             "args": [{"index": 1, "value": 20, "op": "SCMP_CMP_GE"}, {"index": 0, "value": 1, "op": "SCMP_CMP_NE"}]},
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28,
             "excludes": {"caps": ["CAP_NET_RAW"]}},
            {"names": ["rmdir", "unlinkat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28,
             "includes": {"caps": ["CAP_NET_RAW"], "minKernel": "3.0", "arches": ["amd64", "arm64", "riscv64", "loong64"]}}
        ]}"#,
    );
    let script = "kill -0 $$ && echo zero; kill -18 $$ 2>&1; kill -28 $$ 2>&1; kill -28 1 && echo one";
    let text = prints(&["--seccomp", &profile], script);
    let lines: Vec<_> = text.lines().filter(|line| !line.is_empty()).collect();
    assert!(lines[0] == "zero" && lines[1].contains("No space") && lines[2].contains("put/output"), "{text}");
    assert_eq!(lines[3..], ["one"]);
    let made = folder("made").join("made");
    let script = format!("mkdir {0} 2>&1; rmdir {0} 2>&1; true", made.display());
    let text = prints(&["--seccomp", &profile], &script);
    assert!(text.starts_with("rmdir: ") && text.contains("No space") && made.exists(), "{text}");
    fs::remove_dir(&made).unwrap();
    let text = prints(&["--seccomp", &profile, "--cap-drop", "NET_RAW"], &script);
    assert!(text.starts_with("mkdir: ") && text.contains("No space") && text.contains("No such file"), "{text}");
}

#[test]
fn c1_an_allowing_profile_answers_enosys_to_calls_it_does_not_know() {
    // All that a static program needs, but for one, and none above it.
    let names: Vec<_> = "read write close mmap munmap brk rt_sigaction rt_sigprocmask sigaltstack execve exit_group \
        getrandom set_tid_address set_robust_list rseq prlimit64 readlink readlinkat mprotect arch_prctl poll ppoll \
        fcntl sched_getaffinity futex newfstatat fstat openat getpid gettid madvise exit prctl tgkill clone3"
        .split_whitespace()
        .map(|name| format!("{name:?}"))
        .collect();
    let profile = file(
        "allowing",
        format!(
            "{{\"defaultAction\":\"SCMP_ACT_ERRNO\",\"syscalls\":[{{\"names\":[{}],\"action\":\"SCMP_ACT_ALLOW\"}}]}}",
            names.join(",")
        ),
    );
    let output = Init::new(&["--no-new-privs", "--seccomp", &profile]).args(common::subject(["exit", "7"])).run();
    assert_eq!((output.code, output.stderr.as_str()), (7, ""));
    // Without no_new_privs it comes before the credentials, and must let their calls pass.
    let output = Init::new(&["--seccomp", &profile, "--user", "5:5"]).args(common::subject(["exit", "7"])).run();
    assert_refused_with(&output, 125, &["setgroups([5])", "EPERM"]);
    let nothing = file("nothing", "{\"defaultAction\":\"SCMP_ACT_ERRNO\"}");
    let output = Init::new(&["--seccomp", &nothing, "--no-new-privs", "/bin/true"]).run();
    assert_refused_with(&output, 126, &["execve", "seccomp filter"]);
    let deadly = file("deadly", "{\"defaultAction\":\"SCMP_ACT_KILL_PROCESS\"}");
    assert_eq!(Init::new(&["--seccomp", &deadly, "--no-new-privs", "/bin/true"]).run().code, 128 + libc::SIGSYS);
}

#[test]
fn c1_bpf_is_taken_as_it_is() {
    let word = |code: u16, k: u32| [&code.to_ne_bytes()[..], &[0, 0], &k.to_ne_bytes()].concat();
    let allow = file("allow-bpf", word(0x06, libc::SECCOMP_RET_ALLOW));
    assert!(prints(&["--seccomp", &allow], "cat /proc/self/status").contains("Seccomp:\t2\n"));
    let invalid = file("invalid-bpf", word(0xff, 0));
    let output = Init::new(&["--seccomp", &invalid, "/bin/true"]).run();
    assert_refused_with(&output, 125, &["seccomp(SECCOMP_SET_MODE_FILTER", "EINVAL", "no valid program"]);
}

#[test]
fn c1_a_profile_that_is_wrong_is_refused_with_its_place() {
    let run = |file: &str| Init::new(&["--seccomp", file, "/bin/echo", "ran"]).run();
    assert_refused_with(&run("/nowhere/profile"), 125, &["open(\"/nowhere/profile\")", "ENOENT", "--seccomp"]);
    for (number, (text, word)) in [
        ("{\n\"defaultAction\": ", "line 2"),
        ("{}", "defaultAction"),
        ("{\"defaultAction\":\"SCMP_ACT_NOTIFY\"}", "listener"),
        ("hello", "5 bytes"),
        ("", "0 bytes"),
    ]
    .into_iter()
    .enumerate()
    {
        assert_refused_with(&run(&file(&format!("wrong-{number}"), text)), 125, &["--seccomp", word]);
    }
    assert_refused_with(&run(&file("deep", "{\"a\":".repeat(100_000))), 125, &["too many values in each other"]);
}

#[test]
fn c1_an_ordinary_user_filters_with_no_new_privileges() {
    let (program, profile) = (for_anyone("filter"), file("user-profile", MKDIR_DENIED));
    let init = |options: &[&str]| Init::exactly(&program).args(options).prepare(as_user(61_001));
    let output = init(&["--seccomp", &profile, "/bin/true"]).run();
    assert_refused_with(&output, 125, &["seccomp(", "EACCES", "--no-new-privs"]);
    let options = ["--seccomp", &profile, "--no-new-privs"];
    let output = init(&options).args(sh("mkdir /tmp/no 2>&1; ls /proc/$PPID/fd >/dev/null 2>&1 || echo closed")).run();
    // Sexton, which is of the same user, is not there to be traced, and so no way around the filter.
    assert!(output.stdout.contains("No space") && output.stdout.ends_with("closed\n"), "{output:?}");
    let open = init(&[]).args(sh("ls /proc/$PPID/fd >/dev/null && echo open")).run();
    assert_eq!(said(open), "open\n", "which it could be otherwise");
}

#[test]
fn c1_the_plan_is_told_without_privilege_and_without_secrets() {
    let program = for_anyone("explain");
    let options = [
        "--explain",
        "--user",
        "nobody-here:staff",
        "--groups",
        "a,5",
        "--cap-drop",
        "ALL",
        "--cap-add",
        "net_raw",
        "--ambient-caps",
        "--no-new-privs",
        "--ulimit",
        "nofile=5:unlimited",
        "--oom-score-adj",
        "-900",
        "--nice",
        "-3",
        "--umask",
        "27",
        "--env",
        "TOKEN=secret",
        "--env-file",
        "/nowhere/file",
        "--clear-env",
        "--seccomp",
        "/nowhere/p",
    ];
    let text = said(Init::program(&program, &options).prepare(as_user(61_002)).args(["true"]).run());
    for words in [
        "user nobody-here, group staff",
        "a 5",
        "NET_RAW",
        "keeps over any exec",
        "no_new_privs",
        "nofile 5:unlimited",
        "-900",
        "-3",
        "027",
        "TOKEN",
        "/nowhere/file",
        "empty",
        "/nowhere/p",
        "last of all",
    ] {
        assert!(text.contains(words), "{words:?} is not in {text}");
    }
    assert!(!text.contains("secret"), "{text}");
}

#[test]
fn c2_the_order_holds_with_everything_at_once() {
    if !has("/bin/sh") {
        return;
    }
    let profile = file("everything", MKDIR_DENIED);
    let options = [
        "--unshare",
        "pid,mount,ipc,uts",
        "--user",
        "ann",
        "--cap-drop",
        "ALL",
        "--cap-add",
        "NET_RAW",
        "--ambient-caps",
        "--no-new-privs",
        "--ulimit",
        "nofile=64",
        "--oom-score-adj",
        "400",
        "--nice",
        "2",
        "--umask",
        "077",
        "--env",
        "A=1",
        "--seccomp",
        &profile,
    ];
    let script = "id -u; id -G; ulimit -n; cat /proc/self/oom_score_adj; nice; umask; echo $A $HOME; \
        grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status | tr -s '\\t\\n' '  '; test $PPID = 1 && echo; exit 5";
    let output = with_accounts(Init::new(&options)).args(sh(script)).run();
    let net_raw = "0000000000002000";
    let caps: Vec<_> = ["Inh", "Prm", "Eff", "Bnd", "Amb"].iter().map(|set| format!("Cap{set}: {net_raw}")).collect();
    let expected =
        format!("1000\n100 4 10\n64\n400\n2\n0077\n1 /home/ann\n{} NoNewPrivs: 1 Seccomp: 2 \n", caps.join(" "));
    assert_eq!((output.stdout, output.stderr.as_str(), output.code), (expected, "", 5));
}
