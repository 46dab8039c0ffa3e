//! Scenarios that last for 32 seconds, run at the same time; and timer C.

use std::time::Duration;

use portcullis_testkit::host::Builder;
use portcullis_testkit::oracle::exceptions::{INVITE_INTERVALS, NON_INVITE_TIMEOUT};
use portcullis_testkit::peer::assert_gaps;
use portcullis_testkit::policy;

use crate::call::Call;
use crate::site::{
    Compared, Site, Summary, at_once, builder, compare, compare_between, wait_until_idle,
};

/// Intervals of timer A and, up to T2, of timer G and timer E (RFC 3261 §17).
const A: [u64; 6] = [500, 1_000, 2_000, 4_000, 8_000, 16_000];
const G: [u64; 10] = [
    500, 1_000, 2_000, 4_000, 4_000, 4_000, 4_000, 4_000, 4_000, 4_000,
];

/// 1: the callee is silent.
fn silent_on_time(site: &Site) -> Summary {
    silent(site, &A, 32)
}

fn silent_with_kamailio(site: &Site) -> Summary {
    silent(site, &G[..9], 30)
}

/// The INVITE comes once, and again after each of these intervals, until the proxy gives up.
fn silent(site: &Site, intervals: &[u64], seconds: u64) -> Summary {
    let (call, callee) = Call::start(site);
    call.is_tried();
    call.repeat();
    callee.nth_request(intervals.len(), "INVITE");
    assert_gaps(&callee.times_of("INVITE"), &millis(intervals));
    let timeout = call.fails_with(408);
    let first = callee.first_request("INVITE");
    assert!(timeout.at - first.at >= Duration::from_millis(900 * seconds));
    let summary = call.settled_summary(&callee);
    assert_eq!(callee.times_of("INVITE").len(), intervals.len() + 1);
    summary
}

fn millis(intervals: &[u64]) -> Vec<Duration> {
    let each = intervals.iter().copied();
    each.map(Duration::from_millis).collect()
}

/// 4: ACK and failure are lost for a while.
fn lost_failure(site: &Site) -> Summary {
    let (call, callee) = Call::start(site);
    let seen = call.arrives_at(&callee);
    call.is_refused_by(&callee, &seen, 486);
    call.is_refused_by(&callee, &seen, 486);
    call.caller.nth_response(3, "INVITE", 486);
    call.fails_with(486);
    call.settled_summary(&callee)
}

/// 4: the caller sends no ACK to a failure.
fn no_ack(site: &Site) -> Summary {
    let (call, callee) = Call::start(site);
    let seen = call.arrives_at(&callee);
    call.is_refused_by(&callee, &seen, 486);
    let ack = callee.first_request("ACK");
    assert_eq!(ack.message.headers("Via").len(), 1, "the proxy's own");
    call.is_refused_by(&callee, &seen, 486);
    call.caller.nth_response(9, "INVITE", 486);
    assert_gaps(
        &call.caller.times_of_responses("INVITE", 486),
        &millis(&G[..9]),
    );
    call.settled_summary(&callee)
}

/// 6: a CANCEL while the callee is silent.
fn cancelled_while_silent(site: &Site) -> Summary {
    let (call, callee) = Call::start(site);
    call.is_tried();
    call.cancels();
    callee.nth_request(4, "INVITE");
    call.fails_with(487);
    call.settled_summary(&callee)
}

/// 21: nobody answers a request other than INVITE: the caller's own timer F ends it (RFC 4320 §4.2).
fn silent_message(site: &Site) -> Summary {
    let (caller, callee, message) = site.start("MESSAGE");
    callee.nth_request(10, "MESSAGE");
    assert_gaps(&callee.times_of("MESSAGE"), &G.map(Duration::from_millis));
    Summary::of(&caller, &callee, &message)
}

fn silent_message_with_kamailio(site: &Site) -> Summary {
    let (caller, callee, message) = site.start("MESSAGE");
    caller.first_response("MESSAGE", 408);
    assert_gaps(&callee.times_of("MESSAGE"), &millis(&G[..8]));
    Summary::of(&caller, &callee, &message)
}

