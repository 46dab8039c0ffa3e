//! The interface `forwarding`, from modules and from components.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use portcullis_policy::{
    Failure, ForwardTarget, Forwarding, InvalidVerdict, Place, Policy, Scope, Verdict,
};
use portcullis_sip::{Routes, RoutesBuilder};

use crate::support::{Host, both_forms, embedded, guest, invite, reject};

pub(crate) const FORWARDING: &str = "portcullis:policy/forwarding@0.1.0";

/// A module with the text `text` at 256 that adds targets. `decide` relays if the value of `body` is 0, and otherwise rejects with 300 plus
/// the value; `more` are further functions.
///
/// `$to` adds a target: place (0 for a next hop, 1 for a URI), address and length of its text, rank. `$try` and `$codes` set memo and codes.
/// Their values are 0, or the number of the refusal from 1.
pub(crate) fn forwarding(text: &str, body: &str, more: &str) -> String {
    forwarding_with("", text, body, more)
}

/// The same with more imports.
pub(crate) fn forwarding_with(imports: &str, text: &str, body: &str, more: &str) -> String {
    format!(
        r#"(module
            (import "{FORWARDING}" "add" (func $add (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))
            (import "{FORWARDING}" "share" (func $share (param i32)))
            (import "{FORWARDING}" "retry-on" (func $retry (param i32 i32 i32)))
            (import "{FORWARDING}" "memo" (func $memo (param i32 i32 i32)))
            {imports}
            (memory (export "memory") 1)
            (global $heap (mut i32) (i32.const 4096))
            (data (i32.const 16) "\01\00\00\00")
            (data (i32.const 64) "\02")
            (data (i32.const 256) "{text}")
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
              (global.set $heap (i32.add (global.get $heap) (i32.const 256)))
              (global.get $heap))
            (func $refusal (result i32)
              (i32.mul (i32.load8_u (i32.const 512)) (i32.add (i32.const 1) (i32.load8_u (i32.const 513)))))
            (func $to (param $place i32) (param $at i32) (param $length i32) (param $rank i32) (result i32)
              (call $add (local.get $place) (local.get $at) (local.get $length) (local.get $rank) (i32.const 1)
                (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 4) (i32.const 0)
                (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 512))
              (call $refusal))
            (func $remember (param $at i32) (param $length i32) (result i32)
              (call $memo (local.get $at) (local.get $length) (i32.const 512))
              (call $refusal))
            (func $codes (param $at i32) (param $count i32) (result i32)
              (call $retry (local.get $at) (local.get $count) (i32.const 512))
              (call $refusal))
            (func (export "decide") (result i32)
              (local $n i32)
              (local.set $n {body})
              (if (i32.eqz (local.get $n)) (then (return (i32.const 32))))
              (i32.store16 (i32.const 20) (i32.add (i32.const 300) (local.get $n)))
              i32.const 16)
            {more})"#
    )
}

/// The routes of the tests: the next hop `carrier`, and a domain.
fn routes() -> Arc<ArcSwap<Routes>> {
    let mut builder = RoutesBuilder::new();
    builder.hop("carrier", "sip:192.0.2.1").unwrap();
    builder.domain("example.com").unwrap();
    Arc::new(ArcSwap::from_pointee(builder.build(&HashMap::new())))
}

fn tenant() -> Scope {
    Scope::tenant("acme").with_routes(routes())
}

/// Calls a policy in both forms, each with a scope of its own. They must agree.
fn ask(scope: fn() -> Scope, module: &[u8]) -> (Verdict, Option<Forwarding>, u64) {
    let mut host = Host::new();
    let [module, component] = both_forms(&host, module).map(|policy| {
        host.scope = Arc::new(scope());
        let verdict = host.ask(&policy, invite()).unwrap();
        let forwarding = host.evaluator.take_forwarding();
        assert_eq!(host.evaluator.take_forwarding(), None, "taken");
        (verdict, forwarding, host.scope.crossings())
    });
    assert_eq!(module, component);
    module
}

fn hop(name: &str, rank: u8) -> ForwardTarget {
    ForwardTarget {
        place: Place::NextHop(name.into()),
        rank,
        weight: 1,
        request_uri: None,
        headers: Vec::new(),
        no_answer: None,
        ring: None,
    }
}

