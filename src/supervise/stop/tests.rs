use super::*;

fn rules() -> Rules {
    Rules {
        grace: Duration::from_secs(5),
        kill_after: None,
        stop_delay: Duration::ZERO,
        wait: false,
        term_group_at_end: false,
        pause: false,
    }
}

fn forward(signal: Signal) -> Forward {
    Forward { signal, queued: None, sender: 0, uid: 0, code: 0 }
}

fn send(stop: &mut Stop, signal: Signal, now: Instant) -> Step {
    stop.on_signal(signal, forward(signal), now)
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn t1_leftovers_get_term_then_kill_and_sexton_goes_with_the_last() {
    let now = Instant::now();
    let mut stop = Stop::new(rules());
    assert_eq!(stop.on_nothing_left(), Step::Nothing);
    assert_eq!(stop.on_end(now), Step::TermAll);
    assert_eq!(stop.deadline(), Some(now + 5 * SECOND));
    assert_eq!(stop.on_time(now + 4 * SECOND), Step::Nothing);
    assert_eq!(stop.on_time(now + 5 * SECOND), Step::KillAll);
    assert_eq!(stop.on_time(now + 5 * SECOND), Step::Nothing);
    assert_eq!(stop.on_nothing_left(), Step::Finish);
}

#[test]
fn t1_what_cannot_be_killed_does_not_hold_sexton() {
    let now = Instant::now();
    let mut stop = Stop::new(rules());
    stop.on_end(now);
    assert_eq!(stop.on_time(now + 5 * SECOND), Step::KillAll);
    assert_eq!(stop.on_time(now + 5 * SECOND + KILL_PATIENCE), Step::Finish);
    assert_eq!(stop.deadline(), None);
}

#[test]
fn t1_no_grace_is_an_end_at_once() {
    let mut stop = Stop::new(Rules { grace: Duration::ZERO, ..rules() });
    assert_eq!(stop.on_end(Instant::now()), Step::Finish);
}

#[test]
fn t3_the_first_stop_signal_starts_the_clock() {
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT, Signal::HUP] {
        let now = Instant::now();
        let mut stop = Stop::new(Rules { kill_after: Some(2 * SECOND), ..rules() });
        assert_eq!(send(&mut stop, Signal::CONT, now), Step::Forward(forward(Signal::CONT)));
        assert_eq!(stop.deadline(), None);
        assert_eq!(send(&mut stop, signal, now), Step::Forward(forward(signal)));
        assert_eq!(send(&mut stop, signal, now + SECOND), Step::Forward(forward(signal)));
        assert_eq!(stop.on_time(now + SECOND), Step::Nothing);
        assert_eq!(stop.on_time(now + 2 * SECOND), Step::KillAll);
        assert_eq!(stop.on_end(now + 2 * SECOND), Step::Nothing);
        assert_eq!(stop.on_nothing_left(), Step::Finish);
    }
}

#[test]
fn t3_the_clock_goes_on_while_leftovers_drain() {
    let now = Instant::now();
    let mut stop = Stop::new(Rules { kill_after: Some(2 * SECOND), ..rules() });
    send(&mut stop, Signal::TERM, now);
    assert_eq!(stop.on_end(now + SECOND), Step::TermAll);
    assert_eq!(stop.deadline(), Some(now + 2 * SECOND));
    assert_eq!(stop.on_time(now + 2 * SECOND), Step::KillAll);
}

#[test]
fn t4_a_first_term_is_held_and_a_second_goes_at_once() {
    let now = Instant::now();
    let mut stop = Stop::new(Rules { stop_delay: SECOND, ..rules() });
    assert_eq!(send(&mut stop, Signal::TERM, now), Step::Nothing);
    assert_eq!(send(&mut stop, Signal::INT, now), Step::Forward(forward(Signal::INT)));
    assert_eq!(stop.on_time(now + SECOND), Step::Forward(forward(Signal::TERM)));
    assert_eq!(stop.on_time(now + SECOND), Step::Nothing);

    let mut stop = Stop::new(Rules { stop_delay: SECOND, ..rules() });
    send(&mut stop, Signal::TERM, now);
    assert_eq!(send(&mut stop, Signal::TERM, now), Step::Forward(forward(Signal::TERM)));
    assert_eq!(stop.on_time(now + 9 * SECOND), Step::Nothing);
}

#[test]
fn t5_waiting_forwards_to_all_and_ends_with_the_last() {
    let now = Instant::now();
    let mut stop = Stop::new(Rules { wait: true, ..rules() });
    assert_eq!(stop.on_end(now), Step::Nothing);
    assert_eq!(stop.deadline(), None);
    assert_eq!(send(&mut stop, Signal::HUP, now), Step::ForwardToAll(forward(Signal::HUP)));
    assert_eq!(stop.on_nothing_left(), Step::Finish);
}

#[test]
fn t7_pause_ends_by_term_and_int_only() {
    let now = Instant::now();
    for signal in Signal::all() {
        let mut stop = Stop::new(Rules { pause: true, ..rules() });
        let ends = matches!(signal, Signal::TERM | Signal::INT);
        assert_eq!(send(&mut stop, signal, now), if ends { Step::EndPause } else { Step::Nothing });
    }
}

#[test]
fn p2_dumb_init_terminates_the_group_and_goes() {
    let mut stop = Stop::new(Rules { term_group_at_end: true, grace: Duration::ZERO, ..rules() });
    assert_eq!(stop.on_end(Instant::now()), Step::TermGroupAndFinish);
}

