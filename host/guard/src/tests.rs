//! The guard with injected time.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.

use std::collections::HashSet;

use proptest::prelude::*;

use super::source::Source;
use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn v4(number: u32) -> IpAddr {
    IpAddr::V4(number.into())
}

/// A guard with room for few sources, and its start.
fn guard(change: impl FnOnce(&mut Limits)) -> (Guard, Instant) {
    let mut limits = Limits {
        sources: 1_000,
        ..Limits::default()
    };
    change(&mut limits);
    let now = Instant::now();
    (Guard::new(&limits, now), now)
}

const SCANNER: &str = "192.0.2.9";
const NEIGHBOUR: &str = "192.0.2.10";

#[test]
fn so_many_refusals_in_a_window_are_enough_and_a_neighbour_is_not_concerned() {
    let (guard, now) = guard(|limits| limits.users = 0);
    let note = |ip, now| guard.note(ip, Evidence::Refusal(7), now);
    for _ in 0..19 {
        assert_eq!(note(ip(SCANNER), now), None);
        assert_eq!(note(ip(NEIGHBOUR), now + Duration::from_secs(30)), None);
    }
    assert_eq!(note(ip(SCANNER), now), Some(Reason::Refusals));
    // In the next window the count begins again.
    assert_eq!(note(ip(SCANNER), now + Duration::from_secs(31)), None);
}

#[test]
fn who_has_done_little_is_suspected_until_the_window_ends() {
    let (guard, now) = guard(|_| {});
    guard.note(ip(SCANNER), Evidence::Refusal(1), now);
    guard.note(ip(SCANNER), Evidence::Malformed, now);
    guard.note(ip(NEIGHBOUR), Evidence::Success, now);
    let suspects = guard.suspects(now + Duration::from_secs(10));
    let expected = Suspect {
        source: Prefix::of(ip(SCANNER)),
        evidence: 2,
        remaining: Duration::from_secs(20),
    };
    assert_eq!(suspects, [expected]);
    assert!(guard.suspects(now + Duration::from_secs(31)).is_empty());
    guard.bar(ip(SCANNER), Kind::Held, Reason::Malformed, now);
    assert!(guard.suspects(now).is_empty(), "it is held");
}

#[test]
fn a_scan_of_users_is_found_before_its_refusals_are_enough() {
    let (guard, now) = guard(|_| {});
    let found = (0..).position(|user| {
        let user = guard.user(format!("10{user}").as_bytes());
        guard.note(ip(SCANNER), Evidence::Refusal(user), now) == Some(Reason::Users)
    });
    // Some users share a bit of the set.
    let found = found.unwrap();
    assert!((9..19).contains(&found), "{found}");
    // One user is no scan.
    let same = |_| guard.note(ip(NEIGHBOUR), Evidence::Refusal(1), now);
    assert!((0..19).map(same).all(|reason| reason.is_none()));
}

#[test]
fn challenges_that_are_answered_do_not_count() {
    let (guard, now) = guard(|_| {});
    let note = |evidence| guard.note(ip(NEIGHBOUR), evidence, now);
    // An office comes back after an outage: each phone has an old nonce, and then registers.
    for _ in 0..500 {
        assert_eq!(note(Evidence::Challenge), None);
        assert_eq!(note(Evidence::Challenge), None);
        assert_eq!(note(Evidence::Success), None);
    }
    let guesses: Vec<_> = (0..100).map(|_| note(Evidence::Challenge)).collect();
    assert_eq!(guesses.last(), Some(&Some(Reason::Challenges)));
}

