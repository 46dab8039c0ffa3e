//! Changes of the lineup: rollback, trials of candidates, modes.

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
fn a_rollback_activates_the_previous_generation() {
    let host = Host::new();
    let slot = slot_of(&host, &["reject", "page"]);

    let back = slot.roll_back(None).unwrap();
    assert_eq!((back.number, slot.number()), (1, 1));
    assert_eq!(back.policy.name(), "reject");

    // A second rollback undoes the first.
    assert_eq!(slot.roll_back(None).unwrap().number, 2);
    assert_eq!(slot.roll_back(Some(2)).unwrap().number, 2);
    assert_eq!(slot.previous(), Some(1));
}

#[test]
fn a_rollback_to_a_dropped_generation_is_refused() {
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
fn an_admitted_generation_is_active_only_after_its_activation() {
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
fn a_canary_decides_on_its_share_and_a_shadow_on_no_dialog() {
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
fn a_trial_needs_an_active_generation() {
    let host = Host::new();
    let slot = PolicySlot::keeping(1);
    slot.admit(host.load("page"), None);

    assert_eq!(
        slot.try_out(1, Trial::Shadow).unwrap_err(),
        NoGeneration::Nothing
    );
}

#[test]
fn the_mode_stays_when_another_generation_becomes_active() {
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
fn a_fall_back_condemns_the_active_generation() {
    let host = Host::new();
    let slot = slot_of(&host, &["reject", "page"]);
    assert!(slot.fall_back(1).is_none(), "it is not active");

    assert_eq!(slot.fall_back(2).unwrap().number, 1);
    assert_eq!((slot.number(), slot.previous()), (1, Some(2)));
    assert!(
        slot.fall_back(1).is_none(),
        "the fallback is condemned, too"
    );
    assert_eq!(slot.number(), 1);

    // A command can activate it again.
    slot.activate(2).unwrap();
    assert!(!slot.current().unwrap().is_condemned());
}

#[test]
fn the_previous_generation_is_the_fallback_if_it_is_retained() {
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
    assert_eq!(number(&slot), Some(2), "generation 2 is active");
    slot.forget_previous(2);
    assert_eq!((number(&slot), slot.previous()), (None, None));
    assert_eq!(slot.numbers(), [1, 2], "it is retained");
    assert!(slot.fall_back(1).is_none());

    let slot = PolicySlot::new();
    slot.publish(host.load("reject"));
    slot.publish(host.load("page"));
    assert_eq!(number(&slot), None);
}

#[test]
fn a_condemned_generation_stays_condemned_after_it_is_dropped_and_loaded_again() {
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
fn a_number_can_be_reused_for_another_policy() {
    let host = Host::new();
    let slot = slot_of(&host, &["reject"]);
    slot.forget_kept();
    let other = slot.admit(host.load("page"), Some(1));
    slot.install(1, None).unwrap();
    let served = slot.current().unwrap();
    assert_eq!(served.policy.digest(), other.policy.digest());
    assert_eq!(slot.numbers(), [1]);
}
