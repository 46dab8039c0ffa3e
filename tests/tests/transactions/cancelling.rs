//! CANCEL.

use portcullis_testkit::peer::branch_of;
use portcullis_testkit::sip::Caller;
use portcullis_testkit::wait;

use crate::site::{Site, Summary, compare, wait_until_idle};

/// Messages that belong to no transaction.
const UNMATCHED: &str = "portcullis_unmatched_messages_total";

/// 5: a CANCEL before any provisional response waits for one (RFC 3261 §9.1).
pub(crate) fn early(site: &Site) -> Summary {
    let (caller, callee, invite) = site.start("INVITE");
    caller.first_response("INVITE", 100);
    site.send(&caller, &invite.cancel());
    caller.first_response("CANCEL", 200);
    let seen = callee.nth_request(2, "INVITE");
    assert!(
        callee.times_of("CANCEL").is_empty(),
        "the callee has not answered yet"
    );
    callee.answer(&seen, 100);
    let cancel = callee.first_request("CANCEL");
    assert_eq!(branch_of(&cancel.message), branch_of(&seen.message));
    assert_eq!(cancel.message.headers("Via").len(), 1);
    assert_eq!(
        cancel.message.start_line(),
        format!("CANCEL {} SIP/2.0", invite.uri)
    );
    assert_eq!(
        cancel.message.header("To"),
        seen.message.header("To"),
        "as in the INVITE"
    );
    assert!(cancel.message.headers("Route").is_empty());
    callee.answer(&cancel, 200);
    callee.answer(&seen, 487);
    let ack = callee.first_request("ACK");
    assert_eq!(branch_of(&ack.message), branch_of(&seen.message));
    let terminated = caller.first_response("INVITE", 487);
    site.ack_failure(&caller, &invite, &terminated);
    site.settle(&caller, &callee);
    Summary::of(&caller, &callee, &invite)
}

/// 7: the callee has answered before the CANCEL arrives there.
pub(crate) fn crosses_200(site: &Site) -> Summary {
    let (caller, callee, invite) = site.start("INVITE");
    let seen = callee.first_request("INVITE");
    callee.answer(&seen, 180);
    caller.first_response("INVITE", 180);
    site.send(&caller, &invite.cancel());
    caller.first_response("CANCEL", 200);
    let cancel = callee.first_request("CANCEL");
    callee.answer(&seen, 200);
    callee.answer(&cancel, 200);
    let ok = caller.first_response("INVITE", 200);
    site.ack(&caller, &invite, &ok);
    callee.first_request("ACK");
    site.hang_up(&caller, &callee, &invite, &ok);
    Summary::of(&caller, &callee, &invite)
}

/// 7: the 200 has passed the proxy before the CANCEL arrives there.
pub(crate) fn after_200(site: &Site) -> Summary {
    let (caller, callee, invite) = site.start("INVITE");
    let seen = callee.first_request("INVITE");
    callee.answer(&seen, 180);
    callee.answer(&seen, 200);
    let ok = caller.first_response("INVITE", 200);
    site.send(&caller, &invite.cancel());
    caller.first_response("CANCEL", 200);
    site.ack(&caller, &invite, &ok);
    callee.first_request("ACK");
    site.hang_up(&caller, &callee, &invite, &ok);
    Summary::of(&caller, &callee, &invite)
}

/// 8: copies of a CANCEL, and of the 487.
pub(crate) fn copied(site: &Site) -> Summary {
    let (caller, callee, invite) = site.start("INVITE");
    let seen = callee.first_request("INVITE");
    callee.answer(&seen, 180);
    caller.first_response("INVITE", 180);
    for n in 0..3 {
        site.send(&caller, &invite.cancel());
        caller.nth_response(n, "CANCEL", 200);
    }
    let cancel = callee.first_request("CANCEL");
    callee.answer(&cancel, 200);
    callee.answer(&seen, 487);
    let terminated = caller.first_response("INVITE", 487);
    site.ack_failure(&caller, &invite, &terminated);
    callee.first_request("ACK");
    // Our ACK was lost.
    callee.answer(&seen, 487);
    callee.nth_request(1, "ACK");
    site.send(&caller, &invite.cancel());
    caller.nth_response(3, "CANCEL", 200);
    site.settle(&caller, &callee);
    assert_eq!(callee.times_of("CANCEL").len(), 1);
    Summary::of(&caller, &callee, &invite)
}

