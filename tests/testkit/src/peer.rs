//! A scripted SIP peer over UDP or TCP, as caller or callee: it sends what a test tells it to, and records each message with its time of
//! arrival.

use std::collections::HashMap;
use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::messages::{Message, Request, Transport};
use crate::sip::receive_framed;
use crate::wait::PATIENCE;

/// A peer that answers nothing by itself. Its threads end with the process.
#[derive(Debug)]
pub struct Peer {
    local: SocketAddr,
    transport: Transport,
    /// The socket of a peer over UDP.
    socket: Option<UdpSocket>,
    record: Arc<Record>,
}

/// A message that a peer has received.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When it arrived.
    pub at: Instant,
    /// Where it came from: responses go there.
    pub from: SocketAddr,
    /// The message.
    pub message: Message,
}

#[derive(Debug, Default)]
struct Record {
    seen: Mutex<Vec<Seen>>,
    has_grown: Condvar,
    /// Open TCP connections by the address of their other end.
    connections: Mutex<HashMap<SocketAddr, TcpStream>>,
}

impl Peer {
    /// A peer over UDP on a free port of this address.
    pub fn udp(ip: IpAddr) -> Self {
        Self::udp_at(SocketAddr::new(ip, 0))
    }

    /// A peer over UDP on exactly this address and port.
    pub fn udp_at(addr: SocketAddr) -> Self {
        let socket = UdpSocket::bind(addr).expect("the peer's address is free");
        let local = socket.local_addr().expect("a bound socket has an address");
        let record = Arc::new(Record::default());
        let reading = socket.try_clone().expect("a socket can be cloned");
        let into = Arc::clone(&record);
        std::thread::spawn(move || read_datagrams(&reading, &into));
        Self {
            local,
            transport: Transport::Udp,
            socket: Some(socket),
            record,
        }
    }

    /// A peer over TCP, which listens on a free port of this address.
    pub fn tcp(ip: IpAddr) -> Self {
        Self::tcp_at(SocketAddr::new(ip, 0))
    }

