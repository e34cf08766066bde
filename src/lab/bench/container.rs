//! An init as PID 1 of a new PID namespace, with the bench's command under it; what /proc tells of it from outside.
//!
//! It dies with this handle, and with the bench however that ends: the kernel sends KILL to PID 1 when its parent dies,
//! and to all in its namespace when PID 1 does.
#![forbid(unsafe_code)]

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::CloneFlags;
use nix::sys::ptrace;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout, execv, getgid, getuid, pipe2, setsid};

use super::command::{self, Request};
use super::inits::Init;
use crate::lab::{Trouble, deny};
use crate::signal::Signal;
use crate::sys::Errno;
use crate::sys::fd::{close_inherited, write};
use crate::sys::lab::monotonic;
use crate::sys::process::{Forked, exit, fork_into, set_parent_death_signal};
use crate::sys::signal::{Scope, kill, send_to_pidfd};

/// Longer than any answer takes; only a failure waits for it.
const PATIENCE: Duration = Duration::from_mins(1);
/// How often to look whether the init sleeps.
const LOOK_AGAIN: Duration = Duration::from_micros(200);
/// What the starter tells: page faults so far, and the time, 8 bytes each, then why the exec failed, if it did.
const TOLD: usize = 16;

/// An init that runs.
pub struct Container {
    name: String,
    /// Its pid, as we see it.
    pub pid: Pid,
    /// Means it even when it is waited for; absent before Linux 5.2.
    pidfd: Option<OwnedFd>,
    requests: File,
    answers: File,
    started: Option<Started>,
    told: File,
}

/// What is known of a start.
#[derive(Clone, Copy, Debug)]
pub struct Started {
    /// From just before the exec of the init to the first instruction of its command's `main`, in nanoseconds.
    pub nanoseconds: u64,
    /// Minor page faults of the process before it became the init.
    pub faults_before: u64,
}

/// Memory, in kB.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Resident, what is shared included.
    pub rss: u64,
    /// Private and written to: what each further container costs.
    pub dirty: u64,
}

impl Container {
    /// Starts this init, and waits until its command says that it runs.
    pub fn start(init: &Init) -> Result<Self, Trouble> {
        let mut container = Self::fork(init, false)?;
        container.wait_for_start()?;
        Ok(container)
    }

    /// Starts this init, which stops at its exec for us to trace it (`PTRACE_TRACEME`).
    pub fn start_traced(init: &Init) -> Result<Self, Trouble> {
        Self::fork(init, true)
    }

    fn fork(init: &Init, traced: bool) -> Result<Self, Trouble> {
        let pipe = || pipe2(OFlag::O_CLOEXEC).map_err(failed("pipe2(O_CLOEXEC)"));
        let ((go_read, go), (told, tell)) = (pipe()?, pipe()?);
        let ((requests_read, requests), (answers, answers_write)) = (pipe()?, pipe()?);
        // In the new namespace we would be 65534: nobody is mapped yet.
        let map = (!getuid().is_root()).then(|| (getuid().as_raw(), getgid().as_raw()));
        let inside = Starter { go: go_read, tell, stdin: requests_read, stdout: answers_write, map, traced };
        let words = init.words.iter().map(|word| CString::new(word.as_bytes())).collect::<Result<Vec<_>, _>>()?;
        let mut namespaces = CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS;
        if map.is_some() {
            namespaces |= CloneFlags::CLONE_NEWUSER;
        }
        let started = match fork_into(namespaces.bits()).map_err(failed("clone(CLONE_NEWPID)"))? {
            Forked::Parent(started) => started,
            Forked::Child => {
                drop((go, told, requests, answers));
                let why = inside.become_init(init, &words);
                let _ = File::from(inside.tell).write_all(why.to_string().as_bytes());
                exit(1);
            }
        };
        drop(inside);
        File::from(go).write_all(&[0])?;
        Ok(Self {
            name: init.name.clone(),
            pid: Pid::from_raw(started.pid),
            pidfd: started.pidfd,
            requests: requests.into(),
            answers: answers.into(),
            told: told.into(),
            started: None,
        })
    }

