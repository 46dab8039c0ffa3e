//! A caller, which sends requests over UDP or TCP from a chosen address, and receives the responses.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::messages::Request;
pub use crate::messages::{Message, Transport};
use crate::wait::PATIENCE;

/// How long silence must last to count as "no response". Used only where none is expected, and always after a later request has been
/// answered, so that a late response on a slow machine does not pass the test.
const SILENCE: Duration = Duration::from_millis(100);

/// One end of a conversation with the host.
#[derive(Debug)]
pub struct Caller {
    stream: Stream,
    host: SocketAddr,
    local: SocketAddr,
}

#[derive(Debug)]
enum Stream {
    Udp(UdpSocket),
    Tcp(TcpStream, Vec<u8>),
}

impl Caller {
    /// A caller on `source`:0 that talks to `host` over UDP.
    pub fn udp(source: IpAddr, host: SocketAddr) -> Self {
        Self::udp_from(SocketAddr::new(source, 0), host)
    }

    /// A caller on exactly this address and port that sends to `host` over UDP.
    pub fn udp_from(source: SocketAddr, host: SocketAddr) -> Self {
        let socket = UdpSocket::bind(source).expect("a loopback source can be bound");
        let local = socket.local_addr().expect("a bound socket has an address");
        Self {
            stream: Stream::Udp(socket),
            host,
            local,
        }
    }

    /// A caller on `source` that talks to `host` over one TCP connection.
    pub fn tcp(source: IpAddr, host: SocketAddr) -> Self {
        Self::tcp_from(SocketAddr::new(source, 0), host)
    }

