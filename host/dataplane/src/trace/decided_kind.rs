//! The ways in which a policy call ends.

use portcullis_policy::{Failure, Verdict, VerdictKind};
use serde::{Deserialize, Serialize};

/// How a policy call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecidedKind {
    /// Relay.
    Relay,
    /// Reject.
    Reject,
    /// Drop.
    Drop,
    /// Pass to the next policy.
    Pass,
    /// The call failed.
    Failed,
}

impl DecidedKind {
    /// How this call ended.
    pub(crate) fn of(answer: &Result<Verdict, Failure>) -> Self {
        match answer.as_ref().map(VerdictKind::of) {
            Ok(VerdictKind::Relay) => Self::Relay,
            Ok(VerdictKind::Reject) => Self::Reject,
            Ok(VerdictKind::Drop) => Self::Drop,
            Ok(VerdictKind::Pass) => Self::Pass,
            Err(_) => Self::Failed,
        }
    }
}
