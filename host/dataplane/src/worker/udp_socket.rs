//! The UDP sockets of a worker.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use portcullis_udp::{Polled, Sender};
use tracing::warn;

/// Datagrams per system call. More than 8 gains little, more than 32 nothing.
pub(crate) const BATCH: usize = 32;

/// One UDP socket of a worker, with its queue of datagrams to send.
#[derive(Debug)]
pub(crate) struct Udp {
    pub(super) socket: Rc<Polled>,
    pub(super) local: SocketAddr,
    pub(super) sender: Sender,
    /// Drop count reported by the system so far; see [`portcullis_udp::overflows`].
    pub(super) overflows: u32,
    /// Whether this process receives from the socket, and counts what is lost.
    pub(super) receives: bool,
}

impl Udp {
    /// Takes ownership of a bound socket. To be called on the worker's runtime. With `reports_errors`, errors that the network reports can be
    /// read.
    pub(crate) fn new(
        socket: std::net::UdpSocket,
        local: SocketAddr,
        reports_errors: bool,
    ) -> io::Result<Self> {
        if reports_errors && let Err(error) = portcullis_udp::report_errors(&socket) {
            warn!(event = "icmp_not_reported", %local, %error, "the system does not report ICMP errors: a target that is gone is noticed by timers only");
        }
        // Another process may have had the socket before.
        let overflows = portcullis_udp::overflows(&socket).unwrap_or(0);
        Ok(Self {
            socket: Rc::new(Polled::new(socket)?),
            local,
            sender: Sender::new(BATCH),
            overflows,
            receives: true,
        })
    }

    /// Only sends from now on: another process receives from the socket.
    pub(super) fn leave(&mut self) -> io::Result<()> {
        self.socket = Rc::new(self.socket.for_sending()?);
        self.receives = false;
        Ok(())
    }
}
