//! Everything that can go wrong before the command runs: one line, the right exit code, nothing left behind.

#![allow(clippy::multiple_unsafe_ops_per_block)]

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use common::{Init, Output, assert_refused_with, folder, has, lab, sh, write_program};

fn run(path: &Path) -> Output {
    Init::new(&[]).args([path]).run()
}

#[test]
fn x3_usage_errors_are_125_and_say_what_to_do() {
    assert_refused_with(&Init::new(&[]).run(), 125, &["no command", "COMMAND"]);
    assert_refused_with(&Init::new(&["--"]).run(), 125, &["no command"]);
    assert_refused_with(&Init::new(&["--grase", "1", "true"]).run(), 125, &["--grase", "did you mean --grace?"]);
    assert_refused_with(&Init::new(&["-Z", "true"]).run(), 125, &["-Z", "--help"]);
    assert_refused_with(&Init::new(&["--group=yes", "true"]).run(), 125, &["--group"]);
    assert_refused_with(&Init::new(&["--grace"]).run(), 125, &["--grace", "needs a value"]);
    assert_refused_with(&Init::new(&["--pause", "true"]).run(), 125, &["--pause"]);
}

#[test]
fn x3_a_bad_value_of_each_option_is_refused() {
    for (option, value, word) in [
        ("--rewrite", "TERM", "FROM:TO"),
        ("--rewrite", "TERM:NOPE", "NOPE"),
        ("--rewrite", "KILL:TERM", "SIGKILL"),
        ("--parent-death", "NOPE", "NOPE"),
        ("--grace", "5x", "5x"),
        ("--kill-after", "-1", "-1"),
        ("--stop-delay", "soon", "soon"),
        ("--exit-code", "256", "256"),
        ("--exit-code", "1:x", "x"),
        ("--unshare", "moon", "moon"),
    ] {
        let output = Init::new(&[&format!("{option}={value}"), "true"]).run();
        assert_refused_with(&output, 125, &[option, word]);
    }
}

#[test]
fn h6_bad_options_in_the_environment_say_where_they_came_from() {
    for options in ["--nope", "'", "true", "--grace x", "-P -- true"] {
        let output = Init::new(&["true"]).env("SEXTON_OPTS", options).run();
        assert_refused_with(&output, 125, &["SEXTON_OPTS: "]);
    }
}

#[test]
fn x5_a_missing_command_names_the_path_that_was_searched() {
    let output = Init::new(&["no-such-command"]).env("PATH", "/usr/bin:/nowhere").run();
    assert_refused_with(&output, 127, &["execve(\"no-such-command\")", "ENOENT", "PATH", "/usr/bin:/nowhere"]);
    assert_refused_with(&Init::new(&["/nowhere/x"]).run(), 127, &["ENOENT", "nor the folder /nowhere"]);
    assert_refused_with(&Init::new(&["/etc/no-such"]).run(), 127, &["ENOENT", "no such file"]);
    assert_refused_with(&Init::new(&["/proc/version/x"]).run(), 127, &["ENOTDIR"]);
    assert_refused_with(&Init::new(&[""]).run(), 127, &["empty"]);
    let folder = folder("dangling");
    symlink("/nowhere/at/all", folder.join("link")).unwrap();
    assert_refused_with(&run(&folder.join("link")), 127, &["symbolic link", "/nowhere/at/all"]);
}

#[test]
fn x5_what_is_not_executable_is_126() {
    let folder = folder("refused");
    assert_refused_with(
        &run(&write_program(&folder.join("plain"), b"#!/bin/sh\n", 0o644)),
        126,
        &["EACCES", "chmod +x"],
    );
    assert_refused_with(&run(&folder), 126, &["EACCES", "is a directory"]);
    assert_refused_with(&run(&write_program(&folder.join("empty"), b"", 0o755)), 126, &["ENOEXEC", "empty"]);
    assert_refused_with(
        &run(&write_program(&folder.join("junk"), b"ab\0\x01\x02cd", 0o755)),
        126,
        &["ENOEXEC", "no program"],
    );
}

