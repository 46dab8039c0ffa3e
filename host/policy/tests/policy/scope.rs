//! Queries outside the scope, from modules and from components.

use std::sync::Arc;

use portcullis_address::{
    Row, RuleFolder, RulesPart, Snapshot, TableBuilder, TrustedBuilder, TrustedPart, TrustedRow,
};
use portcullis_policy::{Scope, Verdict};

use crate::support::{Host, answering, both_forms, embedded, invite};

const PERMISSIONS: &str = "portcullis:policy/permissions@0.1.0";
const TRUSTED: &str = "portcullis:policy/trusted@0.1.0";
const RULES: &str = "portcullis:policy/rules@0.1.0";

/// The status code of a policy in this scope. Its module and its component must agree.
fn answer(scope: Scope, wat: &str) -> (u16, Arc<Scope>) {
    let mut host = Host::new();
    host.addresses = snapshot();
    host.scope = Arc::new(scope);
    let answers =
        both_forms(&host, &embedded(wat)).map(|policy| match host.ask(&policy, invite()) {
            Ok(Verdict::Reject(rejection)) => rejection.code,
            other => panic!("{other:?}"),
        });
    assert_eq!(answers[0], answers[1]);
    (answers[0], host.scope)
}

/// Tables for requests from 192.0.2.1: an address of groups 7 and 9, in a network of group 5, a trusted peer, and allowed by the rules `calls`.
fn snapshot() -> Arc<Snapshot> {
    let mut table = TableBuilder::default();
    for (id, group, ip_addr, mask, tag) in [
        (1, 9, "192.0.2.1", 32, "nine"),
        (2, 7, "192.0.2.1", 32, "seven"),
        (3, 5, "192.0.2.0", 24, "five"),
    ] {
        let row = Row {
            id,
            group,
            ip_addr,
            mask,
            port: 0,
            tag: Some(tag),
        };
        table.push(row).unwrap();
    }
    let mut peers = TrustedBuilder::default();
    let peer = TrustedRow {
        id: 1,
        source: "192.0.2.1",
        proto: "any",
        from: None,
        ruri: None,
        tag: Some("peer"),
        priority: 0,
    };
    peers.push(peer).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("calls.allow"), "ALL : ALL\n").unwrap();
    let rules = RuleFolder::new(folder.path()).load().unwrap();
    Arc::new(Snapshot {
        trusted: Arc::new(TrustedPart::of(peers.build())),
        rules: Arc::new(RulesPart::of(rules)),
        ..Snapshot::of(table.build())
    })
}

fn of_group(group: u32) -> String {
    let import = format!(
        r#"(import "{PERMISSIONS}" "allow-source-address" (func $ask (param i32) (result i32)))"#
    );
    answering(&import, "", &format!("(call $ask (i32.const {group}))"))
}

fn of_address(group: u32, address: &str) -> String {
    let import = format!(
        r#"(import "{PERMISSIONS}" "allow-address" (func $ask (param i32 i32 i32 i32) (result i32)))"#
    );
    let length = address.len();
    let body = format!(
        "(call $ask (i32.const {group}) (i32.const 256) (i32.const {length}) (i32.const 0))"
    );
    answering(&import, address, &body)
}

/// Returns the group of the source; 99 if there is none.
fn first_group() -> String {
    let import =
        format!(r#"(import "{PERMISSIONS}" "source-address-group" (func $ask (param i32)))"#);
    answering(
        &import,
        "",
        "(block (result i32) (call $ask (i32.const 512))
          (select (i32.load (i32.const 516)) (i32.const 99) (i32.load (i32.const 512))))",
    )
}

/// Returns the length of the tag after a query of a group.
fn tag_behind(group: u32) -> String {
    let import = format!(
        r#"(import "{PERMISSIONS}" "allow-source-address" (func $group (param i32) (result i32)))
           (import "{PERMISSIONS}" "last-tag" (func $ask (param i32)))"#
    );
    let body = format!(
        "(block (result i32) (drop (call $group (i32.const {group}))) (call $ask (i32.const 512))
          (i32.mul (i32.load (i32.const 512)) (i32.load (i32.const 520))))"
    );
    answering(&import, "", &body)
}

