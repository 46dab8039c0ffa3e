//! Several targets: in turn, at once, and with a next step.

use std::time::Duration;

use portcullis_sip::Transport;

use super::{Call, one, responses, times};
use crate::config::Config;
use crate::event::Failure;
use crate::outbox::What;
use crate::plan::{MOST_TARGETS, Plan, PlanError, StatusSet, Step};
use crate::testing::{
    FIRST_TCP, Host, Told, callee, code, from_callee, from_caller, header, parallel, request,
    response, serial,
};
use crate::transactions::Receipt;

#[test]
fn the_first_200_of_a_fork_cancels_those_that_ring() {
    let (mut call, _) = Call::start("INVITE", parallel(&[0, 1, 2]));
    call.answer(0, 486, "");
    call.answer(1, 180, "");
    call.answer(2, 180, "");
    let sent = call.answer(1, 200, "");
    assert_eq!(responses(&sent), [(0, 200)]);
    let cancel = one(&sent, What::Cancel).clone();
    assert_eq!(cancel.to, callee(2));
    assert!(
        header(&cancel.text, "Reason")
            .unwrap()
            .starts_with("SIP;cause=200")
    );
    let sent = call.answer_cancel(2, &cancel.text);
    assert_eq!(responses(&sent), [], "its 487 stays here");
    assert_eq!(one(&sent, What::Ack).to, callee(2));
    call.is_gone_after(32_000);
}

#[test]
fn both_200s_of_two_callees_reach_the_caller() {
    let (mut call, _) = Call::start("INVITE", parallel(&[0, 1]));
    call.answer(0, 180, "");
    call.answer(1, 180, "");
    assert_eq!(responses(&call.answer(0, 200, "")), [(0, 200)]);
    let text = response(200, &call.out[1], "callee1", "");
    call.host.receive(text.as_bytes(), &from_callee(1));
    let (sent, told) = call.go_to(5);
    assert_eq!(responses(&sent), [(0, 200)]);
    assert!(sent[0].text.contains("callee1"));
    let ended = told.iter().find_map(|told| match told {
        Told::Ended(end) => Some(*end),
        Told::Ask | Told::Outcome(..) | Told::Failover(..) => None,
    });
    assert_eq!(
        ended.map(|end| (end.code, end.late_successes)),
        Some((Some(200), 1))
    );
}

#[test]
fn a_6xx_cancels_the_others_and_is_sent_when_they_have_ended() {
    let (mut call, _) = Call::start("INVITE", parallel(&[0, 1, 2]));
    call.answer(0, 404, "");
    call.answer(2, 180, "");
    let sent = call.answer(1, 603, "");
    assert_eq!(responses(&sent), []);
    let cancel = one(&sent, What::Cancel).clone();
    assert_eq!(cancel.to, callee(2));
    assert_eq!(header(&cancel.text, "Reason"), Some("SIP;cause=603"));
    assert_eq!(responses(&call.answer_cancel(2, &cancel.text)), [(0, 603)]);
}

#[test]
fn challenges_of_several_callees_are_merged() {
    let (mut call, _) = Call::start("INVITE", parallel(&[0, 1, 2]));
    call.answer(0, 401, "WWW-Authenticate: Digest realm=\"a\"\r\n");
    call.answer(1, 407, "Proxy-Authenticate: Digest realm=\"b\"\r\n");
    let sent = call.answer(2, 486, "");
    let answer = one(&sent, What::Response);
    assert_eq!(code(&answer.text), 401);
    assert_eq!(
        header(&answer.text, "WWW-Authenticate"),
        Some("Digest realm=\"a\"")
    );
    assert_eq!(
        header(&answer.text, "Proxy-Authenticate"),
        Some("Digest realm=\"b\"")
    );
}

#[test]
fn targets_are_tried_in_turn_until_one_answers() {
    let (mut call, sent) = Call::start("INVITE", serial(&[0, 1, 2]));
    assert_eq!(times(&sent, What::Request), [0]);
    let sent = call.answer(0, 503, "Retry-After: 5\r\n");
    let second = one(&sent, What::Request);
    assert_eq!(second.to, callee(1));
    assert_ne!(header(&second.text, "Via"), header(&call.out[0], "Via"));
    assert_eq!(header(&second.text, "CSeq"), Some("1 INVITE"));
    let sent = call.sent_until(4_000);
    assert_eq!(
        times(&sent, What::RequestRetransmission),
        [500, 1_500, 3_500]
    );
    let third = one(&sent, What::Request);
    assert_eq!((third.at, third.to), (4_000, callee(2)));
    let sent = call.answer(2, 200, "");
    assert_eq!(responses(&sent), [(4_000, 200)]);
}

