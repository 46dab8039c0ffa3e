//! Policy slots: the generations of a seat, and the lineup that workers read.

mod durations;
mod history;
mod lineup;
mod share;
mod stats;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use arc_swap::Guard;
use parking_lot::Mutex;
use portcullis_sync::{Published, PublishedReader};

use crate::digest::Digest;
use crate::policy::Policy;
use crate::problem::LoadError;
use crate::reuse::Reuse;
use crate::runtime::Runtime;

pub use durations::Durations;
pub use history::NoGeneration;
pub use lineup::{Candidate, Generation, Lineup, Mode, Trial};
pub use share::{Share, ShareKey};
pub use stats::{Stats, VerdictKind};

use history::History;

/// Holds the generations of a seat. A change of the lineup takes effect for all workers at once, with their next request.
///
/// Workers never drop generations, because freeing compiled code takes time: a replaced generation stays here until no worker uses it any
/// more, and [`PolicySlot::collect`] drops it.
pub struct PolicySlot {
    lineup: Published<Lineup, Generation, History>,
    last_number: AtomicU64,
    /// Maximum number of retained generations.
    max_retained: usize,
    // Held while a policy is loaded, so that two loads are published in order.
    loading: Mutex<()>,
    last_error: Mutex<Option<Failed>>,
}

/// A failed load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// What is wrong.
    pub error: LoadError,
    /// When it failed.
    pub at: SystemTime,
}

/// The result of a load.
#[derive(Debug)]
pub enum Reload {
    /// A new generation is active.
    Published(Arc<Generation>),
    /// The file is already that of the active generation.
    Unchanged(Arc<Generation>),
}

/// A change of the lineup. There is one at a time, so that numbers and publications are in the same order.
type Change<'s> = portcullis_sync::Change<'s, Lineup, Generation, History>;

/// A worker's view of a slot. Reading costs one atomic load while the lineup does not change.
pub struct SlotReader(PublishedReader<Lineup>);

impl PolicySlot {
    /// Loads a policy and makes it active. Blocks meanwhile; loads are executed one after the other. A file that is already active is neither
    /// compiled nor published again.
    ///
    /// # Errors
    /// If the policy cannot be loaded. The active generation stays active, and [`PolicySlot::last_error`] returns the error.
    pub fn load(
        &self,
        runtime: &Runtime,
        name: &str,
        bytes: &[u8],
        reuse: impl Into<Reuse>,
    ) -> Result<Reload, LoadError> {
        let reuse = reuse.into();
        let load = || {
            let (limits, settings) = (runtime.limits(), Arc::default());
            let policy = runtime.load_within(name, bytes, limits, &settings)?;
            Ok(policy.with_reuse(reuse))
        };
        self.load_with(name, Digest::of(bytes), reuse, load)
    }

