//! The place of one policy, with what happens when it fails.

use std::fmt;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use portcullis_config::SeatConfig;
use portcullis_policy::{Failure, PolicySlot, Scope};
use portcullis_rate as pace;
use portcullis_rate::{Clock, Due};
use tokio::sync::{Notify, Semaphore};

use crate::notices::Failures;

use super::breaker::{Breaker, Tripped};
use super::shadow::Comparison;

/// The names of the operator's seats: what no tenant claims, what is asked before a tenant's policy, and after it.
pub const OPERATORS: [&str; 3] = ["default", "before", "after"];

/// A place that one policy after the other holds.
pub struct Seat {
    /// The tenant's name; `default`, `before` or `after` for the operator's.
    pub name: Arc<str>,
    /// The generations.
    pub slot: Arc<PolicySlot>,
    /// What its policy may ask about.
    pub scope: Arc<Scope>,
    /// Policies that may be compiled for it at the same time.
    pub arrivals: Arc<Semaphore>,
    /// The same for those that the operator sends, who does not wait for the tenant's.
    pub operators_arrivals: Arc<Semaphore>,
    clock: Clock,
    /// Policies that the tenant's people have pushed.
    pushes: Due,
    /// File, limits, and what happens after a failure.
    pub config: SeatConfig,
    /// How often its policies failed, and how the last time.
    pub failures: Failures,
    breaker: Breaker,
    /// How the candidate of the moment, or the last one, fares in the shadow of the one that serves.
    comparison: ArcSwapOption<Comparison>,
    /// The generation that failed too often, for whoever can go back to an older one.
    tripped: Mutex<Option<(u64, Tripped, String)>>,
    alert: Mutex<Option<Alert>>,
    wake: Arc<Notify>,
}

/// A policy was taken out of service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// The generation.
    pub generation: u64,
    /// When.
    pub at: SystemTime,
    /// Why, and what serves in its place.
    pub text: String,
}

impl Seat {
    /// A seat. `wake` is told when its policy fails too often.
    pub fn new(
        name: &str,
        slot: Arc<PolicySlot>,
        scope: Scope,
        config: SeatConfig,
        wake: Arc<Notify>,
    ) -> Self {
        slot.set_mode(config.mode);
        Self {
            name: name.into(),
            slot,
            scope: Arc::new(scope),
            arrivals: Arc::new(Semaphore::new(1)),
            operators_arrivals: Arc::new(Semaphore::new(1)),
            clock: Clock::new(),
            pushes: Due::default(),
            breaker: Breaker::new(config.breaker),
            failures: Failures::default(),
            config,
            comparison: ArcSwapOption::empty(),
            tripped: Mutex::new(None),
            alert: Mutex::new(None),
            wake,
        }
    }

    /// Whether the seat is the operator's, not a tenant's.
    pub fn is_operators(&self) -> bool {
        OPERATORS.contains(&&*self.name)
    }

    /// Takes one push by the tenant's people; false if it is one too many.
    pub fn admits_push(&self, now: Instant) -> bool {
        let Some(most) = self.config.pushes else {
            return true;
        };
        let each = 60 * pace::each(most);
        let ahead = each * u64::from(most);
        self.pushes.take(self.clock.at(now), each, ahead)
    }

    /// Where differences between these two are noted. A new pair begins a new one.
    pub fn comparison_of(&self, active: u64, candidate: u64) -> Arc<Comparison> {
        let is_of = |comparison: &Comparison| {
            comparison.active == active && comparison.candidate == candidate
        };
        let found = || self.comparison.load_full().filter(|one| is_of(one));
        if let Some(comparison) = found() {
            return comparison;
        }
        // Workers that come at the same time note in one and the same.
        let _turn = self.tripped.lock();
        if let Some(comparison) = found() {
            return comparison;
        }
        let comparison = Arc::new(Comparison::new(active, candidate));
        self.comparison.store(Some(Arc::clone(&comparison)));
        comparison
    }

    /// How the last candidate fared in the shadow; none if there was none.
    pub fn comparison(&self) -> Option<Arc<Comparison>> {
        self.comparison.load_full()
    }

    /// Whether its policy may be asked at the moment.
    #[inline]
    pub fn admits(&self, now: Instant) -> bool {
        self.breaker.admits(now)
    }

    /// Its policy decided on a request, which it was asked at this time.
    #[inline]
    pub fn note_success(&self, asked: Instant) {
        self.breaker.close(asked);
    }

    /// Counts a failure of a generation. What follows from it, if anything, is done on another thread.
    pub fn note_failure(&self, generation: u64, failure: &Failure, now: Instant) {
        if let Some(tripped) = self.breaker.count(now) {
            *self.tripped.lock() = Some((generation, tripped, failure.to_string()));
            self.wake.notify_one();
        }
    }

    /// Goes back to the generation before the one that failed too often, if it did and there is one: from which to which. Not for a
    /// worker: what is replaced may have to be freed.
    pub fn tend(&self) -> Option<(u64, u64)> {
        let tripped = self.tripped.lock().take();
        let (generation, Tripped { failures, within }, last) = tripped?;
        let reason = match failures {
            1 => format!("a failure: {last}"),
            _ => format!("{failures} failures within {within:.1?}, the last one: {last}"),
        };
        let good = self.slot.fall_back(generation).map(|good| good.number);
        let text = match good {
            Some(good) => {
                self.breaker.reset();
                format!("generation {generation} had {reason}; generation {good} serves again")
            }
            // Another one was put in its place meanwhile.
            None if self.slot.number() != generation => {
                self.breaker.reset();
                return None;
            }
            None => format!(
                "generation {generation} had {reason}; there is none to go back to, so it is not asked for {:?}",
                self.config.breaker.pause
            ),
        };
        tracing::error!(
            event = "policy_out_of_service",
            policy = &*self.name,
            "policy out of service: {text}"
        );
        *self.alert.lock() = Some(Alert {
            generation,
            at: SystemTime::now(),
            text,
        });
        good.map(|good| (generation, good))
    }

    /// The policy that was taken out of service last, until another one is put in its place by hand.
    pub fn alert(&self) -> Option<Alert> {
        self.alert.lock().clone()
    }

    /// Starts afresh with what serves now: someone has put it there.
    pub fn clear(&self) {
        *self.tripped.lock() = None;
        *self.alert.lock() = None;
        self.breaker.reset();
    }
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
