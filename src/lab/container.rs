//! An init under test: started in a new PID namespace as its PID 1 (or, on request, as an ordinary process), signalled,
//! listened to, and gone with its handle.
//!
//! Who starts it must be PID 1 of a namespace of its own, with its own /proc: then all that is here belongs to one case,
//! and ends with it.
#![forbid(unsafe_code)]

use std::ffi::{CString, OsString};
use std::fmt;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::CloneFlags;
use nix::unistd::{Pid, execve, getpid, pipe2, setpgid, setsid, tcsetpgrp};

use super::Trouble;
use super::processes::{all, children_of, is_subject, status_field};
use crate::procfs;
use crate::signal::Signal;
use crate::sys::Errno;
use crate::sys::fd::close_inherited;
use crate::sys::lab::container::{Resource, close, limit, place, take_terminal};
use crate::sys::process::{Forked, Started, WaitStatus, Waited, Who, exit, fork_into, wait};
use crate::sys::signal::{Disposition, SignalSet, kill, set_disposition, set_mask};

/// When nothing has moved in a container for so long, nothing will: longer than any init's own clock ticks (tini: 1 s).
const QUIET: Duration = Duration::from_millis(2500);
/// How often to look.
const LOOK_AGAIN: Duration = Duration::from_millis(4);

/// An error's text, with the call that failed.
pub fn failed(call: &'static str) -> impl Fn(Errno) -> Trouble {
    move |errno| Trouble(format!("{call}: {errno}"))
}

/// Session, group and terminal that an init starts in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// A session of its own without a terminal.
    Session,
    /// A session of its own, whose controlling terminal is its stdin.
    Terminal,
    /// A group of its own in our session, in the foreground of our terminal, which is its stdin: as a shell does.
    Job,
    /// As before, in the background.
    BackgroundJob,
}

/// Something that a process does before it becomes the init.
type Preparation = Box<dyn Fn() -> Result<(), Trouble>>;

/// An init to be started.
pub struct Launch {
    program: PathBuf,
    words: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    is_pid1: bool,
    ignored: Vec<Signal>,
    blocked: SignalSet,
    closed: Vec<RawFd>,
    stdin: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    given: Vec<(OwnedFd, RawFd)>,
    place: Place,
    preparations: Vec<Preparation>,
    patience: Duration,
}

/// Variables that mean something to one of the inits or to its command: never inherited by chance.
const OWN_VARIABLES: [&str; 5] = ["SEXTON_", "TINI_", "DUMB_INIT_", "CATATONIT_", "LISTEN_"];

impl Launch {
    /// This program with these words, its own name first.
    pub fn new(program: PathBuf, words: Vec<OsString>, patience: Duration) -> Self {
        let kept = |name: &OsString| !OWN_VARIABLES.iter().any(|own| name.as_bytes().starts_with(own.as_bytes()));
        Self {
            program,
            words,
            environment: std::env::vars_os().filter(|(name, _)| kept(name)).collect(),
            is_pid1: true,
            ignored: Vec::new(),
            blocked: SignalSet::EMPTY,
            closed: Vec::new(),
            stdin: None,
            stderr: None,
            given: Vec::new(),
            place: Place::Session,
            preparations: Vec::new(),
            patience,
        }
    }

    /// As an ordinary process.
    pub fn not_pid1(mut self) -> Self {
        self.is_pid1 = false;
        self
    }

    /// With this variable.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// With this signal ignored.
    pub fn ignoring(mut self, signal: Signal) -> Self {
        self.ignored.push(signal);
        self
    }

    /// With this signal blocked.
    pub fn blocking(mut self, signal: Signal) -> Self {
        self.blocked = self.blocked.with(signal);
        self
    }

    /// With this standard descriptor closed.
    pub fn closing(mut self, number: RawFd) -> Self {
        self.closed.push(number);
        self
    }

    /// With this as stdin. Else it is a pipe, whose other end is open as long as the handle.
    pub fn stdin(mut self, stdin: impl Into<OwnedFd>) -> Self {
        self.stdin = Some(stdin.into());
        self
    }

    /// With this as stderr. Else it is read.
    pub fn stderr(mut self, stderr: impl Into<OwnedFd>) -> Self {
        self.stderr = Some(stderr.into());
        self
    }

