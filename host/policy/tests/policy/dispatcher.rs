//! The interface `dispatcher`, from modules and from components.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use portcullis_address::BookOptions;
use portcullis_database::{Connections, DatabaseUrl, Schema};
use portcullis_dispatcher::{Dispatcher, Pings, Rules, Source, StateTarget, Thresholds};
use portcullis_policy::{Forwarding, Place, Scope, Tape, Verdict};
use portcullis_request::Request;
use portcullis_sip::{Routes, RoutesBuilder};
use serde_json::json;

use crate::clock::moment;
use crate::forwarding::forwarding_with;
use crate::support::{Host, both_forms, embedded, invite, with_lines};

const IMPORT: &str = r#"(import "portcullis:policy/dispatcher@0.1.0" "add-set"
    (func $add-set (param i32 i32 i32 i32 i32 i32 i32)))"#;

/// A module that adds sets: `$set` with set, algorithm, limit and rank. Its value is 0, or the number of the refusal from 1. The number of
/// destinations is at 513.
fn adding(body: &str) -> Vec<u8> {
    let function = "(func $set (param $set i32) (param $algorithm i32) (param $limit i32) (param $rank i32) (result i32)
        (call $add-set (local.get $set) (local.get $algorithm) (i32.const 256) (i32.const 3)
          (local.get $limit) (local.get $rank) (i32.const 512))
        (call $refusal))";
    embedded(&forwarding_with(IMPORT, "key", body, function))
}

fn add(set: u32, algorithm: u32, limit: u32, rank: u32) -> String {
    format!(
        "(call $set (i32.const {set}) (i32.const {algorithm}) (i32.const {limit}) (i32.const {rank}))"
    )
}

/// Set 1 has the slots a, b, c; set 2 has d.
fn dispatcher() -> Arc<Dispatcher> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("list");
    std::fs::write(
        &file,
        "1 sip:c.example\n1 sip:b.example\n1 sip:a.example\n2 sip:d.example\n",
    )
    .unwrap();
    let connections = Connections::new(DatabaseUrl::Sqlite(folder.path().join("a.db")));
    let source = Source::new(connections, Schema::default()).with_file(&file);
    let rules = Rules {
        thresholds: Thresholds {
            down_after: 1,
            up_after: 1,
        },
        is_passive: true,
        rest: Duration::from_secs(30),
        longest_pause: Duration::ZERO,
        pings: Pings::default(),
        calls: 64,
        longest_call: Duration::from_secs(60),
    };
    let dispatcher = Dispatcher::new(source, rules, BookOptions::default());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(dispatcher.reload()).unwrap();
    Arc::new(dispatcher)
}

fn routes(dispatcher: &Dispatcher) -> Arc<ArcSwap<Routes>> {
    let mut builder = RoutesBuilder::new();
    for member in dispatcher.current().members() {
        builder.hop(&member.name, &member.hop).unwrap();
    }
    Arc::new(ArcSwap::from_pointee(builder.build(&HashMap::new())))
}

fn operator() -> Scope {
    let dispatcher = dispatcher();
    let routes = routes(&dispatcher);
    Scope::operator()
        .with_dispatcher(dispatcher)
        .with_routes(routes)
}

/// Calls a policy in both forms, each with a scope of its own. They must agree.
fn ask(
    scope: impl Fn() -> Scope,
    module: &[u8],
    request: &Request,
) -> (Verdict, Vec<(String, u8)>) {
    let mut host = Host::new();
    let [module, component] = both_forms(&host, module).map(|policy| {
        host.scope = Arc::new(scope());
        let verdict = host.ask(&policy, request.clone()).unwrap();
        (verdict, targets(host.evaluator.take_forwarding()))
    });
    assert_eq!(module, component);
    module
}

fn targets(forwarding: Option<Forwarding>) -> Vec<(String, u8)> {
    let targets = forwarding.unwrap_or_default().targets;
    let shown = targets.iter().map(|target| {
        assert!(matches!(target.place, Place::Member(_)), "{target:?}");
        (target.place.to_string(), target.rank)
    });
    shown.collect()
}

fn uris(asked: &[(String, u8)]) -> String {
    let names = asked.iter().map(|(uri, rank)| {
        let name = uri.trim_start_matches("sip:").trim_end_matches(".example");
        format!("{name}{rank}")
    });
    names.collect::<Vec<_>>().join(" ")
}

#[test]
fn destinations_are_targets_of_successive_ranks() {
    let request = invite();
    for (what, expected) in [
        (add(1, 8, 16, 0), "a0 b1 c2"),
        (add(1, 8, 2, 5), "a5 b6"),
        (add(1, 12, 16, 7), "a7 b7 c7"),
        (add(1, 8, 16, 240), "a240 b241 c242"),
        (add(2, 4, 1, 0), "d0"),
    ] {
        let (verdict, asked) = ask(operator, &adding(&what), &request);
        assert_eq!(
            (verdict, &*uris(&asked)),
            (Verdict::Relay(None), expected),
            "{what}"
        );
    }
}

