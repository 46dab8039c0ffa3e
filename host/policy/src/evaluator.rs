//! Calls policies for one worker.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use portcullis_address::Snapshot;
use portcullis_request::Request;

use crate::call::state::{Data, State};
use crate::call::{Basis, Bounds, Call, Notes};
use crate::decision::DecisionId;
use crate::edits::Edits;
use crate::failed_attempts::FailedAttempts;
use crate::failure::{Failure, Stage};
use crate::forwarding::Forwarding;
use crate::host_state::HostState;
use crate::idle_sandboxes::{IdleSandbox, IdleSandboxes};
use crate::log_line::LogLine;
use crate::module::Use;
use crate::next_step::NextStep;
use crate::policy::Policy;
use crate::profile::Profile;
use crate::reuse::Reuse;
use crate::sandbox::{Live, Outcome, Question};
use crate::scope::Scope;
use crate::tape::Tape;
use crate::verdict::Verdict;
use crate::wishes::Wishes;

/// Number of idle sandboxes that an evaluator keeps by default, usually each of another policy.
pub const KEPT: usize = 4;

/// Calls policies, one request after the other. Each worker has its own. While policy and tables stay the same, a call changes no
/// reference count.
pub struct Evaluator {
    /// The data of the next store. `None` while an idle sandbox has it.
    spare: Option<Data>,
    idle: IdleSandboxes,
    host: Option<Arc<dyn HostState>>,
    /// Whether log lines of policies are discarded.
    mute: bool,
    /// Whether log lines of policies are kept for [`Evaluator::take_log`].
    keeps_log: bool,
    /// The decision that the next calls belong to.
    decision: Option<DecisionId>,
    results: Results,
    /// The fuel of the last call, if it is metered.
    fuel: Option<u64>,
    /// 64ths of the memory that the last call wrote, if its sandbox has been reset.
    written: Option<u32>,
}

/// What a call is about.
struct About<'c> {
    policy: &'c Policy,
    scope: &'c Arc<Scope>,
    addresses: &'c Arc<Snapshot>,
    /// Set for `on-failure`.
    failed: Option<Box<FailedAttempts>>,
}

