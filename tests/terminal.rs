//! Clauses Y: the terminal.

mod common;
#[path = "common/pty.rs"]
mod pty;

use std::ffi::CString;
use std::fs;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;

use common::{Init, Running, children, has, lab, sexton, sh, stat, status_field, subject, wait_for};
use pty::{Pty, lead_session, leave_foreground, take_terminal};

const BASH: &str = "/bin/bash";

const USR1: i32 = 10;
const USR2: i32 = 12;
const TERM: i32 = 15;
const CONT: i32 = 18;

const CTRL_C: &str = "\x03";
const CTRL_D: &str = "\x04";
const CTRL_Z: &str = "\x1a";
const CTRL_BACKSLASH: &str = "\x1c";

/// Sexton as PID 1 or not; scripts find the subjects as `$LAB subject`.
fn init(is_pid1: bool, options: &[&str]) -> Init {
    let init = Init::new(options).env("LAB", lab());
    if is_pid1 { init } else { init.not_pid1() }
}

/// A number that `subject status` has printed.
#[track_caller]
fn number(status: &str, name: &str) -> i32 {
    let from = status.find(&format!("\"{name}\":")).unwrap_or_else(|| panic!("no {name} in {status}"));
    let rest = &status[from + name.len() + 3..];
    rest.split([',', '}']).next().unwrap().parse().unwrap()
}

/// The process group of a process, as we see it.
fn group(pid: i32) -> i32 {
    // SAFETY: passes an integer only.
    unsafe { libc::getpgid(pid) }
}

fn kill(pid: i32, signal: i32) {
    // SAFETY: passes integers only.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "kill({pid}, {signal})");
}

#[track_caller]
fn wait_for_state(pid: i32, letters: &str) {
    wait_for(&format!("process {pid} to be {letters}"), || stat(pid).filter(|(state, _)| letters.contains(*state)));
}

/// The next lines of `trap` are these in any order (signals have none), each once, and nothing else comes.
#[track_caller]
fn assert_only(running: &mut Running, expected: &[&str]) {
    let mut names: Vec<_> =
        expected.iter().map(|_| running.line().split(' ').next().unwrap_or("").to_owned()).collect();
    names.sort();
    assert_eq!(names, expected);
    // What came twice would have come by the time that both of these have made the whole way.
    for (signal, name) in [(USR1, "SIGUSR1 "), (USR2, "SIGUSR2 ")] {
        running.kill(signal);
        let line = running.line();
        assert!(line.starts_with(name), "{line} instead of {name}after {expected:?}");
    }
}

#[test]
fn y1_the_command_has_a_group_of_its_own_in_the_foreground() {
    for options in [&[][..], &["-g"], &["--unshare", "pid,mount"]] {
        for is_pid1 in [true, false] {
            let pty = Pty::open();
            let output = pty.stdin_of(init(is_pid1, options)).args(subject(["status"])).run();
            let fact = |name| number(&output.stdout, name);
            assert_eq!((output.code, output.stderr.as_str()), (0, ""));
            assert_eq!((fact("pgid"), fact("foreground")), (fact("pid"), fact("pid")), "{options:?} {}", output.stdout);
            assert_ne!(fact("sid"), fact("pid"));
        }
    }
}

/// Any of the three may be the terminal, or /dev/tty alone.
#[test]
fn y1_the_terminal_is_found_wherever_it_is() {
    for is_pid1 in [true, false] {
        for place in 0..4 {
            let mut pty = Pty::open();
            let (reader, mut writer) = io::pipe().unwrap();
            let mut init = init(is_pid1, &[]).args(sh("read line; exit 3"));
            init = match place {
                0 => init.stdin(pty.slave()),
                1 => init.stdout(pty.slave()).stdin(reader),
                2 => init.stderr(pty.slave()).stdin(reader),
                _ => init.stdin(reader),
            };
            let path = slave_path(&pty);
            let mut running = init.prepare(move || take_terminal(&path)).start();
            wait_for("the command in the foreground", || {
                let command = children(running.pid).first().copied()?;
                (group(command) == command && pty.foreground() == command).then_some(())
            });
            if place == 0 {
                pty.write("\n");
            } else {
                writer.write_all(b"\n").unwrap();
            }
            assert_eq!(running.code(), 3);
            pty.let_slave_go();
        }
    }
}

