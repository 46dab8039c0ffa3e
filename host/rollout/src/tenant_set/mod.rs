//! The running tenants, each with its seat, routes and counters, which survive a change of the configuration.

mod plan;

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use portcullis_config::{Config, TenantConfig};
use portcullis_dataplane::tenants::{Budget, Seat, Tenant, Tenants};
use portcullis_policy::{FleetTables, PolicySlot, Runtime, Scope, SettingsError};
use portcullis_records::Part;
use portcullis_sip::RouteError;
use thiserror::Error;
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinHandle};

use crate::compiler;
use crate::policy_files::PolicyFiles;
use crate::route_keeper::{RouteKeeper, RouteSources};
use crate::settings::{settings_of, takes};
use crate::shared_counters::counters_of;

use plan::{Carried, SetUp, plan, step};

pub(crate) use plan::Changes;

/// Number of generations that a seat retains in addition to those in use.
pub const RETAINED_GENERATIONS: usize = 4;

/// The running tenants, and what workers read of them.
pub(crate) struct TenantSet {
    runtime: Arc<Runtime>,
    workers: usize,
    sources: RouteSources,
    /// Notified when a policy fails too often.
    wake: Arc<Notify>,
    stop: watch::Receiver<bool>,
    /// The counters that the hosts of a fleet count together.
    fleet_tables: Arc<FleetTables>,
    current: Arc<ArcSwap<Tenants>>,
    /// The policy files of the operator's seats, `default` first.
    operators: Vec<Arc<PolicyFiles>>,
    running: Mutex<BTreeMap<String, Running>>,
    /// Held while the set is changed.
    changing: tokio::sync::Mutex<()>,
}

/// One running tenant.
struct Running {
    tenant: Arc<Tenant>,
    files: Arc<PolicyFiles>,
    /// Tasks that end with the tenant.
    tasks: Vec<AbortHandle>,
}

/// Why a tenant cannot be set up.
#[derive(Debug, Error)]
pub enum TenantSetError {
    /// A next hop or domain is invalid.
    #[error("tenant {tenant}: {source}")]
    Routes {
        /// The tenant.
        tenant: String,
        /// The error.
        source: RouteError,
    },
    /// The active generation or the candidate does not accept the new settings.
    #[error("tenant {tenant}: {source}")]
    Settings {
        /// The tenant.
        tenant: String,
        /// The error.
        source: SettingsError,
    },
}

impl TenantSet {
    /// Creates a set without tenants, with the operator's seats in `operator`, whose policy files are `operators`. `wake` is notified when
    /// a policy fails too often.
    pub(crate) fn new(
        operator: Tenants,
        operators: impl IntoIterator<Item = Arc<PolicyFiles>>,
        runtime: Arc<Runtime>,
        workers: usize,
        sources: RouteSources,
        wake: Arc<Notify>,
        stop: watch::Receiver<bool>,
    ) -> Self {
        Self {
            runtime,
            workers,
            sources,
            wake,
            stop,
            fleet_tables: Arc::default(),
            current: Arc::new(ArcSwap::from_pointee(operator)),
            operators: operators.into_iter().collect(),
            running: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
        }
    }

    /// Adds the counters of tenants that the hosts of a fleet count together to these.
    pub(crate) fn with_fleet_tables(self, fleet_tables: Arc<FleetTables>) -> Self {
        Self {
            fleet_tables,
            ..self
        }
    }

    /// Returns the current tenants, for workers to follow.
    pub(crate) fn current(&self) -> &Arc<ArcSwap<Tenants>> {
        &self.current
    }

    /// Returns the policy files of the operator's seats.
    pub(crate) fn operators(&self) -> &[Arc<PolicyFiles>] {
        &self.operators
    }

    /// Returns the policy files of the seat for requests of no tenant.
    pub(crate) fn default_files(&self) -> &Arc<PolicyFiles> {
        &self.operators[0]
    }

    /// Whether this is the name of an operator's seat.
    pub(crate) fn is_operators(&self, name: &str) -> bool {
        self.operators_files(name).is_some()
    }

    /// Returns the policy files of a seat: that of a tenant, `default`, `before` or `after`.
    pub(crate) fn files(&self, name: &str) -> Option<Arc<PolicyFiles>> {
        if let Some(files) = self.operators_files(name) {
            return Some(Arc::clone(files));
        }
        let running = self.running.lock();
        running.get(name).map(|running| Arc::clone(&running.files))
    }

