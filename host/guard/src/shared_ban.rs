//! A ban as the hosts of a fleet exchange it.

use std::hash::{BuildHasher, RandomState};

use crate::bar::Reason;
use crate::prefix::Prefix;

/// A host of the fleet: a random number of its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostId(pub(crate) u64);

/// An item of the exchange. Each host has items of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// What it is about, and whose it is.
    pub key: [u8; 16],
    /// What it says; never 0.
    pub value: u64,
    /// Until when it counts, in milliseconds since 1970.
    pub ends: u64,
}

/// What a host has done to a source: it has banned the source, or an operator has released it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SharedBan {
    pub(crate) source: Prefix,
    pub(crate) host: HostId,
    /// When, in milliseconds since 1970; later than each change of the source that the host knew of.
    pub(crate) stamp: u64,
    pub(crate) is_lifted: bool,
    /// Why the source is banned, or was.
    pub(crate) reason: Reason,
    /// When the ban ends, or would have ended, in milliseconds since 1970.
    pub(crate) ends: u64,
}

/// Bits of the reason.
const REASON: u64 = 0xf;

/// The bit that says that a source was released.
const LIFTED: u64 = 0x10;

/// Bits below the time.
const STAMP_SHIFT: u32 = 8;

impl HostId {
    /// A random one.
    pub(crate) fn new() -> Self {
        Self(RandomState::new().hash_one(0))
    }
}

impl SharedBan {
    /// As an item: the source and the host, the rest, and the end.
    pub(crate) fn item(&self) -> Item {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&self.source.number().to_be_bytes());
        key[8..].copy_from_slice(&self.host.0.to_be_bytes());
        let lifted = match self.is_lifted {
            true => LIFTED,
            false => 0,
        };
        Item {
            key,
            value: self.stamp << STAMP_SHIFT | lifted | self.reason as u64,
            ends: self.ends,
        }
    }

    /// What is in an item; `None` if no host writes it so.
    pub(crate) fn of_item(item: Item) -> Option<Self> {
        let [source, host] = halves(item.key);
        let ban = Self {
            source: Prefix::of_number(source)?,
            host: HostId(host),
            stamp: item.value >> STAMP_SHIFT,
            is_lifted: item.value & LIFTED != 0,
            reason: *Reason::ALL.get((item.value & REASON) as usize)?,
            ends: item.ends,
        };
        let is_source = Prefix::of(ban.source.ip()) == ban.source;
        (is_source && ban.item() == item).then_some(ban)
    }

    /// Of two changes of a source, the one with the higher rank counts: the later one.
    pub(crate) fn rank(&self) -> (u64, HostId) {
        (self.stamp, self.host)
    }
}

fn halves(key: [u8; 16]) -> [u64; 2] {
    let whole = u128::from_be_bytes(key);
    [(whole >> 64) as u64, whole as u64]
}
