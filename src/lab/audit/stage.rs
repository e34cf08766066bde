//! Where the container runs: under an engine, or in namespaces that we make.
#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sched::CloneFlags;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout, execvp, getegid, geteuid, pipe2, setsid};
use serde_json::Value;

use crate::lab::Trouble;
use crate::lab::check::room::enter;
use crate::lab::container::failed;
use crate::signal::Signal;
use crate::sys::process::{Forked, exit, fork_into};
use crate::sys::signal::{Disposition, kill, set_disposition};

/// A container that runs. What is left of it ends with this.
pub enum Stage {
    /// By an engine.
    Engine(Contained),
    /// In namespaces of ours.
    Own(Own),
}

/// A container of an engine.
pub struct Contained {
    /// The program, and its own options.
    program: Vec<String>,
    id: String,
    image: String,
    pid1: i32,
    stop_signal: Option<Signal>,
    entrypoint: Vec<String>,
}

/// A command that is PID 1 of its namespaces.
pub struct Own {
    words: Vec<OsString>,
    pid1: i32,
    output: File,
    text: Vec<u8>,
    ended: Option<i32>,
}

/// The end of a container that cannot be started: what an engine says first is what it does, and last why not.
fn last_line(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("said nothing").trim().to_owned()
}

impl Stage {
    /// An image and its arguments, by an engine with these options of its own and of its `create`.
    pub fn engine(engine: &str, options: &str, image: &[OsString]) -> Result<Self, Trouble> {
        let split =
            |name, text: &str| shlex::split(text).ok_or_else(|| Trouble(format!("{name} {text:?}: an open quote")));
        let mut contained = Contained {
            program: split("--engine", engine)?,
            id: String::new(),
            image: image.first().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
            pid1: 0,
            stop_signal: None,
            entrypoint: Vec::new(),
        };
        let mut words = vec![OsString::from("create")];
        words.extend(split("--options", options)?.into_iter().map(OsString::from));
        words.extend_from_slice(image);
        contained.run(&words)?.trim().clone_into(&mut contained.id);
        contained.run(&["start".into(), contained.id.clone().into()])?;
        let told = contained.inspect()?;
        contained.pid1 = told["State"]["Pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).unwrap_or(0);
        // docker has its name, podman its number.
        let signal = &told["Config"]["StopSignal"];
        let signal = signal.as_str().map(str::to_owned).or_else(|| Some(signal.as_i64()?.to_string()));
        contained.stop_signal = signal.and_then(|signal| signal.parse().ok());
        let words = [&told["Path"]].into_iter().chain(told["Args"].as_array().into_iter().flatten());
        contained.entrypoint = words.filter_map(|word| Some(word.as_str()?.to_owned())).collect();
        Ok(Self::Engine(contained))
    }

    /// A command.
    pub fn command(words: &[OsString]) -> Result<Self, Trouble> {
        Own::start(words).map(Self::Own)
    }

    /// PID 1, by the number that it has out here.
    pub fn pid1(&self) -> i32 {
        match self {
            Self::Engine(contained) => contained.pid1,
            Self::Own(own) => own.pid1,
        }
    }

    /// What is looked at, for the report's head.
    pub fn subject(&self) -> String {
        match self {
            Self::Engine(contained) => format!("image {}", contained.image),
            Self::Own(own) => own.words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" "),
        }
    }

    /// What the image says that its command is.
    pub fn entrypoint(&self) -> Vec<String> {
        match self {
            Self::Engine(contained) => contained.entrypoint.clone(),
            Self::Own(own) => own.words.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
        }
    }

    /// What stops it, if the image says so.
    pub fn stop_signal(&self) -> Option<Signal> {
        match self {
            Self::Engine(contained) => contained.stop_signal,
            Self::Own(_) => None,
        }
    }

    /// Whether PID 1 has ended.
    pub fn is_over(&mut self) -> Result<bool, Trouble> {
        match self {
            Self::Engine(contained) => {
                Ok(contained.pid1 == 0 || crate::procfs::stat(contained.pid1).is_none_or(|stat| stat.state == b'Z'))
            }
            Self::Own(own) => own.is_over(),
        }
    }

    /// What it has printed.
    pub fn output(&mut self) -> Result<String, Trouble> {
        match self {
            Self::Engine(contained) => contained.logs(),
            Self::Own(own) => {
                own.drain();
                Ok(String::from_utf8_lossy(&own.text).into_owned())
            }
        }
    }

    /// Reads what it prints, so that it need not wait for a reader.
    pub fn drain(&mut self) {
        if let Self::Own(own) = self {
            own.drain();
        }
    }

    /// Sends PID 1 the signal that stops it.
    pub fn begin_stop(&self, signal: Signal) -> Result<(), Trouble> {
        match self {
            Self::Engine(contained) => contained.signal(signal),
            Self::Own(own) => Ok(kill(own.pid1, Some(signal))?),
        }
    }

    /// Ends it, as an engine does when time is up.
    pub fn kill(&self) -> Result<(), Trouble> {
        self.begin_stop(Signal::KILL)
    }

    /// As an engine tells it: 128+n for signal n.
    pub fn exit_code(&mut self) -> Result<i32, Trouble> {
        match self {
            Self::Engine(contained) => {
                let text = contained.run(&["wait".into(), contained.id.clone().into()])?;
                Ok(text.trim().parse()?)
            }
            Self::Own(own) => Ok(own.ended.unwrap_or_default()),
        }
    }