#[test]
fn the_rate_of_a_source_is_limited_and_a_ban_ends() {
    let (guard, now) = guard(|limits| {
        limits.rate = 10;
        limits.burst = 50;
    });
    let pass = |now| {
        let all = (0..1_000).map(|_| guard.admit(ip(SCANNER), now));
        all.filter(|admission| *admission == Admission::Pass)
            .count()
    };
    assert_eq!(pass(now), 50);
    assert_eq!(pass(now + Duration::from_secs(1)), 10);
    assert!(guard.bar(ip(SCANNER), Kind::Banned, Reason::Flood, now));
    let banned = Admission::Banned(Reason::Flood);
    for seconds in [0, 1, 299] {
        let then = now + Duration::from_secs(seconds);
        assert_eq!(guard.admit(ip(SCANNER), then), banned);
        assert!(guard.is_barred(ip(SCANNER), Kind::Banned, then));
        assert_eq!(guard.admit(ip(NEIGHBOUR), then), Admission::Pass);
    }
    let [barred] = guard.barred(now + Duration::from_secs(299))[..] else {
        panic!("one source is banned")
    };
    assert_eq!(barred.source.to_string(), SCANNER);
    assert_eq!((barred.kind, barred.reason), (Kind::Banned, Reason::Flood));
    assert_eq!(barred.remaining, Duration::from_secs(1));
    assert_eq!(barred.dropped, 3);
    let end = now + Duration::from_secs(300);
    assert_eq!(guard.admit(ip(SCANNER), end), Admission::Pass);
    assert!(guard.barred(end).is_empty());
}

#[test]
fn a_held_source_has_a_few_requests_a_second_and_a_ban_is_stronger() {
    let (guard, now) = guard(|_| {});
    assert!(!guard.is_barred(ip(SCANNER), Kind::Held, now));
    assert!(guard.bar(ip(SCANNER), Kind::Held, Reason::Users, now));
    assert!(
        guard.is_barred(ip(SCANNER), Kind::Held, now)
            && !guard.is_barred(ip(NEIGHBOUR), Kind::Held, now)
    );
    assert_eq!(guard.admit(ip(SCANNER), now), Admission::Pass);
    let second = Duration::from_secs(1);
    let taken = |now| {
        (0..100)
            .filter(|_| guard.take_held(ip(SCANNER), now))
            .count()
    };
    assert_eq!(taken(now), 2);
    assert_eq!(taken(now + 10 * second), 2);
    assert_eq!(taken(now + 11 * second), 2);
    assert!(
        !guard.bar(ip(SCANNER), Kind::Held, Reason::Users, now),
        "it was held"
    );
    assert!(guard.bar(ip(SCANNER), Kind::Banned, Reason::Malformed, now));
    assert!(!guard.bar(ip(SCANNER), Kind::Held, Reason::Users, now));
    assert!(guard.is_barred(ip(SCANNER), Kind::Banned, now));
}

#[test]
fn a_release_ends_a_ban_and_forgets_the_evidence() {
    let (guard, now) = guard(|limits| limits.malformed = 3);
    let note = || guard.note(ip(SCANNER), Evidence::Malformed, now);
    assert_eq!([note(), note()], [None, None]);
    guard.bar(ip(SCANNER), Kind::Banned, Reason::Malformed, now);
    assert!(guard.release(ip(SCANNER), now, 0));
    assert!(!guard.release(ip(SCANNER), now, 0));
    assert_eq!(guard.admit(ip(SCANNER), now), Admission::Pass);
    assert_eq!(
        [note(), note(), note()],
        [None, None, Some(Reason::Malformed)]
    );
}

#[test]
fn only_refusals_that_were_received_ban_the_source_of_datagrams() {
    let (guard, now) = guard(|limits| {
        limits.users = 0;
        limits.refusals = 3;
    });
    let refuse = || guard.note(ip(SCANNER), Evidence::RefusedInvite(1), now);
    let confirm = || guard.confirm(ip(SCANNER), now);
    // An ACK without a refusal proves nothing.
    assert_eq!([confirm(), confirm(), confirm(), confirm()], [None; 4]);
    refuse();
    refuse();
    assert_eq!([confirm(), confirm(), confirm()], [None; 3]);
    refuse();
    assert_eq!(confirm(), Some(Reason::Refusals));
}

