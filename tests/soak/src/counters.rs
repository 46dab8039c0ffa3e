//! Several hosts that hold one limit together through Redis: how many requests of one source they admit beyond what one host would, compared with the
//! bound of docs/fleet.md. Bursts after quiet and constant load, before Redis is killed, while it is away, and afterwards.

use std::fmt::Write;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Barrier, Mutex};
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

/// Bursts before the first kill of Redis, while it is away for the first time, and after the last kill: each.
const BURSTS: u32 = 5;

/// How much longer than intended an exchange may take on a machine that has other work.
const SLOWNESS: u32 = 20;

/// What an exchange takes beside its interval, on a machine without other work.
const EXCHANGE: Duration = Duration::from_millis(10);

/// Runs the soak.
///
/// # Errors
/// If it cannot be set up. Broken invariants are in the report.
pub(crate) fn run(plan: &Plan) -> Result<Report> {
    let place = Lease::new();
    let mut redis = Redis::start(place.addr(6, 6379));
    let hosts: Vec<_> = (0..plan.hosts).map(|_| host(&redis, plan)).collect();
    wait_for_hosts(&hosts, plan.hosts.into());
    let mut parts = vec![bursts(&hosts, place.ip(21), plan, Stage::Before)];
    let tally = Tally {
        per_second: plan.per_second,
        ..Tally::default()
    };
    let is_over = AtomicBool::new(false);
    let begun = Instant::now();
    let mut spans = Vec::new();
    let source = place.ip(20);
    thread::scope(|scope| {
        for host in &hosts {
            scope.spawn(|| ask(host, source, plan, &tally, &is_over));
        }
        let _over = Over(&is_over);
        thread::sleep(plan.warm_up());
        let mut from = Instant::now();
        thread::sleep(plan.length);
        spans.push((Stage::Before, from, Instant::now()));
        for kill in 0..plan.kills {
            let killed = Instant::now();
            redis.kill();
            wait_for_hosts(&hosts, 0.0);
            match kill {
                0 => parts.push(bursts(&hosts, place.ip(22), plan, Stage::Away)),
                _ => thread::sleep(AWAY),
            }
            redis.restart();
            wait_for_hosts(&hosts, plan.hosts.into());
            from = Instant::now();
            spans.push((Stage::Away, killed, from));
            thread::sleep(plan.length);
            spans.push((Stage::After, from, Instant::now()));
        }
    });
    let took = begun.elapsed();
    if plan.kills > 0 {
        parts.push(bursts(&hosts, place.ip(23), plan, Stage::After));
    }
    let failures = hosts
        .iter()
        .map(|host| host.metric("portcullis_exchange_failures_total", &[]));
    for stage in [Stage::Before, Stage::Away, Stage::After] {
        let of_stage = spans.iter().filter(|(of, ..)| *of == stage);
        let windows = of_stage.map(|(_, from, to)| tally.between(*from, *to));
        parts.extend(Part::worst(
            "constant load",
            stage,
            windows,
            plan.steady_bound(stage),
        ));
    }
    let single = f64::from(plan.burst) + f64::from(plan.per_second) * took.as_secs_f64();
    let whole = Window {
        single,
        ..tally.between(begun, begun + took)
    };
    parts.extend(Part::worst(
        "whole run",
        Stage::All,
        [whole],
        plan.whole_bound(),
    ));
    let mut report = Report {
        hosts: plan.hosts,
        per_second: plan.per_second,
        burst: plan.burst,
        interval_ms: plan.interval.as_millis(),
        kills: plan.kills,
        seconds: took.as_secs_f64(),
        asked: tally.asked.load(Ordering::Relaxed),
        parts,
        failed_exchanges: failures.sum::<f64>(),
        broken: Vec::new(),
    };
    report.judge(plan);
    Ok(report)
}

impl Plan {
    fn others(&self) -> f64 {
        f64::from(self.hosts - 1)
    }

    /// What comes back from one exchange to the next, in requests.
    fn of_interval(&self) -> f64 {
        let slowness = if self.is_timed { 1 } else { SLOWNESS };
        let interval = self.interval * slowness + EXCHANGE;
        f64::from(self.per_second) * interval.as_secs_f64()
    }

    /// Until the first burst is over, and what was admitted too much is paid back.
    fn warm_up(&self) -> Duration {
        let bursts = f64::from(self.hosts * self.burst) / f64::from(self.per_second);
        Duration::from_secs_f64(bursts) + Duration::from_secs(1)
    }

    /// Until a source that has asked all hosts at once has all of its requests again, on every host.
    fn quiet(&self) -> Duration {
        self.warm_up() + 5 * self.interval
    }

    /// The most that the fleet may admit too much of a burst after quiet. While Redis is away, shares are rounded up.
    fn burst_bound(&self, stage: Stage) -> f64 {
        match stage {
            Stage::Away => {
                let shares = self.burst.div_ceil(self.hosts) * self.hosts;
                f64::from(shares - self.burst) + 1.0
            }
            Stage::Before | Stage::After | Stage::All => {
                self.others() * (f64::from(self.burst) + self.of_interval())
            }
        }
    }

