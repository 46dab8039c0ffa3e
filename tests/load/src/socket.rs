//! Sockets with large buffers for bursts.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::thread;

use portcullis_udp::{Bind, Receiver, Sender};

/// Requested buffer size in bytes; the kernel grants at most net.core.rmem_max and wmem_max.
const BUFFER_BYTES: usize = 4 << 20;

/// A non-blocking socket.
pub(crate) fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let options = Bind {
        receive_buffer: BUFFER_BYTES,
        send_buffer: BUFFER_BYTES,
        ..Bind::default()
    };
    portcullis_udp::bind(address, options)
}

/// Receives waiting datagrams; 0 if there are none.
pub(crate) fn receive(receiver: &mut Receiver, socket: &UdpSocket) -> io::Result<usize> {
    match receiver.recv(socket) {
        Ok(count) => Ok(count),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        // An ICMP error of an earlier datagram (nobody listens there yet); the datagram counts as unanswered.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(0),
        Err(error) => Err(error),
    }
}

/// Sends everything in the queue. Several sockets share the queue, so nothing may stay in it.
pub(crate) fn send(sender: &mut Sender, socket: &UdpSocket) -> io::Result<()> {
    loop {
        match sender.flush(socket) {
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::yield_now(),
            Err(error) => return Err(error),
        }
    }
    match sender.failures().kept.pop() {
        // An ICMP error of an earlier datagram, as above.
        Some(last) if last.error.kind() != io::ErrorKind::ConnectionRefused => Err(last.error),
        _ => Ok(()),
    }
}
