//! What the sender of the request gets: the best answer of its targets, an answer of the host, or none (RFC 3261 §16.7).

use portcullis_sip::{HeaderName, Message, ResponseChanges};

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
        if !self.upstream.is_invite() && code == 408 {
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
            proxy.reject(
                request,
                &self.upstream.arrival,
                code,
                reason,
                headers,
                scratch,
            )
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
        if !self.upstream.is_invite() && code == 408 {
            return self.fall_silent(tools);
        }
        // A 503 says that a target is overloaded, not this proxy.
        let sent = if code == 503 { 500 } else { code };
        if is_local {
            return self.answer::<&str>(now, sent, "", &[], tools);
        }
        self.phase = Phase::Answered;
        let Tools {
            proxy,
            index,
            scratch,
            ..
        } = tools;
        let response = self
            .best_to_send()
            .and_then(|chosen| stored(&chosen.response, index));
        let changes = ResponseChanges {
            code: (sent != code).then_some(sent),
            without: (sent != code).then_some(HeaderName::RetryAfter),
            added: self.best.challenges(),
            flow_timer: proxy.flow_timer(),
            feedback: proxy.feedback(),
        };
        let is_written =
            response.is_some_and(|response| self.upstream.write(response, &changes, scratch));
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
        self.upstream.give_up(now, tools);
    }

    /// Passes a response on as it is, without our Via.
    pub(super) fn pass_up(
        &mut self,
        now: Time,
        what: What,
        code: u16,
        message: Message<'_>,
        tools: &mut Tools<T>,
    ) {
        let changes = ResponseChanges {
            flow_timer: tools.proxy.flow_timer(),
            feedback: tools.proxy.feedback(),
            ..ResponseChanges::default()
        };
        if self.upstream.write(message, &changes, &mut tools.scratch) {
            self.send_up(now, what, code, tools);
        }
    }

    /// Sends what has been written.
    fn send_up(&mut self, now: Time, what: What, code: u16, tools: &mut Tools<T>) {
        if self.upstream.send(now, what, code, tools) {
            self.best.clear(&mut tools.buffers);
        }
    }
}
