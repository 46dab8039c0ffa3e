//! A request that is relayed in a transaction: its decision, and its targets.

use std::sync::Arc;

use portcullis_dispatcher::CallKey;
use portcullis_policy::{Edits, FailedAttempts, ForwardTarget, Place, TriedTarget, Verdict};
use portcullis_records::calls::Call;
use portcullis_request::Request;
use portcullis_sip::Destination;
use portcullis_transaction::{Cause, Id, MOST_TARGETS, Transactions};

use crate::flow_pings::ClientFlow;
use crate::pipeline::judge::{Judgement, Outcome};
use crate::pipeline::strangers::Asked;

/// A request that is relayed in a transaction.
pub(super) struct Relay {
    pub(super) judgement: Judgement,
    /// Whether target 0 goes where the verdict says: no target was named for it.
    is_as_decided: bool,
    /// The targets of the policy, in the order of the other targets.
    targets: Vec<ForwardTarget>,
    /// The memo of the policy, for its call after a failure.
    memo: Vec<u8>,
    /// How often the policy may still be asked.
    tries_left: u8,
    /// What the request says about its sender, until a target has answered; `None` if that is no stranger.
    pub(super) asked: Option<Asked>,
    /// Whether it goes to the caller of its dialog, whose address may have been forged.
    pub(super) calls_back: bool,
    /// For call records; `None` without.
    pub(super) call: Option<Arc<Call>>,
    /// What the call counts by that an INVITE begins at a destination of the dispatcher. The stored request is gone when the last target has
    /// accepted it.
    pub(super) counted_by: Option<CallKey>,
    /// The flow of a client that registers, if it is to be kept open once the registrar has accepted.
    pub(super) registers: Option<ClientFlow>,
    /// Bytes that count for the tenant.
    pub(super) held: usize,
    /// Where the request went first, if the verdict named no place: as Route, request URI and the default next hop led.
    first: Option<Destination>,
}

/// Where a request goes.
pub(super) enum Way<'r> {
    /// As the verdict says.
    Decided,
    /// To a target of the policy.
    Target(&'r ForwardTarget),
}

impl Relay {
    /// A request that goes to these targets, or where the verdict says if there are none.
    pub(super) fn new(
        judgement: Judgement,
        targets: Vec<ForwardTarget>,
        memo: Vec<u8>,
        tries_left: u8,
    ) -> Self {
        Self {
            judgement,
            is_as_decided: targets.is_empty(),
            targets,
            memo,
            tries_left,
            asked: None,
            calls_back: false,
            call: None,
            counted_by: None,
            registers: None,
            held: 0,
            first: None,
        }
    }

    /// Notes where the request goes first, as it has been written before it had a transaction.
    pub(super) fn note_first(&mut self, written: Option<Destination>) {
        self.first = written.filter(|_| self.tried(0).is_none());
    }

    /// The policy is asked once more.
    pub(super) fn note_ask(&mut self) {
        self.tries_left = self.tries_left.saturating_sub(1);
    }

    /// The policy goes on after a failure, with header changes for further targets. It may have kept, replaced or cleared the memo.
    pub(super) fn note_step(&mut self, memo: Vec<u8>, edits: Edits) {
        self.memo = memo;
        self.judgement.edits.append(edits);
    }

    /// Adds targets, unless they are too many for a transaction.
    pub(super) fn extend(&mut self, targets: Vec<ForwardTarget>) {
        if self.named() + targets.len() <= MOST_TARGETS {
            self.targets.extend(targets);
        }
    }

    /// The targets of the policy.
    pub(super) fn targets(&self) -> &[ForwardTarget] {
        &self.targets
    }

