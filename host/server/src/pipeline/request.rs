//! A request as a policy sees it.

use std::borrow::Cow;
use std::net::SocketAddr;

use portcullis_policy::RequestView;
use portcullis_sip::{
    Arrival, Framing, HeaderName, Index, Limits, Message, NameAddr, StartLine, scan,
};

/// A scanned request that owns its bytes: it moves into the sandbox for a call and comes back, without a copy.
#[derive(Debug)]
pub struct PolicyRequest {
    /// The received bytes.
    pub(super) bytes: Vec<u8>,
    /// Where things are in them.
    pub(super) index: Index,
    /// Where they came from.
    pub(super) arrival: Arrival,
}

impl PolicyRequest {
    /// Reads a request from its bytes, as the data path does; none when they are no message. For tests and benchmarks.
    pub fn read(bytes: Vec<u8>, framing: Framing, arrival: Arrival) -> Option<Self> {
        let mut index = Index::default();
        scan(&bytes, framing, &Limits::default(), &mut index).ok()?;
        Some(Self {
            bytes,
            index,
            arrival,
        })
    }

    fn message(&self) -> Message<'_> {
        Message::new(&self.bytes, &self.index)
    }

    fn start_line(&self) -> (&[u8], &[u8]) {
        match self.message().start_line() {
            StartLine::Request { method, uri, .. } => (method, uri),
            StartLine::Response { .. } => (b"", b""),
        }
    }

    fn address_header(&self, name: HeaderName) -> Cow<'_, str> {
        let value = self
            .message()
            .header(name)
            .map_or(&b""[..], |field| field.value);
        match NameAddr::parse(value) {
            Ok(parsed) => text(parsed.uri),
            Err(_) => text(value),
        }
    }
}

impl RequestView for PolicyRequest {
    fn method(&self) -> Cow<'_, str> {
        text(self.start_line().0)
    }

    fn uri(&self) -> Cow<'_, str> {
        text(self.start_line().1)
    }

    fn from_uri(&self) -> Cow<'_, str> {
        self.address_header(HeaderName::From)
    }

    fn to_uri(&self) -> Cow<'_, str> {
        self.address_header(HeaderName::To)
    }

    fn call_id(&self) -> Cow<'_, str> {
        let field = self.message().header(HeaderName::CallId);
        field.map_or(Cow::Borrowed(""), |field| text(field.value))
    }

    fn cseq_number(&self) -> u32 {
        self.message().cseq().map_or(0, |cseq| cseq.number)
    }

    fn source(&self) -> SocketAddr {
        self.arrival.source
    }

    fn local(&self) -> SocketAddr {
        self.arrival.local
    }

    fn transport(&self) -> &'static str {
        self.arrival.transport.token()
    }

    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        let field = self.message().by_name(name).next()?;
        Some(unfolded(field.unfolded()))
    }

    fn headers(&self, name: &str, each: &mut dyn FnMut(Cow<'_, str>)) {
        for field in self.message().by_name(name) {
            each(unfolded(field.unfolded()));
        }
    }

    fn body_length(&self) -> u32 {
        u32::try_from(self.message().body().len()).unwrap_or(u32::MAX)
    }
}

fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

fn unfolded(value: Cow<'_, [u8]>) -> Cow<'_, str> {
    match value {
        Cow::Borrowed(bytes) => text(bytes),
        Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use portcullis_sip::Transport;

    use super::*;

    fn request(text: &[u8]) -> PolicyRequest {
        let arrival = Arrival {
            source: "192.0.2.1:5070".parse().unwrap(),
            local: "192.0.2.9:5060".parse().unwrap(),
            transport: Transport::Udp,
            connection: None,
        };
        PolicyRequest::read(text.to_vec(), Framing::Datagram, arrival).unwrap()
    }

    #[test]
    fn a_policy_reads_every_part() {
        let request = request(
            b"MESSAGE sip:bob@example.com SIP/2.0\r\nv: SIP/2.0/UDP a;branch=z9hG4bK1\r\nVia: SIP/2.0/UDP b\r\n\
              f: \"A. Lice\" <sip:alice@example.com;x=y>;tag=1\r\nTo: sip:bob@example.com;tag=2\r\ni: id@host\r\n\
              CSeq: 7 MESSAGE\r\nSubject: one\r\n  two\r\nX-Latin: caf\xe9\r\nContent-Length: 3\r\n\r\nabc",
        );
        assert_eq!(request.method(), "MESSAGE");
        assert_eq!(request.uri(), "sip:bob@example.com");
        assert_eq!(request.from_uri(), "sip:alice@example.com;x=y");
        assert_eq!(request.to_uri(), "sip:bob@example.com");
        assert_eq!(request.call_id(), "id@host");
        assert_eq!(request.cseq_number(), 7);
        assert_eq!(request.header("s").as_deref(), Some("one two"));
        assert_eq!(request.header("x-latin").as_deref(), Some("caf\u{fffd}"));
        assert_eq!(request.header("X-None"), None);
        assert_eq!(request.body_length(), 3);
        assert_eq!(request.transport(), "UDP");
        let mut vias = Vec::new();
        request.headers("via", &mut |value| vias.push(value.into_owned()));
        assert_eq!(vias, ["SIP/2.0/UDP a;branch=z9hG4bK1", "SIP/2.0/UDP b"]);
    }
}
