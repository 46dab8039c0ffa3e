//! Targets within Max-Breadth (RFC 5393).

use portcullis_testkit::lease::Lease;
use portcullis_testkit::oracle::exceptions::MAX_BREADTH;

use super::{BOB, FORK, Targets};
use crate::call::Call;
use crate::site::wait_until_idle;

/// 24: Max-Breadth leaves room for one target at a time (RFC 5393 §5.3).
#[test]
fn targets_have_their_turns_within_max_breadth() {
    let (host, targets) = Targets::host(FORK, 2);
    let call = call_with_breadth(&targets, 1);
    let [one, two, _] = &targets.callees;
    let seen = call.rings_at(one);
    assert_eq!(seen.message.header("Max-Breadth"), Some("1"));
    assert!(two.seen().is_empty(), "its turn has not come");
    call.is_refused_by(one, &seen, 486);
    let seen = call.arrives_at(two);
    assert_eq!(seen.message.header("Max-Breadth"), Some("1"));
    let ok = call.is_answered_by(two, &seen);
    call.is_confirmed_to(two, &ok);
    wait_until_idle(&host);
}

/// 24: nothing is left of Max-Breadth (RFC 5393 §5.3.3).
#[test]
fn a_request_whose_breadth_is_used_up_is_refused() {
    let (host, targets) = Targets::host(FORK, 2);
    let call = call_with_breadth(&targets, 0);
    call.fails_with(440);
    for callee in &targets.callees {
        assert!(callee.seen().is_empty());
    }
    assert_eq!(host.metric("portcullis_transactions_begun_total", &[]), 0.0);
}

/// [`MAX_BREADTH`], the exception.
#[test]
fn peers_kamailio_ignores_max_breadth() {
    let lease = Lease::new();
    let (_kamailio, targets) = Targets::kamailio(&lease, FORK);
    let call = call_with_breadth(&targets, 1);
    let breadth = MAX_BREADTH.name;
    for callee in &targets.callees {
        let seen = call.arrives_at(callee);
        assert_eq!(seen.message.header("Max-Breadth"), Some("1"), "{breadth}");
    }
    for callee in &targets.callees {
        call.is_refused_by(callee, &call.arrives_at(callee), 486);
    }
    call.fails_with(486);
}

fn call_with_breadth(targets: &Targets, breadth: u8) -> Call {
    let caller = targets.site.caller();
    let invite = caller.request("INVITE", BOB);
    let invite = invite.header(&format!("Max-Breadth: {breadth}"));
    Call::of(&targets.site, caller, invite)
}
