//! A registry for tests, with the replies that a test sets.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::reference::Reference;

/// What the registry answers to a request.
pub(crate) enum FakeReply {
    /// A status line without the version, header fields, each with its line end, and a body.
    Whole(&'static str, String, Vec<u8>),
    /// A body of this size is announced, and not sent.
    Announced(u64),
    /// A body without an end.
    Endless,
}

/// The heads and the bodies of requests.
type Requests = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// The registry. Its threads end with their connections.
pub(crate) struct Fake {
    addr: SocketAddr,
    requests: Requests,
    /// Bytes of bodies without an end that were sent.
    sent: Arc<AtomicU64>,
}

impl FakeReply {
    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::Whole("200 OK", String::new(), body.into())
    }

    /// An upload is to go there.
    pub(crate) fn location(place: &str) -> Self {
        let field = format!("Location: {place}\r\n");
        Self::Whole("202 Accepted", field, Vec::new())
    }

    pub(crate) fn challenge(text: &str) -> Self {
        let field = format!("WWW-Authenticate: {text}\r\n");
        Self::Whole("401 Unauthorized", field, Vec::new())
    }
}

impl Fake {
    /// Starts a registry that answers what `answer` returns for the head of a request.
    pub(crate) fn start(answer: impl Fn(&str) -> FakeReply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let fake = Self {
            addr: listener.local_addr().unwrap(),
            requests: Arc::default(),
            sent: Arc::default(),
        };
        let (requests, sent) = (fake.requests.clone(), fake.sent.clone());
        let answer = Arc::new(answer);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (requests, sent, answer) = (requests.clone(), sent.clone(), answer.clone());
                std::thread::spawn(move || serve(stream.unwrap(), &requests, &sent, &*answer));
            }
        });
        fake
    }

    pub(crate) fn base(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// What is at this path.
    pub(crate) fn at(&self, path: &str) -> Reference {
        format!("oci://{}/{path}", self.addr).parse().unwrap()
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// The bodies of the requests that begin with this text, in their order.
    pub(crate) fn bodies(&self, start: &str) -> Vec<Vec<u8>> {
        let requests = self.requests.lock().unwrap();
        let about = requests.iter().filter(|(head, _)| head.starts_with(start));
        about.map(|(_, body)| body.clone()).collect()
    }

    /// The values of Authorization, in the order of the requests that begin with this text.
    pub(crate) fn authorisations(&self, start: &str) -> Vec<Option<String>> {
        let requests = self.requests.lock().unwrap();
        let about = requests.iter().filter(|(head, _)| head.starts_with(start));
        about
            .map(|(head, _)| {
                let mut lines = head.lines();
                let line = lines.find_map(|line| line.strip_prefix("authorization: "));
                line.map(str::to_owned)
            })
            .collect()
    }
}

fn serve(
    mut stream: TcpStream,
    requests: &Mutex<Vec<(String, Vec<u8>)>>,
    sent: &AtomicU64,
    answer: &dyn Fn(&str) -> FakeReply,
) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            Ok(_) | Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let length = lines.find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    if stream.read_exact(&mut body).is_err() {
        return;
    }
    requests.lock().unwrap().push((head.clone(), body));
    let said = answer(&head);
    let (status, fields, body) = match said {
        FakeReply::Whole(status, fields, body) => (
            status,
            format!("{fields}Content-Length: {}\r\n", body.len()),
            body,
        ),
        FakeReply::Announced(size) => ("200 OK", format!("Content-Length: {size}\r\n"), Vec::new()),
        FakeReply::Endless => {
            endless(&mut stream, sent);
            return;
        }
    };
    let text = format!("HTTP/1.1 {status}\r\n{fields}Connection: close\r\n\r\n");
    let _gone = stream.write_all(&[text.as_bytes(), &body].concat());
    // A client that wants the announced body waits until it gives up.
    let _end = stream.read(&mut byte);
}

fn endless(stream: &mut TcpStream, sent: &AtomicU64) {
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
    let part = [b"4000\r\n", &[b' '; 0x4000][..], b"\r\n"].concat();
    let mut next = &head[..];
    loop {
        match stream.write_all(next) {
            Ok(()) => sent.fetch_add(next.len() as u64, Ordering::Relaxed),
            Err(error) => {
                let kinds = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
                assert!(kinds.contains(&error.kind()), "{error}");
                return;
            }
        };
        next = &part;
    }
}
