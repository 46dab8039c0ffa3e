//! The SIP request type shared by data path, policies and control side: received bytes with the result of the scan, and their arrival.
//!
//! The methods of [`Request`] return what policies read. This crate is independent of sockets and of the handling of requests.

#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

use std::borrow::Cow;
use std::net::SocketAddr;

use portcullis_sip::{
    Arrival, Framing, HeaderName, Index, Limits, Message, NameAddr, StartLine, Uri, holds_empty,
    scan, values,
};

/// A scanned request that owns its bytes. It moves into the sandbox for a call and back, without a copy.
#[derive(Clone, Debug)]
pub struct Request {
    /// The received bytes.
    pub bytes: Vec<u8>,
    /// The positions of the parts.
    pub index: Index,
    /// The arrival.
    pub arrival: Arrival,
}

/// One value of Contact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contact<'c> {
    /// `*`
    Star,
    /// A URI.
    Uri(PlainUri<'c>),
    /// An unparsable value.
    Unreadable,
}

/// A URI without scheme, password, parameters and headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlainUri<'u> {
    /// The part before `@`; empty if there is none.
    pub user: Cow<'u, str>,
    /// The host, an IPv6 address in its brackets.
    pub host: Cow<'u, str>,
    /// The port, if present.
    pub port: Option<u16>,
}

impl Request {
    /// Parses a request within the default limits; `None` if the bytes are not a message.
    pub fn read(bytes: Vec<u8>, framing: Framing, arrival: Arrival) -> Option<Self> {
        let mut index = Index::default();
        scan(&bytes, framing, &Limits::default(), &mut index).ok()?;
        Some(Self {
            bytes,
            index,
            arrival,
        })
    }

    /// Whether it is a request.
    pub fn is_request(&self) -> bool {
        matches!(self.message().start_line(), StartLine::Request { .. })
    }

    /// Memory of a copy, in bytes.
    pub fn bytes(&self) -> usize {
        // The span of a header line and that of its name.
        const ENTRY: usize = 48;

        size_of::<Self>() + self.bytes.len() + self.index.len() * ENTRY
    }

    /// The whole message as text.
    pub fn as_text(&self) -> Cow<'_, str> {
        text(&self.bytes)
    }

    /// The request URI as received.
    pub fn request_uri(&self) -> &[u8] {
        self.start_line().1
    }

    /// The value of From.
    pub fn origin(&self) -> Option<&[u8]> {
        let field = self.message().header(HeaderName::From)?;
        Some(field.value)
    }

    /// The value of Call-ID.
    pub fn call_id_bytes(&self) -> &[u8] {
        let field = self.message().header(HeaderName::CallId);
        field.map_or(b"", |field| field.value)
    }

    /// Whether it carries the seal of a dialog, as far as can be known without the key: a tag in To, and a seal in the first Route.
    pub fn brings_seal(&self) -> bool {
        let message = self.message();
        let address = |name| {
            let field = message.header(name)?;
            let first = values(field.value).next()?;
            NameAddr::parse(first.bytes).ok()
        };
        let tag = address(HeaderName::To).and_then(|to| to.tag());
        let route = address(HeaderName::Route).and_then(|route| Uri::parse(route.uri).ok());
        tag.is_some() && route.is_some_and(|uri| uri.params.named("seal").is_some())
    }

    /// The message up to the body, with the values of these header fields replaced, and the body.
    pub fn without_values(&self, names: &[String], instead: &[u8]) -> (Vec<u8>, &[u8]) {
        let message = self.message();
        let head = message.header_end() + message.line_end().as_bytes().len();
        let head = head.min(self.bytes.len());
        let mut places: Vec<_> = names
            .iter()
            .flat_map(|name| message.by_name(name))
            .map(|field| field.value_range)
            .collect();
        places.sort_by_key(|place| place.start);
        places.dedup();
        let mut masked = Vec::with_capacity(head);
        let mut done = 0;
        for place in places {
            masked.extend_from_slice(&self.bytes[done..place.start]);
            masked.extend_from_slice(instead);
            done = place.end;
        }
        masked.extend_from_slice(&self.bytes[done..head]);
        (masked, message.body())
    }

    /// The message as the scanner sees it.
    pub fn message(&self) -> Message<'_> {
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
        // The first look refuses unparsable addresses; nothing else may stand for an address, wherever the request comes from.
        match NameAddr::of_party(value) {
            Ok(parsed) => text(parsed.uri),
            Err(_) => Cow::Borrowed(""),
        }
    }
}

