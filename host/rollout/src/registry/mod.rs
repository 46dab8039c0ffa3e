//! Keeps the tenants of a running host: each with its policy, its routes and its counters, from one configuration to the next.

mod adoption;
mod directory;
mod fall_backs;
mod reconfigure;
mod sandboxes;
mod settings;
mod shipping;
mod start;
mod stored;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::stream::{self, StreamExt};
use parking_lot::Mutex;
use portcullis_config::{Config, SeatConfig, TenantConfig};
use portcullis_dataplane::tenants::{Budget, Seat, Shadow, Tenant, Tenants};
use portcullis_policy::{
    Counters, Generation, PolicySlot, Runtime, RuntimeError, Scope, Settings, SettingsError,
};
use portcullis_records::Part;
use portcullis_request::PolicyRequest;
use portcullis_sip::RouteError;
use portcullis_store::Store;
use thiserror::Error;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use crate::compiler::{self, Occasion};
use crate::policy_files::{PolicyFileError, PolicyFiles};
use crate::resolve::Resolver;

use directory::Directory;
use reconfigure::ConfigFile;
use sandboxes::{kept_by_each, least_instances};
use settings::forget_what_refuses;
use shipping::Manifest;
use start::Loading;
use stored::state::Stored;

pub use directory::TenantError;
pub use reconfigure::{ReconfigureError, Reconfigured};
pub use shipping::{Arrival, Provenance, Push, Reserved, ShipError};
pub use start::{Progress, Start};
pub use stored::StoreStatus;

/// Generations that a seat keeps beside those that serve.
const KEPT: usize = 4;

/// How often old policies are looked for that no worker has any more.
const COLLECT: Duration = Duration::from_secs(1);

/// The names of the operator's seats.
const DEFAULT: &str = "default";
const BEFORE: &str = "before";
const AFTER: &str = "after";

/// Everything behind [`Tenants`] that is not for workers.
pub struct Registry {
    runtime: Arc<Runtime>,
    shadow: Shadow,
    workers: usize,
    sandboxes: usize,
    current: Arc<ArcSwap<Tenants>>,
    /// Told when a policy fails too often.
    wake: Arc<Notify>,
    operators: Vec<Arc<PolicyFiles>>,
    held: Mutex<BTreeMap<String, Held>>,
    manifest: Manifest,
    /// The database of pushed policies; none for a host that keeps them in memory.
    stored: Option<Stored>,
    /// The tenants in the database.
    directory: Directory,
    /// How far the start is.
    loading: Loading,
    /// What the host was started with, to read it again; none for one without a file.
    file: Option<ConfigFile>,
    stop: watch::Receiver<bool>,
}

/// What belongs to one tenant.
struct Held {
    tenant: Arc<Tenant>,
    files: Arc<PolicyFiles>,
    /// Ended with it.
    tasks: Vec<AbortHandle>,
}

