//! One host whose next hop is a name, while the address in the zone changes again and again under counted requests: each change is followed within
//! the TTL, and no request is lost.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use portcullis_load::{Mode, Plan as Load, Sink};
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::zone::{TTL, ZONE, Zone};
use portcullis_testkit::{policy, wait};
use serde::{Serialize, Serializer};

use crate::honest::{self, Counted, Traffic};
use crate::process::{Held, dropped_by_kernel, settled, table};
use crate::report::{dropped, explain, verdict};
use crate::times::{Times, milliseconds};
use crate::turns::{Books, Stop, StopOnDrop};

/// Parameters of a soak with a zone that changes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Number of changes.
    pub(crate) changes: u64,
    /// Requests per second of the counted traffic.
    pub(crate) rate: u64,
    /// Whether times, rates and overload are judged: the machine has no other work.
    pub(crate) is_timed: bool,
}

/// `timeout` of `[resolver]`: a change is in use after the TTL and the time of a query, which this limits.
const QUERY: Duration = Duration::from_secs(1);

/// The same on a machine that has other work.
const SLOW_QUERY: Duration = Duration::from_secs(30);

/// The longest time until a change is in use.
const FOLLOWED: Duration = Duration::from_secs(TTL).saturating_add(QUERY);

/// How long the old address is watched after that, before the next change.
const WATCHED: Duration = Duration::from_secs(1);

/// Time limit for the first request to the new address, and for the last one to the old address, in a host that does not follow.
const GIVEN_UP: Duration = wait::PATIENCE;

/// Requests to the new address without one to the old address, after which the change is over.
const OVER: u64 = 20;

/// Pause of the callees when no request waits.
const REST: Duration = Duration::from_micros(200);

/// Last parts of addresses in the lease of the host.
const CALLEES: [u8; 2] = [3, 4];
const NAME_SERVER: u8 = 53;
const TRAFFIC: u8 = 100;

/// Runs the soak.
///
/// # Errors
/// If it cannot be set up. Broken invariants are in the report.
pub(crate) fn run(plan: &Plan) -> Result<Report> {
    let begun = Instant::now();
    let (site, sinks) = Site::start(plan)?;
    let started = settled(site.host.pid())?;
    let (traffic, changes) = under_load(&site, sinks, plan)?;
    let mut report = Report {
        seconds: begun.elapsed().as_secs(),
        ttl_seconds: TTL,
        first_ms: Times::of(changes.iter().map(|change| change.first)),
        last_ms: Times::of(changes.iter().map(|change| change.last)),
        changes,
        requests: Counted::of(&site.books, &traffic),
        started,
        ended: settled(site.host.pid())?,
        dropped_by_the_kernel: dropped_by_kernel(site.host.sip())?,
        broken: Vec::new(),
    };
    report.check(&site, plan);
    explain(&site.host, &report.broken);
    Ok(report)
}

/// A running host, its name server, and its callees.
struct Site {
    host: Host,
    zone: Zone,
    callees: [IpAddr; 2],
    /// What each callee has received.
    received: [Mutex<Received>; 2],
    books: Books,
}

/// The requests that a callee has received.
#[derive(Clone, Copy, Debug, Default)]
struct Received {
    count: u64,
    last: Option<Instant>,
}

impl Site {
    /// Starts all of them. The callees receive before the host relays.
    fn start(plan: &Plan) -> Result<(Self, Vec<Sink>)> {
        let builder = Builder::new();
        let callees = CALLEES.map(|callee| builder.lease().ip(callee));
        let server = builder.lease().addr(NAME_SERVER, 5300);
        let mut sinks = Vec::new();
        for ip in callees {
            sinks.push(Sink::bind(SocketAddr::new(ip, 5070)).context("a callee")?);
        }
        let query = if plan.is_timed { QUERY } else { SLOW_QUERY };
        let zone = Zone::start(server, &format!("@ A {}\n", callees[0]));
        let host = builder
            .workers(2)
            .policy(policy("observe"))
            .set("log", "level = \"warn,policy=off\"")
            // The machine of a short run is shared.
            .set("policy", "deadline = \"10s\"")
            .set("relay", &format!("next-hop = \"sip:{ZONE}:5070\""))
            // A callee that has no core for some seconds is no failure of the host.
            .set("relay", "no-answer = \"20s\"")
            .set("resolver", &format!("servers = [\"{server}\"]"))
            .set("resolver", "hosts-file = false")
            .set("resolver", "loopback = true")
            .set("resolver", &format!("timeout = \"{}s\"", query.as_secs()))
            .start();
        let site = Self {
            host,
            zone,
            callees,
            received: Default::default(),
            books: Books::default(),
        };
        Ok((site, sinks))
    }

