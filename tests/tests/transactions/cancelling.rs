//! CANCEL.

use portcullis_testkit::peer::branch_of;
use portcullis_testkit::sip::Caller;
use portcullis_testkit::wait;

use crate::call::Call;
use crate::site::{Compared, Site, Summary, compare, wait_until_idle};

/// Messages that belong to no transaction.
const UNMATCHED: &str = "portcullis_unmatched_messages_total";

/// 5: a CANCEL before any provisional response waits for one (RFC 3261 §9.1).
pub(crate) fn early(site: &Site) -> Summary {
    let (call, callee) = Call::start(site);
    call.is_tried();
    call.cancels();
    let seen = callee.nth_request(2, "INVITE");
    assert!(
        callee.times_of("CANCEL").is_empty(),
        "the callee has not answered yet"
    );
    callee.answer(&seen, 100);
    let cancel = call.is_cancelled_at(&callee, &seen, 487);
    assert_eq!(branch_of(&cancel.message), branch_of(&seen.message));
    assert_eq!(cancel.message.headers("Via").len(), 1);
    assert_eq!(
        cancel.message.start_line(),
        format!("CANCEL {} SIP/2.0", call.invite.uri)
    );
    assert_eq!(
        cancel.message.header("To"),
        seen.message.header("To"),
        "as in the INVITE"
    );
    assert!(cancel.message.headers("Route").is_empty());
    let ack = callee.first_request("ACK");
    assert_eq!(branch_of(&ack.message), branch_of(&seen.message));
    call.fails_with(487);
    call.settled_summary(&callee)
}

/// 7: the callee has answered before the CANCEL arrives there.
pub(crate) fn crosses_200(site: &Site) -> Summary {
    let (call, callee) = Call::start(site);
    let seen = call.rings_at(&callee);
    call.cancels();
    let cancel = callee.first_request("CANCEL");
    let ok = call.is_answered_by(&callee, &seen);
    callee.answer(&cancel, 200);
    call.is_completed_with(&callee, &ok);
    call.summary(&callee)
}

/// 7: the 200 has passed the proxy before the CANCEL arrives there.
pub(crate) fn after_200(site: &Site) -> Summary {
    let (call, callee) = Call::start(site);
    let seen = call.arrives_at(&callee);
    callee.answer(&seen, 180);
    let ok = call.is_answered_by(&callee, &seen);
    call.cancels();
    call.is_completed_with(&callee, &ok);
    call.summary(&callee)
}

/// 8: copies of a CANCEL, and of the 487.
pub(crate) fn copied(site: &Site) -> Summary {
    let (call, callee) = Call::start(site);
    let seen = call.rings_at(&callee);
    for _ in 0..3 {
        call.cancels();
    }
    call.is_cancelled_at(&callee, &seen, 487);
    call.fails_with(487);
    // The proxy's ACK was lost.
    call.is_refused_by(&callee, &seen, 487);
    call.cancels();
    let summary = call.settled_summary(&callee);
    assert_eq!(callee.times_of("CANCEL").len(), 1);
    summary
}

/// An ordinary CANCEL.
pub(crate) fn cancelled(site: &Site) -> Summary {
    let (call, callee) = Call::start(site);
    let seen = call.rings_at(&callee);
    call.cancels();
    call.is_cancelled_at(&callee, &seen, 487);
    call.fails_with(487);
    call.settled_summary(&callee)
}

/// 9: a caller behind NAT learns its public address between INVITE and CANCEL.
fn another_sent_by(site: &Site) -> Summary {
    let (call, callee) = Call::start(site);
    let seen = call.rings_at(&callee);
    let cancel = call.invite.cancel();
    let cancel = cancel.sent_by(([203, 0, 113, 7], 5060).into());
    site.send(&call.caller, &cancel);
    call.caller.first_response("CANCEL", 200);
    call.is_cancelled_at(&callee, &seen, 487);
    call.fails_with(487);
    call.summary(&callee)
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
    let (call, callee) = Call::start(site);
    let seen = call.rings_at(&callee);
    // Another source with another sent-by knows branch, Call-ID and CSeq.
    let mut stranger = Caller::udp(host.lease().ip(66), host.sip());
    let cancel = call.invite.cancel().sent_by(stranger.local());
    stranger.send(&cancel.bytes());
    wait::until("the CANCEL is dropped", || {
        (host.metric(UNMATCHED, &["conflict"]) == 1.0).then_some(())
    });
    let ok = call.is_answered_by(&callee, &seen);
    call.is_completed_with(&callee, &ok);
    assert!(callee.times_of("CANCEL").is_empty());
}

#[test]
fn peers_cancel_as_with_kamailio() {
    compare(&[
        Compared::same("early", early),
        Compared::same("crosses_200", crosses_200),
        Compared::same("after_200", after_200),
        Compared::same("copied", copied),
        Compared::same("cancelled", cancelled),
    ]);
}
