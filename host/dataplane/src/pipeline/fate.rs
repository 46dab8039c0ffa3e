//! The outcome of a message, as it is logged and traced.

use std::fmt::Display;

use portcullis_sip::Destination;

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
    /// A rejection by the host: its code and phrase, its cause, and a more detailed description of the error.
    Rejected {
        code: u16,
        reason: &'a str,
        cause: &'static str,
        detail: Option<&'a dyn Display>,
    },
    /// Nothing is sent.
    Dropped {
        cause: &'static str,
        detail: Option<&'a dyn Display>,
    },
}

/// The status code and phrase of a reply written by this host: `SIP/2.0 401 Address not authorised`.
pub(super) fn phrase_of(reply: &[u8]) -> &str {
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
