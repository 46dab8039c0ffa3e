//! The place from which workers take the policy of the moment.

mod history;
mod lineup;
mod stats;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use arc_swap::{ArcSwapOption, Cache, Guard};
use parking_lot::Mutex;

use crate::digest::Digest;
use crate::policy::Policy;
use crate::problem::LoadError;
use crate::runtime::Runtime;

pub use history::NoGeneration;
pub use lineup::{Candidate, Generation, Lineup, Mode, Share, ShareKey, Trial};
pub use stats::{Stats, VerdictKind};

use history::History;

/// Holds the policy that serves. Replacing it reaches all workers at once: each takes the new one with its next request.
///
/// Old generations are never dropped by a worker, because freeing compiled code takes time: they wait here until no worker has
/// them any more, and [`PolicySlot::collect`] drops them.
pub struct PolicySlot {
    current: Arc<ArcSwapOption<Lineup>>,
    last_number: AtomicU64,
    /// How many generations that no longer serve are kept for a way back.
    kept_most: usize,
    // Held while a policy is loaded, so that two loads come out in order.
    loading: Mutex<()>,
    // Held while the line-up changes, so that numbers and publications are in the same order.
    history: Mutex<History>,
    last_error: Mutex<Option<Failed>>,
}

/// A load that brought nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// What is wrong.
    pub error: LoadError,
    /// When it was tried.
    pub at: SystemTime,
}

/// What a load did.
#[derive(Debug)]
pub enum Reload {
    /// A new generation serves.
    Published(Arc<Generation>),
    /// The file is the one that serves already.
    Unchanged(Arc<Generation>),
}

type Current = Option<Arc<Lineup>>;

/// A worker's view of a slot: looking costs one atomic load while nothing changes.
pub struct SlotReader {
    cache: Cache<Arc<ArcSwapOption<Lineup>>, Current>,
}

impl PolicySlot {
    /// Loads a policy and publishes it. Blocks for as long as that takes; loads wait for each other. What serves already is
    /// neither compiled nor published again.
    ///
    /// # Errors
    /// The policy that serves goes on serving, and [`PolicySlot::last_error`] tells what is wrong with the new one.
    pub fn load(
        &self,
        runtime: &Runtime,
        name: &str,
        bytes: &[u8],
        reuse: bool,
    ) -> Result<Reload, LoadError> {
        let load = || {
            let (limits, settings) = (runtime.limits(), Arc::default());
            let policy = runtime.load_within(name, bytes, limits, &settings)?;
            Ok(policy.with_reuse(reuse))
        };
        self.load_with(name, Digest::of(bytes), reuse, load)
    }

    /// The same for a policy that `load` makes of the file of this digest. It is not called if that file serves already.
    ///
    /// # Errors
    /// As [`PolicySlot::load`].
    pub fn load_with(
        &self,
        name: &str,
        digest: Digest,
        reuse: bool,
        load: impl FnOnce() -> Result<Policy, LoadError>,
    ) -> Result<Reload, LoadError> {
        let _order = self.loading.lock();
        if let Some(current) = self.current()
            && current.serves(name, digest, reuse)
        {
            *self.last_error.lock() = None;
            return Ok(Reload::Unchanged(current));
        }
        match load() {
            Ok(policy) => Ok(Reload::Published(self.publish(policy))),
            Err(error) => {
                self.fail(error.clone());
                Err(error)
            }
        }
    }
}

impl PolicySlot {
    /// An empty slot that keeps nothing of what it replaces.
    pub fn new() -> Self {
        Self::keeping(0)
    }

    /// An empty slot that keeps this many generations beside those that serve, compiled, so that going back to one of them takes no
    /// time.
    pub fn keeping(kept_most: usize) -> Self {
        Self {
            current: Arc::new(ArcSwapOption::empty()),
            last_number: AtomicU64::new(0),
            kept_most,
            loading: Mutex::new(()),
            history: Mutex::new(History::default()),
            last_error: Mutex::new(None),
        }
    }

    /// The generation whose verdicts count. Workers use a [`SlotReader`].
    pub fn current(&self) -> Option<Arc<Generation>> {
        let lineup = self.current.load();
        lineup.as_ref().map(|lineup| Arc::clone(&lineup.active))
    }

