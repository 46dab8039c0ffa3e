//! Callees: what becomes of a request at a target.

use std::time::Duration;

use crate::outcome::Cause;

/// What a place does with a request: for [`Host::callee`](super::Host::callee).
///
/// Without times of their own, an answer comes after 20 ms, and a target that does not answer or rings on has the time of the policy or the
/// default of the host: 4 s where another target follows and 32 s otherwise for the first response, 185 s for the final one.
#[derive(Clone, Debug)]
pub struct Callee {
    does: Does,
    pub(super) after: Duration,
    pub(super) headers: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    Answer(u16),
    Ring,
    Nothing,
    Fail(u16, Cause),
}

impl Callee {
    /// It gives this final answer.
    ///
    /// # Panics
    /// If this is not a final status code: 200 to 699.
    #[track_caller]
    pub fn answers(status: u16) -> Self {
        assert!(
            (200..=699).contains(&status),
            "{status} is not a final status code"
        );
        Self::that(Does::Answer(status))
    }

    /// It rings and does nothing else.
    pub fn rings() -> Self {
        Self::that(Does::Ring)
    }

    /// It answers nothing at all.
    pub fn silent() -> Self {
        Self::that(Does::Nothing)
    }

    /// The network reports that it cannot be reached.
    pub fn unreachable() -> Self {
        Self::that(Does::Fail(503, Cause::Unreachable))
    }

    /// Its name has no address.
    pub fn unresolved() -> Self {
        Self::that(Does::Fail(503, Cause::Unresolved))
    }

    /// The host does not send the request there, because it would come back.
    pub fn loops() -> Self {
        Self::that(Does::Fail(482, Cause::Refused))
    }

    /// The time until its final answer. It rings meanwhile.
    pub fn after(self, time: Duration) -> Self {
        Self {
            after: time,
            ..self
        }
    }

    /// Adds a header field to its answer: Contact to a 302, Retry-After to a 503.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Its result: status, cause and time. `no_answer` limits the time until it rings, `ring` that until it answers.
    pub(super) fn result(&self, no_answer: Duration, ring: Duration) -> (u16, Cause, Duration) {
        match self.does {
            Does::Answer(_) if self.after > ring => (408, Cause::RangOut, ring),
            Does::Answer(status) => (status, Cause::Answered, self.after),
            Does::Ring => (408, Cause::RangOut, ring),
            Does::Nothing => (408, Cause::NoAnswer, no_answer),
            Does::Fail(status, cause) => (status, cause, Duration::ZERO),
        }
    }

    fn that(does: Does) -> Self {
        Self {
            does,
            after: Duration::from_millis(20),
            headers: Vec::new(),
        }
    }
}
