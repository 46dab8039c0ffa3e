//! One target after the other.

use std::time::Duration;

use portcullis_testkit::host::Builder;
use portcullis_testkit::peer::{Peer, branch_of};

use super::{BOB, FAILOVER, Targets, branches_at, callees, compare, numbers, with_targets};
use crate::site::{Site, Summary, wait_until_idle};

/// 16: the first is unavailable, and the second silent.
fn third_answers(targets: &Targets) -> Vec<Summary> {
    let call = targets.call();
    let [unavailable, silent, answering] = &targets.callees;
    let first = call.arrives_at(unavailable);
    call.is_refused_by(unavailable, &first, 503);
    let second = call.arrives_at(silent);
    let third = call.arrives_at(answering);
    assert!(third.at - second.at >= Duration::from_millis(3_600));
    let ok = call.is_answered_by(answering, &third);
    call.is_completed_with(answering, &ok);
    let branches = [&first, &second, &third].map(|seen| branch_of(&seen.message));
    assert!(branches[0] != branches[1] && branches[1] != branches[2]);
    for seen in [&second, &third] {
        assert_eq!(seen.message.header("CSeq"), Some("1 INVITE"));
    }
    targets.summaries(&call)
}

/// After a CANCEL, no further target has its turn.
fn second_cancelled(targets: &Targets) -> Vec<Summary> {
    let call = targets.call();
    let [first, second, third] = &targets.callees;
    call.is_refused_by(first, &call.arrives_at(first), 503);
    let seen = call.rings_at(second);
    call.cancels();
    // A callee may answer so, too.
    call.is_cancelled_at(second, &seen, 503);
    let end = call.caller.nth(0, "a final response", |m| {
        m.code() >= 300 && m.header("CSeq") == Some("1 INVITE")
    });
    targets.site.ack_failure(&call.caller, &call.invite, &end);
    assert!(third.seen().is_empty(), "its turn does not come");
    targets.summaries(&call)
}

#[test]
fn no_target_has_its_turn_after_a_cancel() {
    let (host, targets) = Targets::host(FAILOVER, 3);
    let summaries = second_cancelled(&targets);
    assert_eq!(numbers(&summaries), [(0, 1), (1, 1), (0, 0)]);
    wait_until_idle(&host);
}

/// The first target answers after the second has had its turn.
#[test]
fn a_late_200_of_the_first_target_wins() {
    let (host, targets) = Targets::host(FAILOVER, 2);
    let call = targets.call();
    let [first, second, _] = &targets.callees;
    let slow = call.arrives_at(first);
    let seen = call.rings_at(second);
    let ok = call.is_answered_by(first, &slow);
    call.is_cancelled_at(second, &seen, 487);
    call.is_completed_with(first, &ok);
    assert_eq!(call.summary(second).finals, [200]);
    wait_until_idle(&host);
}

/// `on-failure` adds a target.
#[test]
fn the_last_resort_has_its_turn_when_all_have_failed() {
    let builder = Builder::new();
    let callees = callees(builder.lease());
    let [a, b, c] = callees.each_ref().map(Peer::local);
    let host = with_targets(builder, FAILOVER, &[a, b])
        .set("policy.settings", "last-resort = \"resort\"")
        .set("relay.next-hops", &format!("resort = \"sip:{c}\""))
        .start();
    let site = Site::of(&host);
    let targets = Targets { site, callees };
    let call = targets.call();
    let [first, second, resort] = &targets.callees;
    for callee in [first, second] {
        call.is_refused_by(callee, &call.arrives_at(callee), 503);
    }
    let ok = call.is_answered_by(resort, &call.arrives_at(resort));
    call.is_completed_with(resort, &ok);
    wait_until_idle(&host);
}

/// A request other than INVITE fails over, too: the second target has its turn while the caller still waits.
#[test]
fn a_message_goes_to_the_next_target() {
    let (host, targets) = Targets::host(FAILOVER, 2);
    let caller = targets.site.caller();
    let message = caller.request("MESSAGE", BOB);
    targets.site.send(&caller, &message);
    let [silent, answering, _] = &targets.callees;
    silent.first_request("MESSAGE");
    answering.answer(&answering.first_request("MESSAGE"), 200);
    caller.first_response("MESSAGE", 200);
    wait_until_idle(&host);
}

#[test]
fn the_next_target_has_its_turn_when_one_fails() {
    let (host, targets) = Targets::host(FAILOVER, 3);
    let summaries = third_answers(&targets);
    assert_eq!(summaries[0].finals, [200]);
    let [unavailable, _, answering] = &targets.callees;
    for callee in [unavailable, answering] {
        // On a slow machine, timer A of the host may fire.
        assert_eq!(branches_at(callee), 1);
    }
    // The silent target may still answer: its branch ends with timer B.
    let ended = host.metric("portcullis_attempts_total", &["no_answer"]);
    assert_eq!(ended, 1.0);
    for (n, result) in ["failure", "no_answer", "success"].iter().enumerate() {
        let labels = [
            format!("next_hop=\"target-{n}\""),
            format!("result=\"{result}\""),
        ];
        let labels = labels.each_ref().map(String::as_str);
        let attempts = host.metric("portcullis_next_hop_attempts_total", &labels);
        // The BYE follows its dialog: the policy names no target for it.
        assert_eq!(attempts, 1.0, "{labels:?}");
    }
    let status = host.rpc("portcullis.status", serde_json::json!([]));
    let attempts = &status["result"]["transactions"]["attempts"];
    assert_eq!(attempts[1]["next_hop"], "target-0", "{attempts}");
    assert_eq!(attempts[1]["failure"], 1, "{attempts}");
}

#[test]
fn a_stateless_host_uses_the_first_target() {
    let builder = Builder::new();
    let callees = callees(builder.lease());
    let targets = [callees[0].local(), callees[1].local()];
    let host = with_targets(builder, FAILOVER, &targets)
        .set("relay", "mode = \"stateless\"")
        .start();
    let site = Site::of(&host);
    let caller = site.caller();
    let message = caller.request("MESSAGE", BOB);
    site.send(&caller, &message);
    callees[0].answer(&callees[0].first_request("MESSAGE"), 503);
    caller.first_response("MESSAGE", 503);
    assert_eq!(callees[1].times_of("MESSAGE").len(), 0);
}

#[test]
fn peers_fail_over_as_kamailio_does() {
    compare(
        FAILOVER,
        &[
            ("third_answers", third_answers),
            ("second_cancelled", second_cancelled),
        ],
    );
}