    /// Where the target with this number goes.
    pub(super) fn way(&self, number: u8) -> Option<Way<'_>> {
        let number = usize::from(number);
        match number.checked_sub(usize::from(self.is_as_decided)) {
            None => Some(Way::Decided),
            Some(number) => self.targets.get(number).map(Way::Target),
        }
    }

    /// Number of all targets that were named.
    pub(super) fn named(&self) -> usize {
        usize::from(self.is_as_decided) + self.targets.len()
    }

    /// Copies of the request that exist at once if it goes to these targets, which are sorted by rank; without any, as decided.
    pub(super) fn copied(&self, targets: &[ForwardTarget]) -> usize {
        let at_once = targets.chunk_by(|one, next| one.rank == next.rank);
        let most = at_once.map(<[_]>::len).max().unwrap_or(1);
        let parallel = self.judgement.forwarding_limits().parallel;
        most.min(usize::from(parallel).max(1))
    }

    /// Bytes that count for the tenant: of what the policy said, of the request, and of so many copies.
    pub(super) fn to_hold(&self, request: usize, copies: usize) -> usize {
        self.bytes() + request * (1 + copies)
    }

    /// Memory beyond the value itself, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let targets = self.targets.iter().map(ForwardTarget::bytes);
        self.judgement.edits.bytes() + targets.sum::<usize>() + self.memo.len()
    }

    /// Whether this target is where the request has been first, unnamed, as the same request: it would be tried again.
    pub(super) fn was_at(&self, target: &ForwardTarget, to: &Destination) -> bool {
        let is_same =
            |first: &Destination| first.transport == to.transport && first.addr == to.addr;
        let is_unchanged = target.request_uri.is_none() && target.headers.is_empty();
        is_unchanged && self.first.as_ref().is_some_and(is_same)
    }

    /// The targets that have failed, for `on-failure`.
    pub(super) fn failed(
        &self,
        transactions: &Transactions<u8>,
        id: Id,
        request: &Request,
    ) -> FailedAttempts {
        let attempts = transactions.attempts(id).map(|(&number, attempt)| {
            let uri = || String::from_utf8_lossy(request.request_uri()).into_owned();
            let milliseconds = u32::try_from(attempt.took.as_millis()).unwrap_or(u32::MAX);
            portcullis_policy::Attempt {
                place: self.place(number, uri),
                status: attempt.code,
                cause: cause_of(attempt.cause),
                milliseconds,
            }
        });
        let attempts: Vec<_> = attempts.collect();
        let tried = transactions.attempts(id);
        let tried = tried.filter_map(|(&number, _)| self.tried(number));
        let best = transactions.best(id);
        let is_best = |attempt: &portcullis_policy::Attempt| {
            let is_answer = attempt.cause == portcullis_policy::Cause::Answered;
            best.is_some_and(|(code, response)| {
                attempt.status == code && is_answer == response.is_some()
            })
        };
        FailedAttempts {
            best: attempts.iter().rposition(is_best),
            best_response: best.and_then(|(_, response)| response.map(<[u8]>::to_vec)),
            tries_left: self.tries_left,
            memo: self.memo.clone(),
            tried: tried.collect(),
            named: self.named(),
            named_bytes: self.targets.iter().map(ForwardTarget::text_bytes).sum(),
            attempts,
        }
    }

    /// The target with this number. `None` if the request went where its own header fields led.
    fn tried(&self, number: u8) -> Option<TriedTarget> {
        if let Way::Target(target) = self.way(number)? {
            return Some(TriedTarget {
                place: target.place.clone(),
                request_uri: target.request_uri.clone(),
            });
        }
        let Outcome::Verdict(Verdict::Relay(Some(name))) = &self.judgement.outcome else {
            return None;
        };
        Some(TriedTarget {
            place: Place::NextHop(name.clone()),
            request_uri: None,
        })
    }

    /// The name of the next hop that the target with this number goes to, if the policy named one.
    pub(super) fn next_hop(&self, number: u8) -> Option<&str> {
        match (self.way(number), &self.judgement.outcome) {
            (Some(Way::Target(target)), _) => match &target.place {
                Place::NextHop(name) => Some(name),
                Place::Uri(_) | Place::Member(_) => None,
            },
            (Some(Way::Decided) | None, Outcome::Verdict(Verdict::Relay(name))) => name.as_deref(),
            (
                Some(Way::Decided) | None,
                Outcome::Verdict(_) | Outcome::Default | Outcome::Failed(_) | Outcome::Within(_),
            ) => None,
        }
    }

    /// The destination of the dispatcher that the target with this number goes to, if it is one: its name as a next hop.
    pub(super) fn member(&self, number: u8) -> Option<&str> {
        match self.way(number)? {
            Way::Decided => None,
            Way::Target(target) => match &target.place {
                Place::Member(name) => Some(name),
                Place::NextHop(_) | Place::Uri(_) => None,
            },
        }
    }

    /// Where the target with this number goes: the place that the policy named, or the request URI.
    pub(super) fn place(&self, number: u8, uri: impl FnOnce() -> String) -> String {
        match (self.way(number), &self.judgement.outcome) {
            (Some(Way::Target(target)), _) => target.place.to_string(),
            (Some(Way::Decided) | None, Outcome::Verdict(Verdict::Relay(Some(name)))) => {
                name.clone()
            }
            (
                Some(Way::Decided) | None,
                Outcome::Verdict(_) | Outcome::Default | Outcome::Failed(_) | Outcome::Within(_),
            ) => uri(),
        }
    }
}

/// The cause of a result, as policies and call records name it.
pub(super) fn cause_of(cause: Cause) -> portcullis_policy::Cause {
    match cause {
        Cause::Answered => portcullis_policy::Cause::Answered,
        Cause::NoAnswer => portcullis_policy::Cause::NoAnswer,
        Cause::RangOut => portcullis_policy::Cause::RangOut,
        Cause::Cancelled => portcullis_policy::Cause::Cancelled,
        Cause::Unreachable => portcullis_policy::Cause::Unreachable,
        Cause::Unresolved => portcullis_policy::Cause::Unresolved,
        Cause::Refused => portcullis_policy::Cause::Refused,
    }
}
