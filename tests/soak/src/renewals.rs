//! One host whose certificate is renewed again and again, by good files and by files that cannot be used in turn, beside handshakes and counted
//! requests over UDP and TLS. There are two rounds of the same length; the resources of the host are compared after each.

use std::fmt::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use portcullis_load::{HandshakePlan, Mode, Plan as Load, TlsVersion, Transport};
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::renewals::Renewals;
use serde::Serialize;

use crate::honest::{self, Counted, Traffic};
use crate::process::{Held, dropped_by_kernel, sample, settled};
use crate::report::{dropped, explain, verdict};
use crate::rounds::Rounds;
use crate::times::Times;
use crate::turns::{Books, Stop, StopOnDrop};

/// Parameters of a soak with certificates that are renewed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Number of renewals; every other one is by files that cannot be used.
    pub(crate) renewals: u64,
    /// Requests per second of the counted traffic, half of them over UDP and half of them over TLS.
    pub(crate) rate: u64,
    /// Handshakes per second, half of them with a resumed session.
    pub(crate) handshakes: u64,
    /// Whether times, rates and overload are judged: the machine has no other work.
    pub(crate) is_timed: bool,
}

/// Time from one renewal to the next.
const EACH: Duration = Duration::from_millis(50);

/// A section of the handshakes, after which their results are added up.
const PIECE: Duration = Duration::from_secs(5);

/// Largest increase of the host's resources from the first round to the second. A leak of the configuration of a certificate, some tens of KiB, is
/// seen after 500 renewals.
const MORE: Held = Held {
    memory_mib: 8,
    files: 12,
    maps: 32,
    threads: 4,
};

/// Last parts of addresses in the lease of the host: the first source of each kind of traffic.
const OVER_UDP: u8 = 100;
const OVER_TLS: u8 = 130;
const FULL: u8 = 160;
const RESUMING: u8 = 200;

/// Sources of each kind of handshakes, and connections in progress, at most.
const SOURCES: usize = 32;

/// Runs the soak.
///
/// # Errors
/// If it cannot be set up. Broken invariants are in the report.
pub(crate) fn run(plan: &Plan) -> Result<Report> {
    let begun = Instant::now();
    let site = Site::start();
    let pid = site.host.pid();
    let half = plan.renewals.div_ceil(2);
    let renewals = [0..half, half..plan.renewals];
    let mut both = Round::default();
    let rounds = Rounds::run(pid, settled(pid)?, |nth| {
        let one = round(&site, plan, renewals[nth].clone())?;
        let most = one.most;
        both.add(one);
        Ok(most)
    })?;
    let mut report = Report {
        good: plan.renewals.div_ceil(2),
        bad: plan.renewals / 2,
        reload_ms: Times::of(both.took),
        udp: Counted::of(&site.udp, &both.udp),
        tls: Counted::of(&site.tls, &both.tls),
        full: both.full,
        resuming: both.resuming,
        rounds,
        dropped_by_the_kernel: dropped_by_kernel(site.host.sip())?,
        seconds: begun.elapsed().as_secs(),
        broken: Vec::new(),
    };
    report.check(&site, plan);
    explain(&site.host, &report.broken);
    Ok(report)
}

/// A running host, its files, and the counts.
struct Site {
    host: Host,
    address: SocketAddr,
    files: Renewals,
    /// The counted traffic over UDP, and broken invariants.
    udp: Books,
    /// The counted traffic over TLS, where nothing may be lost.
    tls: Books,
}

impl Site {
    fn start() -> Self {
        let files = Renewals::new();
        let builder = Builder::new().workers(2);
        let address = builder.lease().addr(1, 5061);
        let host = files
            .serve(builder, address)
            .set("log", "level = \"error\"")
            // The machine of a short run is shared.
            .set("policy", "deadline = \"10s\"")
            .set("streams", "handshake = \"30s\"")
            .start();
        Self {
            host,
            address,
            files,
            udp: Books::default(),
            tls: Books::default(),
        }
    }
}

