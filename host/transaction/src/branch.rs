//! One target of a transaction: its client transaction, its CANCEL, and its result.

use std::time::Duration;

use portcullis_sip::{
    Destination, HeaderName, Message, StartLine, Via, shorten, write_ack, write_cancel,
};

use crate::client::{Client, Progress};
use crate::event::{Attempt, Cause};
use crate::machine::{ClientNonInvite, ClientTimer, OnResponse};
use crate::outbox::What;
use crate::plan::Target;
use crate::slab::Id;
use crate::time::Time;
use crate::timers::Timers;
use crate::tools::{Tools, stored};

/// A target.
#[derive(Debug)]
pub(crate) struct Branch<T> {
    pub(crate) target: Target<T>,
    pub(crate) turn: Turn,
    /// The name of the transaction, and the number of this target in it.
    pub(crate) id: Id,
    pub(crate) number: u8,
    /// Its share of Max-Breadth, while it is pending.
    pub(crate) breadth: u8,
    /// Its result. The client transaction may have to live on after it.
    pub(crate) attempt: Option<Attempt>,
    /// The number of the branch that tried the first address of the target.
    pub(crate) first: u8,
    /// Whether another branch tries the next address of the target.
    pub(crate) is_replaced: bool,
    began: Time,
    stage: Stage,
}

/// When a target is tried: turns are taken in order, all targets of one at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Turn {
    /// Counts the steps that brought targets.
    pub(crate) round: u8,
    pub(crate) rank: u8,
}

#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a box would be an allocation for each request"
)]
enum Stage {
    /// Its turn has not come.
    Waiting,
    /// The caller of this crate writes its request.
    Preparing { until: Time },
    /// Its request was sent.
    Sent(Sent),
    /// It ended before a request was sent.
    Unsent,
}

#[derive(Debug)]
struct Sent {
    client: Client,
    to: Destination,
    /// The request as it was sent; shortened after the first response to an INVITE, and empty after the final one.
    request: Vec<u8>,
    /// The ACK to a failure.
    ack: Vec<u8>,
    /// When an INVITE failed.
    failed: Option<Time>,
    /// Limit of the time until the first response.
    no_answer: Option<Time>,
    /// Whether another address of the target can be tried.
    is_followed: bool,
    /// Whether a provisional response above 100 came.
    has_rung: bool,
    /// Timer C: the limit of the time until the final response to an INVITE.
    timer_c: Option<Time>,
    cancel: Cancel,
}

/// At most one CANCEL is sent, and only after a provisional response (RFC 3261 §9.1).
#[derive(Debug)]
enum Cancel {
    No,
    /// It is sent when a provisional response comes.
    Wanted(Why),
    Sent {
        why: Why,
        machine: ClientNonInvite,
        request: Vec<u8>,
        /// The target is given up then (RFC 3261 §9.1).
        until: Time,
    },
}

/// Why a target is cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// Its answer is not needed any more.
    Unneeded,
    /// Timer C has fired.
    RangOut,
}

/// What a response means for the transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reaction {
    /// Nothing: the branch has handled it.
    Nothing,
    Provisional(u16),
    Success(u16),
    Failure(u16),
    /// The 487 to the CANCEL that followed timer C.
    RangOut,
}

impl<T> Branch<T> {
    pub(crate) fn new(id: Id, number: u8, target: Target<T>, round: u8) -> Self {
        Self {
            turn: Turn {
                round,
                rank: target.rank,
            },
            target,
            id,
            number,
            breadth: 0,
            attempt: None,
            first: number,
            is_replaced: false,
            began: Time::ZERO,
            stage: Stage::Waiting,
        }
    }

    /// The branch for the next address of the target, which takes the place of this one.
    pub(crate) fn successor(&mut self, now: Time, number: u8, timers: &Timers) -> Self
    where
        T: Clone,
    {
        self.is_replaced = true;
        let mut next = Self {
            turn: self.turn,
            first: self.first,
            ..Self::new(self.id, number, self.target.clone(), self.turn.round)
        };
        next.start(now, self.breadth, timers);
        next.began = self.began;
        next
    }