/// An ordinary CANCEL.
pub(crate) fn cancelled(site: &Site) -> Summary {
    let (caller, callee, invite) = site.start("INVITE");
    let seen = callee.first_request("INVITE");
    callee.answer(&seen, 180);
    caller.first_response("INVITE", 180);
    site.send(&caller, &invite.cancel());
    caller.first_response("CANCEL", 200);
    callee.answer(&callee.first_request("CANCEL"), 200);
    callee.answer(&seen, 487);
    let terminated = caller.first_response("INVITE", 487);
    site.ack_failure(&caller, &invite, &terminated);
    callee.first_request("ACK");
    site.settle(&caller, &callee);
    Summary::of(&caller, &callee, &invite)
}

/// 9: a caller behind NAT learns its public address between INVITE and CANCEL.
fn another_sent_by(site: &Site) -> Summary {
    let (caller, callee, invite) = site.start("INVITE");
    let seen = callee.first_request("INVITE");
    callee.answer(&seen, 180);
    caller.first_response("INVITE", 180);
    let cancel = invite.cancel().sent_by(([203, 0, 113, 7], 5060).into());
    site.send(&caller, &cancel);
    caller.first_response("CANCEL", 200);
    callee.answer(&callee.first_request("CANCEL"), 200);
    callee.answer(&seen, 487);
    let terminated = caller.first_response("INVITE", 487);
    site.ack_failure(&caller, &invite, &terminated);
    callee.first_request("ACK");
    Summary::of(&caller, &callee, &invite)
}

#[test]
fn a_cancel_waits_for_a_provisional_response() {
    let (host, site) = Site::host();
    let summary = early(&site);
    assert_eq!(summary.finals, [487]);
    assert_eq!((summary.cancels, summary.acks), (1, 1));
    assert_eq!(
        host.metric("portcullis_transactions_cancelled_total", &[]),
        1.0
    );
    wait_until_idle(&host);
}

#[test]
fn a_call_that_was_answered_before_its_cancel_stands() {
    let (host, site) = Site::host();
    for (scenario, cancels) in [(crosses_200 as fn(&Site) -> Summary, 1), (after_200, 0)] {
        let summary = scenario(&site);
        assert_eq!(summary.finals, [200]);
        assert_eq!((summary.cancels, summary.acks), (cancels, 1));
    }
    wait_until_idle(&host);
}

#[test]
fn copies_of_a_cancel_are_answered_and_absorbed() {
    let (host, site) = Site::host();
    let summary = copied(&site);
    assert_eq!(summary.finals, [487]);
    assert_eq!((summary.cancels, summary.acks), (1, 2));
    wait_until_idle(&host);
}

#[test]
fn a_cancel_with_another_sent_by_from_the_same_source_cancels() {
    let (host, site) = Site::host();
    let summary = another_sent_by(&site);
    assert_eq!((summary.finals, summary.cancels), (vec![487], 1));
    wait_until_idle(&host);
}

#[test]
fn a_cancel_of_an_unknown_call_is_relayed_without_state() {
    let (host, site) = Site::host();
    // 10
    let (caller, callee, cancel) = site.start("CANCEL");
    let seen = callee.first_request("CANCEL");
    assert_eq!(seen.message.headers("Via").len(), 2);
    callee.answer(&seen, 481);
    caller.first_response("CANCEL", 481);
    assert_eq!(caller.codes("CANCEL"), [481]);
    assert_eq!(host.metric("portcullis_transactions_begun_total", &[]), 0.0);
    // A copy passes, too.
    site.send(&caller, &cancel);
    callee.nth_request(1, "CANCEL");
}

#[test]
fn a_cancel_of_a_stranger_does_not_cancel() {
    let (host, site) = Site::host();
    let (caller, callee, invite) = site.start("INVITE");
    let seen = callee.first_request("INVITE");
    callee.answer(&seen, 180);
    caller.first_response("INVITE", 180);
    // Another source with another sent-by knows branch, Call-ID and CSeq.
    let mut stranger = Caller::udp(host.lease().ip(66), host.sip());
    let cancel = invite.cancel().sent_by(stranger.local());
    stranger.send(&cancel.bytes());
    wait::until("the CANCEL is dropped", || {
        (host.metric(UNMATCHED, &["conflict"]) == 1.0).then_some(())
    });
    callee.answer(&seen, 200);
    let ok = caller.first_response("INVITE", 200);
    site.ack(&caller, &invite, &ok);
    callee.first_request("ACK");
    site.hang_up(&caller, &callee, &invite, &ok);
    assert!(callee.times_of("CANCEL").is_empty());
}

#[test]
fn peers_cancel_as_with_kamailio() {
    compare(&[
        ("early", early),
        ("crosses_200", crosses_200),
        ("after_200", after_200),
        ("copied", copied),
        ("cancelled", cancelled),
    ]);
}
