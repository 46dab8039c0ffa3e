//! The way of one request through the policies.

use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_address::Snapshot;
use portcullis_config::{Answer, OnFailure};
use portcullis_metrics::{Shed, WorkerCounters};
use portcullis_policy::{
    DecisionId, Edits, Evaluator, Failure, Forwarding, Generation, Lineup, Mode, Moment, ShareKey,
    Tape, Verdict, VerdictKind, Wishes,
};
use portcullis_records as records;
use portcullis_request::Request;
use tracing::{debug, info};

use super::judgement::{Asker, Cause, Outcome};
use super::pinned::Pinned;
use crate::notices;
use crate::tenants::{
    Beside, CallResult, Offered, Pressure, Seat, Shadow, Source, Tenant, thread_time,
};
use crate::trace::{Asked, DecidedKind};

/// The result of one policy.
pub(super) enum Opinion {
    Verdict(Verdict),
    None,
    /// The default verdict, without calling further policies.
    Default,
    Failed(Answer),
}

/// Default reason phrase when a policy failed.
const FAILED: &str = "Policy Failure";

/// One request on its way through the policies.
pub(super) struct Asking<'j> {
    pub(super) evaluator: &'j mut Evaluator,
    pub(super) counters: &'j WorkerCounters,
    pub(super) shadow: &'j Shadow,
    pub(super) share_key: &'j ShareKey,
    pub(super) number: usize,
    pub(super) addresses: &'j Arc<Snapshot>,
    pub(super) tenant: &'j Tenant,
    /// The source that is charged in addition to the tenant.
    pub(super) source: Option<Source>,
    pub(super) pressure: &'j mut Pressure,
    /// Start of the current call: the end of the previous one.
    pub(super) begun: Instant,
    /// Header changes of the policies called so far.
    pub(super) edits: Edits,
    /// The id of the decision; `None` without `[records]`.
    pub(super) id: Option<DecisionId>,
    /// The basis of the decision so far.
    pub(super) cause: Cause,
    /// Whether the log or a trace needs to know who decided.
    pub(super) is_watched: bool,
    /// The seat and generation that decided.
    pub(super) decided: Option<(Arc<str>, u64)>,
    /// See [`Judgement::forwarding`].
    pub(super) forwarding: Option<Box<Forwarding>>,
    /// See [`Judgement::asker`].
    pub(super) asker: Option<Box<Asker>>,
    /// See [`Judgement::is_operators`].
    pub(super) is_operators: bool,
    /// See [`Judgement::wishes`].
    pub(super) wishes: Wishes,
    pub(super) pinned: &'j mut Pinned<Generation>,
    /// The answers that the last call got, if the other generation of its seat evaluates the request beside.
    pub(super) sampled: Option<Box<Tape>>,
    /// The policies called so far, if a trace may show them.
    pub(super) asked: Option<Vec<Asked>>,
    /// The record of the policy calls, if the decision is recorded.
    pub(super) recorded: Option<Recorded>,
}

/// The record of a decision under construction.
pub(super) struct Recorded {
    /// The time that policies read.
    pub(super) moment: Moment,
    pub(super) policies: Vec<records::Asking>,
    /// Memory of the recorded queries, in bytes.
    pub(super) tape_bytes: usize,
}

impl Recorded {
    pub(super) fn begin() -> Self {
        Self {
            moment: Moment::now(),
            policies: Vec::new(),
            tape_bytes: 0,
        }
    }
}

impl Asking<'_> {
    /// Calls the policies of the seats until one does not pass. The request is returned.
    pub(super) fn outcome<'s>(
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
        let is_sampled = seat.samples(lineup, asked);
        let (mut request, mut answer, mut edits) = self.ask(seat, generation, request, is_sampled);
        if let Some((other, beside)) = self.beside(lineup, generation) {
            let (active, candidate) = match lineup.active.number == generation.number {
                true => (generation.number, other.number),
                false => (other.number, generation.number),
            };
            let comparison = seat.comparison_of(active, candidate);
            let offered = Offered {
                request: &request,
                scope: &seat.scope,
                addresses: self.addresses,
                host: self.evaluator.host(),
            };
            self.shadow.offer(
                offered,
                (other, beside),
                (
                    CallResult::Verdict(&answer),
                    &edits,
                    self.evaluator.forwarding(),
                ),
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
                (request, answer, edits) = self.ask(seat, fallback, request, false);
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
                    self.is_operators = seat.is_operators();
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
        self.wishes.add(self.evaluator.wishes());
        (request, opinion)
    }

    fn ask(
        &mut self,
        seat: &Seat,
        generation: &Generation,
        request: Request,
        is_sampled: bool,
    ) -> (Request, Result<Verdict, Failure>, Edits) {
        let policy = &generation.policy;
        let moment = match &self.recorded {
            Some(recorded) => Some(recorded.moment),
            None => is_sampled.then(Moment::now),
        };
        if let Some(moment) = moment {
            self.evaluator.insert_tape(Tape::new(moment));
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
        let tape = moment.and_then(|_| self.evaluator.take_tape());
        self.sampled = tape.as_ref().filter(|_| is_sampled).cloned().map(Box::new);
        if let Some(recorded) = &mut self.recorded {
            recorded.tape_bytes += tape.as_ref().map_or(0, Tape::bytes);
            let decided = records::Decided::of(&answer);
            let asking = written(seat, generation, tape, decided, &edits, took);
            recorded.policies.push(asking);
        }
        (request, answer, edits)
    }

    /// The generation that evaluates the request beside the one that has decided, and how.
    fn beside<'l>(
        &mut self,
        lineup: &'l Lineup,
        decided: &Generation,
    ) -> Option<(&'l Arc<Generation>, Beside)> {
        if let Some(candidate) = lineup.shadow() {
            return Some((candidate, Beside::Shadow));
        }
        let (tape, candidate) = (self.sampled.take()?, lineup.candidate.as_ref()?);
        let is_candidates = candidate.generation.number == decided.number;
        let other = match is_candidates {
            true => &lineup.active,
            false => &candidate.generation,
        };
        Some((
            other,
            Beside::Sample {
                tape,
                is_candidates,
            },
        ))
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
    pub(super) fn charge_copies(&mut self) {
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
        kind: DecidedKind::of(answer),
        microseconds: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
    }
}

/// A call as it is recorded.
pub(super) fn written(
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
pub(super) fn failed(seat: &Seat, rule: &OnFailure) -> Opinion {
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

/// The configured answer to requests whose policy call fails.
pub(super) fn answer_of(seat: &Seat) -> Answer {
    let mut answer = seat.config.failure.answer.clone();
    if answer.reason.is_empty() {
        answer.reason = FAILED.to_owned();
    }
    answer
}
