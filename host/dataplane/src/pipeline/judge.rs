//! Decides what happens to a request: which tenant it belongs to, and what the policies decide.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Cache};
use portcullis_address::{Reader, Snapshot};
use portcullis_config::{Answer, ForwardingLimits, OnFailure};
use portcullis_metrics::{Shed, TenantCounters, WorkerCounters};
use portcullis_policy::{
    DecisionId, Edits, Evaluator, FailedAttempts, Failure, Forwarding, Generation, Mode, Moment,
    NextStep, ShareKey, Tape, Verdict, VerdictKind,
};
use portcullis_records as records;
use portcullis_records::{Decision, Recorder};
use portcullis_request::Request;
use portcullis_sip::Dialog;
use tracing::{Level, debug, enabled, info};

use crate::notices;
use crate::shared::Shared;
use crate::tenants::{Budget, Pressure, Seat, Shadow, Source, Tenant, Tenants, thread_time};
use crate::trace::Asked;

/// The state of one worker for deciding on requests.
pub(super) struct Judge {
    shared: Arc<Shared>,
    number: usize,
    evaluator: Evaluator,
    tenants: Cache<Arc<ArcSwap<Tenants>>, Arc<Tenants>>,
    addresses: Reader,
    pressure: Pressure,
    /// End of the last policy call.
    ended: Instant,
    /// Replaced generations that may still be asked after a failure.
    pinned: Pinned,
    /// Number of the current batch of deferred requests, from 1. A new batch begins when no request is deferred any more.
    row: u64,
}

/// Whether a request may be deferred if its tenant's policy is slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// Not deferred, or deferred already.
    None,
    /// May be deferred in the worker's queue.
    InRow,
    /// May be deferred by the caller, which preserves the order within its connection.
    ByItself,
}

/// The decision on a request, and the tenant of the request.
pub(super) struct Judgement {
    pub(super) outcome: Outcome,
    /// Time of the decision, from a clock reading that was needed anyway.
    pub(super) at: Instant,
    /// `None` for the operator.
    pub(super) tenant: Option<Arc<Tenant>>,
    /// Header changes to apply if the request is relayed.
    pub(super) edits: Edits,
    /// The id of the decision; `None` without `[records]`.
    pub(super) id: Option<DecisionId>,
    /// The basis of the decision.
    pub(super) cause: Cause,
    /// The seat and generation that decided, if one did and the log or a trace needs it.
    pub(super) decided: Option<(Arc<str>, u64)>,
    /// The policies that were called, if a trace matches the request.
    pub(super) asked: Vec<Asked>,
    /// What the policy said about targets, if it did and the request is relayed.
    pub(super) forwarding: Option<Box<Forwarding>>,
    /// The policy to ask when all targets have failed.
    pub(super) asker: Option<Box<Asker>>,
    /// Whether the policy that relays is the operator's: its targets are the operator's next hops, within the operator's limits.
    pub(super) is_operators: bool,
}

/// The policy that is asked when all targets of a request have failed: the generation that decided on it.
pub(super) struct Asker {
    seat: Arc<Seat>,
    /// Alive while it is in use, and some time after that ([`Pinned`]).
    generation: Weak<Generation>,
    /// Whether the decision has been recorded: then its further calls are, too.
    is_recorded: bool,
}

/// The result of asking a policy after a failure.
pub(super) struct AskedStep {
    pub(super) step: NextStep,
    /// Further targets.
    pub(super) forwarding: Option<Forwarding>,
    /// Header changes for them.
    pub(super) edits: Edits,
}

/// The basis of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The verdict of a policy.
    Policy,
    /// No policy was called: the request is within an admitted dialog.
    Dialog,
    /// All policies passed.
    Default,
    /// A policy failed.
    PolicyFailed,
    /// The policy could not be loaded.
    NoPolicy,
    /// The request was shed before its policy was called.
    Shed(Shed),
}

impl Cause {
    /// The value of the log field `cause`.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Dialog => "dialog",
            Self::Default => "default",
            Self::PolicyFailed => "policy_failed",
            Self::NoPolicy => "no_policy",
            Self::Shed(Shed::Rate) => "shed_rate",
            Self::Shed(Shed::Share) => "shed_share",
            Self::Shed(Shed::Pressure) => "shed_pressure",
            Self::Shed(Shed::Breaker) => "shed_breaker",
            Self::Shed(Shed::Replaced) => "shed_replaced",
        }
    }
}

