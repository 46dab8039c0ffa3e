//! The keys that are derived from the seal keys of a fleet.

use std::fmt;
use std::hash::Hasher;
use std::net::SocketAddr;
use std::num::NonZeroU32;

use siphasher::sip::SipHasher24;
use siphasher::sip128;

/// Bytes of the keyed hash at the end of a packet.
pub(crate) const SEAL: usize = 16;

/// What is derived from one seal key.
pub(crate) struct Key {
    seal: sip128::SipHasher24,
    tag: SipHasher24,
    challenge: SipHasher24,
}

/// The keys of a host, that for writing first. The others are accepted.
#[derive(Debug)]
pub(crate) struct Keys(Box<[Key]>);

impl Keys {
    /// Of the seal key for writing, and of those that are still accepted.
    pub(crate) fn new(current: &[u8; 16], earlier: &[[u8; 16]]) -> Self {
        let all = std::iter::once(current).chain(earlier);
        Self(all.map(Key::new).collect())
    }

    /// The key for writing.
    pub(crate) fn current(&self) -> &Key {
        &self.0[0]
    }

    /// The number of the key that has sealed a packet, and what it sealed.
    pub(crate) fn open<'p>(&self, packet: &'p [u8]) -> Option<(usize, &'p [u8])> {
        let (sealed, seal) = packet.split_at_checked(packet.len().checked_sub(SEAL)?)?;
        let number = self.0.iter().position(|key| key.seal(sealed) == seal)?;
        Some((number, sealed))
    }

    /// The tags of a host, one for each key.
    pub(crate) fn tags(&self, addr: SocketAddr) -> Box<[NonZeroU32]> {
        self.0.iter().map(|key| key.tag(addr)).collect()
    }
}

impl Key {
    fn new(secret: &[u8; 16]) -> Self {
        let root = SipHasher24::new_with_key(secret);
        let halves = |purpose: &[u8; 8]| {
            [0, 1].map(|half| {
                let mut hasher = root;
                hasher.write(purpose);
                hasher.write_u8(half);
                hasher.finish()
            })
        };
        let derive = |purpose| {
            let [first, second] = halves(purpose);
            SipHasher24::new_with_keys(first, second)
        };
        let [first, second] = halves(b"peerseal");
        Self {
            seal: sip128::SipHasher24::new_with_keys(first, second),
            tag: derive(b"peer-tag"),
            challenge: derive(b"peerchal"),
        }
    }

    /// The keyed hash of a packet.
    pub(crate) fn seal(&self, sealed: &[u8]) -> [u8; SEAL] {
        self.seal.hash(sealed).as_u128().to_be_bytes()
    }

    /// The tag of the host with this address: who has seen it cannot say which address it is.
    pub(crate) fn tag(&self, addr: SocketAddr) -> NonZeroU32 {
        let hash = self.tag.hash(&bytes_of(addr));
        NonZeroU32::new(hash as u32).unwrap_or(NonZeroU32::MIN)
    }

    /// A number that nobody without the key can know before.
    pub(crate) fn challenge(&self, session: u64, count: u64) -> u64 {
        let mut hasher = self.challenge;
        hasher.write_u64(session);
        hasher.write_u64(count);
        hasher.finish()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(secret)")
    }
}

/// An address in 18 bytes.
pub(crate) fn bytes_of(addr: SocketAddr) -> [u8; 18] {
    let ip = match addr.ip().to_canonical() {
        std::net::IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        std::net::IpAddr::V6(ip) => ip,
    };
    let mut bytes = [0; 18];
    bytes[..16].copy_from_slice(&ip.octets());
    bytes[16..].copy_from_slice(&addr.port().to_be_bytes());
    bytes
}
