//! What one worker counts. Every worker owns one [`WorkerCounters`] and is the only one that writes it; a scrape reads the
//! counters of all workers and adds them up.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use portcullis_guard::Reason;
use portcullis_policy::{FailureKind, VerdictKind};
use portcullis_sip::{DropReason, RelayErrorKind};
use portcullis_sync::ReadSections;

use super::labels::{
    AttemptResult, FinalClass, HandoverResult, HandshakeResult, IcmpError, InDialog, Label, Lost,
    Method, Retransmission, Shed, Wire,
};

/// A number that one thread writes and any thread may read.
///
/// With a single writer, an addition is a load and a store, without a bus lock or contention.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one. Only the owning worker may call this.
    #[inline]
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `n`. Only the owning worker may call this.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0
            .store(self.value().wrapping_add(n), Ordering::Relaxed);
    }

    /// Replaces the number: for a level, which goes up and down. Only the owning worker may call this.
    #[inline]
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The present value.
    #[inline]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One counter for each value of a label. `N` is the length of `L::ALL`.
#[derive(Debug)]
pub struct Counts<L, const N: usize>([Counter; N], std::marker::PhantomData<fn(L)>);

impl<L: Label, const N: usize> Counts<L, N> {
    const COMPLETE: () = assert!(
        L::ALL.len() == N,
        "N must be the number of values of the label"
    );

    /// Adds one for `label`.
    #[inline]
    pub fn inc(&self, label: L) {
        self.add(label, 1);
    }

    /// Adds `n` for `label`.
    #[inline]
    pub fn add(&self, label: L, n: u64) {
        self.0[label.index()].add(n);
    }

    /// The present value for `label`.
    #[inline]
    pub fn value(&self, label: L) -> u64 {
        self.0[label.index()].value()
    }
}

impl<L: Label, const N: usize> Default for Counts<L, N> {
    fn default() -> Self {
        let () = Self::COMPLETE;
        Self(
            std::array::from_fn(|_| Counter::default()),
            std::marker::PhantomData,
        )
    }
}

/// Counters for each of the names that the configuration gives, one for each value of a label. There are none before [`NamedCounts::begin`].
#[derive(Debug)]
pub struct NamedCounts<L, const N: usize>(OnceLock<Box<[NamedCount<L, N>]>>);

type NamedCount<L, const N: usize> = (Box<str>, Counts<L, N>);

impl<L: Label, const N: usize> NamedCounts<L, N> {
    /// Sets the names. A second call has no effect.
    pub fn begin<'n>(&self, names: impl IntoIterator<Item = &'n str>) {
        self.0.get_or_init(|| {
            let names = names.into_iter();
            let mut all: Vec<NamedCount<L, N>> =
                names.map(|name| (name.into(), Counts::default())).collect();
            all.sort_by(|(one, _), (other, _)| one.cmp(other));
            all.into()
        });
    }

    /// Adds one for a name and a label, if the name is one of those.
    pub fn inc(&self, name: &str, label: L) {
        if let Some(counts) = self.of(name) {
            counts.inc(label);
        }
    }

    /// The present value for a name and a label.
    pub fn value(&self, name: &str, label: L) -> u64 {
        self.of(name).map_or(0, |counts| counts.value(label))
    }

    /// The names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let all = self.0.get().into_iter().flatten();
        all.map(|(name, _)| &**name)
    }

    fn of(&self, name: &str) -> Option<&Counts<L, N>> {
        let all = self.0.get()?;
        let at = all.binary_search_by(|(own, _)| (**own).cmp(name));
        at.ok().map(|at| &all[at].1)
    }
}

impl<L, const N: usize> Default for NamedCounts<L, N> {
    fn default() -> Self {
        Self(OnceLock::new())
    }
}

/// A number for each value of a label, added up over the workers. `N` is the length of `L::ALL`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sums<L, const N: usize>([u64; N], std::marker::PhantomData<fn(L)>);

impl<L: Label, const N: usize> Sums<L, N> {
    fn add(&mut self, counts: &Counts<L, N>) {
        for (sum, counter) in self.0.iter_mut().zip(&counts.0) {
            *sum = sum.wrapping_add(counter.value());
        }
    }

    /// The number for `label`.
    pub fn value(&self, label: L) -> u64 {
        self.0[label.index()]
    }