    /// With this descriptor, inherited under this number.
    pub fn giving(mut self, descriptor: impl Into<OwnedFd>, number: RawFd) -> Self {
        self.given.push((descriptor.into(), number));
        self
    }

    /// In this place.
    pub fn place(mut self, place: Place) -> Self {
        self.place = place;
        self
    }

    /// Having done this, in its own mount namespace.
    pub fn prepare(mut self, preparation: impl Fn() -> Result<(), Trouble> + 'static) -> Self {
        self.preparations.push(Box::new(preparation));
        self
    }

    /// Another program, which finds these words behind its own.
    pub fn program(mut self, program: PathBuf, words: Vec<OsString>) -> Self {
        self.program = program;
        self.words = words;
        self
    }

    /// Starts it: it has been executed when this returns.
    pub fn start(self) -> Result<Container, Trouble> {
        self.start_after(|_| ())
    }

    /// Starts it after something has been done to the process that becomes the init: all signals are blocked there.
    pub fn start_after(self, act: impl FnOnce(&Container)) -> Result<Container, Trouble> {
        let (go_read, go) = pipe2(OFlag::O_CLOEXEC).map_err(failed("pipe2(O_CLOEXEC)"))?;
        let (mut container, told) = self.fork(&go_read)?;
        act(&container);
        drop(go_read);
        File::from(go).write_all(&[0])?;
        let mut text = String::new();
        // Its end is closed by the exec.
        File::from(told).read_to_string(&mut text)?;
        if text.is_empty() {
            return Ok(container);
        }
        container.kill();
        Err(Trouble(text))
    }

    /// Forks the process that becomes the init once it can read from `go`; what is read from the descriptor that is
    /// returned is why it could not.
    fn fork(self, go: &OwnedFd) -> Result<(Container, OwnedFd), Trouble> {
        let pipe = || pipe2(OFlag::O_CLOEXEC).map_err(failed("pipe2(O_CLOEXEC)"));
        let (told, tell) = pipe()?;
        let ((stdin, stdin_end), (stdout_end, stdout), (stderr_end, stderr)) = (pipe()?, pipe()?, pipe()?);
        let is_given = |given: &Option<OwnedFd>| given.is_some();
        let (keeps_stdin, reads_stderr) = (!is_given(&self.stdin), !is_given(&self.stderr));
        let program = CString::new(self.program.as_os_str().as_bytes())?;
        let words = self.words.iter().map(|word| CString::new(word.as_bytes())).collect::<Result<Vec<_>, _>>()?;
        let variables = self.environment.iter().map(|(name, value)| {
            let (name, value) = (name.as_bytes(), value.as_bytes());
            CString::new([name, b"=", value].concat())
        });
        let variables = variables.collect::<Result<Vec<_>, _>>()?;
        let mut namespaces = CloneFlags::CLONE_NEWNS;
        namespaces.set(CloneFlags::CLONE_NEWPID, self.is_pid1);
        let (is_pid1, patience) = (self.is_pid1, self.patience);
        let started = match fork_into(namespaces.bits()).map_err(failed("clone()"))? {
            Forked::Parent(started) => started,
            Forked::Child => {
                let standard =
                    [self.stdin.as_ref().unwrap_or(&stdin), &stdout, self.stderr.as_ref().unwrap_or(&stderr)];
                let why = match self.become_ready(standard, &tell, go) {
                    Err(trouble) => trouble,
                    Ok(()) => match execve(&program, &words, &variables) {
                        Err(errno) => Trouble(format!("execve({}): {errno}", self.program.display())),
                        Ok(never) => match never {},
                    },
                };
                let _ = File::from(tell).write_all(why.to_string().as_bytes());
                exit(99);
            }
        };
        let container = Container {
            pid: started.pid,
            started,
            is_pid1,
            stdin: keeps_stdin.then(|| stdin_end.into()),
            stdout: Stream::new(stdout_end)?,
            stderr: if reads_stderr { Some(Stream::new(stderr_end)?) } else { None },
            ended: None,
            patience,
        };
        Ok((container, told))
    }