#[test]
fn timers_run_as_rfc_3261_says() {
    let (host, site) = Site::host();
    let summaries = at_once(
        &site,
        &[
            ("silent_on_time", silent_on_time),
            ("no_ack", no_ack),
            ("cancelled_while_silent", cancelled_while_silent),
            ("silent_message", silent_message),
        ],
    );
    let finals: Vec<_> = summaries.iter().map(|s| &s.finals[..]).collect();
    assert_eq!(finals, [&[408][..], &[486], &[487], &[]]);
    let acks: Vec<_> = summaries.iter().map(|s| s.acks).collect();
    assert_eq!(acks, [0, 2, 0, 0]);
    wait_until_idle(&host);
    let none = host.metric("portcullis_transactions_ended_total", &["code=\"none\""]);
    assert_eq!(none, 1.0, "the MESSAGE");
    assert_eq!(
        host.metric("portcullis_attempts_total", &["result=\"no_answer\""]),
        3.0
    );
}

/// 11: timer C.
#[test]
fn each_provisional_response_starts_timer_c_again() {
    let host = builder(Builder::new())
        .set("relay", "ring = \"3s\"")
        .start();
    let site = Site::of(&host);
    rings_out(&site);
    assert_eq!(
        host.metric("portcullis_attempts_total", &["result=\"rang_out\""]),
        1.0
    );
}

#[test]
fn peers_calls_ring_out_as_with_kamailio() {
    let host = builder(Builder::new())
        .set("relay", "ring = \"3s\"")
        .start();
    let (_kamailio, theirs) = Site::kamailio_with(host.lease(), &[], &["RING"]);
    let same = Compared::same("rings_out", rings_out);
    compare_between(&Site::of(&host), &theirs, &[same]);
}

fn rings_out(site: &Site) -> Summary {
    let (call, callee) = Call::start(site);
    let seen = call.arrives_at(&callee);
    // Each 180 is sent within the three seconds, and the last of them after them.
    let clock = site.caller();
    let ticks = site.callee();
    site.send(&clock, &clock.request("MESSAGE", &ticks.uri()));
    for copies in 0..4 {
        ticks.nth_request(copies, "MESSAGE");
        callee.answer(&seen, 180);
        call.caller.nth_response(copies, "INVITE", 180);
        assert!(callee.times_of("CANCEL").is_empty(), "it rings");
    }
    let last = call.caller.nth_response(3, "INVITE", 180).at;
    let cancel = call.is_cancelled_at(&callee, &seen, 487);
    assert!(cancel.at - last >= Duration::from_millis(2_700));
    call.fails_with(408);
    call.settled_summary(&callee)
}

/// 11: `setup-limit` ends what rings for ever.
#[test]
fn a_call_that_rings_without_end_is_ended() {
    let new = Builder::new();
    let network = new.lease().ip(0);
    let host = builder(new)
        .set("tenants.acme", "from-domains = [\"acme.example\"]")
        .set("tenants.acme", &format!("file = {:?}", policy("observe")))
        .set("tenants.acme", &format!("domains = [\"{network}/24:*\"]"))
        .set("tenants.acme", "setup-limit = \"2s\"")
        .start();
    let site = Site::of(&host);
    let (caller, callee) = (site.caller(), site.callee());
    let mut invite = caller.request("INVITE", &callee.uri());
    invite.from = "<sip:alice@acme.example>".into();
    let call = Call::of(&site, caller, invite);
    let seen = call.rings_at(&callee);
    let cancel = call.is_cancelled_at(&callee, &seen, 487);
    assert!(cancel.at - seen.at >= Duration::from_millis(1_800));
    call.fails_with(408);
    wait_until_idle(&host);
}

#[test]
fn peers_timers_as_with_kamailio() {
    compare(&[
        Compared::same("silent", silent_on_time)
            .with_kamailio(&INVITE_INTERVALS, silent_with_kamailio),
        Compared::same("lost_failure", lost_failure),
        Compared::same("cancelled_while_silent", cancelled_while_silent),
        Compared::same("silent_message", silent_message)
            .with_kamailio(&NON_INVITE_TIMEOUT, silent_message_with_kamailio)
            .except(&NON_INVITE_TIMEOUT, |summary| {
                assert_eq!(summary.finals, [408]);
                summary.finals.clear();
                // NON_INVITE_TRYING
                summary.provisionals.push(100);
            }),
    ]);
}
