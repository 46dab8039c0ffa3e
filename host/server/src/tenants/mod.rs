//! Who decides on which requests: the operator's policies and those of the tenants.

mod breaker;
mod budget;
mod directory;
mod pressure;
mod processor;
mod reconfigure;
mod registry;
mod sandboxes;
mod seat;
mod selector;
mod settings;
mod shadow;
mod shipping;
mod stored;

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use portcullis_address::Table;
use portcullis_sip::Routes;

use crate::config::{DefaultVerdict, TenantConfig};
use crate::metrics::TenantCounters;
use crate::pipeline::PolicyRequest;

pub use breaker::{Breaker, Tripped};
pub use budget::Budget;
pub use directory::TenantError;
pub use pressure::Pressure;
pub use processor::thread_time;
pub use reconfigure::{ReconfigureError, Reconfigured};
pub use registry::{Registry, RegistryError};
pub use seat::{Alert, Seat};
pub use shadow::{Comparison, Difference, Shadow};
pub use shipping::{Arrival, Provenance, Push, ShipError};

use selector::Selector;

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
            named,
        }
    }

    /// The tenant that the request is of; none for the operator.
    #[inline]
    pub fn select(&self, request: &PolicyRequest, table: &Table) -> Option<&Arc<Tenant>> {
        if self.named.is_empty() {
            return None;
        }
        let at = self.selector.select(request, table)?;
        self.named.get(at)
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

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tenant")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
