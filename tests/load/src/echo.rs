//! The reference: a server that returns every datagram unchanged, in batches.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use portcullis_udp::{Receiver, Sender};

use crate::crowd::BATCH;
use crate::socket;

/// A server that returns every datagram.
pub struct Echo {
    socket: UdpSocket,
    receiver: Receiver,
    sender: Sender,
}

impl Echo {
    /// Binds the socket.
    ///
    /// # Errors
    /// If the address is in use.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = socket::bind(address)?;
        socket.set_nonblocking(false)?;
        Ok(Self {
            socket,
            receiver: Receiver::new(BATCH),
            sender: Sender::new(BATCH),
        })
    }

    /// The address that it listens on.
    ///
    /// # Errors
    /// Those of `getsockname`.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Waits for datagrams and returns them.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn turn(&mut self) -> io::Result<usize> {
        let count = socket::receive(&mut self.receiver, &self.socket)?;
        for nth in 0..count {
            let (bytes, from, _) = self.receiver.datagram(nth);
            self.sender.push(bytes, from);
        }
        socket::send(&mut self.sender, &self.socket)?;
        Ok(count)
    }
}
