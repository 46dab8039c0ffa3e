//! Several hosts that hold one limit together through Redis: how many requests of one source they admit beyond what one host would, compared with the
//! bound of docs/fleet.md, also while Redis is killed.

use std::fmt::Write;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::lease::Lease;
use portcullis_testkit::redis::Redis;
use portcullis_testkit::sip::Caller;
use portcullis_testkit::{policy, wait};
use serde::Serialize;

use crate::report::verdict;

/// Parameters of a soak of shared counters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Number of hosts.
    pub(crate) hosts: u32,
    /// Length without faults, and between two of them.
    pub(crate) length: Duration,
    /// Requests per second that the fleet may admit.
    pub(crate) per_second: u32,
    /// Requests that it may admit at once.
    pub(crate) burst: u32,
    /// The time between two exchanges.
    pub(crate) interval: Duration,
    /// How often Redis is killed.
    pub(crate) kills: u32,
    /// Whether times are judged: the machine has no other work.
    pub(crate) is_timed: bool,
}

/// Requests that the source sends to each host, as a multiple of what the fleet may admit.
const EXCESS: u32 = 3;

/// How long Redis stays away.
const AWAY: Duration = Duration::from_secs(3);

/// How much longer than intended an exchange may take on a machine that has other work.
const SLOWNESS: u32 = 20;

/// Runs the soak.
///
/// # Errors
/// If it cannot be set up. Broken invariants are in the report.
pub(crate) fn run(plan: &Plan) -> Result<Report> {
    let place = Lease::new();
    let mut redis = Redis::start(place.addr(6, 6379));
    let hosts: Vec<_> = (0..plan.hosts).map(|_| host(&redis, plan)).collect();
    wait_for_hosts(&hosts, plan.hosts.into());
    let source = place.ip(20);
    let tally = Tally::default();
    let is_over = AtomicBool::new(false);
    let begun = Instant::now();
    thread::scope(|scope| {
        for host in &hosts {
            scope.spawn(|| ask(host, source, plan, &tally, &is_over));
        }
        let _over = Over(&is_over);
        thread::sleep(plan.length);
        for _ in 0..plan.kills {
            redis.kill();
            wait_for_hosts(&hosts, 0.0);
            thread::sleep(AWAY);
            redis.restart();
            wait_for_hosts(&hosts, plan.hosts.into());
            thread::sleep(plan.length);
        }
    });
    let took = begun.elapsed();
    let failures = hosts
        .iter()
        .map(|host| host.metric("portcullis_exchange_failures_total", &[]));
    let mut report = Report {
        hosts: plan.hosts,
        per_second: plan.per_second,
        burst: plan.burst,
        interval_ms: plan.interval.as_millis(),
        kills: plan.kills,
        seconds: took.as_secs_f64(),
        asked: tally.asked.load(Ordering::Relaxed),
        admitted: tally.admitted.load(Ordering::Relaxed),
        single: f64::from(plan.burst) + f64::from(plan.per_second) * took.as_secs_f64(),
        failed_exchanges: failures.sum::<f64>(),
        ..Report::default()
    };
    report.judge(plan);
    Ok(report)
}

fn host(redis: &Redis, plan: &Plan) -> Host {
    Builder::new()
        .policy(policy("rate-guard"))
        .set("policy", "deadline = \"10s\"")
        .set("policy", "fleet-counters = [\"127.\"]")
        .set(
            "policy.settings",
            &format!("per-second = {}.0", plan.per_second),
        )
        .set("policy.settings", &format!("burst = {}", plan.burst))
        .set("policy.settings", "flood = 1000000000")
        .set(
            "fleet.redis",
            &format!("url = \"redis://{}\"", redis.addr()),
        )
        .set(
            "fleet.redis",
            &format!("interval = \"{}ms\"", plan.interval.as_millis()),
        )
        .start()
}

fn wait_for_hosts(hosts: &[Host], number: f64) {
    for host in hosts {
        wait::until(&format!("{number} hosts count together"), || {
            (host.metric("portcullis_exchange_hosts", &[]) == number).then_some(())
        });
    }
}

#[derive(Debug, Default)]
struct Tally {
    asked: AtomicU64,
    admitted: AtomicU64,
}