    /// Whether another address of the target gets its turn if this one has no answer, or does not serve the request (RFC 3263 §4.3).
    pub(crate) fn may_be_followed(&self) -> bool {
        match &self.stage {
            Stage::Sent(sent) => sent.is_followed && !sent.has_rung && self.attempt.is_none(),
            Stage::Waiting | Stage::Preparing { .. } | Stage::Unsent => false,
        }
    }

    /// Where its request was sent.
    pub(crate) fn destination(&self) -> Option<&Destination> {
        match &self.stage {
            Stage::Sent(sent) => Some(&sent.to),
            Stage::Waiting | Stage::Preparing { .. } | Stage::Unsent => None,
        }
    }

    pub(crate) fn is_waiting(&self) -> bool {
        matches!(self.stage, Stage::Waiting)
    }

    /// Whether its request may still have to be written.
    pub(crate) fn is_unwritten(&self) -> bool {
        matches!(self.stage, Stage::Waiting | Stage::Preparing { .. })
    }

    /// Whether the transaction waits for its result.
    pub(crate) fn is_pending(&self) -> bool {
        match self.stage {
            Stage::Preparing { .. } | Stage::Sent(_) => self.attempt.is_none(),
            Stage::Waiting | Stage::Unsent => false,
        }
    }

    /// Whether its turn came.
    pub(crate) fn was_tried(&self) -> bool {
        self.attempt.is_some() || self.is_pending()
    }

    /// Whether a response may still have to be handled other than as a retransmission.
    pub(crate) fn is_live(&self) -> bool {
        match &self.stage {
            Stage::Preparing { .. } => true,
            Stage::Sent(sent) => sent.client.progress() != Progress::Final,
            Stage::Waiting | Stage::Unsent => false,
        }
    }

    /// Whether a provisional response came, and no final one.
    pub(crate) fn is_ringing(&self) -> bool {
        match &self.stage {
            Stage::Sent(sent) => sent.client.progress() == Progress::Provisional,
            Stage::Waiting | Stage::Preparing { .. } | Stage::Unsent => false,
        }
    }

    /// Its turn has come.
    pub(crate) fn start(&mut self, now: Time, breadth: u8, timers: &Timers) {
        let limit = self.target.no_answer.unwrap_or_else(|| timers.timeout());
        (self.began, self.breadth) = (now, breadth);
        self.stage = Stage::Preparing { until: now + limit };
    }

    /// The request was written. `followed` is the limit of the time until the first response if another address follows. Returns whether the
    /// branch waited for it.
    pub(crate) fn forward(
        &mut self,
        now: Time,
        request: &[u8],
        to: Destination,
        is_invite: bool,
        followed: Option<Duration>,
        tools: &mut Tools<T>,
    ) -> bool {
        if !matches!(self.stage, Stage::Preparing { .. }) {
            return false;
        }
        let timers = &tools.config.timers;
        let limits = [self.target.no_answer, followed];
        self.stage = Stage::Sent(Sent {
            client: Client::start(now, is_invite, timers, to.transport),
            to,
            request: tools.buffers.copy(request),
            ack: Vec::new(),
            failed: None,
            no_answer: limits.into_iter().flatten().min().map(|limit| now + limit),
            is_followed: followed.is_some(),
            has_rung: false,
            timer_c: is_invite.then(|| now + self.target.ring),
            cancel: Cancel::No,
        });
        let (id, number) = (Some(self.id), Some(self.number));
        tools.outbox.push(What::Request, id, number, to, request);
        true
    }

    /// Whether its request was sent along the flow of a client, which nothing else leads to (RFC 5626 §5.3).
    pub(crate) fn is_along_flow(&self) -> bool {
        match &self.stage {
            Stage::Sent(sent) => sent.to.is_flow,
            Stage::Waiting | Stage::Preparing { .. } | Stage::Unsent => false,
        }
    }

    /// The request could not be sent. Returns whether that matters: after a response it does not.
    pub(crate) fn fail(&mut self) -> bool {
        let is_pending = self.is_pending();
        match &mut self.stage {
            Stage::Preparing { .. } => {
                self.stage = Stage::Unsent;
                true
            }
            Stage::Sent(sent) if sent.client.progress() == Progress::Silent => {
                if sent.to.transport.is_reliable() {
                    sent.client.terminate();
                } else {
                    // The target may have got the request: a router reports an error for one datagram, and anybody can forge one.
                    sent.give_up();
                }
                is_pending
            }
            Stage::Waiting | Stage::Sent(_) | Stage::Unsent => false,
        }
    }

