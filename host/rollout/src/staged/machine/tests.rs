use proptest::prelude::*;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);
const BASE: u64 = 4;
const NEW: u64 = 5;

fn rollout(steps: &str) -> Rollout {
    Rollout {
        seat: "acme".into(),
        generation: NEW,
        base: BASE,
        plan: Plan::parse(steps, MINUTE, Gates::default()).unwrap(),
        step: 0,
        state: RolloutState::Running,
        why: String::new(),
        reference: Reference::default(),
    }
}

/// A host that has the step, with these counts.
fn host(name: &str, tally: Tally) -> HostSeen {
    HostSeen {
        name: name.into(),
        is_there: true,
        refused: None,
        tally,
    }
}

/// What is observed if the seat is as the roll-out left it.
fn observed<'o>(rollout: &Rollout, elapsed: Duration, hosts: &'o [HostSeen]) -> Observed<'o> {
    Observed {
        elapsed,
        active: Some(BASE),
        candidate: Some((NEW, rollout.trial())),
        changed_by: "ann",
        hosts,
    }
}

const GOOD: Tally = Tally {
    calls: 1_000,
    failures: 0,
    compared: 1_000,
    differing: 0,
    time_us: 20_000,
    durations: Durations::new(),
    active_calls: 9_000,
    active_time_us: 180_000,
    active_durations: Durations::new(),
};

#[test]
fn a_good_generation_passes_all_steps() {
    let mut rollout = rollout("shadow,1%,10%,100%");
    let hosts = [host("a", GOOD), host("b", GOOD)];
    for step in 1..4 {
        let early = observed(&rollout, MINUTE / 2, &hosts);
        assert_eq!(rollout.next(&early), Next::Wait(Wait::Time(MINUTE / 2)));
        let seen = observed(&rollout, MINUTE, &hosts);
        assert_eq!(rollout.next(&seen), Next::Step(step));
        rollout.reference = rollout.reference_after(&seen);
        rollout.step = step;
    }
    assert_eq!(rollout.reference.mean_ns, Some(20_000));
    let seen = observed(&rollout, MINUTE, &hosts);
    assert_eq!(rollout.next(&seen), Next::Finish);
}

#[test]
fn a_step_waits_for_every_host_and_for_enough_calls() {
    let rollout = rollout("1%,100%");
    let late = |hosts: &[HostSeen]| rollout.next(&observed(&rollout, 2 * MINUTE, hosts));
    assert_eq!(late(&[]), Next::Wait(Wait::NoHosts));
    let behind = HostSeen {
        is_there: false,
        ..host("b", Tally::default())
    };
    let hosts = [host("a", GOOD), behind];
    assert_eq!(late(&hosts), Next::Wait(Wait::Hosts(vec!["b".into()])));
    let few = Tally {
        calls: 99,
        time_us: 1_980,
        ..GOOD
    };
    let calls = Wait::Calls {
        have: 99,
        need: 100,
    };
    assert_eq!(late(&[host("a", few.clone())]), Next::Wait(calls));
    assert_eq!(
        late(&[
            host("a", few),
            host(
                "b",
                Tally {
                    calls: 1,
                    ..Tally::default()
                }
            )
        ]),
        Next::Step(1)
    );
    let names: Vec<_> = (0..7).map(|n| format!("edge-{n}")).collect();
    assert_eq!(
        Wait::Hosts(names).to_string(),
        "waits for edge-0, edge-1, edge-2, edge-3, edge-4 and 2 more"
    );
}

#[test]
fn one_failure_among_few_calls_rolls_back_at_once() {
    let rollout = rollout("1%,100%");
    let tally = Tally {
        calls: 3,
        failures: 1,
        ..Tally::default()
    };
    let hosts = [host("a", Tally::default()), host("b", tally)];
    let seen = observed(&rollout, Duration::ZERO, &hosts);
    let reason = "failures: 1 of 3 calls failed, at most 0.10% may";
    assert_eq!(rollout.next(&seen), Next::RollBack(reason.into()));
    // A pause does not keep a generation that fails.
    let paused = Rollout {
        state: RolloutState::Paused,
        ..rollout
    };
    assert_eq!(paused.next(&seen), Next::RollBack(reason.into()));
    // Within the limit.
    let tally = Tally {
        calls: 2_000,
        failures: 2,
        ..GOOD
    };
    let hosts = [host("a", tally)];
    let seen = observed(&paused, MINUTE, &hosts);
    assert_eq!(paused.next(&seen), Next::Wait(Wait::Paused));
}

