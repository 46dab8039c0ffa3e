//! The responses of the host itself, and their limits: whoever forges a source address must not be able to make this host send it much more
//! than the host received, or flood it.

mod answers;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use portcullis_metrics::{Label, Lost, Shed, WorkerCounters};
use portcullis_policy::Rejection;
use portcullis_sip::{
    Arrival, Destination, Framing, HeaderName, Index, Limits, Message, Received, Transport, scan,
};

use tracing::debug;

use super::fate::{Fate, Rejected, code_of};
use super::judge::{Judged, answer_without_room};
use super::reporter::Reporter;
use super::strangers::Strangers;
use crate::notices::{Example, Trouble};
use crate::shared::Shared;
pub(crate) use answers::Answers;

/// Sends the responses of one worker.
pub(super) struct Responder {
    shared: Arc<Shared>,
    number: usize,
    reporter: Reporter,
    /// What each source has got.
    answers: Answers,
    /// The same for STUN.
    stun: Answers,
    strangers: Strangers,
}

/// Why a request gets no transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// The table is full.
    Table,
    /// The tenant holds as much as is free, or more.
    Part,
}

/// Bytes by which a response over UDP may exceed its request.
const MOST_MORE: usize = 1024;

/// The same for a source of which the operator has a row in the address table.
const MOST_MORE_TO_KNOWN: usize = 8 * 1024;

/// Seconds after which the senders of shed requests should try again: a different time for each, so that they do not come back together.
const RETRY_AFTER: [&str; 9] = ["2", "3", "4", "5", "6", "7", "8", "9", "10"];

/// The cause of the answer to a shed request.
const SHED: &str = "transactions_full";

/// Reason phrase when the next hop refuses connections.
const UNREACHABLE: &str = "Next Hop Unreachable";

/// Most answers to STUN per second, and at once, for each source. A client asks every 24 s or less often (RFC 5626 §4.4.2).
const STUN_PER_SECOND: u32 = 10;

/// No further header fields in a response.
pub(super) const NO_HEADERS: &[(&str, &str)] = &[];

impl Responder {
    /// The responder of the worker with this number.
    pub(super) fn new(shared: Arc<Shared>, number: usize, reporter: Reporter) -> Self {
        let sip = &shared.config.sip;
        Self {
            answers: Answers::new(sip.answers_per_second, sip.answers_burst, Instant::now()),
            stun: Answers::new(STUN_PER_SECOND, STUN_PER_SECOND, Instant::now()),
            strangers: Strangers::new(Arc::clone(&shared), number, reporter.clone()),
            number,
            reporter,
            shared,
        }
    }

    /// What strangers do.
    pub(super) fn strangers(&self) -> &Strangers {
        &self.strangers
    }

    /// Writes a rejection with these header fields, if a response is permitted, and without them if it would be too large.
    pub(super) fn reject<H: AsRef<str>>(
        &self,
        rejected: Rejected<'_>,
        headers: &[(H, H)],
        judged: Judged<'_>,
        out: &mut Vec<u8>,
    ) -> Option<Destination> {
        let Judged {
            judgement,
            message,
            arrival,
        } = judged;
        let Rejected { code, reason, .. } = rejected;
        self.strangers.rejected(code, headers, message, arrival);
        let proxy = &self.shared.proxy;
        let destination = proxy.reject(message, arrival, code, reason, headers, out);
        let kept_back = match destination {
            None => Some(Lost::Unanswerable),
            Some(_) if !self.may_answer(arrival, || judgement.at) => Some(Lost::AnswerLimit),
            Some(_) => None,
        };
        if let Some(lost) = kept_back {
            self.keep_back(lost, call_id_of(message), arrival.source);
            if self.reporter.is_watched() {
                let fate = Fate::dropped(lost.label());
                self.reporter
                    .report(message, arrival, Some(judgement), fate);
            }
            return None;
        }
        if self.is_too_large(out.len(), message.bytes().len(), arrival) {
            debug!(
                event = "answer_shortened",
                source = %arrival.source,
                code,
                bytes = out.len(),
                "policy's answer too large for a source over UDP, sent without the policy's header fields"
            );
            self.counters().shortened_answers.inc();
            proxy.reject(message, arrival, code, reason, NO_HEADERS, out)?;
        }
        self.counters().replies.inc(code);
        if self.reporter.is_watched() {
            let fate = Fate::Rejected(rejected);
            self.reporter
                .report(message, arrival, Some(judgement), fate);
        }
        destination
    }