    /// The same of constant load, without a burst: one request of each host may be on this side of the window or on that.
    fn steady_bound(&self, stage: Stage) -> f64 {
        let rate = f64::from(self.per_second);
        let each = f64::from(self.hosts);
        match stage {
            // Until the hosts notice, each has the whole rate. Then each share is rounded up once.
            Stage::Away => {
                let silence = (self.interval * 5).max(Duration::from_secs(1));
                let silence = rate * silence.as_secs_f64() + 2.0 * self.of_interval();
                self.others() * silence + 2.0 * each
            }
            Stage::Before | Stage::After | Stage::All => self.others() * self.of_interval() + each,
        }
    }

    /// The same of the whole run: the first burst, and what each time without Redis adds.
    fn whole_bound(&self) -> f64 {
        let kills = f64::from(self.kills) * self.steady_bound(Stage::Away);
        self.burst_bound(Stage::Before) + kills
    }
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

/// All hosts at once, after quiet: how many requests of one source they admit.
fn bursts(hosts: &[Host], source: IpAddr, plan: &Plan, stage: Stage) -> Part {
    let windows: Vec<_> = (0..BURSTS)
        .map(|turn| {
            if turn > 0 {
                thread::sleep(plan.quiet());
            }
            burst(hosts, source, plan)
        })
        .collect();
    let worst = Part::worst("burst after quiet", stage, windows, plan.burst_bound(stage));
    worst.expect("there are bursts")
}

fn burst(hosts: &[Host], source: IpAddr, plan: &Plan) -> Window {
    let together = Barrier::new(hosts.len());
    let send = |host: &Host| {
        let mut caller = Caller::udp(source, host.sip());
        together.wait();
        let begun = Instant::now();
        let requests = plan.burst + plan.burst / 2 + 2;
        let admitted = (0..requests).filter(|_| is_admitted(&mut caller)).count();
        (admitted as u64, begun, Instant::now())
    };
    let sent: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = hosts
            .iter()
            .map(|host| scope.spawn(|| send(host)))
            .collect();
        let sent = threads.into_iter().map(|thread| thread.join());
        sent.map(|sent| sent.expect("requests are answered"))
            .collect()
    });
    let begun = sent.iter().map(|(_, begun, _)| *begun).min();
    let ended = sent.iter().map(|(.., ended)| *ended).max();
    let took = begun.zip(ended).map(|(begun, ended)| ended - begun);
    let seconds = took.unwrap_or_default().as_secs_f64();
    Window {
        seconds,
        admitted: sent.iter().map(|(admitted, ..)| admitted).sum(),
        single: f64::from(plan.burst) + f64::from(plan.per_second) * seconds,
    }
}

/// Whether a request is within the limit. What the limit lets pass meets no policy that admits it.
fn is_admitted(caller: &mut Caller) -> bool {
    let request = caller.request("MESSAGE", "sip:bob@example.com");
    caller.ask(&request).code() == 403
}

#[derive(Debug, Default)]
struct Tally {
    asked: AtomicU64,
    /// When each request was admitted.
    admitted: Mutex<Vec<Instant>>,
    per_second: u32,
}

impl Tally {
    /// What was admitted in this time, beside what one host with an empty bucket admits.
    fn between(&self, from: Instant, to: Instant) -> Window {
        let admitted = self
            .admitted
            .lock()
            .expect("no thread panics with the lock");
        let seconds = (to - from).as_secs_f64();
        let within = admitted.iter().filter(|at| (from..to).contains(*at));
        Window {
            seconds,
            admitted: within.count() as u64,
            single: f64::from(self.per_second) * seconds,
        }
    }
}

/// What was admitted in one stretch of time.
#[derive(Clone, Copy, Debug)]
struct Window {
    seconds: f64,
    admitted: u64,
    /// What one host would have admitted.
    single: f64,
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
        let is_admitted = is_admitted(&mut caller);
        tally.asked.fetch_add(1, Ordering::Relaxed);
        if is_admitted {
            let mut admitted = tally
                .admitted
                .lock()
                .expect("no thread panics with the lock");
            admitted.push(Instant::now());
        }
        thread::sleep(pause);
    }
}

/// When something was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Stage {
    /// Before Redis was killed.
    Before,
    /// While it was away.
    Away,
    /// After that.
    After,
    /// From the beginning to the end.
    All,
}

/// What was measured of one kind of load: the window with the largest error.
#[derive(Clone, Debug, Serialize)]
struct Part {
    load: &'static str,
    stage: Stage,
    /// Number of windows.
    windows: usize,
    /// Length of the worst.
    seconds: f64,
    /// Requests within the limit, by what the hosts answered.
    admitted: u64,
    /// What one host would have admitted.
    single: f64,
    /// The difference: what the fleet has admitted too much.
    error: f64,
    /// The most that it may be.
    bound: f64,
    /// The smallest error of all windows. Negative: the fleet has admitted less than one host.
    least: f64,
}

