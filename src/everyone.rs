//! Signals to all that is left: as PID 1 to the whole namespace, otherwise to our own descendants and nobody else (T2).
#![forbid(unsafe_code)]

use std::os::fd::AsFd;

use log::{info, warn};

use crate::procfs::{self, Stat};
use crate::signal::Signal;
use crate::sys::process::pidfd_open;
use crate::sys::signal::{Scope, kill, send_to_pidfd};
use crate::sys::{Errno, errno_name};

/// How often all descendants are looked up again because there are new ones: a fork races with the look.
const PASSES: usize = 8;

/// Those below us.
#[derive(Clone, Copy, Debug)]
pub struct Everyone {
    is_pid1: bool,
    own: i32,
}

impl Everyone {
    /// Everyone below the process `own`.
    pub fn new(is_pid1: bool, own: i32) -> Self {
        Self { is_pid1, own }
    }

    /// Sends `signal` to each, once. What cannot be signalled is told and survived.
    pub fn send(&self, signal: Signal) {
        if self.is_pid1 {
            if let Err(errno @ Errno::EPERM) = kill(-1, Some(signal)) {
                warn!("kill(-1, {signal}): {}: what is left belongs to other users", errno_name(errno));
            }
            return;
        }
        let mut done: Vec<(i32, u64)> = Vec::new();
        for _ in 0..PASSES {
            let Some(all) = procfs::descendants(self.own) else {
                info!("no /proc: {signal} reaches no leftovers");
                return;
            };
            let fresh: Vec<_> = all.iter().filter(|(pid, stat)| !done.contains(&(*pid, stat.start))).collect();
            if fresh.is_empty() {
                return;
            }
            for (pid, stat) in fresh {
                done.push((*pid, stat.start));
                send_to_one(*pid, *stat, signal);
            }
        }
    }

    /// Whether there are processes in our PID namespace that are none of our descendants, such as docker exec's.
    pub fn has_strangers(&self) -> bool {
        self.is_pid1 && kill(-1, None) != Err(Errno::ESRCH)
    }
}

/// Signals the process that was seen under this number, and none that got the number since.
fn send_to_one(pid: i32, seen: Stat, signal: Signal) {
    let sent = match pidfd_open(pid) {
        Ok(pidfd) => {
            // The pidfd holds on to whoever has the number now; if that one started when the other did, it is the other.
            if procfs::stat(pid).map(|stat| stat.start) != Some(seen.start) {
                return;
            }
            match send_to_pidfd(pidfd.as_fd(), Some(signal), None, Scope::Process) {
                Err(Errno::ENOSYS | Errno::EPERM) => kill(pid, Some(signal)),
                other => other,
            }
        }
        Err(Errno::ESRCH) => return,
        // No pidfds here: the time between the look and the call is short.
        Err(_) => kill(pid, Some(signal)),
    };
    if let Err(errno) = sent
        && errno != Errno::ESRCH
    {
        warn!("kill({pid}, {signal}): {}: it could not be signalled", errno_name(errno));
    }
}
