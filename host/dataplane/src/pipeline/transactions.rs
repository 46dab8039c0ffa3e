//! Messages and their transactions: what the pipeline passes to [`Stateful`], and what the worker takes from it.

use std::mem;
use std::time::{Duration, Instant};

use portcullis_metrics::{Label, Lost, Retransmission};
use portcullis_sip::{
    Arrival, Branch, DialogSeal, Framing, Index, Message, RequestName, StartLine, scan,
};
use portcullis_transaction::{Outbox, Outgoing, What, max_breadth};

use super::fate::{Fate, code_of};
use super::judge::{Judgement, Outcome};
use super::relaying::Relaying;
use super::stateful::{Begun, Belongs, EXPIRE_AT_ONCE, NotBegun, STORED, Stateful, Tools};
use super::{Handled, Pipeline};
use crate::link::Predecessor;
use crate::notices::{Example, Trouble};

/// Time slice for timers before sockets get theirs: policies are asked in it.
const EXPIRE_TIME: Duration = Duration::from_micros(500);

impl Pipeline {
    /// The worker that owns the transaction of a message, if that is another one: a keyed hash of what all messages of a transaction have in
    /// common.
    pub(super) fn owner(&self, message: Message<'_>, arrival: &Arrival) -> Option<usize> {
        let workers = self.shared.counters.len();
        if workers < 2 || self.stateful.is_none() {
            return None;
        }
        let proxy = &self.shared.proxy;
        let transaction = match message.start_line() {
            StartLine::Request { .. } => proxy.name_of(message, arrival)?.transaction,
            StartLine::Response { .. } => proxy.branch_of(message).ok()?.transaction,
        };
        let owner = transaction.owner(workers);
        (owner != self.number).then_some(owner)
    }

    /// Passes a message to the transactions of this worker. `None` if the host is stateless.
    pub(super) fn belongs(&mut self, message: Message<'_>, arrival: &Arrival) -> Option<Belongs> {
        let (stateful, mut tools) = self.stateful()?;
        let belongs = stateful.receive(message, arrival, &tools.relaying);
        stateful.settle(&mut tools, None);
        Some(belongs)
    }

    /// Reports a message that a transaction has handled.
    #[cold]
    pub(super) fn report_handled(&self, message: Message<'_>, arrival: &Arrival) {
        let sends = self.stateful.as_deref().map(|stateful| &stateful.sends);
        let mut sends = sends.into_iter().flat_map(Outbox::iter);
        let relayed = sends.find(|sent| sent.what == What::Response);
        let fate = match (message.start_line(), relayed) {
            (StartLine::Response { .. }, Some(sent)) => Fate::Returned(sent.to),
            _ => Fate::Absorbed,
        };
        self.reporter.report(message, arrival, None, fate);
    }

    /// Relays a request in a transaction with this name. What is to be sent goes to [`Pipeline::take_sends`], except for the response to a
    /// request that is not relayed.
    pub(super) fn relay_in_transaction(
        &mut self,
        name: RequestName,
        judgement: Judgement,
        message: Message<'_>,
        arrival: &Arrival,
        out: &mut Vec<u8>,
    ) -> Handled {
        if max_breadth(message) == 0 {
            let responder = &self.responder;
            return Handled::Done(responder.refuse_breadth(&judgement, message, arrival, out));
        }
        let is_in_dialog = self.is_in_dialog(message, &judgement);
        let mut judgement = judgement;
        if is_in_dialog {
            // A dialog has one path, and nothing else can take the place of its other end.
            (judgement.forwarding, judgement.asker) = (None, None);
        }
        let Some((stateful, mut tools)) = self.stateful() else {
            return Handled::Done(None);
        };
        let mut written = None;
        let targets = judgement.forwarding.as_deref();
        if targets.is_none_or(|forwarding| forwarding.targets.is_empty()) {
            // The request is written before it has a transaction: one that cannot be relayed is answered without.
            let branch = Some((Branch::from(name.transaction), max_breadth(message)));
            let mut draft = mem::take(&mut stateful.draft);
            let to = tools
                .relaying
                .write(message, arrival, &judgement, None, branch, &mut draft);
            stateful.draft = draft;
            match to {
                Ok(to) => written = Some(to),
                Err(error) => {
                    let sent = self.refuse(&error, &judgement, message, arrival, out);
                    return Handled::Done(sent);
                }
            }
        }
        let Some(back) = tools.relaying.way_up(message, arrival, &judgement) else {
            return Handled::Done(None);
        };
        let request = Begun {
            name,
            message,
            arrival,
            back,
            is_in_dialog,
        };
        match stateful.begin(request, judgement, written, &mut tools) {
            Ok(()) => {
                if let Some(connection) = arrival.connection {
                    self.shared.connections.begins(connection, message.bytes());
                }
                Handled::Relayed
            }
            Err((NotBegun::Exists, _)) => Handled::Done(None),
            Err((NotBegun::NoRoom(_), judgement)) if is_in_dialog => {
                // Without it a call would stay behind. Its responses have no transaction either.
                stateful.adopt();
                self.relay(*judgement, None, message, arrival, out)
            }
            Err((NotBegun::NoRoom(no_room), judgement)) => {
                let responder = &self.responder;
                Handled::Done(responder.shed(no_room, &judgement, message, arrival, out))
            }
        }
    }