#[test]
fn a_target_that_rings_after_its_time_is_cancelled() {
    let (mut call, _) = Call::start("INVITE", serial(&[0, 1]));
    call.sent_until(4_500);
    let sent = call.answer(0, 180, "");
    assert_eq!(responses(&sent), []);
    let cancel = one(&sent, What::Cancel).clone();
    assert_eq!(cancel.to, callee(0));
    let sent = call.answer_cancel(0, &cancel.text);
    assert_eq!(responses(&sent), []);
    assert_eq!(responses(&call.answer(1, 404, "")), [(4_500, 404)]);
}

#[test]
fn a_failure_after_the_time_of_its_target_is_better_than_none() {
    for code in [486, 401] {
        let (mut call, _) = Call::start("INVITE", serial(&[0, 1]));
        call.sent_until(5_000);
        let sent = call.answer(0, code, "");
        assert_eq!(one(&sent, What::Ack).to, callee(0));
        assert_eq!(responses(&sent), []);
        let sent = call.sent_until(36_000);
        assert_eq!(responses(&sent), [(36_000, code)]);
    }
}

#[test]
fn a_6xx_after_the_time_of_its_target_ends_the_search() {
    let (mut call, _) = Call::start("INVITE", serial(&[0, 1, 2]));
    call.sent_until(5_000);
    call.answer(1, 180, "");
    let sent = call.answer(0, 603, "");
    let cancel = one(&sent, What::Cancel).clone();
    assert_eq!(cancel.to, callee(1));
    let sent = call.answer_cancel(1, &cancel.text);
    assert_eq!(responses(&sent), [(5_000, 603)]);
    assert_eq!(times(&sent, What::Request), []);
}

#[test]
fn a_6xx_while_the_next_step_is_asked_for_ends_the_search() {
    let mut plan = asking(&[0]);
    plan.targets[0].no_answer = Some(Duration::from_secs(4));
    let (mut call, _) = Call::start("INVITE", plan);
    call.sent_until(5_000);
    assert_eq!(responses(&call.answer(0, 603, "")), [(5_000, 603)]);
    let (now, id) = (call.host.now, call.id);
    let step = call
        .host
        .core
        .step(now, id, Step::again(serial(&[1]).targets));
    assert_eq!(step, Err(PlanError::TooLate));
}

#[test]
fn an_answer_of_an_earlier_rank_is_better_than_a_failure_of_our_own() {
    let (mut call, _) = Call::start("INVITE", serial(&[0, 1]));
    call.answer(0, 503, "");
    let sent = call.sent_until(32_000);
    assert_eq!(responses(&sent), [(32_000, 500)]);
    let usage = call.host.core.usage();
    assert_eq!(usage.active, 1);

    let (mut call, _) = Call::start("INVITE", asking(&[0]));
    call.answer(0, 486, "");
    let (now, id) = (call.host.now, call.id);
    let step = Step::again(serial(&[1]).targets);
    call.host.core.step(now, id, step).unwrap();
    call.sent_until(32_000);
    call.host.core.step(call.host.now, id, Step::Best).unwrap();
    assert_eq!(responses(&call.sent_until(32_000)), [(32_000, 486)]);
}

#[test]
fn a_target_that_rings_after_a_network_error_is_cancelled() {
    let (mut call, _) = Call::start("INVITE", serial(&[0, 1]));
    let (now, id) = (call.host.now, call.id);
    call.host.core.fail(now, id, 0, Failure::Unreachable);
    let sent = call.sent_until(3_900);
    assert_eq!(one(&sent, What::Request).to, callee(1));
    let copies = sent
        .iter()
        .filter(|sent| sent.what == What::RequestRetransmission);
    assert_eq!(copies.filter(|sent| sent.to == callee(0)).count(), 0);
    let sent = call.answer(0, 180, "");
    assert_eq!(responses(&sent), []);
    assert_eq!(one(&sent, What::Cancel).to, callee(0));
}