/// What a call leaves beside its result.
#[derive(Default)]
struct Results {
    /// The tape for the next call, or of the last one.
    tape: Option<Box<Tape>>,
    /// The changes to header fields by the last call.
    edits: Edits,
    /// What the last call asked of the host beside its verdict.
    wishes: Wishes,
    /// What the last call said about where the request goes.
    forwarding: Option<Box<Forwarding>>,
    /// The log lines of the last call, if they are kept.
    log: Vec<LogLine>,
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
            host: None,
            mute: false,
            keeps_log: false,
            decision: None,
            results: Results::default(),
            fuel: None,
            written: None,
        }
    }

    /// An evaluator that discards log lines of policies: for calls that repeat earlier ones.
    pub fn muted() -> Self {
        Self {
            mute: true,
            ..Self::new()
        }
    }

    /// Keeps the log lines of each call, of every level, for [`Evaluator::take_log`].
    pub fn keeping_log(self) -> Self {
        Self {
            keeps_log: true,
            ..self
        }
    }

    /// Answers what policies ask about the host. By default nothing is known: there are no sessions.
    pub fn set_host(&mut self, host: Arc<dyn HostState>) {
        self.host = Some(host);
    }

    /// What [`Evaluator::set_host`] has set.
    pub fn host(&self) -> Option<&Arc<dyn HostState>> {
        self.host.as_ref()
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
        let about = About {
            policy,
            scope,
            addresses,
            failed: None,
        };
        let (request, verdict) = self.call(about, request, Live::decide);
        // Targets are those of a verdict that relays.
        if !matches!(verdict, Ok(Verdict::Relay(_))) {
            self.results.forwarding = None;
        }
        (request, verdict)
    }

    /// Asks `policy` what happens after all targets of `request` have failed. A policy that does not export `on-failure` wants the best
    /// response. Otherwise as [`decide`](Evaluator::decide).
    ///
    /// # Errors
    /// If the call fails. The next call is not affected.
    pub fn on_failure(
        &mut self,
        policy: &Policy,
        scope: &Arc<Scope>,
        addresses: &Arc<Snapshot>,
        request: Request,
        failed: FailedAttempts,
    ) -> (Request, Result<NextStep, Failure>) {
        let about = About {
            policy,
            scope,
            addresses,
            failed: Some(Box::new(failed)),
        };
        let (request, step) = self.call(about, request, Live::on_failure);
        if !matches!(step, Ok(NextStep::Again)) {
            self.results.forwarding = None;
        }
        (request, step)
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

    /// What the last call asked of the host beside its verdict; nothing if it failed.
    pub fn wishes(&self) -> Wishes {
        self.results.wishes
    }

    /// Takes what the last call said about where the request goes: targets, if its verdict relays or its step is to try them. `None` if it
    /// said nothing.
    pub fn take_forwarding(&mut self) -> Option<Forwarding> {
        self.results.forwarding.take().map(|forwarding| *forwarding)
    }

    /// Takes the log lines of the last call; none without [`Evaluator::keeping_log`].
    pub fn take_log(&mut self) -> Vec<LogLine> {
        std::mem::take(&mut self.results.log)
    }

    /// What [`take_forwarding`](Evaluator::take_forwarding) would take.
    pub fn forwarding(&self) -> Option<&Forwarding> {
        self.results.forwarding.as_deref()
    }

    /// The fuel of the last call: about one per instruction of the policy, the same on every machine. `None` if the runtime does not meter
    /// fuel.
    pub fn fuel(&self) -> Option<u64> {
        self.fuel
    }

    /// Calls `policy` as [`decide`](Evaluator::decide) does, in a new sandbox, and records where it spends its fuel. The file must have
    /// [marks](crate::with_marks), and the runtime must meter fuel: otherwise there is no profile.
    ///
    /// # Errors
    /// If the call fails. The profile ends there.
    pub fn profile(
        &mut self,
        policy: &Policy,
        scope: &Arc<Scope>,
        addresses: &Arc<Snapshot>,
        request: Request,
    ) -> (Option<Profile>, Result<Verdict, Failure>) {
        let loaded = &*policy.loaded;
        let mut state = self.state(policy, scope, addresses);
        let notes = self.notes(None);
        let bounds = self.bounds(policy);
        let basis = basis(policy, scope, addresses, self.host.as_ref());
        state.call.begin(basis, bounds, request, notes);
        let profiled = loaded
            .sandboxes
            .profile(state, &loaded.limits, Live::decide);
        let (mut state, outcome, profile) = profiled;
        let _request = self.results.take(&mut state.call, policy);
        self.spare = Some(state);
        (profile, outcome.map_err(|(_, failure)| failure))
    }

    /// How much of the policy's memory the last call wrote, in 64ths. `None` if no sandbox has been reset in place.
    pub fn written(&self) -> Option<u32> {
        self.written
    }

    /// Drops the idle sandboxes of policies that are not in use; `serving` passes those in use to its argument. Called between requests, so
    /// that replaced policies can be freed.
    pub fn keep_only(&mut self, serving: impl FnOnce(&mut dyn FnMut(&Policy))) {
        if let Some(call) = self.idle.keep_only(serving) {
            self.spare = Some(call);
        }
    }

    fn call<T>(
        &mut self,
        about: About<'_>,
        request: Request,
        question: Question<T>,
    ) -> (Request, Result<T, Failure>) {
        let usage = match about.policy.reuse {
            Reuse::Calls(_) | Reuse::Always => Use::Again,
            Reuse::Never if about.policy.loaded.sandboxes.no_reset().is_none() => Use::Reset,
            Reuse::Never => Use::Once,
        };
        let (request, outcome) = match usage {
            Use::Once => self.call_fresh(about, request, question),
            Use::Again | Use::Reset => self.call_kept(about, request, usage, question),
        };
        if outcome.is_err() {
            self.results.wishes = Wishes::default();
        }
        (request, outcome.map_err(|(_, failure)| failure))
    }

    fn call_fresh<T>(
        &mut self,
        about: About<'_>,
        request: Request,
        question: Question<T>,
    ) -> (Request, Outcome<T>) {
        let About {
            policy,
            scope,
            addresses,
            failed,
        } = about;
        let loaded = &*policy.loaded;
        let mut state = self.state(policy, scope, addresses);
        let notes = self.notes(failed);
        let bounds = self.bounds(policy);
        let basis = basis(policy, scope, addresses, self.host.as_ref());
        state.call.begin(basis, bounds, request, notes);
        let (mut state, outcome, fuel) = loaded.sandboxes.ask(state, &loaded.limits, question);
        self.fuel = fuel;
        let request = self.results.take(&mut state.call, policy);
        self.spare = Some(state);
        (request, outcome)
    }

    fn call_kept<T>(
        &mut self,
        about: About<'_>,
        request: Request,
        usage: Use,
        question: Question<T>,
    ) -> (Request, Outcome<T>) {
        let About {
            policy,
            scope,
            addresses,
            failed,
        } = about;
        let loaded = &*policy.loaded;
        let bounds = self.bounds(policy);
        let notes = self.notes(failed);
        let at = match self.idle.acquire(policy, scope, usage) {
            Some(at) => {
                let basis = basis(policy, scope, addresses, self.host.as_ref());
                let call = self.idle.sandbox(at).call();
                call.begin(basis, bounds, request, notes);
                at
            }
            None => {
                if let Some(state) = self.idle.make_room(scope) {
                    self.spare = Some(state);
                }
                let warm = match usage {
                    Use::Again => loaded.warm.take(&policy.loaded, scope),
                    Use::Reset | Use::Once => None,
                };
                let opened = match warm {
                    Some(mut sandbox) => {
                        let basis = basis(policy, scope, addresses, self.host.as_ref());
                        sandbox.call().begin(basis, bounds, request, notes);
                        Ok(sandbox)
                    }
                    None => {
                        let mut state = self.state(policy, scope, addresses);
                        let basis = basis(policy, scope, addresses, self.host.as_ref());
                        state.call.begin(basis, bounds, request, notes);
                        loaded.sandboxes.open(state, &loaded.limits, usage)
                    }
                };
                match opened {
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
        let outcome = sandbox.ask(&loaded.limits, question);
        self.fuel = sandbox.fuel_used();
        let request = self.results.take(sandbox.call(), policy);
        match outcome.is_ok() && sandbox.make_ready(policy.reuse) {
            true => {
                self.written = (usage == Use::Reset).then(|| sandbox.written());
                self.idle.release(at);
            }
            false => self.spare = Some(self.idle.remove(at).sandbox.close()),
        }
        (request, outcome)
    }

    fn notes(&mut self, failed: Option<Box<FailedAttempts>>) -> Notes {
        Notes {
            failed,
            tape: self.results.tape.take(),
            decision: self.decision,
            keeps_log: self.keeps_log,
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

/// What a call of this policy is based on.
fn basis<'c>(
    policy: &'c Policy,
    scope: &'c Arc<Scope>,
    addresses: &'c Arc<Snapshot>,
    host: Option<&'c Arc<dyn HostState>>,
) -> Basis<'c> {
    Basis {
        addresses,
        scope,
        policy: &policy.loaded.name,
        host,
    }
}

impl Results {
    /// Ends a call: takes its tape, edits and targets, counts its dropped log lines, and returns the request.
    fn take(&mut self, call: &mut Call, policy: &Policy) -> Request {
        let dropped = call.finish_log();
        if dropped > 0 {
            let counter = &policy.loaded.dropped_lines;
            counter.fetch_add(dropped.into(), Ordering::Relaxed);
        }
        self.tape = call.take_tape();
        self.log = call.take_log();
        self.edits.clear();
        if !call.edits().is_empty() {
            self.edits = std::mem::take(call.edits());
        }
        self.forwarding = call.take_forwarding();
        self.wishes = call.wishes();
        call.end()
    }
}

impl Default for Evaluator {
    fn default() -> Self {
        Self::new()
    }
}