/// What happens to a request.
pub(super) enum Outcome {
    /// The verdict of a policy. Never [`Verdict::Pass`].
    Verdict(Verdict),
    /// The default verdict: all policies passed.
    Default,
    /// A policy failed, or was not called.
    Failed(Answer),
    /// No policy was called: the request follows this dialog.
    Within(Dialog),
}

/// The result of one policy.
enum Opinion {
    Verdict(Verdict),
    None,
    /// The default verdict, without calling further policies.
    Default,
    Failed(Answer),
}

/// The outcome of a request that follows its dialog, as recorded.
const WITHIN: &str = "within a dialog";

/// Default reason phrase when a policy failed.
const FAILED: &str = "Policy Failure";

/// A short description.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Verdict(verdict) => verdict.fmt(f),
            Self::Default => f.write_str("default"),
            Self::Within(_) => f.write_str(WITHIN),
            Self::Failed(Answer { code, reason }) => write!(f, "failed: {code} {reason}"),
        }
    }
}

impl Judgement {
    /// How far the policy may go in naming targets.
    pub(super) fn forwarding_limits(&self) -> ForwardingLimits {
        let tenant = self.tenant.as_deref().filter(|_| !self.is_operators);
        let config = tenant.and_then(|tenant| tenant.config.as_ref());
        config.map_or(ForwardingLimits::OPERATOR, |config| config.forwarding)
    }
}

impl Outcome {
    fn count(&self, counters: &TenantCounters) {
        match self {
            Self::Verdict(verdict) => counters.verdicts.inc(VerdictKind::of(verdict)),
            Self::Default => counters.verdicts.inc(VerdictKind::Pass),
            Self::Failed(_) => counters.failed.inc(),
            Self::Within(_) => counters.followed.inc(),
        }
    }
}

impl Patience {
    /// Whether a request of the tenant with this budget is to be deferred on this worker, in the batch with this number.
    fn is_needed(self, budget: &Budget, worker: usize, row: u64) -> bool {
        match self {
            Self::None => false,
            Self::InRow => budget.joins(worker, row),
            Self::ByItself => budget.is_slow(worker),
        }
    }
}

impl Judge {
    pub(super) fn new(shared: Arc<Shared>, number: usize) -> Self {
        Self {
            number,
            evaluator: Evaluator::keeping(shared.sandboxes),
            tenants: Cache::new(Arc::clone(&shared.tenants)),
            addresses: shared.addresses.reader(),
            pressure: Pressure::new(Instant::now()),
            ended: Instant::now(),
            pinned: Pinned::default(),
            row: 1,
            shared,
        }
    }

    /// Loads all new state, so that replaced state can be freed even if no message arrives.
    pub(super) fn refresh(&mut self) {
        let tenants = self.tenants.load();
        self.evaluator.keep_only(|keep| {
            for seat in tenants.seats() {
                if let Some(lineup) = &*seat.slot.guard() {
                    lineup.policies().for_each(&mut *keep);
                }
            }
        });
        self.addresses.current();
        self.pinned.expire(Instant::now());
    }

    /// End of the last policy call.
    pub(super) fn ended(&self) -> Instant {
        self.ended
    }

    /// Notes that no request is deferred any more.
    pub(super) fn none_waits(&mut self) {
        self.row += 1;
    }

    /// Decides on one request and returns it. Without a decision the request is to be deferred, if it may.
    pub(super) fn judge(
        &mut self,
        request: Request,
        patience: Patience,
    ) -> (Request, Option<Judgement>) {
        self.shared.counters[self.number].decisions.begin();
        let judged = self.judge_now(request, patience);
        self.shared.counters[self.number].decisions.end();
        judged
    }

    /// Lets a request follow its dialog: no policy is called, and the request counts for the owner of the dialog. `None` if the owner no
    /// longer exists.
    pub(super) fn follow(&mut self, request: &Request, dialog: Dialog) -> Option<Judgement> {
        self.shared.counters[self.number].decisions.begin();
        let judged = self.follow_now(request, dialog);
        self.shared.counters[self.number].decisions.end();
        judged
    }