#[test]
fn x5_a_missing_interpreter_is_named() {
    let folder = folder("interpreter");
    let script = write_program(&folder.join("script"), b"#!/nowhere/perl -w\n", 0o755);
    assert_refused_with(&run(&script), 126, &["is there", "/nowhere/perl", "missing"]);
    let script = write_program(&folder.join("dos"), b"#!/bin/sh\r\necho\r\n", 0o755);
    assert_refused_with(&run(&script), 126, &["carriage return"]);
    let script = write_program(&folder.join("blocked"), b"#!/proc/version\n", 0o755);
    assert_refused_with(&run(&script), 126, &["/proc/version", "not executable"]);
}

/// The lab's own program, with some bytes of its ELF header changed.
fn changed_elf(name: &str, change: impl Fn(&mut Vec<u8>)) -> PathBuf {
    let mut bytes = fs::read(lab()).unwrap();
    change(&mut bytes);
    write_program(&folder(name).join("program"), &bytes, 0o755)
}

#[test]
fn x5_a_program_for_another_machine_is_named() {
    let arm = changed_elf("foreign", |bytes| bytes[18..20].copy_from_slice(&183_u16.to_le_bytes()));
    assert_refused_with(&run(&arm), 126, &["ENOEXEC", "aarch64", std::env::consts::ARCH]);
}

#[test]
fn x5_a_missing_elf_loader_is_named() {
    // Any program header will do: it is made to ask for a loader that is not there.
    let program = changed_elf("loader", |bytes| {
        let table = usize::try_from(u64::from_le_bytes(bytes[32..40].try_into().unwrap())).unwrap();
        let name = b"/lib/ld-nowhere.so.9\0";
        let at = bytes.len() as u64;
        let mut entry = [0; 56];
        entry[0] = 3;
        entry[8..16].copy_from_slice(&at.to_le_bytes());
        entry[32..40].copy_from_slice(&(name.len() as u64).to_le_bytes());
        // The last header of the table is never a PT_LOAD.
        let last = table + 56 * (usize::from(bytes[56]) - 1);
        bytes[last..last + 56].copy_from_slice(&entry);
        bytes.extend_from_slice(name);
    });
    assert_refused_with(&run(&program), 126, &["is there", "/lib/ld-nowhere.so.9", "missing"]);
}

#[test]
fn x5_a_noexec_mount_is_named() {
    let folder = folder("noexec");
    let path = std::ffi::CString::new(folder.to_str().unwrap()).unwrap();
    let program = folder.join("program");
    let copy = program.clone();
    let content = fs::read(lab()).unwrap();
    let output = Init::new(&[])
        .args([&program])
        .prepare(move || {
            // SAFETY: the strings live as long as the closure. The mount is in the init's own mount namespace.
            let result = unsafe {
                libc::mount(c"tmpfs".as_ptr(), path.as_ptr(), c"tmpfs".as_ptr(), libc::MS_NOEXEC, std::ptr::null())
            };
            if result != 0 {
                return Err(std::io::Error::last_os_error());
            }
            fs::write(&copy, &content)?;
            fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))
        })
        .run();
    assert_refused_with(&output, 126, &["EACCES", "noexec"]);
}

/// Pitfall 16: junk is not run by the shell, and text without `#!` is.
#[test]
fn x5_text_without_an_interpreter_line_is_run_by_the_shell() {
    let script = write_program(&folder("text").join("script"), b"echo $1 $#; exit 5\n", 0o755);
    let output = Init::new(&[]).args([script.as_os_str(), "a b".as_ref(), "c".as_ref()]).run();
    assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (5, "a b 2\n", ""));
}

