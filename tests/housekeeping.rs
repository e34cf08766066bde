//! Clauses H: what sexton keeps, what it needs, and what it survives.

mod common;

use std::ffi::{CString, OsString};
use std::fs;
use std::io::{self, PipeReader, PipeWriter, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::{Init, Running, children, folder, lab, sexton, sh, stat, subject, wait_for, write_program, zombies_of};

const USR1: i32 = 10;
const USR2: i32 = 12;
const TERM: i32 = 15;

const SOON: Duration = Duration::from_secs(15);

/// Sexton as PID 1 or not; scripts find the subjects as `$LAB subject`.
fn init(is_pid1: bool, options: &[&str]) -> Init {
    let init = Init::new(options).env("LAB", lab());
    if is_pid1 { init } else { init.not_pid1() }
}

/// All descriptors of a process, and what they are.
fn descriptors(pid: i32) -> Vec<(RawFd, String)> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let mut all: Vec<_> = entries
        .filter_map(|entry| {
            let to = fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned();
            Some((entry.file_name().to_string_lossy().parse().ok()?, to))
        })
        .collect();
    all.sort();
    all
}

/// Sends each, and sees the command print each, once.
#[track_caller]
fn assert_forwards(running: &mut Running, rounds: usize) {
    for _ in 0..rounds {
        for (signal, name) in [(USR1, "SIGUSR1 "), (USR2, "SIGUSR2 ")] {
            running.kill(signal);
            let line = running.line();
            assert!(line.starts_with(name), "{line}");
        }
    }
}

fn fill(writer: &PipeWriter) {
    set_flags(writer.as_raw_fd(), libc::O_NONBLOCK);
    // SAFETY: the byte is live.
    while unsafe { libc::write(writer.as_raw_fd(), c"x".as_ptr().cast(), 1) } == 1 {}
    set_flags(writer.as_raw_fd(), 0);
}

fn set_flags(fd: RawFd, flags: i32) {
    // SAFETY: passes integers only.
    assert_eq!(unsafe { libc::fcntl(fd, libc::F_SETFL, flags) }, 0);
}

