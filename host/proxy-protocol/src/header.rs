//! What a header says, and what can be wrong with it.

use std::net::SocketAddr;

use thiserror::Error;

/// For whom a load balancer has opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// For itself, to check the health of this host, or for a client that it does not name (`LOCAL`, `UNKNOWN`, `UNSPEC`, a Unix socket, a
    /// datagram): the connection is its own.
    Own,
    /// For a client.
    Client {
        /// The address of the client.
        source: SocketAddr,
        /// The address that the client has connected to: one of the load balancer.
        destination: SocketAddr,
    },
}

/// Why a connection does not begin with a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// It begins with something else.
    #[error("no PROXY header")]
    Missing,
    /// A version other than 1 and 2.
    #[error("a PROXY header of version {0}: only 1 and 2 are known")]
    Version(u8),
    /// A command of version 2 that does not exist.
    #[error("a PROXY header with the unknown command {0}")]
    Command(u8),
    /// An address family or a protocol of version 2 that does not exist.
    #[error("a PROXY header with the unknown family and protocol 0x{0:02x}")]
    Family(u8),
    /// The addresses do not fit into the length that the header names.
    #[error("a PROXY header with {0} bytes for its addresses: too few")]
    TooShort(usize),
    /// The length exceeds [`LONGEST`](crate::LONGEST).
    #[error("a PROXY header of {0} bytes: too long")]
    TooLong(usize),
    /// A line of version 1 that cannot be read.
    #[error("a line of PROXY version 1 that cannot be read")]
    Line,
}
