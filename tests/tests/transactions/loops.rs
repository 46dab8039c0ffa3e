//! Loops and spirals (RFC 5393 §4.2).

use std::net::SocketAddr;

use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::lossy::Lossy;
use portcullis_testkit::messages::Message;
use portcullis_testkit::peer::{Peer, Seen, branch_of};
use portcullis_testkit::policy;

use crate::call::Call;
use crate::site::{Site, wait_until_idle};

/// 25: two hosts, each of which is the next hop of the other.
#[test]
fn a_loop_through_two_hosts_ends_with_482() {
    let [one, two] = [Builder::new(), Builder::new()];
    let [first, second] = [&one, &two].map(|builder| builder.lease().addr(1, 5060));
    let start = |builder: Builder, next| {
        let builder = builder.policy(policy("observe"));
        builder
            .set("relay", &format!("next-hop = \"sip:{next}\""))
            .start()
    };
    let (one, two) = (start(one, second), start(two, first));
    let caller = Peer::udp(one.lease().ip(10));
    let invite = caller.request("INVITE", "sip:bob@example.com");
    caller.send(&invite.bytes(), one.sip());
    let answer = caller.first_response("INVITE", 482);
    caller.send(&invite.ack_for(&answer.message).bytes(), one.sip());
    // The request comes to the first host from the caller and from the second host, which is a spiral, but to the second host from the first
    // one both times.
    for (host, begun) in [(&one, 2.0), (&two, 1.0)] {
        wait_until_idle(host);
        assert_eq!(
            host.metric("portcullis_transactions_begun_total", &[]),
            begun
        );
    }
}

/// 25: another proxy sends the request back with another request URI.
#[test]
fn a_spiral_passes() {
    let (host, site) = Site::host();
    let callee = site.callee();
    let (call, proxy) = Call::start(site);
    let seen = call.arrives_at(&proxy);
    proxy.send(&forwarded(&proxy, &seen, &callee.uri()), seen.from);
    callee.answer(&call.arrives_at(&callee), 200);
    let ok = proxy.first_response("INVITE", 200);
    proxy.send(&without_top_via(&ok.message), seen.from);
    let ok = call.caller.first_response("INVITE", 200);
    call.is_confirmed_to(&callee, &ok);
    wait_until_idle(&host);
    assert_eq!(host.metric("portcullis_transactions_begun_total", &[]), 2.0);
}

/// 25: another proxy sends the request back as it is, again and again.
#[test]
fn a_loop_ends_with_482() {
    let (host, site) = Site::host();
    let (call, proxy) = Call::start(site);
    let laps = [0, 1].map(|lap| {
        let seen = proxy.nth_request(lap, "INVITE");
        let again = forwarded(&proxy, &seen, &proxy.uri());
        proxy.send(&again, seen.from);
        (seen, again)
    });
    for (lap, (seen, again)) in laps.iter().rev().enumerate() {
        let answer = proxy.nth_response(lap, "INVITE", 482);
        proxy.send(&ack_for(again), seen.from);
        proxy.send(&without_top_via(&answer.message), seen.from);
        proxy.nth_request(lap, "ACK");
    }
    call.fails_with(482);
    wait_until_idle(&host);
    assert_eq!(host.metric("portcullis_transactions_begun_total", &[]), 2.0);
}

/// A policy that names the host itself as its target.
#[test]
fn a_target_that_is_the_host_itself_is_not_tried() {
    let builder = Builder::new();
    let own = builder.lease().addr(1, 5060);
    let host = with_next_hop(builder, "failover", own);
    let call = Call::to(&Site::of(&host), BOB);
    let end = call.caller.nth(0, "a final response", |m| m.code() >= 200);
    assert!(end.message.code() >= 500, "{}", end.message.start_line());
    call.fails_with(end.message.code());
    wait_until_idle(&host);
    assert_eq!(host.metric("portcullis_transactions_begun_total", &[]), 1.0);
}

/// The same by an address that the host does not know to be its own.
#[test]
fn a_target_that_leads_back_to_the_host_ends_with_482() {
    let builder = Builder::new();
    let back = back_to(&builder);
    let host = with_next_hop(builder, "failover", back.addr());
    let call = Call::to(&Site::of(&host), BOB);
    call.fails_with(482);
    wait_until_idle(&host);
    // From the caller, and once more from the address that leads back.
    assert_eq!(host.metric("portcullis_transactions_begun_total", &[]), 2.0);
}

/// One target of a fork is the host itself: the other one gets the call.
#[test]
fn a_fork_with_the_host_itself_reaches_the_other_target() {
    let builder = Builder::new();
    let own = builder.lease().addr(1, 5060);
    let callee = Peer::udp(builder.lease().ip(4));
    let host = forking_to(builder, [own, callee.local()]);
    let call = Call::to(&Site::of(&host), BOB);
    let ok = call.is_answered_by(&callee, &call.rings_at(&callee));
    call.is_completed_with(&callee, &ok);
    wait_until_idle(&host);
    let unreachable = host.metric("portcullis_attempts_total", &["unreachable"]);
    assert_eq!(unreachable, 1.0);
    assert_eq!(callee.times_of("CANCEL").len(), 0);
}