    fn received(&self, callee: usize) -> Received {
        *self.received[callee]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the changes beside the counted traffic.
fn under_load(site: &Site, sinks: Vec<Sink>, plan: &Plan) -> Result<(Traffic, Vec<Change>)> {
    let (stop, over) = (Stop::default(), Stop::default());
    std::thread::scope(|threads| {
        let (_stopped, _over) = (StopOnDrop(&stop), StopOnDrop(&over));
        let (stop, over) = (&stop, &over);
        let callees = threads.spawn(move || serve(site, sinks, over));
        let mut load = Load::new(
            site.host.sip(),
            Mode::Message,
            site.host.lease().ip(TRAFFIC),
        );
        load.rate = Some(plan.rate);
        let traffic = threads.spawn(move || honest::counted(load, &site.books, stop));
        let changer = threads.spawn(move || change(site, plan.changes));
        let changes = changer.join().ok();
        stop.stop();
        let traffic = traffic.join().ok().context("the traffic has no end")??;
        over.stop();
        callees.join().ok().context("the callees have no end")??;
        Ok((traffic, changes.context("the changes came to no end")?))
    })
}

/// Answers requests until the end, and notes when each callee received the last one.
fn serve(site: &Site, mut sinks: Vec<Sink>, over: &Stop) -> Result<()> {
    while !over.is_stopped() {
        let mut count = 0;
        for (sink, received) in sinks.iter_mut().zip(&site.received) {
            if sink.turn()? > 0 {
                let mut received = received.lock().unwrap_or_else(PoisonError::into_inner);
                received.last = Some(Instant::now());
                count += sink.requests() - received.count;
                received.count = sink.requests();
            }
        }
        if count == 0 {
            std::thread::sleep(REST);
        }
    }
    Ok(())
}

/// A change that the host has followed. Times are from the moment at which the name server answers with the new address.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Change {
    /// The first request to the new address, in milliseconds.
    #[serde(serialize_with = "in_milliseconds")]
    pub(crate) first: Duration,
    /// The last request to the old address, in milliseconds; 0 if none came after the change.
    #[serde(serialize_with = "in_milliseconds")]
    pub(crate) last: Duration,
}

fn in_milliseconds<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(milliseconds(*time))
}

/// Makes the changes, one after the other.
fn change(site: &Site, changes: u64) -> Vec<Change> {
    let mut all = Vec::new();
    wait::until("requests reach the first address", || {
        (site.received(0).count > 0).then_some(())
    });
    for nth in 1..=changes {
        let (new, old) = ((nth % 2) as usize, ((nth + 1) % 2) as usize);
        let before = site.received(new).count;
        site.zone.replace("@", "A", &site.callees[new].to_string());
        let changed = Instant::now();
        let first = wait::within(GIVEN_UP, || {
            (site.received(new).count > before).then(|| changed.elapsed())
        });
        let Some(first) = first else {
            site.books.broken(format!(
                "a change of the zone is not followed within {GIVEN_UP:?}"
            ));
            return all;
        };
        // Until the old address may not be in use any more, and longer.
        let rest = (FOLLOWED + WATCHED).saturating_sub(changed.elapsed());
        std::thread::sleep(rest);
        if !is_left(site, old, new) {
            site.books.broken(format!(
                "the old address still gets requests {GIVEN_UP:?} after a change of the zone"
            ));
            return all;
        }
        let last = site.received(old).last.map_or(Duration::ZERO, |last| {
            last.saturating_duration_since(changed)
        });
        all.push(Change { first, last });
    }
    all
}

/// Waits until only the new address gets requests. Returns whether that comes about.
fn is_left(site: &Site, old: usize, new: usize) -> bool {
    let counts = || (site.received(old).count, site.received(new).count);
    let mut last = counts();
    let left = wait::within(GIVEN_UP, || {
        let now = counts();
        if now.0 > last.0 {
            last = now;
        }
        (now.1 >= last.1 + OVER).then_some(())
    });
    left.is_some()
}

