//! How a container ends: what is forwarded and when, what becomes of leftovers, when sexton may go.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use super::signals::Forward;
use crate::signal::Signal;

/// How long sexton waits for what it has KILLed: a process in uninterruptible sleep may outlast any patience.
const KILL_PATIENCE: Duration = Duration::from_secs(2);

/// The rules, fixed at the start.
#[derive(Clone, Debug)]
pub struct Rules {
    /// How long leftovers have after TERM; zero: they get none.
    pub grace: Duration,
    /// How long the command has after the first stop signal.
    pub kill_after: Option<Duration>,
    /// How long a first TERM is held.
    pub stop_delay: Duration,
    /// Leftovers are waited for, not signalled.
    pub wait: bool,
    /// At the command's end its group gets TERM, and sexton goes.
    pub term_group_at_end: bool,
    /// There is no command: TERM and INT end sexton.
    pub pause: bool,
}

/// What the loop has to do now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Nothing.
    Nothing,
    /// Send this to the command (or its group).
    Forward(Forward),
    /// Send this to all leftovers.
    ForwardToAll(Forward),
    /// All leftovers get TERM, then CONT.
    TermAll,
    /// Everything gets KILL.
    KillAll,
    /// The command's group gets TERM; then go.
    TermGroupAndFinish,
    /// Act as if a command had ended with 0.
    EndPause,
    /// Go.
    Finish,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Running,
    /// The command has ended, leftovers have TERM, and time until then.
    Draining(Instant),
    /// The command has ended, leftovers may stay.
    Waiting,
    /// Everything has KILL.
    Killing(Instant),
    Finished,
}

/// Where the container is on its way to the end.
#[derive(Clone, Debug)]
pub struct Stop {
    rules: Rules,
    phase: Phase,
    held: Option<(Instant, Forward)>,
    kill_at: Option<Instant>,
}

impl Stop {
    /// At the start.
    pub fn new(rules: Rules) -> Self {
        Self { rules, phase: Phase::Running, held: None, kill_at: None }
    }

    /// A signal is to be forwarded. `asked` is the signal as it came, before any rewriting.
    pub fn on_signal(&mut self, asked: Signal, forward: Forward, now: Instant) -> Step {
        match self.phase {
            Phase::Running if self.rules.pause => {
                if matches!(asked, Signal::TERM | Signal::INT) {
                    Step::EndPause
                } else {
                    Step::Nothing
                }
            }
            Phase::Running => {
                if asked == Signal::TERM && !self.rules.stop_delay.is_zero() && self.held.take().is_none() {
                    self.held = Some((now + self.rules.stop_delay, forward));
                    return Step::Nothing;
                }
                self.start_clock(asked, forward, now);
                Step::Forward(forward)
            }
            Phase::Draining(_) => Step::ForwardToAll(forward),
            Phase::Waiting => {
                self.start_clock(asked, forward, now);
                Step::ForwardToAll(forward)
            }
            Phase::Killing(_) | Phase::Finished => Step::Nothing,
        }
    }

    fn start_clock(&mut self, asked: Signal, forward: Forward, now: Instant) {
        if let Some(patience) = self.rules.kill_after
            && (asked.asks_to_stop() || forward.signal.asks_to_stop())
        {
            self.kill_at.get_or_insert(now + patience);
        }
    }

    /// The command (or the pause) has ended.
    pub fn on_end(&mut self, now: Instant) -> Step {
        self.held = None;
        if self.phase != Phase::Running {
            return Step::Nothing;
        }
        if self.rules.wait {
            self.phase = Phase::Waiting;
            Step::Nothing
        } else if self.rules.term_group_at_end {
            self.phase = Phase::Finished;
            Step::TermGroupAndFinish
        } else if self.rules.grace.is_zero() {
            self.phase = Phase::Finished;
            Step::Finish
        } else {
            self.phase = Phase::Draining(now + self.rules.grace);
            Step::TermAll
        }
    }

    /// No process is left below sexton.
    pub fn on_nothing_left(&mut self) -> Step {
        match self.phase {
            Phase::Running => Step::Nothing,
            Phase::Draining(_) | Phase::Waiting | Phase::Killing(_) | Phase::Finished => {
                self.phase = Phase::Finished;
                Step::Finish
            }
        }
    }

    /// Time has passed. To be called again until it answers [`Step::Nothing`].
    pub fn on_time(&mut self, now: Instant) -> Step {
        let passed = |deadline: Option<Instant>| deadline.is_some_and(|due| due <= now);
        if let Some((due, forward)) = self.held
            && due <= now
        {
            self.held = None;
            self.start_clock(Signal::TERM, forward, now);
            return Step::Forward(forward);
        }
        let kill = passed(self.kill_at);
        match self.phase {
            Phase::Running | Phase::Waiting if kill => self.kill(now),
            Phase::Draining(due) if kill || due <= now => self.kill(now),
            Phase::Killing(due) if due <= now => {
                self.phase = Phase::Finished;
                Step::Finish
            }
            Phase::Running | Phase::Waiting | Phase::Draining(_) | Phase::Killing(_) | Phase::Finished => Step::Nothing,
        }
    }

    fn kill(&mut self, now: Instant) -> Step {
        self.kill_at = None;
        self.phase = Phase::Killing(now + KILL_PATIENCE);
        Step::KillAll
    }

    /// When [`Stop::on_time`] is due next.
    pub fn deadline(&self) -> Option<Instant> {
        if self.phase == Phase::Finished {
            return None;
        }
        let phase = match self.phase {
            Phase::Draining(due) | Phase::Killing(due) => Some(due),
            _ => None,
        };
        [phase, self.kill_at, self.held.map(|(due, _)| due)].into_iter().flatten().min()
    }

    /// Whether the command's end is behind us, or everything was KILLed: then each child's end counts.
    pub fn is_ending(&self) -> bool {
        self.phase != Phase::Running
    }

    /// Whether processes that are no children of ours (docker exec's) are waited for, too.
    pub fn waits_for_strangers(&self) -> bool {
        matches!(self.phase, Phase::Draining(_) | Phase::Killing(_))
    }
}

#[cfg(test)]
mod tests;
