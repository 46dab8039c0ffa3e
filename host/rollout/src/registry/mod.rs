//! The tenants of a running host, each with its policy, routes and counters, which survive a change of the configuration.

mod config_file;
mod directory;
mod known;
mod reconfigure;
mod rollouts;
mod sandboxes;
mod start;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::stream::{self, StreamExt};
use portcullis_config::{Config, SeatConfig, TenantConfig};
use portcullis_dataplane::tenants::{Budget, Seat, Shadow, Tenant, Tenants};
use portcullis_dispatcher::Dispatcher;
use portcullis_fleet::host_name;
use portcullis_policy::{FleetTables, Generation, PolicySlot, Runtime, RuntimeError, Scope};
use portcullis_records::Part;
use portcullis_sip::Routes;
use portcullis_store::Store;
use thiserror::Error;
use tokio::sync::{Notify, broadcast, watch};

use crate::aside::Aside;
use crate::compiler::Occasion;
use crate::deployments::{Deployments, Moved};
use crate::policy_files::{PolicyFileError, PolicyFiles};
use crate::progress::Loading;
use crate::resolve::Dns;
use crate::route_keeper::RouteSources;
use crate::settings::{forget_what_refuses, settings_of};
use crate::shared_counters::counters_of;
use crate::tenant_set::{RETAINED_GENERATIONS, TenantSet, TenantSetError};

use config_file::ConfigFile;
use known::Directory;
use sandboxes::{kept_by_each, least_instances};

pub use directory::TenantError;
pub use reconfigure::{ReconfigureError, Reconfigured};
pub use start::Start;

/// Interval between two checks for old policies that no worker uses any more.
const COLLECT: Duration = Duration::from_secs(1);

/// Longest interval between two checks for changes by other hosts.
const FOLLOW: Duration = Duration::from_secs(1);
/// Moves of roll-outs that wait to be noted in the audit.
const MOVES: usize = 64;

/// Names of the operator's seats.
const DEFAULT: &str = "default";
const BEFORE: &str = "before";
const AFTER: &str = "after";

/// Everything behind [`Tenants`] that workers do not need.
pub struct Registry {
    runtime: Arc<Runtime>,
    shadow: Shadow,
    sandboxes: usize,
    /// The engine for policies that are called without effect.
    aside: Aside,
    routes: Arc<ArcSwap<Routes>>,
    sources: RouteSources,
    /// Notified when a policy fails too often.
    wake: Arc<Notify>,
    tenants: Arc<TenantSet>,
    deployments: Deployments,
    /// The stored tenants.
    directory: Directory,
    /// Progress of the start.
    loading: Arc<Loading>,
    /// The counters that the hosts of a fleet count together.
    fleet_tables: Arc<FleetTables>,
    /// The name of this host among those on its database.
    name: String,
    /// The moves of roll-outs that this host makes.
    moves: broadcast::Sender<Moved>,
    /// The configuration file, to read it again; `None` for a host without one.
    file: Option<ConfigFile>,
}