/// The same by an address that the host does not know to be its own. The request comes back from there, which is a spiral, and then once more,
/// which is a loop.
#[test]
fn a_fork_that_leads_back_to_the_host_reaches_the_other_target() {
    let builder = Builder::new();
    let back = back_to(&builder);
    let callee = Peer::udp(builder.lease().ip(4));
    let host = forking_to(builder, [back.addr(), callee.local()]);
    let call = Call::to(&Site::of(&host), BOB);
    let seen = [0, 1].map(|n| callee.nth_request(n, "INVITE"));
    let vias = seen
        .each_ref()
        .map(|seen| seen.message.headers("Via").len());
    let (direct, by_the_spiral) = match vias {
        [2, 3] => (&seen[0], &seen[1]),
        [3, 2] => (&seen[1], &seen[0]),
        other => panic!("numbers of Vias: {other:?}"),
    };
    callee.answer(by_the_spiral, 180);
    call.caller.first_response("INVITE", 180);
    let ok = call.is_answered_by(&callee, direct);
    let cancel = call.is_cancelled_at(&callee, by_the_spiral, 487);
    assert_eq!(
        branch_of(&cancel.message),
        branch_of(&by_the_spiral.message)
    );
    call.is_completed_with(&callee, &ok);
    wait_until_idle(&host);
    assert_eq!(call.summary(&callee).finals, [200]);
    // The INVITE from the caller, and once more from the address that leads back; and the BYE. The third time, the loop is answered without a
    // transaction.
    assert_eq!(host.metric("portcullis_transactions_begun_total", &[]), 3.0);
}

/// The same with another request URI each time: no loop, but Max-Forwards ends it.
#[test]
fn a_policy_that_relays_to_the_host_for_ever_ends_with_483() {
    let builder = Builder::new();
    let back = back_to(&builder);
    let builder = builder.set("policy.settings", "how = \"spiral\"");
    let host = with_next_hop(builder, "hostile", back.addr());
    let call = Call::to(&Site::of(&host), BOB);
    call.fails_with(483);
    wait_until_idle(&host);
    let begun = host.metric("portcullis_transactions_begun_total", &[]);
    assert_eq!(begun, 70.0, "Max-Forwards of the caller");
}

const BOB: &str = "sip:bob@example.com";

/// An address where each datagram is passed on to the host.
fn back_to(builder: &Builder) -> Lossy {
    let lease = builder.lease();
    Lossy::start(lease.ip(3), lease.addr(1, 5060), 0.0, 0)
}

/// A host with this policy and one next hop.
fn with_next_hop(builder: Builder, name: &str, next_hop: SocketAddr) -> Host {
    let builder = match name {
        "failover" => builder.set("policy.settings", "next-hops = [\"itself\"]"),
        _ => builder,
    };
    builder
        .policy(policy(name))
        // Responses go back to where a request came from.
        .set("sip", "force-rport = true")
        .set("relay.next-hops", &format!("itself = \"sip:{next_hop}\""))
        .start()
}

/// A host that sends each call to these two targets at once.
fn forking_to(builder: Builder, [itself, other]: [SocketAddr; 2]) -> Host {
    let hops = format!("itself = \"sip:{itself}\"\nother = \"sip:{other}\"");
    builder
        .policy(policy("fork"))
        .set("policy.settings", "next-hops = [\"itself\", \"other\"]")
        .set("sip", "force-rport = true")
        .set("relay.next-hops", &hops)
        .start()
}

/// The request as a proxy forwards it to another request URI.
fn forwarded(proxy: &Peer, seen: &Seen, uri: &str) -> Vec<u8> {
    let text = String::from_utf8(seen.message.bytes.clone()).expect("the test's own text");
    let (_, rest) = text.split_once("\r\n").expect("a start line");
    let branch = seen.message.headers("Via").len();
    format!(
        "INVITE {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {};branch=z9hG4bKproxy-{branch};rport\r\n{rest}",
        proxy.local(),
    )
    .into_bytes()
}

/// The ACK to a failure of this INVITE.
fn ack_for(invite: &[u8]) -> Vec<u8> {
    let text = String::from_utf8(invite.to_vec()).expect("the test's own text");
    text.replace("INVITE", "ACK").into_bytes()
}

fn without_top_via(response: &Message) -> Vec<u8> {
    let text = String::from_utf8(response.bytes.clone()).expect("the test's own text");
    let at = text.find("\r\nVia:").expect("a Via") + 2;
    let end = text[at..].find("\r\n").expect("a line ends") + at + 2;
    [&text[..at], &text[end..]].concat().into_bytes()
}
