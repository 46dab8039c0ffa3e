//! Both ends of a stream connection.

use std::net::SocketAddr;

use portcullis_sip::{Arrival, ConnectionId, Destination, Transport};

/// The endpoints of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct StreamPeer {
    pub(super) id: ConnectionId,
    pub(super) transport: Transport,
    pub(super) peer: SocketAddr,
    /// The address of the listener, by which peers know this host.
    pub(super) local: SocketAddr,
}

impl StreamPeer {
    pub(super) fn arrival(self) -> Arrival {
        Arrival {
            source: self.peer,
            local: self.local,
            transport: self.transport,
            connection: Some(self.id),
        }
    }

    /// The return path over this connection.
    pub(super) fn back(self) -> Destination {
        Destination {
            transport: self.transport,
            addr: self.peer,
            from: Some(self.local),
            connection: Some(self.id),
            name: None,
            is_flow: false,
        }
    }
}
