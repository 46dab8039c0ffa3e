//! Going back, trying candidates, watching without acting.

use portcullis_policy::{Mode, NoGeneration, PolicySlot, Share, ShareKey, Trial};

use crate::support::Host;

fn slot_of(host: &Host, names: &[&str]) -> PolicySlot {
    let slot = PolicySlot::keeping(2);
    for name in names {
        slot.publish(host.load(name));
    }
    slot
}

#[test]
fn going_back_is_going_to_what_served_before() {
    let host = Host::new();
    let slot = slot_of(&host, &["reject", "page"]);

    let back = slot.roll_back(None).unwrap();
    assert_eq!((back.number, slot.number()), (1, 1));
    assert_eq!(back.policy.name(), "reject");

    // Twice is there and back again.
    assert_eq!(slot.roll_back(None).unwrap().number, 2);
    assert_eq!(slot.roll_back(Some(2)).unwrap().number, 2);
    assert_eq!(slot.previous(), Some(1));
}

#[test]
fn there_is_no_way_back_to_what_is_gone() {
    let host = Host::new();
    let slot = slot_of(&host, &["reject"]);
    let kept = vec![1];
    assert_eq!(
        slot.roll_back(None).unwrap_err(),
        NoGeneration::Previous { kept }
    );

    for _ in 0..3 {
        slot.publish(host.load("page"));
    }
    let error = slot.roll_back(Some(1)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "there is no generation 1; there are 2, 3, 4"
    );
    assert_eq!(slot.number(), 4);
    assert_eq!(slot.live_generations(), 3);

    let nothing = PolicySlot::keeping(1);
    assert_eq!(
        nothing.activate(1).unwrap_err().to_string(),
        "there is no generation 1; there is none at all"
    );
}

#[test]
fn an_admitted_generation_serves_when_it_is_activated() {
    let host = Host::new();
    let slot = slot_of(&host, &["reject"]);

    let admitted = slot.admit(host.load("page"), Some(7));
    assert_eq!((admitted.number, slot.number()), (7, 1));
    slot.activate(7).unwrap();

    assert_eq!((slot.number(), slot.previous()), (7, Some(1)));
    assert_eq!(slot.publish(host.load("reject")).number, 8);
    assert_eq!(slot.numbers(), [1, 7, 8]);
}

#[test]
fn a_canary_decides_on_its_share_and_a_shadow_on_nothing() {
    let host = Host::new();
    let slot = slot_of(&host, &["reject"]);
    let mut reader = slot.reader();
    slot.admit(host.load("page"), None);

    slot.try_out(2, Trial::Shadow).unwrap();
    let lineup = reader.lineup().unwrap();
    assert_eq!(lineup.decides(b"any", &ShareKey::random()).number, 1);
    assert_eq!(lineup.shadow().unwrap().number, 2);
    assert!(lineup.has(1) && lineup.has(2) && !lineup.has(3));

    slot.try_out(2, Trial::Canary(Share::ALL)).unwrap();
    let lineup = reader.lineup().unwrap();
    assert_eq!(lineup.decides(b"any", &ShareKey::random()).number, 2);
    assert!(lineup.shadow().is_none());

    assert_eq!(slot.end_trial().unwrap().number, 2);
    assert_eq!(
        reader
            .lineup()
            .unwrap()
            .decides(b"any", &ShareKey::random())
            .number,
        1
    );
    assert!(slot.end_trial().is_none());

    slot.try_out(2, Trial::Shadow).unwrap();
    slot.activate(2).unwrap();
    let lineup = reader.lineup().unwrap();
    assert_eq!(
        (lineup.active.number, lineup.candidate.is_none()),
        (2, true)
    );
}

#[test]
fn a_candidate_needs_something_to_be_measured_against() {
    let host = Host::new();
    let slot = PolicySlot::keeping(1);
    slot.admit(host.load("page"), None);

    assert_eq!(
        slot.try_out(1, Trial::Shadow).unwrap_err(),
        NoGeneration::Nothing
    );
}

#[test]
fn the_mode_outlasts_what_serves() {
    let host = Host::new();
    let slot = PolicySlot::keeping(1);
    slot.set_mode(Mode::Monitor);
    slot.publish(host.load("page"));
    assert_eq!(slot.lineup().unwrap().mode, Mode::Monitor);

    slot.publish(host.load("reject"));
    assert_eq!(slot.lineup().unwrap().mode, Mode::Monitor);
    slot.set_mode(Mode::Enforce);
    assert_eq!(slot.lineup().unwrap().mode, Mode::Enforce);
}

#[test]
fn what_fails_too_often_gives_way_to_what_served_before_and_is_not_come_back_to() {
    let host = Host::new();
    let slot = slot_of(&host, &["reject", "page"]);
    assert!(slot.fall_back(1).is_none(), "it does not serve");

    assert_eq!(slot.fall_back(2).unwrap().number, 1);
    assert_eq!((slot.number(), slot.previous()), (1, Some(2)));
    assert!(slot.fall_back(1).is_none(), "the other one failed, too");
    assert_eq!(slot.number(), 1);

    // Who wants it back may have it.
    slot.activate(2).unwrap();
    assert!(!slot.current().unwrap().is_condemned());
}

#[test]
fn a_fallback_is_at_hand_where_it_is_kept() {
    let host = Host::new();
    let number = |slot: &PolicySlot| {
        let lineup = slot.lineup().unwrap();
        lineup.fallback.as_ref().map(|fallback| fallback.number)
    };
    let slot = slot_of(&host, &["reject", "page"]);
    assert_eq!(number(&slot), Some(1));
    slot.roll_back(None).unwrap();
    assert_eq!(number(&slot), Some(2));

    slot.forget_previous(1);
    assert_eq!(number(&slot), Some(2), "that one serves");
    slot.forget_previous(2);
    assert_eq!((number(&slot), slot.previous()), (None, None));
    assert_eq!(slot.numbers(), [1, 2], "it is kept");
    assert!(slot.fall_back(1).is_none());

    let slot = PolicySlot::new();
    slot.publish(host.load("reject"));
    slot.publish(host.load("page"));
    assert_eq!(number(&slot), None);
}

#[test]
fn what_failed_is_remembered_when_it_is_given_up_and_comes_back() {
    let host = Host::new();
    let slot = slot_of(&host, &["reject", "page"]);
    slot.fall_back(2).unwrap();
    assert!(
        slot.lineup().unwrap().fallback.is_none(),
        "it is not asked in place of the one that serves"
    );
    assert!(slot.is_condemned(2) && !slot.is_condemned(1));
    let digest = slot.generation(2).unwrap().policy.digest();
    assert!(slot.is_condemned_file(digest));

    slot.forget_kept();
    assert_eq!(slot.numbers(), [1]);
    assert!(slot.admit(host.load("page"), Some(2)).is_condemned());
    slot.activate(2).unwrap();
    assert!(!slot.is_condemned(2) && !slot.is_condemned_file(digest));
}

#[test]
fn a_number_can_come_to_stand_for_another_policy() {
    let host = Host::new();
    let slot = slot_of(&host, &["reject"]);
    slot.forget_kept();
    let other = slot.admit(host.load("page"), Some(1));
    slot.install(1, None).unwrap();
    let served = slot.current().unwrap();
    assert_eq!(served.policy.digest(), other.policy.digest());
    assert_eq!(slot.numbers(), [1]);
}