    /// A response to its request came. `reason` is the value of Reason for a CANCEL that has waited for it; empty for none.
    pub(crate) fn receive(
        &mut self,
        now: Time,
        message: Message<'_>,
        reason: &[u8],
        tools: &mut Tools<T>,
    ) -> Reaction {
        let (id, number) = (self.id, self.number);
        let (Stage::Sent(sent), StartLine::Response { code, .. }) =
            (&mut self.stage, message.start_line())
        else {
            return Reaction::Nothing;
        };
        let method = message.cseq().map_or(&b""[..], |cseq| cseq.method);
        if method == b"CANCEL" {
            sent.cancel_answered(now, code, &tools.config.timers);
            return Reaction::Nothing;
        }
        if !sent.has_method(method) || !has_next_via(message) {
            return Reaction::Nothing;
        }
        match sent.client.receive(now, code, &tools.config.timers) {
            OnResponse::Absorb => return Reaction::Nothing,
            OnResponse::AckAgain => {
                let (id, number) = (Some(id), Some(number));
                tools.outbox.push(What::Ack, id, number, sent.to, &sent.ack);
                return Reaction::Nothing;
            }
            OnResponse::PassAndAck => {
                sent.failed = Some(now);
                sent.acknowledge(message, id, number, tools);
            }
            OnResponse::Pass => {}
        }
        sent.no_answer = None;
        if code < 200 {
            sent.has_rung |= code > 100;
            if code > 100 && sent.timer_c.is_some() {
                sent.timer_c = Some(now + self.target.ring);
            }
            sent.provisional(now, reason, id, number, tools);
            return Reaction::Provisional(code);
        }
        let why = sent.end(tools);
        match code {
            200..300 => Reaction::Success(code),
            487 if why == Some(Why::RangOut) => Reaction::RangOut,
            _ => Reaction::Failure(code),
        }
    }

    /// Its answer is not needed, or comes too late. `reason` is the value of Reason for the CANCEL; empty for none.
    pub(crate) fn cancel(&mut self, now: Time, why: Why, reason: &[u8], tools: &mut Tools<T>) {
        let (id, number) = (self.id, self.number);
        match &mut self.stage {
            Stage::Waiting | Stage::Preparing { .. } => self.stage = Stage::Unsent,
            Stage::Sent(sent) if sent.client.is_invite() && matches!(sent.cancel, Cancel::No) => {
                match sent.client.progress() {
                    Progress::Silent => sent.cancel = Cancel::Wanted(why),
                    Progress::Provisional => sent.send_cancel(now, why, reason, id, number, tools),
                    Progress::Final => {}
                }
            }
            Stage::Sent(_) | Stage::Unsent => {}
        }
    }

    /// No response is expected any more.
    pub(crate) fn terminate(&mut self) {
        match &mut self.stage {
            Stage::Waiting | Stage::Preparing { .. } => self.stage = Stage::Unsent,
            Stage::Sent(sent) => sent.client.terminate(),
            Stage::Unsent => {}
        }
    }

    /// Handles the timers that are due. Returns the result, if they end the branch without an answer.
    pub(crate) fn expire(&mut self, now: Time, tools: &mut Tools<T>) -> Option<(u16, Cause)> {
        let is_pending = self.is_pending();
        let (id, number) = (self.id, self.number);
        let ended = match &mut self.stage {
            Stage::Preparing { until } if *until <= now => {
                self.stage = Stage::Unsent;
                Some((503, Cause::Unresolved))
            }
            Stage::Sent(sent) => sent.expire(now, id, number, tools),
            Stage::Waiting | Stage::Preparing { .. } | Stage::Unsent => None,
        };
        ended.filter(|_| is_pending)
    }

    /// When [`Branch::expire`] should be called next.
    pub(crate) fn deadline(&self) -> Option<Time> {
        match &self.stage {
            Stage::Preparing { until } => Some(*until),
            Stage::Sent(sent) => sent.deadline(),
            Stage::Waiting | Stage::Unsent => None,
        }
    }

    /// The time since it got its turn, with this result.
    pub(crate) fn result(&self, now: Time, code: u16, cause: Cause) -> Attempt {
        Attempt {
            code,
            cause,
            took: now.since(self.began),
        }
    }

