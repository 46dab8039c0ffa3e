//! INVITE: retransmissions, answers, and ACK.

use portcullis_testkit::peer::branch_of;

use crate::site::{Site, Summary, compare, wait_until_idle};

/// 2: an INVITE and its copy.
pub(crate) fn twice(site: &Site) -> Summary {
    let (caller, callee, invite) = site.start("INVITE");
    site.send(&caller, &invite);
    let seen = callee.first_request("INVITE");
    callee.answer(&seen, 180);
    caller.first_response("INVITE", 180);
    site.send(&caller, &invite);
    callee.answer(&seen, 200);
    let ok = caller.first_response("INVITE", 200);
    site.send(&caller, &invite);
    site.ack(&caller, &invite, &ok);
    callee.first_request("ACK");
    site.hang_up(&caller, &callee, &invite, &ok);
    assert_eq!(callee.times_of("INVITE").len(), 1, "copies are absorbed");
    Summary::of(&caller, &callee, &invite)
}

/// 3: the ACK to a 200 is lost.
pub(crate) fn lost_ack(site: &Site) -> Summary {
    let (caller, callee, invite) = site.start("INVITE");
    let seen = callee.first_request("INVITE");
    callee.answer(&seen, 180);
    callee.answer(&seen, 200);
    caller.first_response("INVITE", 200);
    callee.answer(&seen, 200);
    let ok = caller.nth_response(1, "INVITE", 200);
    site.ack(&caller, &invite, &ok);
    callee.first_request("ACK");
    site.ack(&caller, &invite, &ok);
    callee.nth_request(1, "ACK");
    site.hang_up(&caller, &callee, &invite, &ok);
    for ack in callee.seen() {
        if ack.message.first_word() == "ACK" {
            assert_eq!(ack.message.headers("Via").len(), 2, "the caller's");
        }
    }
    Summary::of(&caller, &callee, &invite)
}

/// 19: a 503 is not passed on, nor is its Retry-After (RFC 3261 §16.7(6)).
pub(crate) fn unavailable(site: &Site) -> Summary {
    let (caller, callee, invite) = site.start("INVITE");
    let seen = callee.first_request("INVITE");
    callee.answer_with(&seen, 503, &["Retry-After: 30"]);
    let error = caller.first_response("INVITE", 500);
    assert_eq!(error.message.header("Retry-After"), None);
    site.ack_failure(&caller, &invite, &error);
    let ack = callee.first_request("ACK");
    assert_eq!(branch_of(&ack.message), branch_of(&seen.message));
    site.settle(&caller, &callee);
    Summary::of(&caller, &callee, &invite)
}

#[test]
fn copies_of_an_invite_are_absorbed() {
    let (host, site) = Site::host();
    twice(&site);
    let absorbed = host.metric(
        "portcullis_retransmissions_total",
        &["kind=\"request_received\""],
    );
    assert_eq!(absorbed, 3.0);
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
        ("twice", twice),
        ("lost_ack", lost_ack),
        ("unavailable", unavailable),
    ]);
}