    /// Answers a request that must not be relayed to any target (RFC 5393 §5.3.3.1).
    #[cold]
    pub(super) fn refuse_breadth(
        &self,
        judged: Judged<'_>,
        out: &mut Vec<u8>,
    ) -> Option<Destination> {
        let rejected = Rejected {
            code: 440,
            reason: "Max-Breadth Exceeded",
            cause: "max_breadth",
            detail: None,
        };
        self.reject(rejected, NO_HEADERS, judged, out)
    }

    /// Answers a request that gets no transaction: as the tenant's policy says if its tenant holds its part of the table, or with a 503 if the
    /// table is full (RFC 3261 §21.5.4).
    #[cold]
    pub(super) fn shed(
        &self,
        no_room: NoRoom,
        judged: Judged<'_>,
        out: &mut Vec<u8>,
    ) -> Option<Destination> {
        let Judged {
            message, arrival, ..
        } = judged;
        let tenants = self.shared.tenants.load();
        let tenant = judged.judgement.tenant.as_ref().unwrap_or(&tenants.default);
        self.counters().transactions.shed.inc();
        tenant.counters[self.number].shed.inc(Shed::Transactions);
        let example = || {
            let text = format!("a new request of tenant {}", tenant.name);
            Example::new(call_id_of(message), Some(arrival.source), text)
        };
        self.reporter.note(Trouble::TransactionsFull, 1, example);
        match no_room {
            NoRoom::Table => {
                let rejected = Rejected {
                    code: 503,
                    reason: "Too Many Transactions",
                    cause: SHED,
                    detail: None,
                };
                // RFC 7339 says how long, and keeps the requests of dialogs coming; its §5.10.2 has no Retry-After for other clients either.
                if self.shared.config.sip.overload_control.is_some() {
                    return self.reject(rejected, NO_HEADERS, judged, out);
                }
                let sum: usize = call_id_of(message).iter().copied().map(usize::from).sum();
                let headers = [("Retry-After", RETRY_AFTER[sum % RETRY_AFTER.len()])];
                self.reject(rejected, &headers, judged, out)
            }
            // Retry-After would keep a sender from sending the requests of other tenants.
            NoRoom::Part => {
                let answer = answer_without_room(tenant);
                let rejected = Rejected::of_answer(&answer, SHED);
                self.reject(rejected, NO_HEADERS, judged, out)
            }
        }
    }

    /// The response to the sender of a request that could not be delivered (RFC 3261 §16.9): a 503 as if the next hop had sent it, or
    /// a 430 along the flow of a client (RFC 5626 §5.3.1). It is routed back by the Vias, so no state is needed. `bytes` is the request as it was relayed to `to`.
    pub(super) fn undeliverable(
        &self,
        bytes: &[u8],
        to: &Destination,
        out: &mut Vec<u8>,
    ) -> Option<Destination> {
        let next_hop = Arrival {
            source: to.addr,
            local: to.from?,
            transport: to.transport,
            connection: None,
        };
        let proxy = &self.shared.proxy;
        let mut index = Index::default();
        scan(bytes, Framing::Stream, &Limits::NONE, &mut index).ok()?;
        let request = Message::new(bytes, &index);
        let mut reply = Vec::new();
        let (code, reason) = match to.is_flow {
            true => (430, ""),
            false => (503, UNREACHABLE),
        };
        proxy.reject(request, &next_hop, code, reason, NO_HEADERS, &mut reply)?;
        let scanned = scan(&reply, Framing::Stream, &Limits::NONE, &mut index);
        let reply = Message::new(&reply, &index);
        let Received::Forward(destination) = proxy.receive(reply, scanned, &next_hop, out) else {
            return None;
        };
        self.counters().replies.inc(code);
        Some(destination)
    }

    /// Whether the response that the first look has written may be sent. Counts it.
    pub(super) fn admits(&self, reply: &[u8], message: Message<'_>, arrival: &Arrival) -> bool {
        if !self.may_answer(arrival, Instant::now) {
            self.keep_back(Lost::AnswerLimit, call_id_of(message), arrival.source);
            return false;
        }
        self.counters().replies.inc(code_of(reply));
        true
    }

    /// Whether a STUN request from this source may be answered now.
    pub(super) fn admits_stun(&self, source: IpAddr) -> bool {
        self.stun.take(source, Instant::now())
    }

