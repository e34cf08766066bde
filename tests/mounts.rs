//! N4: what the command sees as files. A small root with busybox in it is made for each test.

#![allow(clippy::multiple_unsafe_ops_per_block)]

mod common;
#[allow(dead_code)]
#[path = "common/pty.rs"]
mod pty;

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Init, Output, assert_refused, folder, lab, sexton, write_program};
use pty::Pty;
use sexton::sys::Errno;
use sexton::sys::seccomp::{allow, jump_if_equal, load, refuse, set_filter};

/// A folder that holds a root file system; gone at the end.
struct Tree(PathBuf);

impl Tree {
    /// With busybox as its programs.
    fn new(name: &str) -> Option<Self> {
        let Some(busybox) = ["/bin/busybox", "/usr/bin/busybox"].map(Path::new).into_iter().find(|path| path.exists())
        else {
            eprintln!("skipped: no static busybox here");
            return None;
        };
        let root = folder(name);
        for name in ["bin", "proc", "sys", "dev", "tmp", "etc"] {
            fs::create_dir(root.join(name)).unwrap();
        }
        fs::copy(busybox, root.join("bin/busybox")).unwrap();
        for name in [
            "sh", "ls", "cat", "mount", "umount", "id", "touch", "rm", "mkdir", "stat", "tty", "readlink", "pwd",
            "chroot",
        ] {
            symlink("busybox", root.join("bin").join(name)).unwrap();
        }
        fs::write(root.join("etc/inside"), "inside\n").unwrap();
        Some(Self(root))
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    /// All names in it, in order.
    fn names(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.0.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().flatten() {
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                }
                found.push(entry.path());
            }
        }
        found.sort();
        found
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs a script in a new mount namespace.
fn run(options: &[&str], script: &str) -> Output {
    ready(options, script).run()
}

fn ready(options: &[&str], script: &str) -> Init {
    let options: Vec<_> = ["--unshare", "mount"].iter().chain(options).copied().collect();
    Init::new(&options).args(["/bin/sh", "-c", script])
}

#[track_caller]
fn assert_says(output: &Output, lines: &str) {
    assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (0, lines, ""));
}

fn mountinfo() -> String {
    fs::read_to_string("/proc/self/mountinfo").unwrap()
}

