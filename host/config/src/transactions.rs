//! `[transactions]`: limits of the transactions of a stateful proxy.

use std::time::Duration;

use super::section::Section;
use super::value::{GIB, MIB, count, duration, size};

/// Limits of the transactions of a stateful proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionsConfig {
    /// Most transactions in progress, for each worker.
    pub active: usize,
    /// Most ended transactions that absorb retransmissions, for each worker.
    pub lingering: usize,
    /// Most bytes of stored messages, for the host.
    pub memory: u64,
    /// How long after its start the host relays responses of transactions that it does not know.
    pub adopt: Duration,
}

impl Default for TransactionsConfig {
    fn default() -> Self {
        Self {
            active: 200_000,
            lingering: 1_000_000,
            memory: GIB,
            adopt: Duration::from_secs(200),
        }
    }
}

pub(super) fn read(mut section: Section<'_>, default: TransactionsConfig) -> TransactionsConfig {
    let read = TransactionsConfig {
        active: section.value("active", default.active, |v| count(v, 1, 10_000_000)),
        lingering: section.value("lingering", default.lingering, |v| count(v, 1, 10_000_000)),
        memory: section.value("memory", default.memory, |v| size(v, MIB, 1024 * GIB)),
        adopt: section.value("adopt", default.adopt, |v| {
            duration(v, Duration::ZERO, Duration::from_secs(86_400))
        }),
    };
    section.finish();
    read
}