    /// Asks a policy what happens after all targets of a request have failed. `None` for the best response: the policy failed, is out of
    /// service, or its tenant has used up its time.
    pub(super) fn after_failure(
        &mut self,
        asker: &Asker,
        judgement: &Judgement,
        request: Request,
        failed: FailedAttempts,
    ) -> Option<AskedStep> {
        self.shared.counters[self.number].decisions.begin();
        let step = self.after_failure_now(asker, judgement, request, failed);
        self.shared.counters[self.number].decisions.end();
        step
    }

    fn after_failure_now(
        &mut self,
        asker: &Asker,
        judgement: &Judgement,
        request: Request,
        failed: FailedAttempts,
    ) -> Option<AskedStep> {
        let tenants = self.tenants.load();
        let addresses = self.addresses.current();
        let tenant = judgement.tenant.as_ref().unwrap_or(&tenants.default);
        let counters = &self.shared.counters[self.number];
        let seat = &asker.seat;
        let Some(generation) = asker.generation.upgrade() else {
            tenant.counters[self.number]
                .unasked_failures
                .inc(Shed::Replaced);
            return None;
        };
        let generation = &*generation;
        let now = Instant::now();
        let pauses = counters.pauses.value();
        let pressure = &mut self.pressure;
        pressure.look(now, pauses, 1 + tenants.named.len(), thread_time);
        let budget = &tenant.budget;
        let shed = match budget.admit_call(self.number, now, pressure, request.arrival.source.ip())
        {
            Ok(source) if seat.admits(now) => Ok(source),
            Ok(_) => Err(Shed::Breaker),
            Err(shed) => Err(shed),
        };
        let source = match shed {
            Ok(source) => source,
            Err(shed) => {
                tenant.counters[self.number].unasked_failures.inc(shed);
                return None;
            }
        };
        self.evaluator.set_decision(judgement.id);
        let records = self.shared.records.as_ref();
        let recording = records.filter(|_| asker.is_recorded).zip(judgement.id);
        let moment = Moment::now();
        if recording.is_some() {
            self.evaluator.insert_tape(Tape::new(moment));
        }
        let tries = judgement.forwarding_limits().tries;
        let call = tries.saturating_sub(failed.tries_left);
        let (request, step) =
            self.evaluator
                .on_failure(&generation.policy, &seat.scope, addresses, request, failed);
        let ended = Instant::now();
        let took = ended.saturating_duration_since(now);
        let cost = pressure.cost(took, ended, thread_time);
        budget.charge(self.number, now, cost, pressure, source);
        generation.stats.record_step(self.number, &step, took);
        counters.policy_time.record(took);
        self.ended = ended;
        let edits = self.evaluator.take_edits();
        let forwarding = self.evaluator.take_forwarding();
        if let Some((records, id)) = recording {
            let tape = self.evaluator.take_tape();
            let tape_bytes = tape.as_ref().map_or(0, Tape::bytes);
            let decided = records::Decided::of_step(&step);
            let outcome = decided.to_string();
            let failure = Decision {
                id,
                time: moment.wall,
                tenant: &tenant.name,
                request: &request,
                policies: vec![written(seat, generation, tape, decided, &edits, took)],
                tape_bytes,
                outcome: &outcome,
            };
            records.write_failure(failure, call.into());
            self.ended = Instant::now();
            let copied = self.ended.saturating_duration_since(ended);
            budget.charge_beside(self.number, ended, copied, pressure, source);
        }
        match step {
            Ok(step) => {
                seat.note_success(now);
                Some(AskedStep {
                    step,
                    forwarding,
                    edits,
                })
            }
            Err(failure) => {
                counters.policy_failures.inc(failure.kind());
                let call_id = request.call_id_bytes();
                debug!(
                    event = "policy_failed",
                    policy = &*seat.name,
                    generation = generation.number,
                    export = "on-failure",
                    kind = failure.kind().as_str(),
                    source = %request.arrival.source,
                    transport = request.arrival.transport.parameter(),
                    call_id = notices::cut(call_id),
                    tenant = &*tenant.name,
                    decision = judgement.id.map(tracing::field::display),
                    %failure,
                    "policy failed"
                );
                seat.failures
                    .note(&failure, generation.number, call_id, judgement.id);
                seat.note_failure(generation.number, &failure, ended);
                None
            }
        }
    }

