//! This host among the others on its database: its name, and what it has learned from the table of hosts.

mod seen;
mod twins;

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use portcullis_config::Announce;
use portcullis_dataplane::shared::Shared;
use portcullis_fleet::directory::{Directory, Lag};
use portcullis_fleet::host_name;
use portcullis_rollout::Registry;
use tokio::sync::Notify;

pub(crate) use seen::Seen;
pub(crate) use twins::TwinChange;

/// Interval of the looks at pushed policies.
const FOLLOW: Duration = Duration::from_secs(1);

/// How long a look may take, or be late on a busy machine, without being a lag.
const GRACE: Duration = Duration::from_secs(1);

/// This host among the others on its database.
#[derive(Debug)]
pub(crate) struct Fleet {
    name: String,
    /// Random for each process.
    instance: String,
    directory: Directory,
    is_announced: bool,
    seen: Mutex<Seen>,
    /// Notified when another host asks this one to drain.
    drain: Arc<Notify>,
}

impl Fleet {
    /// The host with this configuration. Nothing is announced yet.
    pub(crate) fn new(shared: &Shared) -> Self {
        let config = &shared.config;
        let database = shared.addresses.database();
        Self {
            name: host_name(config.fleet.name.as_deref()),
            instance: format!("{:032x}", fastrand::u128(..)),
            directory: Directory::new(database.connections().clone()),
            is_announced: match config.fleet.announce {
                Announce::Always => true,
                Announce::Never => false,
                Announce::Auto => database.url().file().is_none(),
            },
            seen: Mutex::default(),
            drain: Arc::default(),
        }
    }

    /// Returns the name of this host.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns what distinguishes this process from others with the same name.
    pub(crate) fn instance(&self) -> &str {
        &self.instance
    }

    /// Returns the table of hosts.
    pub(crate) fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Whether this host announces itself, as configured.
    pub(crate) fn is_announced(&self) -> bool {
        self.is_announced
    }

    /// Returns what has been learned from the table of hosts.
    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock()
    }

    /// Returns what is notified when another host asks this one to drain.
    pub(crate) fn drain(&self) -> &Arc<Notify> {
        &self.drain
    }
}

/// By how much the view that the host has of the database is older than the interval of its looks.
pub(crate) fn lag_of(shared: &Shared, registry: &Registry) -> Lag {
    let since = |at: Option<Instant>, interval: Duration| {
        let age = at.unwrap_or_else(|| never(shared)).elapsed();
        u64::try_from(age.saturating_sub(interval).as_millis()).unwrap_or(u64::MAX)
    };
    let poll = shared.config.database.poll;
    let addresses = &shared.addresses;
    let is_table = addresses.database().address_file().is_none();
    let store = registry.deployments().store_status();
    Lag {
        tables_ms: is_table.then(|| since(addresses.status().looked_at, poll + GRACE)),
        policies_ms: store.map(|store| since(store.looked_at, FOLLOW + GRACE)),
    }
}

/// The start of the host: what has never been seen is as old as the host.
fn never(shared: &Shared) -> Instant {
    let now = Instant::now();
    let up = shared.started.elapsed().unwrap_or_default();
    now.checked_sub(up).unwrap_or(now)
}
