//! The UDP sockets of a worker.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use portcullis_udp::{Polled, Sender};

/// Datagrams that one system call receives or sends. More than 8 brings little, 32 is where nothing more comes.
pub(crate) const BATCH: usize = 32;

/// One UDP socket of a worker, with what waits to be sent from it.
#[derive(Debug)]
pub(crate) struct Udp {
    pub(super) socket: Rc<Polled>,
    pub(super) local: SocketAddr,
    pub(super) sender: Sender,
    /// What the system has counted so far; see [`portcullis_udp::overflows`].
    pub(super) overflows: u32,
}

impl Udp {
    /// Takes a bound socket over. To be called on the worker's runtime.
    pub(crate) fn new(socket: std::net::UdpSocket, local: SocketAddr) -> io::Result<Self> {
        Ok(Self {
            socket: Rc::new(Polled::new(socket)?),
            local,
            sender: Sender::new(BATCH),
            overflows: 0,
        })
    }
}