    fn follow_now(&mut self, request: &Request, dialog: Dialog) -> Option<Judgement> {
        let tenants = self.tenants.load();
        let tenant = tenants.owner(dialog.owner())?;
        let named = dialog.owner().map(|_| Arc::clone(tenant));
        let counters = &tenant.counters[self.number];
        let now = Instant::now();
        counters.requests.inc();
        let pressure = &mut self.pressure;
        let pauses = self.shared.counters[self.number].pauses.value();
        pressure.look(now, pauses, 1 + tenants.named.len(), thread_time);
        // The sender of a dialog's seal has been admitted, whatever the source address. It uses no policy time.
        let from = request.arrival.source.ip();
        if let Err(shed) = tenant.budget.admit_followed(now, from) {
            counters.shed.inc(shed);
            return Some(turned_away(now, tenant, named, shed));
        }
        let outcome = Outcome::Within(dialog);
        outcome.count(counters);
        let records = self.shared.records.as_ref();
        let id = records.map(Recorder::next_id);
        let recording = records.filter(|records| records.wants(request, &tenant.records, now));
        if let (Some(records), Some(id)) = (recording, id) {
            // No query was made, so there is nothing to replay.
            records.write(Decision {
                id,
                time: Moment::now().wall,
                tenant: &tenant.name,
                request,
                policies: Vec::new(),
                tape_bytes: 0,
                outcome: &outcome,
            });
        }
        Some(Judgement {
            outcome,
            at: now,
            tenant: named,
            edits: Edits::default(),
            id,
            cause: Cause::Dialog,
            decided: None,
            asked: Vec::new(),
            forwarding: None,
            asker: None,
            is_operators: false,
        })
    }

    fn judge_now(&mut self, request: Request, patience: Patience) -> (Request, Option<Judgement>) {
        let tenants = self.tenants.load();
        let addresses = self.addresses.current();
        let named = tenants.select(&request, &addresses.table);
        let tenant = named.unwrap_or(&tenants.default);
        let counters = &tenant.counters[self.number];
        // With a single tenant there is nobody to yield to.
        if !tenants.named.is_empty() && patience.is_needed(&tenant.budget, self.number, self.row) {
            counters.postponed.inc();
            return (request, None);
        }
        let now = Instant::now();
        counters.requests.inc();
        let pressure = &mut self.pressure;
        let pauses = self.shared.counters[self.number].pauses.value();
        pressure.look(now, pauses, 1 + tenants.named.len(), thread_time);
        let from = request.arrival.source;
        let is_known = || tenant.knows(from, &addresses.table);
        let budget = &tenant.budget;
        let source = match budget.admit(self.number, now, pressure, from.ip(), is_known) {
            Ok(source) => source,
            Err(shed) => {
                counters.shed.inc(shed);
                let judgement = turned_away(now, tenant, named.cloned(), shed);
                return (request, Some(judgement));
            }
        };
        let records = self.shared.records.as_ref();
        let id = records.map(Recorder::next_id);
        let recording = records.filter(|records| records.wants(&request, &tenant.records, now));
        self.evaluator.set_decision(id);
        let traces = &self.shared.notices.traces;
        let mut asking = Asking {
            evaluator: &mut self.evaluator,
            counters: &self.shared.counters[self.number],
            shadow: &self.shared.shadow,
            share_key: &self.shared.share_key,
            number: self.number,
            addresses,
            tenant,
            source,
            pressure,
            pinned: &mut self.pinned,
            begun: now,
            edits: Edits::default(),
            id,
            cause: Cause::Default,
            is_watched: enabled!(Level::DEBUG),
            decided: None,
            forwarding: None,
            asker: None,
            is_operators: false,
            asked: traces.is_any().then(Vec::new),
            recorded: recording.map(|_| Recorded::begin()),
        };
        let (before, after) = (&tenants.before, &tenants.after);
        let seats = before.iter().chain([&tenant.seat]).chain(after);
        let (request, outcome) = asking.outcome(seats, request);
        outcome.count(counters);
        if let (Some(records), Some(id), Some(recorded)) = (recording, id, asking.recorded.take()) {
            records.write(Decision {
                id,
                time: recorded.moment.wall,
                tenant: &tenant.name,
                request: &request,
                policies: recorded.policies,
                tape_bytes: recorded.tape_bytes,
                outcome: &outcome,
            });
            asking.charge_copies();
        }
        self.ended = asking.begun;
        let judgement = Judgement {
            outcome,
            at: asking.begun,
            edits: asking.edits,
            tenant: named.cloned(),
            id,
            cause: asking.cause,
            decided: asking.decided,
            asked: asking.asked.unwrap_or_default(),
            forwarding: asking.forwarding,
            asker: asking.asker,
            is_operators: asking.is_operators,
        };
        (request, Some(judgement))
    }
}

