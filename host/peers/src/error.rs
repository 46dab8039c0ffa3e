//! Why a host cannot take part.

use std::io;
use std::net::SocketAddr;

use thiserror::Error;

/// Why a host cannot exchange messages with others.
#[derive(Debug, Error)]
pub enum PeersError {
    /// The address cannot be bound.
    #[error(
        "[fleet] peers-listen = \"{addr}\": {source}; write an address of this machine and a free port"
    )]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// Two hosts have the same tag.
    #[error(
        "[fleet] peers: {one} and {other} have the same tag, so answers could not be told apart; write another port for one of them, on all hosts"
    )]
    SameTag {
        /// One of the hosts.
        one: SocketAddr,
        /// The other one.
        other: SocketAddr,
    },
    /// The system provides no random numbers.
    #[error("the system provides no random numbers: {0}")]
    Random(String),
    /// The thread cannot be started.
    #[error("cannot start the thread that receives messages of other hosts: {0}")]
    Thread(io::Error),
}
