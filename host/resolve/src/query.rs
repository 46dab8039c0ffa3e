//! Queries and answers.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// The shortest time for which records are used, whatever their TTL.
pub const TTL_LEAST: Duration = Duration::from_secs(5);

/// The longest time for which records are used, whatever their TTL.
pub const TTL_MOST: Duration = Duration::from_secs(3_600);

/// How long an answer without records is used.
pub const TTL_NONE: Duration = Duration::from_secs(30);

/// How long a failed query is not repeated.
pub const TTL_FAILED: Duration = Duration::from_secs(5);

/// The time for which records with this TTL are used.
pub fn ttl_of(ttl: Duration) -> Duration {
    ttl.clamp(TTL_LEAST, TTL_MOST)
}

/// A question to the DNS.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Query {
    /// The name, in lower case. With a final dot, it is complete; without one, the search list of the system applies.
    pub name: String,
    /// The type of records.
    pub kind: Kind,
}

/// A type of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Which services a domain has (RFC 3403).
    Naptr,
    /// The servers of a service (RFC 2782).
    Srv,
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
}

impl Kind {
    /// Every type.
    pub const ALL: [Self; 4] = [Self::Naptr, Self::Srv, Self::A, Self::Aaaa];

    /// The name of the type in the DNS.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Naptr => "NAPTR",
            Self::Srv => "SRV",
            Self::A => "A",
            Self::Aaaa => "AAAA",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// What is known of the answer to a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Records.
    Found {
        /// The records.
        records: Records,
        /// For how long they hold.
        ttl: Duration,
        /// Why they are those of an earlier answer; `None` for current ones.
        stale: Option<String>,
    },
    /// The name has no such records, or does not exist.
    None {
        /// For how long that holds.
        ttl: Duration,
    },
    /// The query failed: no answer in time, an error of the server, or an unreadable answer.
    Failed {
        /// Why.
        error: String,
        /// When it is worth another try.
        ttl: Duration,
    },
}

impl Answer {
    /// For how long the answer holds.
    pub fn ttl(&self) -> Duration {
        match self {
            Self::Found { ttl, .. } | Self::None { ttl } | Self::Failed { ttl, .. } => *ttl,
        }
    }
}

/// The records of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Records {
    /// Services.
    Naptr(Vec<Naptr>),
    /// Servers.
    Srv(Vec<Srv>),
    /// Addresses.
    Addresses(Vec<IpAddr>),
}

impl Records {
    /// Number of records.
    pub fn len(&self) -> usize {
        match self {
            Self::Naptr(records) => records.len(),
            Self::Srv(records) => records.len(),
            Self::Addresses(records) => records.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A NAPTR record (RFC 3403 §4.1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Naptr {
    /// Lower ones go first.
    pub order: u16,
    /// Among those with the same order, lower ones go first.
    pub preference: u16,
    /// `s`: the replacement has SRV records.
    pub flags: String,
    /// The service, for example `SIP+D2U`.
    pub service: String,
    /// A rewrite rule; empty in records of SIP.
    pub regexp: String,
    /// The name to ask next.
    pub replacement: String,
}

/// An SRV record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Srv {
    /// Lower ones go first.
    pub priority: u16,
    /// The share among those with the same priority.
    pub weight: u16,
    /// The port of the server.
    pub port: u16,
    /// The name of the server; `.`: there is none.
    pub target: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ttls_have_a_floor_and_a_ceiling() {
        let seconds = |ttl| ttl_of(Duration::from_secs(ttl)).as_secs();
        assert_eq!(
            [0, 4, 5, 300, 3_600, 604_800].map(seconds),
            [5, 5, 5, 300, 3_600, 3_600]
        );
    }
}