    /// The number for all labels together.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

impl<L, const N: usize> Default for Sums<L, N> {
    fn default() -> Self {
        Self([0; N], std::marker::PhantomData)
    }
}

/// One counter for each status code, 100 to 699.
#[derive(Debug)]
pub struct CodeCounts([Counter; 600]);

impl CodeCounts {
    /// Adds one for `code`; codes outside 100 to 699 do not exist in SIP and are not counted.
    #[inline]
    pub fn inc(&self, code: u16) {
        if let Some(counter) = usize::from(code)
            .checked_sub(100)
            .and_then(|at| self.0.get(at))
        {
            counter.inc();
        }
    }

    /// The codes that were counted at least once, with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        (100..)
            .zip(&self.0)
            .map(|(code, counter)| (code, counter.value()))
            .filter(|&(_, n)| n > 0)
    }
}

impl Default for CodeCounts {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

/// How long something took: buckets, number and sum.
#[derive(Debug, Default)]
pub struct TimeCounts<S = CallTimes> {
    buckets: [Counter; BUCKETS],
    nanoseconds: Counter,
    scale: std::marker::PhantomData<fn(S)>,
}

/// The buckets of [`TimeCounts`].
pub trait Scale {
    /// The upper bounds of the buckets in microseconds; one more bucket holds what took longer.
    const BOUNDS_US: [u32; BUCKETS - 1];
}

/// The durations of policy calls.
#[derive(Debug, Default)]
pub struct CallTimes;

impl Scale for CallTimes {
    const BOUNDS_US: [u32; BUCKETS - 1] = [1, 2, 3, 5, 10, 20, 50, 100, 500, 1_000, 5_000, 10_000];
}

/// The times until a transaction has a response: a millisecond to a minute.
#[derive(Debug, Default)]
pub struct ResponseTimes;

impl Scale for ResponseTimes {
    const BOUNDS_US: [u32; BUCKETS - 1] = [
        1_000, 5_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 4_000_000, 10_000_000,
        32_000_000, 60_000_000,
    ];
}

/// Number of buckets of each [`Scale`].
pub const BUCKETS: usize = 13;

impl<S: Scale> TimeCounts<S> {
    /// Counts one duration.
    #[inline]
    pub fn record(&self, took: Duration) {
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = S::BOUNDS_US
            .iter()
            .take_while(|&&bound| u64::from(bound) * 1_000 < nanoseconds)
            .count();
        self.buckets[bucket].inc();
        self.nanoseconds.add(nanoseconds);
    }

    /// How many durations fell into each bucket (not accumulated); the last one has no upper bound.
    pub fn buckets(&self) -> [u64; BUCKETS] {
        std::array::from_fn(|at| self.buckets[at].value())
    }

    /// The sum of all durations.
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds.value())
    }
}

/// What happens on one transport.
#[derive(Debug, Default)]
pub struct WireCounters {
    /// Valid requests received, by method.
    pub requests: Counts<Method, { Method::COUNT }>,
    /// Valid responses received.
    pub responses: Counter,
    /// Datagrams or framed messages received, valid or not.
    pub received: Counter,
    /// Bytes of these.
    pub received_bytes: Counter,
    /// Messages sent, relayed or our own.
    pub sent: Counter,
    /// Bytes of these.
    pub sent_bytes: Counter,
    /// Messages that the system failed to send.
    pub send_errors: Counter,
    /// Keep-alives: empty datagrams, CRLF pings on streams.
    pub keepalives: Counter,
}

/// The stream connections of one worker.
#[derive(Debug, Default)]
pub struct ConnectionCounters {
    /// Connections accepted from peers.
    pub accepted: Counter,
    /// Connections opened to next hops.
    pub opened: Counter,
    /// Connections closed, accepted or opened.
    pub closed: Counter,
    /// Connections that could not be opened.
    pub connect_errors: Counter,
    /// Connections evicted for another one.
    pub evicted: Counter,
    /// Connections that could not be accepted because no descriptor was left.
    pub accept_errors: Counter,
}

/// TLS handshakes, by their results.
#[derive(Debug, Default)]
pub struct HandshakeCounters {
    /// Of connections that peers opened.
    pub accepted: Counts<HandshakeResult, { HandshakeResult::COUNT }>,
    /// Of connections to next hops.
    pub opened: Counts<HandshakeResult, { HandshakeResult::COUNT }>,
}

