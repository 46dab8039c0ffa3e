//! The counters of policies that the hosts of a fleet count together, as a part of the exchange.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use portcullis_fleet::exchange::{Change, Shared};
use portcullis_policy::{Counters, FleetItem, FleetTables};

/// The counters of policies that the hosts of a fleet count together.
#[derive(Debug)]
pub struct SharedCounters(Arc<FleetTables>);

impl SharedCounters {
    /// Exchanges these tables.
    pub fn new(tables: Arc<FleetTables>) -> Self {
        Self(tables)
    }
}

impl Shared for SharedCounters {
    fn name(&self) -> &'static str {
        "counters"
    }

    fn take_changes(&self, most: usize) -> Vec<Change> {
        let (now, unix) = (Instant::now(), unix_ms());
        let change = |item: FleetItem| Change {
            key: item.key,
            value: item.value,
            ends: unix.saturating_add(item.lasts.div_ceil(1_000_000)),
        };
        self.0
            .take_changes(most, now)
            .into_iter()
            .map(change)
            .collect()
    }

    fn merge(&self, others: &[Change]) {
        let (now, unix) = (Instant::now(), unix_ms());
        let items = others.iter().map(|other| FleetItem {
            key: other.key,
            value: other.value,
            lasts: other.ends.saturating_sub(unix).saturating_mul(1_000_000),
        });
        self.0.merge(items, now);
    }

    fn set_peers(&self, peers: Option<usize>) {
        self.0.set_hosts(peers);
    }
}

/// Makes the counters of a seat.
pub(crate) fn counters_of(
    seat: &str,
    most: usize,
    together: &[String],
    tables: &FleetTables,
) -> Arc<Counters> {
    let counters = Counters::new(most);
    Arc::new(match together.is_empty() {
        true => counters,
        false => counters.with_fleet(tables.table(seat, most, together)),
    })
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_host_takes_is_taken_from_the_other() {
        let prefixes = [String::new()];
        let host = || {
            let tables = Arc::new(FleetTables::default());
            let counters = counters_of("acme", 100, &prefixes, &tables);
            let part = SharedCounters::new(tables);
            part.set_peers(Some(2));
            (part, counters)
        };
        let ((one, counters), (other, theirs)) = (host(), host());
        let now = Instant::now();
        assert!(counters.admits(0.001, 2, now) && theirs.admits(0.001, 2, now));
        let changes = one.take_changes(10);
        assert_eq!((changes.len(), changes[0].value), (1, 1));
        assert_eq!(one.take_changes(10), []);
        other.merge(&changes);
        assert!(!theirs.admits(0.001, 2, now), "both tokens are taken");
        assert!(
            counters.admits(0.001, 2, now),
            "this host has not heard of it yet"
        );
    }

    #[test]
    fn without_prefixes_nothing_is_exchanged() {
        let tables = Arc::new(FleetTables::default());
        let counters = counters_of("acme", 100, &[], &tables);
        assert!(counters.admits(1.0, 1, Instant::now()));
        assert_eq!(SharedCounters::new(tables).take_changes(10), []);
    }
}
