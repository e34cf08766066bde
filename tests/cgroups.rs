//! Cgroups, with loads that meet each limit, on whatever this machine has mounted: version 1, version 2, or both (G1–G3).
#![allow(clippy::multiple_unsafe_ops_per_block)]

mod common;

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::{Init, Output, Running, assert_refused, sh, stat, status_field, subject, wait_for};

/// A hierarchy that is mounted, found without sexton's own parser.
#[derive(Clone, Debug)]
struct Mounted {
    unified: bool,
    top: PathBuf,
    root: String,
    options: Vec<String>,
}

fn mounted() -> Vec<Mounted> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let of_line = |line: &str| {
        let (mount, system) = line.split_once(" - ")?;
        let (mount, system): (Vec<_>, Vec<_>) = (mount.split(' ').collect(), system.split(' ').collect());
        system[0].starts_with("cgroup").then(|| Mounted {
            unified: system[0] == "cgroup2",
            top: mount[4].into(),
            root: mount[3].into(),
            options: system[2].split(',').map(str::to_owned).collect(),
        })
    };
    text.lines().filter_map(of_line).collect()
}

/// Where a controller is: in version 1 under its old name.
fn controller(name: &str) -> Option<Mounted> {
    let old = if name == "io" { "blkio" } else { name };
    mounted().into_iter().find(|mounted| {
        if mounted.unified {
            let controllers = fs::read_to_string(mounted.top.join("cgroup.controllers")).unwrap_or_default();
            controllers.split_whitespace().any(|own| own == name)
        } else {
            mounted.options.iter().any(|option| option == old)
        }
    })
}

/// The controller, and whether groups can be made there; else the test is skipped, with the reason.
fn usable(name: &str) -> Option<Mounted> {
    let found = controller(name);
    let Some(found) = found else {
        eprintln!("skipped: no cgroup controller {name} here");
        return None;
    };
    // SAFETY: passes a live C string.
    let writable = unsafe { libc::access(c_path(&found.top).as_ptr(), libc::W_OK) } == 0;
    if !writable {
        eprintln!("skipped: {} is not to be written", found.top.display());
    }
    writable.then_some(found)
}

fn c_path(path: &Path) -> CString {
    CString::new(path.to_str().unwrap()).unwrap()
}

/// The folder of a process's group in a hierarchy.
fn folder_of(pid: i32, mounted: &Mounted) -> PathBuf {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let line = text.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let is_it = if mounted.unified {
            controllers.is_empty()
        } else {
            !controllers.is_empty() && controllers.split(',').all(|name| mounted.options.iter().any(|o| o == name))
        };
        is_it.then(|| path.to_owned())
    });
    let path = line.unwrap();
    mounted.top.join(path.strip_prefix(&mounted.root).unwrap_or(&path).trim_start_matches('/'))
}

/// A group of a test's own, in all hierarchies: sexton makes it as the parent, and removes it when it is the last.
struct Parent(String);

impl Parent {
    fn new(name: &str) -> Self {
        Self(format!("/sexton-test-{}-{name}", std::process::id()))
    }

    fn folders(&self) -> Vec<PathBuf> {
        let folders = mounted().into_iter().map(|mounted| mounted.top.join(self.0.trim_start_matches('/')));
        folders.filter(|folder| folder.exists()).collect()
    }

    /// The folder, made by the test: sexton leaves it there.
    fn make(&self, mounted: &Mounted) -> PathBuf {
        let folder = mounted.top.join(self.0.trim_start_matches('/'));
        fs::create_dir(&folder).unwrap();
        folder
    }

    fn init(&self, options: &[&str]) -> Init {
        let mut all = vec!["--cgroup-parent", &self.0];
        all.extend(options);
        Init::new(&all)
    }

    #[track_caller]
    fn assert_gone(&self) {
        assert_eq!(self.folders(), Vec::<PathBuf>::new());
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        for folder in self.folders() {
            remove(&folder);
        }
    }
}

