//! Watching processes: whether they have taken their signals, and whether anything still moves.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use super::LOOK_AGAIN;
use crate::lab::processes::{all, status_field};
use crate::procfs;

/// When nothing has moved in a container for so long, nothing will: longer than any init's own clock ticks (tini: 1 s).
pub const QUIET: Duration = Duration::from_millis(2500);
/// The same where an init may wait for leftovers by the clock: sexton does for 5 s.
pub const LONG_QUIET: Duration = Duration::from_secs(8);

/// A field of `/proc/PID/status` that is a set of signals.
fn mask(pid: i32, field: &str) -> Option<u64> {
    u64::from_str_radix(&status_field(pid, field)?, 16).ok()
}

/// No signal is pending that it would take, and it sleeps.
pub fn has_taken_all(pid: i32) -> bool {
    let (Some(blocked), Some(shared), Some(own)) = (mask(pid, "SigBlk"), mask(pid, "ShdPnd"), mask(pid, "SigPnd"))
    else {
        return false;
    };
    let pending = shared | own;
    match procfs::stat(pid).map(|stat| stat.state) {
        // Stopped, it takes none.
        Some(b'T') => true,
        // What is blocked for good, and not taken by anybody, stays.
        Some(b'S') => pending == 0 || (pending & !blocked == 0 && is_asleep(pid)),
        _ => false,
    }
}

/// It does not wait for a signal that is pending: that would have made it run at once.
fn is_asleep(pid: i32) -> bool {
    let sleeps = || {
        let state = procfs::stat(pid).map(|stat| stat.state);
        status_field(pid, "voluntary_ctxt_switches").filter(|_| matches!(state, Some(b'S' | b'T')))
    };
    let before = sleeps();
    (0..5).all(|_| {
        std::thread::sleep(LOOK_AGAIN);
        before.is_some() && sleeps() == before
    })
}

/// Watches all processes of our namespace but us.
pub struct Quiet {
    enough: Duration,
    since: Instant,
    next_look: Instant,
    seen: Vec<(i32, u8)>,
    /// How often in a row nothing was different: on a slow machine a single look may take longer than `enough`.
    same: u32,
}

/// How often to look while it is quiet.
const LOOKS: u32 = 20;

impl Quiet {
    /// From now on; so long is long enough.
    pub fn new(enough: Duration) -> Self {
        Self { enough, since: Instant::now(), next_look: Instant::now(), seen: Vec::new(), same: 0 }
    }

    /// Whether nobody has run, come or gone for long enough.
    pub fn lasts(&mut self) -> bool {
        if Instant::now() < self.next_look {
            return false;
        }
        let seen: Vec<_> = all().into_iter().filter_map(|pid| Some((pid, procfs::stat(pid)?.state))).collect();
        let now = Instant::now();
        self.next_look = now + self.enough / (LOOKS + 5);
        let moves = seen.iter().any(|(_, state)| matches!(state, b'R' | b'D'));
        if moves || seen != self.seen {
            (self.since, self.seen, self.same) = (now, seen, 0);
        } else {
            self.same += 1;
        }
        self.same >= LOOKS && now - self.since >= self.enough
    }
}