/// What a round came to, or both.
#[derive(Default)]
struct Round {
    /// How long the command took, for each renewal.
    took: Vec<Duration>,
    udp: Traffic,
    tls: Traffic,
    full: Handshakes,
    resuming: Handshakes,
    /// The largest resources of the host.
    most: Held,
}

impl Round {
    /// Adds a later round. The largest resources are those of either.
    fn add(&mut self, later: Self) {
        self.took.extend(later.took);
        self.udp = self.udp.and(&later.udp);
        self.tls = self.tls.and(&later.tls);
        self.full = std::mem::take(&mut self.full).and(later.full);
        self.resuming = std::mem::take(&mut self.resuming).and(later.resuming);
        self.most = self.most.max(later.most);
    }
}

fn round(site: &Site, plan: &Plan, renewals: std::ops::Range<u64>) -> Result<Round> {
    let stop = Stop::default();
    std::thread::scope(|threads| {
        let _all = StopOnDrop(&stop);
        let stop = &stop;
        let over_tls = plan.rate / 2;
        let udp = threads.spawn(move || requests(site, Transport::Udp, plan.rate - over_tls, stop));
        let tls = threads.spawn(move || requests(site, Transport::Tls, over_tls, stop));
        let rate = plan.handshakes / 2;
        let full =
            threads.spawn(move || handshakes(site, Kind::Full, plan.handshakes - rate, stop));
        let resuming = threads.spawn(move || handshakes(site, Kind::Resuming, rate, stop));
        let sampler = threads.spawn(move || sample(site.host.pid(), &site.udp, stop));
        let renewer = threads.spawn(move || renew(site, renewals));
        let took = renewer.join().ok();
        stop.stop();
        Ok(Round {
            took: took.context("the renewals came to no end")?,
            udp: udp.join().ok().context("requests over UDP have no end")??,
            tls: tls.join().ok().context("requests over TLS have no end")??,
            full: full.join().ok().context("full handshakes have no end")??,
            resuming: resuming.join().ok().context("handshakes have no end")??,
            most: sampler.join().ok().context("the host was not looked at")?,
        })
    })
}

/// Renews the certificate. Returns how long the command took each time.
fn renew(site: &Site, renewals: std::ops::Range<u64>) -> Vec<Duration> {
    let mut all = Vec::new();
    for nth in renewals {
        let begun = Instant::now();
        match site.files.renew(&site.host, site.address, nth) {
            Ok(took) => all.push(took),
            Err(what) => site.udp.broken(what),
        }
        std::thread::sleep(EACH.saturating_sub(begun.elapsed()));
    }
    all
}

/// Requests at a fixed rate, each of which must be answered once.
fn requests(site: &Site, transport: Transport, rate: u64, stop: &Stop) -> Result<Traffic> {
    let (target, first, books) = match transport {
        Transport::Udp => (site.host.sip(), OVER_UDP, &site.udp),
        Transport::Tcp | Transport::Tls | Transport::Ws | Transport::Wss => {
            (site.address, OVER_TLS, &site.tls)
        }
    };
    let mut load = Load::new(target, Mode::Reject, site.host.lease().ip(first));
    load.transport = transport;
    load.rate = Some(rate);
    honest::counted(load, books, stop)
}

