//! One target: answers, failures, retransmissions and timer C.

use std::time::Duration;

use portcullis_sip::Transport;

use super::{Call, one, responses, times};
use crate::config::Config;
use crate::outbox::What;
use crate::testing::{
    Host, Told, callee, from_callee, from_caller, header, parallel, request, response, serial,
};
use crate::timers::Timers;
use crate::transactions::{Receipt, Usage};

#[test]
fn an_invite_without_any_answer_gets_408_after_32_seconds() {
    let (mut call, sent) = Call::start("INVITE", serial(&[0]));
    assert_eq!(responses(&sent), [(0, 100)], "the 100 goes first");
    assert_eq!(sent[0].what, What::Reply);
    assert_eq!(sent[1].to, callee(0));

    let sent = call.sent_until(32_000);
    let copies = [500, 1_500, 3_500, 7_500, 15_500, 31_500];
    assert_eq!(times(&sent, What::RequestRetransmission), copies);
    assert_eq!(responses(&sent), [(32_000, 408)]);

    let (receipt, sent) = call.caller("ACK");
    assert_eq!((receipt, sent), (Receipt::Handled, vec![]));
    call.is_gone_after(37_000);
}

#[test]
fn a_retransmission_of_an_invite_is_answered_with_the_last_response() {
    let (mut call, _) = Call::start("INVITE", serial(&[0]));
    let (_, sent) = call.caller("INVITE");
    assert_eq!(responses(&sent), [(0, 100)]);
    call.answer(0, 180, "");
    let (_, sent) = call.caller("INVITE");
    assert_eq!((responses(&sent), sent.len()), (vec![(0, 180)], 1));
}

#[test]
fn the_times_of_the_first_and_of_the_final_response_are_reported_without_the_100() {
    let (mut call, sent) = Call::start("INVITE", serial(&[0]));
    assert_eq!(responses(&sent), [(0, 100)]);
    call.go_to(200);
    call.answer(0, 180, "");
    call.go_to(1_500);
    let text = response(200, &call.out[0], "callee0", "");
    call.host.receive(text.as_bytes(), &from_callee(0));
    let (_, told) = call.go_to(1_500);
    let times = told.iter().find_map(|told| match told {
        Told::Ended(end) => Some((end.first_response, end.final_response)),
        Told::Ask | Told::Outcome(..) | Told::Failover(..) => None,
    });
    let [first, last] = [200, 1_500].map(|ms| Some(Duration::from_millis(ms)));
    assert_eq!(times, Some((first, last)));
}

#[test]
fn a_retransmission_before_the_decision_is_absorbed_and_a_late_decision_follows_the_100() {
    let mut host = Host::new(Config::default());
    let invite = request("INVITE", 1, "");
    let caller = from_caller(Transport::Udp);
    host.begin(invite.as_bytes(), &caller);
    assert_eq!(host.receive(invite.as_bytes(), &caller), Receipt::Handled);
    let (sent, _) = host.go_to(199);
    assert_eq!(sent, []);
    let (sent, _) = host.go_to(1_000);
    assert_eq!(responses(&sent), [(200, 100)]);
}

#[test]
fn every_200_of_a_call_passes_and_no_ack_is_ours() {
    let (mut call, _) = Call::start("INVITE", serial(&[0]));
    assert_eq!(responses(&call.answer(0, 180, "")), [(0, 180)]);
    assert_eq!(responses(&call.answer(0, 200, "")), [(0, 200)]);
    // The absorber leaves retransmissions of the 200 to the rules of the stateless proxy.
    let copy = response(200, &call.out[0], "callee0", "");
    let receipt = call.host.receive(copy.as_bytes(), &from_callee(0));
    assert_eq!(receipt, Receipt::Again);
    assert_eq!(call.caller("ACK"), (Receipt::Stateless, vec![]));
    assert_eq!(call.caller("INVITE"), (Receipt::Handled, vec![]));
    let usage = Usage {
        active: 0,
        absorbers: 1,
        bytes: 0,
        active_bytes: 0,
    };
    assert_eq!(call.host.core.usage(), usage);
    call.is_gone_after(32_000);
}

