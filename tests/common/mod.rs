//! Runs an init the way a container engine does: as PID 1 of a new PID namespace with its own /proc, or, on request, as
//! an ordinary child. Everything that is started here is gone when its handle is.
#![allow(dead_code)]
#![allow(clippy::multiple_unsafe_ops_per_block)]

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Longer than anything here takes on a slow machine; only a failure waits for it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The init under test.
pub fn sexton() -> PathBuf {
    std::env::var_os("SEXTON_BIN").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_sexton")), PathBuf::from)
}

/// The subjects' program.
pub fn lab() -> PathBuf {
    std::env::var_os("SEXTON_LAB").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_sexton-lab")), PathBuf::from)
}

/// A command line for a subject: `subject(["exit", "7"])`.
pub fn subject<const N: usize>(words: [&str; N]) -> Vec<OsString> {
    let mut line = vec![lab().into_os_string(), "subject".into()];
    line.extend(words.iter().map(OsString::from));
    line
}

/// A command line for `sh -c`.
pub fn sh(script: &str) -> Vec<OsString> {
    ["/bin/sh", "-c", script].map(OsString::from).to_vec()
}

/// A folder for all tests of this process, removed when it ends.
fn own_folder() -> PathBuf {
    extern "C" fn remove() {
        let _ = fs::remove_dir_all(own_folder());
    }
    static MADE: Once = Once::new();
    let path = std::env::temp_dir().join(format!("sexton-test-{}", std::process::id()));
    MADE.call_once(|| {
        fs::create_dir_all(&path).unwrap();
        // SAFETY: the function may be called at any time, also after main has ended.
        unsafe { libc::atexit(remove) };
    });
    path
}

/// A fresh empty folder for one test, on a file system where programs can run.
pub fn folder(name: &str) -> PathBuf {
    let path = own_folder().join(name);
    fs::create_dir_all(&path).unwrap();
    path
}

/// Sexton under another name: a symbolic link.
pub fn named(name: &str) -> PathBuf {
    let link = folder("names").join(name);
    let _ = std::os::unix::fs::symlink(sexton(), &link);
    link
}

/// Held while a process is forked, and while a program is written: a descriptor that is open for writing and inherited by
/// another test's process, for however short a time, makes the program "text file busy".
static FORKING: Mutex<()> = Mutex::new(());

/// Writes a file that is to be executed.
pub fn write_program(path: &Path, content: &[u8], mode: u32) -> PathBuf {
    let _held = FORKING.lock().unwrap_or_else(PoisonError::into_inner);
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    path.to_owned()
}

/// An init to be started.
pub struct Init {
    command: Vec<OsString>,
    is_pid1: bool,
    env: Vec<(OsString, OsString)>,
    ignored: Vec<i32>,
    blocked: u64,
    closed: Vec<i32>,
    stdin: Option<Stdio>,
    stdout: Option<Stdio>,
    stderr: Option<Stdio>,
    prepare: Option<Box<dyn FnMut() -> std::io::Result<()> + Send + Sync>>,
}

/// The program and its options, behind what SEXTON_TEST_DENY asks for.
fn with_denial(mut command: Vec<OsString>) -> Vec<OsString> {
    if let Some(errno) = std::env::var_os("SEXTON_TEST_DENY") {
        return denied(&errno.to_string_lossy(), command);
    }
    command.reserve(8);
    command
}

fn denied(errno: &str, command: Vec<OsString>) -> Vec<OsString> {
    let mut line = vec![lab().into_os_string()];
    line.extend(["deny", "--errno", errno, "--"].map(OsString::from));
    line.extend(command);
    line
}

impl Init {
    /// Sexton with these options.
    pub fn new(options: &[&str]) -> Self {
        Self::program(sexton(), options)
    }

    /// Sexton called by this name.
    pub fn named(name: &str, options: &[&str]) -> Self {
        Self::program(named(name), options)
    }

    /// Any init.
    pub fn program(path: impl AsRef<OsStr>, options: &[&str]) -> Self {
        let mut command = vec![path.as_ref().to_owned()];
        command.extend(options.iter().map(OsString::from));
        Self::raw(with_denial(command))
    }

