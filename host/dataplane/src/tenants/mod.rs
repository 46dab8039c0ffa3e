//! The tenant state that the data path reads: which policies decide on which requests, and how much each tenant may use.

mod budget;
mod pressure;
mod processor;
mod seat;
mod selector;
mod shadow;
mod sources;

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use portcullis_address::Table;
use portcullis_config::{DefaultVerdict, TenantConfig};
use portcullis_sip::{Routes, mark};

use portcullis_metrics::TenantCounters;
use portcullis_records::Part;
use portcullis_request::Request;

pub use budget::Budget;
pub use pressure::Pressure;
pub use processor::thread_time;
pub use seat::{Alert, OPERATORS, Seat};
pub use selector::Selector;
pub use shadow::{Beside, CallResult, Comparison, Difference, Offered, Shadow};
pub use sources::Source;

/// The operator and all tenants at one moment. Immutable; a change creates a new value.
#[derive(Debug)]
pub struct Tenants {
    /// The operator's policy that is called first for every request.
    pub before: Option<Arc<Seat>>,
    /// The operator's policy that is called if the tenant's policy passes.
    pub after: Option<Arc<Seat>>,
    /// The operator, for requests of no tenant.
    pub default: Arc<Tenant>,
    /// Sorted by name.
    pub named: Vec<Arc<Tenant>>,
    selector: Selector,
    /// Groups of the address table whose rows a tenant may change, sorted.
    edited: Box<[u32]>,
    /// Indices into `named`, by the [`mark`] of the name.
    marks: HashMap<u64, usize>,
}

/// One tenant, or the operator in the place of a tenant.
pub struct Tenant {
    /// Its name; `default` for the operator.
    pub name: Arc<str>,
    /// Its policy.
    pub seat: Arc<Seat>,
    /// The verdict if all policies pass.
    pub default: DefaultVerdict,
    /// Where its requests may be relayed to; `None` permits all destinations of the host.
    pub routes: Option<Arc<ArcSwap<Routes>>>,
    /// Its limits.
    pub budget: Budget,
    /// The groups of the address table with its known sources, sorted.
    pub known: Box<[u32]>,
    /// Its share of the records.
    pub records: Part,
    /// Its counters, one element per worker.
    pub counters: Arc<[TenantCounters]>,
    /// Its configuration; `None` for the operator.
    pub config: Option<Arc<TenantConfig>>,
}

impl Tenants {
    /// The operator without tenants.
    pub fn operator(
        default: Arc<Tenant>,
        before: Option<Arc<Seat>>,
        after: Option<Arc<Seat>>,
    ) -> Self {
        Self {
            before,
            after,
            default,
            named: Vec::new(),
            selector: Selector::default(),
            edited: Box::default(),
            marks: HashMap::new(),
        }
    }

    /// The same operator with these tenants, sorted by name.
    pub fn with(&self, named: Vec<Arc<Tenant>>) -> Self {
        let configs = named.iter().filter_map(|tenant| tenant.config.as_deref());
        Self {
            before: self.before.clone(),
            after: self.after.clone(),
            default: Arc::clone(&self.default),
            edited: edited(configs.clone()),
            selector: Selector::new(configs),
            marks: named
                .iter()
                .map(|tenant| mark(&tenant.name))
                .zip(0..)
                .collect(),
            named,
        }
    }

    /// The tenant of the request; `None` for the operator.
    #[inline]
    pub fn select(&self, request: &Request, table: &Table) -> Option<&Arc<Tenant>> {
        if self.named.is_empty() {
            return None;
        }
        let at = self.selector.select(request, table)?;
        self.named.get(at)
    }

    /// Whether a row of this group was written by the operator: no tenant may change rows of the group.
    pub fn is_operators(&self, group: u32) -> bool {
        self.edited.binary_search(&group).is_err()
    }

    /// The owner of a dialog with this mark: see [`portcullis_sip::Dialog::owner`]. `None` if the tenant no longer exists.
    pub fn owner(&self, mark: Option<u64>) -> Option<&Arc<Tenant>> {
        match mark {
            None => Some(&self.default),
            Some(mark) => self.named.get(*self.marks.get(&mark)?),
        }
    }

    /// All seats.
    pub fn seats(&self) -> impl Iterator<Item = &Arc<Seat>> {
        let tenants = [&self.default].into_iter().chain(&self.named);
        let operators = self.before.iter().chain(&self.after);
        tenants.map(|tenant| &tenant.seat).chain(operators)
    }

    /// The operator and all tenants.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Tenant>> {
        [&self.default].into_iter().chain(&self.named)
    }

    /// The seat with this name: that of a tenant, `default`, `before` or `after`.
    pub fn seat(&self, name: &str) -> Option<&Arc<Seat>> {
        self.seats().find(|seat| &*seat.name == name)
    }
}

impl Tenant {
    /// Whether the source is known to the tenant: it is in one of its groups.
    #[inline]
    pub fn knows(&self, source: SocketAddr, table: &Table) -> bool {
        let entries = table.lookup(source.ip());
        !self.known.is_empty() && entries.first_of(source.port(), &self.known).is_some()
    }
}

fn edited<'c>(tenants: impl Iterator<Item = &'c TenantConfig>) -> Box<[u32]> {
    let groups = tenants.flat_map(|tenant| tenant.edit.groups.iter().copied());
    let mut groups: Vec<_> = groups.collect();
    groups.sort_unstable();
    groups.dedup();
    groups.into()
}

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tenant")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