/// Ends the requests, also if something fails meanwhile.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Sends requests of one source to one host, above what all hosts together may admit.
fn ask(host: &Host, source: IpAddr, plan: &Plan, tally: &Tally, is_over: &AtomicBool) {
    let mut caller = Caller::udp(source, host.sip());
    let pause = Duration::from_secs(1) / (plan.per_second * EXCESS).max(1);
    while !is_over.load(Ordering::Relaxed) {
        let request = caller.request("MESSAGE", "sip:bob@example.com");
        let code = caller.ask(&request).code();
        tally.asked.fetch_add(1, Ordering::Relaxed);
        // What the limit lets pass meets no policy that admits it.
        if code == 403 {
            tally.admitted.fetch_add(1, Ordering::Relaxed);
        }
        thread::sleep(pause);
    }
}

/// What was measured.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Report {
    hosts: u32,
    per_second: u32,
    burst: u32,
    interval_ms: u128,
    kills: u32,
    seconds: f64,
    /// Requests that were sent.
    asked: u64,
    /// Requests within the limit, by what the hosts answered.
    admitted: u64,
    /// What one host would have admitted in this time.
    single: f64,
    /// The difference: what the fleet has admitted too much.
    error: f64,
    /// The most that it may be.
    bound: f64,
    failed_exchanges: f64,
    pub(crate) broken: Vec<String>,
}

impl Report {
    fn judge(&mut self, plan: &Plan) {
        let rate = f64::from(plan.per_second);
        let burst = f64::from(plan.burst);
        let others = f64::from(plan.hosts - 1);
        let slowness = if plan.is_timed {
            1.0
        } else {
            f64::from(SLOWNESS)
        };
        // An exchange begins after an interval, and takes a moment.
        let interval = plan.interval.as_secs_f64() * slowness + 0.01;
        // Until a host notices that the others are not heard, and once each share is rounded up.
        let silence = (plan.interval * 5)
            .max(Duration::from_secs(1))
            .as_secs_f64();
        let kill = others * (rate * (silence + 2.0 * interval) + burst + 1.0);
        self.error = self.admitted as f64 - self.single;
        self.bound = others * (burst + rate * interval) + f64::from(plan.kills) * kill;
        if self.error > self.bound {
            let error = self.error;
            self.broken.push(format!(
                "{error:.0} requests too many, more than {:.0}",
                self.bound
            ));
        }
        // Shares are equal and so is the load: the fleet does not admit much less either.
        let least = self.single * 0.8 - burst;
        if plan.is_timed && (self.admitted as f64) < least {
            self.broken.push(format!(
                "{} requests admitted, fewer than {least:.0}",
                self.admitted
            ));
        }
        if plan.kills == 0 && self.failed_exchanges > 0.0 {
            self.broken
                .push(format!("{} exchanges failed", self.failed_exchanges));
        }
        if plan.kills > 0 && self.failed_exchanges == 0.0 {
            self.broken
                .push("no exchange failed although Redis was killed".to_owned());
        }
    }

    /// The report for people.
    pub(crate) fn text(&self) -> String {
        let mut text = format!(
            "Soak of shared counters: {} hosts, {} requests/s and {} at once, exchanges every {} ms, {:.1} s, Redis killed {} times\n",
            self.hosts, self.per_second, self.burst, self.interval_ms, self.seconds, self.kills
        );
        let _infallible = writeln!(
            text,
            "  {} asked, {} admitted; one host admits {:.0}: error {:+.1}, bound {:.1}",
            self.asked, self.admitted, self.single, self.error, self.bound
        );
        text.push_str(&verdict(&self.broken));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_beyond_the_bound_is_told() {
        let plan = Plan {
            hosts: 3,
            length: Duration::from_secs(10),
            per_second: 10,
            burst: 5,
            interval: Duration::from_millis(200),
            kills: 0,
            is_timed: true,
        };
        let judged = |admitted| {
            let mut report = Report {
                admitted,
                single: 105.0,
                ..Report::default()
            };
            report.judge(&plan);
            report.broken.len()
        };
        // Two other hosts with 5 at once and 2.1 in an interval: 14.2.
        assert_eq!(judged(105 + 14), 0);
        assert_eq!(judged(105 + 15), 1);
        assert_eq!(judged(20), 1);
    }
}