    fn is_in_dialog(&self, message: Message<'_>, judgement: &Judgement) -> bool {
        match judgement.outcome {
            Outcome::Within(_) => true,
            Outcome::Verdict(_) | Outcome::Default | Outcome::Failed(_) => {
                let seal = self.shared.proxy.dialog(message);
                matches!(seal, DialogSeal::Valid(_))
            }
        }
    }

    /// The transactions, and what they need of the pipeline. `None` in a stateless host.
    pub(super) fn stateful(&mut self) -> Option<(&mut Stateful, Tools<'_>)> {
        let stateful = self.stateful.as_deref_mut()?;
        let tools = Tools {
            relaying: Relaying::new(&self.shared, self.number, &self.routes),
            responder: &self.responder,
            judge: &mut self.judge,
        };
        Some((stateful, tools))
    }

    /// Exchanges what transactions have to send for the memory of `into`. Returns false if there is nothing. What remains in `into` after the limit of
    /// answers may be nothing, too.
    pub fn take_sends(&mut self, into: &mut Outbox) -> bool {
        into.clear();
        let Some(stateful) = self.stateful.as_deref_mut() else {
            return false;
        };
        if stateful.sends.is_empty() {
            stateful.transactions.take_sends(&mut stateful.sends);
        }
        mem::swap(&mut stateful.sends, into);
        let is_something = !into.is_empty();
        self.keep_back_answers(into);
        self.count_sends(into);
        if self.reporter.is_watched() {
            self.report_requests(into);
        }
        is_something
    }

    /// Removes responses over UDP to sources that have reached their limit: see `answers-per-second` in `[sip]`. Final responses of the host and of
    /// policies count, and each retransmission of a final response: a forged INVITE whose failure is not acknowledged brings up to eleven (timers G
    /// and H). Responses of targets come once for each request, and a provisional response once for each copy of its request. What is not sent
    /// counts as lost: the sender of a request retransmits it, or timer G fires again.
    fn keep_back_answers(&self, sends: &mut Outbox) {
        if !self.responder.is_limited() {
            return;
        }
        sends.retain(|sent| {
            let counts = match sent.what {
                What::Reply | What::ReplyRetransmission | What::ResponseRetransmission => {
                    code_of(sent.bytes) >= 200
                }
                What::Request
                | What::RequestRetransmission
                | What::Ack
                | What::Cancel
                | What::CancelRetransmission
                | What::Response => false,
            };
            let (transport, to) = (sent.to.transport, sent.to.addr);
            let is_sent = !counts || self.responder.may_send(transport, to, Instant::now);
            if !is_sent {
                self.counters().lost.inc(Lost::AnswerLimit);
                let example = || {
                    let text = format!("an answer over UDP to {}", to.ip());
                    Example::new(b"", Some(to), text)
                };
                self.reporter.note(Trouble::AnswerLimit, 1, example);
                if self.reporter.is_watched() {
                    self.report_kept_back(&sent);
                }
            }
            is_sent
        });
    }

    /// Reports a response that is not sent, with its request. That of an ended transaction is not stored.
    #[cold]
    fn report_kept_back(&self, sent: &Outgoing<'_>) {
        let Some((stateful, id)) = self.stateful.as_deref().zip(sent.id) else {
            return;
        };
        let (Some(job), Some(relay)) = (stateful.transactions.job(id, 0), stateful.relay(id))
        else {
            return;
        };
        let mut index = Index::default();
        if scan(job.request, Framing::Datagram, &STORED, &mut index).is_ok() {
            let fate = Fate::dropped(Lost::AnswerLimit.label());
            let message = Message::new(job.request, &index);
            let judgement = Some(&relay.judgement);
            self.reporter.report(message, job.arrival, judgement, fate);
        }
    }

