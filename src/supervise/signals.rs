//! What a signal that arrived means: something for the command, news of a child, or our own doing.
#![forbid(unsafe_code)]

use crate::signal::Signal;
use crate::sys::signal::Queued;

/// A signal that sexton received.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Received {
    /// Which.
    pub signal: Signal,
    /// Why, as `si_code` (sigaction(2)): 0 by kill, -1 by sigqueue, above 0 by the kernel.
    pub code: i32,
    /// The sender, or for a SIGCHLD of the kernel the child; 0 if outside our PID namespace.
    pub pid: i32,
    /// The sender's user id.
    pub uid: u32,
    /// What sigqueue sent along.
    pub value: u64,
}

/// What it means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Meaning {
    /// To be forwarded.
    Forward(Forward),
    /// The kernel tells that this child ended, stopped or continued.
    ChildChanged(i32),
    /// Sexton caused it: SIGPIPE of its log, HUP and CONT of a terminal given away.
    Own,
}

/// A signal on its way to the command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Forward {
    /// Which.
    pub signal: Signal,
    /// Its load, if it was sent with one.
    pub queued: Option<Queued>,
    /// Who sent it; 0: outside our PID namespace, or the kernel.
    pub sender: i32,
    /// The sender's user id.
    pub uid: u32,
    /// Why it came, as `si_code`.
    pub code: i32,
}

impl Forward {
    /// Whether the kernel sent it, for a terminal's key for example.
    pub fn by_kernel(&self) -> bool {
        self.code > 0
    }
}

/// Decides what `received` means to the process with the pid `own`.
pub fn meaning(received: Received, own: i32) -> Meaning {
    let by_process = received.code <= 0;
    if received.signal == Signal::CHLD && !by_process {
        return Meaning::ChildChanged(received.pid);
    }
    if by_process && received.pid == own {
        return Meaning::Own;
    }
    // SI_TKILL names a thread, and carries no value; positive codes are the kernel's.
    let valued = received.code < 0 && received.code != libc::SI_TKILL;
    let queued = valued.then_some(Queued { pid: received.pid, uid: received.uid, value: received.value });
    Meaning::Forward(Forward {
        signal: received.signal,
        queued,
        sender: received.pid,
        uid: received.uid,
        code: received.code,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: i32 = 1;

    fn received(signal: Signal, code: i32, pid: i32) -> Received {
        Received { signal, code, pid, uid: 7, value: 99 }
    }

    #[test]
    fn s2_every_signal_that_a_process_sends_is_forwarded() {
        for signal in Signal::all() {
            for (code, value) in [(libc::SI_USER, None), (libc::SI_QUEUE, Some(99)), (libc::SI_TKILL, None)] {
                let Meaning::Forward(forward) = meaning(received(signal, code, 0), OWN) else {
                    panic!("{signal} with code {code}");
                };
                assert_eq!((forward.signal, forward.queued.map(|q| q.value)), (signal, value));
            }
        }
    }

    #[test]
    fn s2_only_the_kernels_chld_is_news_of_a_child() {
        assert_eq!(meaning(received(Signal::CHLD, libc::CLD_EXITED, 9), OWN), Meaning::ChildChanged(9));
        assert!(matches!(meaning(received(Signal::CHLD, libc::SI_USER, 9), OWN), Meaning::Forward(_)));
    }

    #[test]
    fn s5_what_sexton_caused_is_not_forwarded() {
        for signal in [Signal::PIPE, Signal::HUP, Signal::CONT] {
            assert_eq!(meaning(received(signal, libc::SI_USER, OWN), OWN), Meaning::Own);
        }
        // The terminal's own signals come from the kernel and are for the command.
        assert!(matches!(meaning(received(Signal::HUP, libc::SI_KERNEL, 0), OWN), Meaning::Forward(_)));
    }
}
