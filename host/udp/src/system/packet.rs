//! Datagrams that are to be sent.

use super::Name;

/// One datagram and where it goes.
#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) bytes: Vec<u8>,
    pub(crate) to: Name,
}
