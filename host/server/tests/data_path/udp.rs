//! Workers behind UDP sockets.

use std::collections::{HashMap, HashSet};

use portcullis_metrics::{AttemptResult, Lost};
use portcullis_sip::Transport;

use crate::support::peer::{Udp, header, headers, ok_to, request, request_with, start_line};
use crate::support::policies::{guest, rejecting, relaying};
use crate::support::{Setup, block_on, until};

const BOB: &str = "sip:bob@example.com";

#[test]
fn requests_are_answered_on_both_families() {
    for setup in [Setup::new(), Setup::v6()] {
        let host = setup.policy(guest("page")).start();
        let caller = Udp::towards(host.udp());
        caller.send(&request("INVITE", BOB, "UDP", caller.addr()), host.udp());
        let (answer, from) = caller.receive();
        assert_eq!(start_line(&answer), "SIP/2.0 401 Address not authorised");
        assert_eq!(from, host.udp());
        let us = format!("sip:{}", host.udp());
        caller.send(&request("OPTIONS", &us, "UDP", caller.addr()), host.udp());
        assert_eq!(start_line(&caller.final_response()), "SIP/2.0 200 OK");
        assert_eq!(host.count(|c| c.udp.received.value()), 2);
        until("both answers are counted", || {
            host.count(|c| c.udp.sent.value()) == 2
        });
    }
}

#[test]
fn a_paused_worker_leaves_datagrams_to_another_process() {
    let host = Setup::new().policy(guest("page")).start();
    let caller = Udp::towards(host.udp());
    let orders = &host.shared.orders;
    block_on(orders.pause()).unwrap();
    let first = request("INVITE", BOB, "UDP", caller.addr());
    caller.send(&first, host.udp());
    let lent = block_on(orders.lend(0)).unwrap();
    let mut buffer = [0; 2_048];
    // Loopback has delivered it by now.
    let length = lent.udp[0].0.recv(&mut buffer).unwrap();
    assert_eq!(buffer[..length], first);
    let second = request("INVITE", BOB, "UDP", caller.addr());
    caller.send(&second, host.udp());
    block_on(orders.receive()).unwrap();
    let (answer, _) = caller.receive();
    assert_eq!(header(&answer, "Call-ID"), header(&second, "Call-ID"));
    assert!(caller.is_empty());
}

#[test]
fn a_request_goes_to_the_next_hop_and_its_response_back() {
    for (setup, any) in [(Setup::new(), "127.0.0.1:0"), (Setup::v6(), "[::1]:0")] {
        let callee = Udp::new(any);
        let next_hop = format!("[relay]\nnext-hop = \"sip:{}\"\n", callee.addr());
        let host = setup.config(&next_hop).policy(relaying()).start();
        let caller = Udp::new(any);
        caller.send(&request("INVITE", BOB, "UDP", caller.addr()), host.udp());
        let (invite, from) = callee.receive();
        assert_eq!(from, host.udp());
        assert_eq!(headers(&invite, "Via").len(), 2);
        callee.send(&ok_to(&invite), from);
        let (trying, from) = caller.receive();
        assert_eq!(start_line(&trying), "SIP/2.0 100 Trying");
        assert_eq!(from, host.udp());
        let (answer, from) = caller.receive();
        assert_eq!(start_line(&answer), "SIP/2.0 200 OK");
        assert_eq!(from, host.udp());
        assert_eq!(headers(&answer, "Via").len(), 1);
    }
}

