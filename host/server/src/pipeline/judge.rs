//! Finds out what is to be done with a request: whose it is, and what the policies say.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Cache};
use portcullis_address::{Reader, Snapshot};
use portcullis_policy::{
    DecisionId, Edits, Evaluator, Failure, Generation, Mode, Moment, Policy, Tape, Verdict,
    VerdictKind,
};
use tracing::{debug, info};

use crate::config::{Answer, OnFailure};
use crate::metrics::{Shed, TenantCounters, WorkerCounters};
use crate::records::{self, Recorder};
use crate::shared::Shared;
use crate::tenants::{Budget, Pressure, Seat, Shadow, Tenant, Tenants, thread_time};

use super::PolicyRequest;

/// What one worker needs to judge requests.
pub(super) struct Judge {
    shared: Arc<Shared>,
    number: usize,
    evaluator: Evaluator<PolicyRequest>,
    tenants: Cache<Arc<ArcSwap<Tenants>>, Arc<Tenants>>,
    addresses: Reader,
    pressure: Pressure,
    /// When the last call of a policy ended.
    ended: Instant,
    /// The number of the row in which requests wait, from 1. A new one begins when nobody waits any more.
    row: u64,
}

/// Whether a request lets those of others go first if its tenant's policy takes long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// It does not, or has done so.
    None,
    /// It does, in the worker's row.
    InRow,
    /// It does, and who brings it keeps those that come after it back.
    ByItself,
}

/// What is to be done with a request, and whose it is.
pub(super) struct Judgement {
    pub(super) outcome: Outcome,
    /// None for the operator's.
    pub(super) tenant: Option<Arc<Tenant>>,
    /// What changes in the header if the request is relayed.
    pub(super) edits: Edits,
    /// Its id, where decisions have one.
    pub(super) id: Option<DecisionId>,
}

/// What is to be done with a request.
pub(super) enum Outcome {
    /// What a policy said. Never [`Verdict::Pass`].
    Verdict(Verdict),
    /// What is done when no policy has an opinion.
    Default,
    /// A policy failed, or was not asked.
    Failed(Answer),
}

/// What one policy brought.
enum Opinion {
    Verdict(Verdict),
    None,
    /// The default, whatever the next policy would say.
    Default,
    Failed(Answer),
}

/// What callers read when a policy failed and the configuration has no words for it.
const FAILED: &str = "Policy Failure";

/// In a few words.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Verdict(verdict) => verdict.fmt(f),
            Self::Default => f.write_str("default"),
            Self::Failed(Answer { code, reason }) => write!(f, "failed: {code} {reason}"),
        }
    }
}

impl Outcome {
    fn count(&self, counters: &TenantCounters) {
        match self {
            Self::Verdict(verdict) => counters.verdicts.inc(VerdictKind::of(verdict)),
            Self::Default => counters.verdicts.inc(VerdictKind::Pass),
            Self::Failed(_) => counters.failed.inc(),
        }
    }
}

