//! Bytes in, bytes out: what becomes of a message, and how it is counted.

use std::net::SocketAddr;
use std::sync::Arc;

use portcullis_dataplane::pipeline::Pipeline;
use portcullis_metrics::{Lost, Method, WorkerCounters};
use portcullis_policy::{FailureKind, VerdictKind};
use portcullis_sip::{
    Arrival, Destination, DropReason, Framing, RelayErrorKind, Routes, Transport,
};

use crate::support::peer::{header, headers, ok_to, request, request_with, start_line};
use crate::support::policies::{dropping, guest, passing, rejecting, relaying, relaying_to};
use crate::support::{Parts, Setup, sent};

const BOB: &str = "sip:bob@example.com";
const CALLER: &str = "127.0.0.1:40000";
const CALLEE: &str = "127.0.0.1:40001";

/// A host with one pipeline, and what came out of it last.
struct Lab {
    parts: Parts,
    pipeline: Pipeline,
    out: Vec<u8>,
}

impl Lab {
    fn new(setup: Setup) -> Self {
        let parts = setup.parts();
        Self {
            pipeline: Pipeline::new(Arc::clone(&parts.shared), 0),
            parts,
            out: Vec::new(),
        }
    }

    /// One that can send requests to a callee.
    fn with_callee(policy: String) -> Self {
        let next_hop = format!("[relay]\nnext-hop = \"sip:{CALLEE}\"\n");
        Self::new(Setup::new().config(&next_hop).policy(policy))
    }

    fn handle(&mut self, bytes: &[u8], source: &str) -> Option<Destination> {
        let arrival = Arrival {
            source: addr(source),
            local: self.parts.addr(Transport::Udp),
            transport: Transport::Udp,
            connection: None,
        };
        let bytes = bytes.to_vec();
        let place = bytes.as_ptr();
        let (bytes, handled) =
            self.pipeline
                .handle(bytes, Framing::Datagram, &arrival, &mut self.out);
        assert_eq!(bytes.as_ptr(), place, "the buffer comes back");
        sent(&mut self.pipeline, handled, &mut self.out)
    }

    /// Sends a request; the first line of what is sent, and where.
    fn ask(&mut self, method: &str) -> Option<(String, SocketAddr)> {
        let destination = self.handle(&request(method, BOB, "UDP", addr(CALLER)), CALLER)?;
        Some((start_line(&self.out).to_owned(), destination.addr))
    }

    fn answer(&mut self, method: &str) -> Option<String> {
        let (line, to) = self.ask(method)?;
        assert_eq!(to, addr(CALLER));
        Some(line)
    }

    fn counters(&self) -> &WorkerCounters {
        &self.parts.shared.counters[0]
    }
}

