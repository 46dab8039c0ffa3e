//! Metrics of what hosts that share an address pass to each other.

use std::fmt;

use portcullis_dataplane::shared::Shared;
use portcullis_metrics::TransactionCounters;
use portcullis_peers::Refusal;

use super::Page;

impl Page<'_, '_> {
    /// Nothing without such hosts.
    pub(super) fn peers(&mut self, shared: &Shared) -> fmt::Result {
        let Some(peers) = &shared.peers else {
            return Ok(());
        };
        self.gauge(
            "peers_alive",
            "Other hosts of [fleet] peers that live",
            peers.table().count() as u64,
        )?;
        let workers = self.workers;
        let total = |count: &dyn Fn(&TransactionCounters) -> u64| {
            let each = workers.iter().map(|worker| count(&worker.transactions));
            each.sum::<u64>()
        };
        let counts = peers.counts();
        let messages = [
            ("answer", total(&|t| t.answers_to_hosts.value())),
            ("request", total(&|t| t.requests_to_hosts.value())),
            ("not_passed", total(&|t| t.not_to_hosts.value())),
            ("received", counts.received()),
        ];
        self.family(
            "peer_messages",
            "Messages of transactions of other hosts that were passed to them or could not be, and messages received from them",
            "kind",
            messages,
        )?;
        let refused = Refusal::ALL
            .iter()
            .map(|&why| (why.label(), counts.refused(why)));
        self.family(
            "peer_packets_refused",
            "Packets at peers-listen that were refused, by reason",
            "reason",
            refused,
        )
    }
}
