//! Carries out decisions: relays the request, with or without a transaction, answers it, or drops it.

use portcullis_config::{Answer, DefaultVerdict};
use portcullis_metrics::{Label, Lost};
use portcullis_policy::{Rejection, Verdict, VerdictKind};
use portcullis_request::Request;
use portcullis_sip::{
    Arrival, Destination, Dialog, DialogSeal, Forwarded, Message, RelayError, RequestName,
};
use portcullis_transaction::max_breadth;

use super::fate::{Fate, Rejected};
use super::judge::{Judged, Judgement, Outcome};
use super::responder::{self, NO_HEADERS};
use super::stateful::{Begun, NotBegun};
use super::{Handled, Pipeline};

impl Pipeline {
    /// Carries out a decision. A relayed request becomes a transaction with this name, if there is one.
    pub(super) fn carry_out(
        &mut self,
        judgement: Judgement,
        request: &Request,
        name: Option<RequestName>,
        out: &mut Vec<u8>,
    ) -> Handled {
        let (message, arrival) = (request.message(), &request.arrival);
        let judged = judgement.on(message, arrival);
        if let Some(offence) = judgement.wishes.report {
            let strangers = self.responder.strangers();
            strangers.reported(offence, message, arrival);
        }
        let verdicts = &self.counters().verdicts;
        let sent = match &judgement.outcome {
            Outcome::Verdict(verdict) => {
                verdicts.inc(VerdictKind::of(verdict));
                match verdict {
                    Verdict::Relay(_) => {
                        return self.relay(judgement, name, message, arrival, out);
                    }
                    Verdict::Reject(rejection) => self.reject(rejection, judged, out),
                    Verdict::Drop | Verdict::Pass => self.drop_it(judged),
                }
            }
            Outcome::Default => {
                verdicts.inc(VerdictKind::Pass);
                let tenant = judgement.tenant.as_deref();
                let default = match tenant {
                    Some(tenant) => &tenant.default,
                    None => &self.shared.config.policy.default,
                };
                match default {
                    DefaultVerdict::Relay => {
                        return self.relay(judgement, name, message, arrival, out);
                    }
                    DefaultVerdict::Reject(answer) => self.answer(answer, judged, out),
                    DefaultVerdict::Drop => self.drop_it(judged),
                }
            }
            Outcome::Failed(answer) => self.answer(answer, judged, out),
            Outcome::Within(_) => return self.relay(judgement, name, message, arrival, out),
        };
        Handled::Done(sent)
    }

    fn relay(
        &mut self,
        judgement: Judgement,
        name: Option<RequestName>,
        message: Message<'_>,
        arrival: &Arrival,
        out: &mut Vec<u8>,
    ) -> Handled {
        if let Some(name) = name {
            return self.relay_in_transaction(name, judgement, message, arrival, out);
        }
        let relaying = self.relaying();
        let branch = relaying.stateless_branch(message, arrival, self.stateful.is_some());
        // Without a transaction, nothing follows the first target.
        let targets = match &judgement.forwarding {
            Some(forwarding) => relaying.in_order((**forwarding).clone(), message),
            None => Vec::new(),
        };
        let target = targets.first();
        let judged = judgement.on(message, arrival);
        let sent = match relaying.write(judged, target, branch, &[], out) {
            Ok(Forwarded { to, .. }) if !self.may_call_back(judged, &to, out.len()) => {
                let call_id = responder::call_id_of(message);
                self.responder.keep_back_request(call_id, to.addr);
                if self.reporter.is_watched() {
                    let fate = Fate::dropped(Lost::AnswerLimit.label());
                    let judgement = Some(&judgement);
                    self.reporter.report(message, arrival, judgement, fate);
                }
                None
            }
            Ok(Forwarded {
                to: destination, ..
            }) => {
                self.counters().relayed_requests.inc();
                if self.reporter.is_watched() {
                    let fate = Fate::Relayed(destination);
                    let judgement = Some(&judgement);
                    self.reporter.report(message, arrival, judgement, fate);
                }
                Some(destination)
            }
            Err(error) => self.refuse(&error, judged, out),
        };
        Handled::Done(sent)
    }