impl Part {
    /// The worst of these windows; `None` if there are none.
    fn worst(
        load: &'static str,
        stage: Stage,
        windows: impl IntoIterator<Item = Window>,
        bound: f64,
    ) -> Option<Self> {
        let windows: Vec<_> = windows.into_iter().collect();
        let error = |window: &Window| window.admitted as f64 - window.single;
        let by_error = |a: &&Window, b: &&Window| error(a).total_cmp(&error(b));
        let worst = windows.iter().max_by(by_error)?;
        let least = windows.iter().min_by(by_error)?;
        Some(Self {
            load,
            stage,
            windows: windows.len(),
            seconds: worst.seconds,
            admitted: worst.admitted,
            single: worst.single,
            error: error(worst),
            bound,
            least: error(least),
        })
    }

    fn name(&self) -> String {
        let stage = match self.stage {
            Stage::Before => ", before kills",
            Stage::Away => ", Redis away",
            Stage::After => ", after kills",
            Stage::All => "",
        };
        format!("{}{stage}", self.load)
    }
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    hosts: u32,
    per_second: u32,
    burst: u32,
    interval_ms: u128,
    kills: u32,
    seconds: f64,
    /// Requests of the constant load that were sent.
    asked: u64,
    parts: Vec<Part>,
    failed_exchanges: f64,
    pub(crate) broken: Vec<String>,
}

impl Report {
    fn judge(&mut self, plan: &Plan) {
        for part in &self.parts {
            let (name, error, bound) = (part.name(), part.error, part.bound);
            if error > bound {
                self.broken.push(format!(
                    "{name}: {error:.1} requests too many, more than {bound:.1}"
                ));
            }
            // Shares are equal and so is the load: the fleet does not admit much less either.
            let fewest = -0.2 * part.single - f64::from(plan.burst);
            if plan.is_timed && part.least < fewest {
                let least = -part.least;
                self.broken.push(format!(
                    "{name}: {least:.1} requests too few, more than {:.1}",
                    -fewest
                ));
            }
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
            "Soak of shared counters: {} hosts, {} requests/s and {} at once, exchanges every {} ms, {:.1} s, {} asked, Redis killed {} times\n",
            self.hosts,
            self.per_second,
            self.burst,
            self.interval_ms,
            self.seconds,
            self.asked,
            self.kills
        );
        let _infallible = writeln!(
            text,
            "  {:34} {:>3} {:>8} {:>9} {:>9} {:>7} {:>7}",
            "worst of", "n", "seconds", "admitted", "one host", "error", "bound"
        );
        for part in &self.parts {
            let _infallible = writeln!(
                text,
                "  {:34} {:>3} {:>8.2} {:>9} {:>9.1} {:>+7.1} {:>7.1}",
                part.name(),
                part.windows,
                part.seconds,
                part.admitted,
                part.single,
                part.error,
                part.bound
            );
        }
        text.push_str(&verdict(&self.broken));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: Plan = Plan {
        hosts: 3,
        length: Duration::from_secs(10),
        per_second: 10,
        burst: 5,
        interval: Duration::from_millis(200),
        kills: 0,
        is_timed: true,
    };

    fn judged(load: &'static str, stage: Stage, admitted: u64, bound: f64) -> usize {
        let window = Window {
            seconds: 10.0,
            admitted,
            single: 105.0,
        };
        let mut report = Report {
            hosts: 3,
            per_second: 10,
            burst: 5,
            interval_ms: 200,
            kills: 0,
            seconds: 10.0,
            asked: 900,
            parts: Part::worst(load, stage, [window], bound)
                .into_iter()
                .collect(),
            failed_exchanges: 0.0,
            broken: Vec::new(),
        };
        report.judge(&PLAN);
        report.broken.len()
    }

    #[test]
    fn an_error_beyond_the_bound_is_told() {
        // Two other hosts with 5 at once and 2.1 in an interval: 14.2.
        let bound = PLAN.burst_bound(Stage::Before);
        assert_eq!(judged("burst", Stage::Before, 105 + 14, bound), 0);
        assert_eq!(judged("burst", Stage::Before, 105 + 15, bound), 1);
        assert_eq!(judged("burst", Stage::Before, 20, bound), 1);
        // Without the bursts, 4.2 and one of each host.
        let bound = PLAN.steady_bound(Stage::Before);
        assert_eq!(judged("constant", Stage::Before, 105 + 7, bound), 0);
        assert_eq!(judged("constant", Stage::Before, 105 + 8, bound), 1);
        // Three shares of two.
        assert!((PLAN.burst_bound(Stage::Away) - 2.0).abs() < 1e-9);
    }

    #[test]
    fn the_worst_window_is_reported() {
        let window = |admitted| Window {
            seconds: 1.0,
            admitted,
            single: 10.0,
        };
        let windows = [window(11), window(14), window(9)];
        let part = Part::worst("burst", Stage::After, windows, 5.0).expect("there are windows");
        assert_eq!((part.admitted, part.windows), (14, 3));
        assert!((part.error - 4.0).abs() < 1e-9 && (part.least + 1.0).abs() < 1e-9);
        assert!(Part::worst("burst", Stage::After, [], 5.0).is_none());
    }
}
