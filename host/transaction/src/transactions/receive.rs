//! Received messages, and the transactions that they belong to.

use portcullis_sip::{Arrival, Branch, HeaderName, Message, RequestName, StartLine};

use super::Transactions;
use crate::absorber::{Absorber, Absorbers, Kind, Peer};
use crate::delta;
use crate::directory::Place;
use crate::kept::{self, Kept};
use crate::machine::OnAck;
use crate::outbox::What;
use crate::slab::Id;
use crate::time::Time;
use crate::tools::Tools;

/// What became of a received message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// A new request: to be rejected, or to become a transaction with this name ([`Transactions::begin`]).
    New(RequestName),
    /// It belongs to a transaction, which has handled it.
    Handled,
    /// It belongs to no transaction and is relayed without one: an ACK to a 2xx response, a CANCEL of an unknown request (RFC 3261 §16.10),
    /// and a 2xx response to an INVITE whose transaction has ended (RFC 6026 §7.3 leaves it to the implementation).
    Stateless,
    /// A further 2xx response to an INVITE that was answered 2xx, whose transaction has ended: relayed without one. Its callee sends it again until the
    /// ACK, or another callee has accepted as well.
    Again,
    /// A response that belongs to no transaction: dropped (RFC 6026 §7.3), except after a restart.
    Stray,
    /// A request with branch, Call-ID and CSeq of a transaction of another sender (a CANCEL, too) or with another method (RFC 3261 §17.2.3):
    /// dropped.
    Conflict,
    /// A copy of a request whose transaction has ended, with other values of lines that its response repeats: the response cannot be written
    /// again, and the copy is dropped.
    Changed,
    /// It cannot be read: dropped.
    Unreadable,
}

/// The methods that transactions distinguish.
#[derive(Clone, Copy, PartialEq, Eq)]
enum MethodClass {
    Ack,
    Cancel,
    Other,
}

impl<T: Clone> Transactions<T> {
    /// Handles a message that [`Proxy::receive`](portcullis_sip::Proxy::receive) has found valid: a request that it leaves to the policy, an
    /// ACK that it absorbs, or a response. What `Proxy::receive` says of the latter two holds only if no transaction has handled them here:
    /// an absorbed ACK that is [`Receipt::Stateless`] ends, and a response goes back by its Vias if it is.
    pub fn receive(&mut self, now: Time, message: Message<'_>, arrival: &Arrival) -> Receipt {
        match message.start_line() {
            StartLine::Request { method, .. } => {
                let class = match method {
                    b"ACK" => MethodClass::Ack,
                    b"CANCEL" => MethodClass::Cancel,
                    _ => MethodClass::Other,
                };
                self.request(now, class, message, arrival)
            }
            StartLine::Response { code, .. } => self.response(now, code, message),
        }
    }

    fn request(
        &mut self,
        now: Time,
        class: MethodClass,
        message: Message<'_>,
        arrival: &Arrival,
    ) -> Receipt {
        let Some(name) = self.tools.proxy.name_of(message, arrival) else {
            return Receipt::Unreadable;
        };
        let Some(place) = self.place_of(name.transaction) else {
            return match class {
                MethodClass::Ack | MethodClass::Cancel => Receipt::Stateless,
                MethodClass::Other => Receipt::New(name),
            };
        };
        let sender = Peer::new(name, message, arrival.source);
        let is_own = self.peer_at(place).is_some_and(|peer| {
            let may_differ = class != MethodClass::Other;
            peer.is(&sender) && (may_differ || peer.has_method_of(&sender))
        });
        if !is_own {
            return match class {
                MethodClass::Ack => Receipt::Stateless,
                // Relayed, it would have the branch of the request, and so cancel it.
                MethodClass::Cancel | MethodClass::Other => Receipt::Conflict,
            };
        }
        match place {
            Place::Active(slot) => self.request_of_active(now, slot, class, message, arrival),
            Place::Ended(slot) => self.request_of_ended(slot, class, message, arrival),
        }
    }

    fn request_of_active(
        &mut self,
        now: Time,
        slot: u32,
        class: MethodClass,
        message: Message<'_>,
        arrival: &Arrival,
    ) -> Receipt {
        let Some(id) = self.contexts.id_at(slot) else {
            return Receipt::Stray;
        };
        let handled = self.with(now, id, |context, tools| match class {
            MethodClass::Ack => context.ack(now, tools) == OnAck::Absorb,
            MethodClass::Cancel => {
                accept_cancel(message, arrival, Some(id), tools);
                let reason = message.header(HeaderName::Reason);
                context.cancel(now, reason.map_or(b"", |field| field.value), tools);
                true
            }
            MethodClass::Other => {
                context.retransmission(tools);
                true
            }
        });
        match handled {
            Some(true) => Receipt::Handled,
            Some(false) | None => Receipt::Stateless,
        }
    }

