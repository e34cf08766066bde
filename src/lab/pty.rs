//! A terminal: its master side is ours, its slave side an init's.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::pty::openpty;
use nix::unistd::{setsid, tcgetpgrp, tcsetpgrp};

use super::Trouble;
use super::container::failed;
use crate::sys::lab::container::{set_window, take_terminal};

/// Ctrl-C.
pub const INTERRUPT: &str = "\x03";
/// Ctrl-\.
pub const QUIT: &str = "\x1c";
/// Ctrl-Z.
pub const SUSPEND: &str = "\x1a";

/// A pseudo-terminal that somebody sits at.
pub struct Pty {
    master: File,
    slave: OwnedFd,
}

impl Pty {
    /// A new one. An error: there is no `/dev/ptmx`, or no `/dev/pts`.
    pub fn open() -> Result<Self, Trouble> {
        let pair = openpty(None, None).map_err(failed("openpty()"))?;
        for descriptor in [&pair.master, &pair.slave] {
            fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map_err(failed("fcntl(FD_CLOEXEC)"))?;
        }
        Ok(Self { master: pair.master.into(), slave: pair.slave })
    }

    /// The slave side, once more.
    pub fn slave(&self) -> Result<OwnedFd, Trouble> {
        Ok(self.slave.try_clone()?)
    }

    /// Makes it our own controlling terminal, as a shell's is: we lead a session, and no init may take it from us.
    pub fn become_shell(&self) -> Result<(), Trouble> {
        setsid().map_err(failed("setsid()"))?;
        take_terminal(self.slave.as_fd()).map_err(failed("ioctl(TIOCSCTTY)"))
    }

    /// Types.
    pub fn write(&mut self, text: &str) -> Result<(), Trouble> {
        Ok(self.master.write_all(text.as_bytes())?)
    }

    /// The foreground group; 0: none that we can see.
    pub fn foreground(&self) -> i32 {
        let asked = if tcgetpgrp(&self.slave).is_ok() { tcgetpgrp(&self.slave) } else { tcgetpgrp(&self.master) };
        asked.map_or(0, nix::unistd::Pid::as_raw)
    }

    /// Makes a group of our session the foreground, as a shell's `fg` does.
    pub fn set_foreground(&self, group: i32) -> Result<(), Trouble> {
        tcsetpgrp(&self.slave, nix::unistd::Pid::from_raw(group)).map_err(failed("tcsetpgrp()"))
    }

    /// Changes the window's size.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<(), Trouble> {
        set_window(self.master.as_fd(), rows, columns).map_err(failed("ioctl(TIOCSWINSZ)"))
    }

    /// The slave side's path.
    pub fn path(&self) -> Result<std::path::PathBuf, Trouble> {
        Ok(std::fs::read_link(format!("/proc/self/fd/{}", self.slave.as_raw_fd()))?)
    }

    /// Nobody sits there any more.
    pub fn hang_up(self) {
        drop(self);
    }
}