    /// In the new process.
    fn become_ready(&self, standard: [&OwnedFd; 3], tell: &OwnedFd, go: &OwnedFd) -> Result<(), Trouble> {
        nix::unistd::read(go, &mut [0]).map_err(failed("read()"))?;
        match self.place {
            Place::Session | Place::Terminal => setsid().map(drop).map_err(failed("setsid()"))?,
            Place::Job | Place::BackgroundJob => {
                setpgid(Pid::from_raw(0), Pid::from_raw(0)).map_err(failed("setpgid()"))?;
            }
        }
        match self.place {
            Place::Terminal => take_terminal(standard[0].as_fd()).map_err(failed("ioctl(TIOCSCTTY)"))?,
            Place::Job => tcsetpgrp(standard[0], getpid()).map_err(failed("tcsetpgrp()"))?,
            Place::Session | Place::BackgroundJob => {}
        }
        if self.is_pid1 {
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
            mount(Some("proc"), "/proc", Some("proc"), flags, None::<&str>)
                .map_err(failed("mount(\"proc\", \"/proc\")"))?;
        }
        for (number, descriptor) in (0..).zip(standard) {
            place(descriptor.as_fd(), number).map_err(failed("dup2()"))?;
        }
        for (descriptor, number) in &self.given {
            place(descriptor.as_fd(), *number).map_err(failed("dup2()"))?;
        }
        let mut keep: Vec<RawFd> = self.given.iter().map(|(_, number)| *number).chain([tell.as_raw_fd()]).collect();
        keep.sort_unstable();
        close_inherited(&keep);
        limit(0, Resource::Core, 0).map_err(failed("setrlimit(RLIMIT_CORE)"))?;
        for preparation in &self.preparations {
            preparation()?;
        }
        for number in &self.closed {
            close(*number);
        }
        for signal in Signal::all() {
            let ignored = self.ignored.contains(&signal);
            set_disposition(signal, if ignored { Disposition::Ignore } else { Disposition::Default });
        }
        set_mask(self.blocked);
        Ok(())
    }
}

/// What a container writes.
struct Stream {
    descriptor: Option<File>,
    bytes: Vec<u8>,
}

impl Stream {
    fn new(descriptor: OwnedFd) -> Result<Self, Trouble> {
        fcntl(&descriptor, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(failed("fcntl(O_NONBLOCK)"))?;
        Ok(Self { descriptor: Some(descriptor.into()), bytes: Vec::new() })
    }

    fn read(&mut self) {
        let mut buffer = [0; 4096];
        while let Some(file) = &mut self.descriptor {
            match file.read(&mut buffer) {
                Ok(0) => self.descriptor = None,
                Ok(count) => self.bytes.extend(buffer.iter().take(count)),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(_) => self.descriptor = None,
            }
        }
    }

    fn line(&mut self) -> Option<String> {
        let end = self.bytes.iter().position(|byte| *byte == b'\n')?;
        let line: Vec<u8> = self.bytes.drain(..=end).collect();
        Some(String::from_utf8_lossy(line.get(..end).unwrap_or_default()).into_owned())
    }
}

/// How an init ended, as an engine tells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct End(pub WaitStatus);

impl End {
    /// The exit code; 128+n for signal n.
    pub fn code(self) -> i32 {
        i32::from(crate::exit::code(self.0))
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            WaitStatus::Exited(code) => write!(f, "exit code {code}"),
            WaitStatus::Signaled(signal) => write!(f, "an end by {signal}"),
            WaitStatus::Stopped(signal) => write!(f, "a stop by {signal}"),
        }
    }
}

/// An init that runs.
pub struct Container {
    /// Its pid in our namespace.
    pub pid: i32,
    started: Started,
    is_pid1: bool,
    /// The other end of its stdin.
    pub stdin: Option<File>,
    stdout: Stream,
    stderr: Option<Stream>,
    ended: Option<End>,
    patience: Duration,
}

impl Container {
    /// Sends a signal to the init.
    pub fn signal(&self, signal: Signal) {
        let _ = kill(self.pid, Some(signal));
    }

