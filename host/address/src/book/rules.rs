//! Loading and publishing the allow and deny rules.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_sync::SingleFlight;
use tracing::{info, warn};

use super::options::BookOptions;
use super::parts::RulesPart;
use super::published::Published;
use super::snapshot::Snapshot;
use super::status::LoadReport;
use super::tell::MOST_LOGGED;
use crate::rules::{DEFAULT_RULES, LoadedRules, RuleFolder, RulesError, Stamp};
use crate::settle::{Emptied, FileState, Hold, SettleTimes, Settling, Step, Writers};

/// The content of a rules file does not show whether it is complete, and half of a deny file would allow what the rest denies.
const UNHURRIED: SettleTimes = SettleTimes {
    whole: Duration::ZERO,
    in_place: Duration::from_secs(2),
    nothing: Duration::ZERO,
};

/// Loads the rules, one load at a time.
pub(super) struct RulesLoader {
    published: Arc<Published>,
    pub(super) flights: SingleFlight<RulesKeeper, Result<LoadReport, RulesError>>,
}

/// State that is kept between two loads of the rules.
pub(super) struct RulesKeeper {
    folder: RuleFolder,
    /// The files of the current rules.
    seen: Option<Stamp>,
    writers: Writers,
    settling: Settling<Stamp>,
    /// Whether a file has just lost all its rules, or is missing.
    emptied: Emptied,
}

impl RulesKeeper {
    fn new(folder: RuleFolder) -> Self {
        Self {
            folder,
            seen: None,
            writers: Writers::of_whole_folders(),
            settling: Settling::default(),
            emptied: Emptied::default(),
        }
    }

    /// Decides what to do about the current state of the files.
    fn step(&mut self, stamp: &Stamp) -> Step {
        // The directory is watched even while it has no rules files.
        let any = self.folder.path().map(|folder| folder.join(DEFAULT_RULES));
        let files = stamp.iter().map(|(path, _)| path.as_path());
        self.writers.follow(files.chain(any.as_deref()));
        let Some(seen) = &self.seen else {
            return Step::Take;
        };
        let writers = &self.writers;
        let quiet = |stamp: &Stamp| quiet(stamp, seen, writers);
        let now = Instant::now();
        let step = self.settling.step(stamp.clone(), seen, quiet, now);
        if let Some(waited) = self.settling.overdue(now) {
            warn!(
                event = "file_not_whole",
                seconds = waited.as_secs(),
                "rules file is being written, not read until it is complete; the previous rules stay"
            );
        }
        step
    }

    async fn stamp(&self) -> Result<Stamp, RulesError> {
        let folder = self.folder.clone();
        aside(move || folder.stamp()).await
    }

    /// Checks that files which have lost all their rules may have done so on purpose. A directory in place of a file, and a file with
    /// invalid lines only, are mistakes.
    fn must_be_meant(&self, lost: &[String], loaded: &LoadedRules) -> Result<(), RulesError> {
        let Some(folder) = self.folder.path() else {
            return Ok(());
        };
        for name in lost {
            let path = folder.join(name);
            if path.is_dir() {
                return Err(RulesError::is_folder(&path));
            }
            if loaded.broken.contains(name) {
                return Err(RulesError::is_broken(&path));
            }
        }
        Ok(())
    }
}

/// Returns how long the files must stay unchanged: the longest time that any of them needs.
fn quiet(stamp: &Stamp, seen: &Stamp, writers: &Writers) -> Duration {
    let before = |path: &Path| {
        let found = seen.iter().find(|(seen, _)| seen == path);
        found.map_or(FileState::Absent, |(_, state)| *state)
    };
    let changed = stamp.iter().filter(|(path, state)| before(path) != *state);
    let quiet =
        changed.map(|(path, state)| state.quiet(&before(path), writers.state(path), &UNHURRIED));
    quiet.max().unwrap_or_default()
}

impl RulesLoader {
    pub(super) fn new(folder: RuleFolder, published: Arc<Published>) -> Self {
        Self {
            published,
            flights: SingleFlight::new(RulesKeeper::new(folder)),
        }
    }

    pub(super) async fn reload(&self, ticket: u64) -> Result<LoadReport, RulesError> {
        let load = async |keeper: &mut RulesKeeper| self.load(keeper, None).await;
        self.flights.answer(ticket, load).await
    }

