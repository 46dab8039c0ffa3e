//! Metrics of transactions.

use std::fmt;

use portcullis_metrics::{
    AttemptResult, FinalClass, HandoverResult, IcmpError, Label, Retransmission,
    TransactionCounters,
};

use super::Page;

impl Page<'_, '_> {
    pub(super) fn transactions(&mut self) -> fmt::Result {
        let (workers, page) = (self.workers, self);
        let total = |count: &dyn Fn(&TransactionCounters) -> u64| {
            let each = workers.iter().map(|worker| count(&worker.transactions));
            each.sum::<u64>()
        };
        let active = total(&|t| t.active.value());
        page.gauge("transactions_active", "Transactions in progress", active)?;
        page.gauge(
            "transactions_lingering",
            "Ended transactions that absorb retransmissions",
            total(&|t| t.lingering.value()),
        )?;
        page.gauge(
            "transactions_stored_bytes",
            "Size of the messages that transactions store, and of what policies said about their requests",
            total(&|t| t.stored_bytes.value()),
        )?;
        page.counter(
            "transactions_begun",
            "Requests relayed in a transaction",
            total(&|t| t.begun.value()),
        )?;
        let ended = FinalClass::ALL
            .iter()
            .map(|&class| (class.label(), total(&|t| t.ended.value(class))));
        page.family(
            "transactions_ended",
            "Transactions that ended, by class of their final response",
            "code",
            ended,
        )?;
        page.counter(
            "transactions_cancelled",
            "Transactions that their sender or tm.cancel cancelled",
            total(&|t| t.cancelled.value()),
        )?;
        page.counter(
            "transactions_shed",
            "Requests answered 503 because a limit of [transactions] was reached",
            total(&|t| t.shed.value()),
        )?;
        page.counter(
            "unconfirmed_failures",
            "Failure responses to an INVITE that were never acknowledged",
            total(&|t| t.unconfirmed.value()),
        )?;
        page.counter(
            "late_successes",
            "2xx responses to an INVITE after its first final response",
            total(&|t| t.late_successes.value()),
        )?;
        page.counter(
            "address_failovers",
            "Addresses of targets that failed and were followed by another address",
            total(&|t| t.failovers.value()),
        )?;
        let attempts = AttemptResult::ALL
            .iter()
            .map(|&result| (result.label(), total(&|t| t.attempts.value(result))));
        page.family(
            "attempts",
            "Targets of transactions, by result",
            "result",
            attempts,
        )?;
        let named = workers.iter().take(1);
        let named = named.flat_map(|worker| worker.transactions.next_hop_attempts.names());
        let total = &total;
        let attempts = named.flat_map(|name| {
            AttemptResult::ALL.iter().map(move |&result| {
                let labels = [("next_hop", name), ("result", result.label())];
                (labels, total(&|t| t.next_hop_attempts.value(name, result)))
            })
        });
        page.series(
            "next_hop_attempts",
            "Targets of transactions that are named next hops, by result",
            attempts,
        )?;
        let retransmissions = Retransmission::ALL
            .iter()
            .map(|&kind| (kind.label(), total(&|t| t.retransmissions.value(kind))));
        page.family(
            "retransmissions",
            "Retransmissions received and sent",
            "kind",
            retransmissions,
        )?;
        let unmatched = [
            ("stray", total(&|t| t.strays.value())),
            ("adopted", total(&|t| t.adopted.value())),
            ("passed", total(&|t| t.passed.value())),
            ("not_passed", total(&|t| t.not_passed.value())),
            ("conflict", total(&|t| t.conflicts.value())),
        ];
        page.family(
            "unmatched_messages",
            "Messages without a transaction: stray responses, responses adopted after a start or from another host, messages passed on to the process before an upgrade or not, requests in conflict with another sender's",
            "kind",
            unmatched,
        )?;
        let icmp_errors = IcmpError::ALL
            .iter()
            .map(|&what| (what.label(), total(&|t| t.icmp_errors.value(what))));
        page.family(
            "icmp_errors",
            "ICMP errors about datagrams that the host sent: destination unreachable",
            "about",
            icmp_errors,
        )?;
        let handovers = HandoverResult::ALL
            .iter()
            .map(|&result| (result.label(), total(&|t| t.handovers.value(result))));
        page.family(
            "handovers",
            "Messages received by a worker that does not own their transaction",
            "result",
            handovers,
        )?;
        page.times(
            "transaction_first_response_seconds",
            "Time from a request that is relayed in a transaction to its first response above 100",
            |w| &w.transactions.first_responses,
        )?;
        page.times(
            "transaction_final_response_seconds",
            "Time from a request that is relayed in a transaction to its final response",
            |w| &w.transactions.final_responses,
        )
    }
}
