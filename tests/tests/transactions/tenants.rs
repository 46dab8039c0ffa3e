//! Policies of tenants that name targets: how many targets they may call at the same time, and how often they are asked after failures (the time
//! for a request is in `patient`); trials and changes of such policies.

use portcullis_testkit::guests::{guest, module};
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::messages::Message;
use portcullis_testkit::peer::Peer;
use portcullis_testkit::{policy, root, wait};

use crate::call::Call;
use crate::site::{Site, wait_until_idle};

/// Whom the callers of these tests call. The policy names the targets.
const BOB: &str = "sip:bob@acme.example";

/// A host with a tenant that may relay to these next hops, and has these further keys.
fn start(builder: Builder, next_hops: &[(&str, &Peer)], keys: &str) -> Host {
    let names: Vec<_> = next_hops.iter().map(|(name, _)| name).collect();
    let builder = builder
        .set("tenants.acme", "uri-domains = [\"acme.example\"]")
        .set("tenants.acme", &format!("next-hops = {names:?}"))
        .set("tenants.acme", keys);
    let each = next_hops.iter();
    let builder = each.fold(builder, |builder, (name, peer)| {
        let value = format!("{name} = \"sip:{}\"", peer.local());
        builder.set("relay.next-hops", &value)
    });
    builder.start()
}

/// A tenant that forks to three has two of them called at once, by default.
#[test]
fn the_targets_of_a_tenant_are_called_a_few_at_a_time() {
    let builder = Builder::new();
    let callees = [0; 3].map(|_| Peer::udp(builder.lease().ip(3)));
    let [one, two, three] = &callees;
    let file = format!("file = {:?}", policy("fork"));
    let hops = [("a", one), ("b", two), ("c", three)];
    let builder = builder.set("tenants.acme.settings", "next-hops = [\"a\", \"b\", \"c\"]");
    let host = start(builder, &hops, &file);
    let call = Call::to(&Site::of(&host), BOB);
    let first = call.rings_at(one);
    let second = call.rings_at(two);
    assert!(three.seen().is_empty(), "its turn has not come");
    call.is_refused_by(one, &first, 486);
    let ok = call.is_answered_by(three, &call.arrives_at(three));
    call.is_cancelled_at(two, &second, 487);
    call.is_completed_with(three, &ok);
    wait_until_idle(&host);
}

/// The policy wants another try after each failure, without end.
#[test]
fn the_policy_of_a_tenant_is_asked_a_few_times_after_failures() {
    for (keys, asked) in [("tries = 0", 0), ("tries = 3", 3), ("", 8)] {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let file = folder.path().join("again.wasm");
        std::fs::write(&file, guest("endless-again")).expect("it can be written");
        let builder = Builder::new();
        let callee = Peer::udp(builder.lease().ip(3));
        let keys = format!("file = {file:?}\n{keys}");
        let host = start(builder, &[("carrier", &callee)], &keys);
        let call = Call::to(&Site::of(&host), BOB);
        for user in ('a'..='z').take(1 + asked) {
            refuses(&callee, &call, user);
        }
        call.fails_with(500);
        wait_until_idle(&host);
        assert_eq!(callee.times_of("ACK").len(), 1 + asked, "{keys}");
    }
}

/// Writes two policies, which decide alike. One of them always wants another try after a failure, and the other one never.
fn write_policies(host: &Host) {
    let file = root().join("tests/guests/endless-again.wat");
    let text = std::fs::read_to_string(&file).expect("the guest is there");
    let (again, best) = ("    i32.const 64))", "    i32.const 16))");
    assert_eq!(text.matches(again).count(), 1);
    host.write("again.wasm", module(&text));
    host.write("best.wasm", module(&text.replace(again, best)));
}

/// The INVITE for this user comes to the callee, which refuses it.
fn refuses(callee: &Peer, call: &Call, user: char) {
    let line = format!("INVITE sip:{user}@example.com SIP/2.0");
    let is_it = |message: &Message| {
        message.start_line() == line && message.header("Call-ID") == Some(&call.invite.call_id)
    };
    let seen = callee.nth(0, &line, is_it);
    call.is_refused_by(callee, &seen, 503);
}

#[test]
fn a_shadow_is_asked_after_failures() {
    let builder = Builder::new();
    let callee = Peer::udp(builder.lease().ip(3));
    let host = start(builder, &[("carrier", &callee)], "tries = 1");
    write_policies(&host);
    host.run("policy push acme again.wasm --activate");
    host.run("policy push acme best.wasm --shadow");
    let call = Call::to(&Site::of(&host), BOB);
    for user in ['a', 'b'] {
        refuses(&callee, &call, user);
    }
    call.fails_with(500);
    let diff = wait::until("the candidate was asked twice", || {
        let diff = host.run("policy diff acme");
        diff.contains("1 call the same, 1 different")
            .then_some(diff)
    });
    for line in [
        r#"serves:    after failure: again, to {"next-hop":"carrier","#,
        r#""request-uri":"sip:b@example.com""#,
        "candidate: after failure: best",
    ] {
        assert!(diff.contains(line), "{line}: {diff}");
    }
    let labels = ["seat=\"acme\"", "generation=\"2\""];
    let calls = host.metric("portcullis_generation_calls_total", &labels);
    assert_eq!(calls, 2.0, "of the candidate");
}

#[test]
fn the_generation_that_decided_is_asked_after_failures() {
    let builder = Builder::new();
    let callee = Peer::udp(builder.lease().ip(3));
    let host = start(builder, &[("carrier", &callee)], "tries = 1");
    write_policies(&host);
    host.run("policy push acme again.wasm --activate");
    host.run("policy push acme best.wasm");
    let site = Site::of(&host);
    for (change, tries) in [
        ("policy activate acme 2", true),
        ("policy rollback acme", false),
    ] {
        let before = callee.times_of("INVITE").len();
        let call = Call::to(&site, BOB);
        callee.nth_request(before, "INVITE");
        host.run(change);
        refuses(&callee, &call, 'a');
        if tries {
            refuses(&callee, &call, 'b');
        }
        call.fails_with(500);
    }
    assert_eq!(callee.times_of("ACK").len(), 3);
    wait_until_idle(&host);
}

/// The previous generation takes over.
#[test]
fn failures_of_on_failure_count_for_the_circuit_breaker() {
    let builder = Builder::new();
    let callee = Peer::udp(builder.lease().ip(3));
    let keys = "next-hop = \"carrier\"\nbreaker-failures = 2";
    let host = start(builder, &[("carrier", &callee)], keys);
    write_policies(&host);
    host.write("trap.wasm", guest("trap-in-on-failure"));
    host.run("policy push acme best.wasm --activate");
    host.run("policy push acme trap.wasm --activate");
    let site = Site::of(&host);
    for _ in 0..2 {
        let call = Call::to(&site, BOB);
        let is_it = |message: &Message| message.header("Call-ID") == Some(&call.invite.call_id);
        let seen = callee.nth(0, "the INVITE", is_it);
        call.is_refused_by(&callee, &seen, 503);
        call.fails_with(500);
    }
    wait::until("the generation before decides", || {
        let listed = host.run("policy list acme");
        let active = listed.lines().find(|line| line.contains(" active "));
        active
            .is_some_and(|line| line.contains("best.wasm"))
            .then_some(())
    });
    assert_eq!(
        host.metric("portcullis_policy_alert", &["seat=\"acme\""]),
        1.0
    );
}
