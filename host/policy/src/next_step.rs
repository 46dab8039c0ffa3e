//! What `on-failure` decides.

use std::fmt;

use crate::verdict::{InvalidVerdict, Rejection};

/// What happens after all targets of a request have failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextStep {
    /// The sender gets the best response.
    Best,
    /// The sender gets this response.
    Answer(Rejection),
    /// The targets that the call has added have their turn ([`Evaluator::take_forwarding`](crate::Evaluator::take_forwarding)).
    Again,
}

impl NextStep {
    /// Validates the step of a call that has or has not added targets.
    pub(crate) fn checked(self, has_targets: bool) -> Result<Self, InvalidVerdict> {
        match &self {
            Self::Answer(rejection) => rejection.check()?,
            Self::Again if !has_targets => return Err(InvalidVerdict::NoTargets),
            Self::Best | Self::Again => {}
        }
        Ok(self)
    }
}

/// For logs: `best`, `answer 486 Busy Here`, `again`.
impl fmt::Display for NextStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Best => f.write_str("best"),
            Self::Answer(Rejection { code, reason, .. }) if reason.is_empty() => {
                write!(f, "answer {code}")
            }
            Self::Answer(Rejection { code, reason, .. }) => write!(f, "answer {code} {reason}"),
            Self::Again => f.write_str("again"),
        }
    }
}
