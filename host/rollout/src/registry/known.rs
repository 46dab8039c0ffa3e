//! What a host knows of the tenants in the database.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use portcullis_config::{Config, TenantConfig};
use portcullis_store::{Store, StoredTenant};

/// What is known of the tenants in the database.
#[derive(Debug, Default)]
pub(super) struct Directory {
    /// None for a host without a database.
    store: Option<Store>,
    /// The configuration beside which they are, with the tenants of the file.
    pub(super) base: Mutex<Option<Arc<Config>>>,
    pub(super) known: Mutex<Known>,
    /// Held while they are brought to what is stored.
    pub(super) turn: Arc<tokio::sync::Mutex<()>>,
}

/// The tenants of the last look.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) revision: u64,
    /// As they were read last.
    pub(super) rows: Vec<StoredTenant>,
    /// Those that can be used.
    pub(super) usable: Vec<TenantConfig>,
    /// What is wrong with the others.
    pub(super) wrong: BTreeMap<String, String>,
}

impl Directory {
    /// The tenants in the database of this store. None is read yet.
    pub(super) fn new(store: Store) -> Self {
        Self {
            store: Some(store),
            ..Self::default()
        }
    }

    pub(super) fn store(&self) -> Option<&Store> {
        self.store.as_ref()
    }
}
