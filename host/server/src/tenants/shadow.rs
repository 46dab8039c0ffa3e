//! Asks candidates about requests that have been decided, off the way of the requests, and keeps what they would have decided
//! otherwise.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;
use portcullis_address::Snapshot;
use portcullis_policy::{Edits, Evaluator, Failure, Generation, Scope, Verdict};

use crate::pipeline::PolicyRequest;

/// Requests that may wait for candidates. What comes when there is no room is not compared, and counted.
const WAITING: usize = 1024;

/// Differences that are kept as they were, the last ones.
const SAMPLES: usize = 32;

/// Room for what the host does, beside the stack that a policy may use.
const STACK: usize = 2 << 20;

/// The way to the thread that asks candidates.
#[derive(Clone, Debug)]
pub struct Shadow {
    jobs: SyncSender<Job>,
}

/// What a candidate decided in comparison.
#[derive(Debug)]
pub struct Comparison {
    /// The number of its generation.
    pub candidate: u64,
    /// The number of the one that decided.
    pub active: u64,
    same: AtomicU64,
    different: AtomicU64,
    not_compared: AtomicU64,
    samples: Mutex<VecDeque<Difference>>,
}

/// A request that the candidate would have decided otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// When.
    pub at: SystemTime,
    /// Where the request came from.
    pub source: SocketAddr,
    /// The request as it was received, in text.
    pub request: String,
    /// What was decided.
    pub active: String,
    /// What would have been.
    pub candidate: String,
}

/// One request and what was decided about it.
#[derive(Debug)]
struct Job {
    request: PolicyRequest,
    scope: Arc<Scope>,
    addresses: Arc<Snapshot>,
    generation: Arc<Generation<PolicyRequest>>,
    decided: Result<Verdict, Failure>,
    edits: Edits,
    comparison: Arc<Comparison>,
}

impl Shadow {
    /// Starts the thread. It ends with the last handle.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn start(policy_stack: usize) -> std::io::Result<Self> {
        let (jobs, next) = sync_channel(WAITING);
        std::thread::Builder::new()
            .name("shadow".to_owned())
            .stack_size(STACK + policy_stack)
            .spawn(move || work(&next))?;
        Ok(Self { jobs })
    }

    /// Hands a decided request on, if there is room.
    pub fn offer(
        &self,
        request: &PolicyRequest,
        scope: &Arc<Scope>,
        addresses: &Arc<Snapshot>,
        generation: &Arc<Generation<PolicyRequest>>,
        (decided, edits): (&Result<Verdict, Failure>, &Edits),
        comparison: &Arc<Comparison>,
    ) {
        let job = Job {
            request: request.clone(),
            scope: Arc::clone(scope),
            addresses: Arc::clone(addresses),
            generation: Arc::clone(generation),
            decided: decided.clone(),
            edits: edits.clone(),
            comparison: Arc::clone(comparison),
        };
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.jobs.try_send(job)
        {
            comparison.not_compared.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Comparison {
    /// Of these two generations, nothing compared yet.
    pub fn new(active: u64, candidate: u64) -> Self {
        Self {
            candidate,
            active,
            same: AtomicU64::new(0),
            different: AtomicU64::new(0),
            not_compared: AtomicU64::new(0),
            samples: Mutex::new(VecDeque::new()),
        }
    }

    /// Requests on which both agree.
    pub fn same(&self) -> u64 {
        self.same.load(Ordering::Relaxed)
    }

    /// Requests on which they do not.
    pub fn different(&self) -> u64 {
        self.different.load(Ordering::Relaxed)
    }

    /// Requests for which there was no room.
    pub fn not_compared(&self) -> u64 {
        self.not_compared.load(Ordering::Relaxed)
    }

    /// The last differences, the oldest first.
    pub fn samples(&self) -> Vec<Difference> {
        self.samples.lock().iter().cloned().collect()
    }

    fn note(&self, difference: Option<Difference>) {
        let Some(difference) = difference else {
            self.same.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let mut samples = self.samples.lock();
        // Within the lock: who sees the number finds the sample too.
        self.different.fetch_add(1, Ordering::Relaxed);
        if samples.len() == SAMPLES {
            samples.pop_front();
        }
        samples.push_back(difference);
    }
}

fn work(next: &Receiver<Job>) {
    let mut evaluator = Evaluator::muted();
    while let Ok(job) = next.recv() {
        let Job {
            request,
            scope,
            addresses,
            generation,
            decided,
            edits,
            comparison,
        } = job;
        let begun = Instant::now();
        let (request, answer) = evaluator.decide(&generation.policy, &scope, &addresses, request);
        generation.stats.record(0, &answer, begun.elapsed());
        let changed = evaluator.take_edits();
        let (active, candidate) = ((&decided, &edits), (&answer, &changed));
        comparison.note(difference(&request, active, candidate));
    }
}

/// What a policy decided, and what it changes in the header.
type Decided<'d> = (&'d Result<Verdict, Failure>, &'d Edits);

fn difference(
    request: &PolicyRequest,
    active: Decided<'_>,
    candidate: Decided<'_>,
) -> Option<Difference> {
    let is_same = match (active, candidate) {
        ((Ok(active), edits), (Ok(candidate), changed)) => {
            active == candidate && (edits == changed || !may_relay(active))
        }
        ((Err(active), _), (Err(candidate), _)) => active.kind() == candidate.kind(),
        _ => false,
    };
    (!is_same).then(|| Difference {
        at: SystemTime::now(),
        source: request.arrival.source,
        request: request.as_text().into_owned(),
        active: shown(active),
        candidate: shown(candidate),
    })
}

/// Whether changes to the header may come to anything.
pub(crate) fn may_relay(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Relay(_) | Verdict::Pass)
}

/// An answer in a few words.
fn shown((answer, edits): Decided<'_>) -> String {
    match answer {
        Ok(verdict) if may_relay(verdict) && !edits.is_empty() => format!("{verdict}, {edits}"),
        Ok(verdict) => verdict.to_string(),
        Err(failure) => format!("failure: {failure}"),
    }
}
