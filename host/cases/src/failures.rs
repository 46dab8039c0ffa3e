//! What becomes of the targets in a case, for a call of `on-failure`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use portcullis_config::{ForwardingLimits, parse_duration};
use portcullis_policy::{
    Attempt, Cause, FailedAttempts, ForwardTarget, Forwarding, Place, TriedTarget,
};
use portcullis_sip::standard_reason;
use thiserror::Error;

use crate::message::Values;

/// Why a text is not the result of a target.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ResultError {
    /// The form is wrong.
    #[error(
        "\"{0}\": write TARGET RESULT [TIME], for example \"carrier-a 503\" or \"carrier-a no-answer 4s\"; without a target it is for all \
         that have no result of their own"
    )]
    Form(String),
    /// The result is unknown.
    #[error("\"{0}\": a result is a status code from 300 to 699 or one of {1}")]
    Unknown(String, String),
    /// The policy has not named the target.
    #[error("the policy has not named the target {0}; it named {1}")]
    NotNamed(String, String),
}

/// The result of a target as a file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TargetResult {
    /// `None`: of all targets without a result of their own.
    place: Option<String>,
    status: u16,
    cause: Cause,
    milliseconds: u32,
}

/// The targets of a case so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    failed: FailedAttempts,
    /// Targets that have been named and have no result yet.
    waiting: Vec<ForwardTarget>,
    calls: u8,
}

impl TargetResult {
    /// `carrier-a no-answer 4s`, `carrier-a 503`, `486`
    pub(crate) fn parse(text: &str) -> Result<Self, ResultError> {
        let form = || ResultError::Form(text.to_owned());
        let words: Vec<_> = text.split_whitespace().collect();
        let (words, took) = match words.split_last() {
            Some((last, words)) if parse_duration(last).is_some() && !words.is_empty() => {
                (words, parse_duration(last).unwrap_or_default())
            }
            _ => (&words[..], Duration::ZERO),
        };
        let (place, result) = match *words {
            [result] => (None, result),
            [place, result] => (Some(place.to_owned()), result),
            _ => return Err(form()),
        };
        let (status, cause) = status(result).ok_or_else(|| {
            let causes = Cause::ALL
                .into_iter()
                .filter(|cause| *cause != Cause::Answered);
            let causes: Vec<_> = causes.map(Cause::as_str).collect();
            ResultError::Unknown(result.to_owned(), causes.join(", "))
        })?;
        Ok(Self {
            place,
            status,
            cause,
            milliseconds: u32::try_from(took.as_millis()).unwrap_or(u32::MAX),
        })
    }
}

/// The status that a result counts as, and its cause.
fn status(result: &str) -> Option<(u16, Cause)> {
    if let Ok(code) = result.parse() {
        return (300..=699)
            .contains(&code)
            .then_some((code, Cause::Answered));
    }
    let cause = Cause::ALL
        .into_iter()
        .find(|cause| cause.as_str() == result)?;
    let status = match cause {
        Cause::Answered => return None,
        Cause::NoAnswer | Cause::RangOut => 408,
        Cause::Cancelled => 487,
        Cause::Unreachable | Cause::Unresolved => 503,
        Cause::Refused => 403,
    };
    Some((status, cause))
}

impl Progress {
    /// Adds what a call said: the targets of its verdict, or the next hop. `uri` is the request URI, where a request without targets goes.
    pub(crate) fn named(
        &mut self,
        forwarding: Option<Forwarding>,
        next_hop: Option<&str>,
        uri: &str,
    ) {
        let forwarding = forwarding.unwrap_or_default();
        let memo = forwarding.memo;
        let mut targets = forwarding.targets;
        if targets.is_empty() {
            targets.push(plain(match next_hop {
                Some(name) => Place::NextHop(name.to_owned()),
                None => Place::Uri(uri.to_owned()),
            }));
        }
        self.failed.named += targets.len();
        let bytes = targets.iter().map(ForwardTarget::text_bytes);
        self.failed.named_bytes += bytes.sum::<usize>();
        if !memo.is_empty() {
            self.failed.memo = memo;
        }
        self.waiting.append(&mut targets);
    }