impl Patience {
    /// Whether a request of the tenant with this budget is to wait, on this worker and in its row of this number.
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
            row: 1,
            shared,
        }
    }

    /// Takes over everything that is new, so that what it replaces can go while no message comes.
    pub(super) fn refresh(&mut self) {
        let tenants = self.tenants.load();
        let serves = |policy: &Policy<PolicyRequest>| {
            tenants.seats().any(|seat| {
                let lineup = seat.slot.guard();
                lineup.as_ref().is_some_and(|lineup| lineup.holds(policy))
            })
        };
        self.evaluator.keep_only(serves);
        self.addresses.current();
    }

    /// When the last call of a policy ended.
    pub(super) fn ended(&self) -> Instant {
        self.ended
    }

    /// No request waits any more.
    pub(super) fn none_waits(&mut self) {
        self.row += 1;
    }

    /// Judges one request, which comes back. Without a judgement it is to wait, if it may.
    pub(super) fn judge(
        &mut self,
        request: PolicyRequest,
        patience: Patience,
    ) -> (PolicyRequest, Option<Judgement>) {
        self.shared.counters[self.number].passes.begin();
        let judged = self.judge_now(request, patience);
        self.shared.counters[self.number].passes.end();
        judged
    }

    fn judge_now(
        &mut self,
        request: PolicyRequest,
        patience: Patience,
    ) -> (PolicyRequest, Option<Judgement>) {
        let tenants = self.tenants.load();
        let addresses = self.addresses.current();
        let named = tenants.select(&request, &addresses.table);
        let tenant = named.unwrap_or(&tenants.default);
        let counters = &tenant.counters[self.number];
        // Where there is one tenant only, nobody else would go first.
        if !tenants.named.is_empty() && patience.is_needed(&tenant.budget, self.number, self.row) {
            counters.postponed.inc();
            return (request, None);
        }
        let now = Instant::now();
        counters.requests.inc();
        let pressure = &mut self.pressure;
        let pauses = self.shared.counters[self.number].pauses.value();
        pressure.look(now, pauses, 1 + tenants.named.len(), thread_time);
        if let Err(shed) = tenant.budget.admit(self.number, now, pressure) {
            counters.shed.inc(shed);
            return (request, Some(turned_away(tenant, named.cloned())));
        }
        let records = self.shared.records.as_ref();
        let id = records.map(Recorder::next_id);
        let recording = records.filter(|records| records.wants(&request, now));
        self.evaluator.set_decision(id);
        let mut asking = Asking {
            evaluator: &mut self.evaluator,
            counters: &self.shared.counters[self.number],
            shadow: &self.shared.shadow,
            number: self.number,
            addresses,
            tenant,
            pressure,
            begun: now,
            edits: Edits::default(),
            recorded: recording.map(|_| (Moment::now(), Vec::new())),
        };
        let (before, after) = (&tenants.before, &tenants.after);
        let seats = before.iter().chain([&tenant.seat]).chain(after);
        let (request, outcome) = asking.outcome(seats, request);
        self.ended = asking.begun;
        outcome.count(counters);
        if let (Some(records), Some(id), Some((moment, policies))) =
            (recording, id, asking.recorded)
        {
            let outcome = outcome.to_string();
            records.write(id, moment.wall, &tenant.name, &request, policies, outcome);
        }
        let judgement = Judgement {
            outcome,
            edits: asking.edits,
            tenant: named.cloned(),
            id,
        };
        (request, Some(judgement))
    }
}

/// One request on its way from policy to policy.
struct Asking<'j> {
    evaluator: &'j mut Evaluator<PolicyRequest>,
    counters: &'j WorkerCounters,
    shadow: &'j Shadow,
    number: usize,
    addresses: &'j Arc<Snapshot>,
    tenant: &'j Tenant,
    pressure: &'j mut Pressure,
    /// When the call of the moment began: the end of the one before.
    begun: Instant,
    /// What those that were asked so far change in the header.
    edits: Edits,
    /// What is written down of them, if it is, and the time that they are told.
    recorded: Option<(Moment, Vec<records::Asking>)>,
}

