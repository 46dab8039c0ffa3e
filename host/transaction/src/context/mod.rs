//! The response context of a proxy (RFC 3261 §16): one server transaction and the client transactions of its targets.

mod answer;
mod targets;
mod upstream;

use std::time;

use portcullis_sip::{
    Arrival, DEFAULT_BREADTH, Destination, HeaderName, Message, RequestName, StartLine,
};

use crate::absorber::{Absorbers, Duration, Kind, Peer};
use crate::best::Best;
use crate::branch::{Branch, Reaction, Why};
use crate::config::Trying;
use crate::event::{Cause, End, Event, Failure};
use crate::machine::{OnAck, ServerInvite, ServerNonInvite};
use crate::outbox::What;
use crate::plan::{Plan, PlanError, StatusSet, Step};
use crate::server::{Rest, Server};
use crate::slab::Id;
use crate::time::Time;
use crate::timers::Timers;
use crate::tools::{Tools, stored};
use targets::Targets;
use upstream::Upstream;

/// An active transaction.
#[derive(Debug)]
pub(crate) struct Context<T> {
    id: Id,
    pub(crate) peer: Peer,
    upstream: Upstream,
    targets: Targets<T>,
    began: Time,
    /// The request as received; shortened when no further target can follow.
    request: Vec<u8>,
    is_short: bool,
    phase: Phase,
    retry_on: StatusSet,
    /// How often the next step may still be asked for.
    asks_left: u8,
    best: Best,
    /// No target is started any more: an answer of the kind that ends the search came, the sender cancelled, or the time is over.
    is_closed: bool,
    is_cancelled: bool,
    /// The value of Reason in CANCELs; empty for none.
    reason: Vec<u8>,
    is_unconfirmed: bool,
    /// When the search ends in any case.
    limit: Time,
    late_successes: u8,
    /// Bytes that the caller holds for it ([`Transactions::charge`](crate::Transactions::charge)).
    pub(crate) charged: usize,
}

/// What a transaction waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The first decision.
    Deciding,
    /// Its targets.
    Running,
    /// The next step after all targets have failed.
    Asking,
    /// The time at which the sender of a request other than INVITE gives up: it gets no answer (RFC 4320 §4.2).
    Silent,
    /// Nothing: it has its answer.
    Answered,
}