#[test]
fn x5_path_is_searched_to_its_end() {
    let base = folder("path");
    let (refused, good) = (base.join("refused"), base.join("good"));
    fs::create_dir(&refused).unwrap();
    fs::create_dir(&good).unwrap();
    write_program(&refused.join("tool"), b"#!/bin/sh\nexit 1\n", 0o644);
    let both = format!("{}:{}", refused.display(), good.display());
    assert_refused_with(&Init::new(&["tool"]).env("PATH", &both).run(), 126, &["EACCES", "chmod +x"]);
    write_program(&good.join("tool"), b"#!/bin/sh\nexit 6\n", 0o755);
    assert_eq!(Init::new(&["tool"]).env("PATH", &both).run().code, 6);
    // An empty part is the working directory, which is the command's, not sexton's later one.
    let inside = good.clone();
    let here = Init::new(&["tool"]).env("PATH", "").prepare(move || std::env::set_current_dir(&inside));
    assert_eq!(here.run().code, 6);
}

#[test]
fn x3_no_process_to_be_had_is_125() {
    if !has("/bin/sh") {
        return;
    }
    let limited = |program: Init| {
        program.not_pid1().prepare(|| {
            // Another user's limit, so that this user's other processes do not count.
            let limit = libc::rlimit { rlim_cur: 1, rlim_max: 1 };
            // SAFETY: the limit is live; the rest passes integers.
            let failed = unsafe {
                libc::setrlimit(libc::RLIMIT_NPROC, &raw const limit) != 0
                    || libc::setgid(61_234) != 0
                    || libc::setuid(61_234) != 0
            };
            if failed { Err(std::io::Error::last_os_error()) } else { Ok(()) }
        })
    };
    // Programs of root's own folders may not be reachable for that user.
    let folder = folder("limit");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    let program = folder.join("sexton");
    write_program(&program, &fs::read(common::sexton()).unwrap(), 0o755);
    let copy = folder.join("lab");
    write_program(&copy, &fs::read(lab()).unwrap(), 0o755);
    let mut words = vec![];
    if let Ok(errno) = std::env::var("SEXTON_TEST_DENY") {
        words.extend(["deny".into(), "--errno".into(), errno, "--".into(), program.to_string_lossy().into_owned()]);
    }
    let first = if words.is_empty() { &program } else { &copy };
    let output = limited(Init::exactly(first).args(words).args(["/bin/true"])).run();
    assert_refused_with(&output, 125, &["clone", "EAGAIN", "pids limit"]);
}

#[test]
fn h2_an_error_with_no_stderr_still_has_its_code() {
    assert_eq!(Init::new(&["/nowhere"]).closing(2).run().code, 127);
    let (_reader, writer) = std::io::pipe().unwrap();
    let full = fill(writer);
    let mut init = Init::new(&["/nowhere"]).stderr(full).start();
    assert_eq!(init.code(), 127);
}

/// A pipe's end that takes no more.
fn fill(writer: std::io::PipeWriter) -> std::io::PipeWriter {
    use std::os::fd::AsRawFd;
    let fd = writer.as_raw_fd();
    // SAFETY: the descriptor is open, the buffer live.
    unsafe {
        libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK);
        while libc::write(fd, [0_u8; 4096].as_ptr().cast(), 4096) > 0 {}
        while libc::write(fd, [0_u8; 1].as_ptr().cast(), 1) > 0 {}
        libc::fcntl(fd, libc::F_SETFL, 0);
    }
    writer
}

#[test]
fn x4_a_failed_start_leaves_nothing() {
    let output = Init::new(&["/nowhere"]).not_pid1().run();
    assert_eq!(output.code, 127);
    // A shell that starts it as a child sees no more children of its own afterwards.
    let script = format!("{} /nowhere 2>/dev/null; cat /proc/$$/task/$$/children", common::sexton().display());
    let output = Init::new(&[]).args(sh(&script)).run();
    assert_eq!(output.stdout.split_whitespace().count(), 1, "only cat itself: {:?}", output.stdout);
}
