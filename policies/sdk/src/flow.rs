//! What becomes of the flow that a request goes along.

/// What becomes of the flow of a client that the request goes along if it is relayed: see [`route`](crate::flows::route).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flow {
    /// It goes along no flow: no Route value of the host has a token.
    #[default]
    None,
    /// The flow is there. Of a flow over UDP, the host knows no more than that its token is valid.
    Alive,
    /// The flow is gone: its connection is closed, its token has expired, or its socket is not in `listen` any more. If the request is relayed,
    /// the sender gets 430.
    Gone,
    /// The token is forged, or that of another tenant's client. If the request is relayed, the sender gets 403.
    Invalid,
}