/// Why the tenants can't be set up.
#[derive(Debug, Error)]
pub enum RegistryError {
    /// There is no engine.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The thread that asks candidates can't be started.
    #[error("the thread that tries policies out can't be started: {0}")]
    Thread(#[from] std::io::Error),
    /// A policy of the operator's can't be used.
    #[error("no policy to start with{}: {source}", of(.seat))]
    Policy {
        /// Its seat.
        seat: String,
        /// What is wrong with it.
        source: PolicyFileError,
    },
    /// A tenant's next hop or domain is none.
    #[error("tenant {tenant}: {source}")]
    Routes {
        /// The tenant.
        tenant: String,
        /// What is wrong.
        source: RouteError,
    },
    /// The policy that serves a tenant, or is tried out, does not take its new settings.
    #[error("tenant {tenant}: {source}")]
    Settings {
        /// The tenant.
        tenant: String,
        /// What is wrong.
        source: SettingsError,
    },
}

impl Registry {
    /// Sets up the engine and the operator's seats, with nobody in them.
    ///
    /// # Errors
    /// When there is no engine.
    pub fn new(
        config: &Config,
        workers: usize,
        stop: watch::Receiver<bool>,
    ) -> Result<Self, RegistryError> {
        let mut limits = config.policy.seat.limits.clone();
        let least = least_instances(workers);
        limits.instances = limits.instances.max(least);
        let shadow = Shadow::start(limits.stack_bytes, &config.records)?;
        let runtime = Arc::new(Runtime::with_pool(limits, least)?);
        let sandboxes = kept_by_each(workers, runtime.limits().instances);
        let wake = Arc::new(Notify::new());
        let files_of = |name: &str, config: &SeatConfig| {
            let slot = Arc::new(PolicySlot::keeping(KEPT));
            let counters = Arc::new(Counters::new(config.counters));
            let scope = Scope::operator()
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
        Ok(Self {
            runtime,
            shadow,
            workers,
            sandboxes,
            current: Arc::new(ArcSwap::from_pointee(tenants)),
            wake,
            operators: [Some(default), before, after]
                .into_iter()
                .flatten()
                .collect(),
            held: Mutex::default(),
            manifest: Manifest::default(),
            stored: None,
            directory: Directory::default(),
            loading: Loading::default(),
            file: None,
            stop,
        })
    }

    /// The same with the policies that are in this database. They come with [`Registry::sync`].
    pub fn with_store(self, store: Store) -> Self {
        Self {
            stored: Some(Stored::new(store)),
            ..self
        }
    }

    /// The same with the file that the configuration came from.
    pub fn with_file(self, path: PathBuf, running: Config) -> Self {
        Self {
            file: Some(ConfigFile { path, running }),
            ..self
        }
    }

    /// Who decides at the moment, for workers to follow.
    pub fn current(&self) -> &Arc<ArcSwap<Tenants>> {
        &self.current
    }

    /// The way to the thread that asks candidates.
    pub fn shadow(&self) -> &Shadow {
        &self.shadow
    }

    /// The engine that runs all policies.
    pub fn runtime(&self) -> &Arc<Runtime> {
        &self.runtime
    }

    /// Sandboxes that each worker may keep.
    pub fn sandboxes(&self) -> usize {
        self.sandboxes
    }

    /// The policy that decides on what no tenant claims.
    pub fn default_files(&self) -> &Arc<PolicyFiles> {
        &self.operators[0]
    }

    /// The policy files of this seat: that of a tenant, `default`, `before` or `after`.
    pub fn files(&self, name: &str) -> Option<Arc<PolicyFiles>> {
        let mut operators = self.operators.iter();
        let own = operators.find(|files| &*files.seat().name == name);
        own.cloned().or_else(|| {
            self.held
                .lock()
                .get(name)
                .map(|held| Arc::clone(&held.files))
        })
    }

    /// All policy files: the operator's, then the tenants' in the order of their names.
    pub fn all_files(&self) -> Vec<Arc<PolicyFiles>> {
        let held = self.held.lock();
        let tenants = held.values().map(|held| Arc::clone(&held.files));
        self.operators.iter().cloned().chain(tenants).collect()
    }

    /// Loads the operator's policies. Another verdict than the operator means is no way to start.
    ///
    /// # Errors
    /// When a file is named and can't be used.
    pub async fn load_operators(&self) -> Result<(), RegistryError> {
        for files in &self.operators {
            if files.file().is_none() {
                continue;
            }
            let seat = files.seat().name.to_string();
            let loaded = files.load_on(Occasion::Start).await;
            loaded.map_err(|source| RegistryError::Policy { seat, source })?;
        }
        Ok(())
    }

    /// Makes these the tenants. Those that are as they were go on as they are; of those that are not, generations and counters do.
    /// A tenant whose policy can't be loaded is there all the same: its requests get what its configuration says for that.
    ///
    /// # Errors
    /// When one can't be set up; then nothing has changed.
    pub async fn apply(
        &self,
        config: &Config,
        tenants: &[TenantConfig],
    ) -> Result<(), RegistryError> {
        let fresh = self.set_up(config, tenants).await?;
        self.load_all(fresh).await;
        Ok(())
    }

    /// Makes these the tenants, and gives the policy files of those that are new or others than they were: they are still to be loaded.
    async fn set_up(
        &self,
        config: &Config,
        tenants: &[TenantConfig],
    ) -> Result<Vec<Arc<PolicyFiles>>, RegistryError> {
        let mut resolvers = Vec::new();
        for tenant in tenants {
            let resolver = match self.is_as_it_was(tenant) {
                true => None,
                false => {
                    self.check_settings(tenant).await?;
                    Some(self.resolver(config, tenant).await?)
                }
            };
            resolvers.push(resolver);
        }
        let mut fresh = Vec::new();
        let mut gone = Vec::new();
        {
            let mut held = self.held.lock();
            let mut old = std::mem::take(&mut *held);
            for (tenant, resolver) in tenants.iter().zip(resolvers) {
                let before = old.remove(&tenant.name);
                let now = match (before, resolver) {
                    (Some(before), None) => before,
                    (before, Some(resolver)) => {
                        let now = self.hold(tenant, resolver, before.as_ref());
                        gone.extend(before);
                        fresh.push(Arc::clone(&now.files));
                        now
                    }
                    // It went while its names were looked up; whoever took it away comes after.
                    (None, None) => continue,
                };
                held.insert(tenant.name.clone(), now);
            }
            gone.extend(old.into_values());
            let named = held.values().map(|held| Arc::clone(&held.tenant)).collect();
            let operator = self.current.load();
            self.current.store(Arc::new(operator.with(named)));
        }
        for gone in &gone {
            gone.tasks.iter().for_each(AbortHandle::abort);
        }
        for files in &fresh {
            self.forget(&files.seat().name);
        }
        Ok(fresh)
    }

    /// Loads the policies of tenants that have been set up.
    async fn load_all(&self, fresh: Vec<Arc<PolicyFiles>>) {
        self.load_fresh(fresh, Occasion::Usual).await;
        // What is stored of those that are new or others goes before what the file says.
        self.sync().await;
    }

    /// Loads the policies that tenants have as files, several at a time, and follows the files.
    async fn load_fresh(&self, fresh: Vec<Arc<PolicyFiles>>, occasion: Occasion) {
        let load = |files: Arc<PolicyFiles>| async move {
            forget_what_refuses(files.seat()).await;
            if files.file().is_some() {
                self.watch(&files, occasion).await;
                self.loading.step();
            }
        };
        stream::iter(fresh)
            .for_each_concurrent(self.at_once(), load)
            .await;
    }

    /// Policies that are loaded at the same time.
    fn at_once(&self) -> usize {
        compiler::at_start(self.runtime.limits().compile_bytes)
    }

    /// Reloads the file of every policy. How each went is in the log.
    pub async fn reload_all(&self) {
        for files in self.all_files() {
            if files.file().is_some() {
                let _told_in_the_log = files.reload().await;
            }
        }
    }

    /// Looks after all policies for as long as the host runs: follows the operator's files, takes those out of service that fail too
    /// often, and frees what is no longer needed. The database is followed beside it, so that nothing here waits for it.
    pub async fn tend(self: Arc<Self>) {
        for files in &self.operators {
            tokio::spawn(Arc::clone(files).watch());
        }
        tokio::spawn(Arc::clone(&self).follow_database());
        let mut tick = tokio::time::interval(COLLECT);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = self.wake.notified() => {}
            }
            for files in self.all_files() {
                let seat = files.seat();
                if let Some((from, to)) = seat.tend() {
                    self.note_fall_back(&files, from, to);
                }
                seat.slot.collect();
            }
        }
    }

