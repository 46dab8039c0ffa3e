//! The stored tenants that this host has read.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use portcullis_config::{Config, TenantConfig};
use portcullis_store::{Looked, Mark, MarkWatch, Store, StoreError, StoredTenant};

/// How long stored tenants must be older than before until that applies: a server that is a replica may lag behind, and a backup is not read back at
/// once.
const SETTLED: Duration = Duration::from_secs(10);

/// Most tenants that a log line names.
const MOST_NAMED: usize = 50;

/// The stored tenants that this host has read.
#[derive(Debug, Default)]
pub(super) struct Directory {
    /// `None` for a host without a database.
    store: Option<Store>,
    /// The mark of the stored tenants in the database.
    marks: tokio::sync::Mutex<Option<MarkWatch>>,
    /// The configuration with the tenants of the file, to which stored tenants are added.
    pub(super) base: Mutex<Option<Arc<Config>>>,
    pub(super) known: Mutex<Known>,
    /// Since when the stored tenants have been older than the known ones.
    older: Mutex<Option<Instant>>,
    /// Held while stored tenants are applied.
    pub(super) turn: Arc<tokio::sync::Mutex<()>>,
}

/// The stored tenants at the last read.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The mark of the rows; `None` before the first read.
    pub(super) mark: Option<Mark>,
    /// The rows.
    pub(super) rows: Vec<StoredTenant>,
    /// The tenants that can be used.
    pub(super) usable: Vec<Arc<TenantConfig>>,
    /// Errors of the others, by name.
    pub(super) wrong: BTreeMap<String, String>,
}

impl Directory {
    /// Creates the directory of this store. Nothing is read yet.
    pub(super) fn new(store: Store) -> Self {
        Self {
            marks: tokio::sync::Mutex::new(Some(store.watch_tenants())),
            store: Some(store),
            ..Self::default()
        }
    }

    pub(super) fn store(&self) -> Option<&Store> {
        self.store.as_ref()
    }

    /// Returns the mark of the stored tenants, by a look at the database that was made for all, or one that is made now; `None` for a host without
    /// a database.
    ///
    /// # Errors
    /// If the database does not answer.
    pub(super) async fn mark(&self, looked: Option<&Looked>) -> Result<Option<Mark>, StoreError> {
        match (self.marks.lock().await.as_mut(), looked) {
            (Some(marks), Some(looked)) => marks.look_at(looked).await.map(Some),
            (Some(marks), None) => marks.look().await.map(Some),
            (None, _) => Ok(None),
        }
    }

    /// Whether these rows apply: they are not older than the known ones, or have been for [`SETTLED`].
    pub(super) fn is_due(&self, rows: &[StoredTenant], now: Instant) -> bool {
        let is_older = !self.known.lock().older_in(rows).is_empty();
        let mut older = self.older.lock();
        if !is_older {
            *older = None;
            return true;
        }
        let since = *older.get_or_insert(now);
        now.saturating_duration_since(since) >= SETTLED
    }

    /// Notes that stored tenants have been applied.
    pub(super) fn applied(&self) {
        *self.older.lock() = None;
    }
}

impl Known {
    /// The tenants of which these rows have an older state than the known one, each with what has become of it: the database was replaced by a
    /// backup. Up to [`MOST_NAMED`].
    pub(super) fn older_in(&self, rows: &[StoredTenant]) -> Vec<String> {
        let rows: HashMap<&str, &StoredTenant> = rows.iter().map(|row| (&*row.name, row)).collect();
        let older = self.rows.iter().filter_map(|known| {
            let (name, before) = (&known.name, known.revision);
            match rows.get(&**name) {
                None => Some(format!("{name} (gone)")),
                Some(row) if row.revision < before => {
                    Some(format!("{name} (revision {} after {before})", row.revision))
                }
                Some(row) if row.revision == before && row.config != known.config => {
                    Some(format!("{name} (another revision {before})"))
                }
                Some(_) => None,
            }
        });
        older.take(MOST_NAMED).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, revision: u64, config: &str) -> StoredTenant {
        StoredTenant {
            name: name.to_owned(),
            config: Some(config.to_owned()),
            revision,
            changed_by: String::new(),
            changed_at: 1_000 + revision,
        }
    }

    #[test]
    fn tenants_that_went_back_wait_and_are_named() {
        let directory = Directory::default();
        directory.known.lock().rows = vec![row("acme", 3, "a"), row("beta", 1, "b")];
        let begun = Instant::now();
        let newer = [row("acme", 4, "c"), row("beta", 1, "b"), row("new", 1, "")];
        assert!(directory.is_due(&newer, begun));
        let older = [row("acme", 2, "x")];
        assert_eq!(
            directory.known.lock().older_in(&older),
            ["acme (revision 2 after 3)", "beta (gone)"]
        );
        assert!(!directory.is_due(&older, begun));
        assert!(!directory.is_due(&older, begun + SETTLED / 2));
        assert!(directory.is_due(&older, begun + SETTLED));
        // The replica has caught up.
        assert!(directory.is_due(&newer, begun + SETTLED));
        assert!(!directory.is_due(&older, begun + SETTLED * 2));
        directory.applied();
        assert!(!directory.is_due(&older, begun + SETTLED * 3));
        let other = [row("acme", 3, "other"), row("beta", 1, "b")];
        assert_eq!(
            directory.known.lock().older_in(&other),
            ["acme (another revision 3)"]
        );
    }
}
