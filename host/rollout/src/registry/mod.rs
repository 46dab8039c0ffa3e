//! Keeps the tenants of a running host: each with its policy, its routes and its counters, from one configuration to the next.

mod config_file;
mod directory;
mod known;
mod reconfigure;
mod sandboxes;
mod start;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::stream::{self, StreamExt};
use portcullis_config::{Config, SeatConfig, TenantConfig};
use portcullis_dataplane::tenants::{Budget, Seat, Shadow, Tenant, Tenants};
use portcullis_policy::{Counters, Generation, PolicySlot, Runtime, RuntimeError, Scope};
use portcullis_records::Part;
use portcullis_store::Store;
use thiserror::Error;
use tokio::sync::{Notify, watch};
use tokio::time::MissedTickBehavior;

use crate::compiler::Occasion;
use crate::deployments::Deployments;
use crate::policy_files::{PolicyFileError, PolicyFiles};
use crate::progress::Loading;
use crate::settings::{forget_what_refuses, settings_of};
use crate::tenant_set::{RETAINED_GENERATIONS, TenantSet, TenantSetError};

use config_file::ConfigFile;
use known::Directory;
use sandboxes::{kept_by_each, least_instances};

pub use directory::TenantError;
pub use reconfigure::{ReconfigureError, Reconfigured};
pub use start::Start;

/// How often old policies are looked for that no worker has any more.
const COLLECT: Duration = Duration::from_secs(1);

/// How often to look for what others have changed.
const FOLLOW: Duration = Duration::from_secs(1);

/// The names of the operator's seats.
const DEFAULT: &str = "default";
const BEFORE: &str = "before";
const AFTER: &str = "after";

/// Everything behind [`Tenants`] that is not for workers.
pub struct Registry {
    runtime: Arc<Runtime>,
    shadow: Shadow,
    sandboxes: usize,
    /// Told when a policy fails too often.
    wake: Arc<Notify>,
    tenants: Arc<TenantSet>,
    deployments: Deployments,
    /// The tenants in the database.
    directory: Directory,
    /// How far the start is.
    loading: Arc<Loading>,
    /// What the host was started with, to read it again; none for one without a file.
    file: Option<ConfigFile>,
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
    /// A tenant can't be set up.
    #[error(transparent)]
    Tenants(#[from] TenantSetError),
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
            let slot = Arc::new(PolicySlot::keeping(RETAINED_GENERATIONS));
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
        let tenants = TenantSet::new(
            tenants,
            [Some(default), before, after].into_iter().flatten(),
            Arc::clone(&runtime),
            workers,
            Arc::clone(&wake),
            stop,
        );
        let tenants = Arc::new(tenants);
        let loading = Arc::new(Loading::default());
        Ok(Self {
            runtime,
            shadow,
            sandboxes,
            wake,
            deployments: Deployments::new(Arc::clone(&tenants), Arc::clone(&loading)),
            tenants,
            directory: Directory::default(),
            loading,
            file: None,
        })
    }

    /// The same with the policies and tenants that are in this database. They come with [`Registry::start`].
    pub fn with_store(self, store: Store) -> Self {
        Self {
            deployments: self.deployments.with_store(store.clone()),
            directory: Directory::new(store),
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

    /// What serves at the seats, and every way to change it.
    pub fn deployments(&self) -> &Deployments {
        &self.deployments
    }

    /// Who decides at the moment, for workers to follow.
    pub fn current(&self) -> &Arc<ArcSwap<Tenants>> {
        self.tenants.current()
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
        self.tenants.default_files()
    }

    /// The policy files of this seat: that of a tenant, `default`, `before` or `after`.
    pub fn files(&self, name: &str) -> Option<Arc<PolicyFiles>> {
        self.tenants.files(name)
    }

    /// All policy files: the operator's, then the tenants' in the order of their names.
    pub fn all_files(&self) -> Vec<Arc<PolicyFiles>> {
        self.tenants.all_files()
    }

    /// Loads the operator's policies. Another verdict than the operator means is no way to start.
    ///
    /// # Errors
    /// When a file is named and can't be used.
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

    /// Replaces the set of tenants, and loads the policies of new and changed ones. Unchanged tenants are untouched; changed ones keep
    /// their policy generations and counters. A tenant whose policy can't be loaded is there all the same: its requests get what its
    /// configuration says for that.
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

    /// Replaces the set of tenants. Returns the policy files of new and changed ones, which are still to be loaded.
    async fn set_up(
        &self,
        config: &Config,
        tenants: &[TenantConfig],
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
        // What is stored of those that are new or others goes before what the file says.
        self.deployments.sync().await;
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
            .for_each_concurrent(self.tenants.at_once(), load)
            .await;
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
        for files in self.tenants.operators() {
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
                    self.deployments.note_fall_back(&files, from, to);
                }
                seat.slot.collect();
            }
        }
    }

    /// Follows the database for as long as the host runs.
    async fn follow_database(self: Arc<Self>) {
        let mut tick = tokio::time::interval(FOLLOW);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.deployments.next_look(&mut tick).await;
            // The start brings all seats by itself.
            if self.progress().is_some() {
                continue;
            }
            if self.deployments.follow().await {
                self.sync_tenants().await;
            }
        }
    }

    /// Whether a policy that serves or is tried imports an interface of the contract.
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
