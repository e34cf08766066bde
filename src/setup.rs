//! The steps before the command runs, in their order, and nothing else. A step that fails stops everything, and what
//! was done is undone.
//!
//! Where some process must be new (a PID, user or time namespace) there are two of us from the clone on: the one outside
//! does what only the outside can, and supervises the one inside like any command; the one inside goes on to start the
//! command. Neither outlives the other.
#![forbid(unsafe_code)]

pub mod capability;
pub mod cgroup;
pub mod credentials;
pub mod environment;
pub mod idmap;
pub mod limits;
pub mod mount;
pub mod namespaces;
pub mod network;
pub mod seccomp;
pub mod step;

use std::ffi::OsStr;
use std::fmt::{self, Write};
use std::io::{ErrorKind, Read, Write as _};
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{Pid, pipe2, setpgid};

use crate::signal::Signal;
use crate::sys::Errno;
use crate::sys::action::Action;
use crate::sys::process::{self, Forked, Started, fork_into, set_parent_death_signal};
use namespaces::{Kind, Kinds};
use step::{SetupError, State, Step, Steps};

/// Everything that can be asked of the setup.
#[derive(Default, Debug)]
pub struct Setup {
    /// Namespaces.
    pub namespaces: namespaces::Wanted,
    /// Who is who in a user namespace.
    pub idmap: idmap::Wanted,
    /// Mounts.
    pub mounts: mount::Wanted,
    /// Cgroups.
    pub cgroup: cgroup::Wanted,
    /// Network devices.
    pub network: network::Wanted,
    /// Who the command runs as, and what it may.
    pub credentials: credentials::Wanted,
    /// Limits of the process itself.
    pub limits: limits::Wanted,
    /// The command's environment.
    pub environment: environment::Wanted,
    /// The system calls that the command may make.
    pub seccomp: seccomp::Wanted,
}

impl Setup {
    /// Finds wrong combinations, before anything is done.
    pub fn check(&self) -> Result<(), String> {
        self.namespaces.check()?;
        self.idmap.check(self.namespaces.unshare.has(Kind::User))?;
        self.mounts.check(&self.namespaces)?;
        self.cgroup.check()?;
        self.network.check(&self.namespaces)?;
        self.credentials.check()?;
        self.limits.check()?;
        self.seccomp.check()
    }

    /// Whether something is asked that the command's own process would do, besides being in namespaces.
    pub fn concerns_command(&self) -> bool {
        let steps = [
            self.environment.outside(),
            self.cgroup.command(),
            self.mounts.command(),
            self.limits.command(),
            self.credentials.command(),
            self.seccomp.command(&self.credentials),
        ];
        steps.iter().any(|steps| !steps.is_empty())
    }
}

/// Which of the two we are after the setup.
pub enum Side {
    /// There is one process only.
    Only,
    /// Inside.
    Inside,
    /// Outside: this process is to be supervised, and the pipe held until the end.
    Outside(Started, OwnedFd),
}

/// The steps of one setup, by where they are done, and what they have made.
pub struct Stage<'a> {
    /// By the process that was started, before anything is new.
    outside: Steps<'a>,
    /// The namespaces of the clone between the two; `None`: there is one process only.
    clone: Option<Kinds>,
    /// By the one outside, while the one inside waits.
    between: Steps<'a>,
    /// By the one inside, or the only one.
    inside: Steps<'a>,
    /// What was made.
    pub state: State,
}

