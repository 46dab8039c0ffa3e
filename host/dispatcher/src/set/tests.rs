use proptest::prelude::*;

use super::*;
use crate::attrs::Attrs;
use crate::member::Parts;
use crate::state::State;

fn member(uri: &str, priority: i32, attrs: &str) -> Member {
    let parts = Parts {
        set: 1,
        uri: uri.into(),
        flags: 0,
        priority,
        attrs: Attrs::parse(attrs).unwrap(),
        description: "".into(),
        hop: uri.into(),
    };
    Member::new(parts, Arc::default(), Arc::default())
}

/// Members `sip:0` to `sip:N` in the order of their slots, with these states (`a`, `i`, `d`, `t`).
fn set(states: &str, attrs: impl Fn(usize) -> String) -> Set {
    let mut members: Vec<_> = (0..)
        .zip(states.chars())
        .map(|(number, state)| {
            let member = member(&format!("sip:{number}"), 0, &attrs(number));
            let state: State = state.to_string().parse().unwrap();
            member.runtime.set_state(state);
            member
        })
        .collect();
    members.reverse();
    Set::new(1, members, Arc::new(Turns::of(7)))
}

fn plain(states: &str) -> Set {
    set(states, |_| String::new())
}

fn chosen(set: &Set, algorithm: Algorithm, hash: Option<u32>) -> Vec<usize> {
    let question = Question {
        algorithm,
        hash,
        most: MOST_CHOSEN,
        failed: None,
    };
    set.choose(question, |_| true).slots().collect()
}

/// How often each slot was the first of so many choices.
fn firsts(set: &Set, algorithm: Algorithm, times: usize) -> Vec<usize> {
    let mut counts = vec![0; set.members().len()];
    for _ in 0..times {
        counts[chosen(set, algorithm, None)[0]] += 1;
    }
    counts
}

#[test]
fn slots_have_kamailios_order() {
    let rows = [("a", 0), ("b", 20), ("c", 0), ("d", 20), ("e", 10)];
    let members = rows.map(|(uri, priority)| member(uri, priority, ""));
    let set = Set::new(1, members.into(), Arc::new(Turns::new()));
    let uris: Vec<_> = set.members().iter().map(|member| &*member.uri).collect();
    assert_eq!(uris, ["d", "b", "e", "c", "a"]);
}

#[test]
fn a_hash_is_a_slot_and_the_others_follow_around_the_set() {
    let set = plain("aidta");
    assert_eq!(chosen(&set, Algorithm::CallId, Some(5)), [0, 3, 4]);
    assert_eq!(chosen(&set, Algorithm::Key, Some(11)), [3, 4, 0]);
    assert_eq!(chosen(&set, Algorithm::FromUri, Some(4)), [4, 0, 3]);
    assert!(chosen(&plain("iddi"), Algorithm::CallId, Some(3)).is_empty());
    assert!(chosen(&plain(""), Algorithm::CallId, Some(3)).is_empty());
}

#[test]
fn turns_go_around_and_skip_what_is_closed() {
    let set = plain("adaia");
    let in_turn: Vec<_> = (0..6)
        .map(|_| chosen(&set, Algorithm::RoundRobin, None)[0])
        .collect();
    assert_eq!(in_turn, [0, 2, 4, 0, 2, 4]);
    // A request without credentials has its turn, too.
    assert_eq!(chosen(&set, Algorithm::AuthUser, None), [0, 2, 4]);
}

#[test]
fn a_request_takes_one_turn_however_often_it_fails() {
    for algorithm in [Algorithm::RoundRobin, Algorithm::AuthUser] {
        let set = plain("aaia");
        let next = |failed: &[usize]| {
            let question = Question {
                algorithm,
                hash: None,
                most: 1,
                failed: failed.last().copied(),
            };
            let is_new = |member: &Member| {
                !failed
                    .iter()
                    .any(|slot| *member.uri == *format!("sip:{slot}"))
            };
            set.choose(question, is_new).slots().next()
        };
        assert_eq!(next(&[]), Some(0));
        assert_eq!(
            [next(&[0]), next(&[0, 1]), next(&[0, 1, 3])],
            [Some(1), Some(3), None]
        );
        assert_eq!(next(&[]), Some(1), "the turn of the next request");
        assert_eq!([next(&[1]), next(&[1, 3])], [Some(3), Some(0)]);
        assert_eq!(next(&[]), Some(3));
    }
    // Equal latencies take turns, too.
    let set = plain("aa");
    let question = |failed| Question {
        algorithm: Algorithm::Latency,
        hash: None,
        most: 1,
        failed,
    };
    let first = |failed| set.choose(question(failed), |_| true).slots().next();
    assert_eq!(
        [first(None), first(Some(0)), first(None)],
        [Some(0), Some(1), Some(1)]
    );
}