/// One request on its way through the policies.
struct Asking<'j> {
    evaluator: &'j mut Evaluator,
    counters: &'j WorkerCounters,
    shadow: &'j Shadow,
    share_key: &'j ShareKey,
    number: usize,
    addresses: &'j Arc<Snapshot>,
    tenant: &'j Tenant,
    /// The source that is charged in addition to the tenant.
    source: Option<Source>,
    pressure: &'j mut Pressure,
    /// Start of the current call: the end of the previous one.
    begun: Instant,
    /// Header changes of the policies called so far.
    edits: Edits,
    /// The id of the decision; `None` without `[records]`.
    id: Option<DecisionId>,
    /// The basis of the decision so far.
    cause: Cause,
    /// Whether the log or a trace needs to know who decided.
    is_watched: bool,
    /// The seat and generation that decided.
    decided: Option<(Arc<str>, u64)>,
    /// See [`Judgement::forwarding`].
    forwarding: Option<Box<Forwarding>>,
    /// See [`Judgement::asker`].
    asker: Option<Box<Asker>>,
    /// See [`Judgement::is_operators`].
    is_operators: bool,
    pinned: &'j mut Pinned,
    /// The policies called so far, if a trace matches the request.
    asked: Option<Vec<Asked>>,
    /// The record of the policy calls, if the decision is recorded.
    recorded: Option<Recorded>,
}

/// The record of a decision under construction.
struct Recorded {
    /// The time that policies read.
    moment: Moment,
    policies: Vec<records::Asking>,
    /// Memory of the recorded queries, in bytes.
    tape_bytes: usize,
}

impl Recorded {
    fn begin() -> Self {
        Self {
            moment: Moment::now(),
            policies: Vec::new(),
            tape_bytes: 0,
        }
    }
}

