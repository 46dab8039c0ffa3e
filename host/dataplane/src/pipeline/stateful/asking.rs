//! Asks the policy what happens after all targets have failed, and carries out its answer.

use std::mem;

use portcullis_policy::{NextStep, Rejection};
use portcullis_request::Request;
use portcullis_sip::{Framing, Index, Limits, scan};
use portcullis_transaction::{Id, Step, Time};

use super::relay::Relay;
use super::stored::stored;
use super::{Stateful, Tools};
use crate::pipeline::judge::AskedStep;
use crate::pipeline::targets::{codes, planned};

impl Stateful {
    /// Asks the policy what happens after all targets have failed.
    pub(super) fn ask(&mut self, id: Id, tools: &mut Tools<'_>) {
        let now = self.now();
        let asked = self.asked(id, tools);
        let report = asked.as_ref().and_then(|asked| asked.wishes.report);
        if let Some(offence) = report
            && let Some(job) = self.transactions.job(id, 0)
        {
            let message = stored(job.request, &mut self.index);
            let strangers = tools.responder.strangers();
            strangers.reported(offence, message, job.arrival);
        }
        let step = match asked {
            None => Step::Best,
            Some(asked) => match asked.step {
                NextStep::Best => Step::Best,
                NextStep::Answer(rejection) => {
                    return self.answer(now, id, rejection, tools);
                }
                NextStep::Again => self.again(id, asked, tools),
            },
        };
        if self.transactions.step(now, id, step).is_err() {
            // Too many targets. A transaction that has ended meanwhile ignores this.
            let _ended = self.transactions.step(now, id, Step::Best);
        }
    }

    /// The step of the policy; `None` for the best response.
    fn asked(&mut self, id: Id, tools: &mut Tools<'_>) -> Option<AskedStep> {
        let relay = self.relays.get_mut(id)?;
        relay.note_ask();
        let job = self.transactions.job(id, 0)?;
        let mut index = Index::default();
        scan(job.request, Framing::Datagram, &Limits::NONE, &mut index).ok()?;
        let request = Request {
            bytes: job.request.to_vec(),
            index,
            arrival: *job.arrival,
        };
        let failed = relay.failed(&self.transactions, id, &request);
        let judgement = &relay.judgement;
        let asker = judgement.asker.as_deref()?;
        tools.judge.after_failure(asker, judgement, request, failed)
    }

    /// The further targets of a policy.
    fn again(&mut self, id: Id, asked: AskedStep, tools: &Tools<'_>) -> Step<u8> {
        let mut forwarding = asked.forwarding.unwrap_or_default();
        let (Some(relay), Some(job)) = (self.relays.get_mut(id), self.transactions.job(id, 0))
        else {
            return Step::Best;
        };
        relay.note_step(mem::take(&mut forwarding.memo), asked.edits);
        relay.judgement.wishes.add(asked.wishes);
        let retry_on = forwarding.retry_on.as_deref().map(codes);
        let message = stored(job.request, &mut self.index);
        let targets = tools.relaying.in_order(forwarding, message);
        let first = u8::try_from(relay.named()).unwrap_or(u8::MAX);
        let again = planned(&targets, first, self.times);
        self.relays.extend(id, targets, job.request.len());
        let bytes = self.relays.get(id).map_or(0, Relay::bytes);
        self.transactions.charge(id, bytes);
        Step::Again {
            targets: again,
            retry_on,
        }
    }

    fn answer(&mut self, now: Time, id: Id, rejection: Rejection, tools: &Tools<'_>) {
        let relaying = &tools.relaying;
        let is_too_large = self.transactions.job(id, 0).is_some_and(|job| {
            let message = stored(job.request, &mut self.index);
            let responder = tools.responder;
            responder.is_rejection_too_large(&rejection, message, job.arrival)
        });
        let Rejection {
            code,
            reason,
            mut headers,
        } = rejection;
        if is_too_large {
            relaying.counters().shortened_answers.inc();
            headers.clear();
        }
        if let Some(relay) = self.relays.get(id)
            && let Some((name, id)) = relaying.shown_id(&relay.judgement)
        {
            headers.push((name.to_owned(), id));
        }
        self.transactions.answer(now, id, code, &reason, &headers);
    }
}
