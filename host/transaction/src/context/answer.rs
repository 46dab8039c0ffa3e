//! Responses to the sender of the request.

use portcullis_sip::{HeaderName, Message, ResponseChanges, write_response};

use super::{Context, Phase};
use crate::best::Chosen;
use crate::outbox::What;
use crate::time::Time;
use crate::tools::{Tools, stored};

impl<T: Clone> Context<T> {
    /// Answers the request itself, in place of any target.
    pub(crate) fn answer<H: AsRef<str>>(
        &mut self,
        now: Time,
        code: u16,
        reason: &str,
        headers: &[(H, H)],
        tools: &mut Tools<T>,
    ) {
        if !self.server.is_invite() && code == 408 {
            return self.fall_silent(tools);
        }
        self.phase = Phase::Answered;
        self.is_closed = true;
        // As `Proxy::reject` writes them.
        let code = if (200..700).contains(&code) {
            code
        } else {
            500
        };
        let Tools {
            proxy,
            index,
            scratch,
            ..
        } = tools;
        let written = stored(&self.request, index).and_then(|request| {
            proxy.reject(request, &self.arrival, code, reason, headers, scratch)
        });
        match written {
            Some(_) => self.send_up(now, What::Reply, code, tools),
            // Nothing can be sent to such a sender: the transaction ends without an answer.
            None => self.give_up(now, tools),
        }
    }

    /// Sends the best answer (RFC 3261 §16.7(6) to (9)).
    pub(super) fn finish(&mut self, now: Time, tools: &mut Tools<T>) {
        let chosen = self.best_to_send();
        let code = chosen.map_or(408, |chosen| chosen.code);
        let is_local = chosen.is_none_or(|chosen| chosen.response.is_empty());
        if self.is_cancelled && is_local {
            return self.answer::<&str>(now, 487, "", &[], tools);
        }
        if !self.server.is_invite() && code == 408 {
            return self.fall_silent(tools);
        }
        // A 503 says that a target is overloaded, not this proxy.
        let sent = if code == 503 { 500 } else { code };
        if is_local {
            return self.answer::<&str>(now, sent, "", &[], tools);
        }
        self.phase = Phase::Answered;
        let Tools { index, scratch, .. } = tools;
        let response = self
            .best_to_send()
            .and_then(|chosen| stored(&chosen.response, index));
        let changes = ResponseChanges {
            code: (sent != code).then_some(sent),
            without: (sent != code).then_some(HeaderName::RetryAfter),
            added: self.best.challenges(),
        };
        let is_written = response.is_some_and(|response| {
            write_response(response, &changes, self.back.transport, scratch)
        });
        if is_written {
            self.send_up(now, What::Response, sent, tools);
        } else {
            self.answer::<&str>(now, 500, "", &[], tools);
        }
    }

    /// After a CANCEL, what targets of earlier turns answered is not of use: the answer is 487.
    fn best_to_send(&self) -> Option<&Chosen> {
        if self.is_cancelled {
            self.best.chosen()
        } else {
            self.best.answer()
        }
    }

    /// Gives a request other than INVITE no answer. Until its sender gives up, retransmissions are absorbed, and a 100 may still be due.
    fn fall_silent(&mut self, tools: &mut Tools<T>) {
        self.phase = Phase::Silent;
        self.is_closed = true;
        self.best.clear(&mut tools.buffers);
    }

    /// Ends without an answer: a request other than INVITE (RFC 4320 §4.2), or one that cannot be answered.
    pub(super) fn give_up(&mut self, now: Time, tools: &mut Tools<T>) {
        self.phase = Phase::Answered;
        self.is_closed = true;
        self.server.give_up(now, &tools.config.timers);
        tools.buffers.take_back(&mut self.reply);
    }

    /// Passes a response on as it is, without our Via.
    pub(super) fn pass_up(
        &mut self,
        now: Time,
        code: u16,
        message: Message<'_>,
        tools: &mut Tools<T>,
    ) {
        let changes = ResponseChanges::default();
        if write_response(message, &changes, self.back.transport, &mut tools.scratch) {
            self.send_up(now, What::Response, code, tools);
        }
    }

    pub(super) fn send_trying(&mut self, now: Time, tools: &mut Tools<T>) {
        let Tools {
            proxy,
            index,
            scratch,
            ..
        } = tools;
        let Some(request) = stored(&self.request, index) else {
            return;
        };
        if proxy.trying(request, &self.arrival, scratch).is_none() {
            return;
        }
        if self.server.is_invite() {
            return self.send_up(now, What::Reply, 100, tools);
        }
        // The machine has said that it is time.
        self.reply_is = What::Reply;
        tools.buffers.replace(&mut self.reply, &tools.scratch);
        let (id, back) = (Some(self.id), self.back);
        tools.outbox.push(What::Reply, id, None, back, &self.reply);
    }

    /// Sends what has been written, if the server transaction permits it. A 2xx to an INVITE is sent in any case: it may come after an answer
    /// of our own, and the call exists then.
    fn send_up(&mut self, now: Time, what: What, code: u16, tools: &mut Tools<T>) {
        let is_call = self.server.is_invite() && (200..300).contains(&code);
        let is_permitted = self.server.respond(now, code, &tools.config.timers);
        if !is_permitted && !is_call {
            return;
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
        if code >= 200 && self.code.is_none() {
            self.code = Some(code);
            self.final_response = Some(now);
            self.best.clear(&mut tools.buffers);
        }
    }

    /// Sends the last response again.
    pub(super) fn resend(&self, tools: &mut Tools<T>) {
        let (what, id) = (self.reply_is.again(), Some(self.id));
        tools.outbox.push(what, id, None, self.back, &self.reply);
    }
}
