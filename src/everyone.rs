//! Signals to all that is left: as PID 1 to the whole namespace, otherwise to our own descendants and nobody else (T2).
#![forbid(unsafe_code)]

use std::os::fd::AsFd;

use log::{info, warn};

use crate::procfs::{self, Stat};
use crate::signal::Signal;
use crate::sys::process::pidfd_open;
use crate::sys::signal::{Scope, kill, send_to_pidfd};
use crate::sys::{Errno, errno_name};

/// How often all processes are looked at again because there were new ones: a fork races with the look.
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
        let mut done = Done::default();
        for _ in 0..PASSES {
            let mut is_news = false;
            let listed = procfs::each(|pid| {
                let Some(stat) = procfs::stat(pid) else { return };
                if !done.contains(pid, stat) && procfs::is_below(stat, pid, self.own) {
                    is_news = true;
                    done.note(pid, stat);
                    send_to_one(pid, stat, signal);
                }
            });
            if listed.is_none() {
                info!("no /proc: {signal} reaches no leftovers");
                return;
            }
            if !is_news || done.is_full {
                return;
            }
        }
    }

    /// Whether there are processes in our PID namespace that are none of our descendants, such as docker exec's.
    pub fn has_strangers(&self) -> bool {
        self.is_pid1 && kill(-1, None) != Err(Errno::ESRCH)
    }
}

/// Those who got the signal.
#[derive(Default)]
struct Done {
    those: Vec<(i32, u64)>,
    /// There is no memory for more.
    is_full: bool,
}

impl Done {
    fn note(&mut self, pid: i32, seen: Stat) {
        // An allocation that fails would end PID 1; one that may fail only ends the search for newcomers.
        if self.those.try_reserve(1).is_ok() {
            self.those.push((pid, seen.start));
        } else {
            self.is_full = true;
        }
    }

    fn contains(&self, pid: i32, seen: Stat) -> bool {
        self.those.contains(&(pid, seen.start))
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