    /// Asks again and again until there is an answer; if there is none, why it makes no sense to go on.
    pub fn wait_for<T>(&mut self, mut ask: impl FnMut(&mut Self) -> Option<T>) -> Result<T, String> {
        let began = Instant::now();
        let mut quiet = Quiet::new();
        loop {
            self.pump(Duration::ZERO);
            if let Some(answer) = ask(self) {
                return Ok(answer);
            }
            if quiet.lasts() {
                return Err(format!("nothing has moved for {:.1} s", QUIET.as_secs_f32()));
            }
            if began.elapsed() > self.patience {
                return Err(format!("not after {:.0} s", self.patience.as_secs_f32()));
            }
            self.pump(LOOK_AGAIN);
        }
    }

    /// The same, for what may have to wait for a clock.
    pub fn wait_patiently<T>(&mut self, mut ask: impl FnMut(&mut Self) -> Option<T>) -> Result<T, String> {
        let began = Instant::now();
        loop {
            self.pump(LOOK_AGAIN);
            if let Some(answer) = ask(self) {
                return Ok(answer);
            }
            if began.elapsed() > self.patience {
                return Err(format!("not after {:.0} s", self.patience.as_secs_f32()));
            }
        }
    }

    /// Takes what there is to read, and the init's end; waits so long for any of it.
    fn pump(&mut self, patience: Duration) {
        let mut set = Vec::with_capacity(3);
        let files =
            [self.stdout.descriptor.as_ref(), self.stderr.as_ref().and_then(|stream| stream.descriptor.as_ref())];
        set.extend(files.into_iter().flatten().map(|file| PollFd::new(file.as_fd(), PollFlags::POLLIN)));
        if let Some(pidfd) = self.started.pidfd.as_ref().filter(|_| self.ended.is_none()) {
            set.push(PollFd::new(pidfd.as_fd(), PollFlags::POLLIN));
        }
        let _ = poll(&mut set, PollTimeout::try_from(patience).unwrap_or(PollTimeout::ZERO));
        if self.ended.is_none()
            && let Waited::Changed(_, status) = wait(Who::Child(self.pid), false)
        {
            self.ended = Some(End(status));
        }
        self.stdout.read();
        if let Some(stderr) = &mut self.stderr {
            stderr.read();
        }
    }

    /// The next line of stdout.
    pub fn line(&mut self) -> Result<String, String> {
        let line = self.wait_for(|container| match container.stdout.line() {
            Some(line) => Some(Ok(line)),
            None if container.stdout.descriptor.is_none() => Some(Err("stdout has come to its end".to_owned())),
            None => None,
        });
        line.and_then(|line| line).map_err(|why| self.with_end(why))
    }

    /// The next line of stdout, which may be slow.
    pub fn late_line(&mut self) -> Result<String, String> {
        let line = self.wait_patiently(|container| match container.stdout.line() {
            Some(line) => Some(Ok(line)),
            None if container.stdout.descriptor.is_none() => Some(Err("stdout has come to its end".to_owned())),
            None => None,
        });
        line.and_then(|line| line).map_err(|why| self.with_end(why))
    }

    /// The next line of stdout, if it is there already.
    pub fn line_now(&mut self) -> Option<String> {
        self.pump(Duration::ZERO);
        self.stdout.line()
    }

    /// What the init ended with, if it did: added to a reason.
    fn with_end(&self, why: String) -> String {
        let stderr = self.stderr_so_far();
        match (self.ended, stderr.lines().next()) {
            (None, _) => why,
            (Some(end), None) => format!("{why}, with {end}"),
            (Some(end), Some(line)) => format!("{why}, with {end} and on stderr {line:?}"),
        }
    }

    /// All of stderr so far.
    pub fn stderr_so_far(&self) -> String {
        let bytes = self.stderr.as_ref().map_or(&[][..], |stream| &stream.bytes);
        String::from_utf8_lossy(bytes).into_owned()
    }

    /// The init's end.
    pub fn end(&mut self) -> Result<End, String> {
        self.wait_for(|container| container.ended)
    }