#[test]
fn an_answer_to_a_challenge_counts_once_from_its_address_and_in_time() {
    let (guard, now) = guard(|_| {});
    let take = |ip, nonce: &str, now| guard.take_nonce(ip, nonce.as_bytes(), now);
    guard.note_nonce(ip(NEIGHBOUR), b"abc", now);
    assert!(!take(ip(SCANNER), "abc", now));
    assert!(!take(ip(NEIGHBOUR), "abd", now));
    assert!(take(ip(NEIGHBOUR), "abc", now));
    assert!(!take(ip(NEIGHBOUR), "abc", now));
    guard.note_nonce(ip(NEIGHBOUR), b"abc", now);
    assert!(!take(ip(NEIGHBOUR), "abc", now + Duration::from_secs(61)));
}

#[test]
fn a_request_that_answers_a_challenge_is_known_by_its_call_and_number() {
    let (guard, now) = guard(|_| {});
    let is_answer = |source, call, now| guard.is_answer(ip(source), call, now);
    let call: (&[u8], u32) = (b"a@b", 2);
    guard.note_answer(ip(NEIGHBOUR), call, now);
    assert!(is_answer(NEIGHBOUR, call, now));
    assert!(
        is_answer(NEIGHBOUR, call, now),
        "a response may be repeated"
    );
    assert!(!is_answer(NEIGHBOUR, (b"a@b", 3), now));
    assert!(!is_answer(NEIGHBOUR, (b"a@c", 2), now));
    assert!(!is_answer(SCANNER, call, now));
    assert!(!is_answer(NEIGHBOUR, call, now + Duration::from_secs(61)));
}

#[test]
fn a_user_is_known_at_its_address_for_two_hours() {
    let (guard, now) = guard(|_| {});
    let user = guard.user(b"alice");
    guard.note_user(ip(NEIGHBOUR), user, now);
    let hours = |hours: u64| now + Duration::from_secs(hours * 3_600);
    assert!(guard.knows_user(ip(NEIGHBOUR), user, hours(1)));
    assert!(!guard.knows_user(ip(SCANNER), user, hours(1)));
    assert!(!guard.knows_user(ip(NEIGHBOUR), guard.user(b"bob"), hours(1)));
    assert!(!guard.knows_user(ip(NEIGHBOUR), user, hours(3)));
}

/// A million forged sources fill the table; they end no ban, and never ban anybody else.
#[test]
fn the_table_has_a_fixed_size_whatever_sources_are_forged() {
    let (guard, now) = guard(|_| {});
    guard.bar(ip(SCANNER), Kind::Banned, Reason::Users, now);
    for number in 0..1_000_000 {
        let ip = v4(0x0a00_0000 + number);
        assert_eq!(guard.admit(ip, now), Admission::Pass);
        guard.note(ip, Evidence::Malformed, now);
    }
    assert_eq!(guard.table.all().count(), 1_000);
    assert!(guard.is_barred(ip(SCANNER), Kind::Banned, now));
    assert_eq!(guard.barred(now).len(), 1);
    // A bucket with four bans has no room for others, which are served.
    let other =
        (0..100_000).filter(|number| guard.bar(v4(*number), Kind::Banned, Reason::Users, now));
    assert_eq!(other.count(), 999);
    assert_eq!(guard.admit(ip(NEIGHBOUR), now), Admission::Pass);
}

#[test]
fn a_source_is_compared_with_a_long_list_once_a_second() {
    let (guard, now) = guard(|_| {});
    let second = Duration::from_secs(1);
    assert_eq!(guard.admit(ip(SCANNER), now), Admission::Pass);
    let checks = |now| {
        (0..10)
            .filter(|_| guard.take_check(ip(SCANNER), now))
            .count()
    };
    assert_eq!([checks(now), checks(now + second)], [1, 1]);
    for number in 0..1_000 {
        guard.admit(v4(number), now + second);
    }
    let all = (0..1_000).filter(|number| guard.take_check(v4(*number), now + 2 * second));
    assert_eq!(all.count(), 50);
}

