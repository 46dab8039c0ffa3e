//! Evaluates candidates on decided requests, off the path of the requests, and keeps the differences.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;
use portcullis_address::Snapshot;
use portcullis_config::RecordsConfig;
use portcullis_policy::{
    Edit, Edits, Evaluator, FailedAttempts, Failure, Forwarding, Generation, HostState, NextStep,
    Rejection, Scope, StatedHost, Tape, Verdict,
};

use portcullis_records::Mask;
use portcullis_request::Request;

/// Requests that may wait for candidates. Further requests are not compared, only counted.
const WAITING: usize = 1024;

/// The same for one candidate, so that others get their share.
const WAITING_EACH: usize = 64;

/// Bytes of all waiting requests.
const WAITING_BYTES: usize = 16 << 20;

/// Number of differences kept, the latest ones.
const SAMPLES: usize = 32;

/// Maximum bytes of a request, and of each decision, in such a difference. The rest is cut off.
const SAMPLE_BYTES: usize = 8 << 10;

/// Stack for host code, in addition to the stack that a policy may use.
const STACK: usize = 2 << 20;

/// Handle of the thread that evaluates candidates.
#[derive(Clone, Debug)]
pub struct Shadow {
    jobs: SyncSender<Job>,
    /// Bytes of waiting requests.
    waiting: Arc<AtomicUsize>,
}

/// A candidate's decisions compared with those of the active generation.
#[derive(Debug)]
pub struct Comparison {
    /// Generation number of the candidate.
    pub candidate: u64,
    /// Generation number of the one that decided.
    pub active: u64,
    same: AtomicU64,
    different: AtomicU64,
    not_compared: AtomicU64,
    /// Requests that wait for the candidate.
    waiting: AtomicUsize,
    samples: Mutex<VecDeque<Difference>>,
}

/// A request on which the candidate decided differently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// When.
    pub at: SystemTime,
    /// Source of the request.
    pub source: SocketAddr,
    /// The request as received, as text, with the values that `[records]` masks left out.
    pub request: String,
    /// What was decided.
    pub active: String,
    /// What the candidate decided.
    pub candidate: String,
}

/// The answer of a policy: its verdict, or its step after these attempts have failed.
#[derive(Clone, Copy, Debug)]
pub enum CallResult<'d> {
    /// The result of `decide`.
    Verdict(&'d Result<Verdict, Failure>),
    /// The result of `on-failure`.
    Step(&'d Result<NextStep, Failure>, &'d FailedAttempts),
}

/// The answer of a policy with its header changes and its targets.
type Decided<'d> = (CallResult<'d>, &'d Edits, Option<&'d Forwarding>);

/// A request that a policy has decided on, and what it could ask for.
#[derive(Clone, Copy)]
pub struct Offered<'o> {
    /// The request.
    pub request: &'o Request,
    /// The scope of the seat.
    pub scope: &'o Arc<Scope>,
    /// The tables.
    pub addresses: &'o Arc<Snapshot>,
    /// What the policy could get to know beside them.
    pub host: Option<&'o Arc<dyn HostState>>,
}

/// How the generation that did not decide evaluates a request.
#[derive(Debug)]
pub enum Beside {
    /// As the candidate of a shadow trial: with the counters of the seat, and among its calls.
    Shadow,
    /// As one of a sample of requests of a canary trial: with the answers that the deciding call got, without an effect on the counters of the seat
    /// and on those of the generation.
    Sample {
        /// The answers that the deciding call got.
        tape: Box<Tape>,
        /// Whether the candidate decided, and the active generation evaluates.
        is_candidates: bool,
    },
}

/// One request and the answer to it.
#[derive(Debug)]
struct Job {
    request: Request,
    scope: Arc<Scope>,
    addresses: Arc<Snapshot>,
    host: StatedHost,
    generation: Arc<Generation>,
    beside: Beside,
    answer: Kept,
    edits: Edits,
    forwarding: Option<Forwarding>,
    comparison: Arc<Comparison>,
    /// Its memory, in bytes.
    bytes: usize,
}

/// A [`CallResult`] that waits for that of the candidate.
#[derive(Debug)]
enum Kept {
    Verdict(Result<Verdict, Failure>),
    Step(Result<NextStep, Failure>, Box<FailedAttempts>),
}