    /// Until when retransmissions of its final response must be handled.
    pub(crate) fn retransmissions_until(&self) -> Option<Time> {
        match &self.stage {
            Stage::Sent(sent) => sent.client.retransmissions_until(),
            Stage::Waiting | Stage::Preparing { .. } | Stage::Unsent => None,
        }
    }

    /// Until when a 2xx response is relayed after its failure: timer D is zero over a reliable transport, but a downstream proxy passes a 2xx
    /// response of another callee on whatever the transport.
    pub(crate) fn call_until(&self, timers: &Timers) -> Option<Time> {
        match &self.stage {
            Stage::Sent(sent) => sent.failed.map(|at| at + timers.timeout()),
            Stage::Waiting | Stage::Preparing { .. } | Stage::Unsent => None,
        }
    }

    /// Its ACK, if retransmissions of a failure may still come.
    pub(crate) fn kept_ack(&self) -> Option<(Destination, &[u8])> {
        match &self.stage {
            Stage::Sent(sent)
                if !sent.ack.is_empty() && sent.client.retransmissions_until().is_some() =>
            {
                Some((sent.to, &sent.ack))
            }
            Stage::Waiting | Stage::Preparing { .. } | Stage::Sent(_) | Stage::Unsent => None,
        }
    }

    /// Gives its memory back.
    pub(crate) fn release(&mut self, tools: &mut Tools<T>) {
        if let Stage::Sent(sent) = &mut self.stage {
            sent.end(tools);
            tools.buffers.take_back(&mut sent.ack);
        }
        self.stage = Stage::Unsent;
    }
}

impl Sent {
    /// Whether the request has this method (RFC 3261 §17.1.3). After the final response the request is not stored any more, and only INVITE
    /// is distinguished.
    fn has_method(&self, method: &[u8]) -> bool {
        if self.client.is_invite() || method == b"INVITE" {
            return self.client.is_invite() && method == b"INVITE";
        }
        let rest = self.request.strip_prefix(method);
        self.request.is_empty() || rest.is_some_and(|rest| rest.starts_with(b" "))
    }

    /// The first provisional response to an INVITE makes most of the stored request superfluous, and a CANCEL possible.
    fn provisional<T>(
        &mut self,
        now: Time,
        reason: &[u8],
        id: Id,
        number: u8,
        tools: &mut Tools<T>,
    ) {
        if !self.client.is_invite() {
            return;
        }
        let Tools {
            index,
            scratch,
            buffers,
            ..
        } = tools;
        if let Some(request) = stored(&self.request, index) {
            shorten(request, scratch);
            if scratch.len() < self.request.len() {
                buffers.replace(&mut self.request, scratch);
            }
        }
        if let Cancel::Wanted(why) = self.cancel {
            self.send_cancel(now, why, reason, id, number, tools);
        }
    }

    fn acknowledge<T>(&mut self, response: Message<'_>, id: Id, number: u8, tools: &mut Tools<T>) {
        let Tools {
            index,
            scratch,
            buffers,
            outbox,
            ..
        } = tools;
        let Some(request) = stored(&self.request, index) else {
            return;
        };
        write_ack(request, response, scratch);
        outbox.push(What::Ack, Some(id), Some(number), self.to, scratch);
        if self.client.retransmissions_until().is_some() {
            buffers.replace(&mut self.ack, scratch);
        }
    }

    fn send_cancel<T>(
        &mut self,
        now: Time,
        why: Why,
        reason: &[u8],
        id: Id,
        number: u8,
        tools: &mut Tools<T>,
    ) {
        let Tools {
            index,
            scratch,
            buffers,
            config,
            outbox,
            ..
        } = tools;
        self.timer_c = None;
        let Some(request) = stored(&self.request, index) else {
            debug_assert!(false, "a request that was sent is stored");
            return self.client.terminate();
        };
        write_cancel(request, (!reason.is_empty()).then_some(reason), scratch);
        outbox.push(What::Cancel, Some(id), Some(number), self.to, scratch);
        self.cancel = Cancel::Sent {
            why,
            machine: ClientNonInvite::start(now, &config.timers, self.to.transport),
            request: buffers.copy(scratch),
            until: now + config.timers.timeout(),
        };
    }