/// The values that policies read. Invalid UTF-8 is replaced by U+FFFD.
impl Request {
    /// The method as received.
    pub fn method(&self) -> Cow<'_, str> {
        text(self.start_line().0)
    }

    /// The request URI as received.
    pub fn uri(&self) -> Cow<'_, str> {
        text(self.start_line().1)
    }

    /// The URI of From without display name, brackets and header parameters.
    pub fn from_uri(&self) -> Cow<'_, str> {
        self.address_header(HeaderName::From)
    }

    /// The URI of To without display name, brackets and header parameters.
    pub fn to_uri(&self) -> Cow<'_, str> {
        self.address_header(HeaderName::To)
    }

    /// The value of Call-ID.
    pub fn call_id(&self) -> Cow<'_, str> {
        let field = self.message().header(HeaderName::CallId);
        field.map_or(Cow::Borrowed(""), |field| text(field.value))
    }

    /// The sequence number of CSeq.
    pub fn cseq_number(&self) -> u32 {
        self.message().cseq().map_or(0, |cseq| cseq.number)
    }

    /// The source of the request. An IPv4-mapped IPv6 address is returned as IPv4.
    pub fn source(&self) -> SocketAddr {
        self.arrival.source
    }

    /// The host's socket that received the request.
    pub fn local(&self) -> SocketAddr {
        self.arrival.local
    }

    /// The transport as in a Via header field: `UDP`, `TCP`.
    pub fn transport(&self) -> &'static str {
        self.arrival.transport.token()
    }

    /// The unfolded value of the first header field with this name. Case is ignored, and compact and full names match each other.
    pub fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        let field = self.message().by_name(name).next()?;
        Some(unfolded(field.unfolded()))
    }

    /// Passes the unfolded values of all header fields with this name to `each`, in the order of the message.
    pub fn headers(&self, name: &str, mut each: impl FnMut(Cow<'_, str>)) {
        for field in self.message().by_name(name) {
            each(unfolded(field.unfolded()));
        }
    }

    /// The parts of the request URI that rules match; `None` if it cannot be parsed.
    pub fn plain_uri(&self) -> Option<PlainUri<'_>> {
        plain(self.start_line().1)
    }

    /// Passes every value of Contact to `each`, in the order of the message.
    pub fn contacts(&self, mut each: impl FnMut(Contact<'_>)) {
        for field in self.message().by_name("Contact") {
            let line = field.unfolded();
            if holds_empty(&line) {
                each(Contact::Unreadable);
                continue;
            }
            for value in values(&line) {
                each(contact(value.bytes));
            }
        }
    }

    /// The length of the body in bytes.
    pub fn body_length(&self) -> u32 {
        u32::try_from(self.message().body().len()).unwrap_or(u32::MAX)
    }
}

fn contact(value: &[u8]) -> Contact<'_> {
    if value == b"*" {
        return Contact::Star;
    }
    let uri = NameAddr::parse(value).ok().and_then(|addr| plain(addr.uri));
    uri.map_or(Contact::Unreadable, Contact::Uri)
}