#[test]
fn a_limit_and_a_refusal_hold() {
    let set = plain("aaaa");
    let question = Question {
        algorithm: Algorithm::Priority,
        hash: None,
        most: 2,
        failed: None,
    };
    let chosen = set.choose(question, |member| &*member.uri != "sip:0");
    assert_eq!(chosen.slots().collect::<Vec<_>>(), [1, 2]);
    let none = set.choose(
        Question {
            most: 0,
            ..question
        },
        |_| true,
    );
    assert!(none.is_empty());
    let many = plain(&"a".repeat(40));
    let all = many.choose(
        Question {
            most: 99,
            ..question
        },
        |_| true,
    );
    assert_eq!(all.len(), MOST_CHOSEN);
}

#[test]
fn the_fewest_calls_win_and_full_ones_are_left_out() {
    let set = set("aaai", |number| match number {
        1 => "maxload=1".to_owned(),
        _ => String::new(),
    });
    let call = |slot: usize| set.members()[slot].load.add_call();
    assert_eq!(chosen(&set, Algorithm::CallLoad, None), [0, 1, 2]);
    call(0);
    assert_eq!(chosen(&set, Algorithm::CallLoad, None), [1, 2, 0]);
    call(1);
    assert_eq!(chosen(&set, Algorithm::CallLoad, None), [2, 0]);
    call(2);
    assert_eq!(chosen(&set, Algorithm::CallLoad, None), [0, 2]);
}

#[test]
fn latency_lowers_a_priority() {
    let members =
        [("c", 100), ("b", 100), ("a", 50)].map(|(uri, priority)| member(uri, priority, ""));
    let set = Set::new(1, members.into(), Arc::new(Turns::new()));
    let first = || chosen(&set, Algorithm::Latency, None);
    // Slots: b, c, a. Equal ones take turns.
    assert_eq!(
        [first(), first(), first()],
        [[0, 1, 2], [1, 0, 2], [0, 1, 2]]
    );
    // 7,000 ms are 70 times the priority: 30 are left.
    set.members()[0]
        .runtime
        .note_latency(std::time::Duration::from_secs(7));
    assert_eq!(first(), [1, 2, 0]);
    assert_eq!(first(), [1, 2, 0]);
}

/// Kamailio sorts the list from the slot that is next in turn on, and leaves equal ones in that order.
#[test]
fn equal_latencies_follow_each_other_from_the_slot_that_is_next() {
    let rows = [("d", 50), ("c", 50), ("b", 100), ("a", 100)];
    let members = rows.map(|(uri, priority)| member(uri, priority, ""));
    let set = Set::new(1, members.into(), Arc::new(Turns::new()));
    // Three turns of another algorithm.
    for slot in 0..3 {
        assert_eq!(chosen(&set, Algorithm::RoundRobin, None)[0], slot);
    }
    assert_eq!(chosen(&set, Algorithm::Latency, None), [0, 1, 3, 2]);
    assert_eq!(chosen(&set, Algorithm::Latency, None), [1, 0, 2, 3]);
}

#[test]
fn srv_takes_the_lowest_priority_first() {
    let rows = [("a", 10), ("b", 20), ("c", 10), ("d", 30)];
    let members = rows.map(|(uri, priority)| member(uri, priority, "weight=1"));
    let set = Set::new(1, members.into(), Arc::new(Turns::of(1)));
    for _ in 0..20 {
        let order = chosen(&set, Algorithm::Srv, None);
        let uris: String = order
            .iter()
            .map(|&slot| &*set.members()[slot].uri)
            .collect();
        assert!(["acbd", "cabd"].contains(&&*uris), "{uris}");
    }
}

#[test]
fn all_go_at_once_or_in_the_order_of_priority() {
    assert_eq!(chosen(&plain("atd"), Algorithm::Parallel, None), [0, 1]);
    assert_eq!(chosen(&plain("iat"), Algorithm::Priority, None), [1, 2]);
}