#[test]
fn a_row_that_changes_hands_does_not_pass_on_a_ban() {
    let bar = Bar {
        kind: Kind::Banned,
        reason: Reason::Flood,
        end: 300,
    };
    let source = Source::default();
    let (own, other) = (0x1234_5678_9abc, 0x1234_5678_9abd);
    assert!(source.set_bar(own, bar, 0));
    assert_eq!(source.bar(own, 299), Some(bar));
    assert_eq!(source.bar(own, 300), None);
    assert_eq!(source.bar(other, 0), None);
}

#[test]
fn sources_are_written_as_operators_write_them() {
    for (address, text, first) in [
        ("192.0.2.1", "192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64", "2001:db8:1:2::"),
        ("::1", "::/64", "::"),
    ] {
        let prefix = Prefix::of(ip(address));
        assert_eq!((prefix.to_string(), prefix.ip()), (text.into(), ip(first)));
        assert_eq!(Prefix::of(prefix.ip()), prefix);
    }
}

/// What happens to a source in a test.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Refusal(u8),
    Challenge,
    Success,
    Malformed,
    Later(u8),
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        4 => any::<u8>().prop_map(Deed::Refusal),
        4 => Just(Deed::Challenge),
        1 => Just(Deed::Success),
        4 => Just(Deed::Malformed),
        1 => any::<u8>().prop_map(Deed::Later),
    ]
}

proptest! {
    /// A source is never reported before the configured evidence of one window is there, and always when the refusals, challenges or
    /// malformed messages of one window are.
    #[test]
    fn evidence_counts_as_configured(deeds in prop::collection::vec(deed(), 1..300), within in 1_u64..100) {
        let (guard, start) = guard(|limits| {
            limits.within = Duration::from_secs(within);
            limits.refusals = 9;
            limits.users = 5;
            limits.challenges = 7;
            limits.malformed = 8;
        });
        let mut seconds = 0;
        let mut window = 0;
        let (mut refusals, mut challenges, mut malformed) = (0_u32, 0_u32, 0_u32);
        let mut users = HashSet::new();
        for deed in deeds {
            if let Deed::Later(more) = deed {
                seconds += u64::from(more);
                continue;
            }
            if seconds / within != window {
                window = seconds / within;
                (refusals, challenges, malformed) = (0, 0, 0);
                users.clear();
            }
            let evidence = match deed {
                Deed::Refusal(user) => {
                    refusals += 1;
                    users.insert(user);
                    Evidence::Refusal(user.into())
                }
                Deed::Challenge => {
                    challenges += 1;
                    Evidence::Challenge
                }
                Deed::Success => {
                    challenges = challenges.saturating_sub(2);
                    Evidence::Success
                }
                Deed::Malformed => {
                    malformed += 1;
                    Evidence::Malformed
                }
                Deed::Later(_) => unreachable!("handled above"),
            };
            let reason = guard.note(ip(SCANNER), evidence, start + Duration::from_secs(seconds));
            match (evidence, reason) {
                (_, Some(Reason::Users)) => prop_assert!(users.len() >= 5),
                (Evidence::Refusal(_), reason) => {
                    prop_assert_eq!(reason == Some(Reason::Refusals), refusals >= 9);
                    prop_assert_eq!(reason.is_some(), refusals >= 9);
                }
                (Evidence::Challenge, reason) => {
                    prop_assert_eq!(reason == Some(Reason::Challenges), challenges >= 7);
                }
                (Evidence::Malformed, reason) => {
                    prop_assert_eq!(reason == Some(Reason::Malformed), malformed >= 8);
                }
                (Evidence::Success, reason) => prop_assert_eq!(reason, None),
                (Evidence::RefusedInvite(_), _) => unreachable!("not made here"),
            }
        }
    }

    /// What is packed into a number comes out of it again.
    #[test]
    fn a_bar_is_unpacked_as_it_was(end in 1_u32.., hash: u64, reason in 0_usize..5, banned: bool) {
        let kind = if banned { Kind::Banned } else { Kind::Held };
        let bar = Bar { kind, reason: Reason::ALL[reason], end };
        prop_assert_eq!(Bar::unpacked(bar.packed(hash), hash, end - 1), Some(bar));
        prop_assert_eq!(Bar::unpacked(bar.packed(hash), hash, end), None);
    }
}
