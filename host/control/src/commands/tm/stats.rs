//! `tm.stats`.

use portcullis_config::TokenRole;
use portcullis_metrics::{FinalClass, TransactionCounters, WorkerCounters};
use portcullis_rpc::{Call, Fault};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Control;
use crate::caller::Caller;
use crate::commands::{FromCall, Procedure};

/// `tm.stats`.
#[derive(Debug)]
pub(crate) struct Stats;

/// The reply of `tm.stats`, with Kamailio's names in Kamailio's order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TransactionStats {
    /// Transactions in memory.
    pub current: u64,
    /// Of these, those that only wait for retransmissions.
    pub waiting: u64,
    /// Transactions since the start.
    pub total: u64,
    /// Transactions of requests of the host itself: none.
    pub total_local: u64,
    /// Responses received.
    pub rpl_received: u64,
    /// Responses that the host generated within transactions.
    pub rpl_generated: u64,
    /// Responses sent: generated and relayed.
    pub rpl_sent: u64,
    /// Transactions that ended with a 6xx response.
    #[serde(rename = "6xx")]
    pub global_failures: u64,
    /// Transactions that ended with a 5xx response.
    #[serde(rename = "5xx")]
    pub server_errors: u64,
    /// Transactions that ended with a 4xx response.
    #[serde(rename = "4xx")]
    pub client_errors: u64,
    /// Transactions that ended with a 3xx response.
    #[serde(rename = "3xx")]
    pub redirections: u64,
    /// Transactions that ended with a 2xx response.
    #[serde(rename = "2xx")]
    pub successes: u64,
    /// Transactions since the start.
    pub created: u64,
    /// Transactions that are no longer in memory.
    pub freed: u64,
    /// Transactions whose memory was still in use when they were freed: none.
    pub delayed_free: u64,
}

impl FromCall for Stats {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        call.no_params().map(|()| Self)
    }
}

impl Procedure for Stats {
    type Reply = TransactionStats;

    const NEEDS: TokenRole = TokenRole::Read;

    async fn execute(self, control: &Control, _: &Caller) -> Result<TransactionStats, Fault> {
        Ok(TransactionStats::of(&control.shared.counters))
    }
}

impl TransactionStats {
    fn of(workers: &[WorkerCounters]) -> Self {
        let sum = |pick: &dyn Fn(&WorkerCounters) -> u64| workers.iter().map(pick).sum::<u64>();
        let total = |pick: &dyn Fn(&TransactionCounters) -> u64| sum(&|w| pick(&w.transactions));
        let ended = |class| total(&|t| t.ended.value(class));
        let waiting = total(&|t| t.lingering.value());
        let current = total(&|t| t.active.value()) + waiting;
        let created = total(&|t| t.begun.value());
        let generated = total(&|t| t.replies.value());
        Self {
            current,
            waiting,
            total: created,
            total_local: 0,
            rpl_received: sum(&WorkerCounters::received_responses),
            rpl_generated: generated,
            rpl_sent: generated + sum(&|w| w.relayed_responses.value()),
            global_failures: ended(FinalClass::GlobalFailure),
            server_errors: ended(FinalClass::ServerError),
            client_errors: ended(FinalClass::ClientError),
            redirections: ended(FinalClass::Redirection),
            successes: ended(FinalClass::Success),
            created,
            // The levels are counted after the events, so for a moment there may be more.
            freed: created.saturating_sub(current),
            delayed_free: 0,
        }
    }
}