#[test]
fn an_error_for_a_retransmission_ends_a_target_and_one_after_a_response_does_not() {
    for answers in [false, true] {
        let (mut call, _) = Call::start("INVITE", serial(&[0, 1]));
        let id = call.id;
        let branch = call.host.core.job(id, 0).unwrap().branch;
        let sent = call.sent_until(1_500);
        assert_eq!(times(&sent, What::RequestRetransmission), [500, 1_500]);
        if answers {
            call.answer(0, 100, "");
        }
        let now = call.host.now;
        let is_active = call
            .host
            .core
            .fail_branch(now, branch, Failure::Unreachable);
        assert!(is_active);
        let second = times(&call.sent_until(1_500), What::Request);
        let expected: &[u64] = if answers { &[] } else { &[1_500] };
        assert_eq!(second, expected);
    }
}

#[test]
fn an_error_for_a_branch_of_no_active_transaction_has_no_effect() {
    let (mut call, _) = Call::start("INVITE", serial(&[0]));
    let branch = call.host.core.job(call.id, 0).unwrap().branch;
    call.answer(0, 200, "");
    call.sent_until(1_000);
    let now = call.host.now;
    for number in [0, 9] {
        let branch = portcullis_sip::Branch { number, ..branch };
        let core = &mut call.host.core;
        assert!(!core.fail_branch(now, branch, Failure::Unreachable));
    }
    assert_eq!(call.sent_until(1_000), []);
}

#[test]
fn a_broken_connection_ends_a_target_for_good() {
    let (mut call, _) = Call::start("INVITE", serial(&[FIRST_TCP, 1]));
    let (now, id) = (call.host.now, call.id);
    call.host.core.fail(now, id, 0, Failure::Unreachable);
    assert_eq!(one(&call.sent_until(0), What::Request).to, callee(1));
    assert_eq!(call.answer(0, 180, ""), []);
}

#[test]
fn a_cancelled_call_gets_487_whatever_an_earlier_target_answered() {
    let (mut call, _) = Call::start("INVITE", serial(&[0, 1]));
    call.answer(0, 503, "");
    call.answer(1, 180, "");
    call.caller("CANCEL");
    let sent = call.sent_until(32_000);
    assert_eq!(responses(&sent), [(32_000, 487)]);
}

#[test]
fn a_target_that_answers_after_its_time_has_the_call() {
    let (mut call, _) = Call::start("INVITE", serial(&[0, 1]));
    call.sent_until(4_500);
    call.answer(1, 180, "");
    let sent = call.answer(0, 200, "");
    assert_eq!(responses(&sent), [(4_500, 200)]);
    assert_eq!(one(&sent, What::Cancel).to, callee(1));
}

#[test]
fn a_2xx_after_the_failure_of_a_target_has_the_call_over_each_transport() {
    for first in [0, FIRST_TCP] {
        // A downstream proxy with two callees: one fails, the other one answers.
        let (mut call, _) = Call::start("INVITE", serial(&[first, 1]));
        let sent = call.answer(0, 503, "");
        assert_eq!(one(&sent, What::Request).to, callee(1));
        call.answer(1, 180, "");
        let sent = call.answer(0, 200, "");
        assert_eq!(responses(&sent), [(0, 200)], "target {first}");
        assert_eq!(one(&sent, What::Cancel).to, callee(1));
    }
}

#[test]
fn a_2xx_after_the_failure_of_a_call_is_relayed_for_32_seconds_over_each_transport() {
    for target in [0, FIRST_TCP] {
        let (mut call, _) = Call::start("INVITE", serial(&[target]));
        call.answer(0, 486, "");
        call.caller("ACK");
        call.sent_until(31_000);
        let late = response(200, &call.out[0], "another", "");
        let receipt = call.host.receive(late.as_bytes(), &from_callee(target));
        assert_eq!(receipt, Receipt::Stateless);
        call.is_gone_after(32_000);
    }
}

#[test]
fn a_target_whose_time_is_over_leaves_its_share_of_max_breadth_to_the_next_one() {
    let plan = serial(&[0, 1]);
    let (mut call, _) = Call::with(Config::default(), "INVITE", "Max-Breadth: 1\r\n", plan);
    let sent = call.sent_until(4_000);
    let second = one(&sent, What::Request);
    assert_eq!(header(&second.text, "Max-Breadth"), Some("1"));
}

