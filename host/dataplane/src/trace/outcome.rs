//! The outcome of a message, as a single word.

use serde::Deserialize;

/// The outcome of a message.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The request was relayed.
    Relayed,
    /// The response was sent back.
    Returned,
    /// The request was answered with success: OPTIONS to the host.
    Answered,
    /// The request was answered with a failure.
    Rejected,
    /// An ACK to a rejection by the host.
    Absorbed,
    /// Nothing was sent.
    Dropped,
    /// The message was to be sent, but could not be.
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
