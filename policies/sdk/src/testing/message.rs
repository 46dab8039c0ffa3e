//! The request that a test defines.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::peer::Peer;
use crate::flow::Flow;

/// A SIP request for [`Host::request`](super::Host::request).
///
/// Unspecified values have plausible defaults: source `192.0.2.1:5060`, local socket `192.0.2.100:5060`, UDP, and the mandatory header
/// fields.
#[derive(Clone, Debug)]
pub struct Request {
    method: String,
    uri: String,
    source: SocketAddr,
    local: SocketAddr,
    transport: String,
    peer: Option<Peer>,
    flow: Flow,
    has_come_along: bool,
    is_of_client: bool,
    headers: Vec<(String, String)>,
    body_len: u32,
}

impl Request {
    /// A request with this method and request URI.
    pub fn new(method: &str, uri: &str) -> Self {
        let headers = [
            (
                "Via",
                "SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK-test".to_owned(),
            ),
            ("Max-Forwards", "70".to_owned()),
            ("From", "<sip:alice@example.com>;tag=1".to_owned()),
            ("To", format!("<{uri}>")),
            ("Call-ID", "test@192.0.2.1".to_owned()),
            ("CSeq", format!("1 {method}")),
        ];
        Self {
            method: method.to_owned(),
            uri: uri.to_owned(),
            source: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), DEFAULT_PORT),
            local: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 100)), DEFAULT_PORT),
            transport: "UDP".to_owned(),
            peer: None,
            flow: Flow::None,
            has_come_along: false,
            is_of_client: false,
            headers: headers.map(|(name, value)| (name.to_owned(), value)).into(),
            body_len: 0,
        }
    }

    /// An INVITE.
    pub fn invite(uri: &str) -> Self {
        Self::new("INVITE", uri)
    }

    /// An OPTIONS.
    pub fn options(uri: &str) -> Self {
        Self::new("OPTIONS", uri)
    }

    /// A REGISTER.
    pub fn register(uri: &str) -> Self {
        Self::new("REGISTER", uri)
    }

    /// The source address and port: `"192.168.1.7:5060"`, `"[2001:db8::7]:5060"`, or an address alone, with the default port 5060.
    ///
    /// # Panics
    /// If this is not an address.
    #[track_caller]
    pub fn from_source(mut self, source: &str) -> Self {
        self.source = socket(source);
        self
    }

    /// The address and port of the host's socket, written as for [`from_source`](Self::from_source).
    ///
    /// # Panics
    /// If this is not an address.
    #[track_caller]
    pub fn local(mut self, local: &str) -> Self {
        self.local = socket(local);
        self
    }

    /// The transport, as in a Via header field: `"UDP"` (the default), `"TCP"`, `"TLS"`, `"WS"` or `"WSS"`.
    pub fn transport(mut self, transport: &str) -> Self {
        self.transport = transport.to_owned();
        self
    }

    /// The peer of the connection, for a request over `"TLS"` or `"WSS"`; by default a client without a certificate.
    pub fn peer(mut self, peer: Peer) -> Self {
        self.peer = Some(peer);
        self
    }

    /// The flow that the request goes along, as if a Route value of the host had its token.
    pub fn flow(mut self, flow: Flow) -> Self {
        self.flow = flow;
        self
    }

    /// The request has come along the flow that a Route value of the host names.
    pub fn along_its_flow(mut self) -> Self {
        self.has_come_along = true;
        self
    }

    /// The sender is a client by the configuration of the host.
    pub fn of_client(mut self) -> Self {
        self.is_of_client = true;
        self
    }

    /// The URI of the From header field.
    pub fn from_uri(self, uri: &str) -> Self {
        self.replace("From", format!("<{uri}>;tag=1"))
    }

    /// The URI of the To header field; by default the request URI.
    pub fn to_uri(self, uri: &str) -> Self {
        self.replace("To", format!("<{uri}>"))
    }

    /// The value of Call-ID.
    pub fn call_id(self, call_id: &str) -> Self {
        self.replace("Call-ID", call_id.to_owned())
    }

    /// The sequence number of CSeq.
    pub fn cseq(self, number: u32) -> Self {
        let value = format!("{number} {}", self.method);
        self.replace("CSeq", value)
    }

    /// Adds a header field after the existing ones. From, To, Call-ID, CSeq and Max-Forwards, which occur once in a request, are replaced.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        if ONLY_ONCE.iter().any(|once| is_same_name(once, name)) {
            return self.replace(name, value.to_owned());
        }
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The body. Content-Type is set separately, as a header field.
    pub fn body(mut self, body: &str) -> Self {
        self.body_len = u32::try_from(body.len()).unwrap_or(u32::MAX);
        self
    }

    pub(super) fn method(&self) -> &str {
        &self.method
    }

    pub(super) fn uri(&self) -> &str {
        &self.uri
    }

    pub(super) fn source(&self) -> SocketAddr {
        self.source
    }

    pub(super) fn local_socket(&self) -> SocketAddr {
        self.local
    }

    pub(super) fn transport_name(&self) -> &str {
        &self.transport
    }

    pub(super) fn route_flow(&self) -> Flow {
        self.flow
    }

    pub(super) fn has_come_along(&self) -> bool {
        self.has_come_along
    }

    pub(super) fn is_of_client(&self) -> bool {
        self.is_of_client
    }

    pub(super) fn is_secure(&self) -> bool {
        matches!(self.transport.to_ascii_uppercase().as_str(), "TLS" | "WSS")
    }

    /// The peer of a connection over TLS.
    pub(super) fn tls_peer(&self) -> Option<Peer> {
        let is_secure = self.is_secure();
        is_secure.then(|| self.peer.clone().unwrap_or_default())
    }

    pub(super) fn body_len(&self) -> u32 {
        self.body_len
    }

    /// The values of the header fields of this name, in order.
    pub(super) fn values_of(&self, name: &str) -> impl Iterator<Item = &str> {
        self.headers
            .iter()
            .filter(move |(other, _)| is_same_name(other, name))
            .map(|(_, value)| value.as_str())
    }

    /// The URI in a From or To header field.
    pub(super) fn address_of(&self, name: &str) -> String {
        self.values_of(name)
            .next()
            .map(uri_of)
            .unwrap_or_default()
            .to_owned()
    }

    /// The URIs of all Contact header fields; `None` for `*`, which stands for all of them.
    pub(super) fn contacts(&self) -> Vec<String> {
        let values = self.values_of("Contact").flat_map(values);
        let uris = values.map(|value| uri_of(value).to_owned());
        uris.filter(|uri| uri != "*").collect()
    }

    pub(super) fn cseq_number(&self) -> u32 {
        let number = self
            .values_of("CSeq")
            .next()
            .and_then(|value| value.split_whitespace().next());
        number
            .and_then(|number| number.parse().ok())
            .unwrap_or_default()
    }

    fn replace(mut self, name: &str, value: String) -> Self {
        if let Some(header) = self
            .headers
            .iter_mut()
            .find(|(other, _)| is_same_name(other, name))
        {
            header.1 = value;
        }
        self
    }
}