/// Why the tenants cannot be set up.
#[derive(Debug, Error)]
pub enum RegistryError {
    /// The engine cannot be created.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The thread for shadow trials cannot be started.
    #[error("the thread for shadow trials cannot be started: {0}")]
    Thread(#[from] std::io::Error),
    /// A policy of the operator cannot be used.
    #[error("no policy to start with{}: {source}", of(.seat))]
    Policy {
        /// The seat.
        seat: String,
        /// The error.
        source: PolicyFileError,
    },
    /// A tenant cannot be set up.
    #[error(transparent)]
    Tenants(#[from] TenantSetError),
}

impl Registry {
    /// Creates the engine and the operator's seats, without policies.
    ///
    /// # Errors
    /// If the engine cannot be created.
    pub fn new(
        config: &Config,
        workers: usize,
        stop: watch::Receiver<bool>,
    ) -> Result<Self, RegistryError> {
        let mut limits = config.policy.seat.limits.clone();
        let least = least_instances(workers);
        limits.instances = limits.instances.max(least);
        let shadow = Shadow::start(limits.stack_bytes, &config.records)?;
        let aside = Aside::new(&limits);
        let runtime = Arc::new(Runtime::with_pool(limits, least)?);
        runtime.warm_up_for(workers);
        let sandboxes = kept_by_each(workers, runtime.limits().instances);
        let wake = Arc::new(Notify::new());
        let routes = Arc::<ArcSwap<Routes>>::default();
        let sources = RouteSources {
            dispatcher: Arc::new(config.dispatcher.dispatcher(&config.database)),
            dns: Dns::new(&config.resolver),
        };
        let fleet_tables = Arc::<FleetTables>::default();
        let files_of = |name: &str, config: &SeatConfig| {
            let slot = Arc::new(PolicySlot::keeping(RETAINED_GENERATIONS));
            let counters =
                counters_of(name, config.counters, &config.fleet_counters, &fleet_tables);
            let scope = Scope::operator()
                .with_routes(Arc::clone(&routes))
                .with_dispatcher(Arc::clone(&sources.dispatcher))
                .with_counters(counters)
                .with_settings(settings_of(config));
            let seat = Seat::new(name, slot, scope, config.clone(), Arc::clone(&wake));
            Arc::new(PolicyFiles::new(Arc::new(seat), Arc::clone(&runtime)))
        };
        let policy = &config.policy;
        let default = files_of(DEFAULT, &policy.seat);
        let before = policy
            .before
            .as_ref()
            .map(|config| files_of(BEFORE, config));
        let after = policy.after.as_ref().map(|config| files_of(AFTER, config));
        let operator = Tenant {
            name: DEFAULT.into(),
            seat: Arc::clone(default.seat()),
            default: policy.default.clone(),
            routes: None,
            budget: Budget::unlimited(workers),
            known: Box::default(),
            records: Part::default(),
            counters: (0..workers).map(|_| Default::default()).collect(),
            config: None,
        };
        let seat_of =
            |files: &Option<Arc<PolicyFiles>>| files.as_ref().map(|files| Arc::clone(files.seat()));
        let tenants = Tenants::operator(Arc::new(operator), seat_of(&before), seat_of(&after));
        let tenants = TenantSet::new(
            tenants,
            [Some(default), before, after].into_iter().flatten(),
            Arc::clone(&runtime),
            workers,
            sources.clone(),
            Arc::clone(&wake),
            stop,
        )
        .with_fleet_tables(Arc::clone(&fleet_tables));
        let tenants = Arc::new(tenants);
        let loading = Arc::new(Loading::default());
        Ok(Self {
            runtime,
            shadow,
            sandboxes,
            aside,
            routes,
            sources,
            wake,
            deployments: Deployments::new(Arc::clone(&tenants), Arc::clone(&loading)),
            tenants,
            directory: Directory::default(),
            loading,
            fleet_tables,
            name: host_name(config.fleet.name.as_deref()),
            moves: broadcast::channel(MOVES).0,
            file: None,
        })
    }

    /// Returns the counters of all seats that the hosts of a fleet count together.
    pub fn fleet_tables(&self) -> &Arc<FleetTables> {
        &self.fleet_tables
    }

    /// Adds the database of policies and tenants. They are loaded by [`Registry::start`].
    pub fn with_store(self, store: Store) -> Self {
        Self {
            deployments: self.deployments.with_store(store.clone()),
            directory: Directory::new(store),
            ..self
        }
    }

    /// Adds the file from which the configuration was read.
    pub fn with_file(self, path: PathBuf, running: Config) -> Self {
        Self {
            file: Some(ConfigFile { path, running }),
            ..self
        }
    }

    /// Returns the database of policies and tenants; `None` for a host without one.
    pub fn database(&self) -> Option<&Store> {
        self.directory.store()
    }

    /// Returns the file from which the configuration was read; `None` for a host without one.
    pub fn config_file(&self) -> Option<&Path> {
        self.file.as_ref().map(|file| file.path.as_path())
    }

    /// Returns the routes of the operator, which targets of the operator's policies must follow. They are empty until the host stores the
    /// resolved ones.
    pub fn routes(&self) -> &Arc<ArcSwap<Routes>> {
        &self.routes
    }

    /// Returns what resolves the names of routes.
    pub fn dns(&self) -> &Arc<Dns> {
        &self.sources.dns
    }

    /// Returns what routes are made of, beside the configuration.
    pub fn route_sources(&self) -> &RouteSources {
        &self.sources
    }

    /// Returns the sets of the dispatcher. They are empty until the host loads them.
    pub fn dispatcher(&self) -> &Arc<Dispatcher> {
        &self.sources.dispatcher
    }

    /// Returns the deployments of all seats.
    pub fn deployments(&self) -> &Deployments {
        &self.deployments
    }

    /// Returns the current tenants, for workers to follow.
    pub fn current(&self) -> &Arc<ArcSwap<Tenants>> {
        self.tenants.current()
    }

    /// Returns the handle of the thread for shadow trials.
    pub fn shadow(&self) -> &Shadow {
        &self.shadow
    }

    /// Returns the engine that runs all policies.
    pub fn runtime(&self) -> &Arc<Runtime> {
        &self.runtime
    }

    /// Returns the engine for policies that are called without effect.
    pub fn aside(&self) -> &Aside {
        &self.aside
    }

    /// Returns the number of sandboxes that each worker may keep.
    pub fn sandboxes(&self) -> usize {
        self.sandboxes
    }

    /// Returns the policy files of the seat for requests of no tenant.
    pub fn default_files(&self) -> &Arc<PolicyFiles> {
        self.tenants.default_files()
    }

    /// Returns the policy files of a seat: that of a tenant, `default`, `before` or `after`.
    pub fn files(&self, name: &str) -> Option<Arc<PolicyFiles>> {
        self.tenants.files(name)
    }

    /// Returns all policy files: the operator's, then those of tenants, ordered by name.
    pub fn all_files(&self) -> Vec<Arc<PolicyFiles>> {
        self.tenants.all_files()
    }

    /// Loads the operator's policies. The host does not start with a verdict other than the operator's.
    ///
    /// # Errors
    /// If a file is configured and cannot be used.
    pub async fn load_operators(&self) -> Result<(), RegistryError> {
        for files in self.tenants.operators() {
            if files.file().is_none() {
                continue;
            }
            let seat = files.seat().name.to_string();
            let loaded = files.load_on(Occasion::Start).await;
            loaded.map_err(|source| RegistryError::Policy { seat, source })?;
        }
        Ok(())
    }

    /// Replaces the set of tenants, and loads the policies of new and changed ones. Unchanged tenants are not touched; changed ones keep
    /// their policy generations and counters. A tenant whose policy cannot be loaded is set up as well: its requests get `load` of
    /// `on-failure`.
    ///
    /// # Errors
    /// If a tenant cannot be set up; then nothing changes.
    pub async fn apply(
        &self,
        config: &Config,
        tenants: &[Arc<TenantConfig>],
    ) -> Result<(), RegistryError> {
        let fresh = self.set_up(config, tenants).await?;
        self.load_all(fresh).await;
        Ok(())
    }

    /// Replaces the set of tenants. Returns the policy files of new and changed tenants, whose policies are still to be loaded.
    async fn set_up(
        &self,
        config: &Config,
        tenants: &[Arc<TenantConfig>],
    ) -> Result<Vec<Arc<PolicyFiles>>, RegistryError> {
        let fresh = self.tenants.apply(config, tenants).await?;
        for files in &fresh {
            self.deployments.forget(&files.seat().name);
        }
        Ok(fresh)
    }

    /// Loads the policies of tenants that have been set up.
    async fn load_all(&self, fresh: Vec<Arc<PolicyFiles>>) {
        self.load_fresh(fresh, Occasion::Usual).await;
        // For new and changed tenants, stored policies take precedence over files.
        self.deployments.sync().await;
    }

    /// Loads the policy files of tenants, several at a time, and follows them.
    async fn load_fresh(&self, fresh: Vec<Arc<PolicyFiles>>, occasion: Occasion) {
        let load = |files: Arc<PolicyFiles>| async move {
            forget_what_refuses(files.seat()).await;
            if files.file().is_some() {
                self.watch(&files, occasion).await;
                self.loading.step();
            }
        };
        stream::iter(fresh)
            .for_each_concurrent(self.tenants.at_once(), load)
            .await;
    }

    /// Reloads every policy file. The results are in the log.
    pub async fn reload_all(&self) {
        for files in self.all_files() {
            if files.file().is_some() {
                let _told_in_the_log = files.reload().await;
            }
        }
    }

    /// Runs as long as the host: follows the operator's files, takes policies out of service that fail too often, and frees what is no
    /// longer used. The database is followed by a task of its own, so that nothing here waits for it.
    pub async fn tend(self: Arc<Self>) {
        for files in self.tenants.operators() {
            tokio::spawn(Arc::clone(files).watch());
        }
        tokio::spawn(Arc::clone(&self).follow_database());
        tokio::spawn(Arc::clone(&self).move_rollouts());
        let mut tick = tokio::time::interval(COLLECT);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = self.wake.notified() => {}
            }
            for files in self.all_files() {
                let seat = files.seat();
                if let Some((from, to)) = seat.tend() {
                    self.deployments.note_fall_back(&files, from, to);
                }
                seat.slot.collect();
            }
        }
    }