impl<'a> Stage<'a> {
    /// The order of everything: each line has its reason.
    pub fn of(setup: &'a Setup) -> Self {
        let wanted = &setup.namespaces;
        let (mut outside, mut between, mut inside): (Steps<'a>, Steps<'a>, Steps<'a>) = Default::default();
        // A hard limit cannot be raised, nor the OOM score lowered, inside a user namespace.
        outside.extend(setup.limits.outside());
        // Files that are named out here are read out here.
        outside.extend(setup.environment.outside());
        outside.extend(setup.seccomp.outside());
        // Out here are the cgroups; made, and their limits written, before anyone is in them.
        outside.extend(setup.cgroup.outside());
        if !wanted.join.is_empty() {
            outside.push(Box::new(namespaces::OpenJoined(wanted)));
            // Those that show what was opened so far under other paths come last.
            for kind in Kind::ALL.into_iter().filter(|kind| wanted.joins(*kind) && *kind != Kind::Mount) {
                outside.push(Box::new(namespaces::Join(wanted, kind)));
            }
        }
        let rest = wanted.unshare.without(Kind::Time).without(Kind::Cgroup);
        let two = wanted.need_two() || setup.network.needs_outside();
        if !two && !rest.is_empty() {
            outside.push(Box::new(namespaces::Unshare(rest)));
        }
        if wanted.unshare.has(Kind::User) {
            between.push(Box::new(idmap::Write(&setup.idmap)));
        }
        between.extend(setup.network.between());
        // Behind the maps: the files of who may not be traced are root's.
        between.extend(setup.seccomp.between());

        if wanted.own(Kind::User) {
            inside.push(Box::new(idmap::BecomeRoot));
        }
        // With what a new user namespace permits, and while /proc is the one that shows this process.
        if wanted.unshare.has(Kind::Time) {
            inside.push(Box::new(namespaces::UnshareTime(wanted)));
        }
        if wanted.joins(Kind::Mount) {
            inside.push(Box::new(namespaces::Join(wanted, Kind::Mount)));
        }
        inside.extend(setup.network.inside(wanted));
        inside.extend(setup.mounts.inside(wanted));
        if let Some(name) = &wanted.hostname {
            inside.push(Box::new(namespaces::Hostname(name)));
        }
        if let Some(name) = &wanted.domainname {
            inside.push(Box::new(namespaces::Domainname(name)));
        }
        // From here on the steps prepare what the command does to itself before its exec, in this order.
        inside.extend(setup.cgroup.command());
        if wanted.unshare.has(Kind::Cgroup) {
            inside.push(Box::new(namespaces::UnshareCgroup));
        }
        inside.extend(setup.mounts.command());
        inside.extend(setup.limits.command());
        // Without no_new_privs a filter needs CAP_SYS_ADMIN, which goes with the credentials (seccomp(2)).
        let filter_first = !setup.credentials.no_new_privileges();
        if filter_first {
            inside.extend(setup.seccomp.command(&setup.credentials));
        }
        inside.extend(setup.credentials.command());
        if two && !wanted.unshare.has(Kind::Pid) {
            // No PID namespace ends with sexton, so the command must. A change of credentials would clear it.
            inside.push(Box::new(DieWithParent));
        }
        if !filter_first {
            inside.extend(setup.seccomp.command(&setup.credentials));
        }
        Self { outside, clone: two.then_some(rest), between, inside, state: State::default() }
    }

    /// Does all steps. If one fails, those before it are undone.
    pub fn run(&mut self) -> Result<Side, SetupError> {
        let result = self.run_all();
        // The one inside has nothing to undo: what it made ends with it.
        if result.is_err() && !self.state.is_inside {
            self.undo();
        }
        result
    }

    fn run_all(&mut self) -> Result<Side, SetupError> {
        run_each(&self.outside, &mut self.state)?;
        let Some(kinds) = self.clone else {
            run_each(&self.inside, &mut self.state)?;
            return Ok(Side::Only);
        };
        // One byte says "go on"; its end says that the other side is dead.
        let (go, held) = pipe2(OFlag::O_CLOEXEC)
            .map_err(|errno| SetupError::call("pipe2(O_CLOEXEC)", errno, "too few descriptors; raise RLIMIT_NOFILE"))?;
        match fork_into(kinds.flags()).map_err(|errno| namespaces::clone_failed(kinds, errno))? {
            Forked::Parent(started) => {
                drop(go);
                // Both sides do it, so that it is done whoever comes first.
                let pid = Pid::from_raw(started.pid);
                let _ = setpgid(pid, pid);
                self.state.inside = Some(started.pid);
                if let Err(error) = run_each(&self.between, &mut self.state) {
                    // Waiting for the word to go on, it sees that none will come.
                    drop(held);
                    process::wait_gone(started.pid);
                    return Err(error);
                }
                let mut word = std::fs::File::from(held);
                match word.write_all(b"!") {
                    // Its end is told as any.
                    Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                        drop(word);
                        process::wait_gone(started.pid);
                        Err(SetupError::io("write(pipe, \"!\")", &error, "a seccomp filter may forbid it"))
                    }
                    _ => Ok(Side::Outside(started, word.into())),
                }
            }
            Forked::Child => {
                drop(held);
                self.state.is_inside = true;
                let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
                let mut go = std::fs::File::from(go);
                if let Err(error) = go.read_exact(&mut [0]) {
                    if error.kind() == ErrorKind::UnexpectedEof {
                        process::exit(128 + 9);
                    }
                    return Err(SetupError::io("read(pipe)", &error, "a seccomp filter may forbid it"));
                }
                // From here on only one of the two can fail, and so only one tells.
                die_with_parent()?;
                run_each(&self.inside, &mut self.state)?;
                // A change of credentials has cleared it; if the other one died meanwhile, its end of the pipe is gone.
                die_with_parent()?;
                let mut set = [PollFd::new(go.as_fd(), PollFlags::empty())];
                if poll(&mut set, PollTimeout::ZERO).is_ok_and(|ready| ready > 0) {
                    process::exit(128 + 9);
                }
                Ok(Side::Inside)
            }
        }
    }

