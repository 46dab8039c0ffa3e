//! Requests that must all be answered, once and correctly, whatever else happens.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use portcullis_load::{End, Histogram, Plan};
use portcullis_testkit::callee::Callee;
use portcullis_testkit::messages::Request;
use portcullis_testkit::peer::Peer;
use portcullis_testkit::sip::{Caller, Message, Transport};
use portcullis_testkit::wait;
use serde::Serialize;

use crate::site::{Site, at};
use crate::turns::{Books, Stop};

/// Pause between two requests of a caller that checks each response.
const PACE: Duration = Duration::from_millis(20);

/// Counter of honest requests that the host rejected with 503 because its worker was overloaded.
const TURNED_AWAY: &str = "honest requests turned away";

const ASKED: &str = "requests of the counted traffic";
const ANSWERED: &str = "answers to them";
const LOST: &str = "lost";

/// A section of the counted traffic, whose p99 is one value in the report.
const PIECE: Duration = Duration::from_secs(5);

/// Latencies of the callers that check each response.
pub(crate) type Latencies = Mutex<Histogram>;

/// The sums of counted traffic, for a report that has several kinds of it.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Counted {
    /// Requests.
    pub(crate) sent: u64,
    /// Those that were answered.
    pub(crate) answered: u64,
    /// Those that were not.
    pub(crate) lost: u64,
    /// Answers per second, from the first request to the last.
    pub(crate) per_second: f64,
    /// The median of the 99th percentiles of the pieces, in milliseconds.
    pub(crate) p99_ms: f64,
}

impl Counted {
    /// Those of these books, in which only this traffic is counted.
    pub(crate) fn of(books: &Books, traffic: &Traffic) -> Self {
        let counts = books.counts();
        let count = |what: &str| counts.get(what).copied().unwrap_or_default();
        let mut pieces = traffic.p99_ms.clone();
        pieces.sort_by(f64::total_cmp);
        Self {
            sent: count(ASKED),
            answered: count(ANSWERED),
            lost: count(LOST),
            per_second: count(ANSWERED) as f64 / traffic.took.as_secs_f64().max(1e-9),
            p99_ms: pieces.get(pieces.len() / 2).copied().unwrap_or_default(),
        }
    }

    /// Refuses traffic whose rate was lower than intended by a tenth: it would prove less than it claims.
    pub(crate) fn check_rate(&self, what: &str, intended: u64, books: &Books) {
        if self.per_second < intended as f64 * 0.9 {
            books.broken(format!(
                "{:.0} {what} a second were made, {intended} were intended: this machine is too slow or too busy",
                self.per_second
            ));
        }
    }
}

/// Result of the counted traffic.
#[derive(Clone, Debug, Default)]
pub(crate) struct Traffic {
    /// How long requests were sent.
    pub(crate) took: Duration,
    /// The p99 of each section in milliseconds.
    pub(crate) p99_ms: Vec<f64>,
}

impl Traffic {
    /// Both, one after the other.
    pub(crate) fn and(&self, later: &Self) -> Self {
        Self {
            took: self.took + later.took,
            p99_ms: [&self.p99_ms[..], &later.p99_ms].concat(),
        }
    }
}

/// Sends the requests of a plan, each once, until the phase ends.
pub(crate) fn counted(mut plan: Plan, books: &Books, stop: &Stop) -> Result<Traffic> {
    let mut traffic = Traffic::default();
    plan.end = End::After(PIECE);
    // Longer than any delay, except for a policy or a worker that hangs.
    plan.patience = Duration::from_secs(20);
    while !stop.is_stopped() {
        let report = portcullis_load::run(&plan)?;
        traffic.took += Duration::from_secs_f64(report.window.seconds);
        books.add(ASKED, report.sent);
        books.add(ANSWERED, report.answered);
        books.add(LOST, report.lost);
        let turned_away = report.codes.get(&503).copied().unwrap_or_default();
        books.add(TURNED_AWAY, turned_away);
        if report.unexpected - turned_away + report.repeated + report.foreign > 0 {
            let fault = report.fault().unwrap_or_default();
            books.broken(format!("counted traffic: {fault}"));
        }
        traffic.p99_ms.push(report.window.latency.p99_us / 1000.0);
    }
    Ok(traffic)
}

/// Requests of a thousand that may be rejected for overload: none on a machine without other work, otherwise any.
pub(crate) fn turned_away(is_timed: bool) -> u64 {
    if is_timed { 0 } else { 1000 }
}

/// Checks the result of the counted traffic: up to `turned_away` of a thousand requests may have been rejected for overload, and as many may be
/// lost as the kernel dropped datagrams.
pub(crate) fn check(books: &Books, turned_away: u64, dropped_by_the_kernel: u64) {
    let counts = books.counts();
    let count = |what: &str| counts.get(what).copied().unwrap_or_default();
    if count(TURNED_AWAY) * 1000 > count(ASKED) * turned_away {
        books.broken(format!(
            "{} honest requests were turned away; {turned_away} of a thousand may be",
            count(TURNED_AWAY)
        ));
    }
    if count(LOST) > dropped_by_the_kernel {
        books.broken(format!(
            "{} requests of the counted traffic have no answer, but the kernel dropped {dropped_by_the_kernel} datagrams",
            count(LOST)
        ));
    }
}