fn c(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

/// In the process that becomes sexton: mounts.
fn mount(kind: &CStr, at: &CStr, flags: u64) -> io::Result<()> {
    // SAFETY: the paths are C strings; there are no options.
    let result = unsafe { libc::mount(kind.as_ptr(), at.as_ptr(), kind.as_ptr(), flags, std::ptr::null()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// In the process that becomes sexton: takes a mount away, and those below.
fn unmount(at: &CStr) -> io::Result<()> {
    // SAFETY: the path is a C string.
    let result = unsafe { libc::umount2(at.as_ptr(), libc::MNT_DETACH) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// An ordinary user, with a program that he can reach.
fn as_user(name: &str, options: &[&str], script: &str) -> Init {
    user(None, name, options, script)
}

fn user(denied: Option<&str>, name: &str, options: &[&str], script: &str) -> Init {
    let folder = folder(name);
    let copy = |name: &str, program: PathBuf| write_program(&folder.join(name), &fs::read(program).unwrap(), 0o755);
    let program = copy("sexton", sexton());
    let init = match denied {
        Some(errno) => {
            Init::exactly(copy("lab", lab())).args(["deny", "--errno", errno, "--"]).args([program]).args(options)
        }
        None => Init::program(program, options),
    };
    let init = init.args(["/bin/sh", "-c", script]);
    init.prepare(|| {
        // SAFETY: passes no memory but an empty list.
        let done =
            unsafe { libc::setgroups(0, std::ptr::null()) == 0 && libc::setgid(1000) == 0 && libc::setuid(1000) == 0 };
        if done { Ok(()) } else { Err(io::Error::last_os_error()) }
    })
}

/// User namespaces are for everybody here.
fn users_may() -> bool {
    let said = |path: &str, no: &str| fs::read_to_string(path).is_ok_and(|text| text.trim() == no);
    let not = said("/proc/sys/user/max_user_namespaces", "0")
        || said("/proc/sys/kernel/unprivileged_userns_clone", "0")
        || said("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1");
    if not {
        eprintln!("skipped: an ordinary user gets no user namespace here");
    }
    !not
}

#[test]
fn n4_mounts_need_a_mount_namespace() {
    for words in [
        &["--root", "/"][..],
        &["--overlay", "lower=/"],
        &["--bind", "/etc:/mnt"],
        &["--tmpfs", "/mnt"],
        &["--proc"],
        &["--sys"],
        &["--dev"],
        &["--read-only"],
    ] {
        let output = Init::new(words).args(["true"]).run();
        assert_refused(&output, &[words[0], "add --unshare mount"]);
    }
}

#[test]
fn n4_bad_values_say_what_to_write() {
    for (option, value, word) in [
        ("--bind", "/etc", "SRC:DST"),
        ("--bind", "/etc:etc", "must begin with /"),
        ("--bind", "/etc:/", "--root"),
        ("--tmpfs", "/x:size=big", "size=64m"),
        ("--overlay", "/etc", "lower=DIR"),
        ("--overlay", "lower=/etc,upper=/tmp", "go together"),
        ("--proc", "proc", "must begin with /"),
        ("--chdir", "tmp", "must begin with /"),
    ] {
        assert_refused(&run(&[&format!("{option}={value}")], "echo no"), &[option, word]);
    }
    assert_refused(&run(&["--root", "/", "--overlay", "lower=/"], "echo no"), &["one root"]);
}

#[test]
fn n4_a_new_root_is_all_that_is_seen() {
    let Some(tree) = Tree::new("root") else { return };
    let script = "echo /*; cat /etc/inside; pwd; echo $(ls /..); while read -r _ _ _ _ at _; do echo $at; done < /proc/self/mountinfo";
    let output = run(&["--root", tree.path(), "--proc"], script);
    let lines: Vec<_> = output.stdout.lines().collect();
    assert_eq!(lines[..6], ["/bin /dev /etc /proc /sys /tmp", "inside", "/", "bin dev etc proc sys tmp", "/", "/proc"]);
    assert!(lines[6..].iter().all(|at| at.starts_with("/proc/")), "{output:?}");
    assert_eq!((output.code, output.stderr.as_str()), (0, ""));
}

#[test]
fn n4_with_a_pid_namespace_the_new_root_has_a_new_proc_if_there_is_a_folder_for_it() {
    let Some(tree) = Tree::new("proc") else { return };
    let options = ["--unshare", "all", "--root", tree.path(), "--hostname", "box"];
    let script =
        "cat /proc/sys/kernel/hostname; readlink /proc/self/exe; read -r pid _ < /proc/self/stat; echo $pid $$";
    let output = run(&options, script);
    assert_says(&output, "box\n/bin/busybox\n2 2\n");
    fs::remove_dir(tree.at("proc")).unwrap();
    assert_says(&run(&options, "echo /*"), "/bin /dev /etc /sys /tmp\n");
}

#[test]
fn n4_nothing_is_seen_outside() {
    let Some(tree) = Tree::new("outside") else { return };
    let (before, names) = (mountinfo(), tree.names());
    let options = ["--root", tree.path(), "--tmpfs", "/tmp", "--dev", "--sys", "--bind", "/etc:/etc:ro", "--read-only"];
    let output = ready(&options, "echo run").not_pid1().run();
    assert_says(&output, "run\n");
    assert_eq!(mountinfo(), before);
    // A step that fails late: there is no such folder in the root, which is read-only by then.
    let options = ["--root", tree.path(), "--tmpfs", "/tmp", "--bind", "/etc/passwd:/tmp/file", "--tmpfs", "/tmp/file"];
    let output = ready(&options, "echo no").not_pid1().run();
    assert_refused(&output, &["\"/tmp/file\"", "ENOTDIR"]);
    assert_eq!((mountinfo(), tree.names()), (before, names));
}

#[test]
fn n4_the_hosts_root_can_be_read_only() {
    let here = folder("host");
    fs::write(here.join("file"), "").unwrap();
    let file = here.join("file").display().to_string();
    // What is mounted below the root is read-only as well; what is asked for is not.
    let below = folder("below");
    let at = c(&below);
    let script = format!(
        "test -w /; echo $?; test -w {file}; echo $?; test -w {}; echo $?; echo $$ > /tmp/x; cat /tmp/x",
        below.display()
    );
    for root in [&["--root", "/"][..], &[]] {
        let options: Vec<_> =
            root.iter().chain(&["--unshare", "pid", "--read-only", "--tmpfs", "/tmp/new"]).copied().collect();
        let (at, script) = (at.clone(), script.replace("/tmp/x", "/tmp/new/x"));
        fs::create_dir_all("/tmp/new").unwrap();
        let output = ready(&options, &script).prepare(move || mount(c"tmpfs", &at, 0)).run();
        assert_says(&output, "1\n1\n1\n2\n");
    }
    let _ = fs::remove_dir("/tmp/new");
}

#[test]
fn n4_a_read_only_root_may_have_folders_made_for_what_is_mounted() {
    let Some(tree) = Tree::new("read-only") else { return };
    let options = ["--root", tree.path(), "--read-only", "--tmpfs", "/made/here", "--proc"];
    let output = run(&options, "touch /made/here/x && echo made; touch /made/y /z");
    assert_eq!(output.stdout, "made\n");
    assert!(output.stderr.contains("Read-only"), "{output:?}");
    assert!(tree.at("made/here").is_dir());
}

#[test]
fn n4_binds_are_in_the_order_given_and_of_the_old_root() {
    let Some(tree) = Tree::new("binds") else { return };
    let source = folder("binds-source");
    fs::write(source.join("a"), "a\n").unwrap();
    fs::create_dir(source.join("deep")).unwrap();
    let at = source.display();
    // The second covers the first; the third is on it; the fourth is a file on a missing file; the last is what it was
    // before anything was mounted there.
    let output = run(
        &[
            "--root",
            tree.path(),
            "--bind",
            &format!("{at}:/x"),
            "--tmpfs",
            "/x",
            "--bind",
            &format!("{at}:/x/y"),
            "--bind",
            &format!("{at}/a:/new/file:ro"),
            "--bind",
            "/bin:/x/y/deep:ro",
        ],
        "echo /x/* /x/y/*; cat /new/file; echo b > /x/y/b; test -e /x/y/deep/sh; echo $?; echo no > /new/file",
    );
    assert_eq!(output.stdout, "/x/y /x/y/a /x/y/deep\na\n0\n");
    assert!(output.stderr.contains("Read-only"), "{output:?}");
    assert_eq!(fs::read_to_string(source.join("b")).unwrap(), "b\n");
    assert_eq!(fs::read_to_string(source.join("a")).unwrap(), "a\n");
    // What the source is covered by later does not matter, and a relative one is of the working folder.
    let (folder, name) = (source.parent().unwrap().to_owned(), source.file_name().unwrap().to_owned());
    let output = ready(
        &["--tmpfs", folder.to_str().unwrap(), "--bind", &format!("{}:/mnt", name.display())],
        "cat /mnt/a; echo $(ls -A); pwd",
    )
    .prepare({
        let folder = c(&folder);
        // SAFETY: the path is a C string.
        move || if unsafe { libc::chdir(folder.as_ptr()) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    })
    .run();
    assert_says(&output, &format!("a\n\n{}\n", folder.display()));
}

#[test]
fn n4_a_read_only_bind_is_so_below_too() {
    let Some(tree) = Tree::new("below-root") else { return };
    let source = folder("below-source");
    for name in ["in", "in/deep er"] {
        fs::create_dir(source.join(name)).unwrap();
    }
    let bind = format!("{}:/x:ro", source.display());
    let script =
        "for at in /x /x/in '/x/in/deep er'; do touch \"$at/new\" 2>/dev/null; echo $?; done; ls '/x/in/deep er/'";
    let (first, second) = (c(&source.join("in")), c(&source.join("in/deep er")));
    let prepare = move || {
        mount(c"tmpfs", &first, libc::MS_NOSUID | libc::MS_NODEV)?;
        // SAFETY: the path is a C string.
        unsafe { libc::mkdir(second.as_ptr(), 0o755) };
        mount(c"tmpfs", &second, libc::MS_NOEXEC)
    };
    let options = ["--unshare", "mount", "--root", tree.path(), "--bind", &bind];
    for init in [Init::new(&options), Init::denied("ENOSYS", &options), Init::denied("EPERM", &options)] {
        let output = init.args(["/bin/sh", "-c", script]).prepare(prepare.clone()).run();
        assert_says(&output, "1\n1\n1\n");
    }
}

#[test]
fn n4_an_ordinary_user_has_it_all_in_a_user_namespace() {
    let Some(tree) = Tree::new("user") else { return };
    if !users_may() {
        return;
    }
    std::os::unix::fs::chown(tree.path(), Some(1000), Some(1000)).unwrap();
    let options = [
        "--unshare",
        "user,mount,pid",
        "--map-root",
        "--root",
        tree.path(),
        "--sys",
        "--dev",
        "--tmpfs",
        "/tmp:size=1m,mode=700",
        "--bind",
        "/etc:/made/etc:ro",
        "--read-only",
    ];
    let script = "id -u; echo $$; echo 1 > /dev/null && echo dev; echo 2 > /tmp/x && cat /tmp/x; touch /made/etc/x 2>/dev/null || echo ro; \
                  touch /x 2>/dev/null || echo ro; test -d /sys/kernel && echo sys; echo 3 2>/dev/null > /sys/x || echo ro";
    let wanted = "0\n2\ndev\n2\nro\nro\nsys\nro\n";
    assert_says(&as_user("user-program", &options, script).run(), wanted);
    assert!(tree.at("made/etc").is_dir());
    for errno in ["ENOSYS", "EPERM"] {
        assert_says(&user(Some(errno), "user-denied", &options, script).run(), wanted);
    }
    // Without a user namespace he may do nothing.
    let output = as_user("user-alone", &["--unshare", "mount", "--root", tree.path()], "echo no").run();
    assert_refused(&output, &["unshare(CLONE_NEWNS)", "EPERM", "add user to --unshare"]);
    // On a read-only file system, or another's, nothing can be made.
    let options = ["--unshare", "user,mount", "--map-root", "--root", tree.path(), "--tmpfs", "/bin/made"];
    let output = as_user("user-closed", &options, "echo no").run();
    assert_refused(&output, &["openat(\"/bin/made\")", "EACCES", "make it before"]);
}

#[test]
fn n4_a_tmpfs_has_its_size_and_mode() {
    let Some(tree) = Tree::new("tmpfs") else { return };
    let output = run(
        &["--root", tree.path(), "--tmpfs", "/a:size=64k,mode=710", "--tmpfs", "/b", "--proc"],
        "stat -c %a /a /b; stat -f -c %b:%S /a; mount | while read -r _ _ at _ kind flags; do [ $at != /b ] || echo $flags; done",
    );
    let lines: Vec<_> = output.stdout.lines().collect();
    assert_eq!(lines[..3], ["710", "1777", "16:4096"], "{output:?}");
    assert!(lines[3].starts_with("(rw,nosuid,nodev,relatime"), "{output:?}");
}

/// What a /dev must have, whoever made it.
const DEV: &str = "cd /dev; for name in *; do echo $name $(stat -L -c '%F %t:%T' $name); done | while read -r line; do \
    case $line in std*) ;; *character*) echo $line;; esac; done; \
    for name in fd stdin stdout stderr ptmx; do readlink $name; done; \
    echo x > null; ls pts; test -c pts/ptmx && echo pts; stat -c %a shm; echo y > shm/y && cat shm/y";

#[test]
fn n4_dev_has_what_programs_count_on() {
    let Some(tree) = Tree::new("dev") else { return };
    let wanted = "full character special file 1:7\nnull character special file 1:3\nptmx character special file 5:2\n\
                  random character special file 1:8\ntty character special file 5:0\n\
                  urandom character special file 1:9\nzero character special file 1:5\n\
                  /proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n\
                  ptmx\npts\n1777\ny\n";
    assert_says(&run(&["--root", tree.path(), "--dev", "--proc"], DEV), wanted);
    // In the running system, where the old /dev is covered; and elsewhere.
    let output = run(&["--dev"], "echo /dev/* && echo x > /dev/null");
    assert!(!output.stdout.contains("vda") && output.stdout.contains("/dev/pts") && output.code == 0, "{output:?}");
    assert_says(&run(&["--root", tree.path(), "--dev=/d"], "echo x > /d/null; echo /dev/* /d/z*"), "/dev/* /d/zero\n");
    if users_may() {
        let options = ["--unshare", "user,mount,pid,ipc", "--map-root", "--root", tree.path(), "--dev"];
        assert_says(&as_user("dev-program", &options, DEV).run(), wanted);
        let options = ["--unshare", "user,mount", "--map-root", "--tmpfs", "/dev", "--dev", "--chdir", "/"];
        let output = as_user("dev-covered", &options, "echo x > /dev/null; echo /dev/z*").run();
        assert_says(&output, "/dev/zero\n");
    }
}

#[test]
fn n4_dev_has_a_console_if_there_is_a_terminal() {
    let Some(tree) = Tree::new("console") else { return };
    let mut pty = Pty::open();
    let init = ready(
        &["--unshare", "pid", "--root", tree.path(), "--dev"],
        "echo is $(stat -c %t:%T /dev/console /proc/self/fd/0); tty; echo end",
    );
    let running = pty.all_of(init).start();
    pty.let_slave_go();
    let shown = pty.expect("end");
    let numbers: Vec<_> = shown.lines().find_map(|line| line.strip_prefix("is ")).unwrap().split(' ').collect();
    assert!(numbers[0].starts_with("88:"), "{shown:?}");
    assert!(shown.contains("/dev/console") || shown.contains("not a tty"), "{shown:?}");
    assert_eq!(running.finish().code, 0);
}

#[test]
fn n4_what_tells_of_the_machine_is_masked_when_the_root_changes() {
    let Some(tree) = Tree::new("masks") else { return };
    let script = "for name in kcore keys latency_stats timer_list sched_debug; do test ! -e /proc/$name || cat /proc/$name; done; \
                  for name in /proc/acpi /proc/asound /proc/scsi /sys/firmware /sys/devices/virtual/powercap; do test ! -e $name || ls $name; done; \
                  for name in bus fs irq sys sysrq-trigger; do test ! -e /proc/$name || mount | while read -r _ _ at _ _ how; do \
                  case $at:$how in /proc/$name:*ro,*) echo -n $name. ;; esac; done; done; echo; \
                  echo x 2>/dev/null > /proc/sys/kernel/hostname || echo refused; echo 5 > /proc/self/oom_score_adj && echo writable";
    let options = ["--unshare", "pid", "--root", tree.path(), "--sys"];
    let held = ["bus", "fs", "irq", "sys", "sysrq-trigger"]
        .iter()
        .filter(|name| Path::new("/proc").join(name).exists())
        .map(|name| format!("{name}."))
        .collect::<Vec<_>>()
        .concat();
    let wanted = format!("{held}\nrefused\nwritable\n");
    assert_says(&run(&options, script), &wanted);
    // Where there is no /dev/null out here, something else is as empty.
    let init = ready(&options, script).prepare(|| mount(c"tmpfs", c"/dev", 0));
    assert_says(&init.run(), &wanted);
    // Without a new root all is as it was.
    assert_says(
        &run(&["--unshare", "pid,uts"], "test -s /proc/keys; echo x > /proc/sys/kernel/hostname; echo $?"),
        "0\n",
    );
}

#[test]
fn n4_an_overlay_leaves_what_is_below_as_it_is() {
    let Some(tree) = Tree::new("overlay") else { return };
    let more = folder("overlay-more");
    fs::write(more.join("above"), "above\n").unwrap();
    let names = tree.names();
    let change = "cat /above /etc/inside; echo new > /etc/new; rm -r /etc; mkdir /etc; touch /etc/x; rm /above; echo /etc/* /above*";
    // The folders may be relative.
    let layers = format!("lower={}:{}", more.file_name().unwrap().display(), tree.path());
    let parent = c(more.parent().unwrap());
    let go = move || {
        // SAFETY: the path is a C string.
        if unsafe { libc::chdir(parent.as_ptr()) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    let output = ready(&["--overlay", &layers, "--proc"], change).prepare(go.clone()).run();
    if output.stderr.contains("ENODEV") {
        eprintln!("skipped: this kernel has no overlay file system");
        return;
    }
    assert_says(&output, "above\ninside\n/etc/x /above*\n");
    assert_eq!(tree.names(), names);
    assert_eq!(fs::read_to_string(more.join("above")).unwrap(), "above\n");
    // With a folder for the changes, they are there the next time.
    let changes = folder("overlay-changes");
    let (upper, work) = (changes.join("upper"), changes.join("work"));
    for path in [&upper, &work] {
        fs::create_dir(path).unwrap();
    }
    let layers = format!("{layers},upper={},work={}", upper.display(), work.display());
    assert_says(&ready(&["--overlay", &layers], "echo new > /etc/new; rm /above").prepare(go.clone()).run(), "");
    assert_says(
        &ready(&["--overlay", &layers, "--read-only"], "cat /etc/new; echo /above*; touch /x 2>&-; echo $?")
            .prepare(go)
            .run(),
        "new\n/above*\n1\n",
    );
    assert_eq!((tree.names(), fs::read_to_string(upper.join("etc/new")).unwrap()), (names, "new\n".into()));
}

#[test]
fn n4_an_ordinary_user_has_overlays_too() {
    let Some(tree) = Tree::new("overlay-user") else { return };
    if !users_may() {
        return;
    }
    for path in tree.names().iter().chain([&tree.0]) {
        std::os::unix::fs::lchown(path, Some(1000), Some(1000)).unwrap();
    }
    let names = tree.names();
    let layers = format!("lower={}", tree.path());
    let options = ["--unshare", "user,mount,pid", "--map-root", "--overlay", &layers, "--dev"];
    let output = as_user("overlay-program", &options, "echo new > /etc/new; rm /etc/inside; echo /etc/*").run();
    if output.stderr.contains("ENODEV") {
        eprintln!("skipped: this kernel has no overlay file system");
        return;
    }
    assert_says(&output, "/etc/new\n");
    assert_eq!(tree.names(), names);
}

#[test]
fn n4_nothing_lands_outside_the_new_root() {
    let Some(tree) = Tree::new("escape") else { return };
    let outside = folder("escape-outside");
    let depth = "../".repeat(20);
    let at = outside.display();
    symlink(&outside, tree.at("absolute")).unwrap();
    symlink(format!("{depth}{at}"), tree.at("relative")).unwrap();
    symlink("/../..", tree.at("up")).unwrap();
    symlink("absolute", tree.at("twice")).unwrap();
    symlink("/proc/self/root", tree.at("magic")).unwrap();
    let before = mountinfo();
    for place in [
        "/absolute/x".to_owned(),
        "/relative/x".into(),
        "/twice/x".into(),
        "/absolute".into(),
        format!("/up{at}/x"),
        format!("/{depth}{at}/x"),
        format!("/magic{at}/x"),
    ] {
        for what in ["--tmpfs", "--bind", "--dev", "--proc"] {
            let value = if what == "--bind" { format!("--bind=/etc:{place}") } else { format!("{what}={place}") };
            // A /proc of processes that have other roots is the outermost trap.
            let options = ["--root", tree.path(), "--bind", "/proc:/proc", &value];
            let output = ready(&options, "while read -r _ _ _ _ at _; do echo $at; done < /proc/self/mountinfo")
                .not_pid1()
                .run();
            assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{value}");
            assert!(
                output.stdout.lines().any(|line| line.starts_with(outside.to_str().unwrap())),
                "{value}: {}",
                output.stdout
            );
            assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{value}");
        }
    }
    assert_eq!(mountinfo(), before);
}

#[test]
fn n4_a_link_that_is_swapped_in_meanwhile_leads_nowhere() {
    let Some(tree) = Tree::new("swap") else { return };
    let outside = folder("swap-outside");
    let before = mountinfo();
    let (way, link) = (tree.at("way"), tree.at("link"));
    fs::create_dir(&way).unwrap();
    symlink(&outside, &link).unwrap();
    let (from, to) = (c(&way), c(&link));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let here = libc::AT_FDCWD;
                // SAFETY: the paths are C strings.
                unsafe {
                    libc::syscall(libc::SYS_renameat2, here, from.as_ptr(), here, to.as_ptr(), libc::RENAME_EXCHANGE)
                };
            }
        });
        let (mut there, mut linked) = (0, 0);
        for _ in 0..60 {
            let options = ["--root", tree.path(), "--tmpfs", "/way/x", "--proc"];
            let script = "while read -r _ _ _ _ at _; do case $at in */x) echo $at;; esac; done < /proc/self/mountinfo";
            let output = ready(&options, script).not_pid1().run();
            // The link may dangle when it is looked at, and be a folder when it is walked.
            if output.code == 125 {
                continue;
            }
            let text = output.stdout.trim_end();
            if text == "/way/x" || text == "/link/x" {
                there += 1;
            } else {
                linked += 1;
            }
            assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{output:?}");
        }
        stop.store(true, Ordering::Relaxed);
        assert!(there > 0 && linked > 0, "never swapped in between: {there} {linked}");
    });
    assert_eq!(mountinfo(), before);
}

#[test]
fn n4_it_works_without_proc() {
    let Some(tree) = Tree::new("no-proc") else { return };
    let bind = ["--root", tree.path(), "--bind", "/etc:/made:ro", "--tmpfs", "/tmp", "--dev", "--read-only"];
    let script = "echo x > /dev/null; test -e /made/passwd && echo bound; touch /made/x 2>/dev/null || echo ro";
    assert_says(&ready(&bind, script).prepare(|| unmount(c"/proc")).run(), "bound\nro\n");
    // Without the newer calls a bind needs it, and says so.
    for errno in ["ENOSYS", "EPERM"] {
        for (more, word) in [("--bind=/etc:/made", "move_mount"), ("--read-only", "/proc/self/fd/")] {
            let options = ["--unshare", "mount", "--root", tree.path(), more];
            let init = Init::denied(errno, &options).args(["/bin/sh", "-c", "echo no"]);
            assert_refused(&init.prepare(no_proc_at_all).run(), &[word, "ENOENT", "/proc is needed"]);
        }
        let options = ["--unshare", "mount", "--root", tree.path(), "--tmpfs", "/tmp", "--dev"];
        let init = Init::denied(errno, &options).args(["/bin/sh", "-c", "echo x > /dev/null; echo run"]);
        assert_says(&init.prepare(no_proc_at_all).run(), "run\n");
    }
}

/// The harness mounts a /proc of its own on the machine's.
fn no_proc_at_all() -> io::Result<()> {
    unmount(c"/proc")?;
    let _ = unmount(c"/proc");
    Ok(())
}

#[test]
fn n4_where_the_root_cannot_be_moved_it_is_covered() {
    let Some(tree) = Tree::new("initramfs") else { return };
    // As on an initramfs: pivot_root(2) answers EINVAL.
    let pivot = |errno| {
        move || {
            let number = u32::try_from(libc::SYS_pivot_root).unwrap();
            set_filter(&[load(0), jump_if_equal(number, 0, 1), refuse(errno), allow()])
                .map_err(|_| io::Error::last_os_error())
        }
    };
    let options = ["--unshare", "pid", "--root", tree.path(), "--dev", "--tmpfs", "/tmp"];
    // A way out of a chroot that is not at the root of everything: chroot deeper, and climb.
    let script = "echo /*; pwd; ls /.. | while read -r name; do echo -n \"$name \"; done; echo; cat /etc/inside; \
                  chroot /tmp /bin/true 2>/dev/null; cd ../../../..; echo *";
    let wanted = "/bin /dev /etc /proc /sys /tmp\n/\nbin dev etc proc sys tmp \ninside\nbin dev etc proc sys tmp\n";
    assert_says(&ready(&options, script).prepare(pivot(Errno::EINVAL)).run(), wanted);
    let output = ready(&options, "echo no").prepare(pivot(Errno::EPERM)).run();
    assert_refused(&output, &["pivot_root(\".\", \".\")", "EPERM", "let it pass pivot_root"]);
}

#[test]
fn n4_the_working_folder_is_as_asked_for() {
    let Some(tree) = Tree::new("chdir") else { return };
    assert_says(&run(&["--root", tree.path()], "pwd"), "/\n");
    assert_says(&run(&["--root", tree.path(), "--chdir", "/etc"], "pwd; cat inside"), "/etc\ninside\n");
    assert_says(&Init::new(&["--chdir", "/etc"]).args(["/bin/sh", "-c", "pwd"]).run(), "/etc\n");
    assert_refused(&run(&["--root", tree.path(), "--chdir", "/nope"], "echo no"), &["chdir(\"/nope\")", "ENOENT"]);
    // It is what the command sees there, not what was there before.
    let here = folder("chdir-here");
    fs::create_dir(here.join("old")).unwrap();
    let path = c(&here.join("old"));
    let go = move || {
        // SAFETY: the path is a C string.
        if unsafe { libc::chdir(path.as_ptr()) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    let output = ready(&["--tmpfs", here.to_str().unwrap()], "echo no").prepare(go).run();
    assert_refused(&output, &["chdir(", "ENOENT", "--chdir"]);
}

#[test]
fn n4_what_cannot_be_mounted_is_told_and_nothing_is_left() {
    let Some(tree) = Tree::new("errors") else { return };
    let (before, names) = (mountinfo(), tree.names());
    symlink("loop", tree.at("loop")).unwrap();
    let root = ["--root", tree.path()];
    for (options, words) in [
        (&["--root", "/nope"][..], &["open_tree(\"/nope\")", "ENOENT", "make it"][..]),
        (&["--root", "/etc/passwd"], &["open_tree(\"/etc/passwd\")", "must be a folder"]),
        (&["--bind", "/nope:/tmp"], &["open_tree(\"/nope\")", "ENOENT", "make it first"]),
        (&["--bind", "/etc/passwd:/etc"], &["move_mount(\"/etc\")", "the other is not"]),
        (&["--bind", "/etc:/etc/inside"], &["move_mount(\"/etc/inside\")", "the other is not"]),
        (&["--bind", "/etc:/etc/inside/x"], &["openat(\"/etc/inside/x\")", "ENOTDIR", "file on the way"]),
        (&["--tmpfs", "/loop/x"], &["openat(\"/loop/x\")", "ELOOP", "symbolic links"]),
        (&["--tmpfs", "/etc/.."], &["openat(\"/etc/..\")", "EBUSY", "use --root"]),
        (&["--tmpfs", "/etc/inside"], &["\"/etc/inside\"", "ENOTDIR"]),
        (&["--overlay", "lower=/nope"], &["chdir(\"/nope\")", "ENOENT"]),
    ] {
        let with_root = if options[0] == "--root" || options[0] == "--overlay" { &[][..] } else { &root[..] };
        let all: Vec<_> = with_root.iter().chain(options).copied().collect();
        let output = ready(&all, "echo no").not_pid1().run();
        if output.stderr.contains("ENODEV") {
            continue;
        }
        assert_refused(&output, words);
    }
    fs::remove_file(tree.at("loop")).unwrap();
    assert_eq!((mountinfo(), tree.names()), (before, names));
}

#[test]
fn n4_a_joined_namespace_is_not_changed() {
    let Some(tree) = Tree::new("joined") else { return };
    let mut other = Init::new(&["--unshare", "mount", "--tmpfs", "/mnt"])
        .args(["/bin/sh", "-c", "touch /mnt/others; echo ready; read -r line"])
        .not_pid1()
        .stdin(std::process::Stdio::piped())
        .start()
        .ready();
    let pid = common::wait_for("the command", || common::children(other.pid).first().copied());
    let theirs = || fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    let (before, join) = (theirs(), format!("mount:{pid}"));
    let root = [tree.path(), "/tmp:/x"];
    let output = Init::new(&["--join", &join, "--root", root[0], "--bind", "/mnt:/theirs", "--tmpfs", "/tmp"])
        .args(["/bin/sh", "-c", "echo /theirs/*"])
        .not_pid1()
        .run();
    assert_says(&output, "/theirs/others\n");
    assert_eq!(theirs(), before);
    assert!(other.try_line(std::time::Duration::from_millis(1)).is_none());
}

#[test]
fn n4_explain_tells_each_mount_and_does_nothing() {
    let Some(tree) = Tree::new("explain") else { return };
    let names = tree.names();
    let options = [
        "--explain",
        "--unshare",
        "mount,pid",
        "--root",
        tree.path(),
        "--tmpfs",
        "/a:size=1m",
        "--bind",
        "/etc:/b:ro",
        "--dev",
        "--sys",
        "--read-only",
        "--chdir",
        "/a",
    ];
    let output = Init::new(&options).args(["/no/such/command"]).run();
    let places: Vec<_> = [
        "mounts are private",
        tree.path(),
        "/proc",
        "at /a: a tmpfs size=1m",
        "at /b: /etc, read-only",
        "at /dev",
        "at /sys",
        "masked",
        "  the root is read-only",
        "enter",
        "starts in /a",
    ]
    .iter()
    .map(|words| output.stdout.find(words).unwrap_or_else(|| panic!("{words:?} is not in {}", output.stdout)))
    .collect();
    assert!(places.is_sorted(), "{places:?} {}", output.stdout);
    assert_eq!((output.code, output.stderr.as_str(), tree.names()), (0, "", names));
}

#[test]
fn n4_what_is_mounted_outside_does_not_come_in_later() {
    // A shared mount, as systemd has them all; below a read-only bind a new one of them would be writable.
    let place = folder("later");
    let script = r#"
        mount -t tmpfs later $P && mount --make-shared $P && mkdir $P/sub && mkfifo $P/there $P/go || exit 9
        "$S" --unshare mount --bind $P:/mnt:ro -- /bin/sh -c '
            echo > $P/there; read -r x < $P/go; touch /mnt/sub/x 2>/dev/null; echo $?; test -e $P/sub/y; echo $?' &
        read -r x < $P/there; mount -t tmpfs later $P/sub && touch $P/sub/y; echo > $P/go; wait $!"#;
    let init = Init::new(&["--unshare", "mount"]).args(["/bin/sh", "-c", script]);
    let output = init.env("P", &place).env("S", sexton()).run();
    assert_says(&output, "1\n1\n");
}
