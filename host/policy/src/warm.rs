//! Sandboxes that are made before the first call of their policy, so that this call is not late.
//!
//! A policy whose sandboxes keep their state may take milliseconds to instantiate: a language runtime with many pages of memory. If the
//! workers did that with the first requests after a swap, these requests would be late, or exceed the deadline of the call.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::sandbox::Sandbox;
use crate::scope::Scope;

/// Number of policies that may have sandboxes of this kind at the same time. A policy that is loaded later takes the place of the first.
pub const WARM_POLICIES: usize = 2;

/// The sandboxes of loaded policies (`P`) that no worker has taken yet.
pub(crate) struct WarmSandboxes<P> {
    /// Number of evaluators, each of which takes one sandbox of a policy. 0: no sandboxes are made in advance.
    evaluators: AtomicUsize,
    waiting: Mutex<VecDeque<Warm<P>>>,
}

struct Warm<P> {
    /// As long as this exists, no other policy has the same address.
    policy: Weak<P>,
    scope: Arc<Scope>,
    sandbox: Sandbox,
}

impl<P> WarmSandboxes<P> {
    pub(crate) fn set_evaluators(&self, evaluators: usize) {
        self.evaluators.store(evaluators, Ordering::Relaxed);
    }

    /// Makes as many sandboxes by `open` as the evaluators need in addition to those that wait. Stops at the first that cannot be made: the
    /// call that needs it will report the failure.
    pub(crate) fn fill(
        &self,
        policy: &Arc<P>,
        scope: &Arc<Scope>,
        open: impl Fn() -> Option<Sandbox>,
    ) {
        let evaluators = self.evaluators.load(Ordering::Relaxed);
        let waits = |warm: &Warm<P>| warm.is_of(policy, scope);
        let waiting = self
            .waiting
            .lock()
            .iter()
            .filter(|warm| waits(warm))
            .count();
        for _ in waiting..evaluators {
            let oldest = {
                let mut waiting = self.waiting.lock();
                let is_full = waiting.len() >= evaluators * WARM_POLICIES;
                is_full.then(|| waiting.pop_front())
            };
            // Dropped before the next one is made, so that the number of sandboxes has its bound.
            drop(oldest);
            let Some(sandbox) = open() else {
                return;
            };
            self.waiting.lock().push_back(Warm {
                policy: Arc::downgrade(policy),
                scope: Arc::clone(scope),
                sandbox,
            });
        }
    }

    /// Takes a sandbox of this policy in this scope. Called by workers, but only when they have none of their own.
    pub(crate) fn take(&self, policy: &Arc<P>, scope: &Arc<Scope>) -> Option<Sandbox> {
        let mut waiting = self.waiting.lock();
        let at = waiting.iter().position(|warm| warm.is_of(policy, scope))?;
        waiting.remove(at).map(|warm| warm.sandbox)
    }

    /// Drops the sandboxes of policies that no longer exist.
    pub(crate) fn sweep(&self) {
        let mut waiting = self.waiting.lock();
        let (kept, dropped) = std::mem::take(&mut *waiting)
            .into_iter()
            .partition::<VecDeque<_>, _>(|warm| warm.policy.strong_count() > 0);
        *waiting = kept;
        drop(waiting);
        drop(dropped);
    }
}

impl<P> Default for WarmSandboxes<P> {
    fn default() -> Self {
        Self {
            evaluators: AtomicUsize::new(0),
            waiting: Mutex::default(),
        }
    }
}

impl<P> Warm<P> {
    fn is_of(&self, policy: &Arc<P>, scope: &Arc<Scope>) -> bool {
        std::ptr::eq(self.policy.as_ptr(), Arc::as_ptr(policy)) && Arc::ptr_eq(&self.scope, scope)
    }
}