    /// Waits until the command says that it runs.
    ///
    /// We sleep from before the exec until then, so as not to take a CPU from what is measured.
    pub fn wait_for_start(&mut self) -> Result<(), Trouble> {
        let first = self.answer();
        let mut told = Vec::new();
        if first.is_err() {
            self.kill();
        }
        self.told.read_to_end(&mut told)?;
        let number = |range| told.get(range).and_then(|bytes: &[u8]| bytes.try_into().ok()).map(u64::from_ne_bytes);
        match (first, number(0..8), number(8..TOLD)) {
            (Ok(first), Some(faults_before), Some(began)) => {
                self.started = Some(Started { nanoseconds: first.saturating_sub(began), faults_before });
                self.answer().map(drop)
            }
            (Err(trouble), Some(_), Some(_)) if told.len() <= TOLD => Err(trouble),
            _ => {
                let why = told.get(TOLD..).filter(|why| !why.is_empty()).unwrap_or(&told);
                Err(self.trouble(&String::from_utf8_lossy(why)))
            }
        }
    }

    fn kill(&self) {
        let _ = match &self.pidfd {
            Some(pidfd) => send_to_pidfd(pidfd.as_fd(), Some(Signal::KILL), None, Scope::Process),
            None => kill(self.pid.as_raw(), Some(Signal::KILL)),
        };
    }

    /// What went wrong with this init.
    pub fn trouble(&self, what: &str) -> Trouble {
        Trouble(format!("{}: {what}", self.name))
    }

    /// What is known of the start.
    pub fn started(&self) -> Result<Started, Trouble> {
        self.started.ok_or_else(|| self.trouble("it has not started"))
    }

    /// The command's next answer.
    pub fn answer(&mut self) -> Result<u64, Trouble> {
        self.answer_before(Instant::now() + PATIENCE)?.ok_or_else(|| self.trouble("no answer from its command"))
    }

    /// The command's answer, if there is one already.
    pub fn answer_now(&mut self) -> Result<Option<u64>, Trouble> {
        self.answer_before(Instant::now())
    }

    fn answer_before(&mut self, deadline: Instant) -> Result<Option<u64>, Trouble> {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        if poll(&mut [PollFd::new(self.answers.as_fd(), PollFlags::POLLIN)], timeout)? == 0 {
            return Ok(None);
        }
        let mut bytes = [0; 8];
        self.answers.read_exact(&mut bytes).map_err(|_| self.trouble("it ended, or its command did"))?;
        command::answer(bytes).map(Some).map_err(|errno| self.trouble(&format!("fork(2) in its command: {errno}")))
    }

    /// Asks something of the command; returns its answer, in nanoseconds.
    pub fn ask(&mut self, request: Request) -> Result<u64, Trouble> {
        self.requests.write_all(request.line().as_bytes())?;
        self.answer()
    }

    /// Sends HUP to the init.
    pub fn signal(&self) -> Result<(), Trouble> {
        kill(self.pid.as_raw(), Some(Signal::HUP)).map_err(failed("kill(SIGHUP)"))
    }

    /// Sends HUP to the init; returns the nanoseconds until the command's handler ran.
    pub fn signal_latency(&mut self) -> Result<u64, Trouble> {
        let sent = monotonic();
        self.signal()?;
        Ok(self.answer()?.saturating_sub(sent))
    }

    /// Whether the init sleeps: it has done what there was to do.
    pub fn sleeps(&self) -> Result<bool, Trouble> {
        Ok(self.stat(0)? == "S")
    }

