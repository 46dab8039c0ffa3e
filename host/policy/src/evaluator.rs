//! Calls policies for one worker.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use portcullis_address::Snapshot;
use portcullis_request::Request;

use crate::call::{Bounds, Call, Notes};
use crate::decision::DecisionId;
use crate::edits::Edits;
use crate::failure::{Failure, Stage};
use crate::idle_sandboxes::{IdleSandbox, IdleSandboxes};
use crate::module::Use;
use crate::policy::Policy;
use crate::sandbox::Outcome;
use crate::scope::Scope;
use crate::state::{Data, State};
use crate::tape::Tape;
use crate::verdict::Verdict;

/// Number of idle sandboxes that an evaluator keeps by default, usually each of another policy.
pub const KEPT: usize = 4;

/// Calls policies, one request after the other. Each worker has its own. While policy and tables stay the same, a call changes no
/// reference count.
pub struct Evaluator {
    /// The data of the next store. `None` while an idle sandbox has it.
    spare: Option<Data>,
    idle: IdleSandboxes,
    /// Whether log lines of policies are discarded.
    mute: bool,
    /// The decision that the next calls belong to.
    decision: Option<DecisionId>,
    results: Results,
    /// The fuel of the last call, if it is metered.
    fuel: Option<u64>,
}

/// What a call leaves beside its verdict.
#[derive(Default)]
struct Results {
    /// The tape for the next call, or of the last one.
    tape: Option<Box<Tape>>,
    /// The changes to header fields by the last call.
    edits: Edits,
}

impl Evaluator {
    /// An evaluator that keeps [`KEPT`] idle sandboxes.
    pub fn new() -> Self {
        Self::keeping(KEPT)
    }

    /// An evaluator that keeps this many idle sandboxes. A call in an idle sandbox is several times faster. Each takes a slot of the
    /// runtime's pool.
    pub fn keeping(sandboxes: usize) -> Self {
        Self {
            spare: None,
            idle: IdleSandboxes::new(sandboxes),
            mute: false,
            decision: None,
            results: Results::default(),
            fuel: None,
        }
    }

    /// An evaluator that discards log lines of policies: for calls that repeat earlier ones.
    pub fn muted() -> Self {
        Self {
            mute: true,
            ..Self::new()
        }
    }

    /// Calls `policy` to decide on `request`, in `scope` and with the tables of `addresses`. Returns the request in any case.
    ///
    /// Runs on the calling thread, which needs `stack_bytes` of stack and some more. Takes at most `deadline` and two ticks, or up to two
    /// more ticks if the thread is preempted ([`Limits::deadline`](crate::Limits::deadline)).
    ///
    /// # Errors
    /// If the call fails. The next call is not affected.
    pub fn decide(
        &mut self,
        policy: &Policy,
        scope: &Arc<Scope>,
        addresses: &Arc<Snapshot>,
        request: Request,
    ) -> (Request, Result<Verdict, Failure>) {
        let usage = match policy.reuse {
            true => Use::Again,
            false if policy.loaded.sandboxes.can_reset() => Use::Reset,
            false => Use::Once,
        };
        let (request, outcome) = match usage {
            Use::Once => self.decide_fresh(policy, scope, addresses, request),
            Use::Again | Use::Reset => self.decide_kept(policy, scope, addresses, request, usage),
        };
        (request, outcome.map_err(|(_, failure)| failure))
    }

    /// Uses this tape in the next call, to record or to replay.
    pub fn insert_tape(&mut self, tape: Tape) {
        self.results.tape = Some(Box::new(tape));
    }

    /// Sets the decision that the next calls belong to. Log lines contain it.
    pub fn set_decision(&mut self, decision: Option<DecisionId>) {
        self.decision = decision;
    }

    /// Takes the tape of the last call, if it had one.
    pub fn take_tape(&mut self) -> Option<Tape> {
        self.results.tape.take().map(|tape| *tape)
    }

    /// Takes the changes to header fields that the last call made. They apply if the request is relayed.
    pub fn take_edits(&mut self) -> Edits {
        std::mem::take(&mut self.results.edits)
    }

    /// The fuel of the last call: about one per instruction of the policy, the same on every machine. `None` if the runtime does not meter
    /// fuel.
    pub fn fuel(&self) -> Option<u64> {
        self.fuel
    }