    /// A peer over TCP, which listens on exactly this address and port.
    pub fn tcp_at(addr: SocketAddr) -> Self {
        let listener = TcpListener::bind(addr).expect("the peer's address is free");
        let local = listener.local_addr().expect("a listener has an address");
        let record = Arc::new(Record::default());
        let into = Arc::clone(&record);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                into.join(stream);
            }
        });
        Self {
            local,
            transport: Transport::Tcp,
            socket: None,
            record,
        }
    }

    /// A peer over this transport on a free port of this address.
    pub fn over(transport: Transport, ip: IpAddr) -> Self {
        match transport {
            Transport::Udp => Self::udp(ip),
            Transport::Tcp => Self::tcp(ip),
        }
    }

    /// Its address.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// The transport it uses.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// A SIP URI that leads to it.
    pub fn uri(&self) -> String {
        match self.transport {
            Transport::Udp => format!("sip:bob@{}", self.local),
            Transport::Tcp => format!("sip:bob@{};transport=tcp", self.local),
        }
    }

    /// A new request from this peer.
    pub fn request(&self, method: &str, uri: &str) -> Request {
        let mut request = Request::new(method, uri, self.transport, self.local);
        if self.transport == Transport::Tcp {
            request.contacts = vec![format!("<sip:caller@{};transport=tcp>", self.local)];
        }
        request
    }

    /// Sends bytes. A peer over TCP connects first if it has no connection there.
    pub fn send(&self, bytes: &[u8], to: SocketAddr) {
        match &self.socket {
            Some(socket) => {
                // A pending ICMP error of an earlier datagram is not about this one.
                if socket.send_to(bytes, to).is_err() {
                    socket.send_to(bytes, to).expect("a datagram can be sent");
                }
            }
            None => self.send_stream(bytes, to),
        }
    }

    /// Answers a request, by the way that it came.
    pub fn answer(&self, seen: &Seen, code: u16) {
        self.answer_with(seen, code, &[]);
    }

    /// The same with further header lines.
    pub fn answer_with(&self, seen: &Seen, code: u16, lines: &[&str]) {
        let bytes = self.response(&seen.message, code, lines);
        self.send(&bytes, seen.from);
    }

    /// A response of this peer. Its To tag is the same for all responses to the same branch.
    pub fn response(&self, request: &Message, code: u16, lines: &[&str]) -> Vec<u8> {
        let reason = match code {
            100 => "Trying",
            180 => "Ringing",
            200 => "OK",
            486 => "Busy Here",
            487 => "Request Terminated",
            _ => "Scripted",
        };
        let mut text = format!("SIP/2.0 {code} {reason}\r\n");
        for name in ["Via", "Record-Route", "From", "To", "Call-ID", "CSeq"] {
            for value in request.headers(name) {
                text.push_str(&format!("{name}: {value}"));
                if name == "To" && code > 100 && !value.contains("tag=") {
                    text.push_str(&format!(";tag=callee-{}", self.local.port()));
                }
                text.push_str("\r\n");
            }
        }
        for line in lines {
            text.push_str(&format!("{line}\r\n"));
        }
        let contact = self.uri();
        text.push_str(&format!(
            "Contact: <{contact}>\r\nContent-Length: 0\r\n\r\n"
        ));
        text.into_bytes()
    }

    /// Waits for the `n`th message, from 0, of which `is` holds.
    ///
    /// # Panics
    /// When it does not come.
    pub fn nth(&self, n: usize, what: &str, is: impl Fn(&Message) -> bool) -> Seen {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = self.record.seen();
        loop {
            if let Some(found) = seen.iter().filter(|seen| is(&seen.message)).nth(n) {
                return found.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let lines = seen.iter().map(|seen| seen.message.start_line());
                let lines: Vec<_> = lines.collect();
                panic!("no {what} (number {n}) came to {}: {lines:#?}", self.local);
            }
            let waited = self.record.has_grown.wait_timeout(seen, left);
            seen = waited.expect("nobody panics with it").0;
        }
    }

    /// Waits for the `n`th request with this method.
    pub fn nth_request(&self, n: usize, method: &str) -> Seen {
        self.nth(n, method, |message| message.first_word() == method)
    }

    /// Waits for the first request with this method.
    pub fn first_request(&self, method: &str) -> Seen {
        self.nth_request(0, method)
    }

    /// Waits for the `n`th response with this code to requests with this method.
    pub fn nth_response(&self, n: usize, method: &str, code: u16) -> Seen {
        self.nth(n, &format!("{code} to {method}"), |message| {
            message.code() == code && method_of(message) == method
        })
    }

    /// Waits for the first response with this code to a request with this method.
    pub fn first_response(&self, method: &str, code: u16) -> Seen {
        self.nth_response(0, method, code)
    }

    /// What it has received so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.record.seen().clone()
    }

    /// What it has received so far, without the first messages.
    pub fn seen_after(&self, first: usize) -> Vec<Seen> {
        self.record.seen()[first..].to_vec()
    }

    /// Times of arrival of the requests with this method so far.
    pub fn times_of(&self, method: &str) -> Vec<Instant> {
        let seen = self.seen();
        let requests = seen.iter().filter(|s| s.message.first_word() == method);
        requests.map(|seen| seen.at).collect()
    }

    /// Times of arrival of the responses with this code to requests with this method so far.
    pub fn times_of_responses(&self, method: &str, code: u16) -> Vec<Instant> {
        let seen = self.seen();
        let is_it = |s: &&Seen| s.message.code() == code && method_of(&s.message) == method;
        seen.iter().filter(is_it).map(|seen| seen.at).collect()
    }

    /// The codes of all responses to requests with this method so far.
    pub fn codes(&self, method: &str) -> Vec<u16> {
        let seen = self.seen();
        let codes = seen.iter().map(|seen| &seen.message);
        let codes = codes.filter(|m| m.code() > 0 && method_of(m) == method);
        codes.map(Message::code).collect()
    }

    /// Forgets what it has received so far, for a peer that lives long.
    pub fn forget(&self) {
        self.record.seen().clear();
    }

    /// The number of its open TCP connections: the other end has not closed them.
    pub fn connections(&self) -> usize {
        self.record.connections().len()
    }

    /// Closes its TCP connections, and returns when both directions are closed here.
    pub fn hang_up(&self) {
        for (_, stream) in self.record.connections().drain() {
            let _gone = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    fn send_stream(&self, bytes: &[u8], to: SocketAddr) {
        let open = self.record.connections().get(&to).map(clone);
        let mut stream = open.unwrap_or_else(|| {
            let stream = connect(self.local.ip(), to);
            self.record.join(clone(&stream));
            stream
        });
        stream.write_all(bytes).expect("the connection takes bytes");
    }
}

impl Record {
    fn seen(&self) -> MutexGuard<'_, Vec<Seen>> {
        self.seen.lock().expect("nobody panics with it")
    }

    fn connections(&self) -> MutexGuard<'_, HashMap<SocketAddr, TcpStream>> {
        self.connections.lock().expect("nobody panics with it")
    }

    fn add(&self, from: SocketAddr, message: Message) {
        let at = Instant::now();
        self.seen().push(Seen { at, from, message });
        self.has_grown.notify_all();
    }

    /// Reads a connection until its end.
    fn join(self: &Arc<Self>, mut stream: TcpStream) {
        let Ok(from) = stream.peer_addr() else {
            return;
        };
        self.connections().insert(from, clone(&stream));
        let record = Arc::clone(self);
        std::thread::spawn(move || {
            let mut pending = Vec::new();
            while let Some(message) = receive_framed(&mut stream, &mut pending) {
                record.add(from, message);
            }
            record.connections().remove(&from);
        });
    }
}

