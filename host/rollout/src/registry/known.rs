//! The stored tenants that this host has read.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use portcullis_config::{Config, TenantConfig};
use portcullis_store::{Store, StoredTenant};

/// The stored tenants that this host has read.
#[derive(Debug, Default)]
pub(super) struct Directory {
    /// `None` for a host without a database.
    store: Option<Store>,
    /// The configuration with the tenants of the file, to which stored tenants are added.
    pub(super) base: Mutex<Option<Arc<Config>>>,
    pub(super) known: Mutex<Known>,
    /// Held while stored tenants are applied.
    pub(super) turn: Arc<tokio::sync::Mutex<()>>,
}

/// The stored tenants at the last read.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) revision: u64,
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
            store: Some(store),
            ..Self::default()
        }
    }

    pub(super) fn store(&self) -> Option<&Store> {
        self.store.as_ref()
    }
}
