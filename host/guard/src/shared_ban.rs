//! What the hosts of a fleet exchange about a source: the number of the last command of an operator, and a ban.

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

/// What a host tells about a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Command(SharedCommand),
    Ban(SharedBan),
}

/// An operator has banned or released the source. Bans with a lower number are over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SharedCommand {
    pub(crate) source: Prefix,
    /// The host that tells of it.
    pub(crate) host: HostId,
    /// When it was given, by the clock of the exchange, in milliseconds since 1970; more than that of each command that its host knew of.
    pub(crate) number: u64,
    /// Until when it counts, in milliseconds since 1970.
    pub(crate) ends: u64,
}

/// A host has banned the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SharedBan {
    pub(crate) source: Prefix,
    pub(crate) host: HostId,
    /// The number of the command by which it was banned, or of the last one before; 0 if there was none.
    pub(crate) command: u64,
    pub(crate) reason: Reason,
    /// When the ban ends, in milliseconds since 1970.
    pub(crate) ends: u64,
}

/// Bits of the reason.
const REASON: u64 = 0xf;

/// Is in each value, so that it is never 0, and so that a sum of two values is no value.
const MARK: u64 = 0x40;

/// Bits below the number.
const NUMBER_SHIFT: u32 = 8;

/// Bits of a number.
const NUMBER: u64 = u64::MAX >> NUMBER_SHIFT;

/// The bit of a key that tells commands from bans. It is 0 in the number of a host.
const COMMAND: u64 = 1;

impl HostId {
    /// A random one.
    pub(crate) fn new() -> Self {
        Self(RandomState::new().hash_one(0) & !COMMAND)
    }
}

impl Told {
    /// As an item: the source, the host and which of the two; the number and the reason; the end.
    pub(crate) fn item(self) -> Item {
        let (source, host, number, rest, ends) = match self {
            Self::Command(told) => {
                let host = told.host.0 | COMMAND;
                (told.source, host, told.number, 0, told.ends)
            }
            Self::Ban(ban) => {
                let reason = ban.reason as u64;
                (ban.source, ban.host.0, ban.command, reason, ban.ends)
            }
        };
        let mut key = [0; 16];
        key[..8].copy_from_slice(&source.number().to_be_bytes());
        key[8..].copy_from_slice(&host.to_be_bytes());
        Item {
            key,
            value: (number & NUMBER) << NUMBER_SHIFT | MARK | rest,
            ends,
        }
    }

    /// What is in an item; `None` if no host writes it so.
    pub(crate) fn of_item(item: Item) -> Option<Self> {
        let [source, host] = halves(item.key);
        let source = Prefix::of_number(source)?;
        let number = item.value >> NUMBER_SHIFT;
        let told = match host & COMMAND {
            0 => Self::Ban(SharedBan {
                source,
                host: HostId(host),
                command: number,
                reason: *Reason::ALL.get((item.value & REASON) as usize)?,
                ends: item.ends,
            }),
            _ => Self::Command(SharedCommand {
                source,
                host: HostId(host & !COMMAND),
                number,
                ends: item.ends,
            }),
        };
        let is_source = Prefix::of(source.ip()) == source;
        (is_source && told.item() == item).then_some(told)
    }

    /// What it is about.
    pub(crate) fn source(self) -> Prefix {
        match self {
            Self::Command(told) => told.source,
            Self::Ban(ban) => ban.source,
        }
    }

    /// The number of its command.
    pub(crate) fn number(self) -> u64 {
        match self {
            Self::Command(told) => told.number,
            Self::Ban(ban) => ban.command,
        }
    }
}

impl SharedBan {
    /// Of two bans of a source, the one with the higher rank counts: that of the later command, and of the same command the one that ends later.
    pub(crate) fn rank(&self) -> (u64, u64, HostId, Reason) {
        (self.command, self.ends, self.host, self.reason)
    }
}

fn halves(key: [u8; 16]) -> [u64; 2] {
    let whole = u128::from_be_bytes(key);
    [(whole >> 64) as u64, whole as u64]
}