    /// Everything that is asked at the moment.
    pub fn lineup(&self) -> Option<Arc<Lineup>> {
        self.current.load_full()
    }

    /// The same without counting who has it, for a moment: cheap for a worker with many slots.
    #[inline]
    pub fn guard(&self) -> Guard<Option<Arc<Lineup>>> {
        self.current.load()
    }

    /// A view for one worker.
    pub fn reader(&self) -> SlotReader {
        SlotReader {
            cache: Cache::new(Arc::clone(&self.current)),
        }
    }

    /// Makes `policy` the one that serves, and forgets the last error. A candidate is tried no longer: it was measured against
    /// another one.
    pub fn publish(&self, policy: Policy) -> Arc<Generation> {
        let mut history = self.history.lock();
        let generation = self.number_of(&history, policy, None);
        self.serve(&mut history, Arc::clone(&generation));
        drop(history);
        *self.last_error.lock() = None;
        self.collect();
        generation
    }

    /// Keeps `policy` ready as a generation that does not serve yet. `number` is its number, if it has one already; the next one if
    /// not.
    pub fn admit(&self, policy: Policy, number: Option<u64>) -> Arc<Generation> {
        let mut history = self.history.lock();
        let generation = self.number_of(&history, policy, number);
        history.kept.retain(|kept| kept.number != generation.number);
        history.kept.push_back(Arc::clone(&generation));
        generation
    }

    /// Makes the generation of this number the one that serves. If it was the candidate, it is none any more.
    ///
    /// # Errors
    /// When it is not there.
    pub fn activate(&self, number: u64) -> Result<Arc<Generation>, NoGeneration> {
        let mut history = self.history.lock();
        let generation = self.find(&history, number)?;
        self.serve(&mut history, Arc::clone(&generation));
        drop(history);
        self.collect();
        Ok(generation)
    }

    /// The same for a seat whose history is known from elsewhere: `previous` is what served before, if it is there.
    ///
    /// # Errors
    /// When the generation is not there.
    pub fn install(
        &self,
        number: u64,
        previous: Option<u64>,
    ) -> Result<Arc<Generation>, NoGeneration> {
        let mut history = self.history.lock();
        let generation = self.find(&history, number)?;
        let previous = previous.filter(|previous| self.find(&history, *previous).is_ok());
        self.serve_after(&mut history, Arc::clone(&generation), previous);
        drop(history);
        self.collect();
        Ok(generation)
    }

    /// Makes the generation that served before serve again, or the one of this number.
    ///
    /// # Errors
    /// When it is not there any more, or nothing served before.
    pub fn roll_back(&self, to: Option<u64>) -> Result<Arc<Generation>, NoGeneration> {
        let mut history = self.history.lock();
        let previous = || {
            let kept = self.numbers_of(&history);
            history.previous.ok_or(NoGeneration::Previous { kept })
        };
        let generation = self.find(&history, to.map_or_else(previous, Ok)?)?;
        self.serve(&mut history, Arc::clone(&generation));
        drop(history);
        self.collect();
        Ok(generation)
    }

    /// Takes the generation of this number out of service because it failed too often, and makes the one before it serve. None, and
    /// nothing changes, if it does not serve or there is no other one that has not failed.
    pub fn fall_back(&self, number: u64) -> Option<Arc<Generation>> {
        let mut history = self.history.lock();
        let lineup = self.lineup()?;
        if lineup.active.number != number {
            return None;
        }
        lineup.active.condemned.store(true, Ordering::Relaxed);
        history.condemn(&lineup.active);
        let good = lineup.fallback.clone();
        let good = good.filter(|fallback| !fallback.is_condemned())?;
        self.serve(&mut history, Arc::clone(&good));
        Some(good)
    }

    /// Whether the generation of this number was taken out of service because it failed too often, and nobody put it back since.
    pub fn is_condemned(&self, number: u64) -> bool {
        self.history.lock().is_condemned(number)
    }

    /// The same for the file that a generation came from.
    pub fn is_condemned_file(&self, digest: Digest) -> bool {
        self.history.lock().is_condemned_file(digest)
    }

    /// The number of the last generation.
    pub fn last_number(&self) -> u64 {
        self.last_number.load(Ordering::Relaxed)
    }