    /// Whether the engine says that memory ran out.
    pub fn out_of_memory(&self) -> bool {
        match self {
            Self::Engine(contained) => contained.inspect().is_ok_and(|told| told["State"]["OOMKilled"] == true),
            Self::Own(_) => false,
        }
    }
}

impl Contained {
    fn command(&self, words: &[OsString]) -> std::io::Result<std::process::Output> {
        let (program, options) = self.program.split_first().ok_or(std::io::ErrorKind::InvalidInput)?;
        Command::new(program).args(options).args(words).stdin(Stdio::null()).output()
    }

    fn run(&self, words: &[OsString]) -> Result<String, Trouble> {
        let program = self.program.first().map_or("", String::as_str);
        let output = self
            .command(words)
            .map_err(|error| Trouble(format!("execve({program:?}): {error}: install it, or see --engine")))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let word = words.first().map_or("", |word| word.to_str().unwrap_or_default());
        Err(Trouble(format!("{program} {word}: {}", last_line(&output.stderr))))
    }

    fn inspect(&self) -> Result<Value, Trouble> {
        let mut told: Value = serde_json::from_str(&self.run(&["inspect".into(), self.id.clone().into()])?)?;
        Ok(told.get_mut(0).map(Value::take).unwrap_or_default())
    }

    fn logs(&self) -> Result<String, Trouble> {
        let output = self.command(&["logs".into(), self.id.clone().into()])?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
    }

    fn signal(&self, signal: Signal) -> Result<(), Trouble> {
        let sent =
            self.run(&["kill".into(), "--signal".into(), signal.number().to_string().into(), self.id.clone().into()]);
        // It may have ended meanwhile: then it need not be told.
        if sent.is_err() && crate::procfs::stat(self.pid1).is_none() { Ok(()) } else { sent.map(drop) }
    }
}

impl Drop for Contained {
    fn drop(&mut self) {
        if !self.id.is_empty() {
            let _ = self.command(&["rm".into(), "--force".into(), self.id.clone().into()]);
        }
    }
}

impl Own {
    fn start(words: &[OsString]) -> Result<Self, Trouble> {
        let is_root = geteuid().is_root();
        let map = (!is_root).then(|| (geteuid().as_raw(), getegid().as_raw()));
        let mut namespaces = CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS;
        namespaces.set(CloneFlags::CLONE_NEWUSER, !is_root);
        let pipe = || pipe2(OFlag::O_CLOEXEC).map_err(failed("pipe2(O_CLOEXEC)"));
        let ((go_read, go), (output, print), (told, tell)) = (pipe()?, pipe()?, pipe()?);
        let list = words.iter().map(|word| CString::new(word.as_bytes())).collect::<Result<Vec<_>, _>>()?;
        match fork_into(namespaces.bits()).map_err(|errno| {
            Trouble(format!("clone(CLONE_NEWPID|CLONE_NEWNS): {errno}: run it as root, or allow user namespaces"))
        })? {
            Forked::Parent(started) => {
                drop((print, tell));
                let own = Self {
                    words: words.to_vec(),
                    pid1: started.pid,
                    output: output.into(),
                    text: Vec::new(),
                    ended: None,
                };
                fcntl(&own.output, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(failed("fcntl(O_NONBLOCK)"))?;
                File::from(go).write_all(&[0])?;
                let mut why = String::new();
                File::from(told).read_to_string(&mut why)?;
                if why.is_empty() { Ok(own) } else { Err(Trouble(why)) }
            }
            Forked::Child => {
                drop((output, told, go));
                let Err(why) = enter(&go_read, map).and_then(|()| become_pid1(&list, &print));
                let _ = File::from(tell).write_all(why.to_string().as_bytes());
                exit(127);
            }
        }
    }

    fn is_over(&mut self) -> Result<bool, Trouble> {
        if self.ended.is_none() {
            self.ended = match waitpid(Pid::from_raw(self.pid1), Some(WaitPidFlag::WNOHANG))? {
                WaitStatus::Exited(_, code) => Some(code),
                WaitStatus::Signaled(_, signal, _) => Some(128 + signal as i32),
                _ => None,
            };
        }
        Ok(self.ended.is_some())
    }

    fn drain(&mut self) {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = self.output.read(&mut buffer) {
            self.text.extend(buffer.iter().take(count));
        }
        // What is looked for is near the end.
        let surplus = self.text.len().saturating_sub(1 << 20);
        self.text.drain(..surplus);
    }
}

/// As an engine starts it: a session of its own, nothing to read, no signal ignored.
fn become_pid1(words: &[CString], print: &OwnedFd) -> Result<Infallible, Trouble> {
    setsid()?;
    dup2_stdin(File::open("/dev/null")?)?;
    dup2_stdout(print)?;
    dup2_stderr(print)?;
    for signal in Signal::all() {
        set_disposition(signal, Disposition::Default);
    }
    let program = words.first().ok_or_else(|| Trouble("no command".into()))?;
    execvp(program, words).map_err(|errno| Trouble(format!("execve({program:?}): {errno}")))
}

impl Drop for Own {
    fn drop(&mut self) {
        if self.ended.is_none() {
            // PID 1 takes all of its namespace along.
            let _ = kill(self.pid1, Some(Signal::KILL));
            let _ = waitpid(Pid::from_raw(self.pid1), None);
        }
    }
}

/// The name of a program, without its folder.
pub fn base_name(word: &str) -> &str {
    std::path::Path::new(word).file_name().and_then(OsStr::to_str).unwrap_or(word)
}
