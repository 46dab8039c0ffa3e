//! The arguments of `on-failure`: the targets that have failed, and the best response.

use std::cmp::Reverse;

use portcullis_sip::{
    Framing, Index, Limits, Message, NameAddr, StartLine, is_readable_uri, scan, values,
};

use crate::forwarding::Place;

/// Most Contact URIs that a policy reads of a response.
pub const MAX_CONTACTS: usize = 8;

/// The targets of a request, all of which have failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FailedAttempts {
    /// The targets that have had their turn, in order.
    pub attempts: Vec<Attempt>,
    /// The targets among them, which are not tried again.
    pub tried: Vec<TriedTarget>,
    /// The number of targets named so far, those that have not had their turn included.
    pub named: usize,
    /// Bytes of their texts ([`ForwardTarget::text_bytes`](crate::ForwardTarget::text_bytes)).
    pub named_bytes: usize,
    /// The index of the attempt whose response is the best one, if there is one.
    pub best: Option<usize>,
    /// The best response as received; `None` if it is the host's own.
    pub best_response: Option<Vec<u8>>,
    /// How often `on-failure` may be called after this call.
    pub tries_left: u8,
    /// The memo of the previous call.
    pub memo: Vec<u8>,
}

/// A target that has had its turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TriedTarget {
    /// Where the request was sent.
    pub place: Place,
    /// The request URI, if it was not the received one.
    pub request_uri: Option<String>,
}

/// The result of one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The name of the next hop, or the URI.
    pub place: String,
    /// The received status code, or the one that the cause counts as.
    pub status: u16,
    /// Where the code comes from.
    pub cause: Cause,
    /// Milliseconds from the turn of the target to its result.
    pub milliseconds: u32,
}

/// Why a target has its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// It answered.
    Answered,
    /// It did not answer in time.
    NoAnswer,
    /// It rang too long.
    RangOut,
    /// It was cancelled, because another answer made its own needless.
    Cancelled,
    /// It could not be reached.
    Unreachable,
    /// Its name has no address.
    Unresolved,
    /// The request must not be sent there.
    Refused,
}

impl FailedAttempts {
    /// The attempt with the best response.
    pub fn best(&self) -> Option<&Attempt> {
        self.attempts.get(self.best?)
    }

    /// Memory of their texts, in bytes.
    pub fn bytes(&self) -> usize {
        let attempts = self.attempts.iter();
        let attempts = attempts.map(|attempt| size_of::<Attempt>() + attempt.place.len());
        let tried = self.tried.iter().map(|target| {
            let uri = target.request_uri.as_ref().map_or(0, String::len);
            size_of::<TriedTarget>() + target.place.as_str().len() + uri
        });
        let response = self.best_response.as_ref().map_or(0, Vec::len);
        attempts.sum::<usize>() + tried.sum::<usize>() + response + self.memo.len()
    }

    /// `outcome.header`
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        self.with_response(|response| {
            let field = response.by_name(name).next()?;
            Some(String::from_utf8_lossy(&field.unfolded()).into_owned())
        })
    }

    /// `outcome.contacts`
    pub(crate) fn contacts(&self) -> Vec<String> {
        self.with_response(contacts).unwrap_or_default()
    }

    fn with_response<T>(&self, read: impl FnOnce(Message<'_>) -> Option<T>) -> Option<T> {
        let bytes = self.best_response.as_deref()?;
        let mut index = Index::default();
        scan(bytes, Framing::Datagram, &Limits::default(), &mut index).ok()?;
        read(Message::new(bytes, &index))
    }
}

impl Cause {
    /// All causes, in the order of the contract.
    pub const ALL: [Self; 7] = [
        Self::Answered,
        Self::NoAnswer,
        Self::RangOut,
        Self::Cancelled,
        Self::Unreachable,
        Self::Unresolved,
        Self::Refused,
    ];