#[test]
fn verdicts_that_differ_roll_back_a_shadow() {
    let shadow = rollout("shadow,100%");
    let tally = Tally {
        differing: 11,
        ..GOOD
    };
    let hosts = [host("a", tally)];
    let seen = observed(&shadow, MINUTE, &hosts);
    let Next::RollBack(reason) = shadow.next(&seen) else {
        panic!("it goes on");
    };
    assert_eq!(
        reason,
        "differing verdicts: 11 of 1000 compared calls differ, at most 1% may"
    );
}

#[test]
fn verdicts_that_differ_roll_back_a_canary_unless_the_gate_is_off() {
    let mut canary = rollout("1%,100%");
    // Long before the end of the step: no more than one of the first hundred may differ.
    let tally = Tally {
        calls: 1,
        compared: 40,
        differing: 2,
        ..Tally::default()
    };
    let hosts = [host("a", tally)];
    let seen = observed(&canary, Duration::ZERO, &hosts);
    let reason = "differing verdicts: 2 of 40 compared calls differ, at most 1% may";
    assert_eq!(canary.next(&seen), Next::RollBack(reason.into()));
    canary.plan.gates.max_differing = None;
    assert_eq!(canary.next(&seen), Next::Wait(Wait::Time(MINUTE)));

    // Enough calls, and too few that were compared.
    let tally = Tally {
        compared: 99,
        ..GOOD
    };
    let hosts = [host("a", tally)];
    let seen = observed(&canary, MINUTE, &hosts);
    assert_eq!(
        canary.next(&seen),
        Next::Step(1),
        "nothing has to be compared"
    );
    canary.plan.gates.max_differing = Some(Share::ALL);
    let compared = Wait::Compared {
        have: 99,
        need: 100,
    };
    assert_eq!(canary.next(&seen), Next::Wait(compared));
}

/// Durations: this many of 3 µs, and this many of 90 µs.
fn durations(short: u64, long: u64) -> Durations {
    let mut all = Durations::new();
    (0..short).for_each(|_| all.note(Duration::from_micros(3)));
    (0..long).for_each(|_| all.note(Duration::from_micros(90)));
    all
}

#[test]
fn a_canary_whose_slowest_hundredth_is_slower_is_rolled_back() {
    let mut rollout = rollout("1%,100%");
    // The means are the same: only one call in twenty is slow.
    let with = |long| Tally {
        durations: durations(1_000 - long, long),
        active_durations: durations(9_000, 50),
        ..GOOD
    };
    let next = |rollout: &Rollout, tally: Tally| {
        let hosts = [host("a", tally)];
        rollout.next(&observed(rollout, MINUTE, &hosts))
    };
    // One in a hundred, and a few more by chance.
    for long in [0, 10, 20] {
        assert_eq!(next(&rollout, with(long)), Next::Step(1), "{long}");
    }
    let reason = "latency: 50 of 1000 calls take 6.1µs or more, which is 2x the 99th percentile of the active generation (3.1µs)";
    assert_eq!(next(&rollout, with(50)), Next::RollBack(reason.into()));
    // The same when the slow ones are spread over hosts.
    let halves = [host("a", with(25)), host("b", with(25))];
    let seen = observed(&rollout, MINUTE, &halves);
    assert!(matches!(rollout.next(&seen), Next::RollBack(_)));
    // At 100 %, the active generation has no calls: the step before counts.
    let hosts = [host("a", with(0))];
    rollout.reference = rollout.reference_after(&observed(&rollout, MINUTE, &hosts));
    assert_eq!(rollout.reference.p99_ns, Some(3_072));
    rollout.step = 1;
    let alone = |long| Tally {
        active_calls: 0,
        active_time_us: 0,
        active_durations: Durations::new(),
        ..with(long)
    };
    assert_eq!(next(&rollout, alone(0)), Next::Finish);
    assert!(matches!(next(&rollout, alone(50)), Next::RollBack(_)));
    rollout.plan.gates.max_latency = None;
    assert_eq!(next(&rollout, alone(50)), Next::Finish);
}

#[test]
fn a_few_slow_calls_among_few_are_chance() {
    assert_eq!(
        [0, 1, 100, 1_000, 1_000_000].map(by_chance),
        [3, 7, 7, 22, 10_303]
    );
}