/// The whole report; its JSON form has the same fields.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Report {
    /// From the start of the host to its end.
    pub(crate) seconds: u64,
    /// The TTL of the record that changes.
    pub(crate) ttl_seconds: u64,
    /// Time from a change to the first request to the new address; `None` without a change.
    pub(crate) first_ms: Option<Times>,
    /// Time from a change to the last request to the old address; `None` without a change.
    pub(crate) last_ms: Option<Times>,
    /// Each change.
    pub(crate) changes: Vec<Change>,
    /// The counted traffic.
    pub(crate) requests: Counted,
    /// Resources of the host after its start.
    pub(crate) started: Held,
    /// The same at the end, with the transactions that absorb retransmissions.
    pub(crate) ended: Held,
    /// Datagrams that the kernel dropped before the host saw them.
    pub(crate) dropped_by_the_kernel: u64,
    /// Invariants that did not hold.
    pub(crate) broken: Vec<String>,
}

impl Report {
    fn check(&mut self, site: &Site, plan: &Plan) {
        let books = &site.books;
        let turned_away = honest::turned_away(plan.is_timed);
        honest::check(books, turned_away, self.dropped_by_the_kernel);
        if plan.is_timed {
            self.requests.check_rate("requests", plan.rate, books);
        }
        // Either of them means that the name server did not answer.
        for event in ["name_stale", "name_unresolved"] {
            if site.host.log().contains(event) {
                books.broken(format!("the host logs {event}"));
            }
        }
        self.broken = books.all_broken();
        self.check_changes(plan.changes);
        if plan.is_timed {
            self.check_times();
        }
    }

    fn check_changes(&mut self, intended: u64) {
        let made = self.changes.len() as u64;
        if made < intended {
            let text = format!("{made} changes of {intended} were followed");
            self.broken.push(text);
        }
    }

    fn check_times(&mut self) {
        for (nth, change) in self.changes.iter().enumerate() {
            for (what, time) in [
                ("first request to the new address", change.first),
                ("last request to the old address", change.last),
            ] {
                if time > FOLLOWED {
                    let (time, most) = (milliseconds(time), milliseconds(FOLLOWED));
                    self.broken.push(format!(
                        "change {nth}: the {what} came after {time:.0} ms; {most:.0} were expected at most, the TTL and a query"
                    ));
                }
            }
        }
    }

    /// The report as text.
    pub(crate) fn text(&self) -> String {
        let Counted {
            sent,
            per_second,
            p99_ms,
            lost,
            ..
        } = self.requests;
        let mut text = format!(
            "\nSoak of {} s with {} changes of a zone, TTL {} s\n\n  {sent:>12}  requests, {per_second:.0} per second, p99 {p99_ms:.1} ms; {lost} without an \
             answer\n{}\n",
            self.seconds,
            self.changes.len(),
            self.ttl_seconds,
            dropped(self.dropped_by_the_kernel)
        );
        for (what, times) in [
            ("first request to the new address", self.first_ms),
            ("last request to the old address", self.last_ms),
        ] {
            if let Some(Times { median, worst }) = times {
                let _infallible = writeln!(
                    text,
                    "  after a change, the {what} comes after {median:.0} ms (median), {worst:.0} ms (worst)"
                );
            }
        }
        text.push_str(&table(&[("started", self.started), ("ended", self.ended)]));
        text.push_str(&verdict(&self.broken));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_is_not_followed_in_time_is_told() {
        let late = FOLLOWED + Duration::from_millis(1);
        let mut report = Report {
            changes: vec![
                Change {
                    first: FOLLOWED,
                    last: Duration::ZERO,
                },
                Change {
                    first: Duration::from_millis(10),
                    last: late,
                },
            ],
            ..Report::default()
        };
        report.check_changes(3);
        report.check_times();
        let [few, too_late] = &report.broken[..] else {
            panic!("{:?}", report.broken);
        };
        assert!(too_late.starts_with("change 1: the last request to the old address"));
        assert!(few.starts_with("2 changes of 3"));
        let json = serde_json::to_value(report.changes[1]).expect("a change is JSON");
        assert_eq!(json["first"], 10.0);
    }
}
