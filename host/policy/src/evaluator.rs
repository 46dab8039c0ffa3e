//! Asks policies on behalf of one worker.

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

/// Sandboxes that an evaluator keeps unless told otherwise, each of another policy as a rule.
pub const KEPT: usize = 4;

/// Asks policies, one request after the other. Every worker has its own: nothing in it is shared, and while policy and address
/// table stay the same, a call changes no reference count.
pub struct Evaluator {
    /// The state of a sandbox, between calls. Absent while a kept sandbox has it.
    spare: Option<Data>,
    idle: IdleSandboxes,
    /// Whether what policies log goes nowhere.
    mute: bool,
    /// For the next call, or of the last one.
    tape: Option<Box<Tape>>,
    /// Of the calls to come.
    decision: Option<DecisionId>,
    /// Of the last call.
    edits: Edits,
    /// Of the last call, where fuel is counted.
    fuel: Option<u64>,
}

impl Evaluator {
    /// An evaluator that has not asked anything yet.
    pub fn new() -> Self {
        Self::keeping(KEPT)
    }

    /// One that keeps so many sandboxes. A policy whose sandbox is kept is asked several times faster; each takes one of the
    /// runtime's.
    pub fn keeping(sandboxes: usize) -> Self {
        Self {
            spare: None,
            idle: IdleSandboxes::new(sandboxes),
            mute: false,
            tape: None,
            decision: None,
            edits: Edits::default(),
            fuel: None,
        }
    }

    /// One that lets nothing of what policies log into the log: what it asks has been asked before.
    pub fn muted() -> Self {
        Self {
            mute: true,
            ..Self::new()
        }
    }

    /// Asks `policy` about `request` on behalf of `scope`, with `addresses` as the table that it sees. The request comes back in any case.
    ///
    /// Runs on the calling thread, which needs `stack_bytes` of stack and some more, for `deadline` and two ticks at most, and
    /// for up to two more ([`Limits::deadline`](crate::Limits::deadline)) when it loses the processor meanwhile.
    ///
    /// # Errors
    /// The failure is the policy's: the evaluator is as good as new.
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

    /// Has the next call read from, and written down on, this tape.
    pub fn insert_tape(&mut self, tape: Tape) {
        self.tape = Some(Box::new(tape));
    }

    /// What the calls to come are for, until another one is set: log lines name it.
    pub fn set_decision(&mut self, decision: Option<DecisionId>) {
        self.decision = decision;
    }

    /// The tape of the last call, if it had one.
    pub fn take_tape(&mut self) -> Option<Tape> {
        self.tape.take().map(|tape| *tape)
    }

    /// The changes to the header that the last call made. They are for a request that is relayed in the end.
    pub fn take_edits(&mut self) -> Edits {
        std::mem::take(&mut self.edits)
    }

    /// What the last call took in fuel: about one for each instruction of the policy, the same on every machine. None where the runtime
    /// does not count it.
    pub fn fuel(&self) -> Option<u64> {
        self.fuel
    }

    /// Ends the sandboxes that are kept of policies that do not serve; `serving` hands over those that do. For times without requests,
    /// so that what has been replaced can go.
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
        let (mut state, outcome, fuel) = loaded.sandboxes.ask(state, &loaded.rules);
        self.fuel = fuel;
        let request = self.end(&mut state.call, policy);
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
        let mut kept = match self.idle.take(policy, scope, usage) {
            Some(mut kept) => {
                let call = kept.sandbox.call();
                call.begin(addresses, scope, &loaded.name, bounds, request, notes);
                kept
            }
            None => {
                if let Some(state) = self.idle.make_room(scope) {
                    self.spare = Some(state);
                }
                let mut state = self.state(policy, scope, addresses);
                state
                    .call
                    .begin(addresses, scope, &loaded.name, bounds, request, notes);
                match loaded.sandboxes.open(state, &loaded.rules, usage) {
                    Ok(sandbox) => IdleSandbox {
                        policy: policy.clone(),
                        scope: Arc::clone(scope),
                        sandbox,
                    },
                    Err((mut state, failure)) => {
                        let request = self.end(&mut state.call, policy);
                        self.spare = Some(state);
                        return (request, Err((Stage::Instantiate, failure)));
                    }
                }
            }
        };
        let outcome = kept.sandbox.ask(&loaded.rules);
        self.fuel = kept.sandbox.fuel_used();
        let request = self.end(kept.sandbox.call(), policy);
        match outcome.is_ok() && kept.sandbox.make_ready() {
            true => self.idle.put(kept),
            false => self.spare = Some(kept.sandbox.close()),
        }
        (request, outcome)
    }

    fn notes(&mut self) -> Notes {
        Notes {
            tape: self.tape.take(),
            decision: self.decision,
        }
    }

    /// Takes out of a call what outlasts it.
    fn end(&mut self, call: &mut Call, policy: &Policy) -> Request {
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

    fn bounds(&self, policy: &Policy) -> Bounds {
        let bounds = policy.loaded.rules.bounds;
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
                loaded.rules.bounds,
            )))
        })
    }
}

impl Default for Evaluator {
    fn default() -> Self {
        Self::new()
    }
}