    fn cancel_answered(&mut self, now: Time, code: u16, timers: &Timers) {
        let transport = self.to.transport;
        if let Cancel::Sent { machine, .. } = &mut self.cancel {
            machine.receive(now, code, timers, transport);
        }
    }

    /// The final response came. Returns why the request had been cancelled.
    fn end<T>(&mut self, tools: &mut Tools<T>) -> Option<Why> {
        tools.buffers.take_back(&mut self.request);
        self.timer_c = None;
        match std::mem::replace(&mut self.cancel, Cancel::No) {
            Cancel::No => None,
            Cancel::Wanted(why) => Some(why),
            Cancel::Sent {
                why, mut request, ..
            } => {
                tools.buffers.take_back(&mut request);
                Some(why)
            }
        }
    }

    /// Handles the timers that are due. Returns the result, if they end the target without an answer.
    fn expire<T>(
        &mut self,
        now: Time,
        id: Id,
        number: u8,
        tools: &mut Tools<T>,
    ) -> Option<(u16, Cause)> {
        match self.client.expire(now, &tools.config.timers) {
            ClientTimer::Nothing => {}
            ClientTimer::Resend => {
                let (id, number) = (Some(id), Some(number));
                tools
                    .outbox
                    .push(What::Request.again(), id, number, self.to, &self.request);
            }
            ClientTimer::TimedOut => {
                self.end(tools);
                self.no_answer = None;
                return Some((408, Cause::NoAnswer));
            }
            ClientTimer::Ended => tools.buffers.take_back(&mut self.ack),
        }
        if self.no_answer.is_some_and(|at| at <= now) {
            return Some(self.give_up());
        }
        if self.timer_c.is_some_and(|at| at <= now) {
            match self.client.progress() {
                Progress::Silent => return Some(self.give_up()),
                Progress::Provisional => {
                    self.send_cancel(now, Why::RangOut, b"", id, number, tools);
                }
                Progress::Final => self.timer_c = None,
            }
        }
        self.expire_cancel(now, id, number, tools)
    }

    fn expire_cancel<T>(
        &mut self,
        now: Time,
        id: Id,
        number: u8,
        tools: &mut Tools<T>,
    ) -> Option<(u16, Cause)> {
        let Cancel::Sent {
            why,
            machine,
            request,
            until,
        } = &mut self.cancel
        else {
            return None;
        };
        match machine.expire(now, &tools.config.timers) {
            ClientTimer::Resend => {
                let (id, number) = (Some(id), Some(number));
                tools
                    .outbox
                    .push(What::Cancel.again(), id, number, self.to, request);
            }
            ClientTimer::Nothing | ClientTimer::TimedOut | ClientTimer::Ended => {}
        }
        if *until > now {
            return None;
        }
        let ended = match why {
            Why::RangOut => (408, Cause::RangOut),
            Why::Unneeded => (487, Cause::Cancelled),
        };
        self.client.terminate();
        self.end(tools);
        Some(ended)
    }

    /// Its time is over without any response. It is cancelled should it ring later.
    fn give_up(&mut self) -> (u16, Cause) {
        (self.no_answer, self.timer_c) = (None, None);
        self.client.give_up();
        if self.client.is_invite() && matches!(self.cancel, Cancel::No) {
            self.cancel = Cancel::Wanted(Why::Unneeded);
        }
        (408, Cause::NoAnswer)
    }

    fn deadline(&self) -> Option<Time> {
        let cancel = match &self.cancel {
            Cancel::Sent { machine, until, .. } => {
                Some(machine.deadline().map_or(*until, |at| at.min(*until)))
            }
            Cancel::No | Cancel::Wanted(_) => None,
        };
        [self.client.deadline(), self.no_answer, self.timer_c, cancel]
            .into_iter()
            .flatten()
            .min()
    }
}

/// Whether the response has a Via beside ours. A response without one ends here, as those to our CANCEL do (RFC 3261 §16.7(3)).
fn has_next_via(message: Message<'_>) -> bool {
    let mut fields = message.headers(HeaderName::Via);
    let first = fields.next().and_then(|field| Via::parse(field.value).ok());
    first.is_some_and(|first| first.next.is_some()) || fields.next().is_some()
}
