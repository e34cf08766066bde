//! Mounts: what the command sees as files (mount_namespaces(7)).
#![forbid(unsafe_code)]

use std::fmt;

use nix::mount::{MsFlags, mount};

use super::namespaces::{self, Kind};
use super::step::{SetupError, State, Step, Steps};

/// What is wanted.
#[derive(Clone, Default, Debug)]
pub struct Wanted {}

impl Wanted {
    /// What goes together and what does not.
    pub fn check(&self, _namespaces: &namespaces::Wanted) -> Result<(), String> {
        Ok(())
    }

    /// In the new mount namespace.
    pub fn inside<'a>(&'a self, namespaces: &'a namespaces::Wanted) -> Steps<'a> {
        let mut steps = Steps::new();
        if namespaces.unshare.has(Kind::Mount) {
            steps.push(Box::new(Private));
            if namespaces.unshare.has(Kind::Pid) {
                steps.push(Box::new(Proc));
            }
        }
        steps
    }

    /// What the command does to itself.
    pub fn command(&self) -> Steps<'_> {
        Vec::new()
    }
}

/// What is mounted in here does not show outside, and the other way round.
struct Private;

impl Step for Private {
    fn run(&self, _: &mut State) -> Result<(), SetupError> {
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
            .map_err(|errno| SetupError::call("mount(\"/\", MS_REC|MS_PRIVATE)", errno, "the kernel refused"))
    }
}

impl fmt::Display for Private {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("mounts are private")
    }
}

/// A /proc that shows the new PID namespace.
struct Proc;

impl Step for Proc {
    fn run(&self, _: &mut State) -> Result<(), SetupError> {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("proc"), "/proc", Some("proc"), flags, None::<&str>)
            .map_err(|errno| SetupError::call("mount(\"proc\", \"/proc\")", errno, "the kernel refused"))
    }
}

impl fmt::Display for Proc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a new /proc")
    }
}