/// Duplicates `from` to each of `numbers`, in the process that becomes the init.
fn inheriting(from: &fs::File, numbers: &'static [RawFd]) -> impl FnMut() -> io::Result<()> + Send + Sync + 'static {
    // Above all of them: to duplicate a descriptor to itself would leave it CLOEXEC.
    // SAFETY: passes integers only.
    let copy = unsafe { libc::fcntl(from.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 300) };
    assert!(copy >= 300);
    // SAFETY: the descriptor is new, and nobody else's.
    let from = unsafe { OwnedFd::from_raw_fd(copy) };
    move || {
        for number in numbers {
            // SAFETY: passes integers only; the result is inherited on purpose.
            if unsafe { libc::dup2(from.as_raw_fd(), *number) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }
}

#[test]
fn h1_the_working_directory_and_inherited_descriptors_are_let_go() {
    let folder = folder("let-go");
    let file = fs::File::create(folder.join("inherited")).unwrap();
    for is_pid1 in [true, false] {
        let prepare = inheriting(&file, &[3, 7, 8, 64, 200]);
        let script = format!("cd {}; exec $LAB subject trap", folder.display());
        let running = init(is_pid1, &[]).args(sh(&script)).prepare(prepare).start().ready();
        let all = wait_for("the init to let go", || {
            let cwd = fs::read_link(format!("/proc/{}/cwd", running.pid)).unwrap();
            let all = descriptors(running.pid);
            let own = |to: &str| to.contains("[signalfd]") || to.contains("pidfd");
            (cwd == Path::new("/")
                && all.iter().any(|(_, to)| to.contains("[signalfd]"))
                && all.iter().filter(|(fd, _)| *fd > 2).all(|(_, to)| own(to)))
            .then_some(all)
        });
        assert_eq!((all[0].1.as_str(), all[1].1.as_str(), all[2].0), ("/", "/", 2), "{all:?}");
        // The command keeps all of them.
        let kept = descriptors(running.command());
        let inherited = folder.join("inherited").to_string_lossy().into_owned();
        for fd in [3, 7, 8, 64, 200] {
            assert!(kept.contains(&(fd, inherited.clone())), "{fd}: {kept:?}");
        }
        running.kill(TERM);
        assert_eq!(running.finish().code, 0);
    }
}

/// The command has what it would have without us, and not one more.
#[test]
fn h1_the_command_has_just_the_descriptors_that_were_given() {
    let file = fs::File::open("/").unwrap();
    let list = |init: Init, closed: &[i32]| {
        let init = init.prepare(inheriting(&file, &[7, 200])).args(["subject", "status"]);
        let init = closed.iter().fold(init, |init, fd| init.closing(*fd)).run();
        let from = init.stdout.find("\"fds\":[").unwrap_or_else(|| panic!("{init:?}"));
        init.stdout[from..].split(']').next().unwrap().to_owned()
    };
    for closed in [&[][..], &[0], &[2], &[0, 2]] {
        let bare = list(Init::exactly(lab()).not_pid1(), closed);
        assert!(bare.contains(",7,") && bare.contains(",200"), "{bare}");
        for is_pid1 in [true, false] {
            assert_eq!(list(init(is_pid1, &[]).args([lab()]), closed), bare, "closed: {closed:?}");
        }
    }
}

#[test]
fn h1_a_reader_sees_the_end_when_the_command_closes_its_stdout() {
    for options in [&[][..], &["-vv", "-w"], &["--unshare", "pid,mount"]] {
        for is_pid1 in [true, false] {
            let script = "echo ready; exec >&- 2>&-; read line; exit 3";
            let (reader, writer) = io::pipe().unwrap();
            let mut running = init(is_pid1, options).stdin(reader).args(sh(script)).start().ready();
            assert!(running.stdout_ends_within(SOON));
            assert!(stat(running.pid).is_some_and(|(state, _)| state != 'Z'));
            drop(writer);
            assert_eq!(running.code(), 3);
        }
    }
}

/// And who writes to its stdin sees when it is closed.
#[test]
fn h1_a_writer_sees_the_end_when_the_command_closes_its_stdin() {
    let (reader, writer) = io::pipe().unwrap();
    let mut running = init(true, &[]).stdin(reader).args(sh("exec <&-; exec $LAB subject trap")).start().ready();
    wait_for("the pipe to break", || {
        // SAFETY: the byte is live; SIGPIPE is ignored in the tester.
        (unsafe { libc::write(writer.as_raw_fd(), c"x".as_ptr().cast(), 1) } < 0).then_some(())
    });
    running.kill(TERM);
    assert_eq!(running.code(), 0);
}

/// With `-vv -w`, many lines to log, and a stderr that takes none of them: everything else goes on.
#[track_caller]
fn assert_goes_on(mut running: Running) -> Running {
    assert_eq!(running.line(), "done");
    assert_eq!(running.line(), "ready");
    assert_forwards(&mut running, 5);
    wait_for("all orphans to be reaped", || (children(running.pid).len() == 1).then_some(()));
    // It sleeps; it does not try again and again.
    wait_for("the init to sleep", || stat(running.pid).filter(|(state, _)| *state == 'S'));
    running
}

const TALK: &str = "$LAB subject orphan --count 100; exec $LAB subject trap";

/// The loud options.
const LOUD: &[&str] = &["-vv", "-w"];

fn without_proc() -> io::Result<()> {
    // SAFETY: the path is a C string constant.
    let result = unsafe { libc::umount2(c"/proc".as_ptr(), libc::MNT_DETACH) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn read_all_there_is(reader: &PipeReader) -> String {
    let mut text = vec![0; 1 << 20];
    // SAFETY: the buffer is live and of this size.
    let count = unsafe { libc::read(reader.as_raw_fd(), text.as_mut_ptr().cast(), text.len()) };
    text.truncate(usize::try_from(count).unwrap_or(0));
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn h2_a_full_stderr_stops_nothing_and_what_is_missing_is_counted() {
    // With /proc the pipe is opened again; without, it is looked at before each line.
    for (has_proc, is_pid1) in [(true, true), (true, false), (false, true)] {
        let (reader, writer) = io::pipe().unwrap();
        fill(&writer);
        let mut init = init(is_pid1, LOUD).stderr(writer).args(sh(TALK));
        if !has_proc {
            init = init.prepare(without_proc);
        }
        let mut running = assert_goes_on(init.start().ready());
        assert!(read_all_there_is(&reader).ends_with('x'), "nothing went in");
        set_flags(reader.as_raw_fd(), libc::O_NONBLOCK);
        let mut text = String::new();
        let line = wait_for("the count of missing lines", || {
            running.kill(USR1);
            assert!(running.line().starts_with("SIGUSR1 "));
            text += &read_all_there_is(&reader);
            text.lines().find(|line| line.contains("did not fit and are missing")).map(str::to_owned)
        });
        let count: usize = line.split(' ').find_map(|word| word.parse().ok()).unwrap();
        assert!(count >= 10, "{line}");
        running.kill(TERM);
        assert_eq!(running.code(), 0);
    }
}

#[test]
fn h2_a_stderr_that_fills_up_later_stops_nothing() {
    let (reader, writer) = io::pipe().unwrap();
    let mut running = init(true, LOUD).stderr(writer).args(subject(["trap"])).start().ready();
    // Some 100 lines fit in a page, and a pipe has 16.
    assert_forwards(&mut running, 1500);
    let text = read_all_there_is(&reader);
    assert!(text.lines().all(|line| line.starts_with("sexton: ")), "whole lines only");
    running.kill(TERM);
    assert_eq!(running.code(), 0);
}

/// Pitfall 6: a reader that is gone neither ends the command by SIGPIPE nor keeps the init busy.
#[test]
fn pitfall_06_h2_a_broken_stderr_stops_nothing() {
    for is_pid1 in [true, false] {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut running = assert_goes_on(init(is_pid1, LOUD).stderr(writer).args(sh(TALK)).start().ready());
        running.kill(TERM);
        assert_eq!(running.code(), 0);
    }
    // SIGPIPE, SIGXFSZ and the like of its own log are not forwarded to a command that would die of them.
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let mut running = init(true, LOUD).stderr(writer).args(subject(["default"])).start().ready();
    for _ in 0..10 {
        running.kill(28);
    }
    running.kill(TERM);
    assert_eq!(running.code(), 128 + TERM);
}

#[test]
fn h2_a_closed_stderr_stops_nothing() {
    for is_pid1 in [true, false] {
        let mut running = assert_goes_on(init(is_pid1, LOUD).closing(2).args(sh(TALK)).start().ready());
        running.kill(TERM);
        assert_eq!(running.code(), 0);
    }
}

#[test]
fn h2_a_full_disk_or_socket_stops_nothing() {
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let big = [b'x'; 4096];
    // SAFETY: the buffer is live and of this size.
    while unsafe { libc::send(theirs.as_raw_fd(), big.as_ptr().cast(), big.len(), libc::MSG_DONTWAIT) } > 0 {}
    for stderr in [OwnedFd::from(full), OwnedFd::from(theirs)] {
        let mut running = assert_goes_on(init(true, LOUD).stderr(stderr).args(sh(TALK)).start().ready());
        running.kill(TERM);
        assert_eq!(running.code(), 0);
    }
    drop(ours);
}

#[test]
fn h2_a_file_that_may_not_grow_stops_nothing() {
    let path = folder("file-size").join("log");
    let file = fs::File::create(&path).unwrap();
    let running = init(true, LOUD).stderr(file).args(sh(TALK)).start().ready();
    limit(running.pid, libc::RLIMIT_FSIZE, 0);
    let mut running = assert_goes_on(running);
    running.kill(TERM);
    assert_eq!(running.code(), 0);
}

fn limit(pid: i32, resource: libc::__rlimit_resource_t, value: u64) {
    let new = libc::rlimit { rlim_cur: value, rlim_max: value };
    // SAFETY: the new limit is live and only read; the old one is not asked for.
    let result = unsafe { libc::prlimit(pid, resource, &raw const new, std::ptr::null_mut()) };
    assert_eq!(result, 0, "prlimit: {}", io::Error::last_os_error());
}

/// What a running process can lose.
fn take_all(pid: i32, files: u64) {
    for (resource, value) in [
        (libc::RLIMIT_AS, 0),
        (libc::RLIMIT_DATA, 0),
        (libc::RLIMIT_NPROC, 0),
        (libc::RLIMIT_FSIZE, 0),
        (libc::RLIMIT_MEMLOCK, 0),
        (libc::RLIMIT_SIGPENDING, 0),
        (libc::RLIMIT_NOFILE, files),
    ] {
        limit(pid, resource, value);
    }
}

/// Under these options, with so many descriptors at the most: an init lives long, and its machine may be in trouble.
fn assert_lives_without(options: &[&str], files: u64) {
    for is_pid1 in [true, false] {
        let running = init(is_pid1, options).args(sh(TALK)).start().ready();
        wait_for("the init to wait", || (stat(running.pid)?.0 == 'S').then_some(()));
        take_all(running.pid, files);
        let mut running = assert_goes_on(running);
        running.kill(TERM);
        assert_eq!(running.code(), 0, "{options:?}");
    }
}

#[test]
fn h3_forwards_and_reaps_without_memory_or_processes() {
    for options in [&[][..], &["-g"], &["-w"], LOUD] {
        assert_lives_without(options, 3);
    }
}

/// poll(2) refuses a set that is larger than RLIMIT_NOFILE.
#[test]
fn h3_forwards_and_reaps_with_no_descriptor_allowed() {
    for options in [&[][..], &["-g"], &["-w"], LOUD] {
        for files in [1, 0] {
            assert_lives_without(options, files);
        }
    }
}

/// Also the last act, on a machine with thousands of processes (zombies cost it least), does not depend on memory.
#[test]
fn h3_stops_leftovers_without_memory() {
    let script = "$LAB subject zombie --count 4000 & read line
        $LAB subject stubborn --after 50 --say finished --left-behind; read line; exit 7";
    for is_pid1 in [true, false] {
        for options in [&["--grace", "25s"][..], &["--grace", "25s", "-w"]] {
            let (reader, mut writer) = io::pipe().unwrap();
            let mut running = init(is_pid1, options).stdin(reader).args(sh(script)).start().ready();
            writer.write_all(b"\n").unwrap();
            running = running.ready();
            take_all(running.pid, 64);
            drop(writer);
            let line = running.try_line(SOON);
            let output = running.finish();
            let seen = (line.as_deref(), output.code);
            assert_eq!(seen, (Some("finished"), 7), "{options:?}, PID 1: {is_pid1}: {}", output.stderr);
        }
    }
}

/// What sexton itself needs it takes before the command runs: too few descriptors are an error then, or none at all.
#[test]
fn h3_too_few_descriptors_end_sexton_before_the_command_or_never() {
    for is_pid1 in [true, false] {
        for files in 3..9 {
            let init = init(is_pid1, &[]).args(subject(["orphan", "--count", "1", "--code", "3"]));
            let output = init.prepare(move || {
                limit(0, libc::RLIMIT_NOFILE, files);
                Ok(())
            });
            let output = output.run();
            match output.code {
                3 => assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("ready\ndone\n", ""), "{files}"),
                code => {
                    assert_eq!((code, output.stdout.as_str()), (125, ""), "{files}: {}", output.stderr);
                    common::assert_one_line(&output.stderr);
                }
            }
        }
    }
}

#[test]
fn h3_an_ordinary_user_at_the_limit_of_processes() {
    let folder = folder("nproc");
    let (sexton, lab) = copies(&folder);
    let script = format!("{0} subject orphan --count 50; exec {0} subject trap", lab.display());
    let running = at(&sexton, &lab, &["-v"]).args(sh(&script)).prepare(|| become_user(54_321)).start().ready();
    // Who may limit it: the user itself.
    let pid = running.pid;
    let mut limiting = Command::new(&lab);
    limiting.args(["subject", "exit"]).uid(54_321).gid(54_321);
    let limit_it = move || {
        limit(pid, libc::RLIMIT_NPROC, 1);
        Ok(())
    };
    // SAFETY: between fork and exec one system call is made.
    unsafe { limiting.pre_exec(limit_it) };
    assert!(limiting.status().unwrap().success());
    let mut running = assert_goes_on(running);
    running.kill(TERM);
    assert_eq!(running.code(), 0);
    assert!(zombies_of(running.pid).is_empty());
}

fn become_user(id: u32) -> io::Result<()> {
    // SAFETY: passes integers and a null pointer with a count of 0.
    let groups = unsafe { libc::setgroups(0, std::ptr::null()) };
    // SAFETY: passes integers only.
    let group = unsafe { libc::setresgid(id, id, id) };
    // SAFETY: passes integers only.
    let user = unsafe { libc::setresuid(id, id, id) };
    if groups | group | user == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The programs where any user can run them.
fn copies(folder: &Path) -> (PathBuf, PathBuf) {
    let copy = |name: &str, from: PathBuf| write_program(&folder.join(name), &fs::read(from).unwrap(), 0o755);
    (copy("sexton", sexton()), copy("sexton-lab", lab()))
}

/// Sexton at another place, under the filter that SEXTON_TEST_DENY asks for.
fn at(sexton: &Path, lab: &Path, options: &[&str]) -> Init {
    let init = match std::env::var_os("SEXTON_TEST_DENY") {
        None => Init::exactly(sexton),
        Some(errno) => {
            let words = ["deny".into(), "--errno".into(), errno, "--".into(), sexton.as_os_str().to_owned()];
            Init::exactly(lab).args(words)
        }
    };
    init.args(options.to_vec())
}

fn is_static(program: &Path) -> bool {
    // The program header that names a loader (PT_INTERP) names it in the file's first page.
    let head = fs::read(program).unwrap();
    !head[..head.len().min(4096)].windows(8).any(|bytes| bytes == b"/ld-linu" || bytes == b"/ld-musl")
}

/// All of an init's work, where only the subjects are to be had.
#[track_caller]
fn assert_full_service(init: impl Fn(&[&str]) -> Init, lab: &str) {
    let mut running = init(LOUD).args([lab, "subject", "trap"]).start().ready();
    assert_forwards(&mut running, 3);
    running.kill(TERM);
    assert_eq!(running.code(), 0);
    let output = init(&[]).args([lab, "subject", "orphan", "--count", "100", "--code", "9"]).run();
    assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (9, "ready\ndone\n", ""));
    for gear in [&[][..], &["-w"]] {
        let mut running = init(gear).args([lab, "subject", "orphan", "--count", "100", "--stay"]).start().ready();
        assert_eq!(running.line(), "done");
        wait_for("all orphans to be reaped", || (children(running.pid).len() == 1).then_some(()));
        running.kill(USR1);
        assert_eq!(running.code(), 128 + USR1);
    }
    assert_eq!(init(&[]).args(["/nowhere"]).run().code, 127);
}

fn assert_leftovers_finish(init: &dyn Fn(&[&str]) -> Init, lab: &str) {
    let words = [lab, "subject", "stubborn", "--after", "100", "--say", "finished", "--left-behind"];
    let output = init(&[]).args(words).run();
    assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (0, "ready\nfinished\n", ""));
}

#[test]
fn h4_without_proc() {
    let lab = lab().into_os_string().into_string().unwrap();
    let as_pid1 = |options: &[&str]| init(true, options).prepare(without_proc);
    assert_full_service(as_pid1, &lab);
    assert_leftovers_finish(&as_pid1, &lab);
    // Not PID 1 it cannot know its descendants: it says so, and gives up after its time.
    let ordinary = |options: &[&str]| init(false, options).prepare(|| own_mounts().and_then(|()| without_proc()));
    assert_full_service(ordinary, &lab);
    let (reader, writer) = io::pipe().unwrap();
    let script = "$LAB subject daemonize -- /bin/sh -c 'read line'; exit 3";
    let output = ordinary(&["-v", "--grace", "100ms"]).stdin(reader).args(sh(script)).run_until_end(writer);
    assert_eq!(output.0, 3);
    assert!(output.1.contains("no /proc"), "{}", output.1);
}

trait RunUntilEnd {
    fn run_until_end(self, held: PipeWriter) -> (i32, String);
}

impl RunUntilEnd for Init {
    /// Its end comes while `held` is still open.
    fn run_until_end(self, held: PipeWriter) -> (i32, String) {
        let mut running = self.start();
        let code = running.code();
        drop(held);
        (code, running.finish().stderr)
    }
}

fn own_mounts() -> io::Result<()> {
    // SAFETY: passes integers only.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        return Err(io::Error::last_os_error());
    }
    mount(None, c"/", libc::MS_REC | libc::MS_PRIVATE)
}

fn mount(from: Option<&std::ffi::CStr>, to: &std::ffi::CStr, flags: u64) -> io::Result<()> {
    let from = from.map_or(std::ptr::null(), std::ffi::CStr::as_ptr);
    // SAFETY: the paths are C strings or null, as the flags want it.
    let result = unsafe { libc::mount(from, to.as_ptr(), std::ptr::null(), flags, std::ptr::null()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `FROM scratch`: nothing but the two programs, read-only, no /proc, no /dev, and an ordinary user.
#[test]
fn h4_in_an_empty_read_only_image_as_any_user() {
    if !is_static(&sexton()) || !is_static(&lab()) {
        eprintln!("skipped: the programs are not static");
        return;
    }
    let folder = folder("scratch");
    copies(&folder);
    let root = CString::new(folder.as_os_str().as_bytes()).unwrap();
    for user in [0, 65_534, 1_234_567] {
        for is_pid1 in [true, false] {
            let scratch = |options: &[&str]| {
                let root = root.clone();
                let init = at(Path::new("/sexton"), Path::new("/sexton-lab"), options).prepare(move || {
                    if !is_pid1 {
                        own_mounts()?;
                    }
                    mount(Some(&root), &root, libc::MS_BIND)?;
                    mount(None, &root, libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY)?;
                    // SAFETY: the path is a C string.
                    if unsafe { libc::chroot(root.as_ptr()) } != 0 {
                        return Err(io::Error::last_os_error());
                    }
                    // SAFETY: as above.
                    unsafe { libc::chdir(c"/".as_ptr()) };
                    become_user(user)
                });
                if is_pid1 { init } else { init.not_pid1() }
            };
            assert_full_service(scratch, "/sexton-lab");
            if is_pid1 {
                assert_leftovers_finish(&scratch, "/sexton-lab");
            }
        }
    }
}

#[test]
fn h4_where_newer_calls_are_refused_it_falls_back_and_says_so() {
    for errno in ["ENOSYS", "EPERM"] {
        let lab = lab().into_os_string().into_string().unwrap();
        let denied = |options: &[&str]| Init::denied(errno, options);
        assert_full_service(denied, &lab);
        assert_leftovers_finish(&denied, &lab);
        let output = denied(&["-v"]).args(subject(["orphan", "--count", "3"])).run();
        assert!(output.stderr.contains("gear 2"), "{}", output.stderr);
        let output = denied(&[]).args(subject(["orphan", "--count", "3"])).run();
        assert_eq!(output.stderr, "");
    }
}

/// Pitfall 17.
#[test]
fn pitfall_17_h5_listen_pid_is_rewritten_if_it_names_sexton() {
    let show = "echo $$ $LISTEN_PID $LISTEN_FDS $NOTIFY_SOCKET";
    let started = |init: Init, pid: &str| {
        init.env("LISTEN_PID", pid).env("LISTEN_FDS", "2").env("NOTIFY_SOCKET", "@n").args(sh(show)).run().stdout
    };
    assert_eq!(started(init(true, &[]), "1"), "2 2 2 @n\n");
    for other in ["77", "2", "11", "01", "", "x"] {
        let expected = format!("2 {other} 2 @n\n").replace("  ", " ");
        assert_eq!(started(init(true, &[]), other), expected);
    }
    let output = init(false, &[]).env("LISTEN_PID", "1").args(sh(show)).run();
    assert!(output.stdout.trim_end().ends_with(" 1"), "{output:?}");
    let script = format!("LISTEN_PID=$$ LISTEN_FDS=1 exec $SEXTON $OPTIONS -- /bin/sh -c '{show}'");
    for (is_pid1, options) in [(true, ""), (false, ""), (false, "--unshare pid,mount")] {
        let shell = Init::program("/bin/sh", &["-c", &script]).env("SEXTON", sexton()).env("OPTIONS", options);
        let output = if is_pid1 { shell } else { shell.not_pid1() }.run();
        let words: Vec<_> = output.stdout.split_whitespace().collect();
        assert_eq!((words[0], words[2]), (words[1], "1"), "{options:?}: {output:?}");
    }
}

/// SEXTON_OPTS and LISTEN_PID go their ways; all other variables are the command's, in their order.
#[test]
fn h5_h6_the_environment_is_otherwise_the_same() {
    let words = ["-c", "exec $LAB subject status"];
    let environment = |init: Init| {
        let init = init.env("LAB", lab()).env("LISTEN_PIDS", "1").env("SEXTON_OPTSX", "x").env("SEXTON_OPT", "y");
        let text = init.args(["/bin/sh"]).args(words).run().stdout;
        let from = text.find("\"env\":[").unwrap_or_else(|| panic!("{text}"));
        text[from..].split(",\"blocked\"").next().unwrap().to_owned()
    };
    let bare = environment(Init::exactly("/usr/bin/env").not_pid1());
    assert_eq!(environment(Init::new(&[])), bare);
    assert_eq!(environment(Init::new(&[]).env("SEXTON_OPTS", "-q --grace '1s'")), bare);
}

#[test]
fn h6_options_from_the_environment() {
    let run = |name: &str, options: &[&str], variable: &str, script: &str| {
        Init::named(name, options).env("SEXTON_OPTS", variable).args(["--"]).args(sh(script)).run()
    };
    for name in ["sexton", "docker-init", "dumb-init", "catatonit"] {
        assert_eq!(run(name, &[], "-e 7:70", "exit 7").code, 70, "{name}");
        assert_eq!(run(name, &[], "  -e\t7:1 '-e' \"8:2\" -\\e 9:3 ", "exit 9").code, 3, "{name}");
        assert_eq!(run(name, &[], "", "exit 9").code, 9, "{name}");
        let output = run(name, &[], "-e 3", "echo \"${SEXTON_OPTS-unset}\"; exit 3");
        assert_eq!((output.code, output.stdout.as_str()), (0, "unset\n"), "{name}");
    }
    // The command line comes later, and so it wins.
    assert_eq!(run("sexton", &["-e", "7:2"], "-e 7:1", "exit 7").code, 2);
    assert_eq!(run("sexton", &["-e", "8:2"], "-e 7:1", "exit 7").code, 1);
    let bad = run("sexton", &[], "-e 256", "exit 7");
    assert_eq!(bad.code, 125);
    common::assert_one_line(&bad.stderr);
}

/// Pitfall 9: what comes behind the command's name is the command's.
#[test]
fn pitfall_09_h7_options_end_at_the_command() {
    let script = |words: &[&str]| {
        Init::new(&[]).args(words.to_vec()).args(sh("echo \"$0\" \"$@\"")).args(["a", "-h", "--version", "--"]).run()
    };
    for words in [&[][..], &["--"], &["-v", "--"], &["-e", "1", "-g"]] {
        let output = script(words);
        assert_eq!((output.code, output.stdout.as_str()), (0, "a -h --version --\n"), "{words:?}");
    }
    for name in ["sexton", "tini", "catatonit", "dumb-init"] {
        let output = Init::named(name, &["ls", "-h", "-d", "/"]).run();
        assert_eq!((output.code, output.stdout.as_str()), (0, "/\n"), "{name}");
    }
    // A command may be called like an option, or like nothing.
    assert_eq!(Init::new(&["--", "-h"]).run().code, 127);
    assert_eq!(Init::new(&["-"]).run().code, 127);
}

#[test]
fn h7_arguments_are_bytes() {
    let bytes = b"\xff\xfe \xc3(\n\x01".to_vec();
    let folder = folder("bytes");
    let program = folder.join(OsString::from_vec(bytes.clone()));
    write_program(&program, b"#!/bin/sh\n[ \"$1\" = \"$X\" ] && exit 42\n", 0o755);
    for options in [&[][..], &["-v", "-w"], &["--unshare", "pid,mount"]] {
        let init = Init::new(options).args([program.clone()]).args([OsString::from_vec(bytes.clone())]);
        let output = init.env("X", OsString::from_vec(bytes.clone())).run();
        assert_eq!(output.code, 42, "{output:?}");
    }
    // In the path, too; and a refusal shows it in one line.
    let output = Init::new(&[]).args([program.file_name().unwrap()]).args([&OsString::from_vec(bytes.clone())]);
    let output = output.env("PATH", folder.as_os_str()).env("X", OsString::from_vec(bytes.clone())).run();
    assert_eq!(output.code, 42, "{output:?}");
    let output = Init::new(&[]).args([folder.join("no").join(program.file_name().unwrap())]).run();
    assert_eq!(output.code, 127);
    common::assert_one_line(&output.stderr);
    let output = Init::new(&["--grace"]).args([OsString::from_vec(bytes)]).args(["true"]).run();
    assert_eq!(output.code, 125);
    common::assert_one_line(&output.stderr);
}