fn failures_of(lab: &Lab) -> u64 {
    let failures = &lab.counters().policy_failures;
    FailureKind::ALL
        .iter()
        .map(|kind| failures.value(*kind))
        .sum()
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn what_the_policy_rejects_is_answered_and_counted() {
    let mut lab = Lab::new(Setup::new().policy(guest("page")));
    let invite = request("INVITE", BOB, "UDP", addr(CALLER));
    let destination = lab.handle(&invite, CALLER).unwrap();
    assert_eq!(destination.addr, addr(CALLER));
    assert_eq!(destination.from, Some(lab.parts.addr(Transport::Udp)));
    let first = lab.out.clone();
    assert_eq!(start_line(&first), "SIP/2.0 401 Address not authorised");
    assert_eq!(header(&first, "Call-ID"), header(&invite, "Call-ID"));

    lab.handle(&invite, CALLER).unwrap();
    assert_eq!(lab.out, first, "a retransmission gets the same answer");

    let ack = String::from_utf8(invite).unwrap().replace("INVITE", "ACK");
    let ack = ack.replace(&format!("<{BOB}>"), header(&first, "To").unwrap());
    assert_eq!(lab.handle(ack.as_bytes(), CALLER), None);

    let counters = lab.counters();
    assert_eq!(counters.udp.requests.value(Method::Invite), 2);
    assert_eq!(counters.udp.requests.value(Method::Ack), 1);
    assert_eq!(counters.verdicts.value(VerdictKind::Reject), 2);
    assert_eq!(counters.replies.iter().collect::<Vec<_>>(), [(401, 2)]);
    assert_eq!(counters.absorbed_acks.value(), 1);
    assert_eq!(counters.policy_time.buckets().iter().sum::<u64>(), 2);
}

#[test]
fn a_known_source_is_sent_on_and_the_response_finds_back() {
    let next_hop = format!("[relay]\nnext-hop = \"sip:{CALLEE}\"\n");
    let setup = Setup::new().config(&next_hop).row(200, "127.0.0.1");
    let mut lab = Lab::new(setup.policy(guest("page")));
    let (line, to) = lab.ask("INVITE").unwrap();
    assert_eq!(
        (line.as_str(), to),
        ("INVITE sip:bob@example.com SIP/2.0", addr(CALLEE))
    );
    assert_eq!(headers(&lab.out, "Via").len(), 2);
    let ok = ok_to(&lab.out.clone());
    let destination = lab.handle(&ok, CALLEE).unwrap();
    assert_eq!(destination.addr, addr(CALLER));
    assert_eq!(start_line(&lab.out), "SIP/2.0 200 OK");
    assert_eq!(headers(&lab.out, "Via").len(), 1);
    let counters = lab.counters();
    assert_eq!(counters.verdicts.value(VerdictKind::Relay), 1);
    assert_eq!(counters.relayed_requests.value(), 1);
    assert_eq!(counters.relayed_responses.value(), 1);
    assert_eq!(counters.udp.responses.value(), 1);
    assert_eq!(counters.replies.iter().collect::<Vec<_>>(), [(100, 1)]);
}

#[test]
fn a_policy_that_fails_costs_its_own_request_a_503_and_nothing_else() {
    let mut lab = Lab::new(Setup::new().policy(guest("trap")));
    let answer = lab.answer("INVITE").unwrap();
    assert_eq!(answer, "SIP/2.0 503 Policy Failure");
    lab.parts.publish(&guest("recursion"));
    assert_eq!(lab.answer("INVITE").unwrap(), answer);
    lab.parts.publish(&rejecting(480, "Good"));
    assert_eq!(lab.answer("INVITE").unwrap(), "SIP/2.0 480 Good");
    let failures = &lab.counters().policy_failures;
    assert_eq!(failures.value(FailureKind::Trap), 1);
    assert_eq!(failures.value(FailureKind::Stack), 1);
    assert_eq!(lab.counters().verdicts.value(VerdictKind::Reject), 1);
}

#[test]
fn a_policy_that_loops_is_ended_and_its_request_answered() {
    let config = "[policy]\ndeadline = \"20ms\"\nfailure-code = 500\nfailure-reason = \"Broken\"\n";
    let mut lab = Lab::new(Setup::new().config(config).policy(guest("loop-with-body")));
    let with_body = request_with("INVITE", BOB, "UDP", addr(CALLER), "", b"body");
    lab.handle(&with_body, CALLER).unwrap();
    assert_eq!(start_line(&lab.out), "SIP/2.0 500 Broken");
    let failures = &lab.counters().policy_failures;
    assert_eq!(failures.value(FailureKind::Timeout), 1);
    lab.handle(&request("INVITE", BOB, "UDP", addr(CALLER)), CALLER);
    assert_eq!(failures_of(&lab), 1, "the next request is unharmed");
}

#[test]
fn the_default_decides_where_no_policy_does() {
    let refused = "SIP/2.0 403 Forbidden";
    let mut without = Lab::new(Setup::new());
    assert_eq!(without.answer("MESSAGE").unwrap(), refused);
    let mut passing_by = Lab::new(Setup::new().policy(passing()));
    assert_eq!(passing_by.answer("MESSAGE").unwrap(), refused);

    let own = "[policy]\ndefault-code = 480\ndefault-reason = \"Not Now\"\n";
    let mut own = Lab::new(Setup::new().config(own));
    assert_eq!(own.answer("MESSAGE").unwrap(), "SIP/2.0 480 Not Now");

    let mut silent = Lab::new(Setup::new().config("[policy]\ndefault = \"drop\"\n"));
    assert_eq!(silent.answer("MESSAGE"), None);
    assert_eq!(silent.counters().verdicts.value(VerdictKind::Pass), 1);

    let open = format!("[policy]\ndefault = \"relay\"\n[relay]\nnext-hop = \"sip:{CALLEE}\"\n");
    let mut open = Lab::new(Setup::new().config(&open));
    assert_eq!(open.ask("MESSAGE").unwrap().1, addr(CALLEE));
}

#[test]
fn what_the_policy_drops_gets_no_answer() {
    let mut lab = Lab::new(Setup::new().policy(dropping()));
    assert_eq!(lab.ask("INVITE"), None);
    assert_eq!(lab.counters().verdicts.value(VerdictKind::Drop), 1);
}

#[test]
fn a_request_that_cannot_be_sent_on_is_answered_with_the_reason() {
    let next_hop = "[relay]\nnext-hop = \"sip:nowhere.invalid\"\n";
    for (setup, answer, kind) in [
        (
            Setup::new().policy(relaying()),
            "SIP/2.0 403 Relaying Denied",
            RelayErrorKind::NotPermitted,
        ),
        (
            Setup::new().policy(relaying_to("carrier")),
            "SIP/2.0 500 Server Internal Error",
            RelayErrorKind::UnknownNextHop,
        ),
        (
            Setup::new().config(next_hop).policy(relaying()),
            "SIP/2.0 503 Service Unavailable",
            RelayErrorKind::Unresolved,
        ),
    ] {
        let mut lab = Lab::new(setup);
        assert_eq!(lab.answer("INVITE").unwrap(), answer);
        assert_eq!(lab.counters().relay_errors.value(kind), 1, "{answer}");
        assert_eq!(lab.counters().relayed_requests.value(), 0);
    }
}

#[test]
fn a_policy_names_a_next_hop() {
    let hops = format!("[relay.next-hops]\ncarrier = \"sip:{CALLEE};transport=tcp\"\n");
    let setup = Setup::new().config(&hops).policy(relaying_to("carrier"));
    let mut lab = Lab::new(setup);
    let destination = lab.handle(&request("INVITE", BOB, "UDP", addr(CALLER)), CALLER);
    let destination = destination.unwrap();
    assert_eq!(destination.addr, addr(CALLEE));
    assert_eq!(destination.transport, Transport::Tcp);
    assert_eq!(destination.from, Some(lab.parts.addr(Transport::Tcp)));
}

#[test]
fn an_ack_is_never_answered() {
    let mut lab = Lab::new(Setup::new().policy(rejecting(480, "No")));
    assert_eq!(lab.ask("ACK"), None);
    assert_eq!(lab.counters().lost.value(Lost::Unanswerable), 1);
    assert_eq!(lab.counters().replies.iter().count(), 0);
}

#[test]
fn what_needs_no_policy_does_not_reach_it() {
    let mut lab = Lab::new(Setup::new().policy(rejecting(480, "No")));
    let us = format!("sip:{}", lab.parts.addr(Transport::Udp));
    let options = request("OPTIONS", &us, "UDP", addr(CALLER));
    lab.handle(&options, CALLER).unwrap();
    assert_eq!(start_line(&lab.out), "SIP/2.0 200 OK");

    let spent = request("INVITE", BOB, "UDP", addr(CALLER));
    let spent = String::from_utf8(spent).unwrap();
    let spent = spent.replace("Max-Forwards: 70", "Max-Forwards: 0");
    lab.handle(spent.as_bytes(), CALLER).unwrap();
    assert_eq!(start_line(&lab.out), "SIP/2.0 483 Too Many Hops");

    assert_eq!(lab.handle(b"GET / HTTP/1.1\r\n\r\n", CALLER), None);
    let forged = ok_to(&request(
        "INVITE",
        BOB,
        "UDP",
        lab.parts.addr(Transport::Udp),
    ));
    assert_eq!(lab.handle(&forged, CALLEE), None);

    let counters = lab.counters();
    let replies: Vec<_> = counters.replies.iter().collect();
    assert_eq!(replies, [(200, 1), (483, 1)]);
    assert_eq!(counters.dropped.value(DropReason::NotSip), 1);
    assert_eq!(counters.dropped.value(DropReason::ForgedResponse), 1);
    assert_eq!(counters.policy_time.buckets().iter().sum::<u64>(), 0);
}

#[test]
fn new_routes_are_taken_over_with_the_next_batch() {
    let mut lab = Lab::with_callee(relaying());
    assert_eq!(lab.ask("INVITE").unwrap().1, addr(CALLEE));
    lab.parts.shared.routes.store(Arc::new(Routes::default()));
    assert_eq!(lab.ask("INVITE").unwrap().1, addr(CALLEE));
    lab.pipeline.refresh();
    assert_eq!(lab.answer("INVITE").unwrap(), "SIP/2.0 403 Relaying Denied");
}

#[test]
fn a_request_that_could_not_be_delivered_is_answered_along_its_vias() {
    let config = format!("[relay]\nnext-hop = \"sip:{CALLEE}\"\nmode = \"stateless\"\n");
    let mut lab = Lab::new(Setup::new().config(&config).policy(relaying()));
    let invite = request("INVITE", BOB, "UDP", addr(CALLER));
    let to = lab.handle(&invite, CALLER).unwrap();
    let relayed = lab.out.clone();
    let back = lab.pipeline.undeliverable(&relayed, &to, &mut lab.out);
    assert_eq!(back.unwrap().addr, addr(CALLER));
    assert_eq!(start_line(&lab.out), "SIP/2.0 503 Next Hop Unreachable");
    assert_eq!(headers(&lab.out, "Via").len(), 1);
    assert_eq!(header(&lab.out, "CSeq"), Some("1 INVITE"));
    assert_eq!(
        lab.counters().replies.iter().collect::<Vec<_>>(),
        [(503, 1)]
    );
    assert_eq!(lab.counters().udp.responses.value(), 0);

    // A response has no one to be told, and an ACK is not answered.
    let ok = ok_to(&relayed);
    assert_eq!(lab.pipeline.undeliverable(&ok, &to, &mut lab.out), None);
    lab.handle(&request("ACK", BOB, "UDP", addr(CALLER)), CALLER);
    let ack = lab.out.clone();
    assert_eq!(lab.pipeline.undeliverable(&ack, &to, &mut lab.out), None);
}

#[test]
fn what_is_no_text_and_no_known_method_passes_through_the_policy() {
    let mut lab = Lab::new(Setup::new().policy(guest("page")));
    let odd = "X-Odd:\r\n  folded\r\n";
    let uri = "tel:+49-30-1234";
    let mut strange = request_with("x-!%*_+`'~", uri, "UDP", addr(CALLER), odd, b"body");
    strange.extend_from_slice(b"\xff behind Content-Length");
    lab.handle(&strange, CALLER).unwrap();
    assert_eq!(start_line(&lab.out), "SIP/2.0 401 Address not authorised");
    assert_eq!(header(&lab.out, "CSeq"), Some("1 x-!%*_+`'~"));
    assert_eq!(lab.counters().udp.requests.value(Method::Other), 1);
}