fn of_trusted(function: &str) -> String {
    let import = format!(r#"(import "{TRUSTED}" "{function}" (func $ask (result i32)))"#);
    answering(&import, "", "(call $ask)")
}

fn of_rules(basename: &str) -> String {
    let import = format!(
        r#"(import "{RULES}" "allow-routing" (func $ask (param i32 i32 i32) (result i32)))"#
    );
    let length = basename.len();
    let is_some = u32::from(length > 0);
    let body = format!("(call $ask (i32.const {is_some}) (i32.const 256) (i32.const {length}))");
    answering(&import, basename, &body)
}

#[test]
fn groups_outside_the_scope_have_no_rows() {
    for (group, expected) in [(7, 301), (5, 301), (9, 300), (8, 300)] {
        let scope = Scope::tenant("acme").with_groups([5, 7]);
        let (code, scope) = answer(scope, &of_group(group));
        assert_eq!(code, expected, "{group}");
        // Both forms of the policy made the query.
        assert_eq!(
            scope.crossings(),
            if expected == 301 { 0 } else { 2 },
            "{group}"
        );
        let scope = Scope::tenant("acme").with_groups([5, 7]);
        let (code, _) = answer(scope, &of_address(group, "192.0.2.1"));
        assert_eq!(code, expected, "{group}");
        let (code, _) = answer(Scope::operator(), &of_group(group));
        assert_eq!(code, if group == 8 { 300 } else { 301 }, "{group}");
    }
}

#[test]
fn the_first_group_is_the_first_in_the_scope() {
    for (groups, expected) in [
        (&[9, 7, 5][..], 307),
        (&[9, 5], 309),
        (&[5], 305),
        (&[8], 399),
        (&[], 399),
    ] {
        let scope = Scope::tenant("acme").with_groups(groups.iter().copied());
        assert_eq!(answer(scope, &first_group()).0, expected, "{groups:?}");
    }
    assert_eq!(answer(Scope::operator(), &first_group()).0, 307);
}

#[test]
fn tags_outside_the_scope_are_not_found() {
    let scope = || Scope::tenant("acme").with_groups([7]);
    assert_eq!(answer(scope(), &tag_behind(7)).0, 305, "seven");
    assert_eq!(answer(scope(), &tag_behind(9)).0, 300);
    assert_eq!(answer(Scope::operator(), &tag_behind(9)).0, 304, "nine");
}

#[test]
fn trusted_peers_are_found_only_within_the_scope() {
    for function in ["allow-trusted", "count-trusted"] {
        let asked = |trusted| {
            let scope = Scope::tenant("acme").with_trusted(trusted);
            answer(scope, &of_trusted(function)).0
        };
        assert_eq!((asked(true), asked(false)), (301, 300), "{function}");
    }
}

#[test]
fn rules_outside_the_scope_deny() {
    let asked = |names: &[&str], basename| {
        let scope = Scope::tenant("acme").with_rules(names.iter().copied());
        answer(scope, &of_rules(basename)).0
    };
    assert_eq!(asked(&["calls"], "calls"), 301);
    assert_eq!(asked(&["other"], "calls"), 300);
    // Missing rules would allow, and so would the default rules.
    assert_eq!(asked(&["calls"], "nothing"), 300);
    assert_eq!(asked(&["calls"], ""), 300);
    assert_eq!(asked(&["permissions"], ""), 301);
    assert_eq!(answer(Scope::operator(), &of_rules("nothing")).0, 301);
}

/// State that a policy leaves in a kept sandbox is not visible in another scope.
#[test]
fn kept_state_is_visible_only_in_the_same_scope() {
    let mut host = Host::new();
    let policy = host.load("stateful").with_reuse(true);
    let code = |host: &mut Host, scope: &Arc<Scope>| {
        host.scope = Arc::clone(scope);
        match host.ask(&policy, invite()) {
            Ok(Verdict::Reject(rejection)) => rejection.code,
            other => panic!("{other:?}"),
        }
    };
    let [one, other] = ["one", "other"].map(|name| Arc::new(Scope::tenant(name)));

    assert_eq!([code(&mut host, &one), code(&mut host, &one)], [301, 302]);
    assert_eq!(code(&mut host, &other), 301);
    assert_eq!(code(&mut host, &one), 303);
    assert_eq!(code(&mut host, &other), 302);
}