/// Kamailio fills a table of 100 slots: with more than 25 members, a quarter of the calls goes to one of them.
#[test]
fn weights_are_exact_for_a_thousand_members() {
    let weights = |number: usize| number % 7 + 1;
    for (algorithm, name) in [
        (Algorithm::Weight, "weight"),
        (Algorithm::RelativeWeight, "rweight"),
    ] {
        let set = set(&"a".repeat(1_000), |number| {
            format!("{name}={}", weights(number))
        });
        let total: usize = (0..1_000).map(weights).sum();
        let times = total * 2;
        for (slot, count) in firsts(&set, algorithm, times).into_iter().enumerate() {
            let expected = weights(slot) * 2;
            assert!(
                count.abs_diff(expected) <= 3,
                "{slot}: {count}, not {expected}"
            );
        }
    }
}

#[test]
fn random_choices_pass_a_chi_square_test() {
    let set = plain(&"a".repeat(100));
    let counts = firsts(&set, Algorithm::Random, 100_000);
    let square = |count: usize| (count as f64 - 1_000.0).powi(2) / 1_000.0;
    let chi: f64 = counts.into_iter().map(square).sum();
    // 99 degrees of freedom: 1 in 10,000 is above 161 or below 53.
    assert!((53.0..161.0).contains(&chi), "{chi}");
}

#[test]
fn the_weight_of_a_closed_member_is_shared_by_the_others() {
    let set = set("aia", |number| {
        format!("weight={0};rweight={0}", [30, 40, 10][number])
    });
    for algorithm in [Algorithm::Weight, Algorithm::RelativeWeight] {
        let counts = firsts(&set, algorithm, 4_000);
        assert!(
            counts[0].abs_diff(3_000) <= 5 && counts[1] == 0,
            "{counts:?}"
        );
    }
}

#[test]
fn members_without_weights_weigh_the_same() {
    let counts = firsts(&plain("aaaa"), Algorithm::Weight, 4_000);
    assert!(
        counts.iter().all(|count| count.abs_diff(1_000) <= 5),
        "{counts:?}"
    );
    let one = set("aa", |number| {
        if number == 1 {
            "weight=5".into()
        } else {
            String::new()
        }
    });
    assert_eq!(firsts(&one, Algorithm::Weight, 100), [0, 100]);
}

/// Kamailio's loop (`ds_manage_routes`): the first open slot from `start` on.
fn naive(states: &[bool], start: usize) -> Vec<usize> {
    let mut slots = Vec::new();
    let mut slot = start;
    loop {
        if states[slot] {
            slots.push(slot);
        }
        slot = (slot + 1) % states.len();
        if slot == start {
            return slots;
        }
    }
}

proptest! {
    #[test]
    fn a_choice_is_that_of_the_naive_loop(
        states in prop::collection::vec(any::<bool>(), 1..16),
        hash: u32,
    ) {
        let text: String = states.iter().map(|&open| if open { 'a' } else { 'i' }).collect();
        let set = plain(&text);
        let start = hash as usize % states.len();
        prop_assert_eq!(chosen(&set, Algorithm::CallId, Some(hash)), naive(&states, start));
    }

    #[test]
    fn every_algorithm_chooses_each_open_member_once(
        states in prop::collection::vec(any::<bool>(), 1..16),
        priorities in prop::collection::vec(0_i32..3, 16),
        times in 1_usize..5,
    ) {
        let members = (0..).zip(&states).map(|(number, &open)| {
            let number: usize = number;
            let attrs = format!("weight={};rweight={}", number % 3, number % 2);
            let member = member(&format!("sip:{number}"), priorities[number], &attrs);
            let state = if open { "a" } else { "d" };
            member.runtime.set_state(state.parse().unwrap());
            member
        });
        let set = Set::new(1, members.collect(), Arc::new(Turns::new()));
        let open = |slot: usize| set.members()[slot].runtime.state().admission.is_open();
        let expected: Vec<_> = (0..states.len()).filter(|&slot| open(slot)).collect();
        for algorithm in Algorithm::ALL {
            for _ in 0..times {
                let mut all = chosen(&set, algorithm, Some(9));
                all.sort_unstable();
                prop_assert_eq!(&all, &expected, "{}", algorithm);
            }
        }
    }
}