/// Handshakes at a fixed rate, each of which must succeed.
fn handshakes(site: &Site, kind: Kind, rate: u64, stop: &Stop) -> Result<Handshakes> {
    let first = match kind {
        Kind::Full => FULL,
        Kind::Resuming => RESUMING,
    };
    let plan = HandshakePlan {
        target: site.address,
        transport: Transport::Tls,
        tls: TlsVersion::V13,
        resume: kind == Kind::Resuming,
        first_source: site.host.lease().ip(first),
        sources: SOURCES,
        at_once: at_once(rate),
        rate: Some(rate),
        warm_up: Duration::ZERO,
        length: PIECE,
        patience: Duration::from_secs(20),
        watch: Vec::new(),
    };
    let mut all = Handshakes::default();
    while !stop.is_stopped() {
        let report = portcullis_load::handshakes(&plan)?;
        let window = report.window;
        all = all.and(Handshakes {
            done: report.done,
            resumed: window.resumed,
            first: plan.at_once as u64,
            failed: report.failed,
            first_failure: report.first_failure,
            counted: window.full + window.resumed,
            seconds: window.seconds,
        });
    }
    Ok(all)
}

/// Connections in progress at this rate, at most. Each of them has a session of its own, so that a short run may not have too many.
fn at_once(rate: u64) -> usize {
    (rate as usize).clamp(1, SOURCES)
}

/// Which handshakes are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Each has the whole work.
    Full,
    /// Each but the first ones resumes a session.
    Resuming,
}

/// What handshakes of one kind came to.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Handshakes {
    /// Those that succeeded.
    pub(crate) done: u64,
    /// Those of them that resumed a session.
    pub(crate) resumed: u64,
    /// Those of all that may be the first ones of their client, and have no session to resume.
    pub(crate) first: u64,
    /// Those that failed.
    pub(crate) failed: u64,
    /// Why the first of them failed.
    pub(crate) first_failure: Option<String>,
    /// Those that succeeded within `seconds`.
    pub(crate) counted: u64,
    /// The time in which they were counted.
    pub(crate) seconds: f64,
}

impl Handshakes {
    /// Both, one after the other.
    fn and(self, later: Self) -> Self {
        Self {
            done: self.done + later.done,
            resumed: self.resumed + later.resumed,
            first: self.first + later.first,
            failed: self.failed + later.failed,
            first_failure: self.first_failure.or(later.first_failure),
            counted: self.counted + later.counted,
            seconds: self.seconds + later.seconds,
        }
    }

    fn per_second(&self) -> f64 {
        self.counted as f64 / self.seconds.max(1e-9)
    }
}

/// The whole report; its JSON form has the same fields.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Report {
    /// From the start of the host to its end.
    pub(crate) seconds: u64,
    /// Renewals by good files, each of which the host used at once.
    pub(crate) good: u64,
    /// Renewals by files that cannot be used, each of which the host refused.
    pub(crate) bad: u64,
    /// How long the command took; `None` without a renewal.
    pub(crate) reload_ms: Option<Times>,
    /// Requests over UDP.
    pub(crate) udp: Counted,
    /// Requests over open connections with TLS.
    pub(crate) tls: Counted,
    /// Handshakes with the whole work.
    pub(crate) full: Handshakes,
    /// Handshakes that resume sessions.
    pub(crate) resuming: Handshakes,
    /// Resources of the host.
    #[serde(flatten)]
    pub(crate) rounds: Rounds,
    /// Datagrams that the kernel dropped before the host saw them.
    pub(crate) dropped_by_the_kernel: u64,
    /// Invariants that did not hold.
    pub(crate) broken: Vec<String>,
}

impl Report {
    fn check(&mut self, site: &Site, plan: &Plan) {
        let Site { udp, tls, .. } = site;
        let turned_away = honest::turned_away(plan.is_timed);
        honest::check(udp, turned_away, self.dropped_by_the_kernel);
        honest::check(tls, turned_away, 0);
        if plan.is_timed {
            let over_tls = plan.rate / 2;
            self.udp
                .check_rate("requests over UDP", plan.rate - over_tls, udp);
            self.tls.check_rate("requests over TLS", over_tls, tls);
        }
        for complaint in site.host.complaints() {
            udp.broken(format!("the host complains: {complaint}"));
        }
        self.broken = [udp.all_broken(), tls.all_broken()].concat();
        self.check_handshakes();
        if plan.is_timed {
            self.check_rate_of_handshakes(plan.handshakes);
        }
        self.broken.extend(self.rounds.grown(MORE));
    }

