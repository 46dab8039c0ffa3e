//! Requests other than INVITE.

use std::thread;
use std::time::Duration;

use portcullis_testkit::oracle::exceptions::{LINGERING, NON_INVITE_TRYING};
use portcullis_testkit::peer::{Peer, assert_gaps};

use crate::site::{Compared, Site, Summary, at_once, compare, wait_until_idle};

/// 20: an answer after 5 seconds. 100 comes when timer E of the caller has reached T2, not before (RFC 4320 §4.1).
fn slow(site: &Site) -> Summary {
    let summary = answered_after(site, |caller, callee| {
        let trying = caller.first_response("MESSAGE", 100);
        let first = callee.first_request("MESSAGE");
        assert!(
            trying.at - first.at >= Duration::from_millis(3_150),
            "100 after {:?}",
            trying.at - first.at
        );
        assert_eq!(callee.times_of("MESSAGE").len(), 4);
    });
    assert_eq!(summary.provisionals, [100]);
    assert_eq!(summary.finals, [200]);
    summary
}

/// The same with one more copy, and without a look at the 100.
fn slowly_answered(site: &Site) -> Summary {
    answered_after(site, |_, callee| drop(callee.nth_request(4, "MESSAGE")))
}

fn answered_after(site: &Site, wait: impl Fn(&Peer, &Peer)) -> Summary {
    let (caller, callee, message) = site.start("MESSAGE");
    let seen = callee.nth_request(3, "MESSAGE");
    assert_gaps(
        &callee.times_of("MESSAGE"),
        &[500, 1_000, 2_000].map(Duration::from_millis),
    );
    wait(&caller, &callee);
    let copies = callee.times_of("MESSAGE").len();
    callee.answer(&seen, 200);
    caller.first_response("MESSAGE", 200);
    site.send(&caller, &message);
    caller.nth_response(1, "MESSAGE", 200);
    assert_eq!(callee.times_of("MESSAGE").len(), copies);
    Summary::of(&caller, &callee, &message)
}

/// 22: a copy of a BYE that comes after 6 seconds, when Kamailio's `wt_timer` (5 s) has forgotten the first.
fn late_copy(site: &Site) -> Summary {
    let summary = late_copied(site);
    assert_eq!(summary.copies, Some(1), "the host answers the copy");
    summary
}

fn late_copied(site: &Site) -> Summary {
    let (caller, callee, bye) = site.start("BYE");
    callee.answer(&callee.first_request("BYE"), 200);
    caller.first_response("BYE", 200);
    // The caller's script, not a wait for something. Kamailio looks at its timers from time to time.
    thread::sleep(Duration::from_secs(6));
    site.send(&caller, &bye);
    site.settle(&caller, &callee);
    if callee.times_of("BYE").len() > 1 {
        callee.answer(&callee.nth_request(1, "BYE"), 200);
    }
    caller.nth_response(1, "BYE", 200);
    Summary {
        copies: Some(callee.times_of("BYE").len()),
        ..Summary::of(&caller, &callee, &bye)
    }
}

/// A failure passes as it is, and needs no ACK.
fn refused(site: &Site) -> Summary {
    let (caller, callee, message) = site.start("MESSAGE");
    callee.answer(&callee.first_request("MESSAGE"), 404);
    caller.first_response("MESSAGE", 404);
    site.settle(&caller, &callee);
    Summary::of(&caller, &callee, &message)
}

#[test]
fn other_requests_are_retransmitted_and_answered() {
    let (host, site) = Site::host();
    at_once(
        &site,
        &[
            ("slow", slow),
            ("late_copy", late_copy),
            ("refused", refused),
        ],
    );
    wait_until_idle(&host);
}

#[test]
fn peers_message_as_with_kamailio() {
    compare(&[
        Compared::same("refused", refused),
        // Kamailio sends the copy on.
        Compared::same("late_copy", late_copied).except(&LINGERING, |summary| {
            assert_eq!(summary.copies, Some(2));
            summary.copies = Some(1);
        }),
        Compared::same("slow", slowly_answered).except(&NON_INVITE_TRYING, |summary| {
            summary.provisionals.push(100);
        }),
    ]);
}
