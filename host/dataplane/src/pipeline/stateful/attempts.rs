//! The targets of a transaction: requests are written for those whose turn has come, and their results are noted.

use std::mem;

use portcullis_dispatcher::Dispatcher;
use portcullis_sip::{Destination, Forwarded, RelayError};
use portcullis_transaction::{Attempt, Cause, Failure, Id};
use tracing::debug;

use super::relay::Way;
use super::stored::stored;
use super::{Stateful, members};
use crate::pipeline::relaying::Relaying;

impl Stateful {
    /// Writes the request for a target whose turn has come.
    pub(super) fn start_target(&mut self, id: Id, branch: u8, relaying: &Relaying<'_>) {
        let now = self.now();
        let mut draft = mem::take(&mut self.draft);
        let mut index = mem::take(&mut self.index);
        let relay = self.relays.get(id);
        let job = self.transactions.job(id, branch);
        let target = job.as_ref().map(|job| *job.target);
        let way = relay.and_then(|relay| relay.way(target?));
        let mut tried = mem::take(&mut self.tried);
        tried.clear();
        tried.extend(self.transactions.tried(id, branch).copied());
        let written = match (relay.zip(way), job) {
            (Some((relay, way)), Some(job)) => {
                let message = stored(job.request, &mut index);
                let target = match way {
                    Way::Decided => None,
                    Way::Target(target) => Some(target),
                };
                let branch = Some((job.branch, job.breadth));
                let judged = relay.judgement.on(message, job.arrival);
                let written = relaying.write(judged, target, branch, &tried, &mut draft);
                let is_again =
                    |to: &Destination| target.is_some_and(|target| relay.was_at(target, to));
                let written = written.map(|forwarded| (forwarded, is_again(&forwarded.to)));
                written.map_err(|error| {
                    relaying.count_refused(&error, judged);
                    let failure = failure_of(&error);
                    (error, failure)
                })
            }
            // The transaction has ended.
            _ => {
                (self.draft, self.index, self.tried) = (draft, index, tried);
                return;
            }
        };
        match written {
            Ok((forwarded, false)) => self.forward(id, branch, &draft, forwarded, relaying),
            Ok((Forwarded { to, .. }, true)) => {
                let error = format!("the request has been at {to}", to = to.addr);
                debug!(event = "target_refused", branch, %error, "request not relayed to a target of its policy");
                let failure = self.failure_again(id);
                self.transactions.fail(now, id, branch, failure);
            }
            Err((error, failure)) => {
                debug!(event = "target_refused", branch, %error, "request not relayed to a target of its policy");
                self.transactions.fail(now, id, branch, failure);
            }
        }
        (self.draft, self.index, self.tried) = (draft, index, tried);
    }

    /// Sends a request that was written. If its next hop has further addresses, they are tried after this one.
    pub(super) fn forward(
        &mut self,
        id: Id,
        branch: u8,
        request: &[u8],
        forwarded: Forwarded,
        relaying: &Relaying<'_>,
    ) {
        let now = self.now();
        let tried = match forwarded.others {
            0 => 0,
            _ => self.transactions.tried(id, branch).count(),
        };
        let is_followed = forwarded.others > 0 && tried + 1 < relaying.most_addresses();
        let followed = is_followed.then_some(self.times.no_answer);
        let to = forwarded.to;
        self.transactions
            .forward_first(now, id, branch, request, to, followed);
    }

    /// The failure of a target where the request has been first: the sender must get what it would get without this target. An answer from
    /// there takes precedence over any failure of this host, but no answer is not remembered. As after [`RelayError::Loop`], other targets
    /// may follow.
    fn failure_again(&self, id: Id) -> Failure {
        let first = self.transactions.attempts(id).next();
        match first {
            Some((_, attempt)) if attempt.code == 408 => Failure::Refused(408),
            Some(_) | None => Failure::Refused(503),
        }
    }

    /// Notes what has become of a request to a destination of the dispatcher, and counts the call that it has accepted.
    pub(super) fn note_member(
        &self,
        id: Id,
        target: u8,
        attempt: &Attempt,
        dispatcher: &Dispatcher,
    ) {
        let Some(relay) = self.relays.get(id) else {
            return;
        };
        let Some(name) = relay.member(target) else {
            return;
        };
        if let Some((sign, code)) = members::sign_of(attempt) {
            dispatcher.note(name, sign, code);
        }
        // Only a response that has just come is the answer of a target.
        if let (Cause::Answered, 503, Some(seconds)) =
            (attempt.cause, attempt.code, self.retry_after)
        {
            dispatcher.pause(name, seconds);
        }
        if members::is_accepted(attempt)
            && let Some(call) = relay.counted_by
        {
            dispatcher.begin_call(name, call);
        }
    }
}

/// What an error means for a target. Where another target may do better, it counts as one that cannot be reached.
fn failure_of(error: &RelayError) -> Failure {
    match error {
        RelayError::Unresolved(_) => Failure::Unresolved,
        // Neither the address nor the destination of the dispatcher has failed.
        RelayError::Overloaded { .. } => Failure::Refused(error.code()),
        RelayError::TooManyHops
        | RelayError::BadRoute(_)
        | RelayError::BadUri(_)
        | RelayError::FlowGone(_)
        | RelayError::ForgedFlow(_)
        | RelayError::ForeignFlow(_)
        | RelayError::Unrelayable => Failure::Refused(error.code()),
        RelayError::UnknownNextHop(_)
        | RelayError::NotPermitted(_)
        | RelayError::NowhereToGo(_)
        | RelayError::Loop(_)
        | RelayError::UnsupportedTransport(_)
        | RelayError::UnsupportedScheme(_)
        | RelayError::Insecure(_)
        | RelayError::TooLarge(_)
        | RelayError::NoSocket { .. } => Failure::Unreachable,
    }
}