impl Asking<'_> {
    /// Calls the policies of the seats until one does not pass. The request is returned.
    fn outcome<'s>(
        &mut self,
        seats: impl Iterator<Item = &'s Arc<Seat>>,
        mut request: Request,
    ) -> (Request, Outcome) {
        for seat in seats {
            let opinion;
            (request, opinion) = self.opinion(seat, request);
            let outcome = match opinion {
                Opinion::None => continue,
                Opinion::Verdict(verdict) => Outcome::Verdict(verdict),
                Opinion::Default => Outcome::Default,
                Opinion::Failed(answer) => Outcome::Failed(answer),
            };
            return (request, outcome);
        }
        (request, Outcome::Default)
    }

    /// Calls the policy of one seat. The request is returned.
    fn opinion(&mut self, seat: &Arc<Seat>, request: Request) -> (Request, Opinion) {
        let lineup = seat.slot.guard();
        let Some(lineup) = lineup.as_ref() else {
            self.cause = match seat.config.file {
                Some(_) => Cause::NoPolicy,
                None => self.cause,
            };
            return (request, without_policy(seat));
        };
        if !seat.admits(self.begun) {
            self.tenant.counters[self.number].shed.inc(Shed::Breaker);
            self.cause = Cause::Shed(Shed::Breaker);
            return (request, failed(seat, &seat.config.failure.overload));
        }
        let generation = match &lineup.candidate {
            Some(_) => lineup.decides(request.call_id_bytes(), self.share_key),
            None => &lineup.active,
        };
        let asked = self.begun;
        let mut decided = generation;
        let (mut request, mut answer, mut edits) = self.ask(seat, generation, request);
        if let Some(candidate) = lineup.shadow() {
            let comparison = seat.comparison_of(generation.number, candidate.number);
            self.shadow.offer(
                &request,
                &seat.scope,
                self.addresses,
                candidate,
                (&answer, &edits, self.evaluator.forwarding()),
                &comparison,
            );
            self.charge_copies();
        }
        if answer.is_ok() {
            seat.note_success(asked);
        }
        if let Err(failure) = &answer {
            self.note_failure(seat, generation.number, failure, &request);
            let rule = seat.config.failure.of(failure.kind());
            let last_good = lineup.fallback.as_ref();
            if let Some(fallback) = last_good.filter(|_| *rule == OnFailure::LastGood) {
                decided = fallback;
                (request, answer, edits) = self.ask(seat, fallback, request);
            }
            if answer.is_err() {
                self.cause = Cause::PolicyFailed;
                return (request, failed(seat, rule));
            }
        }
        if self.is_watched {
            self.decided = Some((Arc::clone(&seat.name), generation.number));
        }
        let opinion = match answer {
            Ok(verdict) if lineup.mode == Mode::Monitor => {
                if verdict != Verdict::Pass {
                    self.watch(seat, generation, &request, &verdict);
                }
                return (request, Opinion::None);
            }
            Ok(Verdict::Pass) | Err(_) => Opinion::None,
            Ok(verdict) => {
                self.cause = Cause::Policy;
                if let Verdict::Relay(_) = verdict {
                    self.forwarding = self.evaluator.take_forwarding().map(Box::new);
                    if decided.policy.asks_on_failure() {
                        self.pinned.pin(decided, self.begun);
                        self.asker = Some(asker(seat, decided, self.recorded.is_some()));
                    }
                }
                Opinion::Verdict(verdict)
            }
        };
        if !edits.is_empty() {
            self.edits.append(edits);
        }
        (request, opinion)
    }

    fn ask(
        &mut self,
        seat: &Seat,
        generation: &Generation,
        request: Request,
    ) -> (Request, Result<Verdict, Failure>, Edits) {
        let policy = &generation.policy;
        if let Some(recorded) = &self.recorded {
            self.evaluator.insert_tape(Tape::new(recorded.moment));
        }
        let (request, answer) = self
            .evaluator
            .decide(policy, &seat.scope, self.addresses, request);
        let took = self.charge();
        generation.stats.record(self.number, &answer, took);
        self.counters.policy_time.record(took);
        if let Err(failure) = &answer {
            self.counters.policy_failures.inc(failure.kind());
        }
        if let Some(asked) = &mut self.asked {
            asked.push(shown(seat, generation, &answer, took));
        }
        // Edits of a failed call do not count.
        let edits = self.evaluator.take_edits();
        if let Some(recorded) = &mut self.recorded {
            let tape = self.evaluator.take_tape();
            recorded.tape_bytes += tape.as_ref().map_or(0, Tape::bytes);
            let decided = records::Decided::of(&answer);
            let asking = written(seat, generation, tape, decided, &edits, took);
            recorded.policies.push(asking);
        }
        (request, answer, edits)
    }

    /// Counts and logs a failure.
    #[cold]
    fn note_failure(&self, seat: &Seat, generation: u64, failure: &Failure, request: &Request) {
        let call_id = request.call_id_bytes();
        debug!(
            event = "policy_failed",
            policy = &*seat.name,
            generation,
            kind = failure.kind().as_str(),
            source = %request.arrival.source,
            transport = request.arrival.transport.parameter(),
            call_id = notices::cut(call_id),
            tenant = &*self.tenant.name,
            decision = self.id.map(tracing::field::display),
            %failure,
            "policy failed"
        );
        seat.failures.note(failure, generation, call_id, self.id);
        seat.note_failure(generation, failure, self.begun);
    }

    /// Charges the tenant for a call, which lasted from `begun` until now, and sets `begun` to now.
    fn charge(&mut self) -> Duration {
        let now = Instant::now();
        let took = now.saturating_duration_since(self.begun);
        let budget = &self.tenant.budget;
        let cost = self.pressure.cost(took, now, thread_time);
        budget.charge(self.number, self.begun, cost, self.pressure, self.source);
        self.begun = now;
        took
    }

    /// Charges the tenant for copies made outside of the call: for its candidate, and for the record.
    fn charge_copies(&mut self) {
        let now = Instant::now();
        let took = now.saturating_duration_since(self.begun);
        let (budget, worker) = (&self.tenant.budget, self.number);
        budget.charge_beside(worker, self.begun, took, self.pressure, self.source);
        self.begun = now;
    }

    /// Logs the verdict of a policy in monitor mode.
    fn watch(&self, seat: &Seat, generation: &Generation, request: &Request, verdict: &Verdict) {
        let counters = &self.tenant.counters[self.number];
        counters.monitored.inc(VerdictKind::of(verdict));
        info!(
            event = "verdict_not_enforced",
            policy = &*seat.name,
            generation = generation.number,
            %verdict,
            call_id = %String::from_utf8_lossy(request.call_id_bytes()).escape_debug(),
            "verdict not enforced: the policy is in monitor mode"
        );
    }
}

