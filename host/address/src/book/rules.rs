//! Loading and publishing the allow and deny rules.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep;
use tracing::{info, warn};

use super::shared::{MOST_LOGGED, Shared};
use super::{LoadReport, RulesPart, Snapshot};
use crate::rules::{LoadedRules, RuleFolder, RulesError, Stamp};

/// Files are taken for complete when none has changed for this long.
const QUIET: Duration = Duration::from_millis(20);

/// How often to wait for that before the files are read as they are.
const MOST_WAITS: usize = 50;

/// What loads of the rules leave for each other.
pub(super) struct RulesKeeper {
    folder: RuleFolder,
    /// The files that serve.
    seen: Option<Stamp>,
}

impl RulesKeeper {
    pub(super) fn new(folder: RuleFolder) -> Self {
        Self { folder, seen: None }
    }

    /// The files as they are, when their writer has come to rest.
    async fn settled(&self) -> Result<Stamp, RulesError> {
        let mut stamp = self.stamp().await?;
        for _ in 0..MOST_WAITS {
            if self.seen.as_ref() == Some(&stamp) {
                break;
            }
            sleep(QUIET).await;
            let again = self.stamp().await?;
            if again == stamp {
                break;
            }
            stamp = again;
        }
        Ok(stamp)
    }

    async fn stamp(&self) -> Result<Stamp, RulesError> {
        let folder = self.folder.clone();
        aside(move || folder.stamp()).await
    }
}

impl Shared {
    pub(super) async fn reload_rules(&self, ticket: u64) -> Result<LoadReport, RulesError> {
        let load = async |keeper: &mut RulesKeeper| self.load_rules(keeper, true).await;
        self.rules.answer(ticket, load).await
    }

    /// Loads the rules if a file has changed, come or gone.
    pub(super) async fn follow_rules(&self) -> Result<(), RulesError> {
        let mut turn = self.rules.take().await;
        self.load_rules(&mut turn.keeper, false).await.map(drop)
    }

    async fn load_rules(
        &self,
        keeper: &mut RulesKeeper,
        was_asked: bool,
    ) -> Result<LoadReport, RulesError> {
        let stamp = keeper.settled().await;
        let stamp = stamp.map_err(|error| self.rules_failed(error))?;
        if !was_asked && keeper.seen.as_ref() == Some(&stamp) {
            self.status.lock().rules.last_error = None;
            let snapshot = self.current.load_full();
            return Ok(LoadReport { snapshot });
        }
        let begun = Instant::now();
        let folder = keeper.folder.clone();
        let loaded = aside(move || folder.load()).await;
        let loaded = loaded.map_err(|error| self.rules_failed(error))?;
        // What was written meanwhile differs from this stamp, and is seen by the next look.
        keeper.seen = Some(stamp);
        self.status.lock().rules.succeeded();
        let misses_default = keeper.folder.path().is_some() && !loaded.has_default();
        Ok(self.publish_rules(loaded, begun.elapsed(), misses_default))
    }

    fn publish_rules(
        &self,
        loaded: LoadedRules,
        took: Duration,
        misses_default: bool,
    ) -> LoadReport {
        let is_first = self.current.load().rules.generation == 0;
        let generation = self.current.load().rules.generation + 1;
        let part = Arc::new(RulesPart::new(loaded, generation, took));
        let snapshot = self.replace(|old| Snapshot {
            rules: Arc::clone(&part),
            ..old.clone()
        });
        if part.files > 0 || !is_first {
            tell(&part);
        }
        if misses_default && is_first {
            info!(
                "There are no files permissions.allow and permissions.deny: rules without a name allow everything."
            );
        }
        LoadReport { snapshot }
    }

    /// Counts a failure, and tells it once.
    fn rules_failed(&self, error: RulesError) -> RulesError {
        if self.status.lock().rules.failed(error.to_string()) {
            warn!(%error, "The rules can't be loaded and stay as they are.");
        }
        error
    }
}

fn tell(part: &RulesPart) {
    info!(
        generation = part.generation,
        files = part.files,
        rules = part.rules.len(),
        skipped = part.skipped,
        milliseconds = part.took.as_millis() as u64,
        "The allow and deny rules are loaded."
    );
    for error in part.errors.iter().take(MOST_LOGGED) {
        warn!("Skipped a rule: {error}.");
    }
    if part.skipped > MOST_LOGGED as u64 {
        warn!("… and {} more lines.", part.skipped - MOST_LOGGED as u64);
    }
}

/// Does what waits for a disk where nobody waits for it.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RulesError> + Send + 'static,
) -> Result<T, RulesError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| {
        Err(RulesError {
            path: "the folder".to_owned(),
            cause: error.to_string(),
        })
    })
}
