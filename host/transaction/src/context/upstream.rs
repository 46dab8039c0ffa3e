//! The side of the sender: the server transaction of the request, and what it is answered with.

use portcullis_sip::{Arrival, Destination, Message, ResponseChanges, write_response};

use crate::kept::Kept;
use crate::machine::{OnAck, OnRetransmission, ServerTimer};
use crate::outbox::What;
use crate::server::{Rest, Server};
use crate::slab::Id;
use crate::time::Time;
use crate::tools::{Tools, stored};

/// What the sender of the request gets.
#[derive(Debug)]
pub(super) struct Upstream {
    id: Id,
    pub(super) arrival: Arrival,
    /// Where responses go.
    back: Destination,
    server: Server,
    /// The last response, for retransmissions of the request and timer G.
    reply: Vec<u8>,
    /// Whose response that is: [`What::Response`] or [`What::Reply`].
    reply_is: What,
    /// The final code that was sent.
    pub(super) code: Option<u16>,
    /// When the first response above 100 was sent.
    pub(super) first_response: Option<Time>,
    /// When the final response was sent.
    pub(super) final_response: Option<Time>,
}

impl Upstream {
    pub(super) fn new(id: Id, arrival: Arrival, back: Destination, server: Server) -> Self {
        Self {
            id,
            arrival,
            back,
            server,
            reply: Vec::new(),
            reply_is: What::Reply,
            code: None,
            first_response: None,
            final_response: None,
        }
    }

    pub(super) fn is_invite(&self) -> bool {
        self.server.is_invite()
    }

    /// Whether a 100 is still to be sent: no response was.
    pub(super) fn awaits_trying(&self) -> bool {
        self.server.awaits_trying()
    }

    /// What remains of the server transaction.
    pub(super) fn rest(&self) -> Rest {
        self.server.rest()
    }

    /// When [`Upstream::expire`] should be called next.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.server.deadline()
    }

    /// Handles the timers that are due. Returns whether the ACK to a failure has not come in time.
    pub(super) fn expire<T>(&mut self, now: Time, request: &[u8], tools: &mut Tools<T>) -> bool {
        match self.server.expire(now, &tools.config.timers) {
            ServerTimer::Nothing | ServerTimer::Ended => {}
            ServerTimer::Trying => self.send_trying(now, request, tools),
            ServerTimer::Resend => self.resend(self.reply_is.unasked(), tools),
            ServerTimer::Unconfirmed => return true,
        }
        false
    }

    /// A retransmission of the request came.
    pub(super) fn retransmission<T>(&self, tools: &mut Tools<T>) {
        match self.server.retransmission() {
            OnRetransmission::Resend if !self.reply.is_empty() => {
                self.resend(self.reply_is.again(), tools);
            }
            OnRetransmission::Resend | OnRetransmission::Absorb => {}
        }
    }

    /// An ACK came.
    pub(super) fn ack<T>(&mut self, now: Time, tools: &Tools<T>) -> OnAck {
        self.server.ack(now, &tools.config.timers)
    }

    /// Ends without an answer.
    pub(super) fn give_up<T>(&mut self, now: Time, tools: &mut Tools<T>) {
        self.server.give_up(now, &tools.config.timers);
        tools.buffers.take_back(&mut self.reply);
    }

    /// Sends a 100.
    pub(super) fn send_trying<T>(&mut self, now: Time, request: &[u8], tools: &mut Tools<T>) {
        let Tools {
            proxy,
            index,
            scratch,
            ..
        } = tools;
        let Some(request) = stored(request, index) else {
            return;
        };
        if proxy.trying(request, &self.arrival, scratch).is_none() {
            return;
        }
        if self.server.is_invite() {
            let _is_final = self.send(now, What::Reply, 100, tools);
            return;
        }
        // The machine has said that it is time.
        self.reply_is = What::Reply;
        tools.buffers.replace(&mut self.reply, &tools.scratch);
        let (id, back) = (Some(self.id), self.back);
        tools.outbox.push(What::Reply, id, None, back, &self.reply);
    }

    /// Writes a response with these changes and without our Via. Returns false if nothing can be written.
    pub(super) fn write(
        &self,
        response: Message<'_>,
        changes: &ResponseChanges<'_>,
        scratch: &mut Vec<u8>,
    ) -> bool {
        write_response(response, changes, self.back.transport, scratch)
    }

    /// Sends what has been written, if the server transaction permits it. A 2xx to an INVITE is sent in any case: it may come after an answer
    /// of our own, and the call exists then. Returns whether this is the first final response.
    pub(super) fn send<T>(
        &mut self,
        now: Time,
        what: What,
        code: u16,
        tools: &mut Tools<T>,
    ) -> bool {
        let is_call = self.server.is_invite() && (200..300).contains(&code);
        let is_permitted = self.server.respond(now, code, &tools.config.timers);
        if !is_permitted && !is_call {
            return false;
        }
        let (id, back) = (Some(self.id), self.back);
        tools.outbox.push(what, id, None, back, &tools.scratch);
        // The retransmissions of a 2xx to an INVITE are the callee's.
        if is_permitted && !is_call {
            self.reply_is = what;
            tools.buffers.replace(&mut self.reply, &tools.scratch);
        }
        if code > 100 {
            self.first_response.get_or_insert(now);
        }
        if code < 200 || self.code.is_some() {
            return false;
        }
        self.code = Some(code);
        self.final_response = Some(now);
        true
    }

    /// Sends the last response again.
    fn resend<T>(&self, what: What, tools: &mut Tools<T>) {
        let (id, back) = (Some(self.id), self.back);
        tools.outbox.push(what, id, None, back, &self.reply);
    }

    /// Writes the response for retransmissions of a request other than INVITE, if it has one.
    pub(super) fn write_kept(&self, request: &[u8], out: &mut Vec<u8>) {
        // The failure of an INVITE was acknowledged, or its time is over.
        if self.server.is_invite() || self.reply.is_empty() {
            return;
        }
        let reply = Kept {
            what: self.reply_is,
            branch: 0,
            to: self.back,
            bytes: &self.reply,
        };
        reply.write_response_to(request, out);
    }

    /// Gives its memory back.
    pub(super) fn release<T>(&mut self, tools: &mut Tools<T>) {
        tools.buffers.take_back(&mut self.reply);
    }
}
