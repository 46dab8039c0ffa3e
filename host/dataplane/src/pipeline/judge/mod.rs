//! Decides what happens to a request: which tenant it belongs to, and what the policies decide.

mod asking;
mod judgement;
mod pinned;
mod surroundings;

use std::sync::Arc;
use std::time::Instant;

use arc_swap::{ArcSwap, Cache};
use portcullis_address::Reader;
use portcullis_config::Answer;
use portcullis_metrics::Shed;
use portcullis_policy::{
    DecisionId, Edits, Evaluator, FailedAttempts, Generation, Moment, Tape, Wishes,
};
use portcullis_records as records;
use portcullis_records::{Decision, Recorder};
use portcullis_request::Request;
use portcullis_sip::Dialog;
use tracing::{Level, debug, enabled};

use crate::notices;
use crate::shared::Shared;
use crate::tenants::{Beside, Budget, CallResult, Offered, Pressure, Tenant, Tenants, thread_time};

pub(super) use judgement::{AskedStep, Asker, Judged, Judgement, Outcome};

use asking::{Asking, Opinion, Recorded, answer_of, failed, written};
use judgement::Cause;
use pinned::Pinned;
use surroundings::Surroundings;

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
    pinned: Pinned<Generation>,
    /// Number of the current batch of deferred requests, from 1. A new batch begins when no request is deferred any more.
    row: u64,
}

/// Whether a request may be deferred if its tenant's policy is slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deferral {
    /// Not deferred, or deferred already.
    None,
    /// May be deferred in the worker's queue.
    InQueue,
    /// May be deferred by the caller, which preserves the order within its connection.
    OnConnection,
}

impl Deferral {
    /// Whether a request of the tenant with this budget is to be deferred on this worker, in the batch with this number.
    fn is_needed(self, budget: &Budget, worker: usize, row: u64) -> bool {
        match self {
            Self::None => false,
            Self::InQueue => budget.joins(worker, row),
            Self::OnConnection => budget.is_slow(worker),
        }
    }
}

impl Judge {
    pub(super) fn new(shared: Arc<Shared>, number: usize) -> Self {
        let mut evaluator = Evaluator::keeping(shared.sandboxes);
        let surroundings = Surroundings::new(Arc::clone(&shared));
        evaluator.set_host(Arc::new(surroundings));
        Self {
            number,
            evaluator,
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

    /// Whether there are tenants beside the operator.
    pub(super) fn has_tenants(&mut self) -> bool {
        !self.tenants.load().named.is_empty()
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
        deferral: Deferral,
    ) -> (Request, Option<Judgement>) {
        self.shared.counters[self.number].decisions.begin();
        let judged = self.judge_now(request, deferral);
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
        let lineup = seat.slot.guard();
        let lineup = lineup.as_ref();
        // A comparison is that of a candidate with the active generation.
        let lineup = lineup.filter(|lineup| lineup.active.number == generation.number);
        let candidate = lineup.and_then(|lineup| lineup.shadow());
        let repeated = candidate.map(|candidate| (candidate, failed.clone()));
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
        if let Some((candidate, failed)) = repeated {
            let comparison = seat.comparison_of(generation.number, candidate.number);
            let offered = Offered {
                request: &request,
                scope: &seat.scope,
                addresses,
                host: self.evaluator.host(),
            };
            self.shared.shadow.offer(
                offered,
                (candidate, Beside::Shadow),
                (
                    CallResult::Step(&step, &failed),
                    &edits,
                    forwarding.as_ref(),
                ),
                &comparison,
            );
            self.ended = Instant::now();
            let copied = self.ended.saturating_duration_since(ended);
            budget.charge_beside(self.number, ended, copied, pressure, source);
        }
        if let Some((records, id)) = recording {
            let ended = self.ended;
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
                    wishes: self.evaluator.wishes(),
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
            trace: trace_of(recording, id, request),
            cause: Cause::Dialog,
            decided: None,
            asked: Vec::new(),
            forwarding: None,
            asker: None,
            is_operators: false,
            wishes: Wishes::default(),
        })
    }

    fn judge_now(&mut self, request: Request, deferral: Deferral) -> (Request, Option<Judgement>) {
        let tenants = self.tenants.load();
        let addresses = self.addresses.current();
        let named = tenants.select(&request, &addresses.table);
        let tenant = named.unwrap_or(&tenants.default);
        let counters = &tenant.counters[self.number];
        // With a single tenant there is nobody to yield to.
        if !tenants.named.is_empty() && deferral.is_needed(&tenant.budget, self.number, self.row) {
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
        let (before, after) = (&tenants.before, &tenants.after);
        let seats = before.iter().chain([&tenant.seat]).chain(after);
        let names = seats.clone().map(|seat| &*seat.name);
        let is_shown = traces.is_any() && traces.want_calls(names);
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
            wishes: Wishes::default(),
            sampled: None,
            asked: (is_shown || self.shared.captures_verdicts()).then(Vec::new),
            recorded: recording.map(|_| Recorded::begin()),
        };
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
            trace: trace_of(recording, id, &request),
            cause: asking.cause,
            decided: asking.decided,
            asked: asking.asked.unwrap_or_default(),
            forwarding: asking.forwarding,
            asker: asking.asker,
            is_operators: asking.is_operators,
            wishes: asking.wishes,
        };
        (request, Some(judgement))
    }
}

/// The answer to a request of a tenant that holds its part of the transactions. A default verdict may say to relay it, which needs one.
pub(super) fn answer_without_room(tenant: &Tenant) -> Answer {
    match failed(&tenant.seat, &tenant.seat.config.failure.overload) {
        Opinion::Failed(answer) => answer,
        Opinion::Default | Opinion::Verdict(_) | Opinion::None => answer_of(&tenant.seat),
    }
}

/// The context of the trace for a request that is relayed after a recorded decision.
fn trace_of(
    recording: Option<&Recorder>,
    id: Option<DecisionId>,
    request: &Request,
) -> Option<Box<str>> {
    let (_, value) = recording?.traceparent(request, id?)?;
    Some(value.into())
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
        trace: None,
        cause: Cause::Shed(shed),
        decided: None,
        asked: Vec::new(),
        forwarding: None,
        asker: None,
        is_operators: false,
        wishes: Wishes::default(),
    }
}
