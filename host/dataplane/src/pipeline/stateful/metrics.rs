//! The metrics of transactions.

use portcullis_metrics::{AttemptResult, FinalClass, Retransmission, WorkerCounters};
use portcullis_transaction::{Attempt, Cause, End, Outbox, Usage, What};

use crate::pipeline::fate::code_of;

/// Counts the result of a target, which may be a named next hop.
pub(super) fn count_attempt(attempt: &Attempt, next_hop: Option<&str>, counters: &WorkerCounters) {
    let result = match attempt.cause {
        Cause::Answered if attempt.code < 300 => AttemptResult::Success,
        Cause::Answered => AttemptResult::Failure,
        Cause::NoAnswer => AttemptResult::NoAnswer,
        Cause::RangOut => AttemptResult::RangOut,
        Cause::Cancelled => AttemptResult::Cancelled,
        Cause::Unreachable => AttemptResult::Unreachable,
        Cause::Unresolved => AttemptResult::Unresolved,
        Cause::Refused => AttemptResult::Refused,
    };
    counters.transactions.attempts.inc(result);
    if let Some(name) = next_hop {
        counters.transactions.next_hop_attempts.inc(name, result);
    }
}

/// Counts the end of a transaction.
pub(super) fn count_end(end: &End, counters: &WorkerCounters) {
    let counters = &counters.transactions;
    counters.ended.inc(FinalClass::of(end.code));
    counters.late_successes.add(end.late_successes.into());
    if let Some(took) = end.first_response {
        counters.first_responses.record(took);
    }
    if let Some(took) = end.final_response {
        counters.final_responses.record(took);
    }
    if end.cancelled {
        counters.cancelled.inc();
    }
    if end.unconfirmed {
        counters.unconfirmed.inc();
    }
}

/// Counts what is sent.
pub(super) fn count_sends(sends: &Outbox, counters: &WorkerCounters) {
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
            What::ResponseRetransmission
            | What::ResponseUnasked
            | What::ReplyRetransmission
            | What::ReplyUnasked => {
                retransmissions.inc(Retransmission::ResponseSent);
            }
            What::Request => counters.relayed_requests.inc(),
            What::Ack | What::Cancel => {}
        }
    }
}

/// Shows what the table holds.
pub(super) fn show_usage(usage: Usage, counters: &WorkerCounters) {
    let levels = &counters.transactions;
    levels.active.set(usage.active as u64);
    levels.lingering.set(usage.absorbers as u64);
    levels.stored_bytes.set(usage.bytes as u64);
}
