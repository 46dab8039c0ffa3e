//! What transactions send, on its way to the sockets.

use std::time::Instant;

use portcullis_metrics::{Label, Lost};
use portcullis_sip::{Framing, Index, Limits, Message, scan};
use portcullis_transaction::{Outbox, Outgoing, Transactions, What};

use super::relays::Relays;
use crate::pipeline::fate::{Fate, code_of};
use crate::pipeline::reporter::Reporter;
use crate::pipeline::responder::Responder;

/// What is needed to keep messages of transactions back, and to report them.
pub(super) struct Sends<'s> {
    pub(super) transactions: &'s Transactions<u8>,
    pub(super) relays: &'s Relays,
    pub(super) responder: &'s Responder,
    pub(super) reporter: &'s Reporter,
}

impl Sends<'_> {
    /// Removes what goes over UDP to addresses that have reached their limit. Final responses of the host and of policies count in `answers-per-second`
    /// of `[sip]`, and each retransmission of a final response. What nobody has asked for again has a limit of its own: a forged INVITE whose failure is
    /// not acknowledged would bring up to eleven (timers G and H), and one that is answered as many as its callee sends. What is not sent counts as
    /// lost: the sender of a request retransmits it, or timer G fires again. A request to the caller of its dialog counts in the account of an address that
    /// has not proved itself, and so does each of its retransmissions: the caller may have forged that address.
    pub(super) fn keep_back_answers(&self, sends: &mut Outbox) {
        if !self.responder.is_limited() {
            return;
        }
        sends.retain(|sent| {
            let (transport, to) = (sent.to.transport, sent.to.addr);
            let responder = self.responder;
            let may_answer =
                || code_of(sent.bytes) < 200 || responder.may_send(transport, to, Instant::now);
            let is_request = matches!(sent.what, What::Request | What::RequestRetransmission);
            let is_sent = match sent.what {
                What::Request | What::RequestRetransmission => {
                    let relay = sent.id.and_then(|id| self.relays.get(id));
                    !relay.is_some_and(|relay| relay.calls_back)
                        || responder.may_request(transport, to, sent.bytes.len())
                }
                What::Reply | What::ReplyRetransmission | What::ResponseRetransmission => {
                    may_answer()
                }
                What::ReplyUnasked | What::ResponseUnasked => {
                    may_answer()
                        && (code_of(sent.bytes) < 200 || responder.may_repeat(transport, to))
                }
                What::Ack | What::Cancel | What::CancelRetransmission | What::Response => true,
            };
            if !is_sent {
                match is_request {
                    true => responder.keep_back_request(b"", to),
                    false => responder.keep_back(Lost::AnswerLimit, b"", to),
                }
                if self.reporter.is_watched() {
                    self.report_kept_back(&sent);
                }
            }
            is_sent
        });
    }

    /// Remembers the challenges of targets for strangers: whoever answers one has received it.
    pub(super) fn note_challenges(&self, sends: &Outbox) {
        let strangers = self.responder.strangers();
        for sent in sends.iter().filter(|sent| sent.what == What::Response) {
            strangers.challenged(sent.bytes, &sent.to);
        }
    }

    /// Reports a message that is not sent, with its request. That of an ended transaction is not stored.
    #[cold]
    fn report_kept_back(&self, sent: &Outgoing<'_>) {
        let Some(id) = sent.id else {
            return;
        };
        let (Some(job), Some(relay)) = (self.transactions.job(id, 0), self.relays.get(id)) else {
            return;
        };
        let mut index = Index::default();
        if scan(job.request, Framing::Datagram, &Limits::NONE, &mut index).is_ok() {
            let fate = Fate::dropped(Lost::AnswerLimit.label());
            let message = Message::new(job.request, &index);
            let judgement = Some(&relay.judgement);
            self.reporter.report(message, job.arrival, judgement, fate);
        }
    }

    /// Reports the requests that are sent to targets.
    #[cold]
    pub(super) fn report_requests(&self, sends: &Outbox) {
        let mut index = Index::default();
        for sent in sends.iter().filter(|sent| sent.what == What::Request) {
            let (Some(id), Some(branch)) = (sent.id, sent.branch) else {
                continue;
            };
            let job = self.transactions.job(id, branch);
            let (Some(job), Some(relay)) = (job, self.relays.get(id)) else {
                continue;
            };
            if scan(sent.bytes, Framing::Datagram, &Limits::NONE, &mut index).is_ok() {
                let message = Message::new(sent.bytes, &index);
                let judgement = Some(&relay.judgement);
                let fate = Fate::Relayed(sent.to);
                self.reporter.report(message, job.arrival, judgement, fate);
            }
        }
    }
}