#[track_caller]
fn socket(text: &str) -> SocketAddr {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let socket = text.parse().or_else(|_| {
        bare.parse()
            .map(|ip: IpAddr| SocketAddr::new(ip, DEFAULT_PORT))
    });
    match socket {
        Ok(socket) => SocketAddr::new(socket.ip().to_canonical(), socket.port()),
        Err(_) => panic!(
            "{text:?} is not an address like 192.0.2.1:5060, [2001:db8::1]:5060 or 192.0.2.1"
        ),
    }
}

/// The values of a line, separated by commas outside of quotes and angle brackets.
fn values(line: &str) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_inside) = (false, false);
    let parts = line.split(move |letter: char| {
        match letter {
            '"' if !is_inside => is_quoted = !is_quoted,
            '<' if !is_quoted => is_inside = true,
            '>' if !is_quoted => is_inside = false,
            _ => {}
        }
        letter == ',' && !is_quoted && !is_inside
    });
    parts.map(str::trim).filter(|value| !value.is_empty())
}

/// `"Bob" <sip:bob@example.com>;tag=1` → `sip:bob@example.com`
fn uri_of(value: &str) -> &str {
    let behind_name = match value.trim_start().strip_prefix('"') {
        Some(quoted) => quoted.split_once('"').map_or("", |(_, rest)| rest),
        None => value,
    };
    match behind_name.split_once('<') {
        Some((_, rest)) => rest.split('>').next().unwrap_or_default(),
        None => behind_name.split(';').next().unwrap_or_default().trim(),
    }
}