/// The parts that rules match. The host is unchanged.
fn plain(uri: &[u8]) -> Option<PlainUri<'_>> {
    let read = Uri::parse(uri).ok()?;
    let place = &uri[read.host_range];
    // A port follows the last colon, unless the colon is within an IPv6 address.
    let end = match read.port {
        Some(_) => place.iter().rposition(|&byte| byte == b':')?,
        None => place.len(),
    };
    Some(PlainUri {
        user: text(read.user.unwrap_or_default()),
        host: text(&place[..end]),
        port: read.port,
    })
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
    use portcullis_sip::{Proxy, ProxyConfig, Received, Transport, is_readable_uri};
    use proptest::prelude::*;

    use super::*;

    fn request(text: &[u8]) -> Request {
        let arrival = Arrival {
            source: "192.0.2.1:5070".parse().unwrap(),
            local: "192.0.2.9:5060".parse().unwrap(),
            transport: Transport::Udp,
            connection: None,
        };
        Request::read(text.to_vec(), Framing::Datagram, arrival).unwrap()
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
        request.headers("via", |value| vias.push(value.into_owned()));
        assert_eq!(vias, ["SIP/2.0/UDP a;branch=z9hG4bK1", "SIP/2.0/UDP b"]);
    }

    #[test]
    fn a_seal_is_one_in_the_first_route_of_a_request_within_a_dialog() {
        let text = "BYE sip:b@h SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\nRoute: <sip:h;lr;seal=1>, <sip:i;lr>\r\n\
                    From: <sip:a@h>;tag=1\r\nTo: <sip:b@h>;tag=2\r\nCall-ID: x\r\nCSeq: 2 BYE\r\n\r\n";
        assert!(request(text.as_bytes()).brings_seal());
        for other in [
            text.replace(";tag=2", ""),
            text.replace(";seal=1", ""),
            text.replace(
                "<sip:h;lr;seal=1>, <sip:i;lr>",
                "<sip:i;lr>, <sip:h;lr;seal=1>",
            ),
            text.replace("Route", "X-Route"),
        ] {
            assert!(!request(other.as_bytes()).brings_seal(), "{other}");
        }
    }

    #[test]
    fn contacts_and_the_request_uri_are_read_for_rules() {
        let request = request(
            b"REGISTER sips:Bob:secret@[2001:db8::1]:5061;x=y SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\n\
              To: <sip:a@b>\r\nCall-ID: id\r\nCSeq: 1 REGISTER\r\nContact: \"A, B\" <sip:a@10.0.0.1:5070>;expires=1, sip:h\r\n\
              m: *\r\nContact: <tel:+49>, <sip:@h>\r\nContent-Length: 0\r\n\r\n",
        );
        let uri = |user: &str, host: &str, port| PlainUri {
            user: user.to_owned().into(),
            host: host.to_owned().into(),
            port,
        };
        assert_eq!(
            request.plain_uri(),
            Some(uri("Bob", "[2001:db8::1]", Some(5061)))
        );
        let mut contacts = Vec::new();
        request.contacts(|contact| contacts.push(format!("{contact:?}")));
        let expected = [
            Contact::Uri(uri("a", "10.0.0.1", Some(5070))),
            Contact::Uri(uri("", "h", None)),
            Contact::Star,
            Contact::Unreadable,
            Contact::Unreadable,
        ];
        assert_eq!(contacts, expected.map(|contact| format!("{contact:?}")));
    }

    #[test]
    fn a_contact_line_with_an_empty_value_is_unreadable() {
        for (lines, expected) in [
            ("Contact: *", &["Star"][..]),
            ("Contact:", &["Unreadable"]),
            ("Contact: ,*", &["Unreadable"]),
            ("Contact: ,*,<sip:mallory@h>", &["Unreadable"]),
            ("Contact: *,", &["Unreadable"]),
            ("Contact:\r\nContact: *", &["Unreadable", "Star"]),
        ] {
            let request = request(
                format!(
                    "REGISTER sip:h SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\n\
                     Call-ID: id\r\nCSeq: 1 REGISTER\r\n{lines}\r\nContent-Length: 0\r\n\r\n"
                )
                .as_bytes(),
            );
            let mut contacts = Vec::new();
            request.contacts(|contact| contacts.push(format!("{contact:?}")));
            assert_eq!(contacts, expected, "{lines}");
        }
    }

    /// Pieces of addresses, and what parts or hides them.
    fn address() -> impl Strategy<Value = String> {
        let pieces = prop::sample::select(vec![
            "sip:mallory@example.com",
            "sip:bob@example.com",
            "sips:[2001:db8::1]:5061",
            "tel:+1",
            "urn:service:sos",
            "<sip:mallory@example.com>",
            "<",
            ">",
            "\"",
            "\\",
            ";tag=1",
            ";",
            ",",
            ":",
            "@",
            " ",
            "\t",
            "\r\n ",
            "\0",
            "\u{7f}",
            "x",
            "\u{e4}",
            "*",
        ]);
        prop::collection::vec(pieces, 0..8).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn a_policy_sees_no_address_that_can_not_be_read(from in address(), to in address()) {
            let text = format!(
                "MESSAGE sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\nFrom: {from}\r\nTo: {to}\r\n\
                 Call-ID: id\r\nCSeq: 7 MESSAGE\r\nContent-Length: 0\r\n\r\n"
            );
            let arrival = Arrival {
                source: "192.0.2.1:5070".parse().unwrap(),
                local: "192.0.2.9:5060".parse().unwrap(),
                transport: Transport::Udp,
                connection: None,
            };
            let Some(request) = Request::read(text.into_bytes(), Framing::Datagram, arrival) else {
                return Ok(());
            };
            let seen = [request.from_uri(), request.to_uri()];
            for uri in &seen {
                prop_assert!(uri.is_empty() || is_readable_uri(uri.as_bytes()), "{uri:?}");
            }
            let proxy = Proxy::new(ProxyConfig {
                locals: Vec::new(),
                aliases: Vec::new(),
                key: [0; 16],
                earlier_keys: Vec::new(),
                dialog_minutes: 24 * 60,
                record_route: true,
                server_header: None,
                force_rport: Vec::new(),
                clients: portcullis_sip::Clients::default(),
            });
            let received = proxy.receive(request.message(), Ok(()), &arrival, &mut Vec::new());
            let is_seen = received == Received::Judge;
            prop_assert_eq!(is_seen, seen.iter().all(|uri| !uri.is_empty()));
        }
    }
}