    /// Waits until the init sleeps.
    pub fn settle(&self) -> Result<(), Trouble> {
        let deadline = Instant::now() + PATIENCE;
        while !self.sleeps()? {
            if Instant::now() >= deadline {
                return Err(self.trouble("it does not come to rest"));
            }
            sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    /// Minor page faults of the init since its exec.
    pub fn faults(&self) -> Result<u64, Trouble> {
        let all: u64 = self.stat(7)?.parse()?;
        Ok(all.saturating_sub(self.started()?.faults_before))
    }

    /// A field of `/proc/PID/stat`, counted from the state on (`proc_pid_stat(5)` calls that one 3).
    fn stat(&self, field: usize) -> Result<String, Trouble> {
        let text = self.proc_file("stat")?;
        let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields);
        let found = fields.split_ascii_whitespace().nth(field);
        found.map(str::to_owned).ok_or_else(|| self.trouble("/proc/PID/stat has too few fields"))
    }

    /// CPU time of the init so far, in nanoseconds; exact while it sleeps.
    pub fn cpu(&self) -> Result<u64, Trouble> {
        let text = self.proc_file("schedstat")?;
        Ok(text.split_ascii_whitespace().next().unwrap_or_default().parse()?)
    }

    /// How often the init was switched to, from `/proc/PID/status`.
    pub fn switches(&self) -> Result<u64, Trouble> {
        let text = self.proc_file("status")?;
        Ok(text.lines().filter(|line| line.contains("ctxt_switches:")).map(last_number).sum())
    }

    /// The init's memory, from `/proc/PID/smaps_rollup` (Linux 4.14).
    pub fn memory(&self) -> Result<Memory, Trouble> {
        let text = self.proc_file("smaps_rollup")?;
        let field = |name: &str| text.lines().find(|line| line.starts_with(name)).map_or(0, last_number);
        Ok(Memory { rss: field("Rss:"), dirty: field("Private_Dirty:") })
    }

    fn proc_file(&self, name: &str) -> Result<String, Trouble> {
        let path = format!("/proc/{}/{name}", self.pid);
        fs::read_to_string(&path).map_err(|error| self.trouble(&format!("open({path}): {error}")))
    }
}

/// The last number of a line such as `Rss:   12 kB`.
fn last_number(line: &str) -> u64 {
    line.split_ascii_whitespace().rev().find_map(|word| word.parse().ok()).unwrap_or(0)
}

impl Drop for Container {
    fn drop(&mut self) {
        self.kill();
        // A tracee's last stop may come first. Nothing in the namespace is left when its PID 1 is waited for.
        while waitpid(self.pid, None).is_ok_and(|status| status.pid().is_some() && !is_end(status)) {}
    }
}

fn is_end(status: nix::sys::wait::WaitStatus) -> bool {
    use nix::sys::wait::WaitStatus::{Exited, Signaled};
    matches!(status, Exited(..) | Signaled(..))
}

/// An error's text, with the call that failed.
pub fn failed(call: &'static str) -> impl Fn(Errno) -> Trouble {
    move |errno| Trouble(format!("{call}: {errno}"))
}

/// What the process that becomes the init holds.
struct Starter {
    go: OwnedFd,
    tell: OwnedFd,
    stdin: OwnedFd,
    stdout: OwnedFd,
    /// Outer user and group that become root inside a new user namespace.
    map: Option<(u32, u32)>,
    traced: bool,
}

impl Starter {
    /// Returns only if that failed, with the reason.
    fn become_init(&self, init: &Init, words: &[CString]) -> Trouble {
        if let Err(trouble) = self.prepare(init) {
            return trouble;
        }
        let Some(program) = words.first() else { return Trouble("no command".into()) };
        // The counter goes on over exec(2); what was before is taken off.
        let faults = getrusage(UsageWho::RUSAGE_SELF).map_or(0, |usage| usage.minor_page_faults());
        let told = [faults.unsigned_abs().to_ne_bytes(), monotonic().to_ne_bytes()].concat();
        let _ = write(self.tell.as_fd(), &told);
        match execv(program, words) {
            Err(errno) => Trouble(format!("execve({}): {errno}", program.to_string_lossy())),
            Ok(never) => match never {},
        }
    }

    fn prepare(&self, init: &Init) -> Result<(), Trouble> {
        set_parent_death_signal(Signal::KILL).map_err(failed("prctl(PR_SET_PDEATHSIG)"))?;
        // As an engine does; and so that no init finds our terminal and hands it on.
        setsid().map_err(failed("setsid()"))?;
        if let Some((uid, gid)) = self.map {
            fs::write("/proc/self/setgroups", "deny")?;
            fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
            fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?;
        }
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
            .map_err(failed("mount(\"/\", MS_REC|MS_PRIVATE)"))?;
        mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), None::<&str>)
            .map_err(failed("mount(\"proc\", \"/proc\")"))?;
        dup2_stdin(&self.stdin).map_err(failed("dup2(stdin)"))?;
        dup2_stdout(&self.stdout).map_err(failed("dup2(stdout)"))?;
        dup2_stderr(File::options().write(true).open("/dev/null")?).map_err(failed("dup2(stderr)"))?;
        // Of what the bench inherited nothing goes on: to some inits each descriptor is work.
        let mut own = [self.go.as_raw_fd(), self.tell.as_raw_fd()];
        own.sort_unstable();
        close_inherited(&own);
        if let Some(answer) = init.denied {
            deny::install(answer)?;
        }
        if self.traced {
            ptrace::traceme().map_err(failed("ptrace(PTRACE_TRACEME)"))?;
        }
        // If the bench died before it could be told to take us along, this end has no other.
        let mut go = [0];
        if nix::unistd::read(&self.go, &mut go) != Ok(1) {
            exit(1);
        }
        Ok(())
    }
}