#[test]
fn a_target_that_is_cancelled_keeps_its_place_until_it_confirms_or_is_given_up() {
    for confirms in [true, false] {
        let mut plan = parallel(&[0, 1]);
        plan.targets[0].ring = Duration::from_secs(10);
        let config = Config {
            parallel: 1,
            ..Config::default()
        };
        let (mut call, _) = Call::with(config, "INVITE", "", plan);
        call.answer(0, 180, "");
        let sent = call.sent_until(10_000);
        let cancel = one(&sent, What::Cancel).text.clone();
        assert_eq!(times(&sent, What::Request), []);
        let (sent, start) = if confirms {
            (call.answer_cancel(0, &cancel), 10_000)
        } else {
            (call.sent_until(42_000), 42_000)
        };
        let second = one(&sent, What::Request);
        assert_eq!((second.at, second.to), (start, callee(1)));
    }
}

#[test]
fn a_code_that_is_not_to_be_retried_ends_the_search() {
    let (mut call, _) = Call::start("INVITE", serial(&[0, 1]));
    let sent = call.answer(0, 486, "");
    assert_eq!(responses(&sent), [(0, 486)]);
    assert_eq!(times(&sent, What::Request), []);
}

#[test]
fn a_transport_error_brings_the_next_target_at_once_and_never_a_503() {
    let (mut call, _) = Call::start("INVITE", serial(&[0, 1]));
    let (now, id) = (call.host.now, call.id);
    call.host.core.fail(now, id, 0, Failure::Unreachable);
    let sent = call.sent_until(0);
    assert_eq!(one(&sent, What::Request).to, callee(1));
    call.host.core.fail(now, id, 1, Failure::Unresolved);
    assert_eq!(responses(&call.sent_until(0)), [(0, 500)]);
    call.host.core.fail(now, id, 1, Failure::Unreachable);
    assert_eq!(call.sent_until(0), []);
}

#[test]
fn a_503_of_a_target_is_sent_as_500_without_retry_after() {
    let (mut call, _) = Call::start("INVITE", serial(&[0]));
    let sent = call.answer(0, 503, "Retry-After: 5\r\n");
    let answer = one(&sent, What::Response);
    assert_eq!(code(&answer.text), 500);
    assert_eq!(header(&answer.text, "Retry-After"), None);
}

#[test]
fn a_received_answer_is_better_than_a_failure_of_our_own() {
    let (mut call, _) = Call::start("INVITE", parallel(&[0, 1]));
    call.answer(0, 503, "");
    let sent = call.sent_until(32_000);
    assert_eq!(responses(&sent), [(32_000, 500)]);
    let (mut call, _) = Call::start("INVITE", parallel(&[0, 1]));
    call.answer(0, 486, "");
    let sent = call.sent_until(32_000);
    assert_eq!(responses(&sent), [(32_000, 486)]);
}

fn asking(targets: &[usize]) -> Plan<usize> {
    Plan {
        asks: u8::MAX,
        ..serial(targets)
    }
}

#[test]
fn the_next_step_is_asked_for_and_may_bring_targets() {
    let (mut call, _) = Call::start("INVITE", asking(&[0]));
    let text = response(486, &call.out[0], "callee0", "");
    call.host.receive(text.as_bytes(), &from_callee(0));
    let (sent, told) = call.go_to(0);
    assert_eq!(responses(&sent), []);
    assert_eq!(told, [Told::Outcome(0, 486), Told::Ask]);
    let (now, id) = (call.host.now, call.id);
    let best = call
        .host
        .core
        .best(id)
        .map(|(code, response)| (code, response.is_some()));
    assert_eq!(best, Some((486, true)));

    let step = Step::again(serial(&[1]).targets);
    call.host.core.step(now, id, step).unwrap();
    let sent = call.sent_until(0);
    assert_eq!(one(&sent, What::Request).to, callee(1));
    let attempts: Vec<_> = call
        .host
        .core
        .attempts(id)
        .map(|(to, attempt)| (*to, attempt.code))
        .collect();
    assert_eq!(attempts, [(0, 486)]);
    assert_eq!(responses(&call.answer(1, 404, "")), [], "it is asked again");
    call.host.core.step(now, id, Step::Best).unwrap();
    assert_eq!(
        responses(&call.sent_until(0)),
        [(0, 404)],
        "earlier answers are forgotten"
    );
}