/// The method in CSeq.
pub fn method_of(message: &Message) -> &str {
    let cseq = message.header("CSeq").unwrap_or_default();
    cseq.split_whitespace().nth(1).unwrap_or_default()
}

/// The branch of the topmost Via.
pub fn branch_of(message: &Message) -> &str {
    let via = message.header("Via").unwrap_or_default();
    let branch = via.split_once("branch=").map_or("", |(_, rest)| rest);
    branch.split([';', ',']).next().unwrap_or_default()
}

/// Checks the gaps between times of arrival against a schedule: each at least 0.9 of its nominal value, and at most twice that and a second,
/// because test machines are slow and shared.
///
/// # Panics
/// If there are fewer times than the schedule has, or a gap is out of bounds.
pub fn assert_gaps(times: &[Instant], nominal: &[Duration]) {
    assert!(
        times.len() > nominal.len(),
        "{} messages came, but {} were expected",
        times.len(),
        nominal.len() + 1
    );
    for (pair, nominal) in times.windows(2).zip(nominal) {
        let gap = pair[1] - pair[0];
        let most = *nominal * 2 + Duration::from_secs(1);
        assert!(
            gap >= nominal.mul_f64(0.9) && gap <= most,
            "a gap of {gap:?} instead of {nominal:?}"
        );
    }
}

fn read_datagrams(socket: &UdpSocket, into: &Record) {
    let mut buffer = vec![0; 65_536];
    loop {
        // An error is that of an earlier datagram, whose destination was closed.
        if let Ok((n, from)) = socket.recv_from(&mut buffer) {
            into.add(from, Message::new(buffer[..n].to_vec()));
        }
    }
}

fn connect(source: IpAddr, to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(to),
        socket2::Type::STREAM,
        None,
    )
    .expect("a TCP socket can be made");
    socket
        .bind(&SocketAddr::new(source, 0).into())
        .expect("a loopback source can be bound");
    socket
        .connect_timeout(&to.into(), PATIENCE)
        .expect("the other end accepts TCP");
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true).expect("TCP_NODELAY can be set");
    stream
}

fn clone(stream: &TcpStream) -> TcpStream {
    stream.try_clone().expect("a socket can be cloned")
}