/// The transactions of one worker.
#[derive(Debug, Default)]
pub struct TransactionCounters {
    /// Transactions that began.
    pub begun: Counter,
    /// Transactions that ended, by their final response.
    pub ended: Counts<FinalClass, { FinalClass::COUNT }>,
    /// Transactions in progress: a level.
    pub active: Counter,
    /// Ended transactions that absorb retransmissions: a level.
    pub lingering: Counter,
    /// Bytes of stored messages: a level.
    pub stored_bytes: Counter,
    /// Transactions that their sender or a command cancelled.
    pub cancelled: Counter,
    /// Failures of an INVITE that were never acknowledged.
    pub unconfirmed: Counter,
    /// 2xx responses to an INVITE after its first final response.
    pub late_successes: Counter,
    /// Requests shed because a limit in `[transactions]` was reached.
    pub shed: Counter,
    /// Responses of the host itself within transactions, including 100.
    pub replies: Counter,
    /// Times from requests to their first responses above 100.
    pub first_responses: TimeCounts<ResponseTimes>,
    /// Times from requests to their first final responses.
    pub final_responses: TimeCounts<ResponseTimes>,
    /// Results of targets.
    pub attempts: Counts<AttemptResult, { AttemptResult::COUNT }>,
    /// The same for each named next hop of the configuration.
    pub next_hop_attempts: NamedCounts<AttemptResult, { AttemptResult::COUNT }>,
    /// Addresses of targets that failed and were followed by another address.
    pub failovers: Counter,
    /// Retransmissions.
    pub retransmissions: Counts<Retransmission, { Retransmission::COUNT }>,
    /// Responses without a transaction, which were dropped.
    pub strays: Counter,
    /// Responses without a transaction that were relayed, because the host had just started.
    pub adopted: Counter,
    /// Messages passed on to the process that had the sockets before.
    pub passed: Counter,
    /// Messages for that process that it could not take.
    pub not_passed: Counter,
    /// Responses passed to the host that has their transaction.
    pub answers_to_hosts: Counter,
    /// Requests passed to the host that their branch selects.
    pub requests_to_hosts: Counter,
    /// Messages of other hosts that were too long or could not be sent there.
    pub not_to_hosts: Counter,
    /// Requests with branch, Call-ID and CSeq of another sender's transaction, which were dropped.
    pub conflicts: Counter,
    /// ICMP errors: destination unreachable.
    pub icmp_errors: Counts<IcmpError, { IcmpError::COUNT }>,
    /// Messages for transactions of other workers.
    pub handovers: Counts<HandoverResult, { HandoverResult::COUNT }>,
}

/// Sources that were held or banned by one worker.
#[derive(Debug, Default)]
pub struct GuardCounters {
    /// Held, by reason.
    pub held: Counts<Reason, { Reason::ALL.len() }>,
    /// Banned, by reason.
    pub banned: Counts<Reason, { Reason::ALL.len() }>,
}

