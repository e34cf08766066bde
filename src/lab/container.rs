//! An init under test: started in a new PID namespace as its PID 1 (or, on request, as an ordinary process), signalled,
//! listened to, and gone with its handle.
//!
//! Who starts it must be PID 1 of a namespace of its own, with its own /proc: then all that is here belongs to one case,
//! and ends with it.
#![forbid(unsafe_code)]

pub mod launch;
pub mod watch;

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Trouble;
use super::processes::{children_of, is_subject};
use crate::procfs;
use crate::signal::Signal;
use crate::sys::Errno;
use crate::sys::process::{Started, WaitStatus, Waited, Who, wait};
use crate::sys::signal::kill;
pub use launch::{Launch, Place};
use watch::{LONG_QUIET, QUIET, Quiet, has_taken_all};

/// How often to look.
const LOOK_AGAIN: Duration = Duration::from_millis(4);

/// An error's text, with the call that failed.
pub fn failed(call: &'static str) -> impl Fn(Errno) -> Trouble {
    move |errno| Trouble(format!("{call}: {errno}"))
}

/// Our ends of an init's standard descriptors.
pub struct Ends {
    /// To write to; absent: it has another stdin.
    pub stdin: Option<OwnedFd>,
    /// To read from.
    pub stdout: OwnedFd,
    /// To read from; absent: it has another stderr.
    pub stderr: Option<OwnedFd>,
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

/// What reading a line has come to.
enum Line {
    Read(String),
    Over,
}

impl Container {
    fn new(started: Started, is_pid1: bool, ends: Ends, patience: Duration) -> Result<Self, Trouble> {
        Ok(Self {
            pid: started.pid,
            started,
            is_pid1,
            stdin: ends.stdin.map(File::from),
            stdout: Stream::new(ends.stdout)?,
            stderr: ends.stderr.map(Stream::new).transpose()?,
            ended: None,
            patience,
        })
    }

    /// Sends a signal to the init.
    pub fn signal(&self, signal: Signal) {
        let _ = kill(self.pid, Some(signal));
    }

    /// Asks again and again until there is an answer; if there is none, why it makes no sense to go on.
    pub fn wait_for<T>(&mut self, ask: impl FnMut(&mut Self) -> Option<T>) -> Result<T, String> {
        self.wait_in_quiet(QUIET, ask)
    }

    /// The same, for what may have to wait for a clock.
    pub fn wait_patiently<T>(&mut self, ask: impl FnMut(&mut Self) -> Option<T>) -> Result<T, String> {
        self.wait_in_quiet(LONG_QUIET, ask)
    }

    fn wait_in_quiet<T>(&mut self, enough: Duration, mut ask: impl FnMut(&mut Self) -> Option<T>) -> Result<T, String> {
        let patience = self.patience.max(enough + enough / 2);
        let began = Instant::now();
        let mut quiet = Quiet::new(enough);
        loop {
            self.pump(Duration::ZERO);
            if let Some(answer) = ask(self) {
                return Ok(answer);
            }
            if quiet.lasts() {
                return Err(format!("nothing has moved for {:.1} s", enough.as_secs_f32()));
            }
            if began.elapsed() > patience {
                return Err(format!("not after {:.0} s", patience.as_secs_f32()));
            }
            self.pump(LOOK_AGAIN);
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
        let line = self.wait_for(Self::line_or_end);
        self.told(line)
    }

    /// The next line of stdout, which may be slow.
    pub fn late_line(&mut self) -> Result<String, String> {
        let line = self.wait_patiently(Self::line_or_end);
        self.told(line)
    }

    fn line_or_end(&mut self) -> Option<Line> {
        let line = self.stdout.line().map(Line::Read);
        line.or_else(|| self.stdout.descriptor.is_none().then_some(Line::Over))
    }

    /// Why there is no line: what the init ended with, if it did.
    fn told(&mut self, line: Result<Line, String>) -> Result<String, String> {
        let why = match line {
            Ok(Line::Read(line)) => return Ok(line),
            Ok(Line::Over) => {
                let _ = self.end();
                "stdout has come to its end".to_owned()
            }
            Err(why) => why,
        };
        let stderr = self.stderr_so_far();
        Err(match (self.ended, stderr.lines().next()) {
            (None, _) => why,
            (Some(end), None) => format!("{why}, with {end}"),
            (Some(end), Some(line)) => format!("{why}, with {end} and on stderr {line:?}"),
        })
    }

    /// The next line of stdout, if it is there already.
    pub fn line_now(&mut self) -> Option<String> {
        self.pump(Duration::ZERO);
        self.stdout.line()
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