    fn request_of_ended(
        &mut self,
        slot: u32,
        class: MethodClass,
        message: Message<'_>,
        arrival: &Arrival,
    ) -> Receipt {
        let Some(absorber) = absorber_at(&self.absorbers, slot) else {
            return Receipt::Stray;
        };
        match class {
            MethodClass::Ack if absorber.kind == Kind::Failed => {}
            MethodClass::Ack => return Receipt::Stateless,
            MethodClass::Cancel => accept_cancel(message, arrival, None, &mut self.tools),
            MethodClass::Other => {
                let Tools {
                    outbox,
                    scratch,
                    second_scratch,
                    ..
                } = &mut self.tools;
                self.absorbers.read_kept(absorber, scratch);
                second_scratch.clear();
                let mut replies = kept::read(scratch).filter(|kept| kept.what != What::Ack);
                if let Some(reply) = replies.next() {
                    if !delta::read(reply.bytes, message.bytes(), second_scratch) {
                        return Receipt::Changed;
                    }
                    outbox.push(reply.what.again(), None, None, reply.to, second_scratch);
                }
            }
        }
        Receipt::Handled
    }

    fn response(&mut self, now: Time, code: u16, message: Message<'_>) -> Receipt {
        let Ok(branch) = self.tools.proxy.branch_of(message) else {
            return Receipt::Unreadable;
        };
        match self.place_of(branch.transaction) {
            None => Receipt::Stray,
            Some(Place::Ended(slot)) => self.response_to_ended(slot, branch, code, message),
            Some(Place::Active(slot)) => {
                let id: Option<Id> = self.contexts.id_at(slot);
                if let Some(id) = id {
                    self.with(now, id, |context, tools| {
                        context.receive(now, branch.number, message, tools);
                    });
                }
                Receipt::Handled
            }
        }
    }

    fn response_to_ended(
        &mut self,
        slot: u32,
        branch: Branch,
        code: u16,
        message: Message<'_>,
    ) -> Receipt {
        let Some(absorber) = absorber_at(&self.absorbers, slot) else {
            return Receipt::Stray;
        };
        let is_to_invite = message.cseq().is_some_and(|cseq| cseq.method == b"INVITE");
        if absorber.kind == Kind::NonInvite || !is_to_invite {
            return Receipt::Handled;
        }
        if (200..300).contains(&code) {
            return match absorber.kind {
                Kind::Accepted => Receipt::Again,
                Kind::Failed | Kind::NonInvite => Receipt::Stateless,
            };
        }
        if code >= 300 {
            let Tools {
                outbox, scratch, ..
            } = &mut self.tools;
            self.absorbers.read_kept(absorber, scratch);
            let is_ack = |kept: &Kept<'_>| kept.what == What::Ack && kept.branch == branch.number;
            if let Some(ack) = kept::read(scratch).find(is_ack) {
                outbox.push(What::Ack, None, Some(ack.branch), ack.to, ack.bytes);
            }
        }
        Receipt::Handled
    }

    fn peer_at(&self, place: Place) -> Option<Peer> {
        match place {
            Place::Active(slot) => {
                let context = self.contexts.record(self.contexts.id_at(slot)?)?;
                Some(context.peer)
            }
            Place::Ended(slot) => absorber_at(&self.absorbers, slot).map(|record| record.peer),
        }
    }
}

fn absorber_at(absorbers: &Absorbers, slot: u32) -> Option<&Absorber> {
    absorbers.record(absorbers.id_at(slot)?)
}

/// Answers a CANCEL with 200. Each retransmission gets the same answer, so that the CANCEL needs no record of its own: that of its INVITE
/// serves as its server transaction (RFC 3261 §9.2).
fn accept_cancel<T>(message: Message<'_>, arrival: &Arrival, id: Option<Id>, tools: &mut Tools<T>) {
    let Tools {
        proxy,
        scratch,
        outbox,
        ..
    } = tools;
    let to = proxy.reject::<&str>(message, arrival, 200, "", &[], scratch);
    if let Some(to) = to {
        outbox.push(What::Reply, id, None, to, scratch);
    }
}