fn is_same_name(one: &str, other: &str) -> bool {
    full_name(one).eq_ignore_ascii_case(full_name(other))
}

/// The full form of a compact name (RFC 3261 §20 and its extensions).
fn full_name(name: &str) -> &str {
    let compact = COMPACT
        .iter()
        .find(|(compact, _)| compact.eq_ignore_ascii_case(name));
    compact.map_or(name, |(_, full)| full)
}

const DEFAULT_PORT: u16 = 5060;

const ONLY_ONCE: [&str; 5] = ["From", "To", "Call-ID", "CSeq", "Max-Forwards"];

const COMPACT: [(&str, &str); 19] = [
    ("a", "Accept-Contact"),
    ("b", "Referred-By"),
    ("c", "Content-Type"),
    ("d", "Request-Disposition"),
    ("e", "Content-Encoding"),
    ("f", "From"),
    ("i", "Call-ID"),
    ("j", "Reject-Contact"),
    ("k", "Supported"),
    ("l", "Content-Length"),
    ("m", "Contact"),
    ("n", "Identity-Info"),
    ("o", "Event"),
    ("r", "Refer-To"),
    ("s", "Subject"),
    ("t", "To"),
    ("u", "Allow-Events"),
    ("v", "Via"),
    ("x", "Session-Expires"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources() {
        let source = |text: &str| {
            Request::options("sip:x")
                .from_source(text)
                .source()
                .to_string()
        };

        assert_eq!(source("192.168.1.7:5070"), "192.168.1.7:5070");
        assert_eq!(source("192.168.1.7"), "192.168.1.7:5060");
        assert_eq!(source("[2001:db8::7]:5070"), "[2001:db8::7]:5070");
        assert_eq!(source("2001:db8::7"), "[2001:db8::7]:5060");
        assert_eq!(source("[2001:db8::7]"), "[2001:db8::7]:5060");
        assert_eq!(source("[::ffff:192.168.1.7]:5070"), "192.168.1.7:5070");
    }

    #[test]
    #[should_panic(expected = "\"office\" is not an address")]
    fn a_source_is_an_address() {
        let _ = Request::options("sip:x").from_source("office");
    }

    #[test]
    fn compact_names_are_the_full_names() {
        let request = Request::invite("sip:bob@example.com")
            .header("m", "<sip:alice@192.0.2.1>")
            .header("F", "sip:carol@x;tag=2");

        assert_eq!(
            request.values_of("Contact").collect::<Vec<_>>(),
            ["<sip:alice@192.0.2.1>"]
        );
        assert_eq!(
            request.values_of("from").collect::<Vec<_>>(),
            ["sip:carol@x;tag=2"],
            "From occurs once"
        );
        assert_eq!(request.values_of("V").count(), 1);
    }

    #[test]
    fn uris_of_addresses() {
        assert_eq!(uri_of("<sip:bob@example.com>;tag=1"), "sip:bob@example.com");
        assert_eq!(
            uri_of("Bob <sip:bob@example.com;transport=tcp>"),
            "sip:bob@example.com;transport=tcp"
        );
        assert_eq!(
            uri_of("\"<Bob>\" <sip:bob@example.com>"),
            "sip:bob@example.com"
        );
        assert_eq!(uri_of("sip:bob@example.com;tag=1"), "sip:bob@example.com");
    }
}
