//! Replacing the active policy.

use std::sync::Arc;

use portcullis_address::Snapshot;
use portcullis_policy::{Evaluator, PolicySlot, Reload};

use crate::support::{Host, guest, invite, reject, unauthorised};

#[test]
fn an_empty_slot_has_no_policy() {
    let slot = PolicySlot::new();

    assert!(slot.current().is_none());
    assert!(slot.reader().current().is_none());
    assert_eq!(slot.number(), 0);
    assert_eq!(slot.live_generations(), 0);
}

#[test]
fn readers_see_the_new_policy_with_their_next_read() {
    let mut host = Host::new();
    let slot = PolicySlot::new();
    let mut reader = slot.reader();
    let mut ask = |reader: &mut portcullis_policy::SlotReader| {
        let policy = reader.current().unwrap().policy.clone();
        host.evaluator
            .decide(&policy, &host.scope, &host.addresses, invite())
            .1
    };

    let one = slot.publish(host.runtime.load("one", &guest("reject")).unwrap());
    let first = ask(&mut reader);
    let two = slot.publish(host.runtime.load("two", &guest("stateful")).unwrap());
    let second = ask(&mut reader);

    assert_eq!((one.number, two.number, slot.number()), (1, 2, 2));
    assert_eq!(first, Ok(unauthorised()));
    assert_eq!(second, Ok(reject(301, "")));
}

#[test]
fn the_active_policy_stays_active_if_the_new_file_is_refused() {
    let host = Host::new();
    let slot = PolicySlot::new();
    slot.load(&host.runtime, "policy.wasm", &guest("reject"), false)
        .unwrap();

    let error = slot
        .load(&host.runtime, "policy.wasm", &guest("wasi-import"), false)
        .unwrap_err();

    assert_eq!(slot.number(), 1);
    assert_eq!(slot.last_error().unwrap().error, error);
    slot.load(&host.runtime, "policy.wasm", &guest("page"), false)
        .unwrap();
    assert_eq!(slot.last_error(), None);
    assert_eq!(slot.number(), 2);
}

#[test]
fn a_file_that_is_already_active_is_not_published_again() {
    let host = Host::new();
    let slot = PolicySlot::new();
    let load = |name, bytes: &[u8], reuse| slot.load(&host.runtime, name, bytes, reuse).unwrap();
    let bytes = guest("reject");

    assert!(
        matches!(load("a", &bytes, false), Reload::Published(generation) if generation.number == 1)
    );
    assert!(
        matches!(load("a", &bytes, false), Reload::Unchanged(generation) if generation.number == 1)
    );
    assert!(
        matches!(load("a", &bytes, true), Reload::Published(generation) if generation.number == 2)
    );
}

#[test]
fn the_active_file_clears_the_last_error() {
    let host = Host::new();
    let slot = PolicySlot::new();
    slot.load(&host.runtime, "a", &guest("reject"), false)
        .unwrap();
    slot.load(&host.runtime, "a", b"", false).unwrap_err();

    slot.load(&host.runtime, "a", &guest("reject"), false)
        .unwrap();

    assert_eq!(slot.last_error(), None);
}

#[test]
fn replaced_generations_live_until_their_last_reader() {
    let host = Host::new();
    let slot = PolicySlot::new();
    let load = |name| slot.publish(host.load(name));
    load("reject");
    let mut reader = slot.reader();
    reader.current();

    load("page");
    assert_eq!(slot.live_generations(), 2);
    slot.collect();
    assert_eq!(slot.live_generations(), 2, "the reader uses it");

    reader.current();
    slot.collect();
    assert_eq!(slot.live_generations(), 1);
}

#[test]
fn replaced_generations_live_until_their_last_sandbox() {
    let host = Host::new();
    let slot = PolicySlot::new();
    let mut evaluator = Evaluator::new();
    let old = slot.publish(host.load("reject").with_reuse(true));
    let (_, outcome) = evaluator.decide(&old.policy, &host.scope, &host.addresses, invite());
    assert_eq!(outcome, Ok(unauthorised()));
    drop(old);

    slot.publish(host.load("page"));
    slot.collect();
    assert_eq!(
        slot.live_generations(),
        2,
        "the evaluator has a sandbox of it"
    );

    drop(evaluator);
    slot.collect();
    assert_eq!(slot.live_generations(), 1);
}

#[test]
fn every_request_during_replacements_gets_a_verdict() {
    let host = Host::new();
    let slot = PolicySlot::new();
    slot.publish(host.load("reject"));
    let files = [guest("page"), guest("reject")];
    let (runtime, addresses) = (&host.runtime, &host.addresses);
    let slot = &slot;

    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2)
            .map(|_| scope.spawn(move || work(addresses, slot, 30)))
            .collect();
        let swaps = scope.spawn(move || {
            for bytes in files.iter().cycle() {
                slot.load(runtime, "policy", bytes, false).unwrap();
                if slot.number() >= 30 {
                    break;
                }
            }
        });
        swaps.join().unwrap();
        for worker in workers {
            worker.join().unwrap();
        }
    });

    slot.collect();
    assert_eq!(slot.live_generations(), 1);
    assert_eq!(host.runtime.pool_use().live, 0);
}

/// Makes calls until the slot has had `generations`. Every call returns a verdict, and generation numbers never decrease.
fn work(addresses: &Arc<Snapshot>, slot: &PolicySlot, generations: u64) {
    let mut evaluator = Evaluator::new();
    let mut reader = slot.reader();
    let mut last = 0;
    while last < generations {
        let generation = reader.current().unwrap();
        assert!(generation.number >= last);
        last = generation.number;
        let (back, answer) =
            evaluator.decide(&generation.policy, &Arc::default(), addresses, invite());
        assert_eq!(back.bytes, invite().bytes);
        assert_eq!(answer, Ok(unauthorised()));
    }
}