    /// Forgets all generations but the one that serves: their numbers belong to others from now on.
    pub fn forget_kept(&self) {
        let mut history = self.history.lock();
        let kept = std::mem::take(&mut history.kept);
        history.retired.extend(kept);
        history.previous = None;
        if let Some(lineup) = self.lineup() {
            let mut lineup = lineup.as_ref().clone();
            let candidate = lineup.candidate.take();
            history.retired.extend(candidate.map(|one| one.generation));
            lineup.fallback = None;
            self.current.store(Some(Arc::new(lineup)));
        }
    }

    /// Goes back to the generation of this number no more, if it is the one before. It is kept and can be activated.
    pub fn forget_previous(&self, number: u64) {
        let mut history = self.history.lock();
        if history.previous == Some(number) {
            history.previous = None;
        }
        let Some(lineup) = self.lineup() else {
            return;
        };
        let is_it = |fallback: &Arc<Generation>| fallback.number == number;
        if lineup.fallback.as_ref().is_some_and(is_it) {
            let mut lineup = lineup.as_ref().clone();
            lineup.fallback = None;
            self.current.store(Some(Arc::new(lineup)));
        }
    }

    /// Tries the generation of this number beside the one that serves.
    ///
    /// # Errors
    /// When it is not there, or nothing serves.
    pub fn try_out(&self, number: u64, trial: Trial) -> Result<Arc<Generation>, NoGeneration> {
        let mut history = self.history.lock();
        let generation = self.find(&history, number)?;
        let mut lineup = self.lineup().ok_or(NoGeneration::Nothing)?.as_ref().clone();
        history
            .kept
            .extend(lineup.candidate.take().map(|old| old.generation));
        history.kept.retain(|kept| kept.number != number);
        lineup.candidate = Some(Candidate {
            generation: Arc::clone(&generation),
            trial,
        });
        self.current.store(Some(Arc::new(lineup)));
        history.trim(self.kept_most);
        Ok(generation)
    }

    /// Ends the trial of the candidate, which is kept; none if there was none.
    pub fn end_trial(&self) -> Option<Arc<Generation>> {
        let mut history = self.history.lock();
        let mut lineup = self.lineup()?.as_ref().clone();
        let ended = lineup.candidate.take()?.generation;
        self.current.store(Some(Arc::new(lineup)));
        history.kept.push_back(Arc::clone(&ended));
        history.trim(self.kept_most);
        Some(ended)
    }

    /// Says whether verdicts are carried out, from now on and whatever serves.
    pub fn set_mode(&self, mode: Mode) {
        let mut history = self.history.lock();
        history.mode = mode;
        if let Some(lineup) = self.lineup() {
            let mut lineup = lineup.as_ref().clone();
            lineup.mode = mode;
            self.current.store(Some(Arc::new(lineup)));
        }
    }

    /// Whether verdicts are carried out.
    pub fn mode(&self) -> Mode {
        self.history.lock().mode
    }

    /// The numbers of all generations that can serve at once, in their order.
    pub fn numbers(&self) -> Vec<u64> {
        self.numbers_of(&self.history.lock())
    }

    /// The generation of this number, if it is ready to serve.
    pub fn generation(&self, number: u64) -> Option<Arc<Generation>> {
        self.find(&self.history.lock(), number).ok()
    }

    /// The number of the generation that served before the one that serves, if it is still there.
    pub fn previous(&self) -> Option<u64> {
        let history = self.history.lock();
        let previous = history.previous?;
        self.find(&history, previous).ok().map(|found| found.number)
    }

    /// Notes that a policy could not be loaded. For what fails before there are bytes to load: a file that cannot be read.
    pub fn fail(&self, error: LoadError) {
        *self.last_error.lock() = Some(Failed {
            error,
            at: SystemTime::now(),
        });
    }

    /// The last load, if it failed.
    pub fn last_error(&self) -> Option<Failed> {
        self.last_error.lock().clone()
    }

    /// The number of the generation that serves; 0 if there has been none.
    pub fn number(&self) -> u64 {
        self.current().map_or(0, |generation| generation.number)
    }

