//! A user agent that gets the request.

use portcullis_sip::Transport;

use super::schedule;
use crate::machine::{OnRetransmission, ServerInvite, ServerNonInvite, ServerTimer};
use crate::server::Server;
use crate::testing::{header, response};
use crate::time::Time;
use crate::timers::Timers;

#[derive(Debug)]
pub(super) struct Callee {
    pub(super) transport: Transport,
    number: usize,
    behaviour: schedule::Callee,
    said: usize,
    request: String,
    server: Option<Server>,
    /// The last response.
    reply: String,
    is_final: bool,
    /// A 2xx response that waits for its ACK.
    awaits_ack: bool,
}

/// What a callee does.
#[derive(Debug, Default)]
pub(super) struct Reaction {
    pub(super) send: Vec<String>,
    /// It says the next thing after this time.
    pub(super) say_after: Option<u64>,
    /// It has sent a 2xx response, which it repeats until the ACK comes.
    pub(super) is_success: bool,
}

impl Callee {
    pub(super) fn new(number: usize, transport: Transport, behaviour: schedule::Callee) -> Self {
        Self {
            transport,
            number,
            behaviour,
            said: 0,
            request: String::new(),
            server: None,
            reply: String::new(),
            is_final: false,
            awaits_ack: false,
        }
    }

    /// A request came.
    pub(super) fn receive(&mut self, now: Time, text: &str) -> Reaction {
        match text.split(' ').next() {
            Some("ACK") => {
                self.awaits_ack = false;
                if let Some(server) = &mut self.server {
                    server.ack(now, &Timers::default());
                }
                Reaction::default()
            }
            Some("CANCEL") => self.cancelled(now, text),
            _ => self.requested(now, text),
        }
    }

    /// It says the next thing.
    pub(super) fn say(&mut self, now: Time) -> Reaction {
        let Some(&(_, code)) = self.behaviour.says.get(self.said) else {
            return Reaction::default();
        };
        self.said += 1;
        if self.is_final {
            return self.another_answers(code);
        }
        let mut reaction = self.respond(now, code);
        reaction.say_after = self.next_delay();
        reaction
    }

    /// The 2xx response again, while it waits for its ACK.
    pub(super) fn success_again(&self) -> Option<String> {
        self.awaits_ack.then(|| self.reply.clone())
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.server.as_ref().and_then(Server::deadline)
    }

    /// Returns what it sends.
    pub(super) fn expire(&mut self, now: Time) -> Option<String> {
        let timer = self.server.as_mut()?.expire(now, &Timers::default());
        (timer == ServerTimer::Resend).then(|| self.reply.clone())
    }

    fn requested(&mut self, now: Time, text: &str) -> Reaction {
        let mut reaction = Reaction::default();
        if let Some(server) = &self.server {
            assert_eq!(
                self.request, text,
                "a retransmission differs from the request"
            );
            if server.retransmission() == OnRetransmission::Resend && !self.reply.is_empty() {
                reaction.send.push(self.reply.clone());
            }
            return reaction;
        }
        self.request = text.to_owned();
        self.server = Some(if text.starts_with("INVITE") {
            Server::invite(ServerInvite::start(now, None), self.transport)
        } else {
            Server::non_invite(
                ServerNonInvite::start(now, &Timers::default()),
                self.transport,
            )
        });
        reaction.say_after = self.next_delay();
        reaction
    }

    fn cancelled(&mut self, now: Time, text: &str) -> Reaction {
        // Before its INVITE, a CANCEL matches nothing; afterwards it must name the same transaction.
        if self.server.is_none() {
            let mut reaction = Reaction::default();
            reaction.send.push(response(481, text, "none", ""));
            return reaction;
        }
        for name in ["Via", "Call-ID", "From", "To"] {
            assert_eq!(header(text, name), header(&self.request, name));
        }
        let mut reaction = Reaction::default();
        if self.behaviour.obeys_cancel && !self.is_final {
            reaction = self.respond(now, 487);
        }
        reaction.send.insert(0, response(200, text, "x", ""));
        reaction
    }

    fn respond(&mut self, now: Time, code: u16) -> Reaction {
        let mut reaction = Reaction::default();
        let Some(server) = &mut self.server else {
            return reaction;
        };
        // A callee that knows no RFC 4320 sends any code to any request.
        let _permitted = server.respond(now, code, &Timers::default());
        let tag = format!("callee{}", self.number);
        let challenge = match code {
            401 => "WWW-Authenticate: Digest realm=\"x\"\r\n",
            407 => "Proxy-Authenticate: Digest realm=\"x\"\r\n",
            _ => "",
        };
        self.reply = response(code, &self.request, &tag, challenge);
        self.is_final = code >= 200;
        reaction.is_success = server.is_invite() && (200..300).contains(&code);
        self.awaits_ack = reaction.is_success;
        reaction.send.push(self.reply.clone());
        reaction
    }

    /// A callee that is a proxy passes the 2xx response of another user agent on after a failure.
    fn another_answers(&self, code: u16) -> Reaction {
        let mut reaction = Reaction::default();
        let is_invite = self.request.starts_with("INVITE");
        let has_failed = is_invite && !self.awaits_ack && !self.reply.starts_with("SIP/2.0 2");
        if has_failed && (200..300).contains(&code) {
            let tag = format!("callee{}-2", self.number);
            reaction.send.push(response(code, &self.request, &tag, ""));
        }
        reaction
    }

    fn next_delay(&self) -> Option<u64> {
        let next = self.behaviour.says.get(self.said);
        next.map(|(after, _)| (*after).into())
    }
}