#[test]
fn a_slow_canary_is_rolled_back_also_when_the_active_generation_has_no_calls() {
    let mut rollout = rollout("1%,100%");
    let slow = Tally {
        time_us: 41_000,
        ..GOOD
    };
    let hosts = [host("a", slow.clone())];
    let seen = observed(&rollout, Duration::ZERO, &hosts);
    let Next::RollBack(reason) = rollout.next(&seen) else {
        panic!("it goes on");
    };
    assert_eq!(
        reason,
        "latency: a call takes 41.0µs in the mean, and 20.0µs with the active generation, at most 2x is allowed"
    );
    rollout.step = 1;
    let alone = Tally {
        active_calls: 0,
        active_time_us: 0,
        ..slow
    };
    let hosts = [host("a", alone)];
    let seen = observed(&rollout, MINUTE, &hosts);
    assert_eq!(rollout.next(&seen), Next::Finish, "nothing to compare with");
    rollout.reference.mean_ns = Some(20_000);
    assert!(matches!(rollout.next(&seen), Next::RollBack(_)));
    rollout.plan.gates.max_latency = None;
    assert_eq!(rollout.next(&seen), Next::Finish);
}

#[test]
fn a_host_that_cannot_carry_the_step_out_rolls_back() {
    let rollout = rollout("1%,100%");
    let mut hosts = [host("a", GOOD), host("b", Tally::default())];
    hosts[1].is_there = false;
    hosts[1].refused = Some("no memory".into());
    let seen = observed(&rollout, MINUTE, &hosts);
    let reason = "b cannot carry it out: no memory";
    assert_eq!(rollout.next(&seen), Next::RollBack(reason.into()));
}

#[test]
fn a_seat_that_somebody_else_changes_is_left_alone() {
    let rollout = rollout("1%,100%");
    let hosts = [host(
        "a",
        Tally {
            failures: 10,
            ..GOOD
        },
    )];
    let good = observed(&rollout, MINUTE, &hosts);
    let one = Trial::Canary(Share::of_hundredths(100).unwrap());
    for (active, candidate, expected) in [
        (
            Some(NEW),
            None,
            "the active generation is 5 instead of 4: changed by ann",
        ),
        (None, None, "the active generation is none instead of 4"),
        (
            Some(BASE),
            None,
            "the trial of generation 5 was ended by ann",
        ),
        (
            Some(BASE),
            Some((6, one)),
            "generation 6 is on trial instead of 5",
        ),
        (
            Some(BASE),
            Some((NEW, Trial::Shadow)),
            "the trial is shadow instead of 1%",
        ),
    ] {
        let seen = Observed {
            active,
            candidate,
            ..good.clone()
        };
        let Next::Abandon(reason) = rollout.next(&seen) else {
            panic!("{expected}");
        };
        assert!(reason.starts_with(expected), "{reason}");
    }
}

#[test]
fn a_host_counts_only_what_it_did_in_this_step() {
    let seat = SeatState {
        active: Some(BASE),
        candidate: Some(NEW),
        share: Some(100),
        revision: 7,
        calls: 10,
        failures: 1,
        ..SeatState::default()
    };
    let one = Trial::Canary(Share::of_hundredths(100).unwrap());
    let ten = Trial::Canary(Share::of_hundredths(1_000).unwrap());
    let there = HostSeen::of("a", Some(&seat), (NEW, one), 7).unwrap();
    assert_eq!((there.is_there, there.tally.calls), (true, 10));
    for (generation, trial, revision) in [
        (NEW, one, 8),
        (NEW, ten, 7),
        (NEW, Trial::Shadow, 7),
        (6, one, 7),
    ] {
        let behind = HostSeen::of("a", Some(&seat), (generation, trial), revision).unwrap();
        assert_eq!((behind.is_there, behind.tally), (false, Tally::default()));
    }
    assert!(!HostSeen::of("a", None, (NEW, one), 7).unwrap().is_there);
    let without = SeatState {
        is_elsewhere: true,
        ..SeatState::default()
    };
    assert_eq!(HostSeen::of("a", Some(&without), (NEW, one), 7), None);
    let refused = SeatState {
        refused: Some(portcullis_fleet::directory::Refused {
            revision: 7,
            error: "too large".into(),
        }),
        ..seat
    };
    let refuses = |revision| {
        HostSeen::of("a", Some(&refused), (NEW, one), revision)
            .unwrap()
            .refused
    };
    assert_eq!(refuses(7).as_deref(), Some("too large"));
    assert_eq!(refuses(8), None, "an earlier step");
}

#[test]
fn states_have_names() {
    for state in RolloutState::ALL {
        assert_eq!(RolloutState::of(state.as_str()), Some(state));
    }
    assert_eq!(RolloutState::of("later"), None);
}

/// The seat, as it is stored, and what a leader does to it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stored {
    active: u64,
    candidate: Option<(u64, Trial)>,
}