    /// Drops the idle sandboxes of policies that are not in use; `serving` passes those in use to its argument. Called between requests, so
    /// that replaced policies can be freed.
    pub fn keep_only(&mut self, serving: impl FnOnce(&mut dyn FnMut(&Policy))) {
        if let Some(call) = self.idle.keep_only(serving) {
            self.spare = Some(call);
        }
    }

    fn decide_fresh(
        &mut self,
        policy: &Policy,
        scope: &Arc<Scope>,
        addresses: &Arc<Snapshot>,
        request: Request,
    ) -> (Request, Outcome) {
        let loaded = &*policy.loaded;
        let mut state = self.state(policy, scope, addresses);
        let notes = self.notes();
        let bounds = self.bounds(policy);
        state
            .call
            .begin(addresses, scope, &loaded.name, bounds, request, notes);
        let (mut state, outcome, fuel) = loaded.sandboxes.ask(state, &loaded.limits);
        self.fuel = fuel;
        let request = self.results.take(&mut state.call, policy);
        self.spare = Some(state);
        (request, outcome)
    }

    fn decide_kept(
        &mut self,
        policy: &Policy,
        scope: &Arc<Scope>,
        addresses: &Arc<Snapshot>,
        request: Request,
        usage: Use,
    ) -> (Request, Outcome) {
        let loaded = &*policy.loaded;
        let bounds = self.bounds(policy);
        let notes = self.notes();
        let at = match self.idle.acquire(policy, scope, usage) {
            Some(at) => {
                let call = self.idle.sandbox(at).call();
                call.begin(addresses, scope, &loaded.name, bounds, request, notes);
                at
            }
            None => {
                if let Some(state) = self.idle.make_room(scope) {
                    self.spare = Some(state);
                }
                let mut state = self.state(policy, scope, addresses);
                state
                    .call
                    .begin(addresses, scope, &loaded.name, bounds, request, notes);
                match loaded.sandboxes.open(state, &loaded.limits, usage) {
                    Ok(sandbox) => self.idle.insert(IdleSandbox {
                        policy: policy.clone(),
                        scope: Arc::clone(scope),
                        sandbox,
                    }),
                    Err((mut state, failure)) => {
                        let request = self.results.take(&mut state.call, policy);
                        self.spare = Some(state);
                        return (request, Err((Stage::Instantiate, failure)));
                    }
                }
            }
        };
        let sandbox = self.idle.sandbox(at);
        let outcome = sandbox.ask(&loaded.limits);
        self.fuel = sandbox.fuel_used();
        let request = self.results.take(sandbox.call(), policy);
        match outcome.is_ok() && sandbox.make_ready() {
            true => self.idle.release(at),
            false => self.spare = Some(self.idle.remove(at).sandbox.close()),
        }
        (request, outcome)
    }

    fn notes(&mut self) -> Notes {
        Notes {
            tape: self.results.tape.take(),
            decision: self.decision,
        }
    }

    fn bounds(&self, policy: &Policy) -> Bounds {
        let bounds = policy.loaded.limits.bounds;
        Bounds {
            mute: bounds.mute || self.mute,
            ..bounds
        }
    }

    fn state(&mut self, policy: &Policy, scope: &Arc<Scope>, addresses: &Arc<Snapshot>) -> Data {
        self.spare.take().unwrap_or_else(|| {
            let loaded = &*policy.loaded;
            Box::new(State::new(Call::new(
                Arc::clone(addresses),
                Arc::clone(scope),
                Arc::clone(&loaded.name),
                loaded.limits.bounds,
            )))
        })
    }
}

impl Results {
    /// Ends a call: takes its tape and edits, counts its dropped log lines, and returns the request.
    fn take(&mut self, call: &mut Call, policy: &Policy) -> Request {
        let dropped = call.finish_log();
        if dropped > 0 {
            let counter = &policy.loaded.dropped_lines;
            counter.fetch_add(dropped.into(), Ordering::Relaxed);
        }
        self.tape = call.take_tape();
        self.edits.clear();
        if !call.edits().is_empty() {
            self.edits = std::mem::take(call.edits());
        }
        call.end()
    }
}

impl Default for Evaluator {
    fn default() -> Self {
        Self::new()
    }
}