    /// Generations that exist: those that serve, those that are kept, and old ones that a worker still has.
    pub fn live_generations(&self) -> usize {
        let history = self.history.lock();
        let serving = self.current.load();
        let serving = serving
            .as_ref()
            .map_or(0, |lineup| 1 + usize::from(lineup.candidate.is_some()));
        serving + history.kept.len() + history.retired.len()
    }

    /// Drops the old generations that no worker has any more. To be called from time to time, on a thread that serves no
    /// requests; publishing does it too.
    pub fn collect(&self) {
        let unused: Vec<_> = {
            let mut history = self.history.lock();
            let is_unused = |generation: &mut Arc<Generation>| {
                Arc::strong_count(generation) == 1 && generation.policy.is_last()
            };
            history.retired.extract_if(.., is_unused).collect()
        };
        drop(unused);
    }

    fn number_of(&self, history: &History, policy: Policy, number: Option<u64>) -> Arc<Generation> {
        let last = &self.last_number;
        let number = match number {
            Some(number) => {
                last.fetch_max(number, Ordering::Relaxed);
                number
            }
            None => last.fetch_add(1, Ordering::Relaxed) + 1,
        };
        // It may have been given up, and come back from where it is stored.
        let is_condemned = history.is_condemned(number);
        Arc::new(Generation {
            policy,
            number,
            loaded_at: SystemTime::now(),
            stats: Stats::default(),
            condemned: AtomicBool::new(is_condemned),
        })
    }

    /// Puts a generation into service, and what it replaces into the history.
    fn serve(&self, history: &mut History, generation: Arc<Generation>) {
        self.serve_after(history, generation, None);
    }

    /// The same with another generation than that as the one before.
    fn serve_after(
        &self,
        history: &mut History,
        generation: Arc<Generation>,
        previous: Option<u64>,
    ) {
        let number = generation.number;
        generation.condemned.store(false, Ordering::Relaxed);
        history.pardon(&generation);
        let old = self.lineup();
        if let Some(old) = &old {
            if old.active.number != number {
                history.previous = Some(old.active.number);
            }
            history.kept.extend(serving(Some(old)).cloned());
        }
        history.previous = previous.or(history.previous);
        history.kept.retain(|kept| kept.number != number);
        history.trim(self.kept_most);
        // One that failed too often is not asked in place of the one that serves either.
        let is_previous =
            |kept: &&Arc<Generation>| Some(kept.number) == history.previous && !kept.is_condemned();
        let lineup = Lineup {
            active: generation,
            mode: history.mode,
            candidate: None,
            fallback: history.kept.iter().find(is_previous).cloned(),
        };
        self.current.store(Some(Arc::new(lineup)));
    }

    fn find(&self, history: &History, number: u64) -> Result<Arc<Generation>, NoGeneration> {
        let lineup = self.current.load();
        // One that was just admitted goes before one that serves under the same number, which is another's then.
        let mut all = history.kept.iter().rev().chain(serving(lineup.as_deref()));
        match all.find(|generation| generation.number == number) {
            Some(generation) => Ok(Arc::clone(generation)),
            None => Err(NoGeneration::Unknown {
                number,
                kept: self.numbers_of(history),
            }),
        }
    }

    fn numbers_of(&self, history: &History) -> Vec<u64> {
        let lineup = self.current.load();
        let all = serving(lineup.as_deref()).chain(&history.kept);
        let mut numbers: Vec<_> = all.map(|generation| generation.number).collect();
        numbers.sort_unstable();
        numbers
    }
}

impl SlotReader {
    /// Everything that is asked at the moment.
    pub fn lineup(&mut self) -> Option<&Arc<Lineup>> {
        self.cache.load().as_ref()
    }

    /// The generation whose verdicts count.
    pub fn current(&mut self) -> Option<&Arc<Generation>> {
        self.lineup().map(|lineup| &lineup.active)
    }
}

impl Default for PolicySlot {
    fn default() -> Self {
        Self::new()
    }
}

fn serving(lineup: Option<&Lineup>) -> impl Iterator<Item = &Arc<Generation>> {
    lineup.into_iter().flat_map(|lineup| {
        let candidate = lineup.candidate.iter();
        candidate
            .map(|candidate| &candidate.generation)
            .chain([&lineup.active])
    })
}
