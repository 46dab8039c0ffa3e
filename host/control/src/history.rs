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

/// Most seconds of single tenants that are kept, about 12 MB: 10 minutes of 250 tenants that all have traffic in each second. With more, the
/// oldest seconds keep the sum of all tenants only, so that what is shown of a tenant is complete.
const TENANT_SECONDS: usize = 150_000;

/// The last seconds.
#[derive(Debug, Default)]
pub(crate) struct History(Mutex<Past>);

#[derive(Debug, Default)]
struct Past {
    /// The oldest first.
    seconds: VecDeque<Arc<Second>>,
    /// Number of seconds of single tenants in them.
    tenant_seconds: usize,
    /// The counters at the end of the last second.
    before: HashMap<Arc<str>, Traffic>,
}

/// One second.
#[derive(Clone, Debug)]
pub(crate) struct Second {
    /// Its end.
    pub(crate) at: SystemTime,
    pub(crate) sum: Traffic,
    /// All tenants with traffic, sorted by name; `None` if they are not kept.
    pub(crate) tenants: Option<Vec<(Arc<str>, Traffic)>>,
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
    pub(crate) fn last(&self, seconds: usize) -> Vec<Arc<Second>> {
        let past = self.0.lock();
        let skipped = past.seconds.len().saturating_sub(seconds);
        past.seconds.iter().skip(skipped).cloned().collect()
    }
}

impl Past {
    fn note(&mut self, now: HashMap<Arc<str>, Traffic>, at: SystemTime) {
        let is_first = self.before.is_empty();
        let (mut sum, mut tenants) = (Traffic::default(), Vec::new());
        for (name, traffic) in &now {
            let before = self.before.get(name).copied().unwrap_or_default();
            let new = traffic.since(before);
            if new == Traffic::default() {
                continue;
            }
            sum.add(new);
            tenants.push((Arc::clone(name), new));
        }
        self.before = now;
        // The counters before the first second are not its traffic.
        if is_first {
            return;
        }
        tenants.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        if self.seconds.len() >= SECONDS
            && let Some(oldest) = self.seconds.pop_front()
        {
            self.tenant_seconds -= oldest.count();
        }
        self.tenant_seconds += tenants.len();
        self.seconds.push_back(Arc::new(Second {
            at,
            sum,
            tenants: Some(tenants),
        }));
        self.bound();
    }

    /// Drops the tenants of the oldest seconds while there are too many.
    fn bound(&mut self) {
        for second in &mut self.seconds {
            if self.tenant_seconds <= TENANT_SECONDS {
                return;
            }
            self.tenant_seconds -= second.count();
            *second = Arc::new(Second {
                tenants: None,
                ..**second
            });
        }
    }
}

impl Second {
    /// The traffic of a tenant; `None` if it is not kept.
    pub(crate) fn of(&self, tenant: &str) -> Option<Traffic> {
        let tenants = self.tenants.as_ref()?;
        let found = tenants.binary_search_by(|(name, _)| (**name).cmp(tenant));
        Some(found.map_or_else(|_none| Traffic::default(), |at| tenants[at].1))
    }

    fn count(&self) -> usize {
        self.tenants.as_ref().map_or(0, Vec::len)
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
            let tenants = last[at].tenants.iter().flatten();
            tenants.map(|(name, _)| &**name).collect::<Vec<_>>()
        };
        assert_eq!((names(0), names(1)), (vec!["acme"], vec!["default", "new"]));
        let of = |at: usize, name| last[at].of(name).unwrap().requests;
        assert_eq!((of(0, "acme"), of(1, "acme"), of(1, "new")), (2, 0, 5));
        assert_eq!(history.last(1).len(), 1);
    }

    #[test]
    fn memory_is_bounded_and_what_is_shown_of_a_tenant_is_complete() {
        const TENANTS: usize = 1_000;
        let mut past = Past::default();
        for second in 0..SECONDS as u64 + 10 {
            let names: Vec<_> = (0..TENANTS).map(|n| n.to_string()).collect();
            let all: Vec<_> = names.iter().map(|name| (name.as_str(), second)).collect();
            past.note(counters(&all), SystemTime::UNIX_EPOCH);
        }
        assert_eq!(past.seconds.len(), SECONDS);
        // Each tenant is in each second that has tenants, and the sum is in all.
        let seconds = past.seconds.iter();
        let of_one: Vec<_> = seconds.map(|second| second.of("777")).collect();
        let kept = TENANT_SECONDS / TENANTS;
        assert!(of_one[..SECONDS - kept].iter().all(Option::is_none));
        let is_one = |one: &Option<Traffic>| one.is_some_and(|one| one.requests == 1);
        assert!(of_one[SECONDS - kept..].iter().all(is_one));
        assert_eq!(past.tenant_seconds, TENANTS * kept);
        let oldest = past.seconds.front().unwrap();
        assert_eq!(oldest.sum.requests, TENANTS as u64);
    }
}
