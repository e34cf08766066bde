//! The controlling terminal's foreground: handed to the command, and taken back. [`crate::supervise::terminal`] decides.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, getpgrp, tcgetpgrp, tcsetpgrp};

use crate::signal::Signal;
use crate::supervise::terminal::{Facts, hands_over};
use crate::sys::signal::{SignalSet, kill, take_pending};
use crate::sys::{Errno, fd, process};

/// The terminal whose foreground the command has from us. SIGTTOU must be blocked.
pub struct Foreground(OwnedFd);

impl Foreground {
    /// The controlling terminal, if its foreground is ours to give.
    pub fn ours() -> Option<Self> {
        let facts =
            |foreground: Option<Pid>| Facts { foreground: foreground.map(Pid::as_raw), own_group: getpgrp().as_raw() };
        for standard in fd::all_standard() {
            if let Ok(foreground) = tcgetpgrp(standard) {
                let own = hands_over(facts(Some(foreground))).then(|| fd::duplicate(standard)).flatten();
                return own.map(Self);
            }
        }
        let own = open("/dev/tty", OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NOCTTY, Mode::empty()).ok()?;
        hands_over(facts(tcgetpgrp(&own).ok())).then_some(Self(own))
    }

    /// Hands it to a group.
    pub fn give(&self, group: i32) {
        let _ = tcsetpgrp(&self.0, Pid::from_raw(group));
    }

    /// Makes our own group the foreground again, if it is the command's `group`.
    pub fn take_back(&self, group: Option<i32>) {
        // The command may have passed it on to a group that is gone by now; never take it from one that lives.
        let is_the_commands = |now: i32| Some(now) == group || kill(-now, None) == Err(Errno::ESRCH);
        if let Ok(now) = tcgetpgrp(&self.0)
            && is_the_commands(now.as_raw())
        {
            self.give(getpgrp().as_raw());
        }
    }

    /// Stops ourselves, as the command's `group` has stopped; once continued, both go on.
    pub fn suspend(&self, group: i32) {
        self.take_back(Some(group));
        process::suspend();
        // The CONT that woke us is meant for both; the command gets it here, with its whole group, and only once.
        take_pending(SignalSet::only(Signal::CONT));
        // In the background (a shell's bg) the terminal is not ours to give; the shell's fg comes later, with CONT.
        if tcgetpgrp(&self.0) == Ok(getpgrp()) {
            self.give(group);
        }
        let _ = kill(-group, Some(Signal::CONT));
    }
}

impl AsFd for Foreground {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
