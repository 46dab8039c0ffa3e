//! What the data path reads of tenants: who decides on which requests, and how much each tenant may take.

mod breaker;
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

pub use breaker::{Breaker, Tripped};
pub use budget::Budget;
pub use pressure::Pressure;
pub use processor::thread_time;
pub use seat::{Alert, OPERATORS, Seat};
pub use selector::Selector;
pub use shadow::{Comparison, Difference, Shadow};
pub use sources::Source;

/// Everybody who decides, at one moment. Immutable; a change of the tenants is a new one.
#[derive(Debug)]
pub struct Tenants {
    /// The operator's policy that is asked about every request first.
    pub before: Option<Arc<Seat>>,
    /// The operator's policy that is asked about what the tenant's has no opinion on.
    pub after: Option<Arc<Seat>>,
    /// What no tenant claims.
    pub default: Arc<Tenant>,
    /// In the order of their names.
    pub named: Vec<Arc<Tenant>>,
    selector: Selector,
    /// The places in `named` by [`mark`] of the name.
    marks: HashMap<u64, usize>,
}

/// One tenant, or the operator in the place of one.
pub struct Tenant {
    /// Its name; `default` for the operator.
    pub name: Arc<str>,
    /// Its policy.
    pub seat: Arc<Seat>,
    /// What happens to a request that no policy has an opinion on.
    pub default: DefaultVerdict,
    /// Where its requests may go; none for where all may.
    pub routes: Option<Arc<ArcSwap<Routes>>>,
    /// What it may take.
    pub budget: Budget,
    /// The groups of the address table whose sources it knows, in order.
    pub known: Box<[u32]>,
    /// What it has had of the records.
    pub records: Part,
    /// What became of its requests, for each worker.
    pub counters: Arc<[TenantCounters]>,
    /// As it is configured; none for the operator.
    pub config: Option<TenantConfig>,
}

impl Tenants {
    /// Nobody but the operator.
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
            marks: HashMap::new(),
        }
    }

    /// The same operator with these tenants, sorted by name.
    pub fn with(&self, named: Vec<Arc<Tenant>>) -> Self {
        let configs = named.iter().filter_map(|tenant| tenant.config.as_ref());
        Self {
            before: self.before.clone(),
            after: self.after.clone(),
            default: Arc::clone(&self.default),
            selector: Selector::new(configs),
            marks: named
                .iter()
                .map(|tenant| mark(&tenant.name))
                .zip(0..)
                .collect(),
            named,
        }
    }

    /// The tenant that the request is of; none for the operator.
    #[inline]
    pub fn select(&self, request: &Request, table: &Table) -> Option<&Arc<Tenant>> {
        if self.named.is_empty() {
            return None;
        }
        let at = self.selector.select(request, table)?;
        self.named.get(at)
    }

    /// Whose a dialog is with this mark: see [`portcullis_sip::Dialog::owner`]. None for a tenant that is no more.
    pub fn owner(&self, mark: Option<u64>) -> Option<&Arc<Tenant>> {
        match mark {
            None => Some(&self.default),
            Some(mark) => self.named.get(*self.marks.get(&mark)?),
        }
    }

    /// Every policy's seat.
    pub fn seats(&self) -> impl Iterator<Item = &Arc<Seat>> {
        let tenants = [&self.default].into_iter().chain(&self.named);
        let operators = self.before.iter().chain(&self.after);
        tenants.map(|tenant| &tenant.seat).chain(operators)
    }

    /// The operator and all tenants.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Tenant>> {
        [&self.default].into_iter().chain(&self.named)
    }

    /// The seat of this name: that of a tenant, `default`, `before` or `after`.
    pub fn seat(&self, name: &str) -> Option<&Arc<Seat>> {
        self.seats().find(|seat| &*seat.name == name)
    }
}

impl Tenant {
    /// Whether the tenant knows this source: one of its groups has it.
    #[inline]
    pub fn knows(&self, source: SocketAddr, table: &Table) -> bool {
        let entries = table.lookup(source.ip());
        !self.known.is_empty() && entries.first_of(source.port(), &self.known).is_some()
    }
}

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tenant")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
