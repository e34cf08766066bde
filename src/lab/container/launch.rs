//! Starting an init: everything that it can be started with.
#![forbid(unsafe_code)]

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::sched::CloneFlags;
use nix::unistd::{Pid, execve, getpid, pipe2, setpgid, setsid, tcsetpgrp};

use super::{Container, Ends, failed};
use crate::lab::Trouble;
use crate::signal::Signal;
use crate::sys::fd::close_inherited;
use crate::sys::lab::container::{Resource, close, limit, place, take_terminal};
use crate::sys::process::{Forked, exit, fork_into};
use crate::sys::signal::{Disposition, SignalSet, set_disposition, set_mask};

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
    #[must_use]
    pub fn not_pid1(mut self) -> Self {
        self.is_pid1 = false;
        self
    }

    /// With this variable.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// With this signal ignored.
    #[must_use]
    pub fn ignoring(mut self, signal: Signal) -> Self {
        self.ignored.push(signal);
        self
    }

    /// With this signal blocked.
    #[must_use]
    pub fn blocking(mut self, signal: Signal) -> Self {
        self.blocked = self.blocked.with(signal);
        self
    }

    /// With this standard descriptor closed.
    #[must_use]
    pub fn closing(mut self, number: RawFd) -> Self {
        self.closed.push(number);
        self
    }

    /// With this as stdin. Else it is a pipe, whose other end is open as long as the handle.
    #[must_use]
    pub fn stdin(mut self, stdin: impl Into<OwnedFd>) -> Self {
        self.stdin = Some(stdin.into());
        self
    }

    /// With this as stderr. Else it is read.
    #[must_use]
    pub fn stderr(mut self, stderr: impl Into<OwnedFd>) -> Self {
        self.stderr = Some(stderr.into());
        self
    }

    /// With this descriptor, inherited under this number.
    #[must_use]
    pub fn giving(mut self, descriptor: impl Into<OwnedFd>, number: RawFd) -> Self {
        self.given.push((descriptor.into(), number));
        self
    }

    /// In this place.
    #[must_use]
    pub fn place(mut self, place: Place) -> Self {
        self.place = place;
        self
    }

    /// Having done this, in its own mount namespace.
    #[must_use]
    pub fn prepare(mut self, preparation: impl Fn() -> Result<(), Trouble> + 'static) -> Self {
        self.preparations.push(Box::new(preparation));
        self
    }

    /// Another program, which finds these words behind its own.
    #[must_use]
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
        let ends = Ends {
            stdin: keeps_stdin.then_some(stdin_end),
            stdout: stdout_end,
            stderr: reads_stderr.then_some(stderr_end),
        };
        Ok((Container::new(started, is_pid1, ends, patience)?, told))
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
