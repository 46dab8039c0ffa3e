//! Whether the other hosts are heard.

use std::sync::atomic::{AtomicU32, Ordering};

/// Whether the other hosts are heard, for all tables of this host.
#[derive(Debug)]
pub(super) struct Footing {
    /// What rates are divided by: 1 while the others are heard, otherwise their number with this host when they were heard last.
    divisor: AtomicU32,
    /// Number of hosts when they were heard last, this one included.
    hosts: AtomicU32,
    /// Grows whenever the others are not heard any more. What they admitted from then on was within their shares.
    era: AtomicU32,
}

impl Footing {
    pub(super) fn divisor(&self) -> u32 {
        self.divisor.load(Ordering::Relaxed)
    }

    pub(super) fn hosts(&self) -> u32 {
        self.hosts.load(Ordering::Relaxed)
    }

    pub(super) fn era(&self) -> u32 {
        self.era.load(Ordering::Relaxed)
    }

    pub(super) fn set_hosts(&self, hosts: Option<usize>) {
        match hosts {
            Some(hosts) => {
                let hosts = u32::try_from(hosts.max(1)).unwrap_or(u32::MAX);
                self.hosts.store(hosts, Ordering::Relaxed);
                self.divisor.store(1, Ordering::Relaxed);
            }
            None => {
                let hosts = self.hosts.load(Ordering::Relaxed);
                self.divisor.store(hosts, Ordering::Relaxed);
                self.era.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Default for Footing {
    fn default() -> Self {
        Self {
            divisor: AtomicU32::new(1),
            hosts: AtomicU32::new(1),
            era: AtomicU32::new(0),
        }
    }
}
