//! The requests that a probe sends, and the parts of responses that it reads.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;

use portcullis_sip::Transport;
use rsip::headers::{
    self, CSeq, CallId, Contact, ContentLength, MaxForwards, Route, To, UntypedHeader, UserAgent,
    Via,
};
use rsip::{Header, Headers};

/// A request, ready to send.
pub(super) struct Request {
    pub(super) text: Vec<u8>,
    method: String,
    uri: String,
    branch: String,
    from: String,
    call_id: String,
    transport: Transport,
    local: SocketAddr,
}

/// A response as it was received.
pub(super) struct Answer {
    pub(super) text: Vec<u8>,
    pub(super) code: u16,
    lines: Vec<(String, String)>,
}

impl Request {
    /// The first request of a call.
    pub(super) fn new(method: &str, uri: &str, transport: Transport, local: SocketAddr) -> Self {
        // The zone of a link-local address means nothing to other machines (RFC 4007 §6).
        let local = SocketAddr::new(local.ip(), local.port());
        let mut request = Self {
            text: Vec::new(),
            method: method.to_owned(),
            uri: uri.to_owned(),
            branch: branch(),
            from: format!("<sip:probe@{}>;tag={:x}", host(local), random()),
            call_id: format!("{:x}{:x}", random(), random()),
            transport,
            local,
        };
        request.write(&format!("<{uri}>"), 1, &[]);
        request
    }

    /// The ACK to the final response of this INVITE: RFC 3261 §17.1.1.3 for a rejection, §13.2.2.4 for a 2xx.
    pub(super) fn ack(&self, answer: &Answer) -> Self {
        let mut ack = self.next("ACK", answer);
        if answer.code >= 300 {
            ack.branch = self.branch.clone();
            ack.uri = self.uri.clone();
        }
        let routes = if answer.code >= 300 {
            Vec::new()
        } else {
            answer.route_set()
        };
        ack.write(answer.to(), 1, &routes);
        ack
    }

    /// The BYE that ends the call established by `answer`, a 2xx.
    pub(super) fn bye(&self, answer: &Answer) -> Self {
        let mut bye = self.next("BYE", answer);
        bye.write(answer.to(), 2, &answer.route_set());
        bye
    }

    /// Whether the response has our Call-ID and our branch.
    pub(super) fn is_answered_by(&self, answer: &Answer) -> bool {
        let via = answer.first("via", "v").unwrap_or_default();
        let cseq = answer.first("cseq", "cseq").unwrap_or_default();
        answer.first("call-id", "i") == Some(&self.call_id)
            && via.contains(&self.branch)
            && cseq.ends_with(&self.method)
    }

    fn next(&self, method: &str, answer: &Answer) -> Self {
        Self {
            text: Vec::new(),
            method: method.to_owned(),
            uri: answer.contact().unwrap_or(&self.uri).to_owned(),
            branch: branch(),
            from: self.from.clone(),
            call_id: self.call_id.clone(),
            transport: self.transport,
            local: self.local,
        }
    }

    fn write(&mut self, to: &str, cseq: u32, routes: &[String]) {
        let Self {
            method,
            uri,
            branch,
            from,
            call_id,
            transport,
            local,
            ..
        } = self;
        // A request to a sips URI comes from one (RFC 5630 §5.1.1.1).
        let is_sips = |uri: &str| {
            uri.get(..5)
                .is_some_and(|start| start.eq_ignore_ascii_case("sips:"))
        };
        let contact = match transport {
            _ if is_sips(uri) => format!("<sips:probe@{local}>"),
            Transport::Udp => format!("<sip:probe@{local}>"),
            Transport::Tcp | Transport::Tls | Transport::Ws | Transport::Wss => {
                format!(
                    "<sip:probe@{local};transport={}>",
                    transport.uri_parameter()
                )
            }
        };
        let mut headers: Headers = vec![
            Header::Via(Via::new(format!(
                "SIP/2.0/{transport} {local};rport;branch={branch}"
            ))),
            Header::MaxForwards(MaxForwards::new("70")),
        ]
        .into();
        headers.extend(
            routes
                .iter()
                .map(|r| Header::Route(Route::new(r)))
                .collect(),
        );
        headers.extend(vec![
            Header::From(headers::From::new(from.as_str())),
            Header::To(To::new(to)),
            Header::CallId(CallId::new(call_id.as_str())),
            Header::CSeq(CSeq::new(format!("{cseq} {method}"))),
            Header::Contact(Contact::new(contact)),
            Header::UserAgent(UserAgent::new(concat!(
                "Portcullis probe ",
                env!("CARGO_PKG_VERSION")
            ))),
            Header::ContentLength(ContentLength::new("0")),
        ]);
        // `rsip::Request` knows a fixed set of methods, and a probe may send any.
        self.text = format!("{method} {uri} SIP/2.0\r\n{headers}\r\n").into_bytes();
    }
}

impl Answer {
    /// Parses a response; `None` if the bytes are not one.
    pub(super) fn read(text: Vec<u8>) -> Option<Self> {
        let shown = String::from_utf8_lossy(&text);
        let head = shown
            .split("\r\n\r\n")
            .next()?
            .replace("\r\n ", " ")
            .replace("\r\n\t", " ");
        let mut lines = head.lines();
        let code = lines
            .next()?
            .strip_prefix("SIP/2.0 ")?
            .get(..3)?
            .parse()
            .ok()?;
        let lines = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Some(Self { text, code, lines })
    }

    fn first(&self, name: &str, compact: &str) -> Option<&str> {
        let line = self.lines.iter().find(|(n, _)| n == name || n == compact);
        line.map(|(_, value)| value.as_str())
    }

