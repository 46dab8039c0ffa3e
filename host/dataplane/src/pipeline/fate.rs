//! The outcome of a message, as it is logged and traced.

use std::fmt::Display;

use portcullis_config::Answer;
use portcullis_policy::Rejection;
use portcullis_sip::{Destination, Received, RelayError};

/// The outcome of a message.
#[derive(Clone, Copy)]
pub(super) enum Fate<'a> {
    /// A success response of the host.
    Answered { code: u16, reason: &'a str },
    /// The request is relayed.
    Relayed(Destination),
    /// The response is sent back.
    Returned(Destination),
    /// An ACK to a rejection by the host.
    Absorbed,
    /// A rejection by the host.
    Rejected(Rejected<'a>),
    /// Nothing is sent.
    Dropped {
        cause: &'static str,
        detail: Option<&'a dyn Display>,
    },
}

/// A rejection by the host.
#[derive(Clone, Copy)]
pub(super) struct Rejected<'a> {
    pub(super) code: u16,
    pub(super) reason: &'a str,
    pub(super) cause: &'static str,
    /// A more detailed description of the error.
    pub(super) detail: Option<&'a dyn Display>,
}

impl<'a> Fate<'a> {
    /// The result of the first look, unless policies decide. `out` is the response of the host, if there is one.
    pub(super) fn of_look(
        received: &Received,
        out: &'a [u8],
        detail: Option<&'a dyn Display>,
    ) -> Option<Self> {
        let (code, reason) = (code_of(out), phrase_of(out));
        Some(match received {
            Received::Judge => return None,
            Received::Reply(_) if code >= 400 => Self::Rejected(Rejected {
                code,
                reason,
                cause: "check",
                detail,
            }),
            Received::Reply(_) => Self::Answered { code, reason },
            Received::Forward(to) => Self::Returned(*to),
            Received::Absorbed => Self::Absorbed,
            Received::Drop(reason) => Self::Dropped {
                cause: reason.label(),
                detail,
            },
        })
    }

    /// Nothing is sent, for this cause.
    pub(super) fn dropped(cause: &'static str) -> Self {
        Self::Dropped {
            cause,
            detail: None,
        }
    }
}

impl<'a> Rejected<'a> {
    /// A configured answer.
    pub(super) fn of_answer(answer: &'a Answer, cause: &'static str) -> Self {
        Self {
            code: answer.code,
            reason: &answer.reason,
            cause,
            detail: None,
        }
    }

    /// The rejection of a policy.
    pub(super) fn of_rejection(rejection: &'a Rejection, cause: &'static str) -> Self {
        Self {
            code: rejection.code,
            reason: &rejection.reason,
            cause,
            detail: None,
        }
    }

    /// The answer to a request that cannot be relayed.
    pub(super) fn of_relay(error: &'a RelayError) -> Self {
        Self {
            code: error.code(),
            reason: error.reason(),
            cause: error.kind().label(),
            detail: Some(error),
        }
    }
}

/// The status code of a reply written by this host: `SIP/2.0 401 …`.
pub(super) fn code_of(reply: &[u8]) -> u16 {
    let digits = reply.get(8..11).unwrap_or_default();
    digits.iter().fold(0, |code, digit| {
        code * 10 + u16::from(digit.wrapping_sub(b'0'))
    })
}

/// The phrase of a reply written by this host: `SIP/2.0 401 Address not authorised`.
fn phrase_of(reply: &[u8]) -> &str {
    let line = reply.split(|byte| *byte == b'\r').next();
    let phrase = line.and_then(|line| line.get(12..));
    phrase
        .and_then(|phrase| std::str::from_utf8(phrase).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_phrase_of_a_reply_is_read() {
        assert_eq!(phrase_of(b"SIP/2.0 400 Bad Via\r\nVia: x"), "Bad Via");
        assert_eq!(phrase_of(b"SIP"), "");
    }
}
