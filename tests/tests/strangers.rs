//! Whom the guard never holds or bans, that a ban ends by itself, and what a policy sees of the guard.

#![forbid(unsafe_code)]

use std::net::IpAddr;

use portcullis_testkit::guests::{module, rejecting};
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::policy;
use portcullis_testkit::sip::Caller;
use portcullis_testkit::wait;
use serde_json::Value;

const SCANNER: u8 = 9;

/// A host whose policy finds no user: each request is evidence.
fn start(builder: Builder) -> Host {
    let host = builder.start();
    host.replace_policy(&rejecting(404, "Not Found"));
    host.run("policy reload");
    host
}

/// Asks for another user with each request, until the connection is closed or all are answered. Returns how many are.
fn scan(caller: &mut Caller, requests: usize) -> usize {
    let mut answered = 0;
    for user in 0..requests {
        let request = caller.request("MESSAGE", &format!("sip:u{user}@b"));
        let Some(answer) = caller.try_ask(&request) else {
            break;
        };
        assert_eq!(answer.code(), 404);
        answered += 1;
    }
    answered
}

/// The sources that are held or banned, with their states.
fn listed(host: &Host) -> Vec<(String, String)> {
    let list: Value = serde_json::from_str(&host.run("guard list --json")).expect("a list");
    let text = |one: &Value, key: &str| one[key].as_str().expect("a text").to_owned();
    let list = list.as_array().expect("a list").iter();
    list.map(|one| (text(one, "source"), text(one, "state")))
        .collect()
}

/// What the list says of one source, as soon as it is there.
fn state_of(host: &Host, source: IpAddr) -> String {
    let source = source.to_string();
    wait::until("the source is listed", || {
        let mut all = listed(host).into_iter();
        all.find(|(one, _)| *one == source).map(|(_, state)| state)
    })
}

#[test]
fn a_ban_ends_by_itself() {
    let host = start(Builder::new().set("guard", "exempt = []\nban = \"5s\""));
    let mut scanner = host.tcp(SCANNER);
    assert!(scan(&mut scanner, 1_000) < 1_000, "it is not banned");
    // The log keeps it, however late this test looks.
    host.wait_for_log("event=\"source_banned\"");
    // Nobody releases it.
    host.wait_for_log("event=\"source_released\"");
    assert!(listed(&host).is_empty());
    let mut later = host.udp(SCANNER);
    let request = later.request("MESSAGE", "sip:later@b");
    assert_eq!(later.ask(&request).code(), 404);
}

#[test]
fn whoever_the_operator_knows_is_never_held_or_banned() {
    let builder = Builder::new();
    let [peer, gateway, domain, office] = [20, 21, 22, 23].map(|host| builder.lease().ip(host));
    let next_hop = format!("carrier = \"sip:{gateway}:5070\"");
    let host = start(
        builder
            .set("guard", &format!("exempt = [\"{office}\"]"))
            .set("relay", &format!("domains = [\"{domain}\"]"))
            .set("relay.next-hops", &next_hop),
    );
    host.run(&format!("trusted add {peer} any"));
    host.run("trusted reload");
    for source in 20..=23 {
        for mut caller in [host.udp(source), host.tcp(source)] {
            assert_eq!(scan(&mut caller, 50), 50, "{}", caller.local());
        }
    }
    assert!(listed(&host).is_empty());
    // The same of a stranger is enough.
    let mut stranger = host.tcp(SCANNER);
    assert!(scan(&mut stranger, 50) < 50);
    assert_eq!(state_of(&host, stranger.local().ip()), "banned");
}

/// The names that scripts for Kamailio look for say nothing, because every scanner can change its own.
#[test]
fn what_a_client_calls_itself_is_no_evidence() {
    let host = Builder::new()
        .policy(policy("observe"))
        .set("guard", "exempt = []\nmalformed = 5")
        .start();
    let us = format!("sip:{}", host.sip());
    let mut client = host.tcp(20);
    for name in [
        "friendly-scanner",
        "sipvicious",
        "sipcli/v1.8",
        "VaxSIPUserAgent/3.1",
        "pplsip",
    ] {
        for _ in 0..20 {
            let request = client.request("OPTIONS", &us);
            let request = request.header(&format!("User-Agent: {name}"));
            assert_eq!(client.ask(&request).code(), 200);
        }
    }
    assert!(listed(&host).is_empty());
    let mut scanner = host.udp(SCANNER);
    for _ in 0..5 {
        let request = scanner.request("NONSENSE", "sip:a@b");
        let request = request.header("User-Agent: Yealink SIP-T46S 66.86.0.15");
        scanner.send(&request.bytes());
    }
    assert_eq!(state_of(&host, scanner.local().ip()), "held");
}

/// Rejects with 300 and the number of the standing of the source.
const STANDING: &str = r#"(module
    (import "portcullis:policy/guard@0.1.0" "source-standing" (func $standing (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 16) "\01")
    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
    (func (export "decide") (result i32)
      (i32.store16 (i32.const 20) (i32.add (i32.const 300) (call $standing)))
      i32.const 16))"#;

#[test]
fn a_policy_sees_how_the_guard_stands_towards_a_source() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let standing = folder.path().join("standing.wasm");
    std::fs::write(&standing, module(STANDING)).expect("a file can be written");
    let builder = Builder::new().policy(standing);
    let member = builder.lease().ip(20);
    let host = builder
        .row(&format!("200 {member}"))
        .set("guard", "exempt = []\nmalformed = 5\nheld-rate = 1000")
        .start();
    let ask = |caller: &mut Caller| {
        let request = caller.request("MESSAGE", "sip:a@b");
        caller.ask(&request).code()
    };
    assert_eq!(ask(&mut host.udp(20)), 300, "exempt");
    let mut stranger = host.udp(SCANNER);
    assert_eq!(ask(&mut stranger), 301, "observed");
    for _ in 0..5 {
        stranger.send(b"NONSENSE\r\n\r\n");
    }
    assert_eq!(state_of(&host, stranger.local().ip()), "held");
    assert_eq!(ask(&mut stranger), 302, "held");
}