    fn to(&self) -> &str {
        self.first("to", "t").unwrap_or_default()
    }

    /// The URI of the Contact: the remote target of the dialog.
    fn contact(&self) -> Option<&str> {
        let contact = self.first("contact", "m")?;
        match contact.split_once('<') {
            Some((_, rest)) => rest.split('>').next(),
            None => contact.split(';').next(),
        }
    }

    /// The route set of the dialog: Record-Route from last to first (RFC 3261 §12.1.2).
    fn route_set(&self) -> Vec<String> {
        let lines = self.lines.iter().filter(|(name, _)| name == "record-route");
        let mut routes: Vec<_> = lines.flat_map(|(_, value)| split_routes(value)).collect();
        routes.reverse();
        routes
    }
}

/// The values of a Record-Route line; a comma inside angle brackets does not separate them.
fn split_routes(value: &str) -> Vec<String> {
    let mut inside = false;
    let parts = value.split(|c: char| {
        inside = (inside || c == '<') && c != '>';
        c == ',' && !inside
    });
    parts
        .map(|part| part.trim().to_owned())
        .filter(|part| !part.is_empty())
        .collect()
}

fn host(local: SocketAddr) -> String {
    match local.ip() {
        std::net::IpAddr::V6(ip) => format!("[{ip}]"),
        std::net::IpAddr::V4(ip) => ip.to_string(),
    }
}

fn branch() -> String {
    format!("z9hG4bK{:x}", random())
}

/// A number that is unique among probes: std's hasher starts with fresh random keys.
fn random() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddrV6;

    use super::*;

    fn request() -> Request {
        let local = "127.0.0.10:5062".parse().unwrap();
        Request::new("INVITE", "sip:bob@127.0.0.1", Transport::Udp, local)
    }

    fn answer(request: &Request, status: &str, more: &str) -> Answer {
        let text = format!(
            "SIP/2.0 {status}\r\nv: SIP/2.0/UDP 127.0.0.10:5062;branch={};rport=5062\r\nTo: <sip:bob@127.0.0.1>;tag=7\r\n\
             i: {}\r\nCSeq: 1 INVITE\r\n{more}l: 0\r\n\r\n",
            request.branch, request.call_id
        );
        Answer::read(text.into_bytes()).unwrap()
    }

    #[test]
    fn answers_are_known_by_branch_and_call_id() {
        let ours = request();
        assert!(ours.is_answered_by(&answer(&ours, "401 No", "")));
        assert!(!ours.is_answered_by(&answer(&request(), "401 No", "")));
        assert!(Answer::read(b"BYE sip:a@b SIP/2.0\r\n\r\n".to_vec()).is_none());
        assert!(Answer::read(b"SIP/2.0 2".to_vec()).is_none());
    }

    #[test]
    fn a_zone_is_not_told_to_others() {
        let local = SocketAddrV6::new("fe80::1".parse().unwrap(), 5062, 0, 3);
        let request = Request::new("OPTIONS", "sip:[fe80::2]", Transport::Udp, local.into());
        let text = String::from_utf8(request.text).unwrap();
        assert!(text.contains("Via: SIP/2.0/UDP [fe80::1]:5062;"), "{text}");
        assert!(!text.contains('%'), "{text}");
    }

    #[test]
    fn the_contact_has_the_scheme_and_the_transport_of_the_request() {
        let contact = |uri, transport| {
            let local = "127.0.0.10:5062".parse().unwrap();
            let request = Request::new("OPTIONS", uri, transport, local);
            let text = String::from_utf8(request.text).unwrap();
            let mut lines = text
                .lines()
                .filter_map(|line| line.strip_prefix("Contact: "));
            lines.next().unwrap().to_owned()
        };
        for (uri, transport, expected) in [
            (
                "sip:a.example",
                Transport::Udp,
                "<sip:probe@127.0.0.10:5062>",
            ),
            (
                "sip:a.example",
                Transport::Tls,
                "<sip:probe@127.0.0.10:5062;transport=tls>",
            ),
            (
                "sips:a.example",
                Transport::Tls,
                "<sips:probe@127.0.0.10:5062>",
            ),
        ] {
            assert_eq!(contact(uri, transport), expected);
        }
    }

    #[test]
    fn the_ack_to_a_rejection_shares_branch_and_uri() {
        let invite = request();
        let ack = invite.ack(&answer(&invite, "401 No", "Contact: <sip:else@where>\r\n"));
        let text = String::from_utf8(ack.text).unwrap();
        assert!(
            text.starts_with("ACK sip:bob@127.0.0.1 SIP/2.0\r\n"),
            "{text}"
        );
        assert!(
            text.contains(&invite.branch)
                && text.contains(";tag=7\r\n")
                && text.contains("CSeq: 1 ACK\r\n")
        );
    }

    #[test]
    fn an_answered_call_is_ended_along_its_route_set() {
        let invite = request();
        let more = "Record-Route: <sip:b;lr>, <sip:a,x;lr>\r\nRecord-Route:\r\n <sip:z;lr>\r\nm: <sip:bob@10.0.0.9>;x=1\r\n";
        let ok = answer(&invite, "200 OK", more);
        let text = String::from_utf8(invite.bye(&ok).text).unwrap();
        assert!(
            text.starts_with("BYE sip:bob@10.0.0.9 SIP/2.0\r\n"),
            "{text}"
        );
        assert!(
            text.contains("Route: <sip:z;lr>\r\nRoute: <sip:a,x;lr>\r\nRoute: <sip:b;lr>\r\n"),
            "{text}"
        );
        assert!(text.contains("CSeq: 2 BYE\r\n") && !text.contains(&invite.branch));
    }
}