    /// Lets the targets fail, and returns the argument of `on-failure`. Without results, no target answers. `headers` are those of the best
    /// response.
    pub(crate) fn fail(
        &mut self,
        results: &[TargetResult],
        headers: &BTreeMap<String, Values>,
        is_invite: bool,
    ) -> Result<FailedAttempts, ResultError> {
        let named = |targets: &[ForwardTarget]| {
            let places: Vec<_> = targets
                .iter()
                .map(|target| target.place.to_string())
                .collect();
            places.join(", ")
        };
        for result in results {
            let Some(place) = &result.place else {
                continue;
            };
            let is_it = |target: &ForwardTarget| target.place.to_string() == *place;
            let Some(at) = self.waiting.iter().position(is_it) else {
                return Err(ResultError::NotNamed(place.clone(), named(&self.waiting)));
            };
            let target = self.waiting.remove(at);
            note(&mut self.failed, &target, result);
        }
        let rest = results.iter().find(|result| result.place.is_none());
        let silent = TargetResult {
            place: None,
            status: 408,
            cause: Cause::NoAnswer,
            milliseconds: 0,
        };
        let rest = rest.or_else(|| results.is_empty().then_some(&silent));
        if let Some(rest) = rest {
            for target in std::mem::take(&mut self.waiting) {
                note(&mut self.failed, &target, rest);
            }
        }
        self.calls += 1;
        let failed = &mut self.failed;
        failed.tries_left = ForwardingLimits::OPERATOR.tries.saturating_sub(self.calls);
        let attempts = failed.attempts.iter().enumerate();
        let best = attempts.min_by_key(|(_, attempt)| rank(attempt, is_invite));
        let best = best.map(|(at, attempt)| (at, attempt.clone()));
        failed.best = best.as_ref().map(|(at, _)| *at);
        failed.best_response = best
            .filter(|(_, attempt)| attempt.cause == Cause::Answered)
            .map(|(_, attempt)| response(attempt.status, headers));
        Ok(failed.clone())
    }
}

fn note(failed: &mut FailedAttempts, target: &ForwardTarget, result: &TargetResult) {
    failed.attempts.push(Attempt {
        place: target.place.to_string(),
        status: result.status,
        cause: result.cause,
        milliseconds: result.milliseconds,
    });
    failed.tried.push(TriedTarget {
        place: target.place.clone(),
        request_uri: target.request_uri.clone(),
    });
}

fn plain(place: Place) -> ForwardTarget {
    ForwardTarget {
        place,
        rank: 0,
        weight: 1,
        request_uri: None,
        headers: Vec::new(),
        no_answer: None,
        ring: None,
    }
}

/// The smaller, the better (RFC 3261 §16.7(6)), as `Best` of `portcullis-transaction` ranks: a failure of the host's own is worse than any
/// answer.
fn rank(attempt: &Attempt, is_invite: bool) -> u8 {
    let rank = match attempt.status {
        408 if !is_invite => return 20,
        600.. => 0,
        ..400 => 1,
        401 | 407 | 415 | 420 | 484 => 2,
        400..500 => 3,
        503 => 5,
        500..600 => 4,
    };
    match attempt.cause {
        Cause::Answered => rank,
        Cause::NoAnswer
        | Cause::RangOut
        | Cause::Cancelled
        | Cause::Unreachable
        | Cause::Unresolved
        | Cause::Refused => rank + 10,
    }
}

fn response(status: u16, headers: &BTreeMap<String, Values>) -> Vec<u8> {
    let mut text = format!(
        "SIP/2.0 {status} {}\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKcase\r\nFrom: <sip:alice@example.com>;tag=case\r\n\
         To: <sip:bob@example.com>;tag=callee\r\nCall-ID: case\r\nCSeq: 1 INVITE\r\n",
        standard_reason(status)
    );
    for (name, values) in headers {
        for value in &values.0 {
            let _infallible = write!(text, "{name}: {value}\r\n");
        }
    }
    text += "Content-Length: 0\r\n\r\n";
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_have_a_target_a_status_and_a_time() {
        let read = |text| TargetResult::parse(text).unwrap();
        let slow = read("carrier-a no-answer 4s");
        assert_eq!(slow.place.as_deref(), Some("carrier-a"));
        assert_eq!(
            (slow.status, slow.cause, slow.milliseconds),
            (408, Cause::NoAnswer, 4000)
        );
        let busy = read("486");
        assert_eq!(
            (busy.place, busy.status, busy.cause),
            (None, 486, Cause::Answered)
        );
        for wrong in [
            "",
            "a b c d",
            "carrier-a 200",
            "carrier-a perhaps",
            "answered",
        ] {
            assert!(TargetResult::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_best_response_is_that_of_the_host() {
        let mut progress = Progress::default();
        let forwarding = Forwarding {
            targets: ["a", "b", "c"]
                .map(|name| plain(Place::NextHop(name.to_owned())))
                .into(),
            memo: b"x".to_vec(),
            ..Forwarding::default()
        };
        progress.named(Some(forwarding), None, "sip:bob@example.com");
        let results =
            ["a 503", "c 486", "no-answer"].map(|text| TargetResult::parse(text).unwrap());
        let failed = progress.fail(&results, &BTreeMap::new(), true).unwrap();
        let places: Vec<_> = failed
            .attempts
            .iter()
            .map(|attempt| &*attempt.place)
            .collect();
        assert_eq!(places, ["a", "c", "b"]);
        assert_eq!(
            (failed.best, failed.tries_left, failed.named),
            (Some(1), 7, 3)
        );
        assert!(
            failed
                .best_response
                .unwrap()
                .starts_with(b"SIP/2.0 486 Busy Here\r\n")
        );
        assert_eq!(failed.memo, b"x");

        progress.named(None, Some("d"), "sip:bob@example.com");
        let error = progress.fail(
            &[TargetResult::parse("a 500").unwrap()],
            &BTreeMap::new(),
            true,
        );
        assert_eq!(error, Err(ResultError::NotNamed("a".into(), "d".into())));
    }
}