#[test]
fn a_failure_is_acknowledged_for_each_retransmission_and_sent_until_its_ack() {
    let (mut call, _) = Call::start("INVITE", serial(&[0]));
    let sent = call.answer(0, 486, "");
    let ack = one(&sent, What::Ack);
    assert_eq!(
        (ack.to, header(&ack.text, "CSeq")),
        (callee(0), Some("1 ACK"))
    );
    assert!(header(&ack.text, "To").unwrap().contains("callee0"));
    assert_eq!(header(&ack.text, "Via"), header(&call.out[0], "Via"));
    assert_eq!(responses(&sent), [(0, 486)]);
    let again = call.answer(0, 486, "");
    assert_eq!(
        (one(&again, What::Ack).text.as_str(), again.len()),
        (ack.text.as_str(), 1)
    );

    let sent = call.sent_until(32_000);
    let copies = [
        500, 1_500, 3_500, 7_500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500,
    ];
    assert_eq!(times(&sent, What::ResponseUnasked), copies);
    assert!(call.host.core.is_empty(), "timers D and H are over");
}

/// Who sends much to a source that may be forged must know what nobody has asked for.
#[test]
fn copies_of_a_response_are_told_apart_by_whether_a_copy_of_the_request_came() {
    let (mut call, _) = Call::start("INVITE", serial(&[0]));
    assert_eq!(times(&call.answer(0, 180, ""), What::Response), [0]);
    let (_, sent) = call.caller("INVITE");
    assert_eq!(times(&sent, What::ResponseRetransmission), [0]);
    assert_eq!(times(&call.answer(0, 200, ""), What::Response), [0]);
    // The same while another target still has to answer its CANCEL.
    let (mut call, _) = Call::start("INVITE", parallel(&[0, 1]));
    call.answer(1, 180, "");
    assert_eq!(times(&call.answer(0, 200, ""), What::Response), [0]);
    // The callee has no ACK yet.
    assert_eq!(times(&call.answer(0, 200, ""), What::ResponseUnasked), [0]);
    let (mut call, _) = Call::start("MESSAGE", serial(&[0]));
    call.answer(0, 200, "");
    let (_, sent) = call.caller("MESSAGE");
    assert_eq!(times(&sent, What::ResponseRetransmission), [0]);
}

#[test]
fn an_acknowledged_failure_leaves_an_ack_for_retransmissions_of_the_callee() {
    let (mut call, _) = Call::start("INVITE", serial(&[0]));
    call.answer(0, 486, "");
    assert_eq!(call.caller("ACK"), (Receipt::Handled, vec![]));
    let usage = call.host.core.usage();
    assert_eq!((usage.active, usage.absorbers), (0, 1));
    assert!(usage.bytes <= 520, "{usage:?}");
    let again = call.answer(0, 486, "");
    assert_eq!(one(&again, What::Ack).to, callee(0));
    assert_eq!(call.caller("ACK"), (Receipt::Handled, vec![]));
    call.is_gone_after(32_000);
}

#[test]
fn retransmissions_of_a_failure_are_acknowledged_for_32_seconds_with_a_short_t1() {
    let timers = Timers {
        t1: Duration::from_millis(100),
        ..Timers::default()
    };
    let config = Config {
        timers,
        ..Config::default()
    };
    for is_acknowledged in [false, true] {
        let (mut call, _) = Call::with(config, "INVITE", "", serial(&[0]));
        call.answer(0, 486, "");
        if is_acknowledged {
            call.caller("ACK");
        }
        call.sent_until(31_999);
        let again = call.answer(0, 486, "");
        assert_eq!(one(&again, What::Ack).to, callee(0));
        call.sent_until(70_000);
        assert!(call.host.core.is_empty());
    }
}

#[test]
fn what_belongs_to_no_transaction_is_left_to_the_stateless_rules() {
    let mut host = Host::new(Config::default());
    let caller = from_caller(Transport::Udp);
    for method in ["CANCEL", "ACK"] {
        let text = request(method, 1, "");
        assert_eq!(host.receive(text.as_bytes(), &caller), Receipt::Stateless);
    }
    let (call, _) = Call::start("INVITE", serial(&[0]));
    let stray = response(200, &call.out[0], "x", "");
    assert_eq!(
        host.receive(stray.as_bytes(), &from_callee(0)),
        Receipt::Stray
    );
    let forged = stray.replacen("z9hG4bK", "z9hG4bK0", 1);
    assert_eq!(
        host.receive(forged.as_bytes(), &from_callee(0)),
        Receipt::Unreadable
    );
}

