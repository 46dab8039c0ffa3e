//! CANCEL.

use portcullis_sip::Transport;

use super::{Call, one, responses, times};
use crate::config::Config;
use crate::event::Cause;
use crate::outbox::What;
use crate::plan::PlanError;
use crate::testing::{
    CALLER, Host, callee, from_callee, from_caller, header, request, response, serial,
};
use crate::time::Time;
use crate::transactions::Receipt;

#[test]
fn a_cancel_waits_for_a_provisional_response() {
    let (mut call, _) = Call::start("INVITE", serial(&[0]));
    let (receipt, sent) = call.caller("CANCEL");
    assert_eq!(
        (receipt, responses(&sent)),
        (Receipt::Handled, vec![(0, 200)])
    );
    assert_eq!(sent.len(), 1);
    let sent = call.sent_until(2_000);
    assert_eq!(times(&sent, What::RequestRetransmission), [500, 1_500]);

    let sent = call.answer(0, 100, "");
    let cancel = one(&sent, What::Cancel).clone();
    assert_eq!(header(&cancel.text, "Via"), header(&call.out[0], "Via"));
    assert_eq!(cancel.text.split(' ').nth(1), call.out[0].split(' ').nth(1));
    let sent = call.answer_cancel(0, &cancel.text);
    assert_eq!(responses(&sent), [(2_000, 487)]);
    assert_eq!(one(&sent, What::Ack).to, callee(0));
    // A retransmission of the CANCEL gets its 200 as long as anything is known of the call.
    call.caller("ACK");
    let (_, sent) = call.caller("CANCEL");
    assert_eq!(responses(&sent), [(2_000, 200)]);
    call.is_gone_after(34_000);
}

#[test]
fn an_operator_cancels_a_call_as_its_sender_would() {
    let (mut call, _) = Call::start("INVITE", serial(&[0, 1]));
    call.answer(0, 180, "");
    let listed = |call: &Call| {
        let core = &call.host.core;
        let mut all = (0..core.slots()).filter_map(|slot| core.listed(slot));
        let listed = all.next().expect("a call rings");
        assert!(all.next().is_none() && listed.is_invite && listed.code.is_none());
        (listed.id, listed.is_cancelled, listed.targets)
    };
    let (id, is_cancelled, targets) = listed(&call);
    assert_eq!((is_cancelled, targets), (false, 1));

    let now = call.host.now;
    assert_eq!(call.host.core.cancel(now, id), Some(1));
    assert_eq!(call.host.core.cancel(now, id), Some(1));
    let (sent, _) = call.host.drain();
    let cancel = one(&sent, What::Cancel).clone();
    assert!(listed(&call).1);
    let sent = call.answer_cancel(0, &cancel.text);
    assert_eq!(responses(&sent), [(0, 487)]);
    one(&sent, What::Ack);
    assert_eq!(call.host.core.cancel(now, id), None, "it has its answer");
    call.caller("ACK");
    call.is_gone_after(32_000);
}

#[test]
fn an_operator_cancels_nothing_but_calls() {
    let (mut call, _) = Call::start("MESSAGE", serial(&[0]));
    let id = call.host.core.listed(0).expect("it waits").id;
    let now = call.host.now;
    assert_eq!(call.host.core.cancel(now, id), None);
    assert!(!call.host.core.listed(0).expect("it waits").is_cancelled);
}

#[test]
fn a_cancelled_call_whose_callee_is_silent_gets_487_after_32_seconds() {
    let (mut call, _) = Call::start("INVITE", serial(&[0]));
    call.caller("CANCEL");
    let sent = call.sent_until(32_000);
    assert_eq!(times(&sent, What::RequestRetransmission).len(), 6);
    assert_eq!(times(&sent, What::Cancel), []);
    assert_eq!(responses(&sent), [(32_000, 487)]);
}

#[test]
fn a_callee_that_ignores_its_cancel_is_given_up() {
    let (mut call, _) = Call::start("INVITE", serial(&[0]));
    call.answer(0, 180, "");
    let (_, sent) = call.caller("CANCEL");
    assert_eq!(times(&sent, What::Cancel), [0]);
    let (_, sent) = call.caller("CANCEL");
    assert_eq!(
        times(&sent, What::Cancel),
        [],
        "a second one is a retransmission"
    );
    let sent = call.sent_until(32_000);
    let copies = [
        500, 1_500, 3_500, 7_500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500,
    ];
    assert_eq!(times(&sent, What::CancelRetransmission), copies);
    assert_eq!(responses(&sent), [(32_000, 487)]);
}

#[test]
fn a_cancelled_callee_whose_487_is_lost_counts_as_cancelled() {
    let mut host = Host::new(Config::default());
    let caller = from_caller(Transport::Udp);
    let id = host.begin(request("INVITE", 1, "").as_bytes(), &caller);
    host.core.plan(host.now, id, serial(&[0])).unwrap();
    let (sent, _) = host.drain();
    let ringing = response(180, &one(&sent, What::Request).text, "x", "");
    host.receive(ringing.as_bytes(), &from_callee(0));
    host.receive(request("CANCEL", 1, "").as_bytes(), &caller);
    host.go_to(31_999);
    host.now = Time::from_millis(32_000);
    host.core.expire(host.now, 100);
    let attempt = host.core.attempts(id).map(|(_, attempt)| attempt).next();
    assert_eq!(
        attempt.map(|attempt| (attempt.code, attempt.cause)),
        Some((487, Cause::Cancelled))
    );
}

#[test]
fn a_cancel_that_crosses_the_200_changes_nothing() {
    let (mut call, _) = Call::start("INVITE", serial(&[0]));
    call.answer(0, 180, "");
    call.answer(0, 200, "");
    let (receipt, sent) = call.caller("CANCEL");
    assert_eq!(
        (receipt, responses(&sent)),
        (Receipt::Handled, vec![(0, 200)])
    );
    assert_eq!(sent.len(), 1);
}

#[test]
fn a_cancel_with_another_sent_by_matches_if_it_comes_from_the_same_source() {
    let (mut call, _) = Call::start("INVITE", serial(&[0]));
    call.answer(0, 180, "");
    let cancel = request("CANCEL", 1, "").replacen(CALLER, "10.0.0.1:5060", 1);
    let mut stranger = from_caller(Transport::Udp);
    stranger.source.set_port(9);
    assert_eq!(
        call.host.receive(cancel.as_bytes(), &stranger),
        Receipt::Conflict
    );
    let copy = request("INVITE", 1, "").replacen(CALLER, "10.0.0.1:5060", 1);
    assert_eq!(
        call.host.receive(copy.as_bytes(), &stranger),
        Receipt::Conflict
    );
    let caller = from_caller(Transport::Udp);
    assert_eq!(
        call.host.receive(cancel.as_bytes(), &caller),
        Receipt::Handled
    );
    assert_eq!(times(&call.sent_until(0), What::Cancel), [0]);
}

#[test]
fn a_cancel_before_the_decision_is_answered_487_and_the_decision_is_too_late() {
    let mut host = Host::new(Config::default());
    let caller = from_caller(Transport::Udp);
    let id = host.begin(request("INVITE", 1, "").as_bytes(), &caller);
    host.receive(request("CANCEL", 1, "").as_bytes(), &caller);
    let (sent, _) = host.go_to(0);
    assert_eq!(responses(&sent), [(0, 200), (0, 487)]);
    let plan = host.core.plan(host.now, id, serial(&[0]));
    assert_eq!(plan, Err(PlanError::TooLate));
    assert!(!host.core.answer::<&str>(host.now, id, 404, "", &[]));
}
