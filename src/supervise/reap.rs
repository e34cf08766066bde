//! When to look for dead children, and who removes them: the three gears of reaping.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

/// A walk through all children is not repeated before this many times its own duration: 0.25 % of a core at the most.
const PACE: u32 = 400;
/// No zombie waits longer than this for a walk, however long a walk takes.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// A timer due sooner costs more than the walk that it is for; a signal that comes before brings the walk anyway.
const SHORTEST_TIMER: Duration = Duration::from_millis(5);
/// After this long in one walk, what still ends is left to the next one. Doubled while that is not enough.
const BUDGET: Duration = Duration::from_millis(2);

/// Who removes dead children.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gear {
    /// 1: the kernel, the instant they die; SIGCHLD is ignored, and the command's status comes from its pidfd.
    Kernel,
    /// 2: sexton, at each SIGCHLD.
    Hand,
    /// 3: sexton, looking at each one.
    EachOne,
}

/// The state of reaping.
#[derive(Clone, Debug)]
pub struct Reaper {
    gear: Gear,
    /// Whether the kernel may be asked whether it can.
    may_shift: bool,
    wanted: bool,
    not_before: Option<Instant>,
    timer: Option<Instant>,
    budget: Duration,
    last_walk: Duration,
    is_ending: bool,
}

impl Reaper {
    /// Starts by hand: the first orphan is time enough to ask the kernel.
    pub fn new(each_one: bool, may_shift: bool) -> Self {
        let gear = if each_one { Gear::EachOne } else { Gear::Hand };
        Self {
            gear,
            may_shift: may_shift && !each_one,
            wanted: false,
            not_before: None,
            timer: None,
            budget: BUDGET,
            last_walk: Duration::ZERO,
            is_ending: false,
        }
    }

    /// Who reaps now.
    pub fn gear(&self) -> Gear {
        self.gear
    }

    /// A SIGCHLD came. One can stand for many, so that a walk through all children is wanted.
    pub fn on_child_signal(&mut self) {
        self.wanted = true;
    }

    /// Whether there is reason to walk, now or later.
    pub fn walk_is_wanted(&self) -> bool {
        self.wanted
    }

    /// Whether to walk now.
    pub fn walk_is_due(&self, now: Instant) -> bool {
        self.wanted && self.not_before.is_none_or(|time| time <= now)
    }

    /// Whether a walk that has found one more may look for another.
    pub fn walk_goes_on(&self, began: Instant, now: Instant) -> bool {
        self.is_ending || now.duration_since(began) < self.budget
    }

    /// A walk is done; `all`: it found that there is no other dead child.
    pub fn on_walk(&mut self, began: Instant, ended: Instant, all: bool) {
        self.wanted = !all;
        self.budget = if all { BUDGET } else { self.budget.saturating_mul(2).min(LONGEST_PAUSE) };
        // The shorter one of two: a walk may last long only because others had the CPU meanwhile.
        let this_walk = ended.duration_since(began);
        let last_walk = std::mem::replace(&mut self.last_walk, this_walk);
        let pause = this_walk.min(last_walk).saturating_mul(PACE).min(LONGEST_PAUSE);
        self.not_before = Some(ended + pause);
        self.timer = Some(ended + pause.max(SHORTEST_TIMER));
    }

    /// When to walk if nothing else happens before; `None`: not before the next SIGCHLD.
    pub fn deadline(&self) -> Option<Instant> {
        self.timer.filter(|_| self.wanted)
    }

    /// An orphan was reaped by hand: whether to ask the kernel to do it from now on.
    pub fn should_ask_kernel(&self) -> bool {
        self.may_shift && self.gear == Gear::Hand
    }

    /// What the kernel answered.
    pub fn on_kernel_answer(&mut self, can: bool) {
        self.may_shift = false;
        if can {
            self.gear = Gear::Kernel;
            // Once more, for what died before the kernel took over.
            self.wanted = true;
        }
    }

    /// From now on each end counts: back to reaping by hand.
    pub fn on_ending(&mut self) {
        self.may_shift = false;
        self.wanted = true;
        self.is_ending = true;
        self.not_before = None;
        self.timer = None;
        if self.gear == Gear::Kernel {
            self.gear = Gear::Hand;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r1_with_few_children_a_walk_comes_at_once() {
        let mut reaper = Reaper::new(false, true);
        let now = Instant::now();
        assert!(!reaper.walk_is_due(now));
        reaper.on_child_signal();
        assert!(reaper.walk_is_due(now));
        reaper.on_walk(now, now + Duration::from_millis(4), true);
        reaper.on_child_signal();
        assert!(reaper.walk_is_due(now + Duration::from_millis(4)), "one long walk says nothing");
        reaper.on_walk(now, now + Duration::from_micros(2), true);
        assert_eq!(reaper.deadline(), None);
        reaper.on_child_signal();
        assert_eq!(reaper.deadline(), Some(now + Duration::from_micros(2) + SHORTEST_TIMER));
        assert!(!reaper.walk_is_due(now + Duration::from_micros(801)));
        assert!(reaper.walk_is_due(now + Duration::from_micros(802)));
    }

    #[test]
    fn r4_walks_are_paced_and_r1_never_for_long() {
        let mut reaper = Reaper::new(false, false);
        let now = Instant::now();
        for _ in 0..2 {
            reaper.on_child_signal();
            reaper.on_walk(now, now + Duration::from_millis(3), true);
        }
        reaper.on_child_signal();
        let due = reaper.deadline().unwrap();
        assert_eq!(due, now + Duration::from_millis(3) + LONGEST_PAUSE);
        assert!(!reaper.walk_is_due(now + LONGEST_PAUSE));
    }

    #[test]
    fn r4_a_walk_ends_though_more_die_meanwhile() {
        let mut reaper = Reaper::new(false, false);
        let now = Instant::now();
        reaper.on_child_signal();
        assert!(reaper.walk_goes_on(now, now + BUDGET / 2));
        assert!(!reaper.walk_goes_on(now, now + BUDGET));
        reaper.on_walk(now, now + BUDGET, false);
        assert!(reaper.deadline().is_some(), "the rest is still wanted");
        assert!(reaper.walk_goes_on(now, now + BUDGET), "the next one may take longer");
        reaper.on_walk(now, now, true);
        assert!(!reaper.walk_goes_on(now, now + BUDGET));
        reaper.on_ending();
        assert!(reaper.walk_goes_on(now, now + LONGEST_PAUSE), "at the end nothing matters but the end");
    }

    #[test]
    fn gears_shift_once_up_and_at_the_end_down() {
        let mut reaper = Reaper::new(false, true);
        assert!(reaper.should_ask_kernel());
        reaper.on_kernel_answer(true);
        assert_eq!((reaper.gear(), reaper.should_ask_kernel()), (Gear::Kernel, false));
        reaper.on_ending();
        assert_eq!((reaper.gear(), reaper.should_ask_kernel()), (Gear::Hand, false));
        assert!(reaper.walk_is_due(Instant::now()));
        let mut refused = Reaper::new(false, true);
        refused.on_kernel_answer(false);
        assert_eq!((refused.gear(), refused.should_ask_kernel()), (Gear::Hand, false));
        assert!(!Reaper::new(true, true).should_ask_kernel());
    }
}
