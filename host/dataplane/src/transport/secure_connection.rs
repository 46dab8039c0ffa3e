//! Connections over TLS as operators see them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use portcullis_sip::{ConnectionId, Transport};
use portcullis_tls::Session;

/// A connection after its TLS handshake.
#[derive(Clone, Debug)]
pub struct Secured {
    /// The end of the connection at this host.
    pub local: SocketAddr,
    /// What the handshake has settled and proved.
    pub session: Arc<Session>,
}

/// A connection over TLS.
#[derive(Clone, Debug)]
pub struct SecureConnection {
    /// Its number in this process.
    pub id: ConnectionId,
    /// SIP over TLS, or WebSocket over TLS.
    pub transport: Transport,
    /// The end of the peer.
    pub peer: SocketAddr,
    /// Whether this host has opened it, and uses it for requests to the peer.
    pub is_opened_by_host: bool,
    /// What came of the handshake; `None` before its end.
    pub secured: Option<Secured>,
    /// Bytes that wait to be sent over it, with the overhead that is counted for each message.
    pub waiting: usize,
    /// How long it may be without a message.
    pub idle: Duration,
}

impl SecureConnection {
    /// A number that fits where Kamailio's tools have one: the last 31 bits of the id. No two connections have the same one, because ids are
    /// given in sequence.
    pub fn number(&self) -> u32 {
        Self::number_of(self.id)
    }

    pub(super) fn number_of(id: ConnectionId) -> u32 {
        let low = id.0 & u64::from(u32::MAX >> 1);
        u32::try_from(low).unwrap_or(u32::MAX)
    }
}