    /// Creates a caller on this address and port with one TCP connection to `host`. The same address may also be connected to other hosts.
    pub fn tcp_from(source: SocketAddr, host: SocketAddr) -> Self {
        let socket = Socket::new(Domain::for_address(host), Type::STREAM, None)
            .expect("a TCP socket can be made");
        socket
            .set_reuse_address(true)
            .expect("SO_REUSEADDR can be set");
        socket
            .bind(&source.into())
            .expect("a loopback source can be bound");
        socket
            .connect_timeout(&host.into(), PATIENCE)
            .expect("the host accepts TCP");
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true).expect("TCP_NODELAY can be set");
        let local = stream.local_addr().expect("a bound socket has an address");
        Self {
            stream: Stream::Tcp(stream, Vec::new()),
            host,
            local,
        }
    }

    /// Makes a caller over UDP send to another host from now on.
    pub fn turn_to(&mut self, host: SocketAddr) {
        assert!(
            matches!(self.stream, Stream::Udp(_)),
            "a TCP connection has one other end"
        );
        self.host = host;
    }

    /// This caller's own address.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// The transport it uses.
    pub fn transport(&self) -> Transport {
        match self.stream {
            Stream::Udp(_) => Transport::Udp,
            Stream::Tcp(..) => Transport::Tcp,
        }
    }

    /// A new request from this caller.
    pub fn request(&self, method: &str, uri: &str) -> Request {
        Request::new(method, uri, self.transport(), self.local)
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        match &mut self.stream {
            Stream::Udp(socket) => {
                socket
                    .send_to(bytes, self.host)
                    .expect("a datagram can be sent");
            }
            Stream::Tcp(stream, _) => stream.write_all(bytes).expect("the connection takes bytes"),
        }
    }

    /// Sends a request and waits for the next message that is not a 100 (Trying).
    pub fn ask(&mut self, request: &Request) -> Message {
        self.send(&request.bytes());
        let answer = self.receive();
        assert_eq!(
            answer.header("Call-ID"),
            Some(request.call_id.as_str()),
            "the answer is to this request"
        );
        answer
    }

    /// The same; none if the connection is closed, or nothing comes.
    pub fn try_ask(&mut self, request: &Request) -> Option<Message> {
        if let Stream::Tcp(stream, _) = &mut self.stream {
            stream.write_all(&request.bytes()).ok()?;
        } else {
            self.send(&request.bytes());
        }
        let answer = self.receive_within(PATIENCE)?;
        assert_eq!(
            answer.header("Call-ID"),
            Some(request.call_id.as_str()),
            "the answer is to this request"
        );
        Some(answer)
    }

    /// The next message that is not a 100 (Trying).
    ///
    /// # Panics
    /// When none comes.
    pub fn receive(&mut self) -> Message {
        self.receive_within(PATIENCE)
            .expect("a message comes from the host")
    }

    /// The next message, a 100 (Trying) too.
    ///
    /// # Panics
    /// When none comes.
    pub fn receive_any(&mut self) -> Message {
        self.receive_any_within(PATIENCE)
            .expect("a message comes from the host")
    }

    /// The next message that is not a 100 (Trying); `None` if nothing comes for a second.
    pub fn hears(&mut self) -> Option<Message> {
        self.receive_within(Duration::from_secs(1))
    }

    /// True if nothing but a 100 (Trying) has come and nothing comes for a moment.
    pub fn hears_nothing(&mut self) -> bool {
        self.receive_within(SILENCE).is_none()
    }

    /// Reads until the peer closes a TCP connection, and gives what came before.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        let Stream::Tcp(stream, pending) = &mut self.stream else {
            panic!("only a TCP connection has an end");
        };
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a timeout can be set");
        let mut all = std::mem::take(pending);
        let _closed = stream.read_to_end(&mut all);
        all
    }

    /// Reads exactly this many bytes of a TCP connection.
    pub fn read_exact(&mut self, count: usize) -> Vec<u8> {
        let Stream::Tcp(stream, pending) = &mut self.stream else {
            panic!("only a TCP connection is a stream");
        };
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a timeout can be set");
        while pending.len() < count {
            let mut chunk = [0; 4096];
            let n = uninterrupted(|| stream.read(&mut chunk)).expect("bytes come");
            assert!(n > 0, "the host closed the connection");
            pending.extend_from_slice(&chunk[..n]);
        }
        pending.drain(..count).collect()
    }

    /// The next message that is not a 100 (Trying); none if none comes within this time.
    pub fn receive_within(&mut self, patience: Duration) -> Option<Message> {
        loop {
            let message = self.receive_any_within(patience)?;
            if !message.start_line().starts_with("SIP/2.0 100 ") {
                return Some(message);
            }
        }
    }

    fn receive_any_within(&mut self, patience: Duration) -> Option<Message> {
        match &mut self.stream {
            Stream::Udp(socket) => {
                socket
                    .set_read_timeout(Some(patience))
                    .expect("a timeout can be set");
                let mut buffer = vec![0; 65_536];
                let (n, _) = uninterrupted(|| socket.recv_from(&mut buffer)).ok()?;
                buffer.truncate(n);
                Some(Message::new(buffer))
            }
            Stream::Tcp(stream, pending) => {
                stream
                    .set_read_timeout(Some(patience))
                    .expect("a timeout can be set");
                receive_framed(stream, pending)
            }
        }
    }
}

/// Repeats a system call that a signal has interrupted. The kernel does not restart a call with a time limit itself (signal(7)), for example when
/// the machine has been paused; a call that gave up then would take the answer to one request for that to the next.
fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// Reads one message by its Content-Length; none at the end of the stream or the timeout.
pub fn receive_framed(stream: &mut impl Read, pending: &mut Vec<u8>) -> Option<Message> {
    loop {
        if let Some(length) = framed_length(pending) {
            let rest = pending.split_off(length);
            return Some(Message::new(std::mem::replace(pending, rest)));
        }
        let mut chunk = [0; 16_384];
        match uninterrupted(|| stream.read(&mut chunk)) {
            Ok(n) if n > 0 => pending.extend_from_slice(&chunk[..n]),
            _ => return None,
        }
    }
}

fn framed_length(pending: &[u8]) -> Option<usize> {
    let head = pending.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let body = Message::new(pending[..head].to_vec())
        .header("Content-Length")
        .map_or(0, |n| {
            n.parse::<usize>().expect("Content-Length is a number")
        });
    (pending.len() >= head + body).then_some(head + body)
}