/// More timers are due than one turn runs.
#[test]
fn a_worker_that_was_held_sends_everything_that_was_due() {
    const REQUESTS: usize = 300;
    let callee = Udp::new("127.0.0.1:0");
    let config = format!(
        "[policy]\ndeadline = \"1s\"\n[relay]\nnext-hop = \"sip:{}\"\n\
         [tenants.slow]\nuri-domains = [\"slow.example\"]\nbreaker-failures = 0\n",
        callee.addr()
    );
    let parts = Setup::new().config(&config).policy(relaying()).parts();
    parts.seat("slow", &guest("loop-with-body"));
    let host = parts.start();
    let caller = Udp::towards(host.udp());
    let branch = |message: &[u8]| header(message, "Via").unwrap().to_owned();
    let mut copies = HashMap::new();
    for sent in 1..=REQUESTS {
        caller.send(&request("MESSAGE", BOB, "UDP", caller.addr()), host.udp());
        // On a slow machine, copies of earlier requests may come first.
        while copies.len() < sent {
            let (seen, _) = callee.receive();
            *copies.entry(branch(&seen)).or_insert(0) += 1;
        }
    }
    // The policy of this tenant holds the worker for a second, and timer E is 500 ms.
    let other = Udp::towards(host.udp());
    let slow = request_with(
        "MESSAGE",
        "sip:x@slow.example",
        "UDP",
        other.addr(),
        "",
        b"body",
    );
    other.send(&slow, host.udp());
    while copies.values().any(|&copies| copies < 2) {
        let (seen, _) = callee.receive();
        let copies = copies
            .get_mut(&branch(&seen))
            .expect("a copy of what was sent");
        *copies += 1;
    }
    let held = other.final_response();
    assert_eq!(start_line(&held), "SIP/2.0 503 Policy Failure");
}

#[test]
fn the_largest_datagram_passes_both_ways() {
    let callee = Udp::new("127.0.0.1:0");
    let next_hop = format!(
        "[relay]\nnext-hop = \"sip:{}\"\nrecord-route = false\n",
        callee.addr()
    );
    let host = Setup::new().config(&next_hop).policy(relaying()).start();
    let caller = Udp::new("127.0.0.1:0");
    // 65,507 bytes are what IPv4 leaves; our Via has to fit as well.
    let body: Vec<u8> = (0..65_000u32).map(|n| n as u8).collect();
    let large = request_with("MESSAGE", BOB, "UDP", caller.addr(), "", &body);
    caller.send(&large, host.udp());
    let (relayed, _) = callee.receive();
    assert!(relayed.ends_with(&body));
    assert!(relayed.len() > large.len());

    let most = request_with("MESSAGE", "sip:x", "UDP", caller.addr(), "", &body);
    let body = vec![b'x'; 65_507 - (most.len() - body.len())];
    let most = request_with("MESSAGE", "sip:x", "UDP", caller.addr(), "", &body);
    assert!((65_500..=65_507).contains(&most.len()), "{}", most.len());
    // It can be received; with our Via it cannot be sent any more.
    caller.send(&most, host.udp());
    let (answer, _) = caller.receive();
    assert_eq!(start_line(&answer), "SIP/2.0 513 Message Too Large");
    assert_eq!(host.count(|c| c.udp.send_errors.value()), 0);
    assert_eq!(host.count(|c| c.lost.value(Lost::Truncated)), 0);
    assert_eq!(host.count(|c| c.relayed_requests.value()), 1);
}

#[test]
fn a_target_fails_at_once_when_the_system_refuses_to_send() {
    // There is no way from a loopback address to another machine.
    let elsewhere = "[relay]\nnext-hop = \"sip:192.0.2.1\"\n";
    let host = Setup::new().config(elsewhere).policy(relaying()).start();
    let caller = Udp::new("127.0.0.1:0");
    caller.send(&request("MESSAGE", BOB, "UDP", caller.addr()), host.udp());
    let (answer, _) = caller.receive();
    assert_eq!(start_line(&answer), "SIP/2.0 500 Server Internal Error");
    assert_eq!(host.count(|c| c.udp.send_errors.value()), 1);
    let unreachable = AttemptResult::Unreachable;
    assert_eq!(
        host.count(|c| c.transactions.attempts.value(unreachable)),
        1
    );
}

#[test]
fn every_datagram_of_a_burst_is_answered_once() {
    const BURST: usize = 150;
    let host = Setup::new().policy(rejecting(480, "No")).start();
    let caller = Udp::new("127.0.0.1:0");
    for _ in 0..BURST {
        caller.send(&request("INVITE", BOB, "UDP", caller.addr()), host.udp());
    }
    let mut answered = HashSet::new();
    for _ in 0..BURST {
        let (answer, _) = caller.receive();
        answered.insert(header(&answer, "Call-ID").unwrap().to_owned());
    }
    assert_eq!(answered.len(), BURST);
    assert!(caller.is_empty());
}