fn tallies() -> impl Strategy<Value = Tally> {
    (0_u64..400, 0_u64..3, 0_u64..6, 0_u64..20_000, 0_u64..400).prop_map(
        |(calls, failures, differing, time_us, active_calls)| Tally {
            calls,
            failures: failures.min(calls),
            compared: calls,
            differing: differing.min(calls),
            time_us,
            active_calls,
            active_time_us: active_calls * 20,
            ..Tally::default()
        },
    )
}

fn fleets() -> impl Strategy<Value = Vec<HostSeen>> {
    let one = (
        tallies(),
        prop::bool::weighted(0.9),
        prop::bool::weighted(0.02),
    );
    prop::collection::vec(one, 0..4).prop_map(|hosts| {
        let hosts = hosts
            .into_iter()
            .enumerate()
            .map(|(number, (tally, is_there, is_refused))| HostSeen {
                name: format!("edge-{number}"),
                is_there,
                refused: is_refused.then(|| "no".to_owned()),
                tally: if is_there { tally } else { Tally::default() },
            });
        hosts.collect()
    })
}

/// What happens between two looks: the seconds that pass, what the hosts say, and whether somebody pauses or resumes.
fn looks() -> impl Strategy<Value = Vec<(u64, Vec<HostSeen>, u8)>> {
    prop::collection::vec((0_u64..90, fleets(), 0_u8..10), 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Never two steps at once, never forward with a gate that fails, and a roll-back ends at the generation before.
    #[test]
    fn a_roll_out_goes_step_by_step_and_back_at_once(looks in looks()) {
        let mut rollout = rollout("shadow,1%,10%,100%");
        let mut seat = Stored { active: BASE, candidate: Some((NEW, rollout.trial())) };
        let mut elapsed = Duration::ZERO;
        for (seconds, hosts, word) in looks {
            elapsed += Duration::from_secs(seconds);
            match (word, rollout.state) {
                (0, RolloutState::Running) => rollout.state = RolloutState::Paused,
                (1, RolloutState::Paused) => rollout.state = RolloutState::Running,
                _ => {}
            }
            let before = rollout.clone();
            let seen = Observed {
                elapsed,
                active: Some(seat.active),
                candidate: seat.candidate,
                changed_by: "rollout",
                hosts: &hosts,
            };
            let tally = Tally::sum(&hosts);
            let is_failing = hosts.iter().any(|host| host.refused.is_some())
                || failed(&rollout.plan.gates, rollout.trial(), &tally, rollout.reference).is_some();
            let next = rollout.next(&seen);
            match &next {
                Next::Wait(_) => prop_assert!(before.state.is_over() || !is_failing),
                Next::Step(_) | Next::Finish => {
                    prop_assert_eq!(before.state, RolloutState::Running);
                    prop_assert!(!is_failing);
                    prop_assert!(elapsed >= MINUTE);
                    prop_assert!(tally.calls >= before.plan.gates.min_calls);
                    prop_assert!(!hosts.is_empty() && hosts.iter().all(|host| host.is_there));
                }
                Next::RollBack(_) => prop_assert!(is_failing && !before.state.is_over()),
                Next::Abandon(_) => prop_assert!(false, "nobody else changes the seat"),
            }
            match next {
                Next::Wait(_) => {}
                Next::Step(step) => {
                    prop_assert_eq!(step, before.step + 1);
                    rollout.reference = rollout.reference_after(&seen);
                    rollout.step = step;
                    seat.candidate = Some((NEW, rollout.trial()));
                    elapsed = Duration::ZERO;
                }
                Next::Finish => {
                    prop_assert_eq!(before.step, 3);
                    rollout.state = RolloutState::Done;
                    seat = Stored { active: NEW, candidate: None };
                }
                Next::RollBack(why) => {
                    rollout.state = RolloutState::RolledBack;
                    rollout.why = why;
                    seat.candidate = None;
                }
                Next::Abandon(_) => {}
            }
            match rollout.state {
                RolloutState::Running | RolloutState::Paused => {
                    prop_assert_eq!(&seat, &Stored { active: BASE, candidate: Some((NEW, rollout.trial())) });
                }
                RolloutState::Done => prop_assert_eq!(&seat, &Stored { active: NEW, candidate: None }),
                RolloutState::RolledBack => {
                    prop_assert_eq!(&seat, &Stored { active: BASE, candidate: None });
                    prop_assert!(!rollout.why.is_empty());
                }
                RolloutState::Aborted => prop_assert!(false),
            }
        }
    }
}
