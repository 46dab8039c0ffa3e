//! What was received from other hosts.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why a packet of another host is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// It is none of this format, or has no seal of a key that this host knows.
    Unsealed,
    /// It is sealed, and not for this host or not by one of the configured hosts.
    Stranger,
    /// It is of, or for, a process that has ended, or whose host has not been heard of yet.
    Session,
    /// It has been received before.
    Replayed,
    /// It came to a socket that this host does not have.
    Socket,
    /// The worker cannot take more.
    Full,
}

impl Refusal {
    /// Every value, in the order of their numbers.
    pub const ALL: [Self; 6] = [
        Self::Unsealed,
        Self::Stranger,
        Self::Session,
        Self::Replayed,
        Self::Socket,
        Self::Full,
    ];

    /// The label of metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Unsealed => "unsealed",
            Self::Stranger => "stranger",
            Self::Session => "session",
            Self::Replayed => "replayed",
            Self::Socket => "socket",
            Self::Full => "full",
        }
    }
}

/// Counters that the thread of [`Peers`](crate::Peers) writes.
#[derive(Debug, Default)]
pub struct Counts {
    received: AtomicU64,
    refused: [AtomicU64; Refusal::ALL.len()],
}

impl Counts {
    /// Messages that were received from other hosts and handed to a worker.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Packets that were refused for this reason.
    pub fn refused(&self, why: Refusal) -> u64 {
        self.refused[why as usize].load(Ordering::Relaxed)
    }

    pub(crate) fn note_received(&self) {
        self.received.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn note_refused(&self, why: Refusal) {
        self.refused[why as usize].fetch_add(1, Ordering::Relaxed);
    }
}