    /// Reports the requests that are sent to targets.
    #[cold]
    fn report_requests(&self, sends: &Outbox) {
        let Some(stateful) = self.stateful.as_deref() else {
            return;
        };
        let mut index = Index::default();
        for sent in sends.iter().filter(|sent| sent.what == What::Request) {
            let (Some(id), Some(branch)) = (sent.id, sent.branch) else {
                continue;
            };
            let job = stateful.transactions.job(id, branch);
            let (Some(job), Some(relay)) = (job, stateful.relay(id)) else {
                continue;
            };
            if scan(sent.bytes, Framing::Datagram, &STORED, &mut index).is_ok() {
                let message = Message::new(sent.bytes, &index);
                let judgement = Some(&relay.judgement);
                let fate = Fate::Relayed(sent.to);
                self.reporter.report(message, job.arrival, judgement, fate);
            }
        }
    }

    fn count_sends(&self, sends: &Outbox) {
        let counters = self.counters();
        let retransmissions = &counters.transactions.retransmissions;
        for sent in sends.iter() {
            match sent.what {
                What::Response => counters.relayed_responses.inc(),
                What::Reply => {
                    counters.replies.inc(code_of(sent.bytes));
                    counters.transactions.replies.inc();
                }
                What::RequestRetransmission | What::CancelRetransmission => {
                    retransmissions.inc(Retransmission::RequestSent);
                }
                What::ResponseRetransmission | What::ReplyRetransmission => {
                    retransmissions.inc(Retransmission::ResponseSent);
                }
                What::Request => counters.relayed_requests.inc(),
                What::Ack | What::Cancel => {}
            }
        }
    }

    /// Handles timers that are due, for about [`EXPIRE_TIME`]. Returns false if more are due.
    pub(crate) fn expire(&mut self) -> bool {
        let Some((stateful, mut tools)) = self.stateful() else {
            return true;
        };
        let begun = Instant::now();
        while !stateful.expire(EXPIRE_AT_ONCE, &mut tools) {
            if begun.elapsed() > EXPIRE_TIME {
                return false;
            }
        }
        true
    }

    /// When the next timer is due.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let stateful = self.stateful.as_deref()?;
        let deadline = stateful.transactions.next_deadline()?;
        Some(stateful.start + Duration::from_millis(deadline.as_millis()))
    }

    /// The branch of a request that this host sent and that could not be delivered, and the worker that owns its transaction. `None` in a
    /// stateless host, and for anything else. ACK and CANCEL have no transaction that could fail (RFC 3261 §17.1.4).
    pub(crate) fn branch_of_undelivered(&mut self, bytes: &[u8]) -> Option<(Branch, usize)> {
        let workers = self.shared.counters.len();
        let stateful = self.stateful.as_deref_mut()?;
        // An ICMP error quotes the beginning of the request.
        let _cut = scan(bytes, Framing::Datagram, &STORED, &mut stateful.index);
        let message = Message::new(bytes, &stateful.index);
        if let StartLine::Request { method, .. } = message.start_line()
            && matches!(method, b"ACK" | b"CANCEL")
        {
            return None;
        }
        let branch = self.shared.proxy.branch_of_request(message)?;
        Some((branch, branch.transaction.owner(workers)))
    }

    /// Notes that the request with this branch could not be delivered.
    pub(crate) fn fail_branch(&mut self, branch: Branch) {
        let Some((stateful, mut tools)) = self.stateful() else {
            return;
        };
        stateful.fail_branch(branch, tools.relaying.counters());
        stateful.settle(&mut tools, None);
    }

    /// The numbers of all transactions. From now on, those that begin are noted for [`Pipeline::names_since`].
    pub(crate) fn names(&mut self) -> Vec<u64> {
        let stateful = self.stateful.as_deref_mut();
        stateful.map(Stateful::names).unwrap_or_default()
    }

    /// The numbers of the transactions that have begun since [`Pipeline::names`]. No more are noted.
    pub(crate) fn names_since(&mut self) -> Vec<u64> {
        let stateful = self.stateful.as_deref_mut();
        stateful.map(Stateful::names_since).unwrap_or_default()
    }

    /// Relays all responses without a transaction from now on. Another process has the sockets, and passes on what it does not know.
    pub(crate) fn leave(&mut self) {
        if let Some(stateful) = self.stateful.as_deref_mut() {
            stateful.leave();
        }
    }

    /// Passes on what belongs to transactions of the process that had the sockets before, or ceases to.
    pub(crate) fn succeed(&mut self, predecessor: Option<Predecessor>) {
        if let Some(stateful) = self.stateful.as_deref_mut() {
            stateful.predecessor = predecessor;
        }
    }

    /// Whether requests are relayed in transactions.
    pub(crate) fn is_stateful(&self) -> bool {
        self.stateful.is_some()
    }
}
