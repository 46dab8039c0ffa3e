//! Where datagrams are received.

use std::net::SocketAddr;

use super::NOWHERE;

/// Unused bytes after each slot. Slots that begin at multiples of a large power of two would all compete for the same few
/// sets of the processor's caches.
const STAGGER: usize = 1_600;

/// One received datagram.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) bytes: Vec<u8>,
    pub(crate) source: SocketAddr,
    pub(crate) truncated: bool,
}

impl Slot {
    pub(crate) fn new(room: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(room + STAGGER),
            source: NOWHERE,
            truncated: false,
        }
    }
}
