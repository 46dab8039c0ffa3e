//! The other ends: messages, and sockets that send and receive them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};

use super::PATIENCE;

static NEXT: AtomicU64 = AtomicU64::new(1);

/// A request from `local` that is well-formed, with a branch and a Call-ID of its own.
pub fn request(method: &str, uri: &str, transport: &str, local: SocketAddr) -> Vec<u8> {
    request_with(method, uri, transport, local, "", b"")
}

/// The same with header lines of its own, each with CRLF, and a body.
pub fn request_with(
    method: &str,
    uri: &str,
    transport: &str,
    local: SocketAddr,
    headers: &str,
    body: &[u8],
) -> Vec<u8> {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let length = body.len();
    let head = format!(
        "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/{transport} {local};branch=z9hG4bK-{number};rport\r\nMax-Forwards: 70\r\n\
         From: <sip:alice@example.com>;tag=a{number}\r\nTo: <{uri}>\r\nCall-ID: {number}@test\r\nCSeq: 1 {method}\r\n\
         {headers}Content-Length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// The 200 to a request, as a callee makes it: everything of the request that belongs into it.
pub fn ok_to(request: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(request);
    let head = text.split("\r\n\r\n").next().unwrap();
    let kept = head.lines().skip(1).filter(|line| {
        let name = line.split(':').next().unwrap_or_default();
        matches!(name, "Via" | "From" | "To" | "Call-ID" | "CSeq")
    });
    let mut answer = String::from("SIP/2.0 200 OK\r\n");
    for line in kept {
        answer.push_str(line);
        answer.push_str("\r\n");
    }
    answer.push_str("Content-Length: 0\r\n\r\n");
    answer.into_bytes()
}

/// The first line of a message.
pub fn start_line(message: &[u8]) -> &str {
    let end = message.iter().position(|&byte| byte == b'\r');
    std::str::from_utf8(&message[..end.unwrap_or(message.len())]).unwrap()
}

/// The value of the first header line of this name.
pub fn header<'m>(message: &'m [u8], name: &str) -> Option<&'m str> {
    headers(message, name).first().copied()
}

/// The values of all header lines of this name.
pub fn headers<'m>(message: &'m [u8], name: &str) -> Vec<&'m str> {
    let end = message.windows(4).position(|four| four == b"\r\n\r\n");
    let head = std::str::from_utf8(&message[..end.unwrap()]).unwrap();
    let fields = head
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once(": "));
    fields
        .filter(|(own, _)| *own == name)
        .map(|(_, value)| value)
        .collect()
}

const TRYING: &[u8] = b"SIP/2.0 100 ";

/// A UDP socket.
pub struct Udp(pub UdpSocket);

impl Udp {
    pub fn new(any: &str) -> Self {
        let socket = UdpSocket::bind(any).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    /// One of the same family as `host`.
    pub fn towards(host: SocketAddr) -> Self {
        Self::new(if host.is_ipv4() {
            "127.0.0.1:0"
        } else {
            "[::1]:0"
        })
    }

    pub fn addr(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    pub fn send(&self, bytes: &[u8], to: SocketAddr) {
        assert_eq!(self.0.send_to(bytes, to).unwrap(), bytes.len());
    }

    /// The next datagram and where it came from.
    pub fn receive(&self) -> (Vec<u8>, SocketAddr) {
        let mut bytes = vec![0; 65_535];
        let (length, from) = self.0.recv_from(&mut bytes).expect("a datagram comes");
        bytes.truncate(length);
        (bytes, from)
    }

    /// The next final response: without a 100 (Trying).
    pub fn final_response(&self) -> Vec<u8> {
        loop {
            let (message, _) = self.receive();
            if !message.starts_with(TRYING) {
                return message;
            }
        }
    }

    /// True if nothing has come.
    pub fn is_empty(&self) -> bool {
        self.0.set_nonblocking(true).unwrap();
        let is_empty = self.0.recv(&mut [0]).is_err();
        self.0.set_nonblocking(false).unwrap();
        is_empty
    }
}

/// One end of a TCP connection.
pub struct Tcp {
    pub stream: TcpStream,
    pending: Vec<u8>,
}

impl Tcp {
    pub fn connect(to: SocketAddr) -> Self {
        Self::new(TcpStream::connect(to).unwrap())
    }

    /// The next connection that comes in.
    pub fn accept(listener: &TcpListener) -> Self {
        Self::new(listener.accept().unwrap().0)
    }

    fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let pending = Vec::new();
        Self { stream, pending }
    }

    pub fn addr(&self) -> SocketAddr {
        self.stream.local_addr().unwrap()
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next final response: without a 100 (Trying).
    pub fn final_response(&mut self) -> Vec<u8> {
        loop {
            let message = self.receive();
            if !message.starts_with(TRYING) {
                return message;
            }
        }
    }

    /// The next message.
    pub fn receive(&mut self) -> Vec<u8> {
        loop {
            if let Some(length) = framed(&self.pending) {
                return self.pending.drain(..length).collect();
            }
            let mut chunk = [0; 16_384];
            let count = self.stream.read(&mut chunk).expect("bytes come");
            assert!(count > 0, "the host closed the connection");
            self.pending.extend_from_slice(&chunk[..count]);
        }
    }

    /// Exactly so many bytes.
    pub fn receive_bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Everything until the host closes the connection.
    pub fn receive_to_end(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.pending);
        self.stream.read_to_end(&mut bytes).unwrap();
        bytes
    }

    /// Closes the connection with a reset, so that the other side's system knows at once.
    pub fn reset(self) {
        let linger = Some(std::time::Duration::ZERO);
        socket2::SockRef::from(&self.stream)
            .set_linger(linger)
            .unwrap();
    }
}

fn framed(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let length = header(&bytes[..head], "Content-Length")?;
    let whole = head + length.parse::<usize>().unwrap();
    (bytes.len() >= whole).then_some(whole)
}