impl<T: Clone> Context<T> {
    /// A new transaction. `branches` is an empty list, of which only the memory is used.
    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of a request, and where to store them"
    )]
    pub(crate) fn new(
        now: Time,
        id: Id,
        name: RequestName,
        message: Message<'_>,
        arrival: Arrival,
        back: Destination,
        branches: Vec<Branch<T>>,
        tools: &mut Tools<T>,
    ) -> Self {
        let config = &tools.config;
        let is_invite = is_invite(message);
        let (server, limit) = if is_invite {
            let machine = ServerInvite::start(now, config.trying.delay());
            let server = Server::invite(machine, arrival.transport);
            (server, config.setup_limit)
        } else {
            let machine = ServerNonInvite::start(now, &config.timers);
            let server = Server::non_invite(machine, arrival.transport);
            (server, config.timers.timeout())
        };
        Self {
            id,
            peer: Peer::new(name, message, arrival.source),
            upstream: Upstream::new(id, arrival, back, server),
            targets: Targets::new(id, branches, max_breadth(message)),
            began: now,
            request: tools.buffers.copy(message.bytes()),
            is_short: false,
            phase: Phase::Deciding,
            retry_on: StatusSet::EMPTY,
            asks_left: 0,
            best: Best::new(is_invite),
            is_closed: false,
            is_cancelled: false,
            reason: Vec::new(),
            is_unconfirmed: false,
            limit: now + limit,
            late_successes: 0,
            charged: 0,
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    pub(crate) fn arrival(&self) -> &Arrival {
        &self.upstream.arrival
    }

    pub(crate) fn request(&self) -> &[u8] {
        &self.request
    }

    pub(crate) fn branches(&self) -> &[Branch<T>] {
        self.targets.branches()
    }

    pub(crate) fn is_invite(&self) -> bool {
        self.upstream.is_invite()
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.is_cancelled
    }

    /// The final code that was sent.
    pub(crate) fn code(&self) -> Option<u16> {
        self.upstream.code
    }

    /// When the search ends in any case.
    pub(crate) fn limit(&self) -> Time {
        self.limit
    }

    /// Number of targets whose turn came.
    pub(crate) fn targets_tried(&self) -> usize {
        self.targets.tried()
    }

    /// Number of targets that are not done yet.
    pub(crate) fn targets_live(&self) -> usize {
        let live = self.branches().iter().filter(|branch| branch.is_live());
        live.count()
    }

    pub(crate) fn best(&self) -> &Best {
        &self.best
    }

    /// The first decision: these targets.
    pub(crate) fn plan(
        &mut self,
        now: Time,
        plan: Plan<T>,
        tools: &mut Tools<T>,
    ) -> Result<(), PlanError> {
        if self.phase != Phase::Deciding {
            return Err(PlanError::TooLate);
        }
        self.targets.add(plan.targets)?;
        self.retry_on = plan.retry_on;
        self.asks_left = plan.asks.min(tools.config.asks);
        self.targets.parallel = plan.parallel.min(tools.config.parallel).max(1);
        if self.upstream.is_invite() {
            self.limit = self.limit.min(self.began + plan.setup_limit);
        }
        if !self.targets.are_allowed() {
            // RFC 5393 §5.3.3: the request must not be sent on.
            self.targets.clear();
            self.answer::<&str>(now, 440, "", &[], tools);
            return Ok(());
        }
        if tools.config.trying == Trying::Now && self.upstream.awaits_trying() {
            self.upstream.send_trying(now, &self.request, tools);
        }
        self.phase = Phase::Running;
        self.targets.begin_turn();
        self.advance(now, tools);
        Ok(())
    }

    /// The step after all targets have failed.
    pub(crate) fn step(
        &mut self,
        now: Time,
        step: Step<T>,
        tools: &mut Tools<T>,
    ) -> Result<(), PlanError> {
        if self.phase != Phase::Asking {
            return Err(PlanError::TooLate);
        }
        match step {
            Step::Best => self.finish(now, tools),
            Step::Again { targets, retry_on } => {
                self.targets.add(targets)?;
                self.retry_on = retry_on.unwrap_or(self.retry_on);
                self.phase = Phase::Running;
                self.best.set_aside(&mut tools.buffers);
                self.targets.begin_turn();
                self.advance(now, tools);
            }
        }
        Ok(())
    }

    /// Does what is next: waits for targets, starts those whose turn it is, asks, or answers.
    fn advance(&mut self, now: Time, tools: &mut Tools<T>) {
        while self.phase == Phase::Running {
            if !self.is_closed {
                self.targets.start_turn(now, tools);
            }
            if self.targets.are_pending() {
                return;
            }
            if !self.is_closed && self.may_retry() && self.targets.next_turn() {
                self.best.set_aside(&mut tools.buffers);
            } else if !self.is_closed && self.asks_left > 0 {
                self.asks_left -= 1;
                self.phase = Phase::Asking;
                tools.events.push_back(Event::Ask { id: self.id });
            } else {
                self.finish(now, tools);
            }
        }
    }

    fn may_retry(&self) -> bool {
        let chosen = self.best.chosen();
        chosen.is_none_or(|chosen| self.retry_on.has(chosen.code))
    }

    /// Records that a target ended without an answer.
    fn end_locally(
        &mut self,
        now: Time,
        number: u8,
        code: u16,
        cause: Cause,
        tools: &mut Tools<T>,
    ) {
        self.best.offer_local(code, &mut tools.buffers);
        self.targets.end(now, number, code, cause, tools);
    }

    /// The request for a target was written.
    pub(crate) fn forward(
        &mut self,
        now: Time,
        number: u8,
        request: &[u8],
        to: Destination,
        followed: Option<time::Duration>,
        tools: &mut Tools<T>,
    ) -> bool {
        let is_invite = self.upstream.is_invite();
        let followed = followed.filter(|_| self.targets.may_have_next_address(number));
        let branch = self.targets.branch(number);
        branch.is_some_and(|branch| branch.forward(now, request, to, is_invite, followed, tools))
    }

    /// Whether the target of this branch goes to its next address if the branch fails now.
    fn may_fail_over(&mut self, number: u8) -> bool {
        let may_continue = self.phase == Phase::Running && !self.is_closed;
        let branch = self.targets.branch(number);
        may_continue && branch.is_some_and(|branch| branch.may_be_followed())
    }

    /// The request for a target could not be written or sent.
    pub(crate) fn fail(&mut self, now: Time, number: u8, failure: Failure, tools: &mut Tools<T>) {
        let may_fail_over = self.may_fail_over(number);
        let Some(branch) = self.targets.branch(number) else {
            return;
        };
        let is_along_flow = branch.is_along_flow();
        if branch.fail() {
            let (code, cause) = failure.result(is_along_flow);
            if may_fail_over {
                return self.targets.next_address(now, number, code, cause, tools);
            }
            self.end_locally(now, number, code, cause, tools);
            self.advance(now, tools);
        }
    }

    /// A retransmission of the request came.
    pub(crate) fn retransmission(&self, tools: &mut Tools<T>) {
        self.upstream.retransmission(tools);
    }

    /// An ACK came.
    pub(crate) fn ack(&mut self, now: Time, tools: &Tools<T>) -> OnAck {
        self.upstream.ack(now, tools)
    }

    /// The sender cancels (RFC 3261 §9.2, §16.10). `reason` is the value of Reason in the CANCEL; empty for none.
    pub(crate) fn cancel(&mut self, now: Time, reason: &[u8], tools: &mut Tools<T>) {
        if !self.upstream.is_invite() || self.phase == Phase::Answered || self.is_cancelled {
            return;
        }
        self.is_cancelled = true;
        self.close(now, reason, tools);
        match self.phase {
            Phase::Deciding | Phase::Asking => self.answer::<&str>(now, 487, "", &[], tools),
            Phase::Running | Phase::Silent | Phase::Answered => self.advance(now, tools),
        }
    }

    /// A response to the request of a target came.
    pub(crate) fn receive(
        &mut self,
        now: Time,
        number: u8,
        message: Message<'_>,
        tools: &mut Tools<T>,
    ) {
        let may_fail_over = self.may_fail_over(number);
        let Some(branch) = self.targets.branch(number) else {
            return;
        };
        let is_pending = branch.is_pending();
        match branch.receive(now, message, &self.reason, tools) {
            Reaction::Nothing => {}
            Reaction::Provisional(code) => self.provisional(now, code, is_pending, message, tools),
            Reaction::Success(code) => self.success(now, number, code, message, tools),
            Reaction::Failure(503) if may_fail_over => {
                // It counts if no other address answers.
                self.best.offer(503, message, &mut tools.buffers);
                let cause = Cause::Answered;
                self.targets.next_address(now, number, 503, cause, tools);
            }
            Reaction::Failure(code) => {
                self.failure(now, number, code, is_pending, message, tools);
            }
            Reaction::RangOut if is_pending => {
                self.end_locally(now, number, 408, Cause::RangOut, tools);
                self.advance(now, tools);
            }
            // The branch has its result already; its ACK was sent.
            Reaction::RangOut => {}
        }
    }

    fn provisional(
        &mut self,
        now: Time,
        code: u16,
        is_pending: bool,
        message: Message<'_>,
        tools: &mut Tools<T>,
    ) {
        if !self.upstream.is_invite() {
            return;
        }
        self.shorten(tools);
        // A 100 is for one hop only (RFC 3261 §16.7(3)).
        if code > 100 && is_pending && self.phase == Phase::Running {
            self.pass_up(now, What::Response, code, message, tools);
        }
    }

    /// A failure came. It counts after the time of its target, too, as long as no final response was sent (RFC 3261 §16.7(6)); a 487 then only
    /// says that our CANCEL arrived.
    fn failure(
        &mut self,
        now: Time,
        number: u8,
        code: u16,
        is_pending: bool,
        message: Message<'_>,
        tools: &mut Tools<T>,
    ) {
        if !is_pending && (self.phase == Phase::Answered || code == 487) {
            return;
        }
        self.best.offer(code, message, &mut tools.buffers);
        if is_pending {
            self.targets.end(now, number, code, Cause::Answered, tools);
        }
        if code >= 600 {
            self.close(now, &reason_of(code), tools);
            if !self.upstream.is_invite() {
                // What other targets answer cannot be hurried by a CANCEL, and a 2xx is better (RFC 3261 §16.7(5)).
                self.limit = self.limit.min(now + tools.config.timers.t2);
            }
        }
        match self.phase {
            // All targets have ended.
            Phase::Silent => self.finish(now, tools),
            // No next step can follow a 6xx.
            Phase::Asking if self.is_closed => self.finish(now, tools),
            Phase::Deciding | Phase::Running | Phase::Asking | Phase::Answered => {
                self.advance(now, tools);
            }
        }
    }

    fn success(
        &mut self,
        now: Time,
        number: u8,
        code: u16,
        message: Message<'_>,
        tools: &mut Tools<T>,
    ) {
        let is_first = self.upstream.code.is_none();
        // A retransmission of a 2xx comes from the same branch.
        let had_success = self.targets.has_succeeded(number);
        let what = match had_success {
            false => What::Response,
            true => What::ResponseUnasked,
        };
        // Every 2xx to an INVITE has a dialog of its own (RFC 3261 §16.7(5)); of other requests, the first final response is the only one.
        if self.upstream.is_invite() || is_first {
            self.pass_up(now, what, code, message, tools);
        }
        if !is_first && !had_success {
            self.late_successes = self.late_successes.saturating_add(1);
        }
        self.targets.end(now, number, code, Cause::Answered, tools);
        self.phase = Phase::Answered;
        self.close(
            now,
            b"SIP;cause=200;text=\"Call completed elsewhere\"",
            tools,
        );
    }

    /// Starts no further target, and cancels the others.
    fn close(&mut self, now: Time, reason: &[u8], tools: &mut Tools<T>) {
        self.is_closed = true;
        if !reason.is_empty() {
            tools.buffers.replace(&mut self.reason, reason);
        }
        self.targets.cancel(now, Why::Unneeded, reason, tools);
    }

    /// Shortens the stored request, once it need not be written for a further target.
    fn shorten(&mut self, tools: &mut Tools<T>) {
        // The answer to the last question may still bring targets.
        let may_follow = self.asks_left > 0
            || self.phase == Phase::Asking
            || self.branches().iter().any(Branch::is_unwritten)
            || self.branches().iter().any(Branch::may_be_followed);
        if self.is_short || may_follow {
            return;
        }
        self.is_short = true;
        let Tools {
            index,
            scratch,
            buffers,
            ..
        } = tools;
        if let Some(request) = stored(&self.request, index) {
            portcullis_sip::shorten(request, scratch);
            buffers.replace(&mut self.request, scratch);
        }
    }

    /// Handles the timers that are due.
    pub(crate) fn expire(&mut self, now: Time, tools: &mut Tools<T>) {
        if self.upstream.expire(now, &self.request, tools) {
            self.is_unconfirmed = true;
        }
        if self.phase != Phase::Answered && self.limit <= now {
            self.end_search(now, tools);
        }
        let mut is_changed = false;
        for number in 0..self.branches().len() as u8 {
            let Some(branch) = self.targets.branch(number) else {
                continue;
            };
            if branch.deadline().is_none_or(|deadline| deadline > now) {
                continue;
            }
            let may_be_followed = branch.may_be_followed();
            match branch.expire(now, tools) {
                None => {}
                Some((code, cause @ Cause::NoAnswer))
                    if may_be_followed && self.phase == Phase::Running && !self.is_closed =>
                {
                    self.targets.next_address(now, number, code, cause, tools);
                }
                Some((code, cause)) => {
                    self.end_locally(now, number, code, cause, tools);
                    is_changed = true;
                }
            }
        }
        if is_changed {
            self.advance(now, tools);
        }
    }

    /// When [`Context::expire`] should be called next.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let limit = (self.phase != Phase::Answered).then_some(self.limit);
        let sides = [self.upstream.deadline(), self.targets.deadline()];
        sides.into_iter().chain([limit]).flatten().min()
    }

    /// The time for the whole transaction is over.
    fn end_search(&mut self, now: Time, tools: &mut Tools<T>) {
        if !self.upstream.is_invite() {
            if self.phase == Phase::Running && self.is_closed {
                // A 6xx has waited long enough for the other targets.
                return self.finish(now, tools);
            }
            // The sender has given up, too.
            self.end_pending(now, tools, |_| true);
            self.targets.terminate();
            return self.give_up(now, tools);
        }
        self.is_closed = true;
        self.limit = Time::from_millis(u64::MAX);
        match self.phase {
            Phase::Deciding | Phase::Asking => self.finish(now, tools),
            Phase::Running => {
                self.targets.cancel(now, Why::RangOut, b"", tools);
                // One that has not answered at all would only be cancelled if it rang later.
                self.end_pending(now, tools, |branch| !branch.is_ringing());
                self.advance(now, tools);
            }
            Phase::Silent | Phase::Answered => {}
        }
    }

    fn end_pending(
        &mut self,
        now: Time,
        tools: &mut Tools<T>,
        is_over: impl Fn(&Branch<T>) -> bool,
    ) {
        for at in 0..self.branches().len() {
            let branch = &self.branches()[at];
            if branch.is_pending() && is_over(branch) {
                self.end_locally(now, branch.number, 408, Cause::NoAnswer, tools);
            }
        }
    }

    /// Whether only retransmissions of messages can still come.
    pub(crate) fn is_over(&self) -> bool {
        let is_invite = self.upstream.is_invite();
        // Nobody needs what a target that was given up says to a request other than INVITE once that is answered.
        let is_live =
            |branch: &Branch<T>| branch.is_live() && (is_invite || branch.attempt.is_none());
        self.upstream.rest() != Rest::Active && !self.branches().iter().any(is_live)
    }

    /// Ends the transaction. Returns the absorber of its retransmissions, if any can come, and the list of targets for the next transaction.
    pub(crate) fn retire(
        mut self,
        now: Time,
        absorbers: &mut Absorbers,
        tools: &mut Tools<T>,
    ) -> (Option<Id>, Vec<Branch<T>>) {
        tools.events.push_back(Event::Ended {
            id: self.id,
            end: self.end(now),
        });
        let absorber = self
            .retransmissions_until(now, &tools.config.timers)
            .map(|until| {
                let short = now + tools.config.timers.t4;
                let (duration, expires) = if until <= short {
                    (Duration::Short, short)
                } else {
                    (Duration::Long, now + tools.config.timers.longest_linger())
                };
                self.write_kept(&mut tools.scratch);
                absorbers.insert(self.peer, self.kind(), &tools.scratch, duration, expires)
            });
        tools.charged -= self.charged;
        self.best.clear(&mut tools.buffers);
        tools.buffers.take_back(&mut self.request);
        tools.buffers.take_back(&mut self.reason);
        self.upstream.release(tools);
        (absorber, self.targets.release(tools))
    }

    fn end(&self, now: Time) -> End {
        let upstream = &self.upstream;
        let since = |time: Time| time.since(self.began);
        End {
            code: self.upstream.code,
            attempts: self.targets_tried() as u8,
            cancelled: self.is_cancelled,
            unconfirmed: self.is_unconfirmed,
            late_successes: self.late_successes,
            first_response: upstream.first_response.map(since),
            final_response: upstream.final_response.map(since),
            took: since(now),
        }
    }

    fn kind(&self) -> Kind {
        match self.upstream.code {
            _ if !self.upstream.is_invite() => Kind::NonInvite,
            Some(200..300) => Kind::Accepted,
            Some(_) | None => Kind::Failed,
        }
    }

    /// Until when retransmissions of the request or of final responses may come, or the call of a target that has failed.
    fn retransmissions_until(&self, now: Time, timers: &Timers) -> Option<Time> {
        let request = match self.upstream.rest() {
            Rest::Retransmissions { until } => Some(until),
            Rest::Active | Rest::None => None,
        };
        request.max(self.targets.retransmissions_until(now, timers))
    }

    /// Writes what retransmissions are answered with.
    fn write_kept(&self, out: &mut Vec<u8>) {
        out.clear();
        self.targets.write_kept(out);
        self.upstream.write_kept(&self.request, out);
    }
}

/// The value of Reason for a CANCEL that follows a response with this code, which has three digits (RFC 3326 §2).
fn reason_of(code: u16) -> [u8; 13] {
    let mut reason = *b"SIP;cause=000";
    for (at, power) in [(10, 100), (11, 10), (12, 1)] {
        reason[at] += (code / power % 10) as u8;
    }
    reason
}

fn is_invite(message: Message<'_>) -> bool {
    matches!(
        message.start_line(),
        StartLine::Request {
            method: b"INVITE",
            ..
        }
    )
}

/// Max-Breadth of a request. The default value is the largest one, too (RFC 5393 §5.3.3).
pub fn max_breadth(message: Message<'_>) -> u8 {
    let field = message.header(HeaderName::MaxBreadth);
    let text = field.and_then(|field| std::str::from_utf8(field.value).ok());
    let breadth = text.and_then(|text| text.parse().ok());
    breadth.map_or(DEFAULT_BREADTH, |breadth: u8| breadth.min(DEFAULT_BREADTH))
}