    /// The name in the contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::NoAnswer => "no-answer",
            Self::RangOut => "rang-out",
            Self::Cancelled => "cancelled",
            Self::Unreachable => "unreachable",
            Self::Unresolved => "unresolved",
            Self::Refused => "refused",
        }
    }
}

/// The URIs of a redirection, those with the highest q first. A URI that could be read in more than one way is left out.
fn contacts(response: Message<'_>) -> Option<Vec<String>> {
    let StartLine::Response {
        code: 300..=399, ..
    } = response.start_line()
    else {
        return None;
    };
    let mut found = Vec::new();
    for field in response.by_name("Contact") {
        for value in values(&field.unfolded()) {
            let Ok(address) = NameAddr::parse(value.bytes) else {
                continue;
            };
            let uri = String::from_utf8(address.uri.to_vec());
            if let Ok(uri) = uri
                && is_readable_uri(uri.as_bytes())
            {
                let q = address.params.named("q").and_then(|q| q.value);
                found.push((Reverse(q.map_or(1000, thousandths)), uri));
            }
        }
    }
    found.sort_by_key(|(q, _)| *q);
    found.truncate(MAX_CONTACTS);
    Some(found.into_iter().map(|(_, uri)| uri).collect())
}

/// A qvalue (RFC 3261 §25.1) times 1000; 0 if it is not one.
fn thousandths(q: &[u8]) -> u16 {
    let text = std::str::from_utf8(q).unwrap_or_default();
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let is_short = decimals.len() <= 3 && decimals.bytes().all(|byte| byte.is_ascii_digit());
    let decimals = format!("{decimals:0<3}").parse().unwrap_or(u16::MAX);
    match (whole, decimals) {
        ("0", decimals) if is_short => decimals,
        ("1", 0) if is_short => 1000,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(response: &str) -> FailedAttempts {
        FailedAttempts {
            best_response: Some(response.as_bytes().to_vec()),
            ..FailedAttempts::default()
        }
    }

    #[test]
    fn header_fields_are_those_of_the_best_response() {
        let failed = failed(
            "SIP/2.0 486 Busy Here\r\nv: SIP/2.0/UDP 192.0.2.1\r\nRetry-After: 30\r\n (later)\r\nContent-Length: 0\r\n\r\n",
        );
        assert_eq!(failed.header("retry-after").as_deref(), Some("30 (later)"));
        assert_eq!(
            failed.header("Via").as_deref(),
            Some("SIP/2.0/UDP 192.0.2.1")
        );
        assert_eq!(failed.header("X-None"), None);
        assert!(failed.contacts().is_empty());
        assert_eq!(FailedAttempts::default().header("Via"), None);
    }

    #[test]
    fn contacts_of_a_redirection_are_in_the_order_of_q() {
        let failed = failed(
            "SIP/2.0 302 Moved\r\nVia: SIP/2.0/UDP 192.0.2.1\r\nContact: <sip:low@h>;q=0.1, \"a, b\" <sip:first@h>\r\nm: sip:half@h;q=0.5\r\n\
             Contact: *, <>, <sip:bad q@h>, <sip:odd@h>;q=7\r\nContact: <sip:second@h>;q=1.000\r\nContent-Length: 0\r\n\r\n",
        );
        assert_eq!(
            failed.contacts(),
            [
                "sip:first@h",
                "sip:second@h",
                "sip:half@h",
                "sip:low@h",
                "sip:odd@h"
            ]
        );
    }

    #[test]
    fn qvalues_have_at_most_three_decimals() {
        for (text, expected) in [
            ("1", 1000),
            ("1.0", 1000),
            ("0", 0),
            ("0.", 0),
            ("0.25", 250),
            ("0.7", 700),
            ("0.999", 999),
            ("0.9999", 0),
            ("1.1", 0),
            ("2", 0),
            ("", 0),
            ("x", 0),
            ("0.x", 0),
            (".5", 0),
        ] {
            assert_eq!(thousandths(text.as_bytes()), expected, "{text}");
        }
    }
}