    /// This program as it is, outside of any filter.
    pub fn exactly(path: impl AsRef<OsStr>) -> Self {
        Self::raw(vec![path.as_ref().to_owned()])
    }

    /// Sexton under a filter that refuses newer calls: gear 2, whatever the kernel.
    pub fn denied(errno: &str, options: &[&str]) -> Self {
        let mut command = vec![sexton().into_os_string()];
        command.extend(options.iter().map(OsString::from));
        Self::raw(denied(errno, command))
    }

    fn raw(command: Vec<OsString>) -> Self {
        Self {
            command,
            is_pid1: true,
            env: Vec::new(),
            ignored: Vec::new(),
            blocked: 0,
            closed: Vec::new(),
            stdin: None,
            stdout: None,
            stderr: None,
            prepare: None,
        }
    }

    /// Adds words: the command, mostly.
    pub fn args<S: Into<OsString>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.command.extend(words.into_iter().map(Into::into));
        self
    }

    /// As an ordinary child, in our own PID namespace.
    pub fn not_pid1(mut self) -> Self {
        self.is_pid1 = false;
        self
    }

    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Starts it with this signal ignored.
    pub fn ignoring(mut self, signal: i32) -> Self {
        self.ignored.push(signal);
        self
    }

    /// Starts it with this signal blocked.
    pub fn blocking(mut self, signal: i32) -> Self {
        self.blocked |= 1 << (signal - 1);
        self
    }

    /// Starts it with this descriptor closed.
    pub fn closing(mut self, fd: i32) -> Self {
        self.closed.push(fd);
        self
    }

    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.stdin = Some(stdin.into());
        self
    }

    pub fn stdout(mut self, stdout: impl Into<Stdio>) -> Self {
        self.stdout = Some(stdout.into());
        self
    }

    pub fn stderr(mut self, stderr: impl Into<Stdio>) -> Self {
        self.stderr = Some(stderr.into());
        self
    }

    /// Runs this in the init's process before its exec.
    pub fn prepare(mut self, prepare: impl FnMut() -> std::io::Result<()> + Send + Sync + 'static) -> Self {
        self.prepare = Some(Box::new(prepare));
        self
    }

    /// Starts it.
    pub fn start(self) -> Running {
        let Self { command, is_pid1, env, ignored, blocked, closed, stdin, stdout, stderr, mut prepare } = self;
        let mut builder = Command::new(&command[0]);
        builder.args(&command[1..]).envs(env);
        builder.stdin(stdin.unwrap_or_else(Stdio::null));
        builder.stdout(stdout.unwrap_or_else(Stdio::piped));
        builder.stderr(stderr.unwrap_or_else(Stdio::piped));
        let tester = std::process::id().cast_signed();
        // Tells the pid of the namespace's PID 1, as we see it.
        let (mut told, tell) = std::io::pipe().unwrap();
        let tell_fd = std::os::fd::AsRawFd::as_raw_fd(&tell);
        // SAFETY: between fork and exec only system calls are made, and what was prepared before is read.
        unsafe {
            builder.pre_exec(move || {
                if is_pid1 {
                    enter_namespace(tester, tell_fd)?;
                }
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                // std has set SIGPIPE ignored in this process; exec would hand that on.
                libc::signal(libc::SIGPIPE, libc::SIG_DFL);
                for signal in &ignored {
                    libc::signal(*signal, libc::SIG_IGN);
                }
                if let Some(prepare) = prepare.as_mut() {
                    prepare()?;
                }
                for fd in &closed {
                    libc::close(*fd);
                }
                libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const blocked, 0, 8);
                Ok(())
            });
        }
        let forking = FORKING.lock().unwrap_or_else(PoisonError::into_inner);
        let mut child = builder.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        drop(forking);
        let mut pid = child.id().cast_signed().to_ne_bytes();
        if is_pid1 {
            told.read_exact(&mut pid).unwrap();
        }
        let pid = i32::from_ne_bytes(pid);
        let lines = child.stdout.take().map(lines_of);
        let errors = child.stderr.take().map(|mut stderr| {
            thread::spawn(move || {
                let mut text = Vec::new();
                let _ = stderr.read_to_end(&mut text);
                String::from_utf8_lossy(&text).into_owned()
            })
        });
        Running { child, pid, is_pid1, lines, errors, ended: None }
    }

    /// Starts it and waits for its end.
    pub fn run(self) -> Output {
        self.start().finish()
    }
}

