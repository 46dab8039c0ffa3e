//! The sockets that hosts have in common.

/// A UDP socket, as all hosts see it: hosts that share it have it under the same number, and write the same name into their Via. Their own addresses
/// may differ behind a load balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Its number in `listen`.
    pub(crate) number: u16,
    /// A hash of its name.
    pub(crate) name: u64,
}

impl Socket {
    /// Its number in `listen`.
    pub fn number(self) -> u16 {
        self.number
    }
}

/// The hash of a name, `HOST:PORT` as in Via; 0 for a socket without one, which is not shared.
pub(crate) fn hash_of(name: &str) -> u64 {
    match name {
        "" => 0,
        name => fnv(name.as_bytes()).max(1),
    }
}

/// FNV-1a: names and addresses are the operator's, so they need no key.
pub(crate) fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