    /// Loads the rules if a file has changed, appeared or disappeared.
    pub(super) async fn follow(&self, options: BookOptions) -> Result<(), RulesError> {
        let mut flight = self.flights.take().await;
        let loaded = self.load(&mut flight.state, Some(options.settle));
        loaded.await.map(drop)
    }

    /// `settle` is the time for which files that have lost all their rules must stay so; `None` for a requested load.
    async fn load(
        &self,
        keeper: &mut RulesKeeper,
        settle: Option<Duration>,
    ) -> Result<LoadReport, RulesError> {
        let stamp = keeper.stamp().await;
        let stamp = stamp.map_err(|error| self.failed(error))?;
        let step = keeper.step(&stamp);
        let current = self.published.current.load_full();
        if settle.is_some() && step != Step::Take {
            if step == Step::Same {
                self.published.status.lock().rules.last_error = None;
            }
            return Ok(LoadReport { snapshot: current });
        }
        let begun = Instant::now();
        let folder = keeper.folder.clone();
        let loaded = aside(move || folder.load()).await;
        let loaded = loaded.map_err(|error| self.failed(error))?;
        let lost = current.rules.rules.lost_in(&loaded.rules);
        let is_meant = keeper.must_be_meant(&lost, &loaded);
        is_meant.map_err(|error| self.failed(error))?;
        let patience = settle.unwrap_or_default();
        match keeper.emptied.hold(!lost.is_empty(), patience, begun) {
            hold @ (Hold::Begins | Hold::Goes) => {
                if hold == Hold::Begins {
                    warn!(
                        event = "rules_gone",
                        files = lost.join(" "),
                        "rules files have become empty or are missing: their rules stay until this has lasted for {patience:?}, or until a reload is requested"
                    );
                }
                return Ok(LoadReport { snapshot: current });
            }
            Hold::Over => warn!(
                event = "rules_removed",
                files = lost.join(" "),
                "rules of these files removed: a pair of files without rules allows everything"
            ),
            Hold::None => {}
        }
        // Files written meanwhile differ from this stamp, and are found by the next check.
        keeper.seen = Some(stamp);
        self.published.status.lock().rules.succeeded();
        let misses_default = keeper.folder.path().is_some() && !loaded.has_default();
        Ok(self.publish(loaded, begun.elapsed(), misses_default))
    }

    fn publish(&self, loaded: LoadedRules, took: Duration, misses_default: bool) -> LoadReport {
        let is_first = self.published.current.load().rules.generation == 0;
        let generation = self.published.current.load().rules.generation + 1;
        let part = Arc::new(RulesPart::new(loaded, generation, took));
        let snapshot = self.published.replace(|old| Snapshot {
            rules: Arc::clone(&part),
            ..old.clone()
        });
        if part.files > 0 || !is_first {
            tell(&part);
        }
        if misses_default && is_first {
            info!(
                event = "default_rules_missing",
                "no files permissions.allow and permissions.deny: rules without a name allow everything"
            );
        }
        LoadReport { snapshot }
    }

    /// Counts a failure. Logs it once, and not again while it repeats.
    fn failed(&self, error: RulesError) -> RulesError {
        if self.published.status.lock().rules.failed(error.to_string()) {
            warn!(event = "rules_not_loaded", %error, "allow and deny rules not loaded, the previous ones stay");
        }
        error
    }
}

fn tell(part: &RulesPart) {
    info!(
        event = "rules_loaded",
        generation = part.generation,
        files = part.files,
        rules = part.rules.len(),
        skipped = part.skipped,
        milliseconds = part.took.as_millis() as u64,
        "allow and deny rules loaded"
    );
    for error in part.errors.iter().take(MOST_LOGGED) {
        warn!(event = "rule_skipped", "rule skipped: {error}");
    }
    if part.skipped > MOST_LOGGED as u64 {
        warn!(
            event = "rule_skipped",
            "{} further lines skipped",
            part.skipped - MOST_LOGGED as u64
        );
    }
}

/// Runs file operations on a thread that may block.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RulesError> + Send + 'static,
) -> Result<T, RulesError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| {
        Err(RulesError {
            path: "the directory".to_owned(),
            cause: error.to_string(),
        })
    })
}
