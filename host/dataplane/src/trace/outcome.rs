//! What becomes of a message, in a word.

use serde::Deserialize;

/// What becomes of a message.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A request that was sent on.
    Relayed,
    /// A response that was sent back.
    Returned,
    /// A request that was answered with success: OPTIONS to the host.
    Answered,
    /// A request that was answered with a failure.
    Rejected,
    /// An ACK to a rejection of ours.
    Absorbed,
    /// Nothing was sent.
    Dropped,
    /// It was to be sent and could not be.
    Undelivered,
}

impl Outcome {
    /// Its name.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Relayed => "relayed",
            Self::Returned => "returned",
            Self::Answered => "answered",
            Self::Rejected => "rejected",
            Self::Absorbed => "absorbed",
            Self::Dropped => "dropped",
            Self::Undelivered => "undelivered",
        }
    }
}
