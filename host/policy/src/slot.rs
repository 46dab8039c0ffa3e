//! The place from which workers take the policy of the moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use arc_swap::{ArcSwapOption, Cache};
use parking_lot::Mutex;

use crate::digest::Digest;
use crate::load::LoadError;
use crate::policy::Policy;
use crate::runtime::Runtime;
use crate::view::RequestView;

/// Holds the policy that serves. Replacing it reaches all workers at once: each takes the new one with its next request.
///
/// Old generations are never dropped by a worker, because freeing compiled code takes time: they wait here until no worker has
/// them any more, and [`PolicySlot::collect`] drops them.
pub struct PolicySlot<R: 'static> {
    current: Arc<ArcSwapOption<Generation<R>>>,
    last_number: AtomicU64,
    // Held while a policy is loaded, so that two loads come out in order.
    loading: Mutex<()>,
    retired: Mutex<Vec<Arc<Generation<R>>>>,
    last_error: Mutex<Option<Failed>>,
}

/// One policy that served, or serves.
pub struct Generation<R: 'static> {
    /// The policy.
    pub policy: Policy<R>,
    /// Counts up from 1.
    pub number: u64,
    /// When it was published.
    pub loaded_at: SystemTime,
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
pub enum Reload<R: 'static> {
    /// A new generation serves.
    Published(Arc<Generation<R>>),
    /// The file is the one that serves already.
    Unchanged(Arc<Generation<R>>),
}

type Current<R> = Option<Arc<Generation<R>>>;

/// A worker's view of a slot: looking costs one atomic load while nothing changes.
pub struct SlotReader<R: 'static> {
    cache: Cache<Arc<ArcSwapOption<Generation<R>>>, Current<R>>,
}

impl<R: RequestView> PolicySlot<R> {
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
    ) -> Result<Reload<R>, LoadError> {
        let _order = self.loading.lock();
        if let Some(current) = self.current()
            && current.serves(name, Digest::of(bytes), reuse)
        {
            *self.last_error.lock() = None;
            return Ok(Reload::Unchanged(current));
        }
        match runtime.load(name, bytes) {
            Ok(policy) => Ok(Reload::Published(self.publish(policy.with_reuse(reuse)))),
            Err(error) => {
                self.fail(error.clone());
                Err(error)
            }
        }
    }
}

impl<R: 'static> PolicySlot<R> {
    /// An empty slot.
    pub fn new() -> Self {
        Self {
            current: Arc::new(ArcSwapOption::empty()),
            last_number: AtomicU64::new(0),
            loading: Mutex::new(()),
            retired: Mutex::new(Vec::new()),
            last_error: Mutex::new(None),
        }
    }

    /// The policy of the moment. Workers use a [`SlotReader`].
    pub fn current(&self) -> Option<Arc<Generation<R>>> {
        self.current.load_full()
    }

    /// A view for one worker.
    pub fn reader(&self) -> SlotReader<R> {
        SlotReader {
            cache: Cache::new(Arc::clone(&self.current)),
        }
    }

    /// Makes `policy` the one that serves, and forgets the last error.
    pub fn publish(&self, policy: Policy<R>) -> Arc<Generation<R>> {
        // The lock also keeps numbers and publications in the same order.
        let mut retired = self.retired.lock();
        let generation = Arc::new(Generation {
            policy,
            number: self.last_number.fetch_add(1, Ordering::Relaxed) + 1,
            loaded_at: SystemTime::now(),
        });
        let old = self.current.swap(Some(Arc::clone(&generation)));
        retired.extend(old);
        drop(retired);
        *self.last_error.lock() = None;
        self.collect();
        generation
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

    /// Generations that exist: the one that serves, and old ones that a worker still has.
    pub fn live_generations(&self) -> usize {
        self.retired.lock().len() + usize::from(self.current.load().is_some())
    }

    /// Drops the old generations that no worker has any more. To be called from time to time, on a thread that serves no
    /// requests; publishing does it too.
    pub fn collect(&self) {
        let unused: Vec<_> = {
            let mut retired = self.retired.lock();
            let is_unused = |generation: &mut Arc<Generation<R>>| {
                Arc::strong_count(generation) == 1 && generation.policy.is_last()
            };
            retired.extract_if(.., is_unused).collect()
        };
        drop(unused);
    }
}

impl<R: 'static> Generation<R> {
    fn serves(&self, name: &str, digest: Digest, reuse: bool) -> bool {
        self.policy.digest() == digest && self.policy.name() == name && self.policy.reuse == reuse
    }
}

impl<R: 'static> SlotReader<R> {
    /// The policy of the moment.
    pub fn current(&mut self) -> Option<&Arc<Generation<R>>> {
        self.cache.load().as_ref()
    }
}

impl<R: 'static> Default for PolicySlot<R> {
    fn default() -> Self {
        Self::new()
    }
}

impl<R> std::fmt::Debug for Generation<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Generation")
            .field("number", &self.number)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}
