//! Asks policies on behalf of one worker.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use portcullis_address::Snapshot;

use crate::call::{Bounds, Call};
use crate::direct::Use;
use crate::failure::{Failure, Stage};
use crate::policy::Policy;
use crate::sandbox::{Open, Outcome};
use crate::verdict::Verdict;
use crate::view::RequestView;

/// Asks policies, one request after the other. Every worker has its own: nothing in it is shared, and while policy and address
/// table stay the same, a call changes no reference count.
pub struct Evaluator<R: 'static> {
    /// The state of a call, between calls. Absent while a kept sandbox has it.
    idle: Option<Box<Call<R>>>,
    kept: Option<Kept<R>>,
    /// Whether what policies log goes nowhere.
    mute: bool,
}

/// A sandbox kept for the next call of its policy: put back to its first state, or as the last call left it, where that is asked
/// for.
struct Kept<R: 'static> {
    policy: Policy<R>,
    sandbox: Open<R>,
}

impl<R: RequestView> Evaluator<R> {
    /// An evaluator that has not asked anything yet.
    pub fn new() -> Self {
        Self {
            idle: None,
            kept: None,
            mute: false,
        }
    }

    /// One that lets nothing of what policies log into the log: what it asks has been asked before.
    pub fn muted() -> Self {
        Self {
            mute: true,
            ..Self::new()
        }
    }

    /// Asks `policy` about `request`, with `addresses` as the table that it sees. The request comes back in any case.
    ///
    /// Runs on the calling thread, which needs `stack_bytes` of stack and some more, for `deadline` and two ticks at most.
    ///
    /// # Errors
    /// The failure is the policy's: the evaluator is as good as new.
    pub fn decide(
        &mut self,
        policy: &Policy<R>,
        addresses: &Arc<Snapshot>,
        request: R,
    ) -> (R, Result<Verdict, Failure>) {
        let usage = match policy.reuse {
            true => Use::Again,
            false if policy.loaded.sandboxes.can_reset() => Use::Reset,
            false => Use::Once,
        };
        let (request, outcome) = match usage {
            Use::Once => {
                self.keep_only(|_| false);
                self.decide_fresh(policy, addresses, request)
            }
            Use::Again | Use::Reset => self.decide_kept(policy, addresses, request, usage),
        };
        (request, outcome.map_err(|(_, failure)| failure))
    }

    /// Ends the sandbox that is kept, unless its policy `serves`. For times without requests, so that what has been replaced can go.
    pub fn keep_only(&mut self, serves: impl Fn(&Policy<R>) -> bool) {
        if let Some(kept) = self.kept.take_if(|kept| !serves(&kept.policy)) {
            self.idle = Some(kept.sandbox.close());
        }
    }

    fn decide_fresh(
        &mut self,
        policy: &Policy<R>,
        addresses: &Arc<Snapshot>,
        request: R,
    ) -> (R, Outcome) {
        let loaded = &*policy.loaded;
        let mut call = self.idle(policy, addresses);
        call.begin(addresses, &loaded.name, self.bounds(policy), request);
        let (mut call, outcome) = loaded.sandboxes.ask(call, &loaded.rules);
        let request = end(&mut call, policy);
        self.idle = Some(call);
        (request, outcome)
    }

    fn decide_kept(
        &mut self,
        policy: &Policy<R>,
        addresses: &Arc<Snapshot>,
        request: R,
        usage: Use,
    ) -> (R, Outcome) {
        let loaded = &*policy.loaded;
        let mut sandbox = match self.take_kept(policy, usage) {
            Some(mut sandbox) => {
                let bounds = self.bounds(policy);
                sandbox
                    .call()
                    .begin(addresses, &loaded.name, bounds, request);
                sandbox
            }
            None => {
                let mut call = self.idle(policy, addresses);
                call.begin(addresses, &loaded.name, self.bounds(policy), request);
                match loaded.sandboxes.open(call, &loaded.rules, usage) {
                    Ok(sandbox) => sandbox,
                    Err((mut call, failure)) => {
                        let request = end(&mut call, policy);
                        self.idle = Some(call);
                        return (request, Err((Stage::Instantiate, failure)));
                    }
                }
            }
        };
        let outcome = sandbox.ask(&loaded.rules);
        let request = end(sandbox.call(), policy);
        match outcome.is_ok() && sandbox.make_ready() {
            true => {
                let policy = policy.clone();
                self.kept = Some(Kept { policy, sandbox });
            }
            false => self.idle = Some(sandbox.close()),
        }
        (request, outcome)
    }

    /// The sandbox kept for this use of `policy`. Any other is ended.
    fn take_kept(&mut self, policy: &Policy<R>, usage: Use) -> Option<Open<R>> {
        let kept = self.kept.take()?;
        if kept.policy.is_same(policy) && kept.sandbox.usage() == usage {
            return Some(kept.sandbox);
        }
        self.idle = Some(kept.sandbox.close());
        None
    }

    fn bounds(&self, policy: &Policy<R>) -> Bounds {
        let bounds = policy.loaded.rules.bounds;
        Bounds {
            mute: bounds.mute || self.mute,
            ..bounds
        }
    }

    fn idle(&mut self, policy: &Policy<R>, addresses: &Arc<Snapshot>) -> Box<Call<R>> {
        self.idle.take().unwrap_or_else(|| {
            let loaded = &*policy.loaded;
            Box::new(Call::new(
                Arc::clone(addresses),
                Arc::clone(&loaded.name),
                loaded.rules.bounds,
            ))
        })
    }
}

impl<R: RequestView> Default for Evaluator<R> {
    fn default() -> Self {
        Self::new()
    }
}

fn end<R: RequestView>(call: &mut Call<R>, policy: &Policy<R>) -> R {
    let dropped = call.finish_log();
    if dropped > 0 {
        let counter = &policy.loaded.dropped_lines;
        counter.fetch_add(dropped.into(), Ordering::Relaxed);
    }
    call.end()
}
