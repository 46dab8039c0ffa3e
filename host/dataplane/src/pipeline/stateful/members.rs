//! What the result of a target says about the destination of the dispatcher that it was.

use portcullis_dispatcher::Sign;
use portcullis_sip::{HeaderName, Message, StartLine};
use portcullis_transaction::{Attempt, Cause};

/// The sign, with the status code of an answer. `None` if the result says nothing about the destination.
pub(super) fn sign_of(attempt: &Attempt) -> Option<(Sign, Option<u16>)> {
    match (attempt.cause, attempt.code) {
        // It serves nobody now (RFC 3261 §21.5.4).
        (Cause::Answered, 503) => Some((Sign::Failure, Some(503))),
        (Cause::Answered, code) => Some((Sign::Success, Some(code))),
        (Cause::NoAnswer | Cause::Unreachable | Cause::Unresolved, _) => {
            Some((Sign::Failure, None))
        }
        // It has answered provisionally, or had no time to answer, or was not asked.
        (Cause::RangOut | Cause::Cancelled | Cause::Refused, _) => None,
    }
}

/// The seconds for which a response asks for no further requests: Retry-After of a 503 (RFC 3261 §20.33, §21.5.4).
pub(super) fn retry_after(message: Message<'_>) -> Option<u32> {
    let StartLine::Response { code: 503, .. } = message.start_line() else {
        return None;
    };
    let value = message
        .header(HeaderName::RetryAfter)?
        .value
        .trim_ascii_start();
    // A comment or parameters may follow.
    let digits = value.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(None, |seconds, digit| {
        let tens = seconds.unwrap_or(0_u32).saturating_mul(10);
        Some(tens.saturating_add(u32::from(digit - b'0')))
    })
}

/// Whether the destination has accepted the request.
pub(super) fn is_accepted(attempt: &Attempt) -> bool {
    attempt.cause == Cause::Answered && (200..300).contains(&attempt.code)
}

/// The Call-ID of an INVITE.
pub(super) fn call_id_of_invite(message: Message<'_>) -> Option<&[u8]> {
    match message.start_line() {
        StartLine::Request {
            method: b"INVITE", ..
        } => message.header(HeaderName::CallId).map(|field| field.value),
        StartLine::Request { .. } | StartLine::Response { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use portcullis_sip::{Framing, Index, Limits, scan};

    use super::*;

    #[test]
    fn a_503_may_ask_for_a_pause() {
        let of = |code: u16, line: &str| {
            let bytes = format!("SIP/2.0 {code} Busy\r\n{line}Content-Length: 0\r\n\r\n");
            let mut index = Index::default();
            // The header fields that a response must have are missing.
            let _fault = scan(
                bytes.as_bytes(),
                Framing::Stream,
                &Limits::default(),
                &mut index,
            );
            retry_after(Message::new(bytes.as_bytes(), &index))
        };
        for (line, seconds) in [
            ("Retry-After: 5\r\n", Some(5)),
            ("Retry-After:\t18000;duration=3600\r\n", Some(18_000)),
            ("Retry-After: 120 (I'm in a meeting)\r\n", Some(120)),
            ("Retry-After: 99999999999999\r\n", Some(u32::MAX)),
            ("Retry-After: soon\r\n", None),
            ("Retry-After: -5\r\n", None),
            ("Retry-After: ;duration=5\r\n", None),
            ("", None),
        ] {
            assert_eq!(of(503, line), seconds, "{line}");
        }
        assert_eq!(of(486, "Retry-After: 5\r\n"), None);
    }

    #[test]
    fn silence_and_503_are_failures() {
        let of = |cause, code| {
            sign_of(&Attempt {
                code,
                cause,
                took: Duration::ZERO,
            })
        };
        assert_eq!(of(Cause::Answered, 503), Some((Sign::Failure, Some(503))));
        assert_eq!(of(Cause::Answered, 486), Some((Sign::Success, Some(486))));
        assert_eq!(of(Cause::Answered, 500), Some((Sign::Success, Some(500))));
        for cause in [Cause::NoAnswer, Cause::Unreachable, Cause::Unresolved] {
            assert_eq!(of(cause, 408), Some((Sign::Failure, None)));
        }
        for cause in [Cause::RangOut, Cause::Cancelled, Cause::Refused] {
            assert_eq!(of(cause, 408), None);
        }
    }
}
