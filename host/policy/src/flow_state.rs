//! What becomes of the flow that a request goes along.

/// What becomes of the flow of a client that a request goes along if it is relayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FlowState {
    /// It goes along no flow.
    #[default]
    None,
    /// The flow is there, as far as the host knows.
    Alive,
    /// The flow is gone.
    Gone,
    /// Its token is forged, or that of another tenant's client.
    Invalid,
}

impl FlowState {
    /// Every state, in the order of the contract.
    pub const ALL: [Self; 4] = [Self::None, Self::Alive, Self::Gone, Self::Invalid];

    /// As the contract names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Alive => "alive",
            Self::Gone => "gone",
            Self::Invalid => "invalid",
        }
    }
}