/// Repeatedly sends requests to the tenant whose policy is pushed. Every response must be that of a complete generation, and generations must
/// not go backwards.
pub(crate) fn watch_generations(
    site: &Site,
    mut caller: Caller,
    stop: &Stop,
    latencies: &Latencies,
) {
    let mut last = 0;
    while stop.pause(PACE) {
        let request = caller.request("MESSAGE", "sip:bob@acme.example");
        let (answer, calm) = site
            .disruptions
            .during(|| timed(latencies, || caller.try_ask(&request)));
        let Some(answer) = answer else {
            // If descriptors are short, the longest idle connection is closed, and its client reconnects.
            if calm || caller.transport() == Transport::Udp {
                site.books.broken("a tenant's request has no answer".into());
                return;
            }
            caller = site.host.tcp(at::WATCHER);
            site.books
                .count("connections of honest clients that gave way");
            continue;
        };
        if answer.code() == 503 {
            site.books.count(TURNED_AWAY);
            continue;
        }
        let line = answer.start_line();
        let generation = line.strip_prefix("SIP/2.0 480 generation ");
        match generation.and_then(|number| number.parse::<u64>().ok()) {
            Some(generation) if generation >= last => last = generation,
            _ => site
                .books
                .broken(format!("{line:?} after generation {last}")),
        }
        site.books
            .count("requests of a tenant whose policy is pushed");
    }
    if !caller.hears_nothing() {
        site.books
            .broken("a tenant's request was answered twice".into());
    }
}

/// Makes complete calls: INVITE, ACK and BYE each reach the callee once, and INVITE and BYE are answered once.
pub(crate) fn call(site: &Site, stop: &Stop, latencies: &Latencies) {
    let local = site.host.lease().addr(at::CALLER, 5060);
    let mut caller = Caller::udp_from(local, site.host.sip());
    let callee = site.callee.lock().unwrap_or_else(PoisonError::into_inner);
    while stop.pause(PACE) {
        let mut invite = caller.request("INVITE", "sip:bob@carol.example");
        invite.from = "<sip:alice@carol.example>".into();
        let answer = timed(latencies, || caller.ask(&invite));
        if answer.code() == 503 {
            site.books.count(TURNED_AWAY);
            continue;
        }
        if answer.code() != 200 {
            site.books
                .broken(format!("a call got {:?}", answer.start_line()));
            continue;
        }
        expect(site, &callee, "INVITE", &invite.call_id);
        caller.send(&in_dialog(&invite, &answer, "ACK").bytes());
        expect(site, &callee, "ACK", &invite.call_id);
        let bye = timed(latencies, || {
            caller.ask(&in_dialog(&invite, &answer, "BYE"))
        });
        if bye.code() != 200 {
            site.books
                .broken(format!("a BYE got {:?}", bye.start_line()));
            continue;
        }
        expect(site, &callee, "BYE", &invite.call_id);
        site.books.count("calls");
    }
    if !caller.hears_nothing() || !callee.saw_nothing_more() {
        site.books.broken("a message of a call came twice".into());
    }
}

/// Makes calls that ring until the caller cancels them. Each ends with a 487 for the caller and an ACK for the callee.
pub(crate) fn cancel(site: &Site, stop: &Stop) {
    let proxy = site.host.sip();
    let [caller, callee] =
        [at::CALLER, at::CALLEE].map(|peer| Peer::udp(site.host.lease().ip(peer)));
    while stop.pause(PACE) {
        let mut invite = caller.request("INVITE", &callee.uri());
        invite.from = "<sip:alice@carol.example>".into();
        caller.send(&invite.bytes(), proxy);
        let rings = wait::until("a call rings or is rejected", || {
            let seen = caller.seen().into_iter().find(|s| s.message.code() > 100);
            seen.map(Err)
                .or_else(|| callee.seen().into_iter().next().map(Ok))
        });
        match rings {
            Ok(seen) => {
                callee.answer(&seen, 180);
                caller.first_response("INVITE", 180);
                caller.send(&invite.cancel().bytes(), proxy);
                callee.answer(&callee.first_request("CANCEL"), 200);
                callee.answer(&seen, 487);
                callee.first_request("ACK");
                caller.first_response("CANCEL", 200);
                let terminated = caller.first_response("INVITE", 487);
                caller.send(&invite.ack_for(&terminated.message).bytes(), proxy);
                site.books.count("calls cancelled");
            }
            Err(rejected) => {
                caller.send(&invite.ack_for(&rejected.message).bytes(), proxy);
                match rejected.message.code() {
                    503 => site.books.count(TURNED_AWAY),
                    _ => site.books.broken(format!(
                        "a call to be cancelled got {:?}",
                        rejected.message.start_line()
                    )),
                }
            }
        }
        caller.forget();
        callee.forget();
    }
}

fn expect(site: &Site, callee: &Callee, method: &str, call_id: &str) {
    let seen = callee.next();
    if (seen.first_word(), seen.header("Call-ID")) != (method, Some(call_id)) {
        let line = seen.start_line();
        site.books.broken(format!(
            "the callee saw {line:?} where {method} of {call_id} was due"
        ));
    }
}

/// Returns a further request of the caller in the dialog established by this response (RFC 3261 §12.2.1.1).
fn in_dialog(invite: &Request, answer: &Message, method: &str) -> Request {
    static BRANCHES: AtomicU64 = AtomicU64::new(0);
    let mut request = invite.clone();
    request.method = method.into();
    request.branch = format!("z9hG4bK-soak-{}", BRANCHES.fetch_add(1, Ordering::Relaxed));
    request.to = answer.header("To").unwrap_or_default().into();
    if let Some(contact) = answer.header("Contact") {
        request.uri = contact.trim_matches(['<', '>']).into();
    }
    for route in answer.headers("Record-Route").into_iter().rev() {
        request = request.header(&format!("Route: {route}"));
    }
    request
}

fn timed<T>(latencies: &Latencies, ask: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let answer = ask();
    let nanoseconds = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
    if let Ok(mut latencies) = latencies.lock() {
        latencies.record(nanoseconds);
    }
    answer
}