    fn check_handshakes(&mut self) {
        let failed = self.full.failed + self.resuming.failed;
        if failed > 0 {
            let failures = [&self.full, &self.resuming].map(|kind| kind.first_failure.clone());
            let why: Vec<_> = failures.into_iter().flatten().collect();
            let text = format!("{failed} handshakes failed: {}", why.join("; "));
            self.broken.push(text);
        }
        // The keys of tickets outlive the certificates.
        let Handshakes {
            done,
            resumed,
            first,
            ..
        } = self.resuming;
        let with_session = done.saturating_sub(first);
        if resumed * 2 < with_session {
            let text = format!(
                "of {with_session} handshakes that have a session, only {resumed} resumed it"
            );
            self.broken.push(text);
        }
    }

    fn check_rate_of_handshakes(&mut self, intended: u64) {
        let made = self.full.per_second() + self.resuming.per_second();
        if made < intended as f64 * 0.9 {
            self.broken.push(format!(
                "{made:.0} handshakes a second were made, {intended} were intended: this machine is too slow or too busy"
            ));
        }
    }

    /// The report as text.
    pub(crate) fn text(&self) -> String {
        let mut text = format!(
            "\nSoak of {} s with {} renewals of a certificate, and {} by files that cannot be used\n\n",
            self.seconds, self.good, self.bad
        );
        for (what, counted) in [("UDP", &self.udp), ("TLS", &self.tls)] {
            let _infallible = writeln!(
                text,
                "  {:>12}  requests over {what}, {:.0} per second, p99 {:.1} ms; {} without an answer",
                counted.sent, counted.per_second, counted.p99_ms, counted.lost
            );
        }
        for (what, kind) in [
            ("full handshakes", &self.full),
            ("handshakes with a session", &self.resuming),
        ] {
            let _infallible = writeln!(
                text,
                "  {:>12}  {what}, {:.0} per second; {} resumed, {} failed",
                kind.done,
                kind.per_second(),
                kind.resumed,
                kind.failed
            );
        }
        text.push_str(&dropped(self.dropped_by_the_kernel));
        if let Some(Times { median, worst }) = self.reload_ms {
            let _infallible = writeln!(
                text,
                "\n  a renewal is done after {median:.1} ms (median), {worst:.1} ms (worst)"
            );
        }
        text.push_str(&self.rounds.table());
        text.push_str(&verdict(&self.broken));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handshakes(done: u64, resumed: u64, failed: u64) -> Handshakes {
        Handshakes {
            done,
            resumed,
            first: 50,
            failed,
            first_failure: (failed > 0).then(|| "no answer".to_owned()),
            counted: done,
            seconds: 10.0,
        }
    }

    #[test]
    fn handshakes_that_fail_or_are_too_few_are_told() {
        for (full, resuming, expected) in [
            (handshakes(500, 0, 0), handshakes(500, 450, 0), None),
            (
                handshakes(500, 0, 1),
                handshakes(500, 450, 0),
                Some("1 handshakes failed: no answer"),
            ),
            (
                handshakes(500, 0, 0),
                handshakes(500, 10, 0),
                Some("only 10 resumed it"),
            ),
            // Too few for a second handshake of any client.
            (
                handshakes(500, 0, 0),
                handshakes(50, 0, 0),
                Some("55 handshakes a second"),
            ),
            (
                handshakes(300, 0, 0),
                handshakes(500, 450, 0),
                Some("80 handshakes a second"),
            ),
        ] {
            let mut report = Report {
                full,
                resuming,
                ..Report::default()
            };
            report.check_handshakes();
            report.check_rate_of_handshakes(100);
            assert_eq!(report.broken.len(), usize::from(expected.is_some()));
            let told = report.broken.concat();
            assert!(told.contains(expected.unwrap_or_default()), "{told}");
        }
    }
}