#[test]
fn the_next_step_may_be_another_answer() {
    let (mut call, _) = Call::start("INVITE", asking(&[0]));
    call.answer(0, 486, "");
    let (now, id) = (call.host.now, call.id);
    let headers = [("Retry-After", "7")];
    assert!(call.host.core.answer(now, id, 503, "", &headers));
    let sent = call.sent_until(0);
    let answer = one(&sent, What::Reply);
    assert_eq!(code(&answer.text), 503, "our own 503 stays one");
    assert_eq!(header(&answer.text, "Retry-After"), Some("7"));
    assert_eq!(
        call.host.core.step(now, id, Step::Best),
        Err(PlanError::TooLate)
    );
}

#[test]
fn a_cancel_while_the_next_step_is_asked_for_is_answered_487() {
    let (mut call, _) = Call::start("INVITE", asking(&[0]));
    call.answer(0, 486, "");
    let (_, sent) = call.caller("CANCEL");
    assert_eq!(responses(&sent), [(0, 200), (0, 487)]);
}

#[test]
fn nobody_is_asked_after_a_6xx_or_more_often_than_permitted() {
    let (mut call, _) = Call::start("INVITE", asking(&[0]));
    assert_eq!(responses(&call.answer(0, 603, "")), [(0, 603)]);

    let config = Config {
        asks: 1,
        ..Config::default()
    };
    let (mut call, _) = Call::with(config, "INVITE", "", asking(&[0]));
    call.answer(0, 486, "");
    let (now, id) = (call.host.now, call.id);
    call.host
        .core
        .step(now, id, Step::again(serial(&[1]).targets))
        .unwrap();
    call.sent_until(0);
    assert_eq!(responses(&call.answer(1, 404, "")), [(0, 404)]);
}

#[test]
fn a_target_that_rings_while_the_last_step_is_asked_for_leaves_the_request_whole() {
    let config = Config {
        asks: 1,
        ..Config::default()
    };
    let mut plan = asking(&[0]);
    plan.targets[0].no_answer = Some(Duration::from_secs(4));
    let (mut call, _) = Call::with(config, "INVITE", "X-Whole: yes\r\n", plan);
    call.sent_until(4_500);
    let sent = call.answer(0, 180, "");
    assert_eq!(one(&sent, What::Cancel).to, callee(0));
    let (now, id) = (call.host.now, call.id);
    let step = Step::again(serial(&[1]).targets);
    call.host.core.step(now, id, step).unwrap();
    let sent = call.sent_until(4_500);
    assert!(one(&sent, What::Request).text.contains("X-Whole"));
}

#[test]
fn there_are_at_most_16_targets() {
    let mut host = Host::new(Config::default());
    let id = host.begin(
        request("INVITE", 1, "").as_bytes(),
        &from_caller(Transport::Udp),
    );
    let now = host.now;
    let plan = host.core.plan(now, id, parallel(&[0; MOST_TARGETS + 1]));
    assert_eq!(plan, Err(PlanError::TooManyTargets));
    assert_eq!(
        host.core.plan(now, id, parallel(&[])),
        Err(PlanError::NoTargets)
    );
    host.core
        .plan(now, id, parallel(&[0; MOST_TARGETS]))
        .unwrap();
    let (sent, _) = host.drain();
    assert_eq!(times(&sent, What::Request).len(), 8, "eight at a time");
}

#[test]
fn a_fork_keeps_within_max_breadth() {
    let breadth = "Max-Breadth: 1\r\n";
    let (mut call, sent) = Call::with(Config::default(), "INVITE", breadth, parallel(&[0, 1]));
    assert_eq!(times(&sent, What::Request).len(), 1);
    let sent = call.answer(0, 486, "");
    assert_eq!(one(&sent, What::Request).to, callee(1));
    assert_eq!(responses(&call.answer(1, 404, "")), [(0, 486)]);

    let none = "Max-Breadth: 0\r\n";
    let (_, sent) = Call::with(Config::default(), "INVITE", none, parallel(&[0]));
    assert_eq!(responses(&sent), [(0, 440)]);
}