    /// Relays a request in a transaction with this name. What is to be sent goes to [`Pipeline::take_sends`], except for the response to a
    /// request that is not relayed.
    fn relay_in_transaction(
        &mut self,
        name: RequestName,
        mut judgement: Judgement,
        message: Message<'_>,
        arrival: &Arrival,
        out: &mut Vec<u8>,
    ) -> Handled {
        if max_breadth(message) == 0 {
            let judged = judgement.on(message, arrival);
            return Handled::Done(self.responder.refuse_breadth(judged, out));
        }
        let dialog = self.dialog_of(message, &judgement);
        let is_in_dialog = dialog.is_some();
        if is_in_dialog {
            // A dialog has one path, and nothing else can take the place of its other end.
            (judgement.forwarding, judgement.asker) = (None, None);
        }
        let Some((stateful, mut tools)) = self.stateful() else {
            return Handled::Done(None);
        };
        let judged = judgement.on(message, arrival);
        let mut written = None;
        let targets = judgement.forwarding.as_deref();
        if targets.is_none_or(|forwarding| forwarding.targets.is_empty()) {
            match stateful.write(name, judged, &tools.relaying) {
                Ok(forwarded) => written = Some(forwarded),
                Err(error) => return Handled::Done(self.refuse(&error, judged, out)),
            }
        }
        let Some(back) = tools.relaying.way_up(judged) else {
            return Handled::Done(None);
        };
        let request = Begun {
            name,
            message,
            arrival,
            back,
            dialog,
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
                let judged = judgement.on(message, arrival);
                Handled::Done(self.responder.shed(no_room, judged, out))
            }
        }
    }

    /// The admitted dialog to which a request belongs.
    fn dialog_of(&self, message: Message<'_>, judgement: &Judgement) -> Option<Dialog> {
        match judgement.outcome {
            Outcome::Within(dialog) => Some(dialog),
            Outcome::Verdict(_) | Outcome::Default | Outcome::Failed(_) => {
                match self.shared.proxy.dialog(message) {
                    DialogSeal::Valid(dialog) => Some(dialog),
                    DialogSeal::None | DialogSeal::Forged | DialogSeal::Expired => None,
                }
            }
        }
    }

    /// Whether a request of this size may be sent without a transaction, as far as it goes to the caller of its dialog.
    fn may_call_back(&self, judged: Judged<'_>, to: &Destination, bytes: usize) -> bool {
        let Judged {
            judgement, message, ..
        } = judged;
        to.transport.is_reliable()
            || !self
                .dialog_of(message, judgement)
                .is_some_and(|dialog| dialog.calls_back())
            || self.responder.may_request(to.transport, to.addr, bytes)
    }

    /// Answers a request that cannot be relayed.
    fn refuse(
        &self,
        error: &RelayError,
        judged: Judged<'_>,
        out: &mut Vec<u8>,
    ) -> Option<Destination> {
        self.relaying().count_refused(error, judged);
        let rejected = Rejected::of_relay(error);
        self.responder.reject(rejected, NO_HEADERS, judged, out)
    }

    /// Answers as a policy says, with the id of the decision if it is shown.
    fn reject(
        &self,
        rejection: &Rejection,
        judged: Judged<'_>,
        out: &mut Vec<u8>,
    ) -> Option<Destination> {
        let Judged { judgement, .. } = judged;
        let rejected = Rejected::of_rejection(rejection, judgement.cause.label());
        let headers = &rejection.headers;
        let Some((name, id)) = self.relaying().shown_id(judgement) else {
            return self.responder.reject(rejected, headers, judged, out);
        };
        let mut headers = headers.clone();
        headers.push((name.to_owned(), id));
        self.responder.reject(rejected, &headers, judged, out)
    }

    /// Answers as the configuration says.
    fn answer(
        &self,
        answer: &Answer,
        judged: Judged<'_>,
        out: &mut Vec<u8>,
    ) -> Option<Destination> {
        let rejected = Rejected::of_answer(answer, judged.judgement.cause.label());
        self.responder.reject(rejected, NO_HEADERS, judged, out)
    }

    /// Sends no response.
    fn drop_it(&self, judged: Judged<'_>) -> Option<Destination> {
        if self.reporter.is_watched() {
            let Judged {
                judgement,
                message,
                arrival,
            } = judged;
            let fate = Fate::dropped(judgement.cause.label());
            self.reporter
                .report(message, arrival, Some(judgement), fate);
        }
        None
    }
}