    /// Whether anything may be kept back.
    pub(super) fn is_limited(&self) -> bool {
        let unasked = &self.shared.config.sip.unasked;
        self.answers.is_limited() || unasked.bytes > 0 || unasked.datagrams > 0
    }

    /// Whether a final response may be sent to this address once more although nobody has asked for it.
    pub(super) fn may_repeat(&self, transport: Transport, to: SocketAddr) -> bool {
        if transport.is_reliable() || !self.must_prove(to.ip()) {
            return true;
        }
        let (unproved, now) = (&self.shared.unproved, Instant::now());
        unproved.may_repeat(to.ip(), now) || self.trusts(to.ip(), now)
    }

    /// Notes a datagram from this address.
    #[inline]
    pub(super) fn received(&self, source: IpAddr, bytes: usize) {
        if self.must_prove(source) {
            let unproved = &self.shared.unproved;
            unproved.received(source, bytes, Instant::now());
        }
    }

    /// Whether this datagram may be sent: everything but a request counts in the account of an address that has not proved itself. What the host
    /// sends over UDP passes here, whatever has written it. For requests see [`Responder::may_request`].
    #[inline]
    pub(super) fn pays_for(&self, datagram: &[u8], to: SocketAddr) -> bool {
        is_request(datagram) || self.has_paid(to.ip(), datagram.len())
    }

    /// Whether a request of this size may be sent to the caller of its dialog, or to a client to keep its flow open. It counts in the same account: whoever has
    /// forged the address of the caller and has the callee at its hand could make the host send requests there, each of them ten times, and whoever registers
    /// with forged addresses three pings to each port.
    pub(super) fn may_request(&self, transport: Transport, to: SocketAddr, bytes: usize) -> bool {
        transport.is_reliable() || self.has_paid(to.ip(), bytes)
    }

    /// Whether so many bytes may be sent to this address, unless it needs no proof; if so, they count.
    #[inline]
    fn has_paid(&self, to: IpAddr, bytes: usize) -> bool {
        if !self.must_prove(to) {
            return true;
        }
        let (unproved, now) = (&self.shared.unproved, Instant::now());
        unproved.may_send(to, bytes, now) || self.trusts(to, now)
    }

    /// Notes that this address has proved itself: it has received something from this host.
    pub(super) fn proved(&self, source: IpAddr) {
        if self.must_prove(source) {
            self.shared.unproved.prove(source, Instant::now());
        }
    }

    /// Notes a request over UDP with the seal of a dialog that its source has begun.
    pub(super) fn knows_dialog(&self, source: IpAddr) {
        if self.must_prove(source) {
            self.shared.unproved.knows_dialog(source, Instant::now());
        }
    }

    /// Whether what is sent to this address is limited until the address has proved itself, unless the operator knows it.
    #[inline]
    fn must_prove(&self, ip: IpAddr) -> bool {
        !self.shared.config.guard.is_exempt(ip)
    }

    /// Whether the operator knows this address. Then it needs no proof for a while.
    #[cold]
    fn trusts(&self, ip: IpAddr, now: Instant) -> bool {
        let is_trusted = self.knows_address(ip)
            || self.shared.addresses.current().trusted.table.has_source(ip)
            || self.shared.routes.load().has_address(ip)
            || self.is_tenants_hop(ip, now);
        if is_trusted {
            self.shared.unproved.trust_briefly(ip, now);
        }
        is_trusted
    }

    /// Whether this address is a next hop of a tenant. There may be many tenants, so that the guard limits the checks: false if the last one was too
    /// short a time ago, and without the guard.
    fn is_tenants_hop(&self, ip: IpAddr, now: Instant) -> bool {
        if self.shared.tenants.load().named.is_empty() {
            return false;
        }
        let may_check = (self.shared.guard.as_ref()).is_some_and(|guard| guard.take_check(ip, now));
        may_check && self.shared.is_known_to_tenants(ip)
    }

    /// Whether a response may be sent to this address: see `answers-per-second` in `[sip]`. `now` is called only if there is a limit.
    pub(super) fn may_send(
        &self,
        transport: Transport,
        to: SocketAddr,
        now: impl FnOnce() -> Instant,
    ) -> bool {
        if transport.is_reliable()
            || !self.answers.is_limited()
            || self.answers.take(to.ip(), now())
        {
            return true;
        }
        if self.knows_address(to.ip()) {
            // The next lookup is due when the source has used up its limit again.
            self.answers.forget(to.ip());
            return true;
        }
        false
    }