#[test]
fn targets_share_max_breadth() {
    let shares = |received: &str, targets: &[usize]| {
        let plan = parallel(targets);
        let (_, sent) = Call::with(Config::default(), "INVITE", received, plan);
        let requests = sent.iter().filter(|sent| sent.what == What::Request);
        let shares = requests.map(|sent| header(&sent.text, "Max-Breadth").map(str::to_owned));
        shares.collect::<Vec<_>>()
    };
    let some = |share: &str| Some(share.to_owned());
    assert_eq!(shares("", &[0]), [some("60")]);
    assert_eq!(shares("", &[0, 1]), [some("30"), some("30")]);
    assert_eq!(shares("Max-Breadth: 60\r\n", &[0]), [some("60")]);
    assert_eq!(shares("Max-Breadth: 20\r\n", &[0]), [some("20")]);
    assert_eq!(shares("Max-Breadth: 255\r\n", &[0]), [some("60")]);
    assert_eq!(shares("Max-Breadth: 256\r\n", &[0]), [some("60")]);
    assert_eq!(shares("Max-Breadth: many\r\n", &[0]), [some("60")]);
    let three = [some("3"), some("3"), some("3")];
    assert_eq!(shares("Max-Breadth: 10\r\n", &[0, 1, 2]), three);
    let twice = "Max-Breadth: 4\r\nmax-breadth: 50\r\n";
    assert_eq!(shares(twice, &[0, 1]), [some("2"), some("2")]);
}

#[test]
fn max_breadth_of_an_ended_target_goes_to_the_next_one() {
    let received = "Max-Breadth: 2\r\n";
    let plan = parallel(&[0, 1, 2, 3]);
    let (mut call, sent) = Call::with(Config::default(), "INVITE", received, plan);
    assert_eq!(times(&sent, What::Request).len(), 2);
    for (ended, next) in [(0, 2), (1, 3)] {
        let sent = call.answer(ended, 486, "");
        let request = one(&sent, What::Request);
        assert_eq!(request.to, callee(next));
        assert_eq!(header(&request.text, "Max-Breadth"), Some("1"));
    }
}

#[test]
fn a_target_that_is_resolved_late_gets_the_whole_request() {
    let mut host = Host::new(Config::default());
    let invite = request("INVITE", 1, "X-Whole: yes\r\n");
    let id = host.begin(invite.as_bytes(), &from_caller(Transport::Udp));
    host.core.plan(host.now, id, parallel(&[0, 1])).unwrap();
    while host.core.poll_event().is_some() {}
    host.forward(id, 0);
    let (sent, _) = host.drain();
    let first = one(&sent, What::Request).text.clone();
    let ringing = response(180, &first, "x", "");
    host.receive(ringing.as_bytes(), &from_callee(0));
    host.drain();
    host.forward(id, 1);
    let (sent, _) = host.drain();
    assert!(one(&sent, What::Request).text.contains("X-Whole"));
}

#[test]
fn the_limits_of_a_plan_hold_within_those_of_the_configuration() {
    let plan = Plan {
        parallel: 1,
        setup_limit: Duration::from_secs(10),
        ..parallel(&[0, 1])
    };
    let (mut call, sent) = Call::start("INVITE", plan);
    assert_eq!(times(&sent, What::Request), [0], "one at a time");
    assert_eq!(responses(&call.sent_until(10_000)), [(10_000, 408)]);

    let plan = Plan {
        asks: 1,
        ..serial(&[0])
    };
    let (mut call, _) = Call::start("INVITE", plan);
    assert_eq!(
        responses(&call.answer(0, 486, "")),
        [],
        "the step is asked for"
    );
    let (now, id) = (call.host.now, call.id);
    let step = Step::again(serial(&[1]).targets);
    call.host.core.step(now, id, step).unwrap();
    call.sent_until(0);
    assert_eq!(responses(&call.answer(1, 404, "")), [(0, 404)]);
}

#[test]
fn further_targets_may_have_other_codes_for_the_next_rank() {
    let (mut call, _) = Call::start("INVITE", asking(&[0]));
    call.answer(0, 503, "");
    let (now, id) = (call.host.now, call.id);
    let step = Step::Again {
        targets: serial(&[1, 2]).targets,
        retry_on: Some(StatusSet::EMPTY.with(486)),
    };
    call.host.core.step(now, id, step).unwrap();
    call.sent_until(0);
    let sent = call.answer(1, 486, "");
    assert_eq!(one(&sent, What::Request).to, callee(2));
}