    /// Returns all policy files: the operator's, then those of tenants, ordered by name.
    pub(crate) fn all_files(&self) -> Vec<Arc<PolicyFiles>> {
        let running = self.running.lock();
        let tenants = running.values().map(|running| Arc::clone(&running.files));
        self.operators.iter().cloned().chain(tenants).collect()
    }

    /// Returns the number of policies that are loaded at the same time.
    pub(crate) fn at_once(&self) -> usize {
        compiler::at_start(self.runtime.limits().compile_bytes)
    }

    /// Returns what has to change so that the tenants for which `is_meant` is true become these.
    pub(crate) fn plan<'c>(
        &self,
        wanted: &'c [Arc<TenantConfig>],
        is_meant: impl Fn(&str) -> bool,
    ) -> Changes<'c> {
        let current = self.current.load();
        let configs = configs_of(&current).filter(|(name, _)| is_meant(name));
        plan(&configs.collect(), wanted)
    }

    /// Replaces the set of tenants. Unchanged tenants are not touched; changed ones keep their policy generations and counters. Returns the
    /// policy files of new and changed tenants, whose policies are still to be loaded.
    ///
    /// # Errors
    /// If a tenant cannot be set up; then nothing changes.
    pub(crate) async fn apply(
        &self,
        config: &Config,
        wanted: &[Arc<TenantConfig>],
    ) -> Result<Vec<Arc<PolicyFiles>>, TenantSetError> {
        let _turn = self.changing.lock().await;
        let changes = self.plan(wanted, |_| true);
        let mut prepared = Vec::with_capacity(changes.set_up.len());
        for set_up in &changes.set_up {
            prepared.push((set_up, self.prepare(config, set_up).await?));
        }
        let mut fresh = Vec::new();
        let mut gone = Vec::new();
        {
            let mut running = self.running.lock();
            for (set_up, keeper) in prepared {
                let name = &set_up.config.name;
                let before = running.remove(name);
                let now = self.run(set_up, keeper, before.as_ref());
                gone.extend(before);
                fresh.push(Arc::clone(&now.files));
                running.insert(name.clone(), now);
            }
            let removed = changes.removed.iter();
            gone.extend(removed.filter_map(|name| running.remove(name)));
            let named = running
                .values()
                .map(|one| Arc::clone(&one.tenant))
                .collect();
            let operator = self.current.load();
            self.current.store(Arc::new(operator.with(named)));
        }
        for gone in &gone {
            gone.tasks.iter().for_each(AbortHandle::abort);
        }
        Ok(fresh)
    }

    /// Checks that a tenant with this configuration could be set up.
    ///
    /// # Errors
    /// If it could not.
    pub(crate) async fn check(
        &self,
        config: &Config,
        tenant: &Arc<TenantConfig>,
    ) -> Result<(), TenantSetError> {
        let before = {
            let running = self.running.lock();
            let running = running.get(&tenant.name);
            running.map(|running| Arc::clone(&running.tenant))
        };
        let before = before.as_ref().and_then(|before| before.config.as_deref());
        match step(before, tenant) {
            Some(set_up) => self.prepare(config, &set_up).await.map(drop),
            None => Ok(()),
        }
    }

    /// Ties a task to the tenant of these files: it ends with the tenant, or at once if the tenant no longer exists.
    pub(crate) fn end_with(&self, files: &Arc<PolicyFiles>, task: AbortHandle) {
        let mut running = self.running.lock();
        match running.get_mut(&*files.seat().name) {
            Some(running) if Arc::ptr_eq(&running.files, files) => running.tasks.push(task),
            _ => task.abort(),
        }
    }

    /// Performs everything that can fail in setting up a tenant: checks its settings, and resolves its routes.
    async fn prepare(
        &self,
        config: &Config,
        set_up: &SetUp<'_>,
    ) -> Result<RouteKeeper, TenantSetError> {
        let tenant = set_up.config;
        if set_up
            .carried
            .is_some_and(|carried| carried.asks_generations)
        {
            self.check_settings(tenant).await?;
        }
        let keeper = RouteKeeper::new(&config.relay, Some(tenant), &self.sources).await;
        keeper.map_err(|source| TenantSetError::Routes {
            tenant: tenant.name.clone(),
            source,
        })
    }

    /// Checks whether the policies in use of a tenant accept these settings.
    async fn check_settings(&self, tenant: &TenantConfig) -> Result<(), TenantSetError> {
        let lineup = self.files(&tenant.name);
        let Some(lineup) = lineup.and_then(|files| files.slot().lineup()) else {
            return Ok(());
        };
        let settings = settings_of(&tenant.seat);
        let candidate = lineup.candidate.as_ref().map(|one| &one.generation);
        for generation in candidate.into_iter().chain([&lineup.active]) {
            let taken = takes(generation, &settings).await;
            taken.map_err(|source| TenantSetError::Settings {
                tenant: tenant.name.clone(),
                source,
            })?;
        }
        Ok(())
    }

    fn operators_files(&self, name: &str) -> Option<&Arc<PolicyFiles>> {
        let mut operators = self.operators.iter();
        operators.find(|files| &*files.seat().name == name)
    }

    /// Sets a tenant up, with what it takes over from its predecessor of the same name.
    fn run(&self, set_up: &SetUp<'_>, keeper: RouteKeeper, before: Option<&Running>) -> Running {
        let config = set_up.config;
        let before = before.map(|before| &before.tenant);
        let slot = match before {
            Some(before) => Arc::clone(&before.seat.slot),
            None => Arc::new(PolicySlot::keeping(RETAINED_GENERATIONS)),
        };
        let counters = match before {
            Some(before) => Arc::clone(&before.counters),
            None => (0..self.workers).map(|_| Default::default()).collect(),
        };
        let counted = match (before, set_up.carried) {
            (Some(before), Some(Carried { counters: true, .. })) => {
                Arc::clone(before.seat.scope.counters())
            }
            _ => {
                let seat = &config.seat;
                let (most, together) = (seat.counters, &seat.fleet_counters);
                counters_of(&config.name, most, together, &self.fleet_tables)
            }
        };
        let routes = Arc::new(ArcSwap::from_pointee(keeper.routes()));
        let scope = scope_of(config)
            .with_routes(Arc::clone(&routes))
            .with_dispatcher(Arc::clone(&self.sources.dispatcher))
            .with_counters(counted)
            .with_settings(settings_of(&config.seat));
        let wake = Arc::clone(&self.wake);
        let seat = Seat::new(&config.name, slot, scope, Arc::clone(&config.seat), wake);
        let seat = Arc::new(seat);
        // A task takes 5 KiB, and most tenants have neither names nor sets.
        let follow = (!keeper.is_fixed())
            .then(|| tokio::spawn(keeper.watch(Arc::clone(&routes), self.stop.clone())));
        let files = PolicyFiles::new(Arc::clone(&seat), Arc::clone(&self.runtime));
        Running {
            tenant: Arc::new(Tenant {
                name: config.name.as_str().into(),
                seat,
                default: config.default.clone(),
                routes: Some(routes),
                budget: Budget::of(config, self.workers),
                known: in_order(&config.groups),
                records: Part::default(),
                counters,
                config: Some(Arc::clone(config)),
            }),
            files: Arc::new(files),
            tasks: follow.iter().map(JoinHandle::abort_handle).collect(),
        }
    }
}

/// Returns the configurations of running tenants, by name.
fn configs_of(tenants: &Tenants) -> impl Iterator<Item = (&str, &TenantConfig)> {
    let named = tenants.named.iter();
    named.filter_map(|tenant| Some((&*tenant.name, tenant.config.as_deref()?)))
}

/// Returns what a tenant's policy may query, change and use.
pub fn scope_of(config: &TenantConfig) -> Scope {
    Scope::tenant(&config.name)
        .with_groups(config.groups.iter().copied())
        .with_trusted(config.trusted)
        .with_log_rate(config.log_rate)
        .with_rules(config.rules.iter().map(String::as_str))
        .with_headers(config.headers.iter().map(String::as_str))
        .with_sets(config.sets.iter().copied())
        .with_targets(config.forwarding.targets)
}

fn in_order(groups: &[u32]) -> Box<[u32]> {
    let mut groups = groups.to_vec();
    groups.sort_unstable();
    groups.into()
}
