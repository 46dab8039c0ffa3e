//! Targets of a request: places, each with the time that it is given.

use std::time::Duration;

use crate::response::Header;

/// A place, and how the request is sent there.
///
/// A name alone is a next hop: most policies need no more than `relay_to("carrier-a").or("carrier-b")`.
///
/// ```
/// use std::time::Duration;
///
/// use portcullis_sdk::prelude::*;
///
/// let desk = Target::uri("sip:desk.example.com").request_uri("sip:bob@desk.example.com");
/// let mobile = Target::next_hop("mobile").header("X-Leg", "2").within(Duration::from_secs(6));
/// let verdict = fork([desk, mobile]).or("voicemail");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where.
    pub place: Place,
    /// Targets of the lowest rank go first; targets of one rank go together.
    pub rank: u8,
    /// The weight in a draw among the targets of its rank; `None` for 1.
    pub weight: Option<u16>,
    /// The request URI, in place of the received one.
    pub request_uri: Option<String>,
    /// Header fields for this target only.
    pub headers: Vec<Header>,
    /// Time until the first response.
    pub no_answer: Option<Duration>,
    /// Time until the final response to an INVITE.
    pub ring: Option<Duration>,
}

/// Where a request is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The next hop with this name in the host's configuration.
    NextHop(String),
    /// The host, port and transport of a `sip` URI.
    Uri(String),
}

/// Why the host does not accept a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The configuration has no next hop with this name.
    Unknown,
    /// The configuration does not permit this policy to send requests there, or to change a header field.
    NotPermitted,
    /// There are too many targets, header fields or codes, or the texts of all targets are too long.
    TooMany,
    /// A value is out of range, or the target was added or tried before.
    BadValue,
}

impl Target {
    /// The next hop with this name in the host's configuration.
    pub fn next_hop(name: impl Into<String>) -> Self {
        Self::to(Place::NextHop(name.into()))
    }

    /// The host, port and transport of a `sip` URI, which must be one of the next hops or domains of the host's configuration. The request
    /// URI stays as received unless [`request_uri`](Target::request_uri) changes it.
    pub fn uri(uri: impl Into<String>) -> Self {
        Self::to(Place::Uri(uri.into()))
    }

    /// Sets the weight. With a weight, one target of the rank is drawn, and the others follow it one by one.
    pub fn weight(self, weight: u16) -> Self {
        Self {
            weight: Some(weight),
            ..self
        }
    }

    /// Sets the request URI.
    pub fn request_uri(self, uri: impl Into<String>) -> Self {
        Self {
            request_uri: Some(uri.into()),
            ..self
        }
    }

    /// Adds a header field, under the rules of [`edits`](crate::edits).
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push(Header {
            name: name.into(),
            value: value.into(),
        });
        self
    }

    /// Sets the time until the first response: 100 ms to 32 s.
    pub fn within(self, time: Duration) -> Self {
        Self {
            no_answer: Some(time),
            ..self
        }
    }

    /// Sets the time until the final response to an INVITE: 1 s to 10 minutes. Each response from 101 to 199 starts it again.
    pub fn ring_for(self, time: Duration) -> Self {
        Self {
            ring: Some(time),
            ..self
        }
    }

    fn to(place: Place) -> Self {
        Self {
            place,
            rank: 0,
            weight: None,
            request_uri: None,
            headers: Vec::new(),
            no_answer: None,
            ring: None,
        }
    }
}

/// The next hop with this name.
impl From<&str> for Target {
    fn from(name: &str) -> Self {
        Self::next_hop(name)
    }
}

/// The next hop with this name.
impl From<String> for Target {
    fn from(name: String) -> Self {
        Self::next_hop(name)
    }
}

/// The next hop with this name.
impl From<&String> for Target {
    fn from(name: &String) -> Self {
        Self::next_hop(name)
    }
}

impl Place {
    /// The name or URI.
    pub fn as_str(&self) -> &str {
        match self {
            Self::NextHop(text) | Self::Uri(text) => text,
        }
    }
}

impl Refusal {
    /// The name in the contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::NotPermitted => "not-permitted",
            Self::TooMany => "too-many",
            Self::BadValue => "bad-value",
        }
    }
}
