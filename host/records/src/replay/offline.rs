//! A policy that is called without a host: one request at a time, with an answer that says everything about the call.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use portcullis_address::Snapshot;
use portcullis_policy::{
    Asked, Evaluator, FailedAttempts, Forwarding, LogLine, Moment, Policy, Scope, StatedHost, Tape,
    Wishes,
};
use portcullis_request::Request;

use crate::{Change, Decided, Question};

/// Calls one policy. Counters stay from call to call.
pub struct OfflinePolicy {
    policy: Policy,
    evaluator: Evaluator,
    scope: Arc<Scope>,
    begun: Instant,
    first: Option<SystemTime>,
}

/// A call to be made.
#[derive(Debug)]
pub struct Query {
    /// The request.
    pub request: Request,
    /// The time that the policy reads. Counters expire by the time since the first call.
    pub at: SystemTime,
    /// Recorded answers, which are used in place of those of the tables; `None` to answer from the tables.
    pub recorded: Option<Vec<Asked>>,
    /// The targets that have failed: calls `on-failure`; `None` calls `decide`.
    pub failed: Option<FailedAttempts>,
    /// What the policy gets to know beside the request and the tables.
    pub host: StatedHost,
}

/// What a call did.
#[derive(Clone, Debug)]
pub struct Answered {
    /// The verdict or the step, or the failure.
    pub decided: Decided,
    /// Changes of header fields; empty if the request is not relayed.
    pub edits: Vec<Change>,
    /// The queries in order.
    pub asked: Vec<Question>,
    /// Queries for which there was no recorded answer.
    pub unanswered: Vec<Question>,
    /// Whether the call made more queries than are listed.
    pub is_cut: bool,
    /// What the call said about targets.
    pub forwarding: Option<Forwarding>,
    /// What the call asked of the host beside its verdict.
    pub wishes: Wishes,
    /// The log lines of every level.
    pub log: Vec<LogLine>,
    /// Fuel used; `None` if the runtime does not meter it or no policy was called.
    pub fuel: Option<u64>,
    /// Duration on this machine, instantiation included.
    pub took: Duration,
}

impl OfflinePolicy {
    /// A policy with the scope of its seat.
    pub fn new(policy: Policy, scope: Arc<Scope>) -> Self {
        Self {
            policy,
            evaluator: Evaluator::muted().keeping_log(),
            scope,
            begun: Instant::now(),
            first: None,
        }
    }

    /// The policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Uses another scope from now on, with its counters. Their time begins with the next call.
    pub fn start_over(&mut self, scope: Scope) {
        self.scope = Arc::new(scope);
        self.first = None;
        self.begun = Instant::now();
    }

    /// Uses another scope from now on, with the counters so far and their time.
    pub fn continue_in(&mut self, scope: Scope) {
        let counters = Arc::clone(self.scope.counters());
        self.scope = Arc::new(scope.with_counters(counters));
    }

    /// Makes a call with these tables.
    pub fn call(&mut self, query: Query, tables: &Arc<Snapshot>) -> Answered {
        let first = *self.first.get_or_insert(query.at);
        let moment = Moment {
            wall: query.at,
            steady: self.begun + query.at.duration_since(first).unwrap_or_default(),
        };
        self.evaluator.insert_tape(match query.recorded {
            Some(recorded) => Tape::replaying(moment, recorded),
            None => Tape::new(moment),
        });
        let (policy, scope, request) = (&self.policy, &self.scope, query.request);
        let evaluator = &mut self.evaluator;
        evaluator.set_host(Arc::new(query.host));
        let start = Instant::now();
        let decided = match query.failed {
            None => {
                let (_, answer) = evaluator.decide(policy, scope, tables, request);
                Decided::of(&answer)
            }
            Some(failed) => {
                let (_, answer) = evaluator.on_failure(policy, scope, tables, request, failed);
                Decided::of_step(&answer)
            }
        };
        let took = start.elapsed();
        let edits = evaluator.take_edits();
        let tape = evaluator.take_tape();
        let is_cut = tape.as_ref().is_some_and(Tape::is_cut);
        let unanswered = tape.as_ref().map(Tape::unanswered).unwrap_or_default();
        let unanswered = unanswered.iter().cloned().map(Question::of).collect();
        let asked = tape.map(Tape::into_asked).unwrap_or_default();
        Answered {
            edits: match decided.may_relay() {
                true => Change::all(&edits),
                false => Vec::new(),
            },
            decided,
            asked: asked.into_iter().map(Question::of).collect(),
            unanswered,
            is_cut,
            forwarding: evaluator.take_forwarding(),
            wishes: evaluator.wishes(),
            log: evaluator.take_log(),
            fuel: evaluator.fuel(),
            took,
        }
    }
}
