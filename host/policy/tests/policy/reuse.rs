//! Policies whose sandboxes keep their state from call to call.

use std::num::NonZeroU32;
use std::sync::Arc;

use portcullis_policy::{Evaluator, PolicySlot, Reuse, Share, Trial, Verdict, WARM_POLICIES};

use crate::support::{
    COUNTS_AND_TRAPS, Host, both_forms, guest, invite, reject, table, unauthorised, with_body,
};

#[test]
fn state_is_kept_only_with_reuse() {
    let mut host = Host::new();

    for policy in both_forms(&host, &guest("stateful")) {
        for _ in 0..3 {
            assert_eq!(host.ask(&policy, invite()), Ok(reject(301, "")));
        }
        let kept = policy.with_reuse(true);
        for code in 301..310 {
            assert_eq!(host.ask(&kept, invite()), Ok(reject(code, "")));
        }
    }
}

#[test]
fn state_is_kept_for_a_number_of_calls() {
    let mut host = Host::new();

    for policy in both_forms(&host, &guest("stateful")) {
        let kept = policy.with_reuse(calls(3));
        for code in [301, 302, 303, 301, 302, 303, 301] {
            assert_eq!(host.ask(&kept, invite()), Ok(reject(code, "")));
        }
    }
}

#[test]
fn a_failure_ends_a_kept_sandbox_before_its_last_call() {
    let mut host = Host::new();
    let policy = host.load_text(COUNTS_AND_TRAPS).with_reuse(calls(1000));

    for _ in 0..2 {
        for code in [301, 302] {
            assert_eq!(host.ask(&policy, invite()), Ok(reject(code, "")));
        }
        assert!(host.ask(&policy, with_body(1)).is_err());
    }
}

/// Each evaluator takes one of the sandboxes that were made before the first call.
#[test]
fn sandboxes_are_made_before_the_first_call() {
    let mut host = Host::new();
    host.runtime.warm_up_for(2);
    let policy = |host: &Host| host.load("stateful").at_home_in(&host.scope);
    let live = |host: &Host| host.runtime.pool_use().live;

    policy(&host).warm_up();
    assert_eq!(live(&host), 0, "a policy that keeps no state needs none");
    let kept = policy(&host).with_reuse(true);
    kept.warm_up();
    kept.warm_up();
    assert_eq!(live(&host), 2);
    assert_eq!(host.ask(&kept, invite()), Ok(reject(301, "")));
    assert_eq!(host.ask(&kept, invite()), Ok(reject(302, "")));
    assert_eq!(live(&host), 2, "the evaluator has one of them");
    host.evaluator = Evaluator::new();
    assert_eq!(live(&host), 1);
    assert_eq!(host.ask(&kept, invite()), Ok(reject(301, "")));
    assert_eq!(live(&host), 1, "the new evaluator has the other one");

    // The sandboxes of another scope are not for this one.
    kept.warm_up();
    host.scope = Arc::default();
    assert_eq!(host.ask(&kept, invite()), Ok(reject(301, "")));
    assert_eq!(live(&host), 4);
}

#[test]
fn sandboxes_that_nobody_took_end_with_their_policy_or_make_room() {
    let host = Host::new();
    host.runtime.warm_up_for(3);
    let live = || host.runtime.pool_use().live as usize;
    let warm = || {
        let policy = host.load("stateful").with_reuse(calls(9));
        let policy = policy.at_home_in(&host.scope);
        policy.warm_up();
        policy
    };

    let policies: Vec<_> = (0..WARM_POLICIES + 3).map(|_| warm()).collect();
    assert_eq!(live(), 3 * WARM_POLICIES);
    drop(policies);
    assert_eq!(live(), 0);
}

#[test]
fn a_slot_warms_what_it_makes_active() {
    let host = Host::new();
    host.runtime.warm_up_for(1);
    let live = || host.runtime.pool_use().live;
    let slot = PolicySlot::keeping(2);
    let policy = |guest| host.load(guest).with_reuse(true).at_home_in(&host.scope);

    slot.publish(policy("stateful"));
    assert_eq!(live(), 1);
    let next = slot.admit(policy("reject"), None).number;
    assert_eq!(live(), 1);
    slot.try_out(next, Trial::Canary(Share::parse("1%").unwrap()))
        .unwrap();
    assert_eq!(live(), 2);
}

#[test]
fn a_rollback_is_warmed_after_it() {
    let host = Host::new();
    host.runtime.warm_up_for(1);
    let live = || host.runtime.pool_use().live;
    let slot = PolicySlot::keeping(2);
    let policy = |guest| host.load(guest).with_reuse(true).at_home_in(&host.scope);
    let old = slot.admit(policy("stateful"), None).number;
    let new = slot.admit(policy("reject"), None).number;
    slot.activate(new).unwrap();
    assert_eq!((slot.number(), live()), (new, 1));

    slot.activate(old).unwrap();
    assert_eq!((slot.number(), live()), (old, 2));
    slot.roll_back(None).unwrap();
    assert_eq!((slot.number(), live()), (new, 2));
}

fn calls(calls: u32) -> Reuse {
    Reuse::Calls(NonZeroU32::new(calls).unwrap())
}

#[test]
fn a_kept_sandbox_sees_the_current_table() {
    let mut host = Host::new();
    let policy = host.load("page").with_reuse(true);
    assert_eq!(host.ask(&policy, invite()), Ok(unauthorised()));

    host.addresses = table(&[(200, "192.0.2.1", 32, 0, None)]);

    assert_eq!(host.ask(&policy, invite()), Ok(Verdict::Relay(None)));
}

#[test]
fn kept_sandboxes_belong_to_their_policy() {
    let mut host = Host::new();
    let one = host.load("stateful").with_reuse(true);
    let other = host.load("reject").with_reuse(true);

    assert_eq!(host.ask(&one, invite()), Ok(reject(301, "")));
    assert_eq!(host.ask(&other, invite()), Ok(unauthorised()));
    assert_eq!(host.ask(&one, invite()), Ok(reject(302, "")));
    assert_eq!(host.runtime.pool_use().live, 2);
}
