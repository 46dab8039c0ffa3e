//! What a policy says beyond its verdict about where a request goes: targets, and what happens after their failure.

use std::fmt;
use std::time::Duration;

use portcullis_dispatcher::uri_of_name;
use portcullis_sip::{Scheme, Uri, is_readable_uri};
use serde_json::{Value, json};
use thiserror::Error;

use crate::verdict::{MAX_HEADERS, check_next_hop, check_value, may_be_edited};

/// Most targets of a request, those that `on-failure` adds included.
pub const MAX_TARGETS: u8 = 16;
/// Longest memo of a policy in bytes.
pub const MAX_MEMO: usize = 256;
/// Most bytes of the texts of all targets of a request, [`MAX_MEMO`] bytes for the memo included. A transaction stores them until it ends.
pub const MAX_TARGET_BYTES: usize = 64 << 10;
/// Longest request URI of a target in bytes.
pub const MAX_REQUEST_URI: usize = 2048;
/// Most codes that a policy names for the next rank.
pub const MAX_CODES: usize = 32;

/// Memory of a pair of texts in a list, in addition to their bytes.
const PAIR: usize = 48;

/// What a call said about where the request goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forwarding {
    /// The targets, in the order in which they were added. Empty if the call only set other fields: then the verdict names the destination.
    pub targets: Vec<ForwardTarget>,
    /// Whether one target of a rank is drawn by weight and the others follow it one by one.
    pub share: bool,
    /// The codes after which the next rank has its turn; 3, 4 and 5 mean a whole class. `None`: the host's default and, after a call of
    /// `on-failure`, the codes so far.
    pub retry_on: Option<Vec<u16>>,
    /// The memo for the next call of `on-failure`. A call of `on-failure` that sets none keeps the previous one.
    pub memo: Vec<u8>,
}

/// A place, and how the request is sent there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardTarget {
    /// Where.
    pub place: Place,
    /// Targets of the lowest rank go first; targets of one rank go together.
    pub rank: u8,
    /// The weight in a draw among the targets of its rank.
    pub weight: u16,
    /// The request URI, in place of the received one.
    pub request_uri: Option<String>,
    /// Names and values of header fields for this target only.
    pub headers: Vec<(String, String)>,
    /// Limit of the time until the first response.
    pub no_answer: Option<Duration>,
    /// Limit of the time until the final response to an INVITE.
    pub ring: Option<Duration>,
}

/// Where a request is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The next hop with this name in the configuration.
    NextHop(String),
    /// The host, port and transport of a SIP URI.
    Uri(String),
    /// The destination of the dispatcher with this name as a next hop. Policies cannot name it: `dispatcher.add-set` chooses it.
    Member(String),
}

/// Why a call of the interface `forwarding` had no effect.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// There is no next hop with this name.
    #[error("unknown")]
    Unknown,
    /// Outside the scope of the policy.
    #[error("not-permitted")]
    NotPermitted,
    /// Too many targets, header fields or codes, or too long texts of all targets.
    #[error("too-many")]
    TooMany,
    /// A value is out of range, or the target is not a new one.
    #[error("bad-value")]
    BadValue,
}

impl ForwardTarget {
    /// Checks the values, not whether the scope permits them.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        self.place.check()?;
        let within = |time: Option<Duration>, least: u64, most: u64| {
            let range = Duration::from_millis(least)..=Duration::from_millis(most);
            time.is_none_or(|time| range.contains(&time))
        };
        if !within(self.no_answer, 100, 32_000) || !within(self.ring, 1_000, 600_000) {
            return Err(Refusal::BadValue);
        }
        let uri = self.request_uri.as_deref();
        if uri.is_some_and(|uri| uri.len() > MAX_REQUEST_URI || !is_readable_uri(uri.as_bytes())) {
            return Err(Refusal::BadValue);
        }
        if self.headers.len() > MAX_HEADERS {
            return Err(Refusal::TooMany);
        }
        let mut headers = self.headers.iter();
        let checked = headers.try_for_each(|(name, value)| {
            may_be_edited(name).and_then(|()| check_value(name, value))
        });
        checked.map_err(|_| Refusal::BadValue)
    }
}