    /// Follows the database as long as the host runs.
    async fn follow_database(self: Arc<Self>) {
        let Some(mut follower) = self.deployments.follower(FOLLOW) else {
            return;
        };
        loop {
            let looked = self.deployments.next_look(&mut follower).await;
            // The start itself applies the stored state to all seats.
            if self.progress().is_some() {
                continue;
            }
            let looked = looked.as_deref();
            let has_answered = self.deployments.follow(looked).await;
            if has_answered {
                self.sync_tenants(looked).await;
            }
            follower.done(has_answered.then_some(Duration::ZERO));
        }
    }

    /// Whether an active policy or a candidate imports an interface of the contract.
    pub fn asks_for(&self, interface: &str) -> bool {
        let asks = |generation: &Generation| generation.policy.inspection().asks_for(interface);
        self.all_files().iter().any(|files| {
            let lineup = files.slot().lineup();
            lineup.is_some_and(|lineup| {
                let candidate = lineup.candidate.as_ref();
                asks(&lineup.active) || candidate.is_some_and(|one| asks(&one.generation))
            })
        })
    }

    /// Loads the policy of a tenant and follows its file.
    async fn watch(&self, files: &Arc<PolicyFiles>, occasion: Occasion) {
        if let Err(error) = files.load_on(occasion).await {
            tracing::error!(event = "tenant_without_policy", tenant = &*files.seat().name, %error, "tenant has no policy");
        }
        let task = tokio::spawn(Arc::clone(files).watch()).abort_handle();
        self.tenants.end_with(files, task);
    }
}

fn of(seat: &str) -> String {
    match seat {
        DEFAULT => String::new(),
        seat => format!(" in [policy.{seat}]"),
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
