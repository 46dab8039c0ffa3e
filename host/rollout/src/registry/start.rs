//! The start of a host: the tenants are there at once, their policies come while the host serves already.

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

/// How often the log says how far a start is.
const TOLD: Duration = Duration::from_secs(5);

/// What is left of a start when the host begins to serve.
#[must_use = "tenants have no policy until it is finished"]
pub struct Start {
    registry: Arc<Registry>,
    fresh: Vec<Arc<PolicyFiles>>,
    /// Nobody changes the tenants before their policies have come.
    _turn: OwnedMutexGuard<()>,
}

impl Registry {
    /// Makes the tenants of this configuration and of the database the tenants, and loads what the operator's seats have in the
    /// database. A tenant's requests get what its configuration says for a policy that is not loaded, until [`Start::finish`] has brought
    /// its policy.
    ///
    /// # Errors
    /// When one of the file can't be set up.
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

    /// How far the start is; none when it is over.
    pub fn progress(&self) -> Option<Progress> {
        self.loading.progress()
    }
}

impl Start {
    /// Loads the policies of all tenants, several at a time. How each went is in the log.
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
    async fn tenants_are_there_before_their_policies() {
        let folder = tempfile::tempdir().unwrap();
        let mut text = String::new();
        for n in 0..8 {
            let file = folder.path().join(format!("{n}.wasm"));
            std::fs::write(&file, rejecting(480 + n)).unwrap();
            text += &format!("[tenants.t{n}]\nsource-groups = [{n}]\nfile = {file:?}\n");
        }
        // One that can't be used is done, too.
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
