//! The addresses of next hops that have failed lately.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::time::Instant;

use portcullis_sip::{Destination, Transport};
use portcullis_sync::Marks;

/// How long an address that has failed is tried after the other addresses of its name, in seconds.
const PENALTY: u32 = 30;

/// Many more than next hops have addresses; 8 bytes each.
const SLOTS: usize = 4_096;

/// The addresses that have failed within the last 30 s. They change the order in which the addresses of a name are tried, and nothing else: an
/// address that is the only one is used as before.
#[derive(Debug)]
pub struct FailedAddresses {
    marks: Marks,
    /// Nobody outside can choose addresses that share a slot.
    hasher: RandomState,
    start: Instant,
}

impl Default for FailedAddresses {
    fn default() -> Self {
        Self {
            marks: Marks::new(SLOTS),
            hasher: RandomState::new(),
            start: Instant::now(),
        }
    }
}

impl FailedAddresses {
    /// Whether this address has failed within the last 30 s.
    pub fn has(&self, transport: Transport, addr: SocketAddr) -> bool {
        self.marks.has(self.key(transport, addr), self.now())
    }

    /// Notes that an address has failed.
    pub fn note(&self, to: &Destination) {
        let until = self.now().saturating_add(PENALTY);
        self.marks.set(self.key(to.transport, to.addr), until);
    }

    /// Notes that an address has served a request.
    pub fn forget(&self, to: &Destination) {
        self.marks.clear(self.key(to.transport, to.addr));
    }

    fn key(&self, transport: Transport, addr: SocketAddr) -> u64 {
        self.hasher.hash_one((transport, addr))
    }

    fn now(&self) -> u32 {
        u32::try_from(self.start.elapsed().as_secs()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_fails_with_its_transport_and_port() {
        let failed = FailedAddresses::default();
        let to = |port, transport| Destination {
            transport,
            addr: SocketAddr::from(([192, 0, 2, 1], port)),
            from: None,
            connection: None,
            name: None,
            is_flow: false,
        };
        let has = |to: &Destination| failed.has(to.transport, to.addr);
        failed.note(&to(5060, Transport::Udp));
        assert!(has(&to(5060, Transport::Udp)));
        assert!(!has(&to(5061, Transport::Udp)) && !has(&to(5060, Transport::Tcp)));
        failed.forget(&to(5060, Transport::Udp));
        assert!(!has(&to(5060, Transport::Udp)));
    }
}
