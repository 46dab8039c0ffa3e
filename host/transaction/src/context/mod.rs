//! The response context of a proxy (RFC 3261 §16): one server transaction and the client transactions of its targets.

mod answer;
mod expire;
mod retire;
mod turns;

use portcullis_sip::{
    Arrival, DEFAULT_BREADTH, Destination, HeaderName, Message, RequestName, StartLine,
};

use crate::absorber::Peer;
use crate::best::Best;
use crate::branch::{Branch, Reaction, Turn, Why};
use crate::config::Trying;
use crate::event::{Cause, Failure};
use crate::machine::{OnAck, OnRetransmission, ServerInvite, ServerNonInvite};
use crate::outbox::What;
use crate::plan::{MOST_TARGETS, Plan, PlanError, StatusSet, Step, Target};
use crate::server::Server;
use crate::slab::Id;
use crate::time::Time;
use crate::tools::{Tools, stored};

/// An active transaction.
#[derive(Debug)]
pub(crate) struct Context<T> {
    id: Id,
    pub(crate) peer: Peer,
    arrival: Arrival,
    /// Where responses go.
    back: Destination,
    began: Time,
    /// The request as received; shortened when no further target can follow.
    request: Vec<u8>,
    is_short: bool,
    server: Server,
    /// The last response, for retransmissions of the request and timer G.
    reply: Vec<u8>,
    /// Whose response that is: [`What::Response`] or [`What::Reply`].
    reply_is: What,
    phase: Phase,
    retry_on: StatusSet,
    /// How often the next step may still be asked for.
    asks_left: u8,
    /// Most targets that are tried at once.
    parallel: u8,
    /// What Max-Breadth allows (RFC 5393 §5.3).
    breadth: u8,
    branches: Vec<Branch<T>>,
    turn: Turn,
    best: Best,
    /// No target is started any more: an answer of the kind that ends the search came, the sender cancelled, or the time is over.
    is_closed: bool,
    is_cancelled: bool,
    /// The value of Reason in CANCELs; empty for none.
    reason: Vec<u8>,
    is_unconfirmed: bool,
    /// When the search ends in any case.
    limit: Time,
    /// The final code that was sent.
    code: Option<u16>,
    /// When the first response above 100 was sent.
    first_response: Option<Time>,
    /// When the final response was sent.
    final_response: Option<Time>,
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
            arrival,
            back,
            began: now,
            request: tools.buffers.copy(message.bytes()),
            is_short: false,
            server,
            reply: Vec::new(),
            reply_is: What::Reply,
            phase: Phase::Deciding,
            retry_on: StatusSet::EMPTY,
            asks_left: 0,
            parallel: 1,
            breadth: max_breadth(message),
            branches,
            turn: Turn { round: 0, rank: 0 },
            best: Best::new(is_invite),
            is_closed: false,
            is_cancelled: false,
            reason: Vec::new(),
            is_unconfirmed: false,
            limit: now + limit,
            code: None,
            first_response: None,
            final_response: None,
            late_successes: 0,
            charged: 0,
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    pub(crate) fn arrival(&self) -> &Arrival {
        &self.arrival
    }

    pub(crate) fn request(&self) -> &[u8] {
        &self.request
    }

    pub(crate) fn branches(&self) -> &[Branch<T>] {
        &self.branches
    }

    pub(crate) fn is_invite(&self) -> bool {
        self.server.is_invite()
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.is_cancelled
    }

    /// The final code that was sent.
    pub(crate) fn code(&self) -> Option<u16> {
        self.code
    }

    /// When the search ends in any case.
    pub(crate) fn limit(&self) -> Time {
        self.limit
    }

    /// Number of targets whose turn came.
    pub(crate) fn targets_tried(&self) -> usize {
        let tried = self.branches.iter().filter(|branch| branch.was_tried());
        tried.count()
    }

