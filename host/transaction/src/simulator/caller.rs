//! The user agent that sends the request.

use portcullis_sip::Transport;

use crate::client::{Client, Progress};
use crate::machine::{ClientTimer, OnResponse};
use crate::testing::{code, header, request};
use crate::time::Time;
use crate::timers::Timers;

#[derive(Debug)]
pub(super) struct Caller {
    pub(super) transport: Transport,
    request: String,
    client: Client,
    cancel: Option<Client>,
    wants_cancel: bool,
}

impl Caller {
    /// The caller, and its request.
    pub(super) fn new(is_invite: bool, transport: Transport, more: &str) -> (Self, String) {
        let method = if is_invite { "INVITE" } else { "MESSAGE" };
        let request = request(method, 1, more);
        let caller = Self {
            transport,
            client: Client::start(Time::ZERO, is_invite, &Timers::default(), transport),
            request: request.clone(),
            cancel: None,
            wants_cancel: false,
        };
        (caller, request)
    }

    /// It gives up. Returns what it sends: a CANCEL, if it has had a provisional response.
    pub(super) fn give_up(&mut self, now: Time) -> Option<String> {
        self.wants_cancel = true;
        self.cancel_if_possible(now)
    }

    /// A response came. Returns what it sends.
    pub(super) fn receive(&mut self, now: Time, text: &str) -> Option<String> {
        let timers = Timers::default();
        let (code, cseq) = (code(text), header(text, "CSeq").unwrap_or_default());
        if cseq.ends_with("CANCEL") {
            if let Some(cancel) = &mut self.cancel {
                cancel.receive(now, code, &timers);
            }
            return None;
        }
        let reaction = self.client.receive(now, code, &timers);
        let is_failure = code >= 300;
        match reaction {
            OnResponse::PassAndAck | OnResponse::AckAgain => Some(self.ack(text)),
            OnResponse::Pass if self.client.is_invite() && code >= 200 => {
                assert!(!is_failure);
                Some(self.ack(text).replacen("z9hG4bKcall", "z9hG4bKack", 1))
            }
            OnResponse::Pass => self.cancel_if_possible(now),
            OnResponse::Absorb => None,
        }
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        let cancel = self.cancel.as_ref().and_then(Client::deadline);
        [self.client.deadline(), cancel].into_iter().flatten().min()
    }

    /// Returns what it sends.
    pub(super) fn expire(&mut self, now: Time) -> Option<String> {
        let timers = Timers::default();
        if self.client.deadline().is_some_and(|at| at <= now) {
            let timer = self.client.expire(now, &timers);
            return (timer == ClientTimer::Resend).then(|| self.request.clone());
        }
        let cancel = self.cancel.as_mut()?;
        let timer = cancel.expire(now, &timers);
        (timer == ClientTimer::Resend).then(|| self.request.replace("INVITE", "CANCEL"))
    }

    fn cancel_if_possible(&mut self, now: Time) -> Option<String> {
        let is_possible = self.wants_cancel
            && self.cancel.is_none()
            && self.client.progress() == Progress::Provisional;
        if !is_possible {
            return None;
        }
        self.cancel = Some(Client::start(
            now,
            false,
            &Timers::default(),
            self.transport,
        ));
        Some(self.request.replace("INVITE", "CANCEL"))
    }

    fn ack(&self, response: &str) -> String {
        let to = header(response, "To").unwrap_or_default();
        let ack = self.request.replace("INVITE", "ACK");
        ack.replace("To: <sip:callee@example.com>", &format!("To: {to}"))
    }
}
