//! `[transactions]`: limits of the transactions of a stateful proxy.

use std::time::Duration;

use portcullis_policy::Share;

use super::section::Section;
use super::value::{GIB, MIB, count, duration, share, size};

/// Limits of the transactions of a stateful proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionsConfig {
    /// Most transactions in progress, for each worker.
    pub active: usize,
    /// Most ended transactions that absorb retransmissions, for each worker.
    pub lingering: usize,
    /// Most bytes of stored messages, for the host.
    pub memory: u64,
    /// How full the table of a worker may be before each tenant is held to an equal part of it.
    pub unshared: Share,
    /// How long after its start the host relays responses of transactions that it does not know.
    pub adopt: Duration,
    /// Most time for calls in set-up to end after SIGTERM, including `drain_notice`.
    pub drain: Duration,
    /// How long after SIGTERM the host still accepts new requests.
    pub drain_notice: Duration,
}

/// 50 %.
const HALF: Share = match Share::of_hundredths(5_000) {
    Some(half) => half,
    None => Share::ALL,
};

impl Default for TransactionsConfig {
    fn default() -> Self {
        Self {
            active: 200_000,
            lingering: 1_000_000,
            memory: GIB,
            unshared: HALF,
            adopt: Duration::from_secs(200),
            drain: Duration::from_secs(30),
            drain_notice: Duration::from_secs(5),
        }
    }
}

pub(super) fn read(mut section: Section<'_>, default: TransactionsConfig) -> TransactionsConfig {
    let read = TransactionsConfig {
        active: section.value("active", default.active, |v| count(v, 1, 10_000_000)),
        lingering: section.value("lingering", default.lingering, |v| count(v, 1, 10_000_000)),
        memory: section.value("memory", default.memory, |v| size(v, MIB, 1024 * GIB)),
        unshared: section.value("unshared", default.unshared, share),
        adopt: section.value("adopt", default.adopt, |v| {
            duration(v, Duration::ZERO, Duration::from_secs(86_400))
        }),
        drain: section.value("drain", default.drain, |v| {
            duration(v, Duration::ZERO, Duration::from_secs(3_600))
        }),
        drain_notice: section.value("drain-notice", default.drain_notice, |v| {
            duration(v, Duration::ZERO, Duration::from_secs(3_600))
        }),
    };
    section.finish();
    read
}