#[test]
fn every_field_of_a_target_arrives() {
    let text = r"sip:bob@example.comX-Abc\00\00\00\00\00\00";
    // One header field at 600: the name at 275 and the value at 278.
    let body = "(block (result i32)
        (i32.store (i32.const 600) (i32.const 275)) (i32.store (i32.const 604) (i32.const 3))
        (i32.store (i32.const 608) (i32.const 278)) (i32.store (i32.const 612) (i32.const 2))
        (call $add (i32.const 1) (i32.const 256) (i32.const 19) (i32.const 0x107) (i32.const 0x1ffff)
          (i32.const 1) (i32.const 256) (i32.const 19) (i32.const 600) (i32.const 1)
          (i32.const 1) (i32.const 4000) (i32.const 1) (i32.const 30000) (i32.const 512))
        (call $share (i32.const 1))
        (i32.store16 (i32.const 640) (i32.const 5)) (i32.store16 (i32.const 642) (i32.const 486))
        (drop (call $codes (i32.const 640) (i32.const 2)))
        (drop (call $remember (i32.const 256) (i32.const 3)))
        (call $refusal))";
    let (verdict, said, _) = ask(Scope::operator, &embedded(&forwarding(text, body, "")));
    assert_eq!(verdict, Verdict::Relay(None));
    let target = ForwardTarget {
        place: Place::Uri("sip:bob@example.com".into()),
        rank: 7,
        weight: u16::MAX,
        request_uri: Some("sip:bob@example.com".into()),
        headers: vec![("X-A".into(), "bc".into())],
        no_answer: Some(Duration::from_secs(4)),
        ring: Some(Duration::from_secs(30)),
    };
    let expected = Forwarding {
        targets: vec![target],
        share: true,
        retry_on: Some(vec![5, 486]),
        memo: b"sip".to_vec(),
    };
    assert_eq!(said, Some(expected));
}

#[test]
fn targets_are_those_of_a_verdict_that_relays() {
    let add = "(call $to (i32.const 0) (i32.const 256) (i32.const 7) (i32.const 1))";
    let (verdict, said, _) = ask(tenant, &embedded(&forwarding("carrier", add, "")));
    assert_eq!(verdict, Verdict::Relay(None));
    assert_eq!(said.unwrap().targets, [hop("carrier", 1)]);

    let (verdict, said, _) = ask(tenant, &guest("add-then-reject"));
    assert_eq!((verdict, said), (reject(404, ""), None));
    // `pass` at 768.
    let pass = format!(
        "(block (result i32) (drop {add}) (i32.store8 (i32.const 768) (i32.const 3)) (return (i32.const 768)))"
    );
    let (verdict, said, _) = ask(tenant, &embedded(&forwarding("carrier", &pass, "")));
    assert_eq!((verdict, said), (Verdict::Pass, None));
}

#[test]
fn a_next_hop_beside_targets_is_invalid() {
    // `relay(some("carrier"))` at 768.
    let named = "(block (result i32)
        (i32.store8 (i32.const 772) (i32.const 1))
        (i32.store (i32.const 776) (i32.const 256)) (i32.store (i32.const 780) (i32.const 7))
        (return (i32.const 768)))";
    let add = "(drop (call $to (i32.const 0) (i32.const 256) (i32.const 7) (i32.const 0)))";
    let remember = "(drop (call $remember (i32.const 256) (i32.const 7)))";
    let mut host = Host::new();
    for (first, is_valid) in [(add, false), (remember, true), ("", true)] {
        let body = format!("(block (result i32) {first} {named})");
        for policy in both_forms(&host, &embedded(&forwarding("carrier", &body, ""))) {
            let answer = host.ask(&policy, invite());
            let said = host.evaluator.take_forwarding();
            if is_valid {
                assert_eq!(answer, Ok(Verdict::Relay(Some("carrier".into()))));
                assert_eq!(said.is_some(), !first.is_empty());
                assert_eq!(said.map_or(0, |said| said.targets.len()), 0);
            } else {
                let invalid = InvalidVerdict::TargetsAndNextHop("carrier".into());
                assert_eq!(answer, Err(Failure::InvalidVerdict(invalid)));
                assert_eq!(said, None);
            }
        }
    }
}

#[test]
fn a_request_has_at_most_the_permitted_number_of_targets() {
    let count = |scope| {
        let (_, said, _) = ask(scope, &guest("many-targets"));
        said.unwrap().targets.len()
    };
    assert_eq!(count(tenant), 16);
    assert_eq!(count(Scope::operator), 16);
    assert_eq!(count(|| tenant().with_targets(3)), 3);
    assert_eq!(count(|| tenant().with_targets(200)), 16);
}

/// RFC 3261 §16.5
#[test]
fn a_place_is_added_once() {
    let add = "(call $to (i32.const 0) (i32.const 256) (i32.const 7) (i32.const 1))";
    let twice = format!("(block (result i32) (drop {add}) {add})");
    let (verdict, said, _) = ask(tenant, &embedded(&forwarding("carrier", &twice, "")));
    assert_eq!((verdict, said), (reject(304, ""), None), "bad-value");
}