#[test]
fn each_101_to_199_starts_timer_c_again_until_the_setup_limit() {
    let (mut call, _) = Call::start("INVITE", serial(&[0]));
    let mut sent = Vec::new();
    for minute in 0..10 {
        sent.extend(call.sent_until(minute * 60_000));
        sent.extend(call.answer(0, 180, ""));
    }
    assert_eq!(times(&sent, What::Cancel), []);
    let cancel = call.sent_until(600_000);
    let cancel = one(&cancel, What::Cancel).clone();
    assert_eq!(cancel.at, 600_000);
    let sent = call.answer_cancel(0, &cancel.text);
    assert_eq!(responses(&sent), [(600_000, 408)]);
}

#[test]
fn timer_c_cancels_a_callee_that_rings_too_long() {
    let (mut call, _) = Call::start("INVITE", serial(&[0]));
    call.sent_until(5_000);
    call.answer(0, 180, "");
    call.sent_until(10_000);
    // A 100 does not start it again.
    call.answer(0, 100, "");
    let sent = call.sent_until(190_000);
    assert_eq!(one(&sent, What::Cancel).at, 190_000);
    let sent = call.sent_until(222_000);
    assert_eq!(responses(&sent), [(222_000, 408)], "it ignores its CANCEL");
}

#[test]
fn the_same_request_by_two_ways_is_two_transactions() {
    // RFC 3261 §16.3: a proxy must not merge requests that an upstream fork or a spiral brings to it.
    let (mut call, _) = Call::start("INVITE", serial(&[0]));
    let merged = call.request.replacen("z9hG4bKcall1", "z9hG4bKfork2", 1);
    let id = call
        .host
        .begin(merged.as_bytes(), &from_caller(Transport::Udp));
    call.host
        .core
        .plan(call.host.now, id, serial(&[1]))
        .unwrap();
    let (sent, _) = call.host.go_to(0);
    assert_eq!(one(&sent, What::Request).to, callee(1));
    assert_eq!(call.host.core.usage().active, 2);
    // A spiral: what was sent comes back with another request URI.
    let spiral = call.out[0].replacen("sip:callee@", "sip:other@", 1);
    let id = call.host.begin(spiral.as_bytes(), &from_callee(5));
    call.host
        .core
        .plan(call.host.now, id, serial(&[2]))
        .unwrap();
    let (sent, _) = call.host.go_to(0);
    assert_eq!(
        one(&sent, What::Request).text.matches("\r\nVia:").count(),
        3
    );
}

#[test]
fn a_200_after_our_own_408_reaches_the_caller() {
    let (mut call, _) = Call::start("INVITE", serial(&[0]));
    assert_eq!(responses(&call.sent_until(32_000)), [(32_000, 408)]);
    call.sent_until(32_100);
    assert_eq!(responses(&call.answer(0, 200, "")), [(32_100, 200)]);
    // The 408 is still the answer that retransmissions of the INVITE get.
    let (_, sent) = call.caller("INVITE");
    assert_eq!(responses(&sent), [(32_100, 408)]);
    call.caller("ACK");
    let late = response(200, &call.out[0], "callee0", "");
    let receipt = call.host.receive(late.as_bytes(), &from_callee(0));
    assert_eq!(receipt, Receipt::Stateless);
}

#[test]
fn a_response_without_a_via_of_the_caller_is_dropped() {
    let (mut call, _) = Call::start("INVITE", serial(&[0]));
    let text = response(200, &call.out[0], "callee0", "");
    let vias: Vec<_> = text.match_indices("Via: ").map(|(at, _)| at).collect();
    let end = vias[1] + text[vias[1]..].find("\r\n").unwrap() + 2;
    let short = format!("{}{}", &text[..vias[1]], &text[end..]);
    let receipt = call.host.receive(short.as_bytes(), &from_callee(0));
    assert_eq!(receipt, Receipt::Handled);
    assert_eq!(call.sent_until(0), []);
    assert_eq!(responses(&call.answer(0, 200, "")), [(0, 200)]);
}
