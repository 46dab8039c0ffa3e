//! What the host listens on.

use std::fmt;
use std::net::SocketAddr;

use portcullis_sip::Transport;

/// One address that the host listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The transport.
    pub transport: Transport,
    /// The address, with the actual port, and as peers know it: without a zone.
    pub addr: SocketAddr,
    /// The number of the interface that a link-local address belongs to (its zone, RFC 4007 §6); 0 for other addresses.
    pub zone: u32,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.transport.parameter(), self.addr)
    }
}
