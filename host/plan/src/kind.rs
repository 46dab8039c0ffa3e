//! What a host has.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use thiserror::Error;

/// A kind of items. The order is that in which they are created and changed; they are removed in the opposite order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Tenants in the database.
    #[serde(rename = "tenants")]
    Tenant,
    /// Active policies of seats.
    #[serde(rename = "policies")]
    Policy,
    /// Rows of the table of addresses.
    #[serde(rename = "addresses")]
    Address,
    /// Rows of the table of trusted peers.
    Trusted,
    /// Rows of the table of the dispatcher.
    Dispatcher,
}

/// A text that names no kind.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("unknown kind \"{0}\": the kinds are tenants, policies, addresses, trusted and dispatcher")]
pub struct UnknownKind(String);

impl Kind {
    /// All kinds, in their order.
    pub const ALL: [Self; 5] = [
        Self::Tenant,
        Self::Policy,
        Self::Address,
        Self::Trusted,
        Self::Dispatcher,
    ];

    /// Returns the name, which is also that of its files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "tenants",
            Self::Policy => "policies",
            Self::Address => "addresses",
            Self::Trusted => "trusted",
            Self::Dispatcher => "dispatcher",
        }
    }

    /// Returns the noun for one item.
    pub const fn noun(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Policy => "policy",
            Self::Address => "address",
            Self::Trusted => "trusted peer",
            Self::Dispatcher => "destination",
        }
    }

    /// Whether items can be removed. A seat keeps its policy until another one replaces it, or its tenant is removed.
    pub const fn is_prunable(self) -> bool {
        match self {
            Self::Policy => false,
            Self::Tenant | Self::Address | Self::Trusted | Self::Dispatcher => true,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        let found = Self::ALL.into_iter().find(|kind| kind.as_str() == text);
        found.ok_or_else(|| UnknownKind(text.to_owned()))
    }
}