    /// Number of targets that are not done yet.
    pub(crate) fn targets_live(&self) -> usize {
        let live = self.branches.iter().filter(|branch| branch.is_live());
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
        self.add_targets(plan.targets)?;
        self.retry_on = plan.retry_on;
        self.asks_left = plan.asks.min(tools.config.asks);
        self.parallel = plan.parallel.min(tools.config.parallel).max(1);
        if self.server.is_invite() {
            self.limit = self.limit.min(self.began + plan.setup_limit);
        }
        if self.breadth == 0 {
            // RFC 5393 §5.3.3: the request must not be sent on.
            self.branches.clear();
            self.answer::<&str>(now, 440, "", &[], tools);
            return Ok(());
        }
        if tools.config.trying == Trying::Now && self.server.awaits_trying() {
            self.send_trying(now, tools);
        }
        self.phase = Phase::Running;
        self.begin_turn();
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
                self.add_targets(targets)?;
                self.retry_on = retry_on.unwrap_or(self.retry_on);
                self.phase = Phase::Running;
                self.best.set_aside(&mut tools.buffers);
                self.begin_turn();
                self.advance(now, tools);
            }
        }
        Ok(())
    }

    fn add_targets(&mut self, targets: Vec<Target<T>>) -> Result<(), PlanError> {
        if targets.is_empty() {
            return Err(PlanError::NoTargets);
        }
        if self.branches.len() + targets.len() > MOST_TARGETS {
            return Err(PlanError::TooManyTargets);
        }
        let round = self.branches.last().map_or(0, |last| last.turn.round + 1);
        for target in targets {
            let number = self.branches.len() as u8;
            self.branches
                .push(Branch::new(self.id, number, target, round));
        }
        Ok(())
    }

    /// The request for a target was written.
    pub(crate) fn forward(
        &mut self,
        now: Time,
        number: u8,
        request: &[u8],
        to: Destination,
        tools: &mut Tools<T>,
    ) -> bool {
        let is_invite = self.server.is_invite();
        let branch = self.branches.get_mut(usize::from(number));
        branch.is_some_and(|branch| branch.forward(now, request, to, is_invite, tools))
    }

    /// The request for a target could not be written or sent.
    pub(crate) fn fail(&mut self, now: Time, number: u8, failure: Failure, tools: &mut Tools<T>) {
        let Some(branch) = self.branches.get_mut(usize::from(number)) else {
            return;
        };
        if branch.fail() {
            let (code, cause) = failure.result();
            self.end_locally(now, number, code, cause, tools);
            self.advance(now, tools);
        }
    }

    /// A retransmission of the request came.
    pub(crate) fn retransmission(&self, tools: &mut Tools<T>) {
        match self.server.retransmission() {
            OnRetransmission::Resend if !self.reply.is_empty() => self.resend(tools),
            OnRetransmission::Resend | OnRetransmission::Absorb => {}
        }
    }

    /// An ACK came.
    pub(crate) fn ack(&mut self, now: Time, tools: &Tools<T>) -> OnAck {
        self.server.ack(now, &tools.config.timers)
    }

    /// The sender cancels (RFC 3261 §9.2, §16.10). `reason` is the value of Reason in the CANCEL; empty for none.
    pub(crate) fn cancel(&mut self, now: Time, reason: &[u8], tools: &mut Tools<T>) {
        if !self.server.is_invite() || self.phase == Phase::Answered || self.is_cancelled {
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
        let Some(branch) = self.branches.get_mut(usize::from(number)) else {
            return;
        };
        let is_pending = branch.is_pending();
        match branch.receive(now, message, &self.reason, tools) {
            Reaction::Nothing => {}
            Reaction::Provisional(code) => self.provisional(now, code, is_pending, message, tools),
            Reaction::Success(code) => self.success(now, number, code, message, tools),
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
        if !self.server.is_invite() {
            return;
        }
        self.shorten(tools);
        // A 100 is for one hop only (RFC 3261 §16.7(3)).
        if code > 100 && is_pending && self.phase == Phase::Running {
            self.pass_up(now, code, message, tools);
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
            self.end_branch(now, number, code, Cause::Answered, tools);
        }
        if code >= 600 {
            self.close(now, &reason_of(code), tools);
            if !self.server.is_invite() {
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
        let is_first = self.code.is_none();
        // Every 2xx to an INVITE has a dialog of its own (RFC 3261 §16.7(5)); of other requests, the first final response is the only one.
        if self.server.is_invite() || is_first {
            self.pass_up(now, code, message, tools);
        }
        // A retransmission of a 2xx comes from the same branch.
        let had_success = self.branch_succeeded(number);
        if !is_first && !had_success {
            self.late_successes = self.late_successes.saturating_add(1);
        }
        self.end_branch(now, number, code, Cause::Answered, tools);
        self.phase = Phase::Answered;
        self.close(
            now,
            b"SIP;cause=200;text=\"Call completed elsewhere\"",
            tools,
        );
    }

    fn branch_succeeded(&self, number: u8) -> bool {
        let branch = self.branches.get(usize::from(number));
        let attempt = branch.and_then(|branch| branch.attempt);
        attempt.is_some_and(|attempt| attempt.code < 300)
    }

    /// Starts no further target, and cancels the others.
    fn close(&mut self, now: Time, reason: &[u8], tools: &mut Tools<T>) {
        self.is_closed = true;
        if !reason.is_empty() {
            tools.buffers.replace(&mut self.reason, reason);
        }
        for branch in &mut self.branches {
            if branch.attempt.is_none() {
                branch.cancel(now, Why::Unneeded, reason, tools);
            }
        }
    }

    /// Shortens the stored request, once it need not be written for a further target.
    fn shorten(&mut self, tools: &mut Tools<T>) {
        // The answer to the last question may still bring targets.
        let may_follow = self.asks_left > 0
            || self.phase == Phase::Asking
            || self.branches.iter().any(Branch::is_unwritten);
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