/// The policy to ask when all targets have failed, if it wants to be asked.
fn asker(seat: &Arc<Seat>, generation: &Arc<Generation>, is_recorded: bool) -> Box<Asker> {
    Box::new(Asker {
        seat: Arc::clone(seat),
        generation: Arc::downgrade(generation),
        is_recorded,
    })
}

/// Generations that decided on requests not long ago, so that they can be asked after a failure although they have been replaced meanwhile. A
/// tenant that replaces its policy all the time must not keep any number of them in memory.
#[derive(Default)]
struct Pinned(Vec<(Instant, Arc<Generation>)>);

impl Pinned {
    /// Most of them; beyond it, the one that has not decided for longest goes.
    const MOST: usize = 64;

    /// No request has targets for longer.
    const TIME: Duration = ForwardingLimits::OPERATOR.setup_limit;

    fn pin(&mut self, generation: &Arc<Generation>, now: Instant) {
        let is_it = |(_, pinned): &(Instant, Arc<Generation>)| Arc::ptr_eq(pinned, generation);
        if let Some(at) = self.0.iter().rposition(is_it) {
            self.0[at].0 = now;
            return;
        }
        if self.0.len() >= Self::MOST {
            let oldest = self.0.iter().enumerate().min_by_key(|(_, (at, _))| *at);
            if let Some((oldest, _)) = oldest {
                self.0.remove(oldest);
            }
        }
        self.0.push((now, Arc::clone(generation)));
    }

    fn expire(&mut self, now: Instant) {
        self.0
            .retain(|(at, _)| now.saturating_duration_since(*at) < Self::TIME);
    }
}

/// The answer to a request above a limit.
fn turned_away(at: Instant, tenant: &Tenant, named: Option<Arc<Tenant>>, shed: Shed) -> Judgement {
    let outcome = match failed(&tenant.seat, &tenant.seat.config.failure.overload) {
        Opinion::Failed(answer) => Outcome::Failed(answer),
        Opinion::Default | Opinion::Verdict(_) | Opinion::None => Outcome::Default,
    };
    Judgement {
        outcome,
        at,
        tenant: named,
        edits: Edits::default(),
        id: None,
        cause: Cause::Shed(shed),
        decided: None,
        asked: Vec::new(),
        forwarding: None,
        asker: None,
        is_operators: false,
    }
}

/// A call as a trace shows it.
fn shown(
    seat: &Seat,
    generation: &Generation,
    answer: &Result<Verdict, Failure>,
    took: Duration,
) -> Asked {
    Asked {
        seat: seat.name.to_string(),
        policy: generation.policy.name().to_owned(),
        generation: generation.number,
        verdict: match answer {
            Ok(verdict) => verdict.to_string(),
            Err(failure) => format!("failed: {failure}"),
        },
        microseconds: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
    }
}

/// A call as it is recorded.
fn written(
    seat: &Seat,
    generation: &Generation,
    tape: Option<Tape>,
    decided: records::Decided,
    edits: &Edits,
    took: Duration,
) -> records::Asking {
    let cut = tape.as_ref().is_some_and(Tape::is_cut);
    let asked = tape.map(Tape::into_asked).unwrap_or_default();
    records::Asking {
        seat: seat.name.to_string(),
        policy: generation.policy.name().to_owned(),
        generation: generation.number,
        digest: generation.policy.digest().to_string(),
        asked: asked.into_iter().map(records::Question::of).collect(),
        cut,
        decided,
        edits: records::Change::all(edits),
        duration_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
    }
}

/// A failure ends the request's way through the policies: a later policy may rely on the earlier ones.
fn failed(seat: &Seat, rule: &OnFailure) -> Opinion {
    match rule {
        OnFailure::Default => Opinion::Default,
        OnFailure::RejectWith(answer) => Opinion::Failed(answer.clone()),
        OnFailure::Reject | OnFailure::LastGood => Opinion::Failed(answer_of(seat)),
    }
}

/// An empty seat without a configured policy passes; a seat whose policy could not be loaded fails.
fn without_policy(seat: &Seat) -> Opinion {
    match &seat.config.file {
        None => Opinion::None,
        Some(_) => failed(seat, &seat.config.failure.load),
    }
}

fn answer_of(seat: &Seat) -> Answer {
    let mut answer = seat.config.failure.answer.clone();
    if answer.reason.is_empty() {
        answer.reason = FAILED.to_owned();
    }
    answer
}
