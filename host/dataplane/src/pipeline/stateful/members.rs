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

    use super::*;

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