impl Shadow {
    /// Starts the thread, which ends when the last handle is dropped. What `records` mask is not kept of a request.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(policy_stack: usize, records: &RecordsConfig) -> std::io::Result<Self> {
        let (jobs, next) = sync_channel(WAITING);
        let mask = Mask::new(records);
        let waiting = Arc::new(AtomicUsize::new(0));
        let taken = Arc::clone(&waiting);
        std::thread::Builder::new()
            .name("shadow".to_owned())
            .stack_size(STACK + policy_stack)
            .spawn(move || work(&next, &taken, &mask))?;
        Ok(Self { jobs, waiting })
    }

    /// Reserves memory for a request; false if the limit is reached.
    fn take_room(&self, comparison: &Comparison, bytes: usize) -> bool {
        let others = comparison.waiting.fetch_add(1, Ordering::Relaxed);
        let before = self.waiting.fetch_add(bytes, Ordering::Relaxed);
        let has_room = others < WAITING_EACH && before.saturating_add(bytes) <= WAITING_BYTES;
        if !has_room {
            leave_room(&self.waiting, comparison, bytes);
        }
        has_room
    }

    /// Passes a request and the answer to it on, if the limits permit. `generation` evaluates it.
    pub fn offer(
        &self,
        offered: Offered<'_>,
        (generation, beside): (&Arc<Generation>, Beside),
        decision: Decided<'_>,
        comparison: &Arc<Comparison>,
    ) {
        let Offered {
            request,
            scope,
            addresses,
            host,
        } = offered;
        let (answer, edits, forwarding) = decision;
        let bytes = size_of::<Job>() + request.bytes() + bytes_of(decision) + beside.bytes();
        if beside.is_cut() || !self.take_room(comparison, bytes) {
            comparison.not_compared.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let job = Job {
            request: request.clone(),
            scope: Arc::clone(scope),
            addresses: Arc::clone(addresses),
            host: host
                .map(|host| host.stated(request, scope))
                .unwrap_or_default(),
            generation: Arc::clone(generation),
            beside,
            answer: answer.kept(),
            edits: edits.clone(),
            forwarding: forwarding.cloned(),
            comparison: Arc::clone(comparison),
            bytes,
        };
        if self.jobs.try_send(job).is_err() {
            leave_room(&self.waiting, comparison, bytes);
            comparison.not_compared.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Comparison {
    /// An empty comparison of these two generations.
    pub fn new(active: u64, candidate: u64) -> Self {
        Self {
            candidate,
            active,
            same: AtomicU64::new(0),
            different: AtomicU64::new(0),
            not_compared: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            samples: Mutex::new(VecDeque::new()),
        }
    }

    /// Number of requests on which both agree.
    pub fn same(&self) -> u64 {
        self.same.load(Ordering::Relaxed)
    }

    /// Number of requests on which they differ.
    pub fn different(&self) -> u64 {
        self.different.load(Ordering::Relaxed)
    }

    /// Number of requests that exceeded the limits.
    pub fn not_compared(&self) -> u64 {
        self.not_compared.load(Ordering::Relaxed)
    }

    /// The latest differences, oldest first.
    pub fn samples(&self) -> Vec<Difference> {
        self.samples.lock().iter().cloned().collect()
    }

    fn note(&self, difference: Option<Difference>) {
        let Some(difference) = difference else {
            self.same.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let mut samples = self.samples.lock();
        // Within the lock: a reader who sees the number also finds the sample.
        self.different.fetch_add(1, Ordering::Relaxed);
        if samples.len() == SAMPLES {
            samples.pop_front();
        }
        samples.push_back(difference);
    }
}

/// Releases what [`Shadow::take_room`] reserved.
fn leave_room(waiting: &AtomicUsize, comparison: &Comparison, bytes: usize) {
    waiting.fetch_sub(bytes, Ordering::Relaxed);
    comparison.waiting.fetch_sub(1, Ordering::Relaxed);
}

/// Memory of two strings beside their texts, in bytes.
const PAIR: usize = 64;

/// Memory of an answer, in bytes.
fn bytes_of((answer, edits, forwarding): Decided<'_>) -> usize {
    let edits = edits.iter().map(|edit| match edit {
        Edit::Add { name, value } => PAIR + name.len() + value.len(),
        Edit::Remove { name } => PAIR + name.len(),
    });
    answer.bytes() + edits.sum::<usize>() + forwarding.map_or(0, Forwarding::bytes)
}

impl Beside {
    fn bytes(&self) -> usize {
        match self {
            Self::Shadow => 0,
            Self::Sample { tape, .. } => size_of::<Tape>() + tape.bytes(),
        }
    }

    /// Whether answers are missing: the evaluation would differ for that reason.
    fn is_cut(&self) -> bool {
        match self {
            Self::Shadow => false,
            Self::Sample { tape, .. } => tape.is_cut(),
        }
    }
}

impl CallResult<'_> {
    fn bytes(self) -> usize {
        match self {
            Self::Verdict(Ok(Verdict::Reject(rejection))) => bytes_of_rejection(rejection),
            Self::Verdict(Ok(Verdict::Relay(next_hop))) => next_hop.as_ref().map_or(0, String::len),
            Self::Verdict(Ok(Verdict::Drop | Verdict::Pass) | Err(_)) => 0,
            Self::Step(step, failed) => {
                let answer = match step {
                    Ok(NextStep::Answer(rejection)) => bytes_of_rejection(rejection),
                    Ok(NextStep::Best | NextStep::Again) | Err(_) => 0,
                };
                answer + failed.bytes()
            }
        }
    }

    fn kept(self) -> Kept {
        match self {
            Self::Verdict(verdict) => Kept::Verdict(verdict.clone()),
            Self::Step(step, failed) => Kept::Step(step.clone(), Box::new(failed.clone())),
        }
    }

    /// Whether header changes can take effect.
    fn may_relay(self) -> bool {
        match self {
            Self::Verdict(verdict) => verdict.as_ref().is_ok_and(may_relay),
            Self::Step(step, _) => matches!(step, Ok(NextStep::Again)),
        }
    }

    /// Whether both say the same. Failures of one kind do.
    fn is_same_as(self, other: Self) -> bool {
        match (self, other) {
            (Self::Verdict(Ok(one)), Self::Verdict(Ok(other))) => one == other,
            (Self::Step(Ok(one), _), Self::Step(Ok(other), _)) => one == other,
            (Self::Verdict(Err(one)), Self::Verdict(Err(other)))
            | (Self::Step(Err(one), _), Self::Step(Err(other), _)) => one.kind() == other.kind(),
            (Self::Verdict(_), Self::Verdict(_) | Self::Step(..))
            | (Self::Step(..), Self::Verdict(_) | Self::Step(..)) => false,
        }
    }

    fn is_failure(self) -> bool {
        match self {
            Self::Verdict(verdict) => verdict.is_err(),
            Self::Step(step, _) => step.is_err(),
        }
    }
}

impl Kept {
    fn as_answer(&self) -> CallResult<'_> {
        match self {
            Self::Verdict(verdict) => CallResult::Verdict(verdict),
            Self::Step(step, failed) => CallResult::Step(step, failed),
        }
    }
}

fn bytes_of_rejection(rejection: &Rejection) -> usize {
    let headers = rejection.headers.iter();
    let headers = headers.map(|(name, value)| PAIR + name.len() + value.len());
    rejection.reason.len() + headers.sum::<usize>()
}

fn work(next: &Receiver<Job>, waiting: &AtomicUsize, mask: &Mask) {
    let mut evaluator = Evaluator::muted();
    while let Ok(job) = next.recv() {
        let Job {
            request,
            scope,
            addresses,
            host,
            generation,
            beside,
            answer,
            edits,
            forwarding,
            comparison,
            bytes,
        } = job;
        evaluator.set_host(Arc::new(host));
        let (scope, counts, is_candidates) = match beside {
            Beside::Shadow => (scope, true, false),
            Beside::Sample {
                tape,
                is_candidates,
            } => {
                let moment = tape.moment();
                evaluator.insert_tape(Tape::replaying(moment, tape.into_asked()));
                (Arc::new(scope.aside()), false, is_candidates)
            }
        };
        let (begun, policy) = (Instant::now(), &generation.policy);
        let (request, other) = match &answer {
            Kept::Verdict(_) => {
                let (request, verdict) = evaluator.decide(policy, &scope, &addresses, request);
                if counts {
                    generation.stats.record(0, &verdict, begun.elapsed());
                }
                (request, Kept::Verdict(verdict))
            }
            Kept::Step(_, failed) => {
                let asked = FailedAttempts::clone(failed);
                let (request, step) =
                    evaluator.on_failure(policy, &scope, &addresses, request, asked);
                if counts {
                    generation.stats.record_step(0, &step, begun.elapsed());
                }
                (request, Kept::Step(step, Box::default()))
            }
        };
        let changed = evaluator.take_edits();
        let said = evaluator.take_forwarding();
        let decided = (answer.as_answer(), &edits, forwarding.as_ref());
        let beside = (other.as_answer(), &changed, said.as_ref());
        let (active, candidate) = match is_candidates {
            false => (decided, beside),
            true => (beside, decided),
        };
        comparison.note(difference(&request, active, candidate, mask));
        leave_room(waiting, &comparison, bytes);
    }
}

fn difference(
    request: &Request,
    active: Decided<'_>,
    candidate: Decided<'_>,
    mask: &Mask,
) -> Option<Difference> {
    let ((answer, edits, targets), (other, changed, others)) = (active, candidate);
    let is_same = answer.is_same_as(other)
        && (targets == others || answer.is_failure())
        && (edits == changed || !answer.may_relay());
    (!is_same).then(|| Difference {
        at: SystemTime::now(),
        source: request.arrival.source,
        request: masked(request, mask),
        active: cut(shown(active)),
        candidate: cut(shown(candidate)),
    })
}

/// The request without the parts that must not be shown with a difference.
fn masked(request: &Request, mask: &Mask) -> String {
    let (bytes, left_out) = mask.request(request);
    let shown = &bytes[..bytes.len().min(SAMPLE_BYTES)];
    let mut text = cut(String::from_utf8_lossy(shown).into_owned());
    if bytes.len() > SAMPLE_BYTES {
        text.push_str("\r\n(cut)");
    } else if left_out > 0 {
        text.push_str(&format!("({left_out} bytes of body)"));
    }
    text
}

fn cut(mut text: String) -> String {
    if text.len() > SAMPLE_BYTES {
        text.truncate(text.floor_char_boundary(SAMPLE_BYTES));
    }
    text.shrink_to_fit();
    text
}

/// Whether header changes can take effect.
pub(crate) fn may_relay(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Relay(_) | Verdict::Pass)
}

/// A short description of an answer.
fn shown((answer, edits, forwarding): Decided<'_>) -> String {
    let mut shown = match answer {
        CallResult::Verdict(Ok(verdict)) => verdict.to_string(),
        CallResult::Step(Ok(step), _) => format!("after failure: {step}"),
        CallResult::Verdict(Err(failure)) => format!("failure: {failure}"),
        CallResult::Step(Err(failure), _) => format!("after failure: failure: {failure}"),
    };
    if answer.may_relay() && !edits.is_empty() {
        shown.push_str(&format!(", {edits}"));
    }
    if let Some(forwarding) = forwarding {
        shown.push_str(&format!(", {forwarding}"));
    }
    shown
}

#[cfg(test)]
mod tests {
    use portcullis_policy::{ForwardTarget, Place};
    use portcullis_sip::{Arrival, Framing, Transport};

    use super::*;

    #[test]
    fn what_waits_is_bounded_by_candidate_and_in_bytes() {
        let (jobs, _next) = sync_channel(WAITING);
        let shadow = Shadow {
            jobs,
            waiting: Arc::default(),
        };
        let taken = |comparison: &Comparison, bytes| {
            (0..2 * WAITING)
                .filter(|_| shadow.take_room(comparison, bytes))
                .count()
        };
        let (one, other) = (Comparison::new(1, 2), Comparison::new(1, 2));
        assert_eq!(taken(&one, 1000), WAITING_EACH);
        assert_eq!(
            taken(&other, 1000),
            WAITING_EACH,
            "one leaves room to others"
        );
        (0..WAITING_EACH).for_each(|_| leave_room(&shadow.waiting, &one, 1000));
        assert_eq!(taken(&one, 1000), WAITING_EACH);
        // Large ones, of many candidates.
        let all = (0..100).map(|_| taken(&Comparison::new(1, 2), 200_000));
        let all: usize = all.sum();
        let waiting = shadow.waiting.load(Ordering::Relaxed);
        assert!(
            waiting <= WAITING_BYTES && waiting + 200_000 > WAITING_BYTES,
            "{all}"
        );
    }

    #[test]
    fn differences_show_no_secrets_and_are_short() {
        let text = format!(
            "INVITE sip:b@b SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@a>;tag=1\r\nTo: <sip:b@b>\r\n\
             Call-ID: i\r\nCSeq: 1 INVITE\r\nAuthorization: Digest secret\r\n{}Content-Length: 6\r\n\r\nbodies",
            format!("X-Long: {}\r\n", "x".repeat(4000)).repeat(10)
        );
        let request = request(text);
        let (none, long) = (Edits::default(), "y".repeat(100_000));
        let (active, candidate) = (Ok(Verdict::Drop), Ok(Verdict::Relay(Some(long))));
        let mask = Mask::new(&RecordsConfig::default());
        let found = difference(
            &request,
            (CallResult::Verdict(&active), &none, None),
            (CallResult::Verdict(&candidate), &none, None),
            &mask,
        )
        .unwrap();
        assert!(
            found.request.contains("Authorization: ***\r\n"),
            "{}",
            found.request
        );
        assert!(!found.request.contains("secret") && !found.request.contains("bodies"));
        assert!(found.request.len() <= SAMPLE_BYTES + 16 && found.candidate.len() <= SAMPLE_BYTES);
        assert_eq!(found.active, "drop");
    }

    fn request(text: String) -> Request {
        let arrival = Arrival {
            source: "192.0.2.1:5060".parse().unwrap(),
            local: "192.0.2.9:5060".parse().unwrap(),
            transport: Transport::Udp,
            connection: None,
        };
        Request::read(text.into_bytes(), Framing::Datagram, arrival).unwrap()
    }

    #[test]
    fn other_targets_are_a_difference() {
        let request = request("OPTIONS sip:b@b SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@a>;tag=1\r\n\
            To: <sip:b@b>\r\nCall-ID: i\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n".to_owned());
        let to = |name: &str| Forwarding {
            targets: vec![ForwardTarget {
                place: Place::NextHop(name.into()),
                rank: 0,
                weight: 1,
                request_uri: None,
                headers: Vec::new(),
                no_answer: None,
                ring: None,
            }],
            ..Forwarding::default()
        };
        let (relay, none, mask) = (
            Ok(Verdict::Relay(None)),
            Edits::default(),
            Mask::new(&RecordsConfig::default()),
        );
        let (one, other) = (to("one"), to("other"));
        let compare = |active, candidate| {
            let decided = |forwarding| (CallResult::Verdict(&relay), &none, forwarding);
            difference(&request, decided(active), decided(candidate), &mask)
        };
        assert_eq!(compare(Some(&one), Some(&one)), None);
        let found = compare(Some(&one), Some(&other)).unwrap();
        assert_eq!(
            found.candidate,
            r#"relay, to {"next-hop":"other","rank":0,"weight":1}"#
        );
        assert_eq!(compare(Some(&one), None).unwrap().candidate, "relay");
    }

    #[test]
    fn other_steps_after_a_failure_are_a_difference() {
        let request = request("OPTIONS sip:b@b SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@a>;tag=1\r\n\
            To: <sip:b@b>\r\nCall-ID: i\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n".to_owned());
        let (none, mask) = (Edits::default(), Mask::new(&RecordsConfig::default()));
        let failed = FailedAttempts::default();
        let answer = Ok(NextStep::Answer(Rejection {
            code: 503,
            reason: "All Failed".into(),
            headers: Vec::new(),
        }));
        let (best, loop_) = (
            Ok(NextStep::Best),
            Err(Failure::Timeout {
                deadline: std::time::Duration::ZERO,
                function: None,
            }),
        );
        let compare = |active, candidate| {
            let decided = |step| (CallResult::Step(step, &failed), &none, None);
            difference(&request, decided(active), decided(candidate), &mask)
        };
        for same in [&best, &answer, &loop_] {
            assert_eq!(compare(same, same), None);
        }
        let found = compare(&best, &answer).unwrap();
        assert_eq!(found.active, "after failure: best");
        assert_eq!(found.candidate, "after failure: answer 503 All Failed");
        assert!(
            compare(&loop_, &best)
                .unwrap()
                .active
                .starts_with("after failure: failure: ")
        );
    }
}