impl Asking<'_> {
    /// Asks the policies of the seats until one has an opinion. The request comes back.
    fn outcome<'s>(
        &mut self,
        seats: impl Iterator<Item = &'s Arc<Seat>>,
        mut request: PolicyRequest,
    ) -> (PolicyRequest, Outcome) {
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

    /// Asks the policy of one seat. The request comes back.
    fn opinion(&mut self, seat: &Seat, request: PolicyRequest) -> (PolicyRequest, Opinion) {
        let lineup = seat.slot.guard();
        let Some(lineup) = lineup.as_ref() else {
            return (request, without_policy(seat));
        };
        if !seat.admits(self.begun) {
            self.tenant.counters[self.number].shed.inc(Shed::Breaker);
            return (request, failed(seat, &seat.config.failure.overload));
        }
        let generation = match &lineup.candidate {
            Some(_) => lineup.decides(request.call_id_bytes()),
            None => &lineup.active,
        };
        let asked = self.begun;
        let (mut request, mut answer, mut edits) = self.ask(seat, generation, request);
        if let Some(candidate) = lineup.shadow() {
            let comparison = seat.comparison_of(generation.number, candidate.number);
            self.shadow.offer(
                &request,
                &seat.scope,
                self.addresses,
                candidate,
                (&answer, &edits),
                &comparison,
            );
        }
        if answer.is_ok() {
            seat.note_success(asked);
        }
        if let Err(failure) = &answer {
            debug!(policy = &*seat.name, %failure, "The policy failed.");
            seat.note_failure(generation.number, failure, self.begun);
            let rule = seat.config.failure.of(failure.kind());
            let last_good = lineup.fallback.as_ref();
            if let Some(fallback) = last_good.filter(|_| *rule == OnFailure::LastGood) {
                (request, answer, edits) = self.ask(seat, fallback, request);
            }
            if answer.is_err() {
                return (request, failed(seat, rule));
            }
        }
        let opinion = match answer {
            Ok(verdict) if lineup.mode == Mode::Monitor => {
                if verdict != Verdict::Pass {
                    self.watch(seat, generation, &request, &verdict);
                }
                return (request, Opinion::None);
            }
            Ok(Verdict::Pass) | Err(_) => Opinion::None,
            Ok(verdict) => Opinion::Verdict(verdict),
        };
        if !edits.is_empty() {
            self.edits.append(edits);
        }
        (request, opinion)
    }

    fn ask(
        &mut self,
        seat: &Seat,
        generation: &Generation<PolicyRequest>,
        request: PolicyRequest,
    ) -> (PolicyRequest, Result<Verdict, Failure>, Edits) {
        let policy = &generation.policy;
        if let Some((moment, _)) = &self.recorded {
            self.evaluator.insert_tape(Tape::new(*moment));
        }
        let (request, answer) = self
            .evaluator
            .decide(policy, &seat.scope, self.addresses, request);
        let now = Instant::now();
        let took = now.saturating_duration_since(self.begun);
        let budget = &self.tenant.budget;
        let cost = self.pressure.cost(took, now, thread_time);
        budget.charge(self.number, self.begun, cost, self.pressure);
        self.begun = now;
        generation.stats.record(self.number, &answer, took);
        self.counters.policy_time.record(took);
        if let Err(failure) = &answer {
            self.counters.policy_failures.inc(failure.kind());
        }
        // A failed call has none that count.
        let edits = self.evaluator.take_edits();
        if let Some((_, policies)) = &mut self.recorded {
            let tape = self.evaluator.take_tape();
            policies.push(written(
                seat,
                generation,
                tape.as_ref(),
                &answer,
                &edits,
                took,
            ));
        }
        (request, answer, edits)
    }

    /// Tells what a policy would have done that is only watched.
    fn watch(
        &self,
        seat: &Seat,
        generation: &Generation<PolicyRequest>,
        request: &PolicyRequest,
        verdict: &Verdict,
    ) {
        let counters = &self.tenant.counters[self.number];
        counters.monitored.inc(VerdictKind::of(verdict));
        info!(
            policy = &*seat.name,
            generation = generation.number,
            %verdict,
            call_id = %String::from_utf8_lossy(request.call_id_bytes()).escape_debug(),
            "The policy is only watched: this is what it would have done."
        );
    }
}

/// What becomes of a request that is one too many.
fn turned_away(tenant: &Tenant, named: Option<Arc<Tenant>>) -> Judgement {
    let outcome = match failed(&tenant.seat, &tenant.seat.config.failure.overload) {
        Opinion::Failed(answer) => Outcome::Failed(answer),
        Opinion::Default | Opinion::Verdict(_) | Opinion::None => Outcome::Default,
    };
    Judgement {
        outcome,
        tenant: named,
        edits: Edits::default(),
        id: None,
    }
}

/// A call as it is written down.
fn written(
    seat: &Seat,
    generation: &Generation<PolicyRequest>,
    tape: Option<&Tape>,
    answer: &Result<Verdict, Failure>,
    edits: &Edits,
    took: Duration,
) -> records::Asking {
    let asked = tape.map(Tape::asked).unwrap_or_default();
    records::Asking {
        seat: seat.name.to_string(),
        policy: generation.policy.name().to_owned(),
        generation: generation.number,
        digest: generation.policy.digest().to_string(),
        asked: asked.iter().map(records::Question::of).collect(),
        decided: records::Decided::of(answer),
        edits: records::Change::all(edits),
        duration_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
    }
}

/// A failure ends the request's way through the policies: the next one was never meant to be all that is asked.
fn failed(seat: &Seat, rule: &OnFailure) -> Opinion {
    match rule {
        OnFailure::Default => Opinion::Default,
        OnFailure::RejectWith(answer) => Opinion::Failed(answer.clone()),
        OnFailure::Reject | OnFailure::LastGood => Opinion::Failed(answer_of(seat)),
    }
}

/// A seat that nobody is meant to hold has no opinion; one whose policy could not be loaded is a failure.
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
