//! The targets of a policy in the order in which they are tried.

use std::time::Duration;

use portcullis_config::RelayConfig;
use portcullis_policy::{ForwardTarget, Forwarding, ShareKey};
use portcullis_transaction::{StatusSet, Target};

/// The times of a target that the policy does not set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// Until the first response, if another target follows.
    pub(super) no_answer: Duration,
    /// Until the final response to an INVITE.
    pub(super) ring: Duration,
}

impl Times {
    pub(super) fn of(config: &RelayConfig) -> Self {
        Self {
            no_answer: config.no_answer,
            ring: config.ring,
        }
    }

    /// The only target.
    pub(super) fn alone(self) -> Target<u8> {
        Target {
            ring: self.ring,
            ..Target::new(0)
        }
    }
}

/// Sorts targets by rank. With `share`, the order within a rank is drawn by weight, and each target has a rank of its own. The draw depends on
/// Call-ID and key only: after a restart, the same request goes to the same target again.
pub(super) fn in_order(
    forwarding: Forwarding,
    call_id: &[u8],
    key: &ShareKey,
) -> Vec<ForwardTarget> {
    let Forwarding {
        mut targets, share, ..
    } = forwarding;
    if !share {
        targets.sort_by_key(|target| target.rank);
        return targets;
    }
    let mut drawn: Vec<_> = (0..).zip(targets).collect();
    let ticket = |nth: u8, weight: u16| draw(key.number(call_id, nth), weight);
    drawn.sort_by(|(one, left), (other, right)| {
        let tickets = ticket(*one, left.weight).total_cmp(&ticket(*other, right.weight));
        left.rank.cmp(&right.rank).then(tickets)
    });
    let numbered = (0..).zip(drawn);
    let ranked = numbered.map(|(rank, (_, target))| ForwardTarget { rank, ..target });
    ranked.collect()
}

/// A place in a weighted draw; the lowest wins. The chance to win is in proportion to the weight, and so is the chance to be next among the
/// rest: exponentially distributed variables with the weights as their rates (Efraimidis and Spirakis, 2006). Weight 0 comes last.
fn draw(number: u64, weight: u16) -> f64 {
    // 53 bits, not zero: between 0 and 1, both excluded.
    let uniform = ((number >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    let exponential = -uniform.ln();
    match weight {
        0 => f64::MAX.sqrt() * exponential,
        weight => exponential / f64::from(weight),
    }
}

/// The targets as transactions know them, numbered from `first`.
pub(super) fn planned(targets: &[ForwardTarget], first: u8, times: Times) -> Vec<Target<u8>> {
    let last = targets.last().map(|target| target.rank);
    let planned = (first..).zip(targets).map(|(number, target)| {
        let is_followed = Some(target.rank) != last;
        Target {
            to: number,
            rank: target.rank,
            no_answer: target
                .no_answer
                .or_else(|| is_followed.then_some(times.no_answer)),
            ring: target.ring.unwrap_or(times.ring),
        }
    });
    planned.collect()
}

/// Status codes, of which 3, 4 and 5 mean a class.
pub(super) fn codes(codes: &[u16]) -> StatusSet {
    codes
        .iter()
        .fold(StatusSet::EMPTY, |set, &code| match code {
            3..=5 => set.with_class(code),
            code => set.with(code),
        })
}

#[cfg(test)]
mod tests {
    use portcullis_policy::Place;

    use super::*;

    fn target(name: &str, rank: u8, weight: u16) -> ForwardTarget {
        ForwardTarget {
            place: Place::NextHop(name.into()),
            rank,
            weight,
            request_uri: None,
            headers: Vec::new(),
            no_answer: None,
            ring: None,
        }
    }

    fn names(targets: &[ForwardTarget]) -> Vec<String> {
        let names = targets.iter().map(|target| target.place.to_string());
        names.collect()
    }

    fn order(targets: &[ForwardTarget], share: bool, call_id: &str) -> Vec<ForwardTarget> {
        let forwarding = Forwarding {
            targets: targets.to_vec(),
            share,
            ..Forwarding::default()
        };
        in_order(forwarding, call_id.as_bytes(), &ShareKey::new(&[7; 16]))
    }

    #[test]
    fn targets_are_sorted_by_rank_and_stay_in_order_within_one() {
        let targets = [
            target("c", 2, 1),
            target("a", 0, 1),
            target("d", 2, 9),
            target("b", 1, 1),
        ];
        let sorted = order(&targets, false, "x");
        assert_eq!(names(&sorted), ["a", "b", "c", "d"]);
        let ranks: Vec<_> = sorted.iter().map(|target| target.rank).collect();
        assert_eq!(ranks, [0, 1, 2, 2]);
    }

    #[test]
    fn a_draw_is_in_proportion_to_the_weights_and_the_same_for_the_same_call() {
        let targets = [
            target("a", 0, 60),
            target("b", 0, 30),
            target("c", 0, 10),
            target("never first", 0, 0),
            target("last", 9, 100),
        ];
        let mut firsts = [0; 3];
        for call in 0..10_000 {
            let call_id = format!("{call}@test");
            let drawn = order(&targets, true, &call_id);
            assert_eq!(names(&drawn)[3..], ["never first", "last"]);
            assert_eq!(drawn, order(&targets, true, &call_id));
            let ranks: Vec<_> = drawn.iter().map(|target| target.rank).collect();
            assert_eq!(ranks, [0, 1, 2, 3, 4]);
            let first = ["a", "b", "c"]
                .iter()
                .position(|name| names(&drawn)[0] == *name);
            firsts[first.unwrap()] += 1;
        }
        // The deviation of the largest is about 50.
        for (found, expected) in firsts.into_iter().zip([6_000_i32, 3_000, 1_000]) {
            assert!((found - expected).abs() < 300, "{firsts:?}");
        }
    }

    #[test]
    fn only_a_target_that_another_one_follows_has_a_short_time() {
        let times = Times {
            no_answer: Duration::from_secs(4),
            ring: Duration::from_secs(185),
        };
        let own = ForwardTarget {
            no_answer: Some(Duration::from_secs(9)),
            ring: Some(Duration::from_secs(20)),
            ..target("b", 1, 1)
        };
        let targets = [target("a", 0, 1), own, target("c", 2, 1), target("d", 2, 1)];
        let planned = planned(&targets, 5, times);
        let seconds: Vec<_> = planned
            .iter()
            .map(|target| {
                (
                    target.to,
                    target.no_answer.map(|time| time.as_secs()),
                    target.ring.as_secs(),
                )
            })
            .collect();
        assert_eq!(
            seconds,
            [
                (5, Some(4), 185),
                (6, Some(9), 20),
                (7, None, 185),
                (8, None, 185)
            ]
        );
    }

    #[test]
    fn a_digit_is_a_class_of_codes() {
        let set = codes(&[4, 503]);
        assert!(set.has(404) && set.has(503));
        assert!(!set.has(500) && !set.has(407));
    }
}