fn slave_path(pty: &Pty) -> CString {
    let slave = pty.slave();
    let path = fs::read_link(format!("/proc/self/fd/{}", slave.as_raw_fd())).unwrap();
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

#[test]
fn y1_what_is_not_ours_is_not_taken() {
    for is_pid1 in [true, false] {
        let pty = Pty::open();
        let init = init(is_pid1, &["--grace", "0"]).stdin(pty.slave());
        let init = init.prepare(|| lead_session(0).and_then(|()| leave_foreground(0)));
        let output = init.args(subject(["status"])).run();
        let fact = |name| number(&output.stdout, name);
        assert_eq!((output.code, fact("pgid")), (0, fact("pid")), "{output:?}");
        assert!(fact("foreground") > 0 && fact("foreground") != fact("pid"), "{output:?}");
        assert_ne!(fact("foreground"), fact("sid"), "the group of sexton itself");
    }
}

/// Starts it as `bash -i` on a terminal, and waits for the prompt.
fn bash(pty: &mut Pty, init: Init) -> Running {
    let init = init.env("PS1", "<>").env("TERM", "dumb").env("HISTFILE", "").env("LAB", lab());
    let running = pty.all_of(init.env("SEXTON", sexton_words())).start();
    pty.expect("<>");
    running
}

/// Sexton as a word of a shell's command line, behind what SEXTON_TEST_DENY asks for.
fn sexton_words() -> String {
    match std::env::var("SEXTON_TEST_DENY") {
        Ok(errno) => format!("{} deny --errno {errno} -- {}", lab().display(), sexton().display()),
        Err(_) => sexton().display().to_string(),
    }
}

const BASH_OPTIONS: [&str; 4] = [BASH, "--norc", "--noprofile", "-i"];

#[test]
fn y1_job_control_works_in_a_shell_under_it() {
    if !has(BASH) {
        return;
    }
    for options in [&[][..], &["-g"], &["--unshare", "pid,mount"]] {
        for is_pid1 in [true, false] {
            let mut pty = Pty::open();
            let mut running = bash(&mut pty, init(is_pid1, options).args(BASH_OPTIONS));
            pty.write("sh -c 'echo be''gun; read line; echo got-$line'\n");
            pty.expect("begun");
            pty.write(CTRL_Z);
            pty.expect("Stopped");
            pty.expect("<>");
            pty.write("echo x$((40+2))\n");
            pty.expect("x42");
            pty.write("fg\n");
            pty.expect("read line");
            pty.write("word\n");
            pty.expect("got-word");
            pty.expect("<>");
            pty.write("sleep 1000\n");
            wait_for("sleep in the foreground", || {
                status_field(pty.foreground(), "Name").filter(|name| name == "sleep")
            });
            pty.write(CTRL_C);
            pty.expect("<>");
            pty.write("echo code $?; exit 7\n");
            pty.expect("code 130");
            assert_eq!(running.code(), 7);
        }
    }
}

/// The init and its command, in a job of a shell.
fn job(shell: &Running) -> (i32, i32) {
    wait_for("the job", || {
        let init = *children(shell.pid).first()?;
        let command = *children(init).first()?;
        (group(command) == command).then_some((init, command))
    })
}

#[test]
fn y2_ctrl_z_stops_both_and_fg_continues_both() {
    if !has(BASH) {
        return;
    }
    let mut pty = Pty::open();
    let mut shell = bash(&mut pty, Init::exactly(BASH).args(&BASH_OPTIONS[1..]).not_pid1());
    pty.write("$SEXTON -- sh -c 'echo be''gun; while read line; do echo got-$line; done; exit 3'\n");
    pty.expect("begun");
    let (init, command) = job(&shell);
    for round in 0..5 {
        pty.write(CTRL_Z);
        pty.expect("Stopped");
        pty.expect("<>");
        wait_for_state(init, "T");
        wait_for_state(command, "T");
        pty.write("echo x$((40+2))\n");
        pty.expect("x42");
        pty.expect("<>");
        pty.write("fg\n");
        wait_for_state(init, "S");
        wait_for_state(command, "S");
        wait_for("the command in the foreground", || (pty.foreground() == command).then_some(()));
        pty.write(&format!("word{round}\n"));
        pty.expect(&format!("got-word{round}"));
    }
    pty.write(CTRL_D);
    pty.expect("<>");
    pty.write("echo code $?\n");
    pty.expect("code 3");
    pty.write("exit 4\n");
    assert_eq!(shell.code(), 4);
}

#[test]
fn y2_the_command_is_continued_once() {
    if !has(BASH) {
        return;
    }
    let mut pty = Pty::open();
    let mut shell = bash(&mut pty, Init::exactly(BASH).args(&BASH_OPTIONS[1..]).not_pid1());
    pty.write("$SEXTON -- $LAB subject trap\n");
    pty.expect("ready");
    for _ in 0..3 {
        pty.write(CTRL_Z);
        pty.expect("Stopped");
        pty.expect("<>");
        pty.write("fg\n");
        pty.expect("SIGCONT 18 ");
        pty.write(CTRL_C);
        let between = pty.expect("SIGINT 2 ");
        assert_eq!(between.matches("SIG").count(), 1, "{between}");
    }
    let (init, _) = job(&shell);
    kill(init, TERM);
    let between = pty.expect("SIGTERM 15 ");
    assert_eq!(between.matches("SIG").count(), 1, "{between}");
    pty.expect("<>");
    pty.write("exit\n");
    assert_eq!(shell.code(), 0);
}

/// In the background it runs on, without the terminal; brought to the foreground it can read.
#[test]
fn y2_in_the_background_it_goes_on_without_the_terminal() {
    if !has(BASH) {
        return;
    }
    let mut pty = Pty::open();
    let mut shell = bash(&mut pty, Init::exactly(BASH).args(&BASH_OPTIONS[1..]).not_pid1());
    pty.write("$SEXTON -- $LAB subject trap\n");
    pty.expect("ready");
    let (init, command) = job(&shell);
    pty.write(CTRL_Z);
    pty.expect("Stopped");
    pty.write("bg\n");
    pty.expect("SIGCONT 18 ");
    wait_for_state(init, "S");
    wait_for_state(command, "S");
    assert_eq!(pty.foreground(), shell.pid);
    kill(init, TERM);
    pty.expect("SIGTERM 15 ");
    pty.write("exit\n");
    pty.write("exit\n");
    assert_eq!(shell.code(), 0);
}

/// A shell without job control shares its group with sexton, and reads the terminal afterwards.
#[test]
fn y2_the_terminal_is_given_back_at_the_end() {
    for options in ["", "-g", "--unshare pid,mount"] {
        let mut pty = Pty::open();
        let script = format!("$SEXTON {options} -- $LAB subject exit 5; echo code $?; read line; echo got-$line");
        let shell = Init::exactly("/bin/sh").args(["-c", &script]).env("LAB", lab()).env("SEXTON", sexton_words());
        let mut running = pty.all_of(shell.not_pid1()).start();
        pty.expect("code 5");
        assert_eq!(pty.foreground(), running.pid, "{options:?}");
        pty.write("word\n");
        pty.expect("got-word");
        assert_eq!(running.code(), 0);
    }
}

#[test]
fn y2_as_pid1_the_command_stays_stopped() {
    let pty = Pty::open();
    let mut running = pty.stdin_of(init(true, &[])).args(subject(["trap"])).start().ready();
    let command = running.command();
    for _ in 0..3 {
        pty.write(CTRL_Z);
        wait_for_state(command, "T");
        wait_for_state(running.pid, "S");
        assert_eq!(pty.foreground(), command);
        running.kill(CONT);
        assert_only(&mut running, &["SIGCONT"]);
    }
    pty.write(CTRL_Z);
    wait_for_state(command, "T");
    running.kill(TERM);
    running.kill(CONT);
    assert_eq!(running.code(), 0);
}

/// Pitfall 7: whatever of the standard descriptors is closed, and whatever is no terminal.
#[test]
fn pitfall_07_y3_nothing_needs_a_terminal() {
    for is_pid1 in [true, false] {
        for closed in [&[0][..], &[1], &[2], &[0, 1], &[0, 2], &[0, 1, 2]] {
            for options in [&[][..], &["-v", "-w"], &["--unshare", "pid,mount"]] {
                let init = init(is_pid1, options).args(subject(["exit", "7"]));
                let output = closed.iter().fold(init, |init, fd| init.closing(*fd)).run();
                assert_eq!(output.code, 7, "{closed:?} {options:?}");
                let lines = output
                    .stderr
                    .lines()
                    .all(|line| ["the command exited", "gear", "no pidfd"].iter().any(|part| line.contains(part)));
                assert!(lines && (options == ["-v", "-w"] || output.stderr.is_empty()), "{}", output.stderr);
            }
        }
        let alone = init(is_pid1, &[]).args(subject(["exit", "7"])).prepare(|| {
            // SAFETY: no arguments.
            unsafe { libc::setsid() };
            Ok(())
        });
        let output = alone.run();
        assert_eq!((output.code, output.stderr.as_str()), (7, ""));
    }
    for name in ["tini", "dumb-init", "catatonit"] {
        let output = Init::named(name, &["--"]).args(subject(["exit", "7"])).closing(0).closing(1).run();
        assert_eq!((output.code, output.stderr.as_str()), (7, ""), "{name}");
    }
}

/// A terminal that is not our controlling terminal is none of ours; nor is one that hung up before.
#[test]
fn y3_a_terminal_of_others_or_one_that_is_gone() {
    for is_pid1 in [true, false] {
        let pty = Pty::open();
        let output = init(is_pid1, &[]).stdin(pty.slave()).args(subject(["exit", "7"])).run();
        assert_eq!((output.code, output.stderr.as_str()), (7, ""));
        let mut pty = Pty::open();
        let init = init(is_pid1, &[]).stdin(pty.slave()).args(subject(["exit", "7"]));
        pty.hang_up();
        let output = init.run();
        assert_eq!((output.code, output.stderr.as_str()), (7, ""));
    }
}

#[test]
fn y4_keys_and_window_sizes_reach_the_command_once() {
    for options in [&[][..], &["-g"], &["--unshare", "pid,mount"]] {
        for is_pid1 in [true, false] {
            let pty = Pty::open();
            assert_keys(&pty, pty.stdin_of(init(is_pid1, options)));
        }
    }
}

#[track_caller]
fn assert_keys(pty: &Pty, init: Init) {
    let mut running = init.args(subject(["trap"])).start().ready();
    for round in 0..3 {
        pty.write(CTRL_C);
        assert_only(&mut running, &["SIGINT"]);
        pty.write(CTRL_BACKSLASH);
        assert_only(&mut running, &["SIGQUIT"]);
        pty.resize(30 + round, 100);
        assert_only(&mut running, &["SIGWINCH"]);
    }
    running.kill(TERM);
    assert_eq!(running.code(), 0);
}

/// Where the terminal cannot be handed over the keys reach sexton, which forwards them.
#[test]
fn y4_keys_reach_the_command_once_without_dev_tty() {
    let pty = Pty::open();
    let path = slave_path(&pty);
    let init = init(true, &[]).prepare(move || {
        take_terminal(&path)?;
        // SAFETY: the paths are C strings; the mount namespace is the init's own.
        let result = unsafe { libc::mount(c"none".as_ptr(), c"/dev".as_ptr(), c"tmpfs".as_ptr(), 0, std::ptr::null()) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    });
    assert_keys(&pty, init);
}

#[test]
fn y4_keys_reach_the_command_once_through_dev_tty() {
    for is_pid1 in [true, false] {
        let pty = Pty::open();
        let path = slave_path(&pty);
        assert_keys(&pty, init(is_pid1, &[]).prepare(move || take_terminal(&path)));
    }
}

#[test]
fn y4_a_hang_up_reaches_the_command_once() {
    for options in [&[][..], &["-g"], &["--unshare", "pid,mount"]] {
        for is_pid1 in [true, false] {
            let mut pty = Pty::open();
            let mut running = pty.stdin_of(init(is_pid1, options)).args(subject(["trap"])).start().ready();
            pty.hang_up();
            // The kernel sends both, to the session's leader only.
            assert_only(&mut running, &["SIGCONT", "SIGHUP"]);
            running.kill(TERM);
            assert_eq!(running.code(), 0);
        }
    }
}

/// Pitfall 14: to give a terminal up sends HUP and CONT to oneself; they are nobody else's.
#[test]
fn pitfall_14_y4_s5_dumb_init_gives_the_terminal_to_the_commands_session() {
    for is_pid1 in [true, false] {
        let dumb_init = || {
            let init = Init::named("dumb-init", &[]);
            if is_pid1 { init } else { init.not_pid1() }
        };
        let pty = Pty::open();
        let output = pty.stdin_of(dumb_init()).args(subject(["status"])).run();
        let fact = |name| number(&output.stdout, name);
        assert_eq!((output.code, output.stderr.as_str()), (0, ""));
        assert_eq!((fact("sid"), fact("pgid"), fact("foreground")), (fact("pid"), fact("pid"), fact("pid")));
        for _ in 0..10 {
            let mut pty = Pty::open();
            let mut running = pty.stdin_of(dumb_init()).args(subject(["trap"])).start().ready();
            assert_only(&mut running, &[]);
            pty.write(CTRL_C);
            assert_only(&mut running, &["SIGINT"]);
            pty.hang_up();
            assert_only(&mut running, &["SIGCONT", "SIGHUP"]);
            running.kill(TERM);
            assert_eq!(running.code(), 0);
        }
        // With the defaults it would have died of the HUP.
        let pty = Pty::open();
        let output = pty.stdin_of(dumb_init()).args(sh("exit 9")).run();
        assert_eq!((output.code, output.stderr.as_str()), (9, ""));
    }
}