    /// Whether a policy that serves or is tried imports an interface of the contract.
    pub fn asks_for(&self, interface: &str) -> bool {
        let asks = |generation: &Generation<PolicyRequest>| {
            generation.policy.inspection().asks_for(interface)
        };
        self.all_files().iter().any(|files| {
            let lineup = files.slot().lineup();
            lineup.is_some_and(|lineup| {
                let candidate = lineup.candidate.as_ref();
                asks(&lineup.active) || candidate.is_some_and(|one| asks(&one.generation))
            })
        })
    }

    fn is_as_it_was(&self, tenant: &TenantConfig) -> bool {
        let held = self.held.lock();
        let before = held.get(&tenant.name);
        before.is_some_and(|held| held.tenant.config.as_ref() == Some(tenant))
    }

    /// Whether a tenant could be set up as it is configured.
    async fn check(&self, config: &Config, tenant: &TenantConfig) -> Result<(), RegistryError> {
        if self.is_as_it_was(tenant) {
            return Ok(());
        }
        self.check_settings(tenant).await?;
        self.resolver(config, tenant).await.map(drop)
    }

    /// The generations of a tenant that is there already with other settings. One that comes from a file will be loaded again,
    /// maybe another one, and asked then.
    fn slot_with_other_settings(
        &self,
        tenant: &TenantConfig,
    ) -> Option<Arc<PolicySlot<PolicyRequest>>> {
        let held = self.held.lock();
        let seat = &held.get(&tenant.name)?.tenant.seat;
        let asks_for_it =
            seat.config.settings != tenant.seat.settings && tenant.seat.file.is_none();
        asks_for_it.then(|| Arc::clone(&seat.slot))
    }

