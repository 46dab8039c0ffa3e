//! Requests other than INVITE.

use std::time::Duration;

use portcullis_sip::Transport;

use super::{Call, responses, times};
use crate::config::Config;
use crate::outbox::What;
use crate::testing::{
    FIRST_TCP, Host, Told, from_callee, from_caller, parallel, request, response, serial,
};
use crate::transactions::Receipt;

#[test]
fn a_message_answered_after_5_seconds_gets_its_100_after_3_5() {
    let (mut call, sent) = Call::start("MESSAGE", serial(&[0]));
    assert_eq!(responses(&sent), []);
    let sent = call.sent_until(5_000);
    assert_eq!(responses(&sent), [(3_500, 100)]);
    assert_eq!(
        times(&sent, What::RequestRetransmission),
        [500, 1_500, 3_500]
    );
    assert_eq!(responses(&call.answer(0, 200, "")), [(5_000, 200)]);
    let (_, sent) = call.caller("MESSAGE");
    assert_eq!(responses(&sent), [(5_000, 200)]);
    call.is_gone_after(37_000);
}

#[test]
fn a_message_without_an_answer_gets_none_but_the_100() {
    let (mut call, _) = Call::start("MESSAGE", serial(&[0]));
    let sent = call.sent_until(32_000);
    assert_eq!(responses(&sent), [(3_500, 100)]);
    assert_eq!(call.caller("MESSAGE"), (Receipt::Handled, vec![]));
    call.is_gone_after(37_000);
}

#[test]
fn a_408_to_a_message_is_not_passed_on() {
    let (mut call, _) = Call::start("MESSAGE", serial(&[0]));
    assert_eq!(call.answer(0, 408, ""), []);
    let sent = call.sent_until(32_000);
    assert_eq!(responses(&sent), [(3_500, 100)]);
    assert_eq!(sent.len(), 1);
    call.is_gone_after(37_000);
}

#[test]
fn a_message_is_not_answered_408_by_a_decision_either() {
    let mut host = Host::new(Config::default());
    let caller = from_caller(Transport::Udp);
    let id = host.begin(request("MESSAGE", 1, "").as_bytes(), &caller);
    assert!(host.core.answer::<&str>(host.now, id, 408, "", &[]));
    assert_eq!(responses(&host.go_to(37_000).0), [(3_500, 100)]);
    assert!(host.core.is_empty());
}

#[test]
fn a_provisional_response_to_a_message_is_not_passed_on() {
    let (mut call, _) = Call::start("MESSAGE", serial(&[0]));
    assert_eq!(call.answer(0, 180, ""), []);
}

#[test]
fn a_request_with_another_method_is_no_retransmission() {
    let (mut call, _) = Call::start("MESSAGE", serial(&[0]));
    let caller = from_caller(Transport::Udp);
    let other = request("OPTIONS", 1, "");
    let receipt = call.host.receive(other.as_bytes(), &caller);
    assert_eq!(receipt, Receipt::Conflict);
    call.answer(0, 200, "");
    let receipt = call.host.receive(other.as_bytes(), &caller);
    assert_eq!((receipt, call.sent_until(0)), (Receipt::Conflict, vec![]));
    let (receipt, sent) = call.caller("MESSAGE");
    assert_eq!(
        (receipt, responses(&sent)),
        (Receipt::Handled, vec![(0, 200)])
    );
}

#[test]
fn a_retransmission_with_other_lines_than_its_request_is_not_answered() {
    let (mut call, _) = Call::start("MESSAGE", serial(&[0]));
    call.answer(0, 200, "");
    let changed = request("MESSAGE", 1, "").replace("From: <", "From: Someone <");
    let receipt = call
        .host
        .receive(changed.as_bytes(), &from_caller(Transport::Udp));
    assert_eq!((receipt, call.sent_until(0)), (Receipt::Changed, vec![]));
}

#[test]
fn a_response_with_another_method_is_dropped() {
    let (mut call, _) = Call::start("MESSAGE", serial(&[0]));
    for method in ["OPTIONS", "MESS", "MESSAGES"] {
        let own = "CSeq: 1 MESSAGE";
        let text = response(200, &call.out[0], "x", "").replace(own, &format!("CSeq: 1 {method}"));
        call.host.receive(text.as_bytes(), &from_callee(0));
        assert_eq!(call.sent_until(0), [], "{method}");
    }
    assert_eq!(responses(&call.answer(0, 200, "")), [(0, 200)]);
}

#[test]
fn a_408_to_a_forked_message_is_worse_than_any_other_answer() {
    for (first, second, expected) in [(408, 500, 500), (408, 404, 404), (503, 408, 500)] {
        let (mut call, _) = Call::start("MESSAGE", parallel(&[0, 1]));
        assert_eq!(call.answer(0, first, ""), []);
        let sent = call.answer(1, second, "");
        assert_eq!(responses(&sent), [(0, expected)]);
    }
}

