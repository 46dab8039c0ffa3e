//! What hosts of a fleet know together: the bans of the guard, and the calls of the dispatcher.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use portcullis_dataplane::shared::Shared;
use portcullis_fleet::exchange::{self, Change};

/// The bans of the guard.
struct Bans {
    shared: Arc<Shared>,
    /// The name of this host, which other hosts show.
    name: String,
}

/// The calls of the dispatcher.
struct Loads(Arc<Shared>);

/// The parts of the host that take part in the exchange, unless the configuration leaves them out. `name` is the name of this host; `key` is that with which
/// the hosts of the fleet seal dialogs. Before the host serves.
pub fn fleet_parts(
    shared: &Arc<Shared>,
    name: &str,
    key: &[u8; 16],
) -> Vec<Arc<dyn exchange::Shared>> {
    let mut parts: Vec<Arc<dyn exchange::Shared>> = Vec::new();
    let config = &shared.config;
    if config.guard.shares_bans
        && let Some(guard) = &shared.guard
    {
        guard.share();
        parts.push(Arc::new(Bans {
            shared: Arc::clone(shared),
            name: name.to_owned(),
        }));
    }
    if config.dispatcher.shares_calls {
        shared.dispatcher.share_loads(key);
        parts.push(Arc::new(Loads(Arc::clone(shared))));
    }
    parts
}

impl Bans {
    /// Whether this host never bans the address. A network has its first address here; a known address in it is exempt when it sends something.
    fn is_exempt(&self, ip: IpAddr) -> bool {
        self.shared.known_in(ip).is_some()
    }
}

impl exchange::Shared for Bans {
    fn name(&self) -> &'static str {
        "bans"
    }

    fn take_changes(&self, most: usize) -> Vec<Change> {
        let Some(guard) = &self.shared.guard else {
            return Vec::new();
        };
        let items = guard.take_bans(&self.name, most, Instant::now(), unix());
        let changes = items.into_iter().map(|item| Change {
            key: item.key,
            value: item.value,
            ends: item.ends,
        });
        changes.collect()
    }

    fn merge(&self, others: &[Change]) {
        let Some(guard) = &self.shared.guard else {
            return;
        };
        let items = others.iter().map(|change| portcullis_guard::Item {
            key: change.key,
            value: change.value,
            ends: change.ends,
        });
        let items: Vec<_> = items.collect();
        guard.merge_bans(&items, |ip| self.is_exempt(ip), Instant::now(), unix());
    }

    fn set_clock(&self, ahead: i64) {
        if let Some(guard) = &self.shared.guard {
            guard.set_exchange_clock(ahead);
        }
    }

    /// A ban lasts to its end, whether its host is heard or not.
    fn set_peers(&self, _: Option<usize>) {}
}

impl exchange::Shared for Loads {
    fn name(&self) -> &'static str {
        "loads"
    }

    fn take_changes(&self, most: usize) -> Vec<Change> {
        let items = self.0.dispatcher.take_loads(most, unix());
        let changes = items.into_iter().map(|item| Change {
            key: item.key,
            value: item.value,
            ends: item.ends,
        });
        changes.collect()
    }

    fn merge(&self, others: &[Change]) {
        let items = others.iter().map(|change| portcullis_dispatcher::Item {
            key: change.key,
            value: change.value,
            ends: change.ends,
        });
        let items: Vec<_> = items.collect();
        self.0.dispatcher.merge_loads(&items);
    }

    fn set_peers(&self, peers: Option<usize>) {
        self.0.dispatcher.set_hosts(peers);
    }
}

/// The time in milliseconds since 1970.
pub fn unix() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
