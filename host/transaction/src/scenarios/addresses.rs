//! Targets with several addresses (RFC 3263 §4.3).

use portcullis_sip::Transport;

use super::{Call, one, responses, times};
use crate::config::Config;
use crate::event::Failure;
use crate::outbox::What;
use crate::plan::{MOST_ADDRESSES, MOST_TARGETS, Plan};
use crate::testing::{Host, Told, callee, from_caller, header, parallel, request, serial};

/// A call whose targets have this many addresses.
fn call(method: &str, addresses: usize, plan: Plan<usize>) -> Call {
    let mut host = Host::new(Config::default());
    host.addresses = addresses;
    let request = request(method, 1, "X-Whole: yes\r\n");
    let id = host.begin(request.as_bytes(), &from_caller(Transport::Udp));
    host.core.plan(host.now, id, plan).unwrap();
    let mut call = Call {
        host,
        id,
        request,
        out: vec![String::new(); MOST_TARGETS * MOST_ADDRESSES],
    };
    call.sent_until(0);
    call
}

/// The port of the only request that was sent, which tells the address.
fn port(sent: &[crate::testing::Sent]) -> u16 {
    one(sent, What::Request).to.port()
}

#[test]
fn a_503_brings_the_next_address_as_a_new_transaction() {
    let mut call = call("INVITE", 3, serial(&[0]));
    let sent = call.answer(0, 503, "");
    assert_eq!((port(&sent), responses(&sent)), (5061, vec![]));
    let next = one(&sent, What::Request);
    assert_ne!(header(&next.text, "Via"), header(&call.out[0], "Via"));
    assert_eq!(header(&next.text, "X-Whole"), Some("yes"));
    assert_eq!(
        one(&sent, What::Ack).to,
        callee(0),
        "the ACK goes where the INVITE went"
    );
    assert_eq!(responses(&call.answer(1, 200, "")), [(0, 200)]);
}

#[test]
fn silence_brings_the_next_address_after_4_s_and_the_last_one_has_32_s() {
    let mut call = call("INVITE", 3, serial(&[0]));
    let sent = call.sent_until(40_000);
    assert_eq!(times(&sent, What::Request), [4_000, 8_000]);
    // The start of the last INVITE, and timer B.
    assert_eq!(responses(&sent), [(40_000, 408)]);
}

#[test]
fn an_error_brings_the_next_address_at_once() {
    let mut call = call("OPTIONS", 2, serial(&[0]));
    let (now, id) = (call.host.now, call.id);
    call.host.core.fail(now, id, 0, Failure::Unreachable);
    let (sent, told) = call.go_to(0);
    assert_eq!(port(&sent), 5061);
    assert_eq!(told, [Told::Failover(5060, 503)]);
    let (sent, told) = {
        let sent = call.answer(1, 200, "");
        (sent, call.go_to(0).1)
    };
    assert_eq!(responses(&sent), [(0, 200)]);
    assert_eq!(told, []);
}

#[test]
fn no_address_follows_one_that_rings() {
    let mut call = call("INVITE", 2, serial(&[0]));
    call.answer(0, 180, "");
    assert_eq!(times(&call.sent_until(20_000), What::Request), []);
    let sent = call.answer(0, 503, "");
    assert_eq!(times(&sent, What::Request), []);
    assert_eq!(responses(&sent), [(20_000, 500)]);
}

#[test]
fn no_address_follows_an_answer_other_than_503() {
    for code in [486, 500, 603] {
        let mut call = call("INVITE", 2, serial(&[0]));
        let sent = call.answer(0, code, "");
        assert_eq!(times(&sent, What::Request), [], "{code}");
        assert_eq!(responses(&sent), [(0, code)]);
    }
}

#[test]
fn four_addresses_are_tried_and_then_the_next_target() {
    let mut call = call("INVITE", 9, serial(&[0, 1]));
    let mut ports = Vec::new();
    // The second target has number 1; further addresses have the numbers after it.
    for branch in [0, 2, 3] {
        ports.push(port(&call.answer(branch, 503, "")));
    }
    assert_eq!(ports, [5061, 5062, 5063]);
    let sent = call.answer(4, 503, "");
    assert_eq!(one(&sent, What::Request).to, callee(1));
    let sent = call.answer(1, 486, "");
    assert_eq!(responses(&sent), [(0, 486)]);
}

#[test]
fn an_answer_of_an_address_is_better_than_the_silence_of_the_next() {
    let mut call = call("INVITE", 2, serial(&[0]));
    call.answer(0, 503, "");
    let sent = call.sent_until(32_000);
    assert_eq!(responses(&sent), [(32_000, 500)]);
}

#[test]
fn a_target_of_a_fork_goes_on_while_the_other_rings() {
    let mut call = call("INVITE", 2, parallel(&[0, 1]));
    call.answer(0, 180, "");
    let sent = call.answer(1, 503, "");
    let next = one(&sent, What::Request);
    assert_eq!((next.to.ip(), next.to.port()), (callee(1).ip(), 5061));
    assert_eq!(
        header(&next.text, "X-Whole"),
        Some("yes"),
        "the request is whole"
    );
    let sent = call.answer(2, 200, "");
    assert_eq!(responses(&sent), [(0, 200)]);
    assert_eq!(one(&sent, What::Cancel).to, callee(0));
}

#[test]
fn a_cancel_ends_the_search_and_goes_where_the_invite_went() {
    let mut call = call("INVITE", 3, serial(&[0]));
    call.answer(0, 503, "");
    call.answer(1, 180, "");
    let (_, sent) = call.caller("CANCEL");
    let cancel = one(&sent, What::Cancel).clone();
    assert_eq!(cancel.to.port(), 5061);
    let sent = call.answer_cancel(1, &cancel.text);
    assert_eq!(responses(&sent), [(0, 487)]);
    assert_eq!(times(&sent, What::Request), []);
}

#[test]
fn an_address_that_rings_after_its_time_is_cancelled() {
    let mut call = call("INVITE", 2, serial(&[0]));
    call.sent_until(4_500);
    let sent = call.answer(0, 180, "");
    assert_eq!(one(&sent, What::Cancel).to, callee(0));
    let sent = call.answer(1, 200, "");
    assert_eq!(responses(&sent), [(4_500, 200)]);
}

#[test]
fn the_results_of_targets_are_those_of_their_last_addresses() {
    let plan = Plan {
        asks: 1,
        ..serial(&[0, 1])
    };
    let mut call = call("INVITE", 2, plan);
    for branch in [0, 2, 1, 3] {
        call.answer(branch, 503, "");
    }
    let attempts = call.host.core.attempts(call.id);
    let targets: Vec<_> = attempts
        .map(|(target, attempt)| (*target, attempt.code))
        .collect();
    assert_eq!(targets, [(0, 503), (1, 503)]);
}
