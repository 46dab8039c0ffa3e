//! The socket that a probe sends and receives on.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::Context;
use portcullis_sip::Transport;
use rustls::{ClientConnection, StreamOwned};
use socket2::{Domain, Socket, Type};

/// Time limit for opening a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// A socket or connection to one peer.
pub(super) struct Wire {
    local: SocketAddr,
    peer: SocketAddr,
    transport: Transport,
    socket: Connected,
    /// Bytes of a stream after the last message.
    received: Vec<u8>,
}

enum Connected {
    Udp(UdpSocket),
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Wire {
    /// A socket, or a TCP connection, which [`Wire::over`] continues with TLS.
    pub(super) fn open(
        transport: Transport,
        from: Option<SocketAddr>,
        peer: SocketAddr,
    ) -> anyhow::Result<Self> {
        let kind = if transport.is_reliable() {
            Type::STREAM
        } else {
            Type::DGRAM
        };
        let socket = Socket::new(Domain::for_address(peer), kind, None)?;
        if let Some(from) = from {
            if transport.is_reliable() {
                socket.set_reuse_address(true)?;
            }
            let bind = socket.bind(&from.into());
            bind.with_context(|| {
                format!("cannot send from {from}: is it an address of this machine?")
            })?;
        }
        let connect = socket.connect_timeout(&peer.into(), CONNECT);
        connect.with_context(|| format!("cannot reach {peer} over {transport}"))?;
        let local = socket
            .local_addr()?
            .as_socket()
            .context("the socket has no address")?;
        Ok(Self {
            local,
            peer,
            transport,
            socket: match transport.is_reliable() {
                true => Connected::Tcp(socket.into()),
                false => Connected::Udp(socket.into()),
            },
            received: Vec::new(),
        })
    }

    /// The same connection with TLS: `secure` makes the handshake.
    pub(super) fn over(
        self,
        secure: impl FnOnce(TcpStream) -> anyhow::Result<StreamOwned<ClientConnection, TcpStream>>,
    ) -> anyhow::Result<Self> {
        let socket = match self.socket {
            Connected::Tcp(stream) => Connected::Tls(Box::new(secure(stream)?)),
            other @ (Connected::Udp(_) | Connected::Tls(_)) => other,
        };
        Ok(Self { socket, ..self })
    }

    pub(super) fn send(&mut self, message: &[u8]) -> anyhow::Result<()> {
        let sent = match &mut self.socket {
            Connected::Udp(socket) => socket.send(message).map(drop),
            Connected::Tcp(stream) => stream.write_all(message),
            Connected::Tls(stream) => stream.write_all(message).and_then(|()| stream.flush()),
        };
        sent.with_context(|| format!("cannot send to {}", self.peer))
    }

    /// The next message; `None` if none arrives by `deadline`.
    pub(super) fn receive(&mut self, deadline: Instant) -> anyhow::Result<Option<Vec<u8>>> {
        let received = match &mut self.socket {
            Connected::Udp(socket) => receive_datagram(socket, deadline),
            Connected::Tcp(stream) => receive_framed(&mut self.received, |chunk| {
                stream.set_read_timeout(Some(left(deadline)?))?;
                stream.read(chunk)
            }),
            Connected::Tls(stream) => receive_framed(&mut self.received, |chunk| {
                stream.sock.set_read_timeout(Some(left(deadline)?))?;
                stream.read(chunk)
            }),
        };
        match received {
            Ok(message) => Ok(Some(message)),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                ) =>
            {
                Ok(None)
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                anyhow::bail!("no process listens on UDP {}", self.peer)
            }
            Err(error) => Err(error).with_context(|| format!("cannot receive from {}", self.peer)),
        }
    }

    pub(super) fn local(&self) -> SocketAddr {
        self.local
    }

    pub(super) fn peer(&self) -> SocketAddr {
        self.peer
    }

    pub(super) fn transport(&self) -> Transport {
        self.transport
    }

    pub(super) fn is_reliable(&self) -> bool {
        self.transport.is_reliable()
    }
}

fn receive_datagram(socket: &UdpSocket, deadline: Instant) -> io::Result<Vec<u8>> {
    socket.set_read_timeout(Some(left(deadline)?))?;
    let mut buffer = vec![0; 65_535];
    let length = socket.recv(&mut buffer)?;
    buffer.truncate(length);
    Ok(buffer)
}

/// The next message of a stream; bytes after it stay in `received`.
fn receive_framed(
    received: &mut Vec<u8>,
    mut read: impl FnMut(&mut [u8]) -> io::Result<usize>,
) -> io::Result<Vec<u8>> {
    loop {
        if let Some(end) = message_end(received) {
            let rest = received.split_off(end);
            return Ok(std::mem::replace(received, rest));
        }
        let mut chunk = [0; 16_384];
        match read(&mut chunk)? {
            0 => {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the connection was closed",
                ));
            }
            n => received.extend_from_slice(&chunk[..n]),
        }
    }
}

/// The end of the first message of a stream (RFC 3261 §18.3); `None` if it is incomplete.
fn message_end(bytes: &[u8]) -> Option<usize> {
    let head_end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..head_end]);
    let body = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let name = name.trim();
        let is_length =
            name.eq_ignore_ascii_case("content-length") || name.eq_ignore_ascii_case("l");
        is_length
            .then(|| value.trim().parse::<usize>().ok())
            .flatten()
    });
    let end = head_end.checked_add(body.unwrap_or_default())?;
    (bytes.len() >= end).then_some(end)
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_cut_behind_the_body() {
        let message = b"SIP/2.0 200 OK\r\nl: 3\r\n\r\nabcSIP/2.0";
        assert_eq!(message_end(message), Some(27));
        assert_eq!(message_end(&message[..26]), None);
        assert_eq!(message_end(b"SIP/2.0 200 OK\r\nl: 3\r\n"), None);
        assert_eq!(message_end(b"SIP/2.0 200 OK\r\n\r\n"), Some(18));
    }
}