    async fn resolver(
        &self,
        config: &Config,
        tenant: &TenantConfig,
    ) -> Result<Resolver, RegistryError> {
        let resolver = Resolver::of_tenant(&config.relay, tenant);
        let mut resolver = resolver.map_err(|source| RegistryError::Routes {
            tenant: tenant.name.clone(),
            source,
        })?;
        resolver.resolve().await;
        Ok(resolver)
    }

    fn hold(&self, config: &TenantConfig, resolver: Resolver, before: Option<&Held>) -> Held {
        let slot = match before {
            Some(before) => Arc::clone(&before.tenant.seat.slot),
            None => Arc::new(PolicySlot::keeping(KEPT)),
        };
        let counters = match before {
            Some(before) => Arc::clone(&before.tenant.counters),
            None => (0..self.workers).map(|_| Default::default()).collect(),
        };
        // What was counted goes on, unless there is to be other room for it.
        let before =
            before.filter(|before| before.tenant.seat.config.counters == config.seat.counters);
        let counted = match before {
            Some(before) => Arc::clone(before.tenant.seat.scope.counters()),
            None => Arc::new(Counters::new(config.seat.counters)),
        };
        let wake = Arc::clone(&self.wake);
        let seat = Seat::new(
            &config.name,
            slot,
            scope_of(config)
                .with_counters(counted)
                .with_settings(settings_of(&config.seat)),
            config.seat.clone(),
            wake,
        );
        let seat = Arc::new(seat);
        let routes = Arc::new(ArcSwap::from_pointee(resolver.routes()));
        let follow = tokio::spawn(resolver.watch(Arc::clone(&routes), self.stop.clone()));
        let files = Arc::new(PolicyFiles::new(
            Arc::clone(&seat),
            Arc::clone(&self.runtime),
        ));
        let budget = Budget::new(config.rate, config.cpu_share, self.workers);
        Held {
            tenant: Arc::new(Tenant {
                name: config.name.as_str().into(),
                seat,
                default: config.default.clone(),
                routes: Some(routes),
                budget: match config.groups.is_empty() {
                    true => budget,
                    false => budget.knowing_some(),
                },
                known: in_order(&config.groups),
                records: Part::default(),
                counters,
                config: Some(config.clone()),
            }),
            files,
            tasks: vec![follow.abort_handle()],
        }
    }

    /// Loads the policy of a tenant and follows its file.
    async fn watch(&self, files: &Arc<PolicyFiles>, occasion: Occasion) {
        if let Err(error) = files.load_on(occasion).await {
            tracing::error!(event = "tenant_without_policy", tenant = &*files.seat().name, %error, "tenant has no policy");
        }
        let task = tokio::spawn(Arc::clone(files).watch()).abort_handle();
        let mut held = self.held.lock();
        match held.get_mut(&*files.seat().name) {
            Some(held) if Arc::ptr_eq(&held.files, files) => held.tasks.push(task),
            _ => task.abort(),
        }
    }
}

/// What a tenant's policy may ask about.
fn scope_of(config: &TenantConfig) -> Scope {
    Scope::tenant(&config.name)
        .with_groups(config.groups.iter().copied())
        .with_trusted(config.trusted)
        .with_log_rate(config.log_rate)
        .with_rules(config.rules.iter().map(String::as_str))
        .with_headers(config.headers.iter().map(String::as_str))
}

fn in_order(groups: &[u32]) -> Box<[u32]> {
    let mut groups = groups.to_vec();
    groups.sort_unstable();
    groups.into()
}

fn settings_of(config: &SeatConfig) -> Arc<Settings> {
    Arc::new(Settings::new(config.settings.clone()))
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