#[test]
fn a_hash_is_that_of_kamailio() {
    let slot_of = |hash: u32| ["a0", "b0", "c0"][hash as usize % 3];
    let of = |algorithm: u32, request: &Request| {
        let (_, asked) = ask(operator, &adding(&add(1, algorithm, 1, 0)), request);
        uris(&asked)
    };
    let request = with_lines("Proxy-Authorization: Digest username=\"joe@x\", realm=\"r\"\r\n");
    let text = |text: &[u8]| portcullis_dispatcher::hash(text, None);
    let uri = |uri: &str| portcullis_dispatcher::hash_of_uri(uri.as_bytes(), false).unwrap();
    assert_eq!(of(0, &request), slot_of(text(request.call_id_bytes())));
    assert_eq!(of(1, &request), slot_of(uri(&request.from_uri())));
    assert_eq!(of(2, &request), slot_of(uri(&request.to_uri())));
    assert_eq!(of(3, &request), slot_of(uri(&request.uri())));
    assert_eq!(of(5, &request), slot_of(text(b"joe")));
    assert_eq!(of(7, &request), slot_of(text(b"key")));
    assert_eq!(of(5, &invite()), "a0", "in turn without credentials");
}

#[test]
fn refusals_say_why() {
    let refused = |scope: fn() -> Scope, what: &str| {
        let (verdict, asked) = ask(scope, &adding(what), &invite());
        assert!(asked.is_empty());
        match verdict {
            Verdict::Reject(rejection) => rejection.code - 300,
            other => panic!("{other:?}"),
        }
    };
    let tenant: fn() -> Scope = || {
        let dispatcher = dispatcher();
        let routes = routes(&dispatcher);
        Scope::tenant("acme")
            .with_dispatcher(dispatcher)
            .with_routes(routes)
            .with_sets([2])
    };
    // The numbers of the refusals from 1: unknown, not-permitted, too-many, bad-value.
    assert_eq!(refused(operator, &add(9, 8, 1, 0)), 1);
    assert_eq!(refused(Scope::operator, &add(1, 8, 1, 0)), 1);
    assert_eq!(refused(tenant, &add(1, 8, 1, 0)), 2);
    assert_eq!(refused(tenant, &add(9, 8, 1, 0)), 2);
    for what in [add(1, 8, 0, 0), add(1, 8, 17, 0), add(1, 8, 16, 241)] {
        assert_eq!(refused(operator, &what), 4, "{what}");
    }
    let (_, asked) = ask(tenant, &adding(&add(2, 8, 16, 0)), &invite());
    assert_eq!(uris(&asked), "d0");
    let most: fn() -> Scope = || operator().with_targets(2);
    let (_, asked) = ask(most, &adding(&add(1, 8, 16, 0)), &invite());
    assert_eq!(uris(&asked), "a0 b1");
    let twice = format!(
        "(block (result i32) (drop {}) {})",
        add(1, 8, 2, 0),
        add(1, 8, 2, 0)
    );
    let (verdict, _) = ask(most, &adding(&twice), &invite());
    assert_eq!(verdict.to_string(), "reject 303", "too many");
}

#[test]
fn a_destination_is_added_once_and_a_closed_one_never() {
    let twice = format!(
        "(block (result i32) (drop {}) {})",
        add(1, 8, 1, 0),
        add(1, 8, 16, 9)
    );
    let (_, asked) = ask(operator, &adding(&twice), &invite());
    assert_eq!(uris(&asked), "a0 b9 c10");

    let some_down: fn() -> Scope = || {
        let dispatcher = dispatcher();
        let down = dispatcher.set_state(1, StateTarget::Uri("sip:a.example"), "i".parse().unwrap());
        assert_eq!(down, 1);
        let routes = routes(&dispatcher);
        Scope::operator()
            .with_dispatcher(dispatcher)
            .with_routes(routes)
    };
    let (_, asked) = ask(some_down, &adding(&add(1, 8, 16, 0)), &invite());
    assert_eq!(uris(&asked), "b0 c1");

    // The answer is 0, and the policy decides what follows.
    let no_route: fn() -> Scope = || {
        Scope::operator()
            .with_dispatcher(dispatcher())
            .with_routes(Arc::default())
    };
    let (verdict, asked) = ask(no_route, &adding(&add(1, 8, 16, 0)), &invite());
    assert_eq!((verdict, asked.len()), (Verdict::Relay(None), 0));
}

#[test]
fn a_replay_adds_the_recorded_destinations() {
    let mut host = Host::new();
    let policy = host
        .runtime
        .load("inline", &adding(&add(1, 4, 2, 0)))
        .unwrap();
    host.scope = Arc::new(operator());
    host.evaluator.insert_tape(Tape::new(moment()));
    host.ask(&policy, invite()).unwrap();
    let tape = host.evaluator.take_tape().unwrap();
    assert_eq!(uris(&targets(host.evaluator.take_forwarding())), "a0 b1");
    let [asked] = tape.asked() else {
        panic!("{tape:?}")
    };
    assert_eq!(asked.function, "dispatcher.add-set");
    assert_eq!(asked.arguments, json!([1, "round-robin", 2, 0]));
    assert_eq!(asked.answer, json!(["sip:a.example", "sip:b.example"]));

    // It would be the turn of the next one, and there is no dispatcher at all.
    host.scope = Arc::default();
    let replaying = Tape::replaying(moment(), tape.asked().to_vec());
    host.evaluator.insert_tape(replaying);
    host.ask(&policy, invite()).unwrap();
    assert_eq!(uris(&targets(host.evaluator.take_forwarding())), "a0 b1");
    assert!(host.evaluator.take_tape().unwrap().unanswered().is_empty());
}
