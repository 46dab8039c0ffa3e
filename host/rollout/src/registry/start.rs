//! The start of a host: tenants are set up first, and their policies are loaded while the host already serves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_config::Config;
use portcullis_policy::CodeCounts;
use tokio::sync::OwnedMutexGuard;
use tokio::time::interval;

use crate::compiler::Occasion;
use crate::policy_files::PolicyFiles;
use crate::progress::Progress;

use super::{Registry, RegistryError};

/// Interval of the log lines about progress.
const TOLD: Duration = Duration::from_secs(5);

/// The part of a start that runs while the host serves.
#[must_use = "tenants have no policies until `finish` has run"]
pub struct Start {
    registry: Arc<Registry>,
    fresh: Vec<Arc<PolicyFiles>>,
    /// Held so that the tenants do not change before their policies are loaded.
    _turn: OwnedMutexGuard<()>,
}

impl Registry {
    /// Applies the tenants of this configuration and of the database, and loads the stored policies of the operator's seats. Until
    /// [`Start::finish`] has loaded the policy of a tenant, its requests get `load` of `on-failure`.
    ///
    /// # Errors
    /// If a tenant of the file cannot be set up.
    pub async fn start(self: &Arc<Self>, config: &Arc<Config>) -> Result<Start, RegistryError> {
        let turn = Arc::clone(&self.directory.turn).lock_owned().await;
        let rows = self.stored_rows().await;
        let fresh = self.apply_with(config, rows).await?;
        let from_file = fresh.iter().filter(|files| files.file().is_some()).count();
        let stored = self.deployments.sync_operators().await;
        self.loading.begin(from_file + stored);
        Ok(Start {
            registry: Arc::clone(self),
            fresh,
            _turn: turn,
        })
    }

    /// Returns the progress of the start; `None` when it is finished.
    pub fn progress(&self) -> Option<Progress> {
        self.loading.progress()
    }
}

impl Start {
    /// Loads the policies of all tenants, several at a time. The results are in the log.
    pub async fn finish(self) {
        let registry = &self.registry;
        let begun = Instant::now();
        let total = self.progress().map_or(0, |progress| progress.total);
        let load = async {
            tokio::join!(
                registry.load_fresh(self.fresh.clone(), Occasion::Start),
                registry.deployments.sync()
            )
        };
        tokio::pin!(load);
        let mut told = interval(TOLD);
        loop {
            tokio::select! {
                _ = &mut load => break,
                _ = told.tick() => self.tell(),
            }
        }
        registry.loading.end();
        if total == 0 {
            return;
        }
        let CodeCounts {
            compiled,
            cached,
            shared,
        } = registry.runtime.code_counts();
        tracing::info!(
            event = "start_finished",
            policies = total,
            compiled,
            cached,
            shared,
            milliseconds = begun.elapsed().as_millis() as u64,
            "policies of all tenants are loaded"
        );
    }

    fn progress(&self) -> Option<Progress> {
        self.registry.progress()
    }

    fn tell(&self) {
        if let Some(Progress { done, total }) = self.progress() {
            tracing::info!(
                event = "start_progress",
                done,
                total,
                "policies of tenants are being loaded"
            );
        }
    }
}

impl std::fmt::Debug for Start {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Start").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use crate::policy_files::tests::rejecting;

    use super::*;

    #[tokio::test]
    async fn tenants_are_set_up_before_their_policies_are_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let mut text = String::new();
        for n in 0..8 {
            let file = folder.path().join(format!("{n}.wasm"));
            std::fs::write(&file, rejecting(480 + n)).unwrap();
            text += &format!("[tenants.t{n}]\nsource-groups = [{n}]\nfile = {file:?}\n");
        }
        // A policy that cannot be used counts as done.
        std::fs::write(folder.path().join("7.wasm"), b"no policy").unwrap();
        let path = folder.path().join("portcullis.toml");
        std::fs::write(&path, text).unwrap();
        let config = Arc::new(Config::load(&path).unwrap());
        let (_never, stop) = watch::channel(false);
        let registry = Arc::new(Registry::new(&config, 1, stop).unwrap());
        let served = || {
            let tenants = registry.current().load();
            let serves = |seat: &portcullis_dataplane::tenants::Seat| seat.slot.current().is_some();
            let named = tenants.named.iter();
            named.map(|tenant| serves(&tenant.seat)).collect::<Vec<_>>()
        };

        let start = registry.start(&config).await.unwrap();
        assert_eq!(served(), [false; 8]);
        let progress = registry.progress();
        assert_eq!(progress, Some(Progress { done: 0, total: 8 }));
        start.finish().await;
        assert_eq!(registry.progress(), None);
        let mut all = [true; 8];
        all[7] = false;
        assert_eq!(served(), all);
    }
}
