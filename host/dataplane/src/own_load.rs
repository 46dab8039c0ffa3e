//! Asks clients to keep requests back while this host is overloaded (RFC 7339, RFC 7415). Runs on the control side.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use portcullis_metrics::{HandoverResult, Label, Lost, Method, Wire, WorkerCounters};
use portcullis_rate::{FairRate, Load};
use tokio::sync::watch::Receiver;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::shared::Shared;

/// Interval between two looks at the load. Workers count lost datagrams as often.
const LOOK: Duration = Duration::from_secs(1);

/// Percentage of a limit at which it is nearly reached.
const NEARLY: u64 = 90;

/// Looks at the load until the host ends.
pub async fn watch(shared: Arc<Shared>, mut stop: Receiver<bool>) {
    if shared.config.sip.overload_control.is_none() {
        return;
    }
    let mut own = OwnLoad::default();
    let mut tick = interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            _ = tick.tick() => own.look(&shared),
        }
    }
}

#[derive(Debug, Default)]
struct OwnLoad {
    load: Load,
    /// For clients that are asked by rate.
    rate: FairRate,
    /// Requests so far.
    requests: u64,
    /// When they were counted.
    looked: Option<Instant>,
    /// Percentage that clients are asked to keep back.
    asked: u8,
    /// Messages lost so far because workers were too slow.
    lost: u64,
}

impl OwnLoad {
    fn look(&mut self, shared: &Shared) {
        let cause = self.cause(shared);
        let asked = self.load.step(cause.is_some());
        match (self.asked, asked) {
            (0, 1..) => warn!(
                event = "overloaded",
                cause,
                "host overloaded: clients that support RFC 7339 are asked for fewer requests, others are refused some"
            ),
            (1.., 0) => info!(event = "overload_over", "host not overloaded any more"),
            (_, _) => {}
        }
        self.asked = asked;
        let requests = shared.counters.iter().map(requests_of).sum();
        let lately = requests - std::mem::replace(&mut self.requests, requests).min(requests);
        let now = Instant::now();
        let since = self
            .looked
            .replace(now)
            .map(|last| now.saturating_duration_since(last));
        let mut rates = shared.client_load.rates(now);
        let rate = self.rate.step(asked, &mut rates, per_second(lately, since));
        shared.client_load.refuse(asked, now);
        shared.proxy.ask_clients(asked, rate, sequence());
    }

    /// Why the host is overloaded; `None` if it is not.
    fn cause(&mut self, shared: &Shared) -> Option<&'static str> {
        let limits = &shared.config.transactions;
        let workers = &shared.counters;
        let lost = workers.iter().map(lost_by).sum();
        let is_losing = lost > std::mem::replace(&mut self.lost, lost);
        let most = limits.active as u64;
        let mut active = workers
            .iter()
            .map(|worker| worker.transactions.active.value());
        let stored = workers
            .iter()
            .map(|worker| worker.transactions.stored_bytes.value());
        if active.any(|active| is_nearly(active, most)) {
            return Some("`active` of [transactions] is nearly reached");
        }
        if is_nearly(stored.sum(), limits.memory) {
            return Some("`memory` of [transactions] is nearly reached");
        }
        is_losing.then_some("messages were lost because the workers are too slow")
    }
}

/// How many requests a second these are, since the last look. An overloaded machine may be late with a look; the first one counts as a second.
fn per_second(requests: u64, since: Option<Duration>) -> u64 {
    let millis = since.map_or(1_000, |since| since.as_millis().max(1));
    u64::try_from(u128::from(requests) * 1_000 / millis).unwrap_or(u64::MAX)
}

fn lost_by(worker: &WorkerCounters) -> u64 {
    let handovers = &worker.transactions.handovers;
    worker.lost.value(Lost::ReceiveBufferFull) + handovers.value(HandoverResult::Full)
}

fn requests_of(worker: &WorkerCounters) -> u64 {
    let methods = |wire: &Wire| {
        let requests = &worker.wire(*wire).requests;
        Method::ALL
            .iter()
            .map(|method| requests.value(*method))
            .sum::<u64>()
    };
    Wire::ALL.iter().map(methods).sum()
}

fn is_nearly(value: u64, most: u64) -> bool {
    value.saturating_mul(100) >= most.saturating_mul(NEARLY)
}

/// The time in hundred-thousandths of a second: greater than in any response before, that of an earlier process included.
fn sequence() -> u64 {
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let micros = time.map_or(0, |time| time.as_micros());
    u64::try_from(micros / 10).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_look_counts_no_more_requests_a_second() {
        for (requests, since, expected) in [
            (900, None, 900),
            (900, Some(1_000), 900),
            (2_700, Some(3_000), 900),
            (450, Some(500), 900),
            (7, Some(0), 7_000),
            (u64::MAX, Some(1), u64::MAX),
        ] {
            let since = since.map(Duration::from_millis);
            assert_eq!(
                per_second(requests, since),
                expected,
                "{requests} {since:?}"
            );
        }
    }

    #[test]
    fn a_limit_is_nearly_reached_at_90_percent() {
        for (value, most, is) in [
            (89, 100, false),
            (90, 100, true),
            (0, 1, false),
            (1, 1, true),
        ] {
            assert_eq!(is_nearly(value, most), is, "{value} of {most}");
        }
    }
}
