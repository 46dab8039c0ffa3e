//! What happens after all targets of a request have failed.

use crate::forwarding::Forwarding;
use crate::response::{Header, Rejection};
use crate::verdict::Verdict;

/// What happens after all targets of a request have failed.
///
/// Made by [`best_answer`], [`answer`] and [`again`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a step does nothing unless the policy returns it"]
pub enum NextStep {
    /// The sender gets the best response.
    Best,
    /// The sender gets this response.
    Answer(Rejection),
    /// These targets have their turn.
    Again(Forwarding),
}

impl NextStep {
    /// Adds a header field to an [`answer`].
    ///
    /// # Panics
    /// If the step is not an answer.
    #[track_caller]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let Self::Answer(rejection) = &mut self else {
            panic!("header() is for answer() only");
        };
        rejection.headers.push(Header {
            name: name.into(),
            value: value.into(),
        });
        self
    }
}

/// The sender gets the best response of all targets (RFC 3261 §16.7).
pub fn best_answer() -> NextStep {
    NextStep::Best
}

/// The sender gets this response, with a status code from 300 to 699 (Kamailio: `t_reply`).
pub fn answer(code: u16, reason: impl Into<String>) -> NextStep {
    NextStep::Answer(Rejection {
        code,
        reason: reason.into(),
        headers: Vec::new(),
    })
}

/// More targets have their turn, which a verdict names: `again(relay_to("last-resort"))`.
///
/// # Panics
/// If the verdict names no target.
#[track_caller]
pub fn again(verdict: Verdict) -> NextStep {
    NextStep::Again(verdict.into_targets())
}
