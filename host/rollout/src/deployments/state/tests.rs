use std::collections::BTreeSet;

use portcullis_policy::{Mode, NoGeneration, Share, Trial};
use proptest::prelude::*;

use super::{Arrival, Change, Deployment};

/// A seat with the generations 1 to 3.
fn seat() -> Deployment {
    Deployment {
        kept: BTreeSet::from([1, 2, 3]),
        ..Deployment::default()
    }
}

fn after(changes: &[Change]) -> Deployment {
    let each = changes.iter();
    each.fold(seat(), |seat, change| seat.after(*change).unwrap())
}

#[test]
fn activation_makes_the_active_generation_the_previous_one() {
    let seat = after(&[Change::Activate(1), Change::Activate(2)]);
    assert_eq!((seat.active, seat.previous), (Some(2), Some(1)));
    let again = seat.after(Change::Activate(2)).unwrap();
    assert_eq!(again, seat);
    let back = seat.after(Change::RollBack(None)).unwrap();
    assert_eq!((back.active, back.previous), (Some(1), Some(2)));
    let third = seat.after(Change::RollBack(Some(3))).unwrap();
    assert_eq!((third.active, third.previous), (Some(3), Some(2)));
}

#[test]
fn a_trial_ends_by_command_or_when_another_generation_becomes_active() {
    let tenth = Trial::Canary(Share::of_hundredths(1000).unwrap());
    let seat = after(&[Change::Activate(1), Change::TryOut(2, Trial::Shadow)]);
    assert_eq!(seat.candidate, Some((2, Trial::Shadow)));
    let canary = seat.after(Change::TryOut(2, tenth)).unwrap();
    assert_eq!(canary.candidate, Some((2, tenth)));
    for end in [
        Change::EndTrial,
        Change::Activate(2),
        Change::Activate(1),
        Change::RollBack(Some(3)),
    ] {
        assert_eq!(canary.after(end).unwrap().candidate, None, "{end:?}");
    }
    let monitored = canary.after(Change::SetMode(Mode::Monitor)).unwrap();
    assert_eq!(monitored.candidate, canary.candidate);
    assert_eq!(monitored.mode, Some(Mode::Monitor));
}

#[test]
fn impossible_changes_are_refused() {
    let kept = || vec![1, 2, 3];
    let unknown = NoGeneration::Unknown {
        number: 9,
        kept: kept(),
    };
    let serving = after(&[Change::Activate(1)]);
    for change in [
        Change::Activate(9),
        Change::RollBack(Some(9)),
        Change::TryOut(9, Trial::Shadow),
    ] {
        assert_eq!(serving.after(change), Err(unknown.clone()), "{change:?}");
    }
    let none_before = NoGeneration::Previous { kept: kept() };
    assert_eq!(serving.after(Change::RollBack(None)), Err(none_before));
    let beside_nothing = seat().after(Change::TryOut(1, Trial::Shadow));
    assert_eq!(beside_nothing, Err(NoGeneration::Nothing));
}

#[test]
fn a_push_for_a_trial_is_refused_before_compiling_if_nothing_is_active() {
    let shadow = Arrival::Try(Trial::Shadow);
    assert_eq!(seat().admits(shadow), Err(NoGeneration::Nothing));
    assert_eq!(seat().admits(Arrival::Keep), Ok(()));
    assert_eq!(seat().admits(Arrival::Activate), Ok(()));
    assert_eq!(after(&[Change::Activate(1)]).admits(shadow), Ok(()));
    assert_eq!(Arrival::Keep.change(4), None);
    assert_eq!(Arrival::Activate.change(4), Some(Change::Activate(4)));
    assert_eq!(shadow.change(4), Some(Change::TryOut(4, Trial::Shadow)));
}

#[test]
fn the_breaker_falls_back_only_from_the_active_generation() {
    let seat = after(&[
        Change::Activate(1),
        Change::Activate(2),
        Change::TryOut(3, Trial::Shadow),
    ]);
    let back = seat.fallen_back(2, 1).unwrap();
    assert_eq!((back.active, back.previous), (Some(1), Some(2)));
    assert_eq!(back.candidate, None);
    assert_eq!(seat.fallen_back(3, 1), None);
}

/// A naive model: every generation that was active, in order, and the current trial.
#[derive(Debug, Default)]
struct History {
    arrived: u64,
    served: Vec<u64>,
    trial: Option<(u64, Trial)>,
    mode: Option<Mode>,
}

impl History {
    /// Makes the change if it is possible, and returns whether it is.
    fn make(&mut self, change: Change) -> bool {
        let is_there = |number: u64| (1..=self.arrived).contains(&number);
        match change {
            Change::Activate(number) => is_there(number) && self.serve(number),
            Change::RollBack(Some(to)) => is_there(to) && self.serve(to),
            Change::RollBack(None) => match self.served[..] {
                [.., before, _] => self.serve(before),
                _ => false,
            },
            Change::TryOut(number, trial) => {
                let is_possible = is_there(number) && !self.served.is_empty();
                if is_possible {
                    self.trial = Some((number, trial));
                }
                is_possible
            }
            Change::EndTrial => {
                self.trial = None;
                true
            }
            Change::SetMode(mode) => {
                self.mode = Some(mode);
                true
            }
        }
    }

    fn serve(&mut self, number: u64) -> bool {
        if self.served.last() != Some(&number) {
            self.served.push(number);
        }
        self.trial = None;
        true
    }
}

/// A push or a change. Numbers may exceed those of the pushed generations.
pub(in crate::deployments) fn steps() -> impl Strategy<Value = Vec<Option<Change>>> {
    let number = || 1..6_u64;
    let trial = || {
        prop_oneof![
            Just(Trial::Shadow),
            (0..=10_000_u16).prop_map(|share| Trial::Canary(Share::of_hundredths(share).unwrap())),
        ]
    };
    let mode = prop_oneof![Just(Mode::Enforce), Just(Mode::Monitor)];
    let step = prop_oneof![
        2 => Just(None),
        2 => number().prop_map(|number| Some(Change::Activate(number))),
        1 => prop::option::of(number()).prop_map(|to| Some(Change::RollBack(to))),
        2 => (number(), trial()).prop_map(|(number, trial)| Some(Change::TryOut(number, trial))),
        1 => Just(Some(Change::EndTrial)),
        1 => mode.prop_map(|mode| Some(Change::SetMode(mode))),
    ];
    prop::collection::vec(step, 0..40)
}

proptest! {
    #[test]
    fn the_state_follows_from_the_history(steps in steps()) {
        let mut seat = Deployment::default();
        let mut history = History::default();
        for step in steps {
            let Some(change) = step else {
                history.arrived += 1;
                seat.kept.insert(history.arrived);
                continue;
            };
            let is_made = history.make(change);
            match seat.after(change) {
                Ok(after) => {
                    prop_assert!(is_made, "{change:?} is made");
                    seat = after;
                }
                Err(refusal) => prop_assert!(!is_made, "{change:?}: {refusal}"),
            }
            let mut back = history.served.iter().rev().copied();
            prop_assert_eq!(seat.active, back.next());
            prop_assert_eq!(seat.previous, back.next());
            prop_assert_eq!(seat.candidate, history.trial);
            prop_assert_eq!(seat.mode, history.mode);
        }
    }
}