    /// The same for a response to the source of a request.
    fn may_answer(&self, arrival: &Arrival, now: impl FnOnce() -> Instant) -> bool {
        self.may_send(arrival.transport, arrival.source, now)
    }

    /// Notes an ACK to a response of the host. If its source has received the response, that does not count in the limit.
    pub(super) fn acknowledged(&self, ack: Message<'_>, arrival: &Arrival) {
        if !self.shared.proxy.proves_receipt(ack, arrival) {
            return;
        }
        let source = arrival.source;
        self.strangers.acknowledged(source);
        self.answers.give_back(source.ip());
        if !arrival.transport.is_reliable() {
            self.proved(source.ip());
        }
    }

    /// Counts a response to this address that is not sent.
    pub(super) fn keep_back(&self, lost: Lost, call_id: &[u8], to: SocketAddr) {
        self.counters().lost.inc(lost);
        if let Some(trouble) = Trouble::of_loss(lost) {
            let example = || {
                let what = format!("an answer over UDP to {}", to.ip());
                Example::new(call_id, Some(to), what)
            };
            self.reporter.note(trouble, 1, example);
        }
    }

    /// Counts a request to the caller of its dialog that is not sent.
    pub(super) fn keep_back_request(&self, call_id: &[u8], to: SocketAddr) {
        self.counters().lost.inc(Lost::AnswerLimit);
        let example = || {
            let what = format!("a request within a dialog over UDP to {}", to.ip());
            Example::new(call_id, Some(to), what)
        };
        if let Some(trouble) = Trouble::of_loss(Lost::AnswerLimit) {
            self.reporter.note(trouble, 1, example);
        }
    }

    /// Whether the response of a policy is too large for the source of its request.
    pub(super) fn is_rejection_too_large(
        &self,
        rejection: &Rejection,
        message: Message<'_>,
        arrival: &Arrival,
    ) -> bool {
        let Rejection {
            code,
            reason,
            headers,
        } = rejection;
        let mut out = Vec::new();
        let proxy = &self.shared.proxy;
        let _to = proxy.reject(message, arrival, *code, reason, headers, &mut out);
        self.is_too_large(out.len(), message.bytes().len(), arrival)
    }

    /// Whether a response of this size is too large for a request of that size. Over a stream, the sender has proved its address. A source
    /// that the operator knows may get more, but not without limit: its address may be forged, and a tenant's policy may have written the
    /// response.
    fn is_too_large(&self, answer: usize, request: usize, arrival: &Arrival) -> bool {
        let more = answer.saturating_sub(request);
        !arrival.transport.is_reliable()
            && more > MOST_MORE
            && (more > MOST_MORE_TO_KNOWN || !self.knows(arrival.source))
    }

    /// Whether the operator has a row for the source in the table. A tenant's rows do not count: they could name the victim of a flood.
    fn knows(&self, source: SocketAddr) -> bool {
        self.has_row(source.ip(), |port| port == 0 || port == source.port())
    }

    /// The same, whatever the port of the row. A response may go to another port than its request came from.
    pub(super) fn knows_address(&self, ip: IpAddr) -> bool {
        self.has_row(ip, |_port| true)
    }

    fn has_row(&self, ip: IpAddr, is_port: impl Fn(u16) -> bool) -> bool {
        let addresses = self.shared.addresses.current();
        let tenants = self.shared.tenants.load();
        let mut entries = addresses.table.lookup(ip).iter();
        entries.any(|entry| is_port(entry.port) && tenants.is_operators(entry.group))
    }

    fn counters(&self) -> &WorkerCounters {
        &self.shared.counters[self.number]
    }
}

/// Whether a datagram that is to be sent is a request: neither a response nor STUN.
fn is_request(datagram: &[u8]) -> bool {
    // The scanner accepts the version in any case, and a response is relayed as it is written.
    let begins_response =
        (datagram.get(..4)).is_some_and(|start| start.eq_ignore_ascii_case(b"SIP/"));
    !begins_response && datagram.first().is_some_and(|first| *first > 1)
}

/// The value of Call-ID; empty without one.
pub(super) fn call_id_of(message: Message<'_>) -> &[u8] {
    let field = message.header(HeaderName::CallId);
    field.map_or(&b""[..], |field| field.value)
}