    /// The same for a policy that `load` creates from the file of this digest. `load` is not called if the file is already active.
    ///
    /// # Errors
    /// As [`PolicySlot::load`].
    pub fn load_with(
        &self,
        name: &str,
        digest: Digest,
        reuse: Reuse,
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
    /// An empty slot that retains no generations.
    pub fn new() -> Self {
        Self::keeping(0)
    }

    /// An empty slot that retains this many generations, compiled, so that they can be activated at once.
    pub fn keeping(max_retained: usize) -> Self {
        Self {
            lineup: Published::new(History::default()),
            last_number: AtomicU64::new(0),
            max_retained,
            loading: Mutex::new(()),
            last_error: Mutex::new(None),
        }
    }

    /// The active generation. Workers use a [`SlotReader`].
    pub fn current(&self) -> Option<Arc<Generation>> {
        let lineup = self.lineup.guard();
        lineup.as_ref().map(|lineup| Arc::clone(&lineup.active))
    }

    /// The lineup.
    pub fn lineup(&self) -> Option<Arc<Lineup>> {
        self.lineup.current()
    }

    /// The lineup for a short time, without a change of its reference count: cheap for a worker with many slots.
    #[inline]
    pub fn guard(&self) -> Guard<Option<Arc<Lineup>>> {
        self.lineup.guard()
    }

    /// A view for one worker.
    pub fn reader(&self) -> SlotReader {
        SlotReader(self.lineup.reader())
    }

    /// Makes `policy` active and clears the last error. Ends the trial of a candidate, which was compared with another generation.
    pub fn publish(&self, policy: Policy) -> Arc<Generation> {
        policy.warm_up();
        let mut change = self.lineup.change();
        let generation = self.number_of(&change, policy, None);
        self.serve(&mut change, Arc::clone(&generation));
        drop(change);
        *self.last_error.lock() = None;
        self.collect();
        generation
    }

    /// Retains `policy` as a generation that is not active yet. Its number is `number` or, if that is `None`, the next one.
    pub fn admit(&self, policy: Policy, number: Option<u64>) -> Arc<Generation> {
        let mut change = self.lineup.change();
        let generation = self.number_of(&change, policy, number);
        change
            .retained
            .retain(|kept| kept.number != generation.number);
        change.retained.push_back(Arc::clone(&generation));
        generation
    }

    /// Makes the generation of this number active. Ends the trial of a candidate.
    ///
    /// # Errors
    /// If there is no generation of this number.
    pub fn activate(&self, number: u64) -> Result<Arc<Generation>, NoGeneration> {
        let warming = self.warming_of(number);
        warming.before();
        let mut change = self.lineup.change();
        let generation = self.find(&change, number)?;
        self.serve(&mut change, Arc::clone(&generation));
        drop(change);
        warming.after();
        self.collect();
        Ok(generation)
    }

    /// The same for a seat whose deployment is stored elsewhere: `previous` is the generation that was active before, if it is retained.
    ///
    /// # Errors
    /// If there is no generation of this number.
    pub fn install(
        &self,
        number: u64,
        previous: Option<u64>,
    ) -> Result<Arc<Generation>, NoGeneration> {
        let warming = self.warming_of(number);
        warming.before();
        let mut change = self.lineup.change();
        let generation = self.find(&change, number)?;
        let previous = previous.filter(|previous| self.find(&change, *previous).is_ok());
        self.serve_after(&mut change, Arc::clone(&generation), previous);
        drop(change);
        warming.after();
        self.collect();
        Ok(generation)
    }

    /// Makes the generation active that was active before, or the one of this number.
    ///
    /// # Errors
    /// If it is not retained any more, or no generation was active before.
    pub fn roll_back(&self, to: Option<u64>) -> Result<Arc<Generation>, NoGeneration> {
        let mut change = self.lineup.change();
        let previous = || {
            let kept = self.numbers_of(&change);
            change.previous.ok_or(NoGeneration::Previous { kept })
        };
        let generation = self.find(&change, to.map_or_else(previous, Ok)?)?;
        self.serve(&mut change, Arc::clone(&generation));
        drop(change);
        generation.policy.warm_up();
        self.collect();
        Ok(generation)
    }

    /// Condemns the active generation, if it has this number, and makes the fallback active. Returns `None` without a change of the lineup if
    /// the generation is not active, or if there is no fallback that is not condemned.
    pub fn fall_back(&self, number: u64) -> Option<Arc<Generation>> {
        let mut change = self.lineup.change();
        let lineup = self.lineup()?;
        if lineup.active.number != number {
            return None;
        }
        lineup.active.condemned.store(true, Ordering::Relaxed);
        change.condemn(&lineup.active);
        let good = lineup.fallback.clone();
        let good = good.filter(|fallback| !fallback.is_condemned())?;
        self.serve(&mut change, Arc::clone(&good));
        drop(change);
        good.policy.warm_up();
        Some(good)
    }

    /// Whether the generation of this number is condemned: the breaker took it out of service, and no command has activated it since.
    pub fn is_condemned(&self, number: u64) -> bool {
        let change = self.lineup.change();
        match self.find(&change, number) {
            Ok(generation) => change.is_condemned_as(number, generation.policy.digest()),
            Err(_unknown) => change.is_condemned(number),
        }
    }

    /// Whether a generation from the file of this digest is condemned.
    pub fn is_condemned_file(&self, digest: Digest) -> bool {
        self.lineup.change().is_condemned_file(digest)
    }

    /// The number of the last generation.
    pub fn last_number(&self) -> u64 {
        self.last_number.load(Ordering::Relaxed)
    }

    /// Retires all generations except the active one. Their numbers may be used again.
    pub fn forget_kept(&self) {
        let mut change = self.lineup.change();
        let kept = std::mem::take(&mut change.retained);
        for kept in kept {
            change.retire(kept);
        }
        change.previous = None;
        if let Some(lineup) = self.lineup() {
            let mut lineup = lineup.as_ref().clone();
            if let Some(candidate) = lineup.candidate.take() {
                change.retire(candidate.generation);
            }
            lineup.fallback = None;
            change.publish(lineup);
        }
    }

    /// Removes the generation of this number as the fallback, if it is that. It is still retained and can be activated.
    pub fn forget_previous(&self, number: u64) {
        let mut change = self.lineup.change();
        if change.previous == Some(number) {
            change.previous = None;
        }
        let Some(lineup) = self.lineup() else {
            return;
        };
        let is_it = |fallback: &Arc<Generation>| fallback.number == number;
        if lineup.fallback.as_ref().is_some_and(is_it) {
            let mut lineup = lineup.as_ref().clone();
            lineup.fallback = None;
            change.publish(lineup);
        }
    }

    /// Starts a trial of the generation of this number.
    ///
    /// # Errors
    /// If there is no generation of this number, or no active one.
    pub fn try_out(&self, number: u64, trial: Trial) -> Result<Arc<Generation>, NoGeneration> {
        if matches!(trial, Trial::Canary(_)) {
            let found = self.find(&self.lineup.change(), number)?;
            found.policy.warm_up();
        }
        let mut change = self.lineup.change();
        let generation = self.find(&change, number)?;
        let mut lineup = self.lineup().ok_or(NoGeneration::Nothing)?.as_ref().clone();
        change
            .retained
            .extend(lineup.candidate.take().map(|old| old.generation));
        change.retained.retain(|kept| kept.number != number);
        if matches!(trial, Trial::Canary(_)) {
            lineup.active.stats.note_durations();
            generation.stats.note_durations();
        }
        lineup.candidate = Some(Candidate {
            generation: Arc::clone(&generation),
            trial,
        });
        change.publish(lineup);
        self.trim(&mut change);
        Ok(generation)
    }

    /// Ends the trial of the candidate, which is retained; `None` if there is no candidate.
    pub fn end_trial(&self) -> Option<Arc<Generation>> {
        let mut change = self.lineup.change();
        let mut lineup = self.lineup()?.as_ref().clone();
        let ended = lineup.candidate.take()?.generation;
        change.publish(lineup);
        change.retained.push_back(Arc::clone(&ended));
        self.trim(&mut change);
        Some(ended)
    }

    /// Sets whether verdicts are carried out, for the active generation and all later ones.
    pub fn set_mode(&self, mode: Mode) {
        let mut change = self.lineup.change();
        change.mode = mode;
        if let Some(lineup) = self.lineup() {
            let mut lineup = lineup.as_ref().clone();
            lineup.mode = mode;
            change.publish(lineup);
        }
    }

    /// Whether verdicts are carried out.
    pub fn mode(&self) -> Mode {
        self.lineup.change().mode
    }

    /// The numbers of all generations that can be activated, in ascending order.
    pub fn numbers(&self) -> Vec<u64> {
        self.numbers_of(&self.lineup.change())
    }

    /// The generation of this number, if it is in the lineup or retained.
    pub fn generation(&self, number: u64) -> Option<Arc<Generation>> {
        self.find(&self.lineup.change(), number).ok()
    }

    /// The number of the generation that was active before, if it is still retained.
    pub fn previous(&self) -> Option<u64> {
        let change = self.lineup.change();
        let previous = change.previous?;
        self.find(&change, previous).ok().map(|found| found.number)
    }

    /// Sets the last error. For failures before [`PolicySlot::load`], for example of a file that cannot be read.
    pub fn fail(&self, error: LoadError) {
        *self.last_error.lock() = Some(Failed {
            error,
            at: SystemTime::now(),
        });
    }

    /// The error of the last load, if it failed.
    pub fn last_error(&self) -> Option<Failed> {
        self.last_error.lock().clone()
    }

    /// The number of the active generation; 0 if there is none.
    pub fn number(&self) -> u64 {
        self.current().map_or(0, |generation| generation.number)
    }

    /// Number of generations in memory: in the lineup, retained, and replaced ones that a worker still uses.
    pub fn live_generations(&self) -> usize {
        let change = self.lineup.change();
        let serving = self.lineup.guard();
        let serving = serving
            .as_ref()
            .map_or(0, |lineup| 1 + usize::from(lineup.candidate.is_some()));
        serving + change.retained.len() + change.retired()
    }

    /// Drops replaced generations that no worker uses any more. To be called periodically, not on a worker; changes of the active generation
    /// do it, too.
    pub fn collect(&self) {
        let unused = self
            .lineup
            .collect(|generation| generation.policy.is_last());
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
        // A condemned generation may have been dropped and loaded again from the database.
        let is_condemned = history.is_condemned_as(number, policy.digest());
        Arc::new(Generation {
            policy,
            number,
            loaded_at: SystemTime::now(),
            stats: Stats::default(),
            condemned: AtomicBool::new(is_condemned),
        })
    }

    /// Makes a generation active and retains the generations that it replaces.
    fn serve(&self, change: &mut Change<'_>, generation: Arc<Generation>) {
        self.serve_after(change, generation, None);
    }

    /// The same with `previous` as the generation that was active before, if it is set.
    fn serve_after(
        &self,
        change: &mut Change<'_>,
        generation: Arc<Generation>,
        previous: Option<u64>,
    ) {
        let number = generation.number;
        generation.condemned.store(false, Ordering::Relaxed);
        change.pardon(&generation);
        let old = self.lineup();
        if let Some(old) = &old {
            if old.active.number != number {
                change.previous = Some(old.active.number);
            }
            change.retained.extend(serving(Some(old)).cloned());
        }
        change.previous = previous.or(change.previous);
        change.retained.retain(|kept| kept.number != number);
        self.trim(change);
        // A condemned generation is not a fallback.
        let previous = change.previous;
        let is_previous =
            |kept: &&Arc<Generation>| Some(kept.number) == previous && !kept.is_condemned();
        let lineup = Lineup {
            active: generation,
            mode: change.mode,
            candidate: None,
            fallback: change.retained.iter().find(is_previous).cloned(),
        };
        change.publish(lineup);
    }

    /// When sandboxes of the generation of this number are made, which is never done while the lineup is locked: a newer generation than the
    /// active one waits for them, and an older one, to which the seat returns, does not.
    fn warming_of(&self, number: u64) -> Warming {
        let active = self.number();
        match self.generation(number) {
            Some(generation) if number > active => Warming::Before(generation),
            Some(generation) if number < active => Warming::After(generation),
            Some(_) | None => Warming::Never,
        }
    }

    /// Retires the oldest generations beyond those that are retained.
    fn trim(&self, change: &mut Change<'_>) {
        while let Some(oldest) = change.oldest_beyond(self.max_retained) {
            change.retire(oldest);
        }
    }

    fn find(&self, history: &History, number: u64) -> Result<Arc<Generation>, NoGeneration> {
        let lineup = self.lineup.guard();
        // A retained generation takes precedence over one in the lineup with the same number: it was admitted later.
        let mut all = history
            .retained
            .iter()
            .rev()
            .chain(serving(lineup.as_deref()));
        match all.find(|generation| generation.number == number) {
            Some(generation) => Ok(Arc::clone(generation)),
            None => Err(NoGeneration::Unknown {
                number,
                kept: self.numbers_of(history),
            }),
        }
    }

    fn numbers_of(&self, history: &History) -> Vec<u64> {
        let lineup = self.lineup.guard();
        let all = serving(lineup.as_deref()).chain(&history.retained);
        let mut numbers: Vec<_> = all.map(|generation| generation.number).collect();
        numbers.sort_unstable();
        numbers
    }
}

impl SlotReader {
    /// The lineup.
    pub fn lineup(&mut self) -> Option<&Arc<Lineup>> {
        self.0.current()
    }

    /// The active generation.
    pub fn current(&mut self) -> Option<&Arc<Generation>> {
        self.lineup().map(|lineup| &lineup.active)
    }
}

/// When the sandboxes of a generation that becomes active are made.
enum Warming {
    Before(Arc<Generation>),
    After(Arc<Generation>),
    Never,
}

impl Warming {
    fn before(&self) {
        if let Self::Before(generation) = self {
            generation.policy.warm_up();
        }
    }

    fn after(&self) {
        if let Self::After(generation) = self {
            generation.policy.warm_up();
        }
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