/// The counters of one worker. Aligned so that two workers never write to the same cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WorkerCounters {
    /// UDP.
    pub udp: WireCounters,
    /// TCP.
    pub tcp: WireCounters,
    /// TLS.
    pub tls: WireCounters,
    /// WebSocket.
    pub ws: WireCounters,
    /// WebSocket over TLS.
    pub wss: WireCounters,
    /// Stream connections.
    pub connections: ConnectionCounters,
    /// TLS handshakes.
    pub handshakes: HandshakeCounters,
    /// Responses that the host itself generated (rejections, 400, 483, 200 to OPTIONS, …), by status code.
    pub replies: CodeCounts,
    /// Requests relayed.
    pub relayed_requests: Counter,
    /// Responses sent back.
    pub relayed_responses: Counter,
    /// Transactions.
    pub transactions: TransactionCounters,
    /// Verdicts.
    pub verdicts: Counts<VerdictKind, { VerdictKind::ALL.len() }>,
    /// Policy calls without a valid verdict.
    pub policy_failures: Counts<FailureKind, { FailureKind::ALL.len() }>,
    /// Duration of each policy call, with or without a verdict. Their number is the number of calls.
    pub policy_time: TimeCounts,
    /// Messages dropped by the proxy rules.
    pub dropped: Counts<DropReason, { DropReason::ALL.len() }>,
    /// Connections of WebSocket that were refused.
    pub websockets_refused: Counter,
    /// Requests relayed along the flow of a client.
    pub flow_requests: Counter,
    /// Requests that could not be relayed, by cause.
    pub relay_errors: Counts<RelayErrorKind, { RelayErrorKind::ALL.len() }>,
    /// Requests answered 503 because the host was overloaded and their sender did not support overload control (RFC 7339 §5.10.2).
    pub refused_for_load: Counter,
    /// Messages that the transports could not carry.
    pub lost: Counts<Lost, { Lost::COUNT }>,
    /// ACKs to the host's own rejections, which are absorbed (RFC 3261 §17.1.1.3).
    pub absorbed_acks: Counter,
    /// Requests with the seal of a dialog.
    pub in_dialog: Counts<InDialog, { InDialog::COUNT }>,
    /// Policy responses over UDP sent without their header fields because they were too large.
    pub shortened_answers: Counter,
    /// The decisions, which read published state. A grace period waits for those in progress.
    pub decisions: ReadSections,
    /// Sources that were held or banned.
    pub guard: GuardCounters,
    /// How often the periodic tasks were done, once a second: a worker that hangs does none.
    pub chores: Counter,
    /// Number of idle parks.
    pub pauses: Counter,
}

/// The counters of one worker for one tenant. Aligned so that two workers never write to the same cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct TenantCounters {
    /// Requests.
    pub requests: Counter,
    /// Decisions of the policies, or of the configured default after them.
    pub verdicts: Counts<VerdictKind, { VerdictKind::ALL.len() }>,
    /// Requests whose policy failed or was unavailable, and that were answered for that reason.
    pub failed: Counter,
    /// Requests shed, by the limit exceeded.
    pub shed: Counts<Shed, { Shed::COUNT }>,
    /// Verdicts of policies in monitor mode.
    pub monitored: Counts<VerdictKind, { VerdictKind::ALL.len() }>,
    /// Requests that followed their dialog without a policy call.
    pub followed: Counter,
    /// Requests deferred behind those of other tenants because the tenant's policy is slow.
    pub postponed: Counter,
    /// Requests whose destination is not permitted.
    pub refused_relays: Counter,
    /// Failures of all targets after which the policy was not asked, by the limit exceeded.
    pub unasked_failures: Counts<Shed, { Shed::COUNT }>,
    /// Active transactions: a level.
    pub transactions: Counter,
    /// Bytes of their requests, of the copies for targets that are tried at once, and of what the policy said: a level. Less than what is
    /// stored for them: it is compared with that of other tenants.
    pub transaction_bytes: Counter,
}

/// The counters of a tenant, added up over the workers.
///
/// Whoever shows them takes this type apart without `..`: the compiler then reports a new counter that is not shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantCounts {
    /// Sum of [`TenantCounters::requests`].
    pub requests: u64,
    /// Sums of [`TenantCounters::verdicts`].
    pub verdicts: Sums<VerdictKind, { VerdictKind::ALL.len() }>,
    /// Sum of [`TenantCounters::failed`].
    pub failed: u64,
    /// Sums of [`TenantCounters::shed`].
    pub shed: Sums<Shed, { Shed::COUNT }>,
    /// Sums of [`TenantCounters::monitored`].
    pub monitored: Sums<VerdictKind, { VerdictKind::ALL.len() }>,
    /// Sum of [`TenantCounters::followed`].
    pub followed: u64,
    /// Sum of [`TenantCounters::postponed`].
    pub postponed: u64,
    /// Sum of [`TenantCounters::refused_relays`].
    pub refused_relays: u64,
    /// Sums of [`TenantCounters::unasked_failures`].
    pub unasked_failures: Sums<Shed, { Shed::COUNT }>,
    /// Sum of [`TenantCounters::transactions`].
    pub transactions: u64,
}

