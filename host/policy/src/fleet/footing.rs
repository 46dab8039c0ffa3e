//! Whether the other hosts are heard.

use std::sync::atomic::{AtomicU64, Ordering};

/// Whether the other hosts are heard, for all tables of this host.
#[derive(Debug)]
pub(super) struct Footing(
    /// The number of hosts, and above it a bit that is set while the others are heard.
    AtomicU64,
);

/// The hosts that count together, this one included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peers {
    /// The others are heard: one limit for all.
    Heard {
        /// Number of hosts.
        hosts: u32,
    },
    /// The others are not heard, or were never heard: a share for each.
    Silent {
        /// Number of hosts when they were heard last; 1 if they never were.
        hosts: u32,
    },
}

/// Set while the others are heard.
const HEARD: u64 = 1 << 32;

impl Footing {
    #[inline]
    pub(super) fn peers(&self) -> Peers {
        let both = self.0.load(Ordering::Relaxed);
        let hosts = both as u32;
        match both & HEARD {
            0 => Peers::Silent { hosts },
            _ => Peers::Heard { hosts },
        }
    }

    pub(super) fn set_hosts(&self, hosts: Option<usize>) {
        match hosts {
            Some(hosts) => {
                let hosts = u32::try_from(hosts.max(1)).unwrap_or(u32::MAX);
                self.0.store(HEARD | u64::from(hosts), Ordering::Relaxed);
            }
            None => {
                self.0.fetch_and(!HEARD, Ordering::Relaxed);
            }
        }
    }
}

impl Default for Footing {
    fn default() -> Self {
        Self(AtomicU64::new(1))
    }
}
