//! INVITE: retransmissions, answers, and ACK.

use portcullis_testkit::peer::branch_of;

use crate::call::Call;
use crate::site::{Compared, Site, Summary, compare, wait_until_idle};

/// 2: an INVITE and its copy.
pub(crate) fn twice(site: &Site) -> Summary {
    twice_counted(site).0
}

/// The same with the number of INVITEs at the callee.
fn twice_counted(site: &Site) -> (Summary, usize) {
    let (call, callee) = Call::start(site);
    call.repeat();
    let seen = call.rings_at(&callee);
    call.repeat();
    let ok = call.is_answered_by(&callee, &seen);
    call.repeat();
    call.is_completed_with(&callee, &ok);
    (call.summary(&callee), callee.times_of("INVITE").len())
}

/// 3: the ACK to a 200 is lost.
pub(crate) fn lost_ack(site: &Site) -> Summary {
    let (call, callee) = Call::start(site);
    let seen = call.arrives_at(&callee);
    callee.answer(&seen, 180);
    call.is_answered_by(&callee, &seen);
    callee.answer(&seen, 200);
    let ok = call.caller.nth_response(1, "INVITE", 200);
    call.is_confirmed_to(&callee, &ok);
    call.is_completed_with(&callee, &ok);
    for ack in callee.seen() {
        if ack.message.first_word() == "ACK" {
            assert_eq!(ack.message.headers("Via").len(), 2, "the caller's");
        }
    }
    call.summary(&callee)
}

/// 19: a 503 is not passed on, nor is its Retry-After (RFC 3261 §16.7(6)).
pub(crate) fn unavailable(site: &Site) -> Summary {
    let (call, callee) = Call::start(site);
    let seen = call.arrives_at(&callee);
    callee.answer_with(&seen, 503, &["Retry-After: 30"]);
    let error = call.fails_with(500);
    assert_eq!(error.message.header("Retry-After"), None);
    let ack = callee.first_request("ACK");
    assert_eq!(branch_of(&ack.message), branch_of(&seen.message));
    call.settled_summary(&callee)
}

#[test]
fn copies_of_an_invite_are_absorbed() {
    let (host, site) = Site::host();
    let (_, copies) = twice_counted(&site);
    let count = |kind: &str| host.metric("portcullis_retransmissions_total", &[kind]);
    assert_eq!(count("request_received"), 3.0);
    // On a slow machine, timer A of the host may fire.
    assert_eq!(copies as f64, 1.0 + count("request_sent"));
    wait_until_idle(&host);
}

#[test]
fn each_200_and_each_ack_to_it_passes() {
    let (host, site) = Site::host();
    let summary = lost_ack(&site);
    assert_eq!((summary.finals, summary.acks), (vec![200], 2));
    wait_until_idle(&host);
}

#[test]
fn a_503_becomes_a_500() {
    let (host, site) = Site::host();
    let summary = unavailable(&site);
    assert_eq!((summary.finals, summary.acks), (vec![500], 1));
    wait_until_idle(&host);
}

#[test]
fn peers_invite_as_with_kamailio() {
    compare(&[
        Compared::same("twice", twice),
        Compared::same("lost_ack", lost_ack),
        Compared::same("unavailable", unavailable),
    ]);
}