fn remove(folder: &Path) {
    for below in below(folder) {
        remove(&below);
    }
    let deadline = Instant::now() + Duration::from_secs(5);
    while fs::remove_dir(folder).is_err() && folder.exists() && Instant::now() < deadline {
        for pid in pids(folder).into_iter().filter(|pid| *pid > 0) {
            kill(pid);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

fn pids(folder: &Path) -> Vec<i32> {
    let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

fn kill(pid: i32) {
    // SAFETY: passes no memory.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

fn is_alive(pid: i32) -> bool {
    stat(pid).is_some_and(|(state, _)| state != 'Z')
}

/// A file of a group, without its line end.
#[track_caller]
fn read(folder: &Path, file: &str) -> String {
    let path = folder.join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim().to_owned()
}

/// The command's pid, once it is the command and not sexton's process on its way to be it.
fn running(mut running: Running) -> (Running, i32) {
    assert_eq!(running.line(), "ready");
    let command = running.command();
    (running, command)
}

// --- G1: each limit bites ----------------------------------------------------------------------------------------------

/// Files and what they hold.
type Files = &'static [(&'static str, &'static str)];

#[test]
fn g1_every_option_is_in_its_file() {
    // A controller, options, and what its files hold then in version 1 and in version 2.
    let cases: [(&str, &[&str], Files, Files); 9] = [
        (
            "memory",
            &["--memory", "64M", "--memory-swap", "96M", "--memory-reservation", "32m"],
            &[
                ("memory.limit_in_bytes", "67108864"),
                ("memory.memsw.limit_in_bytes", "100663296"),
                ("memory.soft_limit_in_bytes", "33554432"),
            ],
            &[("memory.max", "67108864"), ("memory.swap.max", "33554432"), ("memory.low", "33554432")],
        ),
        (
            "memory",
            &["--memory", "1g", "--memory-swap", "-1"],
            &[("memory.limit_in_bytes", "1073741824"), ("memory.memsw.limit_in_bytes", "9223372036854771712")],
            &[("memory.max", "1073741824"), ("memory.swap.max", "max")],
        ),
        (
            "memory",
            &["--memory", "64M"],
            &[("memory.memsw.limit_in_bytes", "134217728")],
            &[("memory.swap.max", "67108864")],
        ),
        (
            "cpu",
            &["--cpus", "1.5", "--cpu-shares", "512"],
            &[("cpu.cfs_quota_us", "150000"), ("cpu.cfs_period_us", "100000"), ("cpu.shares", "512")],
            &[("cpu.max", "150000 100000"), ("cpu.weight", "59")],
        ),
        (
            "cpuset",
            &["--cpuset-cpus", "0", "--cpuset-mems", "0"],
            &[("cpuset.cpus", "0"), ("cpuset.mems", "0")],
            &[("cpuset.cpus", "0"), ("cpuset.mems", "0")],
        ),
        ("pids", &["--pids-limit", "77"], &[("pids.max", "77")], &[("pids.max", "77")]),
        ("pids", &["--pids-limit", "-1"], &[("pids.max", "max")], &[("pids.max", "max")]),
        ("io", &["--blkio-weight", "500"], &[("blkio.bfq.weight", "500")], &[("io.weight", "default 4950")]),
        ("pids", &["--cgroup-conf", "pids.max=12"], &[("pids.max", "12")], &[("pids.max", "12")]),
    ];
    for (name, options, old, new) in cases {
        let Some(mounted) = usable(name) else { continue };
        let parent = Parent::new("files");
        let (init, command) = running(parent.init(options).args(subject(["default"])).start());
        let folder = folder_of(command, &mounted);
        assert!(
            folder.ends_with(format!("{}/{}", &parent.0[1..], folder.file_name().unwrap().display())),
            "{folder:?}"
        );
        for (file, value) in if mounted.unified { new } else { old } {
            assert_eq!(read(&folder, file), *value, "{options:?}: {file}");
        }
        init.kill(libc::SIGTERM);
        assert_eq!(init.finish().code, 128 + libc::SIGTERM);
        parent.assert_gone();
    }
}

#[test]
fn g1_version_1_alone_has_swappiness_and_no_oom_killer() {
    let Some(mounted) = usable("memory") else { return };
    let parent = Parent::new("v1only");
    let options = ["--memory", "64M", "--memory-swappiness", "7", "--oom-kill-disable"];
    if mounted.unified {
        let output = parent.init(&options).args(sh("echo ran")).run();
        assert_refused(
            &output,
            &["--memory-swappiness", "memory.swappiness", "memory controller", "leave the option out"],
        );
        let output = parent.init(&options[4..]).args(sh("echo ran")).run();
        assert_refused(&output, &["--oom-kill-disable", "memory.oom_control", "memory controller"]);
    } else {
        let (init, command) = running(parent.init(&options).args(subject(["default"])).start());
        let folder = folder_of(command, &mounted);
        assert_eq!(read(&folder, "memory.swappiness"), "7");
        assert!(read(&folder, "memory.oom_control").contains("oom_kill_disable 1"));
        init.kill(libc::SIGTERM);
        init.finish();
        // Who is out of memory waits, and can be ended.
        let limit = ["--memory", "32M", "--memory-swap", "32M", "--oom-kill-disable"];
        let (init, command) = running(parent.init(&limit).args(subject(["eat-memory", "100"])).start());
        let folder = folder_of(command, &mounted);
        wait_for("the limit", || read(&folder, "memory.oom_control").contains("under_oom 1").then_some(()));
        init.kill(libc::SIGTERM);
        assert_eq!(init.finish().code, 128 + libc::SIGTERM);
    }
    parent.assert_gone();
}

#[test]
fn g1_memory_ends_who_takes_more() {
    if usable("memory").is_none() {
        return;
    }
    let parent = Parent::new("memory");
    // Without a limit of swap it would take twice as much.
    let limit = ["--memory", "32M", "--memory-swap", "32M"];
    let eat = |options: &[&str], words| parent.init(options).args(subject(words)).run().code;
    assert_eq!(eat(&limit, ["eat-memory", "100", "--stay"]), 128 + libc::SIGKILL);
    assert_eq!(eat(&limit, ["eat-memory", "100", "--untouched"]), 0, "what is not touched is not used");
    assert_eq!(parent.init(&limit).args(subject(["eat-memory", "16"])).run().code, 0);
    assert_eq!(parent.init(&["--memory", "256M"]).args(subject(["eat-memory", "100"])).run().code, 0);
    parent.assert_gone();
}

#[test]
fn g1_memory_swap_is_memory_and_swap_together() {
    if usable("memory").is_none() {
        return;
    }
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    let parent = Parent::new("swap");
    let eat = |both: &str| {
        parent.init(&["--memory", "32M", "--memory-swap", both]).args(subject(["eat-memory", "48"])).run().code
    };
    assert_eq!(eat("32M"), 128 + libc::SIGKILL);
    if swaps.lines().count() < 2 {
        return eprintln!("skipped: no swap here");
    }
    assert_eq!(eat("40M"), 128 + libc::SIGKILL, "8M of swap are not enough");
    assert_eq!(eat("128M"), 0);
    assert_eq!(eat("-1"), 0);
    parent.assert_gone();
}

#[test]
fn g1_the_page_cache_is_reclaimed_under_a_limit() {
    let Some(disk) = disk().filter(|_| usable("memory").is_some()) else { return };
    let parent = Parent::new("cache");
    let file = disk.folder.join(format!("sexton-test-cache-{}", std::process::id()));
    let cache = format!("--cache={}", file.display());
    let output = parent.init(&["--memory", "32M"]).args(subject(["eat-memory", "64", &cache])).run();
    assert_eq!((output.code, output.stdout.as_str()), (0, "ready\ndone\n"), "{output:?}");
    parent.assert_gone();
}

/// User and system time of a process, in clock ticks.
fn ticks(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = text[text.rfind(')').unwrap()..].split_ascii_whitespace().collect();
    fields[12].parse::<u64>().unwrap() + fields[13].parse::<u64>().unwrap()
}

#[test]
fn g1_cpus_throttle() {
    let Some(mounted) = usable("cpu") else { return };
    let parent = Parent::new("cpus");
    let (init, command) = running(parent.init(&["--cpus", "0.2"]).args(subject(["burn-cpu"])).start());
    let folder = folder_of(command, &mounted);
    let throttled = || {
        let text = read(&folder, "cpu.stat");
        text.lines().find_map(|line| line.strip_prefix("nr_throttled ")?.parse::<u64>().ok()).unwrap()
    };
    let (began, before) = (Instant::now(), ticks(command));
    wait_for("five throttled periods", || (throttled() >= 5).then_some(()));
    wait_for("half a second", || (began.elapsed() >= Duration::from_millis(500)).then_some(()));
    let used = Duration::from_millis((ticks(command) - before) * 10);
    assert!(used <= began.elapsed().mul_f64(0.3) + Duration::from_millis(40), "{used:?} of {:?}", began.elapsed());
    init.kill(libc::SIGTERM);
    init.finish();
    parent.assert_gone();
}

#[test]
fn g1_cpu_shares_divide_a_cpu() {
    if usable("cpu").is_none() {
        return;
    }
    let parent = Parent::new("shares");
    let start = |shares: &str| {
        let (init, command) = running(parent.init(&["--cpu-shares", shares]).args(subject(["burn-cpu"])).start());
        // Not before: until Linux 6.2 who enters another cpuset has all its CPUs again.
        pin(command, 0);
        (init, command)
    };
    let ((large, first), (small, second)) = (start("4096"), start("256"));
    let before = (ticks(first), ticks(second));
    // The small one's part may be slow to come on a machine that is busy with other things.
    let (much, little) = wait_for("a second of CPU time", || {
        let used = (ticks(first) - before.0, ticks(second) - before.1);
        (used.0 + used.1 >= 100).then_some(used)
    });
    assert!(much > 3 * little, "{much} : {little}");
    for init in [large, small] {
        init.kill(libc::SIGTERM);
        init.finish();
    }
    parent.assert_gone();
}

/// A process runs on one CPU only.
fn pin(pid: i32, cpu: usize) {
    // SAFETY: a set of zeros is valid; it is live, and its size is passed along.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(pid, size_of_val(&set), &raw const set)
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn g1_cpuset_binds_to_cpus() {
    if usable("cpuset").is_none() {
        return;
    }
    let parent = Parent::new("cpuset");
    // The parent is new too: in version 1 it has no CPUs by itself.
    let (init, command) = running(parent.init(&["--cpuset-cpus", "0"]).args(subject(["default"])).start());
    assert_eq!(status_field(command, "Cpus_allowed_list").as_deref(), Some("0"));
    init.kill(libc::SIGTERM);
    init.finish();
    // Nodes alone: the CPUs come from above.
    let output = parent.init(&["--cpuset-mems", "0"]).args(sh("echo ran")).run();
    assert_eq!((output.code, output.stdout.as_str()), (0, "ran\n"), "{output:?}");
    let output = parent.init(&["--cpuset-cpus", "4095"]).args(sh("echo ran")).run();
    assert_refused(&output, &["cpuset.cpus", "cpuset controller", "--cpuset-cpus"]);
    parent.assert_gone();
}

#[test]
fn g1_pids_refuse_a_fork() {
    let Some(mounted) = usable("pids") else { return };
    let parent = Parent::new("pids");
    let mut init = parent.init(&["--pids-limit", "10"]).args(subject(["fork-bomb", "--count", "100"])).start().ready();
    assert_eq!(init.line(), "refused");
    let folder = folder_of(init.command(), &mounted);
    assert_eq!(pids(&folder).len(), 10);
    init.kill(libc::SIGTERM);
    init.finish();
    // The limit holds from the first instruction on.
    for _ in 0..20 {
        let mut init = parent.init(&["--pids-limit", "1"]).args(subject(["fork-bomb", "--count", "1"])).start().ready();
        assert_eq!(init.line(), "refused");
        init.kill(libc::SIGTERM);
        init.finish();
    }
    parent.assert_gone();
}

/// A folder on a disk that can be limited, and the disk.
struct Disk {
    folder: PathBuf,
    device: String,
}

fn disk() -> Option<Disk> {
    let folder = std::env::var_os("SEXTON_TEST_DISK").map_or_else(std::env::temp_dir, PathBuf::from);
    let device = fs::metadata(&folder).unwrap().dev();
    let link = format!("/sys/dev/block/{}:{}", libc::major(device), libc::minor(device));
    let Ok(place) = fs::canonicalize(link) else {
        eprintln!("skipped: {} is on no disk (SEXTON_TEST_DISK names a folder that is)", folder.display());
        return None;
    };
    // Of a partition the disk.
    let place = if place.join("partition").exists() { place.parent().unwrap().to_owned() } else { place };
    let device = format!("/dev/{}", place.file_name().unwrap().display());
    Path::new(&device).exists().then_some(Disk { folder, device })
}

#[test]
fn g1_disks_are_limited_in_bytes_and_operations() {
    let Some(disk) = disk().filter(|_| usable("io").is_some()) else { return };
    let parent = Parent::new("io");
    let file = disk.folder.join(format!("sexton-test-io-{}", std::process::id()));
    let path = file.display().to_string();
    let times = |options: &[&str]| {
        let words = subject(["write", &path, "--mib", "2", "--block", "128", "--direct", "--read"]);
        let output = parent.init(options).args(words).run();
        assert_eq!(output.code, 0, "{output:?}");
        let time = |word| output.stdout.lines().find_map(|l| l.strip_prefix(word)?.trim().parse::<u64>().ok()).unwrap();
        (time("written"), time("read"))
    };
    // 2 MiB at 2 MiB a second, 16 operations at 16 a second: a second each.
    let (bytes, operations) = (format!("{}:2M", disk.device), format!("{}:16", disk.device));
    let written = times(&["--device-write-bps", &bytes]);
    assert!(written.0 >= 600, "{written:?}");
    let read = times(&["--device-read-bps", &bytes]);
    assert!(read.1 >= 600, "{read:?}");
    let written = times(&["--device-write-iops", &operations]);
    assert!(written.0 >= 600, "{written:?}");
    let both = times(&["--device-read-iops", &operations, "--device-write-bps", &bytes]);
    assert!(both.0 >= 600 && both.1 >= 600, "{both:?}");
    parent.assert_gone();
}

#[test]
fn g1_a_parent_is_made_and_removed_and_names_are_ones_own() {
    let Some(mounted) = usable("pids") else { return };
    let parent = Parent::new("parent");
    let deep = format!("{}/a/b", parent.0);
    let options = ["--cgroup-parent", &deep, "--cgroup-name", "web.1", "--pids-limit", "9"];
    let (init, command) = running(Init::new(&options).args(subject(["default"])).start());
    assert!(folder_of(command, &mounted).ends_with(format!("{}/web.1", &deep[1..])));
    init.kill(libc::SIGTERM);
    assert_eq!(init.finish().code, 128 + libc::SIGTERM);
    parent.assert_gone();
    // Many at once: who is first makes it, who is last removes it.
    let all: Vec<_> = (0..20).map(|_| parent.init(&["--pids-limit", "9"]).args(sh("exit 3")).start()).collect();
    for init in all {
        let output = init.finish();
        assert_eq!((output.code, output.stderr.as_str()), (3, ""));
    }
    parent.assert_gone();
}

#[test]
fn g1_a_group_without_limits() {
    if mounted().is_empty() {
        return eprintln!("skipped: no cgroups here");
    }
    let parent = Parent::new("plain");
    let output = parent.init(&[]).args(sh("cat /proc/self/cgroup")).run();
    assert!(output.stdout.contains(&parent.0), "{output:?}");
    parent.assert_gone();
}

// --- G2: never outside, and gone at the end ----------------------------------------------------------------------------

/// The command's group, by what it needs, and the processes of sexton's PID namespace that are not in it.
fn outsiders(init: &Running, folder: &Path) -> BTreeSet<i32> {
    let space = fs::read_link(format!("/proc/{}/ns/pid", init.pid)).unwrap();
    let inside: BTreeSet<_> = pids(folder).into_iter().collect();
    let all = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let of_space = all.filter(|pid: &i32| fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|own| own == space));
    of_space.filter(|pid| !inside.contains(pid) && is_alive(*pid)).collect()
}

#[test]
fn g2_a_fork_bomb_has_no_process_outside() {
    let Some(mounted) = usable("pids") else { return };
    let parent = Parent::new("bomb");
    let options = ["--pids-limit", "200", "--grace", "0"];
    let mut init = parent.init(&options).args(subject(["fork-bomb", "--count", "1000"])).start().ready();
    assert_eq!(init.line(), "refused");
    let folder = folder_of(init.command(), &mounted);
    // Sexton itself, and nobody else.
    assert_eq!(outsiders(&init, &folder), BTreeSet::from([init.pid]));
    assert_eq!(pids(&folder).len(), 200);
    init.kill(libc::SIGTERM);
    assert_eq!(init.finish().code, 128 + libc::SIGTERM);
    parent.assert_gone();
}

/// In a mount namespace where these hierarchies are not to be seen.
fn without(hidden: fn(&Mounted) -> bool) -> impl FnMut() -> std::io::Result<()> {
    let tops: Vec<_> = mounted().into_iter().filter(hidden).map(|mounted| c_path(&mounted.top)).collect();
    move || {
        let private = libc::MS_REC | libc::MS_PRIVATE;
        let null = std::ptr::null;
        // SAFETY: passes live C strings, or null where that is allowed.
        let done = unsafe {
            libc::unshare(libc::CLONE_NEWNS) == 0
                && libc::mount(null(), c"/".as_ptr(), null(), private, std::ptr::null()) == 0
                && tops.iter().all(|top| libc::umount2(top.as_ptr(), libc::MNT_DETACH) == 0)
        };
        if done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    }
}

/// With each way to kill them: at once, while they are frozen, and one by one.
#[test]
fn g2_processes_that_never_stay_are_gone_too() {
    let Some(mounted) = usable("pids") else { return };
    let ways: [fn(&Mounted) -> bool; 3] =
        [|_| false, |it| it.unified, |it| it.unified || it.options.iter().any(|option| option == "freezer")];
    for (number, hidden) in ways.into_iter().enumerate().take(if mounted.unified { 1 } else { 3 }) {
        let parent = Parent::new("churn");
        // No PID namespace ends them, and sexton does not wait for them.
        let options = ["--pids-limit", "100", "--grace", "0"];
        let init = parent.init(&options).args(subject(["fork-bomb", "--churn", "20"])).not_pid1();
        let (mut init, command) = running(init.prepare(without(hidden)).start());
        assert_eq!(init.line(), "done");
        let folder = folder_of(command, &mounted);
        assert!(folder.exists());
        init.kill(libc::SIGTERM);
        let ended = Output { code: 128 + libc::SIGTERM, stdout: String::new(), stderr: String::new() };
        assert_eq!(init.finish(), ended, "way {number}");
        assert!(!folder.exists(), "way {number}");
        parent.assert_gone();
    }
}

#[test]
fn g2_a_daemon_and_its_groups_are_gone() {
    let Some(mounted) = usable("pids") else { return };
    let parent = Parent::new("daemon");
    let options = ["--pids-limit", "100", "--wait"];
    let (mut init, command) = running(parent.init(&options).args(subject(["trap", "--stay"])).not_pid1().start());
    // It has made groups of its own, and is in one that is frozen, where there is a freezer.
    let folder = folder_of(command, &mounted);
    let inner = folder.join("inner");
    fs::create_dir(&inner).unwrap();
    fs::create_dir(inner.join("most")).unwrap();
    fs::write(inner.join("most/cgroup.procs"), command.to_string()).unwrap();
    if let Some(unified) = mounted_v2() {
        let frozen = folder_of(command, &unified);
        let _ = fs::write(frozen.join("cgroup.freeze"), "1");
    }
    kill(init.pid);
    init.code();
    assert!(is_alive(command), "nobody has ended it yet");
    assert_eq!(parent.init(&["--pids-limit", "5"]).args(sh("exit 4")).not_pid1().run().code, 4);
    wait_for("its end", || (!is_alive(command)).then_some(()));
    assert!(!folder.exists());
    parent.assert_gone();
}

fn mounted_v2() -> Option<Mounted> {
    mounted().into_iter().find(|mounted| mounted.unified)
}

#[test]
fn g2_a_killed_sextons_group_goes_at_the_next_start_and_no_other() {
    let Some(mounted) = usable("pids") else { return };
    let parent = Parent::new("killed");
    let folder = parent.make(&mounted);
    let options = ["--pids-limit", "20"];
    let start = |init: Init| running(init.args(subject(["trap", "--stay"])).start());
    let (mut dead, orphan) = start(parent.init(&options).not_pid1());
    // Two that live: here, and in another PID namespace, where this process's ids mean nothing.
    let (live, first) = start(parent.init(&options).not_pid1());
    let (other, second) = start(parent.init(&options));
    let (mut inner, third) = {
        let mut all = options.to_vec();
        all.extend(["--unshare", "pid,mount"]);
        let mut inner = parent.init(&all).args(subject(["trap", "--stay"])).not_pid1().start();
        assert_eq!(inner.line(), "ready");
        let second_sexton = inner.command();
        let third = wait_for("the command inside", || common::children(second_sexton).first().copied());
        (inner, third)
    };
    // Names like sexton's own, made by others.
    let foreign = folder.join("sexton-1-2");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("cgroup.procs"), first.to_string()).unwrap();
    let (orphaned, of_inner) = (folder_of(orphan, &mounted), folder_of(third, &mounted));
    kill(dead.pid);
    dead.code();
    assert!(orphaned.exists() && is_alive(orphan));

    let output = parent.init(&options).args(sh("exit 5")).run();
    assert_eq!((output.code, output.stderr.as_str()), (5, ""));
    assert!(!orphaned.exists());
    wait_for("the orphan's end", || (!is_alive(orphan)).then_some(()));
    for (pid, init) in [(first, &live), (second, &other), (third, &inner)] {
        assert!(is_alive(pid) && is_alive(init.pid));
    }
    assert!(foreign.exists() && of_inner.exists());

    // The one outside dies, and the one inside with it; its group is found too.
    kill(inner.pid);
    inner.code();
    wait_for("the end inside", || (!is_alive(third)).then_some(()));
    wait_for("the removal", || {
        assert_eq!(parent.init(&options).args(sh("exit 5")).run().code, 5);
        (!of_inner.exists()).then_some(())
    });
    assert!(is_alive(first) && is_alive(second) && foreign.exists());
    // Those that live end in their own way: sexton at the end of its command.
    for (pid, mut init) in [(first, live), (second, other)] {
        kill(pid);
        assert_eq!(init.code(), 128 + libc::SIGKILL);
    }
}

#[test]
fn g2_a_fixed_name_is_one_sextons_at_a_time() {
    let Some(mounted) = usable("pids") else { return };
    let parent = Parent::new("fixed");
    let options = ["--pids-limit", "20", "--cgroup-name", "web"];
    let (mut init, command) = running(parent.init(&options).args(subject(["trap", "--stay"])).not_pid1().start());
    let folder = folder_of(command, &mounted);
    let output = parent.init(&options).args(sh("echo ran")).run();
    assert_refused(&output, &["mkdir(", "EBUSY", "another sexton", "take another"]);
    assert!(is_alive(command));
    kill(init.pid);
    init.code();
    // A dead one's is taken over, with nothing left in it.
    let output = parent.init(&options).args(sh("echo ran; cat /proc/self/cgroup")).run();
    assert!(output.code == 0 && output.stdout.contains("/web\n"), "{output:?}");
    assert!(!is_alive(command) && !folder.exists());
    // One that sexton did not make is left alone.
    let above = parent.make(&mounted);
    fs::create_dir(above.join("web")).unwrap();
    let output = parent.init(&options).args(sh("echo ran")).run();
    assert_refused(&output, &["mkdir(", "EEXIST", "did not make", "take another name"]);
    assert!(above.join("web").exists());
}

#[test]
fn g2_two_sextons_are_both_outside() {
    let Some(mounted) = usable("pids") else { return };
    let parent = Parent::new("two");
    let options = ["--pids-limit", "50", "--unshare", "pid,mount,cgroup,uts,ipc"];
    let mut init = parent.init(&options).args(subject(["trap"])).start();
    assert_eq!(init.line(), "ready");
    let inside = init.command();
    let command = wait_for("the command", || common::children(inside).first().copied());
    let folder = folder_of(command, &mounted);
    assert_eq!(pids(&folder), [command]);
    init.kill(libc::SIGTERM);
    assert_eq!(init.finish().code, 0);
    assert!(!folder.exists());
    parent.assert_gone();
    // The root of its cgroup namespace is its group: made after it had joined.
    let output = parent.init(&options).args(sh("cat /proc/self/cgroup")).run();
    let shown: Vec<_> = output.stdout.lines().filter(|line| line.contains("pids") || line.starts_with("0:")).collect();
    assert!(!shown.is_empty() && shown.iter().all(|line| line.ends_with(":/")), "{output:?}");
    parent.assert_gone();
}

#[test]
fn g2_a_later_failure_takes_the_group_back() {
    if usable("pids").is_none() {
        return;
    }
    let parent = Parent::new("failure");
    let output = parent.init(&["--pids-limit", "50"]).args(["/no/such/program"]).run();
    assert_eq!(output.code, 127);
    parent.assert_gone();
    let output = parent.init(&["--pids-limit", "50", "--join", "net:/proc/self/status"]).args(sh("echo ran")).run();
    assert_refused(&output, &["setns("]);
    parent.assert_gone();
}

// --- G2, version 2's tree ----------------------------------------------------------------------------------------------

/// Version 2 with the pids controller: what only its tree demands.
fn tree() -> Option<Mounted> {
    let mounted = usable("pids")?;
    if !mounted.unified {
        eprintln!("skipped: the controllers are in version 1 here");
    }
    mounted.unified.then_some(mounted)
}

/// As the PID 1 of a container in a group of its own: sexton's processes make room, and come back.
#[test]
fn g2_sexton_leaves_its_own_group_for_the_controllers_and_comes_back() {
    let Some(mounted) = tree() else { return };
    let parent = Parent::new("own");
    let folder = parent.make(&mounted);
    fs::write(mounted.top.join("cgroup.subtree_control"), "+pids").unwrap();
    let procs = folder.join("cgroup.procs");
    let init = Init::new(&["--pids-limit", "20"]).args(subject(["trap"])).prepare(move || fs::write(&procs, "0"));
    let (init, command) = running(init.start());
    let group = folder_of(command, &mounted);
    assert_eq!(group.parent(), Some(folder.as_path()));
    assert_eq!(pids(&group), [command]);
    assert_eq!(pids(&folder), []);
    assert!(folder_of(init.pid, &mounted).display().to_string().ends_with(".outside"));
    init.kill(libc::SIGTERM);
    assert_eq!(init.finish().code, 0);
    assert_eq!(below(&folder), Vec::<PathBuf>::new());
    assert_eq!(read(&folder, "cgroup.subtree_control"), "");
}

#[test]
fn g3_a_group_with_others_processes_cannot_have_controllers() {
    let Some(mounted) = tree() else { return };
    let parent = Parent::new("others");
    let folder = parent.make(&mounted);
    fs::write(mounted.top.join("cgroup.subtree_control"), "+pids").unwrap();
    let procs = folder.join("cgroup.procs");
    let join = {
        let procs = procs.clone();
        move || fs::write(&procs, "0")
    };
    let (other, command) = running(Init::new(&[]).args(subject(["trap"])).prepare(join.clone()).start());
    let words = ["cgroup.subtree_control", "EBUSY", "--cgroup-parent"];
    let output = parent.init(&["--pids-limit", "20"]).args(sh("echo ran")).run();
    assert_refused(&output, &words);
    let output = Init::new(&["--pids-limit", "20"]).args(sh("echo ran")).prepare(join).run();
    assert_refused(&output, &words);
    assert!(below(&folder).is_empty() && folder_of(command, &mounted) == folder);
    other.kill(libc::SIGTERM);
    other.finish();
}

#[test]
fn g3_a_threaded_parent_is_told() {
    let Some(mounted) = tree() else { return };
    let parent = Parent::new("threaded");
    let folder = parent.make(&mounted);
    fs::create_dir(folder.join("t")).unwrap();
    fs::write(folder.join("t/cgroup.type"), "threaded").unwrap();
    let below_it = format!("{}/t", parent.0);
    let output = Init::new(&["--cgroup-parent", &below_it]).args(sh("echo ran")).run();
    assert_refused(&output, &["cgroup.procs", "EOPNOTSUPP", "threaded", "--cgroup-parent"]);
    assert!(below(&folder.join("t")).is_empty());
}

// --- G3: what cannot be held is an error --------------------------------------------------------------------------------

#[test]
fn g3_errors_name_controller_file_and_the_way_out() {
    let Some(mounted) = usable("pids") else { return };
    let parent = Parent::new("errors");
    let refused = |options: &[&str], words: &[&str]| {
        assert_refused(&parent.init(options).args(sh("echo ran")).run(), words);
        parent.assert_gone();
    };
    refused(&["--cgroup-conf", "nosuch.max=1"], &["--cgroup-conf", "controller nosuch", "leave the option out"]);
    refused(
        &["--cgroup-conf", "pids.nosuch=1"],
        &["write(", "pids.nosuch", "ENOENT", "pids controller", "leave out --cgroup-conf"],
    );
    refused(&["--pids-limit", "5", "--cgroup-conf", "pids.max=many"], &["pids.max", "EINVAL", "pids controller"]);
    if usable("io").is_some() {
        refused(&["--device-read-bps", "/dev/null:1M"], &["/dev/null", "no block device", "/dev/sda"]);
        refused(&["--device-read-bps", "/no/disk:1M"], &["stat(", "/no/disk", "ENOENT"]);
    }
    if mounted_v2().is_none_or(|v2| !read(&v2.top, "cgroup.controllers").contains("rdma"))
        && controller("rdma").is_none()
    {
        refused(&["--cgroup-conf", "rdma.max=x"], &["controller rdma", "cgroup_enable=rdma"]);
    }
    assert!(mounted.top.exists());
}

#[test]
fn g3_wrong_options_are_told_before_anything_is_done() {
    for (options, words) in [
        (&["--memory", "64MB"][..], &["--memory 64MB", "such as 64M"][..]),
        (&["--memory-swap", "64M"], &["--memory-swap", "needs --memory"]),
        (&["--memory", "64M", "--memory-swap", "32M"], &["--memory-swap", "less than --memory"]),
        (&["--memory", "64M", "--memory-reservation", "65M"], &["--memory-reservation"]),
        (&["--memory-swappiness", "101"], &["0 to 100"]),
        (&["--cpus", "0"], &["0.01"]),
        (&["--cpu-shares", "1"], &["2 to 262144"]),
        (&["--cpuset-cpus", "all"], &["0-2,5"]),
        (&["--pids-limit", "0"], &["1 to"]),
        (&["--blkio-weight", "9"], &["10 to 1000"]),
        (&["--device-read-bps", "sda:1M"], &["/dev/sda:10M"]),
        (&["--device-write-iops", "/dev/sda:1M"], &["whole number"]),
        (&["--cgroup-conf", "memory.high"], &["FILE=VALUE"]),
        (&["--cgroup-conf", "../memory.high=1"], &["such as memory.high"]),
        (&["--cgroup-conf", "cgroup.procs=1"], &["sexton's to write"]),
        (&["--cgroup-parent", "/a/../b"], &[".."]),
        (&["--cgroup-name", "a/b"], &["no /"]),
    ] {
        assert_refused(&Init::new(options).args(sh("echo ran")).run(), words);
    }
}

/// Makes every cgroup mount of this mount namespace read-only, as in an unprivileged container.
fn make_read_only() -> std::io::Result<()> {
    for mounted in mounted() {
        let top = c_path(&mounted.top);
        let flags = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY;
        // SAFETY: the path is a live C string; the rest may be null.
        if unsafe { libc::mount(std::ptr::null(), top.as_ptr(), std::ptr::null(), flags, std::ptr::null()) } != 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    Ok(())
}

#[test]
fn g3_read_only_cgroups_are_told() {
    if usable("pids").is_none() {
        return;
    }
    let parent = Parent::new("readonly");
    let output = parent.init(&["--pids-limit", "5"]).args(sh("echo ran")).prepare(make_read_only).run();
    assert_refused(&output, &["EROFS", "read-only in this container", "docker run --privileged"]);
    parent.assert_gone();
}

fn become_user() -> std::io::Result<()> {
    // SAFETY: passes integers only.
    let result = unsafe {
        libc::setgroups(0, std::ptr::null());
        libc::setresgid(1000, 1000, 1000) | libc::setresuid(1000, 1000, 1000)
    };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

#[test]
fn g3_an_ordinary_user_needs_a_group_of_his_own() {
    let Some(mounted) = usable("pids") else { return };
    let output = Init::new(&["--pids-limit", "5"]).args(sh("echo ran")).prepare(become_user).run();
    assert_refused(&output, &["EACCES", "run as root", "Delegate=yes"]);

    // Delegated as systemd does it: the folder, and the files with which groups are made below and joined.
    let parent = Parent::new("delegated");
    let folder = parent.make(&mounted);
    if mounted.unified {
        fs::write(mounted.top.join("cgroup.subtree_control"), "+pids").unwrap();
    }
    for path in [folder.clone(), folder.join("cgroup.procs"), folder.join("cgroup.subtree_control")] {
        let _ = std::os::unix::fs::chown(path, Some(1000), Some(1000));
    }
    let procs = folder.join("cgroup.procs");
    let enter = move || fs::write(&procs, "0").and_then(|()| become_user());
    let init = Init::new(&["--pids-limit", "5"]).args(subject(["fork-bomb"])).prepare(enter.clone());
    let mut init = init.start().ready();
    assert_eq!(init.line(), "refused");
    let group = folder_of(init.command(), &mounted);
    assert_eq!((group.parent(), pids(&group).len()), (Some(folder.as_path()), 5));
    assert_eq!(fs::metadata(&group).unwrap().uid(), 1000);
    init.kill(libc::SIGTERM);
    assert_eq!(init.finish().code, 128 + libc::SIGTERM);
    assert_eq!(below(&folder), Vec::<PathBuf>::new());
    // In a user namespace of his own he is root, and the group still his.
    let options = ["--pids-limit", "5", "--unshare", "user,pid,mount,cgroup", "--map-root"];
    let output = Init::new(&options).args(sh("cat /proc/self/cgroup")).prepare(enter).run();
    if output.code == 125 && output.stderr.contains("clone(") {
        eprintln!("skipped: an ordinary user may make no user namespace here: {}", output.stderr);
    } else {
        assert_eq!(output.code, 0, "{output:?}");
        assert!(output.stdout.lines().any(|line| line.ends_with(":/")), "{output:?}");
    }
    assert_eq!(below(&folder), Vec::<PathBuf>::new());
}

#[test]
fn g1_explain_does_nothing_and_needs_nothing() {
    let Some(mounted) = usable("pids") else { return };
    let parent = Parent::new("explain");
    let options = ["--explain", "--pids-limit", "5", "--cgroup-name", "web"];
    let output = parent.init(&options).args(sh("echo ran")).prepare(become_user).run();
    let path = mounted.top.join(&parent.0[1..]).join("web");
    assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    for word in
        [&*path.to_string_lossy(), "pids.max = 5", "the command joins", if mounted.unified { "(v2" } else { "(v1" }]
    {
        assert!(output.stdout.contains(word), "{word:?} is not in {}", output.stdout);
    }
    assert!(!output.stdout.contains("ran"));
    parent.assert_gone();
    let output = parent.init(&["--explain", "--cgroup-conf", "nosuch.max=1"]).args(sh("echo ran")).run();
    assert!(output.code == 0 && output.stdout.contains("cannot: --cgroup-conf"), "{output:?}");
}

/// What sexton makes can be told from what others make.
#[test]
fn g2_a_group_of_sextons_is_sticky() {
    let Some(mounted) = usable("pids") else { return };
    let parent = Parent::new("sticky");
    let (init, command) = running(parent.init(&["--pids-limit", "5"]).args(subject(["trap"])).start());
    let mode = fs::metadata(folder_of(command, &mounted)).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o1755);
    init.kill(libc::SIGTERM);
    init.finish();
    parent.assert_gone();
}