#[test]
fn places_outside_the_scope_are_refused() {
    let operator = || Scope::operator().with_routes(routes());
    for (place, text, of_tenant, of_operator) in [
        (0, "carrier", 0, 0),
        (0, "other", 2, 1),
        (1, "sip:example.com", 0, 0),
        (1, "sip:192.0.2.1", 0, 0),
        (1, "sip:203.0.113.66", 2, 2),
        (1, "sip:example.com:22", 2, 2),
        (1, "sips:example.com", 4, 4),
        (1, "example.com", 4, 4),
        (0, "", 4, 4),
    ] {
        let length = text.len();
        let body = format!(
            "(call $to (i32.const {place}) (i32.const 256) (i32.const {length}) (i32.const 0))"
        );
        let module = embedded(&forwarding(text, &body, ""));
        for (scope, refusal) in [
            (tenant as fn() -> Scope, of_tenant),
            (operator, of_operator),
        ] {
            let (verdict, said, crossings) = ask(scope, &module);
            match refusal {
                0 => assert_eq!(
                    (verdict, said.is_some()),
                    (Verdict::Relay(None), true),
                    "{text}"
                ),
                refusal => assert_eq!((verdict, said), (reject(300 + refusal, ""), None), "{text}"),
            }
            assert_eq!(crossings, u64::from(matches!(refusal, 1 | 2)), "{text}");
        }
    }
    // Without routes nothing is permitted to a tenant, and everything to the operator.
    let (_, said, crossings) = ask(|| Scope::tenant("acme"), &guest("foreign-uri"));
    assert_eq!((said, crossings), (None, 1));
    let (_, said, _) = ask(Scope::operator, &guest("foreign-uri"));
    assert_eq!(said.unwrap().targets.len(), 1);
}

#[test]
fn header_fields_of_a_target_follow_the_scope() {
    // One header field at 600, `X-A: carrier`.
    let body = "(block (result i32)
        (i32.store (i32.const 600) (i32.const 263)) (i32.store (i32.const 604) (i32.const 3))
        (i32.store (i32.const 608) (i32.const 256)) (i32.store (i32.const 612) (i32.const 7))
        (call $add (i32.const 0) (i32.const 256) (i32.const 7) (i32.const 0) (i32.const 0)
          (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 600) (i32.const 1)
          (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 512))
        (call $refusal))";
    let (verdict, said, crossings) = ask(tenant, &embedded(&forwarding("carrierX-A", body, "")));
    assert_eq!((verdict, said, crossings), (reject(302, ""), None, 1));
    let scope = || tenant().with_headers(["x-a"]);
    let (_, said, crossings) = ask(scope, &embedded(&forwarding("carrierX-A", body, "")));
    assert_eq!((said.unwrap().targets.len(), crossings), (1, 0));
    let (verdict, ..) = ask(scope, &embedded(&forwarding("carrierVia", body, "")));
    assert_eq!(verdict, reject(304, ""));
}

#[test]
fn a_memo_has_at_most_256_bytes() {
    let (_, said, _) = ask(tenant, &guest("long-memo"));
    assert_eq!(said.unwrap().memo, [0; 256]);
}

#[test]
fn codes_are_checked() {
    for (code, refusal) in [(5, 0), (486, 0), (407, 4), (603, 4), (6, 4)] {
        let body = format!(
            "(block (result i32) (i32.store16 (i32.const 640) (i32.const {code}))
              (call $codes (i32.const 640) (i32.const 1)))"
        );
        let (verdict, ..) = ask(tenant, &embedded(&forwarding("", &body, "")));
        let expected = match refusal {
            0 => Verdict::Relay(None),
            refusal => reject(300 + refusal, ""),
        };
        assert_eq!(verdict, expected, "{code}");
    }
    let many = "(call $codes (i32.const 640) (i32.const 33))";
    let (verdict, ..) = ask(tenant, &embedded(&forwarding("", many, "")));
    assert_eq!(verdict, reject(303, ""));
}

/// Arguments that violate the canonical ABI, and those that are too large. Modules and components fail alike.
#[test]
fn arguments_that_cannot_be_read_are_failures() {
    let add = |place: u32, at: u32, has_uri: u32, headers_at: u32, headers: u32, has_ring: u32| {
        format!(
            "(block (result i32) (call $add (i32.const {place}) (i32.const {at}) (i32.const 7) (i32.const 0) (i32.const 0)
              (i32.const {has_uri}) (i32.const 256) (i32.const 7) (i32.const {headers_at}) (i32.const {headers})
              (i32.const 0) (i32.const 0) (i32.const {has_ring}) (i32.const 0) (i32.const 512)) (i32.const 0))"
        )
    };
    let odd = "(block (result i32) (call $codes (i32.const 641) (i32.const 1)))".to_owned();
    let stray = "(block (result i32) (call $remember (i32.const 65535) (i32.const 2)))".to_owned();
    for (body, kind) in [
        (add(2, 256, 0, 4, 0, 0), "trap"),
        (add(0, 65530, 0, 4, 0, 0), "trap"),
        (add(0, 256, 2, 4, 0, 0), "trap"),
        (add(0, 256, 0, 6, 1, 0), "trap"),
        (add(0, 256, 0, 4, 1 << 20, 0), "trap"),
        (add(0, 256, 0, 4, 0, 3), "trap"),
        (odd, "trap"),
        (stray, "trap"),
        // The longest list that fits into the memory, of empty names and values.
        (add(0, 256, 0, 1024, 4000, 0), "host_call"),
    ] {
        let mut host = Host::new();
        let policies = both_forms(&host, &embedded(&forwarding("carrier", &body, "")));
        let kinds = policies.map(|policy: Policy| {
            let failure = host.ask(&policy, invite()).unwrap_err();
            failure.kind().as_str()
        });
        assert_eq!(kinds, [kind; 2], "{body}");
    }
}