    /// Takes back what does not go away by itself.
    pub fn undo(&mut self) {
        for step in self.between.iter().chain(&self.outside).rev() {
            step.undo(&mut self.state);
        }
    }

    /// The whole plan in words, up to this command's start; `None`: there is none.
    pub fn explain(&self, command: Option<&OsStr>) -> String {
        let mut text = String::new();
        let mut number = 0;
        let mut section = |text: &mut String, title: &str, steps: &Steps<'_>| {
            if !steps.is_empty() {
                let _ = writeln!(text, "{title}:");
            }
            for step in steps {
                number += 1;
                let _ = writeln!(text, "{number:4}  {step}");
            }
        };
        section(&mut text, "sexton", &self.outside);
        if let Some(kinds) = self.clone {
            let _ = writeln!(text, "then a second sexton is started, in new namespaces: {kinds}");
            section(&mut text, "the first sexton, while the second waits", &self.between);
            section(&mut text, "the second sexton", &self.inside);
        } else {
            section(&mut text, "and", &self.inside);
        }
        if let Some(command) = command {
            let _ = writeln!(text, "then {} is started", command.display());
        }
        text
    }
}

fn run_each(steps: &Steps<'_>, state: &mut State) -> Result<(), SetupError> {
    steps.iter().try_for_each(|step| step.run(state))
}

/// KILL comes when the one outside dies.
fn die_with_parent() -> Result<(), SetupError> {
    set_parent_death_signal(Signal::KILL).map_err(|errno: Errno| {
        SetupError::call("prctl(PR_SET_PDEATHSIG, KILL)", errno, "a seccomp filter may forbid it")
    })
}

/// The command gets KILL when sexton dies.
struct DieWithParent;

impl Step for DieWithParent {
    fn run(&self, state: &mut State) -> Result<(), SetupError> {
        state.actions.push(Action::DieWithParent(Signal::KILL));
        Ok(())
    }
}

impl fmt::Display for DieWithParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the command dies when sexton does")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n1_where_nothing_is_asked_nothing_is_done() {
        let setup = Setup::default();
        let stage = Stage::of(&setup);
        assert!(stage.outside.is_empty() && stage.clone.is_none() && stage.between.is_empty());
        assert!(stage.inside.is_empty(), "a step may cost system calls");
        assert_eq!(stage.explain(Some("true".as_ref())), "then true is started\n");
    }
}
