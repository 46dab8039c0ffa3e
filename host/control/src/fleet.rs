//! This host among the others on its database: its name, and what it has learned from the table of hosts.

mod seen;
mod twins;

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use portcullis_config::{Announce, Config};
use portcullis_dataplane::shared::Shared;
use portcullis_export::host_name;
use portcullis_fleet::directory::{Directory, Lag, NAME_CHARACTERS};
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
            name: fleet_name(config),
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

/// Returns the name of the host in its fleet: the configured one, or that of the system, in the characters that a name may have.
pub fn fleet_name(config: &Config) -> String {
    let name = config.fleet.name.clone().unwrap_or_else(host_name);
    let known = |c: char| match c {
        c if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') => c,
        _ => '-',
    };
    let name: String = name.chars().map(known).take(NAME_CHARACTERS).collect();
    match name.is_empty() {
        true => "host".to_owned(),
        false => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_a_name_that_fits_its_column() {
        let of = |name: Option<&str>| {
            let mut config = Config::default();
            config.fleet.name = name.map(str::to_owned);
            fleet_name(&config)
        };
        assert_eq!(of(Some("edge-1.example.com")), "edge-1.example.com");
        assert_eq!(of(Some("edge 1/ü")), "edge-1--");
        assert_eq!(of(Some(&"a".repeat(100))).len(), NAME_CHARACTERS);
        assert_eq!(of(Some("")), "host");
        assert!(!of(None).is_empty());
    }
}
