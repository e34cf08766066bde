//! What a step of the setup is, what steps share, and how a failed one is told.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::fmt::{self, Display};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::cgroup::Group;
use super::environment::Environment;
use super::seccomp::Filter;
use crate::sys::action::Action;
use crate::sys::{Errno, errno_name};

/// One step. Its words ([`Display`]) are what `--explain` prints.
pub trait Step: Display {
    /// Does it.
    fn run(&self, state: &mut State) -> Result<(), SetupError>;

    /// Takes it back: after a later step failed, and at the end. What goes away by itself needs none.
    fn undo(&self, _state: &mut State) {}
}

/// Steps in their order.
pub type Steps<'a> = Vec<Box<dyn Step + 'a>>;

/// What the steps have made so far.
#[derive(Default, Debug)]
pub struct State {
    /// What the new process does between clone and exec.
    pub actions: Vec<Action>,
    /// This is the process inside.
    pub is_inside: bool,
    /// The process inside, to the one outside.
    pub inside: Option<i32>,
    /// The command's cgroups.
    pub group: Option<Group>,
    /// Namespaces to join, opened as long as their paths meant what was meant.
    pub namespaces: Vec<OwnedFd>,
    /// The network that a link without an end out here was moved into.
    pub network: Option<OwnedFd>,
    /// The new root, and what is to be mounted in it.
    pub mounts: super::mount::Made,
    /// The command's environment.
    pub environment: Environment,
    /// Who the command runs as, looked up.
    pub user: Option<u32>,
    /// The /proc of outside.
    pub proc: Option<OwnedFd>,
    /// The command's filter, read outside.
    pub filter: Option<Filter>,
}

impl State {
    /// Lets go of what only the command's start needed, before all descriptors that are not kept are closed.
    pub fn release(&mut self) {
        self.actions.clear();
        self.namespaces.clear();
        self.mounts = super::mount::Made::default();
        self.proc = None;
        // The process inside undoes nothing, and a lock that it held would outlive the one outside.
        self.group.take_if(|_| self.is_inside);
    }

    /// Descriptors that are needed until the end.
    pub fn kept(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.group.iter().flat_map(Group::descriptors).chain(self.network.iter().map(AsFd::as_fd))
    }
}

/// A step that failed: the call with its arguments, the error's name, and the way out.
#[derive(Debug)]
pub struct SetupError(Box<Told>);

/// Boxed, so that a result is one word wherever it is passed on.
#[derive(Debug)]
struct Told {
    call: String,
    errno: Option<Errno>,
    advice: Cow<'static, str>,
}

impl SetupError {
    /// A system call failed.
    pub fn call(call: impl Into<String>, errno: Errno, advice: impl Into<Cow<'static, str>>) -> Self {
        let advice = match errno {
            // Whatever the call was.
            Errno::EMFILE => "too few descriptors; raise RLIMIT_NOFILE (ulimit -n)".into(),
            _ => advice.into(),
        };
        Self::new(call.into(), Some(errno), advice)
    }

    /// The same, as the standard library tells it.
    pub fn io(call: impl Into<String>, error: &io::Error, advice: impl Into<Cow<'static, str>>) -> Self {
        match error.raw_os_error() {
            Some(errno) => Self::call(call, Errno::from_raw(errno), advice),
            None => Self::found(call, advice),
        }
    }

    /// Something is not as it must be.
    pub fn found(what: impl Into<String>, advice: impl Into<Cow<'static, str>>) -> Self {
        Self::new(what.into(), None, advice.into())
    }

    #[cold]
    fn new(call: String, errno: Option<Errno>, advice: Cow<'static, str>) -> Self {
        Self(Box::new(Told { call, errno, advice }))
    }
}

impl Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Told { call, errno, advice } = &*self.0;
        f.write_str(call)?;
        if let Some(errno) = errno {
            write!(f, ": {}", errno_name(*errno))?;
        }
        write!(f, ": {advice}")
    }
}