#[test]
fn keep_alives_are_swallowed() {
    let host = Setup::new().start();
    let caller = Udp::new("127.0.0.1:0");
    for keep_alive in [&b""[..], b"\r\n", b"\r\n\r\n", b"\0\0\0\0"] {
        caller.send(keep_alive, host.udp());
    }
    caller.send(&request("INVITE", BOB, "UDP", caller.addr()), host.udp());
    assert_eq!(start_line(&caller.receive().0), "SIP/2.0 403 Forbidden");
    assert!(caller.is_empty());
    assert_eq!(host.count(|c| c.udp.keepalives.value()), 4);
    assert_eq!(host.count(|c| c.udp.received.value()), 5);
}

#[test]
fn a_request_leaves_from_the_socket_of_its_next_hops_family() {
    let callee = Udp::new("[::1]:0");
    let next_hop = format!("[relay]\nnext-hop = \"sip:{}\"\n", callee.addr());
    let host = Setup::new()
        .listen(Transport::Udp, "[::1]:0")
        .config(&next_hop)
        .policy(relaying())
        .start();
    let caller = Udp::new("127.0.0.1:0");
    for _ in 0..3 {
        caller.send(&request("INVITE", BOB, "UDP", caller.addr()), host.udp());
        let (invite, from) = callee.receive();
        assert_eq!(from, host.shared.listen[2].addr);
        assert_eq!(headers(&invite, "Record-Route").len(), 2);
        callee.send(&ok_to(&invite), from);
        let (trying, _) = caller.receive();
        assert_eq!(start_line(&trying), "SIP/2.0 100 Trying");
        let (answer, from) = caller.receive();
        assert_eq!(start_line(&answer), "SIP/2.0 200 OK");
        assert_eq!(from, host.udp());
    }
}

#[test]
fn a_peer_that_is_gone_does_not_disturb_the_others() {
    let host = Setup::new().start();
    let (caller, gone) = (Udp::new("127.0.0.1:0"), Udp::new("127.0.0.1:0"));
    let nobody = gone.addr();
    for _ in 0..5 {
        // The answer goes to sent-by: nobody is there, and ICMP says so.
        let lost = request("INVITE", BOB, "UDP", nobody);
        let lost = String::from_utf8(lost).unwrap().replace(";rport", "");
        caller.send(lost.as_bytes(), host.udp());
    }
    drop(gone);
    caller.send(&request("INVITE", BOB, "UDP", caller.addr()), host.udp());
    assert_eq!(start_line(&caller.receive().0), "SIP/2.0 403 Forbidden");
}

#[test]
fn workers_share_the_port() {
    let host = Setup::new().workers(2).start();
    // Each flow stays with one worker; 64 flows meet both, but for one chance in 2 to the power of 63.
    let callers: Vec<Udp> = (0..64).map(|_| Udp::new("127.0.0.1:0")).collect();
    for caller in &callers {
        caller.send(&request("INVITE", BOB, "UDP", caller.addr()), host.udp());
    }
    for caller in &callers {
        assert_eq!(start_line(&caller.receive().0), "SIP/2.0 403 Forbidden");
    }
    let each: Vec<u64> = host
        .shared
        .counters
        .iter()
        .map(|c| c.udp.received.value())
        .collect();
    assert_eq!(each.iter().sum::<u64>(), 64);
    assert!(!each.contains(&0), "{each:?}");
}

#[test]
fn one_flow_meets_all_workers_when_datagrams_are_spread() {
    const BURST: usize = 100;
    let host = Setup::new()
        .config("spread = \"datagram\"\n")
        .workers(2)
        .start();
    let caller = Udp::new("127.0.0.1:0");
    for _ in 0..BURST {
        caller.send(&request("INVITE", BOB, "UDP", caller.addr()), host.udp());
    }
    let mut answered = HashSet::new();
    for _ in 0..BURST {
        let (answer, _) = caller.receive();
        answered.insert(header(&answer, "Call-ID").unwrap().to_owned());
    }
    assert_eq!(answered.len(), BURST);
    let counters = host.shared.counters.iter();
    let each: Vec<u64> = counters.map(|c| c.udp.received.value()).collect();
    assert!(!each.contains(&0), "{each:?}");
}
