//! The attachment point of a policy, and what happens when the policy fails.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use portcullis_config::SeatConfig;
use portcullis_policy::{Candidate, Failure, Lineup, PolicySlot, Scope, Trial};
use portcullis_rate as pace;
use portcullis_rate::{Clock, Due};
use portcullis_sync::{Breaker, Tripped};
use tokio::sync::{Notify, Semaphore};

use crate::notices::Failures;

use super::shadow::Comparison;

/// The names of the operator's seats: for requests of no tenant, called before a tenant's policy, called after it.
pub const OPERATORS: [&str; 3] = ["default", "before", "after"];

/// Most requests of a seat, for each second, whose verdicts are compared in a canary trial of a roll-out. The burst is one second's worth.
const COMPARED: u32 = 20;

/// An attachment point of policies: slot, scope, limits, circuit breaker.
pub struct Seat {
    /// The tenant's name, or `default`, `before` or `after` for the operator's seats.
    pub name: Arc<str>,
    /// The generations.
    pub slot: Arc<PolicySlot>,
    /// What its policy may query and change.
    pub scope: Arc<Scope>,
    /// Permits for compiling policies pushed by the tenant.
    pub arrivals: Arc<Semaphore>,
    /// Permits for compiling policies pushed by the operator, which do not wait for those of the tenant.
    pub operators_arrivals: Arc<Semaphore>,
    clock: Clock,
    /// Rate of pushes by the tenant.
    pushes: Due,
    /// File, limits, and actions on failure.
    pub config: Arc<SeatConfig>,
    /// Number of failures by kind, and the last failure.
    pub failures: Failures,
    breaker: Breaker,
    /// The comparison of the current or the last shadow candidate with the active generation.
    comparison: ArcSwapOption<Comparison>,
    /// What a roll-out over all hosts needs to know of a canary trial.
    rollout: RolloutNeeds,
    /// The generation that tripped the breaker, for the task that rolls back.
    tripped: Mutex<Option<(u64, Tripped, String)>>,
    alert: Mutex<Option<Alert>>,
    wake: Arc<Notify>,
}

/// What a roll-out over all hosts needs to know of a canary trial of the seat.
#[derive(Debug, Default)]
struct RolloutNeeds {
    /// How long calls take.
    durations: AtomicBool,
    /// On which requests the verdicts of both generations differ.
    verdicts: AtomicBool,
    /// Rate of the requests whose verdicts are compared.
    compared: Due,
}

/// A policy was taken out of service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// The generation.
    pub generation: u64,
    /// When.
    pub at: SystemTime,
    /// Why, and what is active instead.
    pub text: String,
}

impl Seat {
    /// A seat. `wake` is notified when the breaker trips.
    pub fn new(
        name: &str,
        slot: Arc<PolicySlot>,
        scope: Scope,
        config: impl Into<Arc<SeatConfig>>,
        wake: Arc<Notify>,
    ) -> Self {
        let config = config.into();
        slot.set_mode(config.mode);
        Self {
            name: name.into(),
            slot,
            scope: Arc::new(scope),
            arrivals: Arc::new(Semaphore::new(1)),
            operators_arrivals: Arc::new(Semaphore::new(1)),
            clock: Clock::new(),
            pushes: Due::default(),
            breaker: Breaker::new(
                config.breaker.failures,
                config.breaker.window,
                config.breaker.pause,
            ),
            failures: Failures::default(),
            config,
            comparison: ArcSwapOption::empty(),
            rollout: RolloutNeeds::default(),
            tripped: Mutex::new(None),
            alert: Mutex::new(None),
            wake,
        }
    }

    /// Whether the seat is the operator's, not a tenant's.
    pub fn is_operators(&self) -> bool {
        OPERATORS.contains(&&*self.name)
    }

    /// Counts one push by the tenant; false if the rate is exceeded.
    pub fn admits_push(&self, now: Instant) -> bool {
        let Some(most) = self.config.pushes else {
            return true;
        };
        let each = 60 * pace::each(most);
        let ahead = each * u64::from(most);
        self.pushes.take(self.clock.at(now), each, ahead)
    }

    /// The comparison for these two generations. A new pair starts a new comparison.
    pub fn comparison_of(&self, active: u64, candidate: u64) -> Arc<Comparison> {
        let is_of = |comparison: &Comparison| {
            comparison.active == active && comparison.candidate == candidate
        };
        let found = || self.comparison.load_full().filter(|one| is_of(one));
        if let Some(comparison) = found() {
            return comparison;
        }
        // Concurrent workers must use the same comparison.
        let _turn = self.tripped.lock();
        if let Some(comparison) = found() {
            return comparison;
        }
        let comparison = Arc::new(Comparison::new(active, candidate));
        self.comparison.store(Some(Arc::clone(&comparison)));
        comparison
    }

    /// The comparison of the last candidate; `None` if there was none.
    pub fn comparison(&self) -> Option<Arc<Comparison>> {
        self.comparison.load_full()
    }

    /// Sets what a roll-out over all hosts needs to know of a canary trial: nothing without one, else how long calls take and, if `verdicts`, on which
    /// requests the verdicts differ.
    pub fn serve_rollout(&self, verdicts: Option<bool>) {
        let needs = &self.rollout;
        needs.durations.store(verdicts.is_some(), Ordering::Relaxed);
        needs
            .verdicts
            .store(verdicts == Some(true), Ordering::Relaxed);
    }

    /// Whether a roll-out needs to know how long calls take.
    pub fn is_rolled_out(&self) -> bool {
        self.rollout.durations.load(Ordering::Relaxed)
    }

    /// Whether the generation that does not decide on the next request evaluates it beside: in canary trials of roll-outs, for a sample of at most
    /// 20 requests a second.
    #[inline]
    pub fn samples(&self, lineup: &Lineup, now: Instant) -> bool {
        let needs = &self.rollout;
        match &lineup.candidate {
            Some(Candidate {
                trial: Trial::Canary(_),
                ..
            }) if needs.verdicts.load(Ordering::Relaxed) => {
                let each = pace::each(COMPARED);
                needs
                    .compared
                    .take(self.clock.at(now), each, each * u64::from(COMPARED))
            }
            Some(_) | None => false,
        }
    }

    /// Whether the policy may be called at the moment.
    #[inline]
    pub fn admits(&self, now: Instant) -> bool {
        self.breaker.admits(now)
    }

    /// Notes that the policy decided on a request in a call that began at this time.
    #[inline]
    pub fn note_success(&self, asked: Instant) {
        self.breaker.close(asked);
    }

    /// Counts a failure of a generation. Consequences, if any, are handled on another thread.
    pub fn note_failure(&self, generation: u64, failure: &Failure, now: Instant) {
        if let Some(tripped) = self.breaker.count(now) {
            *self.tripped.lock() = Some((generation, tripped, failure.to_string()));
            self.wake.notify_one();
        }
    }

    /// Rolls back from the generation that tripped the breaker, if it did and there is a previous one: returns from which to which
    /// generation. Not to be called by a worker: replaced state may have to be freed.
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
            // Another generation has become active meanwhile.
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

    /// The policy that was taken out of service last, until another one is activated by hand.
    pub fn alert(&self) -> Option<Alert> {
        self.alert.lock().clone()
    }

    /// Resets the failure state: somebody activated the current generation.
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
