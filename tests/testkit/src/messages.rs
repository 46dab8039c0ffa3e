//! SIP messages as callers send and receive them.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};

use rsip::headers::{
    self, CSeq, CallId, Contact, ContentLength, MaxForwards, To, UntypedHeader, Via,
};
use rsip::{Header, Headers};

static NEXT: AtomicU64 = AtomicU64::new(1);

/// A request that is well-formed unless a test makes it otherwise.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method.
    pub method: String,
    /// The request URI.
    pub uri: String,
    /// The value of the top Via's branch.
    pub branch: String,
    /// Call-ID.
    pub call_id: String,
    /// CSeq's number.
    pub cseq: u32,
    /// From, without its tag.
    pub from: String,
    /// The tag of From. `None`: it is derived from CSeq.
    pub from_tag: Option<String>,
    /// To, with tag if there is one.
    pub to: String,
    /// The values of the Contact header fields, each of which may be a list.
    pub contacts: Vec<String>,
    /// Header lines besides the usual ones, each without CRLF.
    pub extra: Vec<String>,
    /// The body.
    pub body: Vec<u8>,
    transport: Transport,
    local: SocketAddr,
}

impl Request {
    /// A new request with a branch and Call-ID of its own, sent from `local`.
    pub fn new(method: &str, uri: &str, transport: Transport, local: SocketAddr) -> Self {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        let host = match local.ip() {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        Self {
            method: method.into(),
            uri: uri.into(),
            branch: format!("z9hG4bK-test-{pid}-{n}"),
            call_id: format!("call-{pid}-{n}@{}", local.ip()),
            cseq: 1,
            from: format!("<sip:caller@{host}>"),
            from_tag: None,
            to: format!("<{uri}>"),
            contacts: vec![format!("<sip:caller@{local}>")],
            extra: Vec::new(),
            body: Vec::new(),
            transport,
            local,
        }
    }

    /// Adds a header line.
    #[must_use]
    pub fn header(mut self, line: &str) -> Self {
        self.extra.push(line.into());
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// The ACK that the caller's transaction sends for a final answer other than 2xx (RFC 3261 §17.1.1.3).
    pub fn ack_for(&self, answer: &Message) -> Self {
        let mut ack = self.clone();
        ack.method = "ACK".into();
        ack.to = answer.header("To").expect("an answer has To").into();
        ack.extra.retain(|line| line.starts_with("Route:"));
        ack.body.clear();
        ack
    }

    /// The CANCEL of this request (RFC 3261 §9.1).
    pub fn cancel(&self) -> Self {
        let mut cancel = self.clone();
        cancel.method = "CANCEL".into();
        cancel.contacts.clear();
        cancel.extra.retain(|line| line.starts_with("Route:"));
        cancel.body.clear();
        cancel
    }

    /// A request of the caller within the dialog that this response to its INVITE has set up (RFC 3261 §12.2.1.1): to the Contact, by the
    /// Record-Route. An ACK has the CSeq of the INVITE; `cseq` is for other requests.
    pub fn within(&self, answer: &Message, method: &str, cseq: u32) -> Self {
        let mut request = self.clone();
        request.method = method.into();
        let contact = answer.header("Contact").expect("a 2xx has a Contact");
        request.uri = contact
            .trim_start_matches('<')
            .split('>')
            .next()
            .unwrap_or_default()
            .into();
        request.branch = format!("{}-{method}-{cseq}", self.branch);
        request.cseq = if method == "ACK" { self.cseq } else { cseq };
        // The tag of the dialog.
        let tag = self.from_tag.clone();
        request.from_tag = Some(tag.unwrap_or_else(|| format!("from-{}", self.cseq)));
        request.to = answer.header("To").expect("an answer has To").into();
        let mut routes = answer.headers("Record-Route");
        routes.reverse();
        let routes = routes.iter().map(|route| format!("Route: {route}"));
        request.extra = routes.collect();
        request.body.clear();
        request
    }

    /// Writes another address into Via than that of the sender.
    #[must_use]
    pub fn sent_by(mut self, addr: SocketAddr) -> Self {
        self.local = addr;
        self
    }

    /// The message as it goes over the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let Self {
            method,
            uri,
            branch,
            call_id,
            cseq,
            from,
            from_tag,
            to,
            ..
        } = self;
        let mut headers: Headers = vec![
            Header::Via(Via::new(format!(
                "SIP/2.0/{} {};branch={branch};rport",
                self.transport, self.local
            ))),
            Header::MaxForwards(MaxForwards::new("70")),
            Header::From(headers::From::new(match from_tag {
                Some(tag) => format!("{from};tag={tag}"),
                None => format!("{from};tag=from-{cseq}"),
            })),
            Header::To(To::new(to.as_str())),
            Header::CallId(CallId::new(call_id.as_str())),
            Header::CSeq(CSeq::new(format!("{cseq} {method}"))),
        ]
        .into();
        let contacts = self.contacts.iter();
        headers.extend(contacts.map(|c| Header::Contact(Contact::new(c))).collect());
        // Lines of a test are written unchanged, whether they are header fields or not.
        let mut extra = String::new();
        for line in &self.extra {
            extra.push_str(line);
            extra.push_str("\r\n");
        }
        let length = Headers::from(Header::from(ContentLength::new(
            self.body.len().to_string(),
        )));
        let text = format!("{method} {uri} SIP/2.0\r\n{headers}{extra}{length}\r\n");
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// A transport of these tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
        })
    }
}

/// A received message, parsed by splitting lines.
#[derive(Clone, Debug)]
pub struct Message {
    /// Everything, as received.
    pub bytes: Vec<u8>,
    head: String,
}

impl Message {
    /// Splits received bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        let end = bytes
            .windows(4)
            .position(|w| w == b"\r\n\r\n")
            .unwrap_or(bytes.len());
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        Self { bytes, head }
    }

    /// The start line.
    pub fn start_line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    /// The method of a request or the protocol of a response.
    pub fn first_word(&self) -> &str {
        self.start_line().split(' ').next().unwrap_or_default()
    }

    /// The status code of a response, 0 for a request.
    pub fn code(&self) -> u16 {
        let line = self.start_line();
        if !line.starts_with("SIP/2.0 ") {
            return 0;
        }
        line.split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .unwrap_or(0)
    }

    /// The value of the first header field of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers(name).into_iter().next()
    }

    /// The values of all header fields of this name.
    pub fn headers(&self, name: &str) -> Vec<&str> {
        self.head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .filter(|(n, _)| n.trim().eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
            .collect()
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        let start = (self.head.len() + 4).min(self.bytes.len());
        &self.bytes[start..]
    }
}
