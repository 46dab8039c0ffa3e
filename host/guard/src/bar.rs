//! Holds and bans.

/// What happens to a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Only a few requests a second are served, beside those that cannot be forged.
    Held,
    /// Nothing is accepted.
    Banned,
}

/// Why a source is held or banned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// Too many requests were refused.
    Refusals,
    /// Requests for too many different users were refused.
    Users,
    /// Too many challenges without a success.
    Challenges,
    /// Too many malformed messages or unknown methods.
    Malformed,
    /// Too many messages.
    Flood,
    /// An operator has banned it.
    Operator,
}

impl Kind {
    /// As the log and the command line show it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Banned => "banned",
        }
    }
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 6] = [
        Self::Refusals,
        Self::Users,
        Self::Challenges,
        Self::Malformed,
        Self::Flood,
        Self::Operator,
    ];

    /// As metrics, the log and the command line show it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refusals => "refusals",
            Self::Users => "users",
            Self::Challenges => "challenges",
            Self::Malformed => "malformed",
            Self::Flood => "flood",
            Self::Operator => "operator",
        }
    }
}

/// A hold or ban, up to this second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bar {
    pub(crate) kind: Kind,
    pub(crate) reason: Reason,
    pub(crate) end: u32,
}

/// Bits of the hash of a source that its bar contains: the row of the table may meanwhile belong to another source.
const OWNER: u64 = 0x00ff_ffff;

impl Bar {
    /// In one number, which is never 0: 32 bits of time, 24 of the hash of the source, 8 of kind and reason.
    pub(crate) fn packed(self, hash: u64) -> u64 {
        let kind = match self.kind {
            Kind::Held => 0x10,
            Kind::Banned => 0x20,
        };
        u64::from(self.end) << 32 | (hash & OWNER) << 8 | kind | self.reason as u64
    }

    /// The bar of the source with this hash at this second; `None` if it is that of another source, or over.
    #[inline]
    pub(crate) fn unpacked(packed: u64, hash: u64, now: u32) -> Option<Self> {
        let end = (packed >> 32) as u32;
        if end <= now || packed >> 8 & OWNER != hash & OWNER {
            return None;
        }
        let kind = match packed & 0xf0 {
            0x10 => Kind::Held,
            0x20 => Kind::Banned,
            _ => return None,
        };
        let reason = *Reason::ALL.get((packed & 0xf) as usize)?;
        Some(Self { kind, reason, end })
    }

    /// The second in which a packed bar ends, whoever it belongs to.
    pub(crate) fn end_of(packed: u64) -> u32 {
        (packed >> 32) as u32
    }
}