impl ForwardTarget {
    /// Bytes of the texts: place, request URI and header fields.
    pub fn text_bytes(&self) -> usize {
        let headers = self.headers.iter();
        let headers = headers.map(|(name, value)| name.len() + value.len());
        let uri = self.request_uri.as_ref().map_or(0, String::len);
        self.place.as_str().len() + uri + headers.sum::<usize>()
    }

    /// Memory with the value itself, in bytes.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + PAIR * self.headers.len() + self.text_bytes()
    }

    /// The target as it is on a tape.
    pub(crate) fn as_json(&self) -> Value {
        let (next_hop, uri, member) = match &self.place {
            Place::NextHop(name) => (Some(name), None, None),
            Place::Uri(uri) => (None, Some(uri), None),
            Place::Member(name) => (None, None, Some(name)),
        };
        let milliseconds = |time: Option<Duration>| time.map(|time| time.as_millis() as u64);
        let headers = Some(&self.headers).filter(|headers| !headers.is_empty());
        // In alphabetical order, so that the text does not depend on how a build of `serde_json` orders members.
        let members = [
            ("headers", json!(headers)),
            ("member", json!(member)),
            ("next-hop", json!(next_hop)),
            ("no-answer", json!(milliseconds(self.no_answer))),
            ("rank", json!(self.rank)),
            ("request-uri", json!(self.request_uri)),
            ("ring", json!(milliseconds(self.ring))),
            ("uri", json!(uri)),
            ("weight", json!(self.weight)),
        ];
        let members = members.into_iter().filter(|(_, value)| !value.is_null());
        members
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }
}

impl Place {
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::NextHop(text) | Self::Uri(text) => text,
            Self::Member(name) => uri_of_name(name),
        }
    }

    fn check(&self) -> Result<(), Refusal> {
        let is_fine = match self {
            Self::NextHop(name) => check_next_hop(name).is_ok(),
            Self::Member(_) => true,
            Self::Uri(uri) if uri.len() > MAX_REQUEST_URI => false,
            Self::Uri(uri) => Uri::parse(uri.as_bytes()).is_ok_and(|uri| {
                uri.scheme == Scheme::Sip
                    && uri.known_transport().is_some()
                    && uri.maddr().is_none()
            }),
        };
        match is_fine {
            true => Ok(()),
            false => Err(Refusal::BadValue),
        }
    }
}

/// Checks the codes of `retry-on`.
pub(crate) fn check_codes(codes: &[u16]) -> Result<(), Refusal> {
    if codes.len() > MAX_CODES {
        return Err(Refusal::TooMany);
    }
    let is_fine = |code: &u16| match code {
        // Credentials and the end of a cancelled call are for the sender.
        401 | 407 | 487 => false,
        3..=5 | 300..=599 => true,
        _ => false,
    };
    match codes.iter().all(is_fine) {
        true => Ok(()),
        false => Err(Refusal::BadValue),
    }
}

impl Refusal {
    /// All refusals, in the order of the contract.
    pub(crate) const ALL: [Self; 4] = [
        Self::Unknown,
        Self::NotPermitted,
        Self::TooMany,
        Self::BadValue,
    ];
}

impl Forwarding {
    /// Memory beyond the value itself, in bytes.
    pub fn bytes(&self) -> usize {
        let targets = self.targets.iter().map(ForwardTarget::bytes);
        let codes = self.retry_on.as_ref().map_or(0, |codes| 2 * codes.len());
        targets.sum::<usize>() + codes + self.memo.len()
    }
}

/// For comparisons: `to {"next-hop":"carrier-a","rank":0,"weight":1}, retry on [486]`.
impl fmt::Display for Forwarding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = "to ";
        for target in &self.targets {
            write!(f, "{before}{}", target.as_json())?;
            before = ", ";
        }
        if self.share {
            f.write_str(", share")?;
        }
        if let Some(codes) = &self.retry_on {
            write!(f, ", retry on {codes:?}")?;
        }
        match self.memo.is_empty() {
            true => Ok(()),
            false => write!(f, ", memo {:?}", String::from_utf8_lossy(&self.memo)),
        }
    }
}

