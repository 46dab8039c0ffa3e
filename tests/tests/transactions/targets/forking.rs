//! Several targets at once.

use portcullis_testkit::peer::branch_of;

use super::{FORK, Targets, compare, numbers};
use crate::site::{Summary, wait_until_idle};

/// 12: the first 200 cancels what rings.
fn one_answers(targets: &Targets) -> Vec<Summary> {
    let call = targets.call();
    let [busy, answering, ringing] = &targets.callees;
    call.is_refused_by(busy, &call.arrives_at(busy), 486);
    let other = call.rings_at(ringing);
    let seen = call.rings_at(answering);
    let ok = call.is_answered_by(answering, &seen);
    let cancel = call.is_cancelled_at(ringing, &other, 487);
    assert_eq!(branch_of(&cancel.message), branch_of(&other.message));
    call.is_completed_with(answering, &ok);
    targets.summaries(&call)
}

/// 13: a 603 cancels what rings, and is passed on when that has ended.
fn one_declines(targets: &Targets) -> Vec<Summary> {
    let call = targets.call();
    let [unknown, declining, ringing] = &targets.callees;
    call.is_refused_by(unknown, &call.arrives_at(unknown), 404);
    let other = call.rings_at(ringing);
    call.is_refused_by(declining, &call.arrives_at(declining), 603);
    call.is_cancelled_at(ringing, &other, 487);
    call.fails_with(603);
    targets.summaries(&call)
}

/// 14: the best response has the challenges of all (RFC 3261 §16.7(7)).
fn all_challenge(targets: &Targets) -> Vec<Summary> {
    let call = targets.call();
    let [server, proxy, busy] = &targets.callees;
    let digest = |name: &str| format!("{name}: Digest realm=\"{name}\", nonce=\"1\"");
    let (first, second) = (digest("WWW-Authenticate"), digest("Proxy-Authenticate"));
    server.answer_with(&call.arrives_at(server), 401, &[&first]);
    server.first_request("ACK");
    proxy.answer_with(&call.arrives_at(proxy), 407, &[&second]);
    proxy.first_request("ACK");
    call.is_refused_by(busy, &call.arrives_at(busy), 486);
    let challenge = call.fails_with(401);
    for line in [&first, &second] {
        let (name, value) = line.split_once(": ").expect("a header line");
        assert_eq!(challenge.message.header(name), Some(value));
    }
    targets.summaries(&call)
}

/// A CANCEL of the caller ends all that rings.
fn fork_cancelled(targets: &Targets) -> Vec<Summary> {
    let call = targets.call();
    let seen = targets
        .callees
        .each_ref()
        .map(|callee| call.rings_at(callee));
    call.cancels();
    for (callee, seen) in targets.callees.iter().zip(&seen) {
        call.is_cancelled_at(callee, seen, 487);
    }
    call.fails_with(487);
    targets.summaries(&call)
}

#[test]
fn a_cancel_ends_all_branches() {
    let (host, targets) = Targets::host(FORK, 3);
    let summaries = fork_cancelled(&targets);
    assert_eq!(summaries[0].finals, [487]);
    assert_eq!(numbers(&summaries), [(1, 1); 3]);
    wait_until_idle(&host);
}

#[test]
fn the_first_to_answer_gets_the_call() {
    let (host, targets) = Targets::host(FORK, 3);
    let summaries = one_answers(&targets);
    assert_eq!(summaries[0].finals, [200]);
    assert_eq!(numbers(&summaries), [(0, 1), (0, 1), (1, 1)]);
    wait_until_idle(&host);
}

#[test]
fn a_603_ends_a_fork() {
    let (host, targets) = Targets::host(FORK, 3);
    let summaries = one_declines(&targets);
    assert_eq!(summaries[0].finals, [603]);
    assert_eq!(numbers(&summaries), [(0, 1), (0, 1), (1, 1)]);
    wait_until_idle(&host);
}

#[test]
fn the_challenges_of_all_targets_are_passed_on() {
    let (host, targets) = Targets::host(FORK, 3);
    let summaries = all_challenge(&targets);
    assert_eq!(summaries[0].finals, [401]);
    wait_until_idle(&host);
}

/// 15: both callees answer.
#[test]
fn a_second_200_is_passed_on_too() {
    let (host, targets) = Targets::host(FORK, 2);
    let call = targets.call();
    let [one, two, _] = &targets.callees;
    let seen = [one, two].map(|callee| call.arrives_at(callee));
    one.answer(&seen[0], 200);
    two.answer(&seen[1], 200);
    for n in 0..2 {
        let ok = call.caller.nth_response(n, "INVITE", 200);
        let mut own = call.invite.clone();
        own.branch = format!("{}-{n}", own.branch);
        targets.site.ack(&call.caller, &own, &ok);
    }
    for callee in [one, two] {
        callee.first_request("ACK");
    }
    wait_until_idle(&host);
    assert_eq!(host.metric("portcullis_late_successes_total", &[]), 1.0);
}

#[test]
fn peers_fork_as_kamailio_does() {
    compare(
        FORK,
        &[
            ("one_answers", one_answers),
            ("one_declines", one_declines),
            ("all_challenge", all_challenge),
            ("fork_cancelled", fork_cancelled),
        ],
    );
}