/// Makes a new PID and mount namespace; returns in its PID 1. The process between waits and passes the status on.
unsafe fn enter_namespace(tester: i32, tell: i32) -> std::io::Result<()> {
    // SAFETY: the caller is a process just forked; only system calls are made, on live memory.
    unsafe {
        if libc::unshare(libc::CLONE_NEWPID | libc::CLONE_NEWNS) != 0 {
            return Err(std::io::Error::last_os_error());
        }
        let pid = libc::fork();
        if pid < 0 {
            return Err(std::io::Error::last_os_error());
        }
        if pid > 0 {
            // Holds nothing open, ends with the tester, and ignores what a terminal may send.
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            if libc::getppid() != tester {
                libc::_exit(99);
            }
            libc::write(tell, (&raw const pid).cast(), size_of_val(&pid));
            let all = u64::MAX;
            libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const all, 0, 8);
            close_all();
            let mut status = 0;
            while libc::waitpid(pid, &raw mut status, 0) != pid {}
            libc::_exit(if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) });
        }
        let private = libc::MS_REC | libc::MS_PRIVATE;
        if libc::mount(std::ptr::null(), c"/".as_ptr(), std::ptr::null(), private, std::ptr::null()) != 0
            || libc::mount(c"proc".as_ptr(), c"/proc".as_ptr(), c"proc".as_ptr(), 0, std::ptr::null()) != 0
        {
            return Err(std::io::Error::last_os_error());
        }
        Ok(())
    }
}

unsafe fn close_all() {
    for fd in 0..1024 {
        // SAFETY: nothing in this process uses a descriptor afterwards.
        unsafe { libc::close(fd) };
    }
}

/// The one child of a process, once it is there.
fn only_child(parent: i32) -> i32 {
    wait_for("the namespace's PID 1", || children(parent).first().copied())
}

/// The children of a process, from /proc.
pub fn children(parent: i32) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        if let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>()
            && stat(pid).is_some_and(|(_, ppid)| ppid == parent)
        {
            found.push(pid);
        }
    }
    found
}

/// State letter and parent of a process, by its number in our own namespace.
pub fn stat(pid: i32) -> Option<(char, i32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text[text.rfind(')')? + 1..].split_ascii_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// A field of /proc/PID/status.
pub fn status_field(pid: i32, field: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    text.lines().find_map(|line| Some(line.strip_prefix(field)?.strip_prefix(':')?.trim().to_owned()))
}

/// Asks again and again, until there is an answer.
#[track_caller]
pub fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

fn lines_of(stdout: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                break;
            }
        }
    });
    receiver
}

