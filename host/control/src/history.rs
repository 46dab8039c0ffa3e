//! The traffic of the last minutes in sums of one second, so that whoever opens a page sees a past.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use portcullis_dataplane::tenants::Tenants;
use portcullis_metrics::TenantCounts;
use portcullis_policy::VerdictKind;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Seconds that are kept.
pub(crate) const SECONDS: usize = 600;

/// Most tenants of which a second is kept. The sums of all tenants include the others.
const TENANTS: usize = 200;

/// The last seconds.
#[derive(Debug, Default)]
pub(crate) struct History(Mutex<Past>);

#[derive(Debug, Default)]
struct Past {
    /// The oldest first.
    seconds: VecDeque<Second>,
    /// The counters at the end of the last second.
    before: HashMap<Arc<str>, Traffic>,
}

/// One second.
#[derive(Clone, Debug)]
pub(crate) struct Second {
    /// Its end.
    pub(crate) at: SystemTime,
    pub(crate) sum: Traffic,
    /// Tenants with traffic.
    pub(crate) tenants: Vec<(Arc<str>, Traffic)>,
}

/// Requests, by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Traffic {
    /// All requests.
    pub requests: u64,
    /// Requests relayed.
    pub relay: u64,
    /// Requests rejected.
    pub reject: u64,
    /// Requests dropped.
    pub drop: u64,
    /// Requests on which no policy decided.
    pub pass: u64,
    /// Requests whose policy call failed.
    pub failed: u64,
    /// Requests above a limit, rejected.
    pub shed: u64,
    /// Requests within admitted dialogs.
    pub followed: u64,
}

impl History {
    /// Notes the end of a second.
    pub(crate) fn note(&self, tenants: &Tenants, at: SystemTime) {
        let now = tenants.all().map(|tenant| {
            let counts = TenantCounts::of(&tenant.counters);
            (Arc::clone(&tenant.name), Traffic::of(&counts))
        });
        self.0.lock().note(now.collect(), at);
    }

    /// Returns up to this many of the last seconds, the oldest first.
    pub(crate) fn last(&self, seconds: usize) -> Vec<Second> {
        let past = self.0.lock();
        let skipped = past.seconds.len().saturating_sub(seconds);
        past.seconds.iter().skip(skipped).cloned().collect()
    }
}

impl Past {
    fn note(&mut self, now: HashMap<Arc<str>, Traffic>, at: SystemTime) {
        let is_first = self.before.is_empty();
        let mut second = Second {
            at,
            sum: Traffic::default(),
            tenants: Vec::new(),
        };
        for (name, traffic) in &now {
            let before = self.before.get(name).copied().unwrap_or_default();
            let new = traffic.since(before);
            if new == Traffic::default() {
                continue;
            }
            second.sum.add(new);
            second.tenants.push((Arc::clone(name), new));
        }
        self.before = now;
        // The counters before the first second are not its traffic.
        if is_first {
            return;
        }
        let busiest = |(_, traffic): &(Arc<str>, Traffic)| std::cmp::Reverse(traffic.requests);
        second.tenants.sort_by_key(busiest);
        second.tenants.truncate(TENANTS);
        if self.seconds.len() >= SECONDS {
            self.seconds.pop_front();
        }
        self.seconds.push_back(second);
    }
}

impl Traffic {
    fn of(counts: &TenantCounts) -> Self {
        let TenantCounts {
            requests,
            verdicts,
            failed,
            shed,
            followed,
            // Only `/metrics` shows these.
            monitored: _,
            postponed: _,
            refused_relays: _,
            unasked_failures: _,
            // A level, and not a sum.
            transactions: _,
        } = counts;
        Self {
            requests: *requests,
            relay: verdicts.value(VerdictKind::Relay),
            reject: verdicts.value(VerdictKind::Reject),
            drop: verdicts.value(VerdictKind::Drop),
            pass: verdicts.value(VerdictKind::Pass),
            failed: *failed,
            shed: shed.total(),
            followed: *followed,
        }
    }

    /// What came after `before`. Counters of a tenant that was removed and added again begin at 0.
    fn since(self, mut before: Self) -> Self {
        let mut new = self;
        for (new, before) in new.all().into_iter().zip(before.all()) {
            *new = new.saturating_sub(*before);
        }
        new
    }

    pub(crate) fn add(&mut self, mut other: Self) {
        for (sum, other) in self.all().into_iter().zip(other.all()) {
            *sum += *other;
        }
    }

    fn all(&mut self) -> [&mut u64; 8] {
        let Self {
            requests,
            relay,
            reject,
            drop,
            pass,
            failed,
            shed,
            followed,
        } = self;
        [requests, relay, reject, drop, pass, failed, shed, followed]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(all: &[(&str, u64)]) -> HashMap<Arc<str>, Traffic> {
        let traffic = |requests| Traffic {
            requests,
            reject: requests,
            ..Traffic::default()
        };
        all.iter()
            .map(|(name, requests)| (Arc::from(*name), traffic(*requests)))
            .collect()
    }

    #[test]
    fn a_second_has_the_traffic_since_the_one_before() {
        let history = History::default();
        let note = |all: &[(&str, u64)]| {
            let at = SystemTime::UNIX_EPOCH;
            history.0.lock().note(counters(all), at);
        };
        note(&[("default", 100), ("acme", 7)]);
        note(&[("default", 100), ("acme", 9)]);
        note(&[("default", 103), ("acme", 9), ("new", 5)]);
        note(&[("default", 103), ("acme", 1)]);
        let last = history.last(10);
        let sums: Vec<_> = last.iter().map(|second| second.sum.requests).collect();
        assert_eq!(sums, [2, 8, 0]);
        let names = |at: usize| {
            let tenants = last[at].tenants.iter();
            tenants.map(|(name, _)| &**name).collect::<Vec<_>>()
        };
        assert_eq!((names(0), names(1)), (vec!["acme"], vec!["new", "default"]));
        assert_eq!(history.last(1).len(), 1);
    }

    #[test]
    fn memory_is_bounded() {
        let mut past = Past::default();
        for second in 0..SECONDS as u64 + 10 {
            let names: Vec<_> = (0..TENANTS + 5).map(|n| n.to_string()).collect();
            let all: Vec<_> = names.iter().map(|name| (name.as_str(), second)).collect();
            past.note(counters(&all), SystemTime::UNIX_EPOCH);
        }
        assert_eq!(past.seconds.len(), SECONDS);
        let last = past.seconds.back().unwrap();
        assert_eq!(last.tenants.len(), TENANTS);
        assert_eq!(last.sum.requests, TENANTS as u64 + 5);
    }
}