    /// The init's end, which may be slow.
    pub fn late_end(&mut self) -> Result<End, String> {
        self.wait_patiently(|container| container.ended)
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> Option<End> {
        self.pump(Duration::ZERO);
        self.ended
    }

    /// All that is left on stdout, up to its end.
    pub fn rest(&mut self) -> Result<String, String> {
        self.wait_for(|container| container.stdout.descriptor.is_none().then_some(()))?;
        Ok(String::from_utf8_lossy(&std::mem::take(&mut self.stdout.bytes)).into_owned())
    }

    /// Whether stdout is at its end.
    pub fn stdout_is_over(&self) -> bool {
        self.stdout.descriptor.is_none()
    }

    /// The command: the first subject that is the init itself or a child of it.
    pub fn command(&mut self) -> Result<i32, String> {
        self.wait_for(|container| container.command_now())
    }

    /// The command, as far as it can be told at the moment.
    fn command_now(&self) -> Option<i32> {
        std::iter::once(self.pid).chain(children_of(self.pid)).find(|pid| is_subject(*pid))
    }

    /// Waits until the init, and then its command, have taken every signal that was sent, and sleep.
    pub fn idle(&mut self) -> Result<(), String> {
        self.wait_for(|container| (container.ended.is_some() || has_taken_all(container.pid)).then_some(()))?;
        let Some(command) = self.command_now() else { return Ok(()) };
        self.wait_for(|container| {
            let is_gone = || !matches!(procfs::stat(command), Some(stat) if stat.state != b'Z');
            (container.ended.is_some() || is_gone() || has_taken_all(command)).then_some(())
        })
    }

    /// Ends it and all that is in its namespace.
    fn kill(&mut self) {
        let _ = kill(self.pid, Some(Signal::KILL));
        if !self.is_pid1 {
            // We are PID 1 of a namespace that holds nothing else.
            let _ = kill(-1, Some(Signal::KILL));
        }
        while self.ended.is_none() {
            match wait(Who::Child(self.pid), false) {
                Waited::Changed(_, status) => self.ended = Some(End(status)),
                Waited::NoChild => return,
                Waited::Nothing => self.pump(LOOK_AGAIN),
            }
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A field of `/proc/PID/status` that is a set of signals.
fn mask(pid: i32, field: &str) -> Option<u64> {
    u64::from_str_radix(&status_field(pid, field)?, 16).ok()
}

/// No signal is pending that it would take, and it sleeps.
fn has_taken_all(pid: i32) -> bool {
    let (Some(blocked), Some(shared), Some(own)) = (mask(pid, "SigBlk"), mask(pid, "ShdPnd"), mask(pid, "SigPnd"))
    else {
        return false;
    };
    let pending = shared | own;
    let sleeps = procfs::stat(pid).is_some_and(|stat| matches!(stat.state, b'S' | b'T'));
    // What is blocked for good, and not taken by anybody, stays.
    sleeps && (pending == 0 || (pending & !blocked == 0 && is_asleep(pid)))
}

/// It does not wait for a signal that is pending: that would have made it run at once.
fn is_asleep(pid: i32) -> bool {
    let sleeps = || {
        let state = procfs::stat(pid).map(|stat| stat.state);
        status_field(pid, "voluntary_ctxt_switches").filter(|_| matches!(state, Some(b'S' | b'T')))
    };
    let before = sleeps();
    (0..5).all(|_| {
        std::thread::sleep(LOOK_AGAIN);
        before.is_some() && sleeps() == before
    })
}

/// Watches all processes of our namespace but us.
struct Quiet {
    since: Instant,
    next_look: Instant,
    seen: Vec<(i32, u8)>,
}

impl Quiet {
    fn new() -> Self {
        Self { since: Instant::now(), next_look: Instant::now(), seen: Vec::new() }
    }

    /// Whether nobody has run, come or gone for long enough.
    fn lasts(&mut self) -> bool {
        let now = Instant::now();
        if now < self.next_look {
            return false;
        }
        self.next_look = now + QUIET / 25;
        let seen: Vec<_> = all().into_iter().filter_map(|pid| Some((pid, procfs::stat(pid)?.state))).collect();
        let moves = seen.iter().any(|(_, state)| matches!(state, b'R' | b'D'));
        if moves || seen != self.seen {
            self.since = now;
            self.seen = seen;
        }
        self.since.elapsed() >= QUIET
    }
}