/// An init that runs.
pub struct Running {
    child: Child,
    /// The init's pid, as we see it.
    pub pid: i32,
    is_pid1: bool,
    lines: Option<Receiver<String>>,
    errors: Option<thread::JoinHandle<String>>,
    ended: Option<i32>,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Running {
    /// The next line of the command's stdout.
    #[track_caller]
    pub fn line(&mut self) -> String {
        self.try_line(PATIENCE).unwrap_or_else(|| panic!("no line on stdout"))
    }

    /// The next line, if one comes in time; `None` also at the end.
    pub fn try_line(&mut self, patience: Duration) -> Option<String> {
        self.lines.as_ref().expect("stdout is not piped").recv_timeout(patience).ok()
    }

    /// Whether stdout has come to its end within the time.
    pub fn stdout_ends_within(&mut self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.as_ref().expect("stdout is not piped").recv_timeout(left) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return true,
                Err(RecvTimeoutError::Timeout) => return false,
            }
        }
    }

    /// Waits for the subject's handshake.
    #[track_caller]
    pub fn ready(mut self) -> Self {
        assert_eq!(self.line(), "ready");
        self
    }

    /// Sends a signal to the init, from outside its namespace.
    pub fn kill(&self, signal: i32) {
        // SAFETY: no memory is passed.
        unsafe { libc::kill(self.pid, signal) };
    }

    /// The init's one child, the command: its pid as we see it.
    pub fn command(&self) -> i32 {
        only_child(self.pid)
    }

    /// Waits for its end: the exit code; 128+n if signal n ended the init itself.
    #[track_caller]
    pub fn code(&mut self) -> i32 {
        if let Some(code) = self.ended {
            return code;
        }
        let code = wait_for("the init's end", || self.child.try_wait().unwrap());
        let code = code.code().unwrap_or_else(|| 128 + code.signal().unwrap_or(0));
        self.ended = Some(code);
        code
    }

    /// Whether it ended within the time.
    pub fn ends_within(&mut self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if self.child.try_wait().unwrap().is_some() {
                return true;
            }
            thread::sleep(Duration::from_millis(1));
        }
        false
    }

    /// Waits for its end and for all that it has printed.
    #[track_caller]
    pub fn finish(mut self) -> Output {
        let code = self.code();
        let mut stdout = String::new();
        if let Some(lines) = &self.lines {
            while let Ok(line) = lines.recv_timeout(PATIENCE) {
                stdout.push_str(&line);
                stdout.push('\n');
            }
        }
        let stderr = self.errors.take().map(|errors| errors.join().unwrap()).unwrap_or_default();
        Output { code, stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended.is_some() || self.child.try_wait().is_ok_and(|status| status.is_some()) {
            return;
        }
        // KILL to PID 1 of a namespace ends all that is in it. An init that is no PID 1 may leave children: they go first.
        if !self.is_pid1 {
            for child in children(self.pid) {
                // SAFETY: no memory is passed.
                unsafe { libc::kill(child, libc::SIGKILL) };
            }
        }
        self.kill(libc::SIGKILL);
        let _ = self.child.wait();
    }
}

/// Zombies whose parent is `init`, by their pids.
pub fn zombies_of(init: i32) -> Vec<i32> {
    children(init).into_iter().filter(|pid| stat(*pid).is_some_and(|(state, _)| state == 'Z')).collect()
}

/// The text is one line, from sexton, and says something.
#[track_caller]
pub fn assert_one_line(stderr: &str) {
    assert!(stderr.starts_with("sexton: ") && stderr.ends_with('\n') && stderr.lines().count() == 1, "{stderr:?}");
}

/// As this user, without any capability.
pub fn as_user(uid: u32) -> impl FnMut() -> std::io::Result<()> + Send + Sync + 'static {
    move || {
        // SAFETY: passes integers and a null list.
        let failed = unsafe {
            libc::setgroups(0, std::ptr::null()) != 0
                || libc::setresgid(uid, uid, uid) != 0
                || libc::setresuid(uid, uid, uid) != 0
        };
        if failed { Err(std::io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// Sexton where every user can reach it.
pub fn for_anyone(name: &str) -> PathBuf {
    let folder = folder(name);
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    write_program(&folder.join("sexton"), &fs::read(sexton()).unwrap(), 0o755)
}

/// A setup that failed: 125, one line that holds all of `words`, and the command did not run.
#[track_caller]
pub fn assert_refused(output: &Output, words: &[&str]) {
    assert_refused_with(output, 125, words);
}

/// The same with another code.
#[track_caller]
pub fn assert_refused_with(output: &Output, code: i32, words: &[&str]) {
    assert_one_line(&output.stderr);
    for word in words {
        assert!(output.stderr.contains(word), "{word:?} is not in {:?}", output.stderr);
    }
    assert_eq!((output.code, output.stdout.as_str()), (code, ""), "{:?}", output.stderr);
}

/// Whether a file is there to be used; a test that needs it and has none says so and is over.
pub fn has(path: &str) -> bool {
    let there = Path::new(path).exists();
    if !there {
        eprintln!("skipped: no {path} here");
    }
    there
}
