//! What a policy asks of the host beside its verdict.

use crate::standing::Offence;

/// What a call asks of the host beside its verdict. Nothing of it has happened when the call ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// What the source is reported for.
    pub report: Option<Offence>,
    /// Whether the sender is treated as a client that only its flow leads to, if the request is relayed.
    pub keeps_flow: bool,
}