mod properties {
    use proptest::prelude::*;
    use proptest::test_runner::Config;

    use super::*;

    #[derive(Clone, Debug)]
    enum Event {
        Signal(u8),
        End,
        NothingLeft,
        Pass(u64),
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            6 => (1..=64u8).prop_filter("can be caught", |n| ![9, 19].contains(n)).prop_map(Event::Signal),
            1 => Just(Event::End),
            1 => Just(Event::NothingLeft),
            3 => (0..8000u64).prop_map(Event::Pass),
        ];
        prop::collection::vec(event, 0..40)
    }

    fn any_rules() -> impl Strategy<Value = Rules> {
        let time = prop_oneof![Just(0u64), 1..9000u64].prop_map(Duration::from_millis);
        (time.clone(), prop::option::of(time.clone()), time, any::<bool>(), any::<bool>()).prop_map(
            |(grace, kill_after, stop_delay, wait, term_group_at_end)| Rules {
                grace,
                kill_after,
                stop_delay,
                wait,
                term_group_at_end,
                pause: false,
            },
        )
    }

    proptest! {
        #![proptest_config(Config { failure_persistence: None, cases: 2000, ..Config::default() })]

        /// While the command runs each signal is forwarded exactly once, but that a held TERM and the one that
        /// releases it are one, as they would be in the command's own pending set.
        #[test]
        fn s4_no_signal_is_lost_or_doubled(rules in any_rules(), events in events()) {
            let mut now = Instant::now();
            let mut stop = Stop::new(Rules { kill_after: None, ..rules });
            let (mut sent, mut got) = ([0u32; 65], [0u32; 65]);
            let mut merged = 0;
            let mut held = false;
            for event in events {
                match event {
                    Event::Signal(number) => {
                        let signal = Signal::new(i64::from(number)).unwrap();
                        sent[usize::from(number)] += 1;
                        match send(&mut stop, signal, now) {
                            Step::Forward(f) => {
                                got[usize::from(f.signal.byte())] += 1;
                                if signal == Signal::TERM && held { merged += 1; held = false; }
                            }
                            Step::Nothing => { prop_assert_eq!(signal, Signal::TERM); held = true; }
                            other => prop_assert!(false, "{:?}", other),
                        }
                    }
                    Event::Pass(ms) => {
                        now += Duration::from_millis(ms);
                        while let Step::Forward(f) = stop.on_time(now) {
                            got[usize::from(f.signal.byte())] += 1;
                            held = false;
                        }
                    }
                    Event::End | Event::NothingLeft => {}
                }
            }
            now += Duration::from_mins(1);
            while let Step::Forward(f) = stop.on_time(now) { got[usize::from(f.signal.byte())] += 1; }
            got[15] += merged;
            prop_assert_eq!(sent, got);
        }

        /// However things go, after the command's end sexton goes too: with the last process, or when time is up.
        #[test]
        fn the_loop_always_ends(rules in any_rules(), events in events()) {
            let mut now = Instant::now();
            let mut stop = Stop::new(rules.clone());
            let mut finished = false;
            let mut handle = |step: Step| finished |= matches!(step, Step::Finish | Step::TermGroupAndFinish);
            for event in events {
                match event {
                    Event::Signal(n) => handle(send(&mut stop, Signal::new(i64::from(n)).unwrap(), now)),
                    Event::End => handle(stop.on_end(now)),
                    Event::NothingLeft => handle(stop.on_nothing_left()),
                    Event::Pass(ms) => {
                        now += Duration::from_millis(ms);
                        loop {
                            let step = stop.on_time(now);
                            if step == Step::Nothing { break }
                            handle(step);
                        }
                    }
                }
            }
            handle(stop.on_end(now));
            for _ in 0..10 {
                if let Some(due) = stop.deadline() {
                    now = due;
                    handle(stop.on_time(now));
                }
            }
            // Only --wait has no deadline of its own; the last process's end is its end.
            if rules.wait { handle(stop.on_nothing_left()); }
            prop_assert!(finished);
            prop_assert_eq!(stop.deadline(), None);
        }

        /// KILL is never sent before its time, nor to anybody twice.
        #[test]
        fn t3_kill_comes_once_and_not_early(rules in any_rules(), events in events()) {
            let start = Instant::now();
            let mut now = start;
            let mut first_stop = None;
            let mut ended = None;
            let mut kills = 0;
            let mut stop = Stop::new(rules.clone());
            for event in events {
                match event {
                    Event::Signal(n) => {
                        if let Step::Forward(f) | Step::ForwardToAll(f) = send(&mut stop, Signal::new(i64::from(n)).unwrap(), now)
                            && f.signal.asks_to_stop() { first_stop.get_or_insert(now); }
                    }
                    Event::End => { stop.on_end(now); ended.get_or_insert(now); }
                    Event::NothingLeft => { stop.on_nothing_left(); }
                    Event::Pass(ms) => {
                        now += Duration::from_millis(ms);
                        loop {
                            match stop.on_time(now) {
                                Step::Nothing => break,
                                Step::Forward(f) if f.signal.asks_to_stop() => { first_stop.get_or_insert(now); }
                                Step::KillAll => {
                                    kills += 1;
                                    let by_clock = rules.kill_after.zip(first_stop).is_some_and(|(d, t)| t + d <= now);
                                    let by_grace = ended.is_some_and(|t| t + rules.grace <= now);
                                    prop_assert!(by_clock || by_grace);
                                }
                                _ => {}
                            }
                        }
                    }
                }
            }
            prop_assert!(kills <= 1);
        }
    }
}
