//! How a destination of a set is chosen.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// How a destination of a set is chosen (Kamailio: the second argument of `ds_select_dst`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// 0: by the hash of Call-ID.
    CallId,
    /// 1: by the hash of the From URI.
    FromUri,
    /// 2: by the hash of the To URI.
    ToUri,
    /// 3: by the hash of the request URI.
    RequestUri,
    /// 4: one after the other.
    RoundRobin,
    /// 5: by the hash of the user in the credentials; one after the other without credentials.
    AuthUser,
    /// 6: at random.
    Random,
    /// 7: by the hash of a text that the policy names.
    Key,
    /// 8: the first in the order of priority.
    Priority,
    /// 9: in proportion to `weight`.
    Weight,
    /// 10: the one with the fewest calls.
    CallLoad,
    /// 11: in proportion to `rweight`, among the active ones.
    RelativeWeight,
    /// 12: all at once.
    Parallel,
    /// 13: the best by priority, lowered by latency; one after the other among the best.
    Latency,
    /// 15: as SRV records (RFC 2782): the lowest priority, and in proportion to `weight` among those.
    Srv,
}

/// What a choice is a hash of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashOf {
    /// Call-ID.
    CallId,
    /// The URI in From.
    FromUri,
    /// The URI in To.
    ToUri,
    /// The request URI.
    RequestUri,
    /// The user in the credentials.
    AuthUser,
    /// A text of the policy.
    Key,
}

/// Not an algorithm.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is not an algorithm: write a number from 0 to 13 or 15, or one of {names}", names = names())]
pub struct UnknownAlgorithm(String);

impl Algorithm {
    /// All of them, in the order of the contract.
    pub const ALL: [Self; 15] = [
        Self::CallId,
        Self::FromUri,
        Self::ToUri,
        Self::RequestUri,
        Self::RoundRobin,
        Self::AuthUser,
        Self::Random,
        Self::Key,
        Self::Priority,
        Self::Weight,
        Self::CallLoad,
        Self::RelativeWeight,
        Self::Parallel,
        Self::Latency,
        Self::Srv,
    ];

    /// Kamailio's number.
    pub fn number(self) -> u8 {
        match self {
            Self::CallId => 0,
            Self::FromUri => 1,
            Self::ToUri => 2,
            Self::RequestUri => 3,
            Self::RoundRobin => 4,
            Self::AuthUser => 5,
            Self::Random => 6,
            Self::Key => 7,
            Self::Priority => 8,
            Self::Weight => 9,
            Self::CallLoad => 10,
            Self::RelativeWeight => 11,
            Self::Parallel => 12,
            Self::Latency => 13,
            Self::Srv => 15,
        }
    }

    /// The name in the contract.
    pub fn name(self) -> &'static str {
        match self {
            Self::CallId => "call-id",
            Self::FromUri => "from-uri",
            Self::ToUri => "to-uri",
            Self::RequestUri => "request-uri",
            Self::RoundRobin => "round-robin",
            Self::AuthUser => "auth-user",
            Self::Random => "random",
            Self::Key => "key",
            Self::Priority => "priority",
            Self::Weight => "weight",
            Self::CallLoad => "call-load",
            Self::RelativeWeight => "relative-weight",
            Self::Parallel => "parallel",
            Self::Latency => "latency",
            Self::Srv => "srv",
        }
    }

    /// What the choice is a hash of; `None` for a choice that does not depend on the request.
    pub fn hash_of(self) -> Option<HashOf> {
        match self {
            Self::CallId => Some(HashOf::CallId),
            Self::FromUri => Some(HashOf::FromUri),
            Self::ToUri => Some(HashOf::ToUri),
            Self::RequestUri => Some(HashOf::RequestUri),
            Self::AuthUser => Some(HashOf::AuthUser),
            Self::Key => Some(HashOf::Key),
            Self::RoundRobin
            | Self::Random
            | Self::Priority
            | Self::Weight
            | Self::CallLoad
            | Self::RelativeWeight
            | Self::Parallel
            | Self::Latency
            | Self::Srv => None,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Reads a number or a name.
impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(text: &str) -> Result<Self, UnknownAlgorithm> {
        let number = text.parse::<u8>().ok();
        let mut all = Self::ALL.into_iter();
        let found = all.find(|one| Some(one.number()) == number || one.name() == text);
        found.ok_or_else(|| UnknownAlgorithm(text.to_owned()))
    }
}

fn names() -> String {
    Algorithm::ALL.map(Algorithm::name).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn algorithms_are_read_by_number_and_by_name() {
        for algorithm in Algorithm::ALL {
            let number = algorithm.number().to_string();
            assert_eq!(number.parse(), Ok(algorithm));
            assert_eq!(algorithm.name().parse(), Ok(algorithm));
        }
        for bad in ["14", "64", "", "Weight"] {
            let error = bad.parse::<Algorithm>().unwrap_err().to_string();
            assert!(error.contains("call-id, from-uri"), "{error}");
        }
    }
}