/// The name or URI.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> ForwardTarget {
        ForwardTarget {
            place: Place::NextHop("carrier".into()),
            rank: 0,
            weight: 1,
            request_uri: None,
            headers: Vec::new(),
            no_answer: None,
            ring: None,
        }
    }

    #[test]
    fn times_are_within_their_ranges() {
        for (no_answer, ring, is_fine) in [
            (100, 1_000, true),
            (32_000, 600_000, true),
            (99, 1_000, false),
            (32_001, 1_000, false),
            (100, 999, false),
            (100, 600_001, false),
        ] {
            let target = ForwardTarget {
                no_answer: Some(Duration::from_millis(no_answer)),
                ring: Some(Duration::from_millis(ring)),
                ..target()
            };
            assert_eq!(target.check().is_ok(), is_fine, "{no_answer} {ring}");
        }
    }

    #[test]
    fn request_uris_are_unambiguous() {
        for (uri, is_fine) in [
            ("sip:bob@192.0.2.1", true),
            ("sips:bob@example.com", true),
            ("tel:+4930123", true),
            ("", false),
            ("bob", false),
            ("sip:bob@exa mple.com", false),
            ("sip:bob@example.com\r\nVia: x", false),
            ("tel:+49\u{7f}", false),
            ("sip:@example.com", false),
        ] {
            let target = ForwardTarget {
                request_uri: Some(uri.to_owned()),
                ..target()
            };
            assert_eq!(target.check().is_ok(), is_fine, "{uri}");
        }
        let long = ForwardTarget {
            request_uri: Some(format!("sip:{}@example.com", "x".repeat(MAX_REQUEST_URI))),
            ..target()
        };
        assert_eq!(long.check(), Err(Refusal::BadValue));
    }

    #[test]
    fn places_are_next_hops_and_sip_uris() {
        let uri = |text: &str| Place::Uri(text.to_owned());
        let hop = |text: &str| Place::NextHop(text.to_owned());
        for (place, is_fine) in [
            (hop("carrier-a"), true),
            (hop(""), false),
            (hop("a\0b"), false),
            (uri("sip:192.0.2.1"), true),
            (uri("sip:bob@example.com:5070;transport=tcp"), true),
            (uri("sips:example.com"), false),
            (uri("tel:+4930123"), false),
            (uri("sip:example.com;transport=sctp"), false),
            (uri("sip:example.com;maddr=192.0.2.1"), false),
            (uri("sip:exa mple.com"), false),
            (
                uri(&format!("sip:{}@h", "x".repeat(MAX_REQUEST_URI))),
                false,
            ),
        ] {
            let target = ForwardTarget { place, ..target() };
            assert_eq!(target.check().is_ok(), is_fine, "{}", target.place);
        }
    }

    #[test]
    fn header_fields_follow_the_rules_of_edits() {
        let with = |name: &str, value: &str, count| {
            let headers = vec![(name.to_owned(), value.to_owned()); count];
            ForwardTarget {
                headers,
                ..target()
            }
            .check()
        };
        assert_eq!(with("X-A", "b", MAX_HEADERS), Ok(()));
        assert_eq!(with("X-A", "b", MAX_HEADERS + 1), Err(Refusal::TooMany));
        for (name, value) in [("Via", "x"), ("a b", "x"), ("X-A", "a\r\nb"), ("m", "x")] {
            assert_eq!(with(name, value, 1), Err(Refusal::BadValue), "{name}");
        }
    }

    #[test]
    fn codes_are_those_after_which_another_target_may_be_tried() {
        for fine in [&[][..], &[3, 4, 5], &[300, 486, 503, 599]] {
            assert_eq!(check_codes(fine), Ok(()), "{fine:?}");
        }
        for wrong in [0, 1, 2, 6, 200, 299, 401, 407, 487, 600, 603, u16::MAX] {
            assert_eq!(check_codes(&[503, wrong]), Err(Refusal::BadValue));
        }
        assert_eq!(check_codes(&[503; MAX_CODES + 1]), Err(Refusal::TooMany));
    }
}