#[test]
fn a_message_that_is_answered_after_the_time_of_its_target_is_answered() {
    // While the next target is tried.
    let (mut call, _) = Call::start("MESSAGE", serial(&[0, 1]));
    let sent = call.sent_until(4_200);
    let (mut first, second): (Vec<_>, Vec<_>) =
        sent.iter().partition(|sent| sent.branch == Some(0));
    first.retain(|sent| sent.what == What::RequestRetransmission);
    assert_eq!(first.last().map(|sent| sent.at), Some(3_500));
    assert!(second.iter().any(|sent| sent.what == What::Request));
    assert_eq!(responses(&call.answer(0, 200, "")), [(4_200, 200)]);
    assert_eq!(call.answer(1, 200, ""), []);

    // When there is no other one, and the caller would get no answer.
    let mut plan = serial(&[0]);
    plan.targets[0].no_answer = Some(Duration::from_secs(4));
    let (mut call, _) = Call::start("MESSAGE", plan);
    let sent = call.sent_until(4_200);
    assert_eq!(
        times(&sent, What::RequestRetransmission),
        [500, 1_500, 3_500]
    );
    assert_eq!(responses(&call.answer(0, 200, "")), [(4_200, 200)]);
    call.is_gone_after(36_200);
}

#[test]
fn a_message_that_is_answered_while_the_next_step_is_asked_for_is_answered() {
    let mut plan = serial(&[0]);
    plan.targets[0].no_answer = Some(Duration::from_secs(4));
    plan.asks = u8::MAX;
    let (mut call, _) = Call::start("MESSAGE", plan);
    let (_, told) = call.go_to(4_200);
    assert_eq!(told, [Told::Outcome(0, 408), Told::Ask]);
    assert_eq!(responses(&call.answer(0, 200, "")), [(4_200, 200)]);
    call.is_gone_after(36_200);
}

#[test]
fn a_failure_after_the_time_of_its_target_answers_a_message_that_would_get_none() {
    let mut plan = serial(&[0]);
    plan.targets[0].no_answer = Some(Duration::from_secs(4));
    let (mut call, _) = Call::start("MESSAGE", plan);
    call.sent_until(4_200);
    assert_eq!(responses(&call.answer(0, 486, "")), [(4_200, 486)]);
    call.is_gone_after(36_200);
}

#[test]
fn nothing_is_left_of_a_given_up_target_once_a_message_is_answered() {
    let (mut call, _) = Call::start("MESSAGE", serial(&[0, 1]));
    call.sent_until(4_200);
    assert_eq!(responses(&call.answer(1, 200, "")), [(4_200, 200)]);
    let usage = call.host.core.usage();
    assert_eq!((usage.active, usage.absorbers), (0, 1));
    call.is_gone_after(36_200);
}

#[test]
fn a_6xx_to_a_forked_message_waits_for_the_other_targets_but_not_for_long() {
    let (mut call, _) = Call::start("MESSAGE", parallel(&[0, 1]));
    assert_eq!(responses(&call.answer(0, 603, "")), []);
    call.sent_until(10);
    assert_eq!(responses(&call.answer(1, 200, "")), [(10, 200)]);

    let (mut call, _) = Call::start("MESSAGE", parallel(&[0, 1]));
    call.answer(0, 603, "");
    call.sent_until(10);
    assert_eq!(responses(&call.answer(1, 404, "")), [(10, 603)]);

    let (mut call, _) = Call::start("MESSAGE", parallel(&[0, 1]));
    call.answer(0, 603, "");
    let sent = call.sent_until(4_000);
    assert_eq!(responses(&sent), [(3_500, 100), (4_000, 603)]);
    assert_eq!(call.answer(1, 200, ""), []);
}

#[test]
fn only_the_first_200_to_a_forked_message_is_passed_on() {
    let (mut call, _) = Call::start("MESSAGE", parallel(&[0, 1]));
    assert_eq!(responses(&call.answer(0, 200, "")), [(0, 200)]);
    assert_eq!(call.answer(1, 200, ""), []);
}

#[test]
fn nothing_is_sent_twice_over_a_reliable_transport_and_nothing_lingers() {
    let mut host = Host::new(Config::default());
    let caller = from_caller(Transport::Tcp);
    let id = host.begin(request("MESSAGE", 1, "").as_bytes(), &caller);
    host.core
        .plan(host.now, id, parallel(&[FIRST_TCP]))
        .unwrap();
    let (sent, _) = host.go_to(3_000);
    assert_eq!(sent.len(), 1);
    let answer = response(200, &sent[0].text, "x", "");
    host.receive(answer.as_bytes(), &from_callee(FIRST_TCP));
    assert_eq!(responses(&host.drain().0).len(), 1);
    assert!(host.core.is_empty());
}