impl TenantCounts {
    /// Adds up the counters of all workers.
    pub fn of(workers: &[TenantCounters]) -> Self {
        let mut sums = Self::default();
        for worker in workers {
            let TenantCounters {
                requests,
                verdicts,
                failed,
                shed,
                monitored,
                followed,
                postponed,
                refused_relays,
                unasked_failures,
                transactions,
                // Only the worker compares it.
                transaction_bytes: _,
            } = worker;
            for (sum, counter) in [
                (&mut sums.requests, requests),
                (&mut sums.failed, failed),
                (&mut sums.followed, followed),
                (&mut sums.postponed, postponed),
                (&mut sums.refused_relays, refused_relays),
                (&mut sums.transactions, transactions),
            ] {
                *sum = sum.wrapping_add(counter.value());
            }
            sums.verdicts.add(verdicts);
            sums.shed.add(shed);
            sums.monitored.add(monitored);
            sums.unasked_failures.add(unasked_failures);
        }
        sums
    }
}

impl WorkerCounters {
    /// Responses received over all transports.
    pub fn received_responses(&self) -> u64 {
        let wires = Wire::ALL.iter();
        wires.map(|&wire| self.wire(wire).responses.value()).sum()
    }

    /// The counters of one transport.
    #[inline]
    pub fn wire(&self, wire: Wire) -> &WireCounters {
        match wire {
            Wire::Udp => &self.udp,
            Wire::Tcp => &self.tcp,
            Wire::Tls => &self.tls,
            Wire::Ws => &self.ws,
            Wire::Wss => &self.wss,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_outside_sip_are_not_counted() {
        let codes = CodeCounts::default();
        for code in [0, 99, 100, 401, 401, 699, 700, u16::MAX] {
            codes.inc(code);
        }
        assert_eq!(
            codes.iter().collect::<Vec<_>>(),
            [(100, 1), (401, 2), (699, 1)]
        );
    }

    #[test]
    fn names_have_counters_of_their_own() {
        let counts = NamedCounts::<Shed, { Shed::COUNT }>::default();
        let [one, other] = [Shed::ALL[0], Shed::ALL[1]];
        counts.inc("b", one);
        assert_eq!(counts.names().count(), 0);
        counts.begin(["b", "a"]);
        counts.begin(["c"]);
        counts.inc("b", one);
        counts.inc("b", one);
        counts.inc("c", one);
        assert_eq!(counts.names().collect::<Vec<_>>(), ["a", "b"]);
        let values = ["a", "b", "c"].map(|name| counts.value(name, one));
        assert_eq!((values, counts.value("b", other)), ([0, 2, 0], 0));
    }

    #[test]
    fn the_counters_of_all_workers_are_added_up() {
        let workers: [TenantCounters; 2] = Default::default();
        for (n, worker) in (1..).zip(&workers) {
            worker.requests.add(n);
            worker.verdicts.add(VerdictKind::Relay, 10 * n);
            worker.failed.add(20 * n);
            worker.shed.add(Shed::ALL[0], 30 * n);
            worker.shed.add(Shed::ALL[1], 40 * n);
            worker.monitored.add(VerdictKind::Drop, 50 * n);
            worker.followed.add(60 * n);
            worker.postponed.add(70 * n);
            worker.refused_relays.add(80 * n);
        }
        let sums = TenantCounts::of(&workers);
        assert_eq!((sums.requests, sums.failed), (3, 60));
        assert_eq!(sums.verdicts.value(VerdictKind::Relay), 30);
        assert_eq!(sums.verdicts.total(), 30);
        assert_eq!(sums.shed.value(Shed::ALL[1]), 120);
        assert_eq!(sums.shed.total(), 210);
        assert_eq!(sums.monitored.value(VerdictKind::Drop), 150);
        assert_eq!(
            [sums.followed, sums.postponed, sums.refused_relays],
            [180, 210, 240]
        );
    }

    #[test]
    fn durations_fall_into_the_bucket_whose_bound_they_do_not_exceed() {
        let times = TimeCounts::<CallTimes>::default();
        for us in [0, 1, 2, 4, 10_000, 10_001] {
            times.record(Duration::from_micros(us));
        }
        let buckets = times.buckets();
        assert_eq!(buckets[0], 2);
        assert_eq!(buckets[1], 1);
        assert_eq!(buckets[3], 1);
        assert_eq!(buckets[11], 1);
        assert_eq!(buckets[12], 1);
        assert_eq!(times.sum(), Duration::from_micros(20_008));
    }
}
