//! Prepared requests. A request differs from the previous one of its source only in the id in its branch and Call-ID, and in its tenant; both are
//! patched in place.

use std::net::{IpAddr, SocketAddr};

use rsip::common::uri::Auth;
use rsip::common::uri::param::{OtherParam, OtherParamValue};
use rsip::headers::{
    self, Accept, Allow, CSeq, CallId, Contact, ContentLength, ContentType, MaxForwards, To,
    UntypedHeader, UserAgent, Via,
};
use rsip::{Header, Headers, Host, HostWithPort, Method, Param, Request, Scheme, Uri, Version};

use crate::plan::{Mode, Plan};
use crate::transport::Transport;

/// The branch before the id. The first seven characters are those of RFC 3261 §8.1.1.7.
pub(crate) const BRANCH: &[u8] = b"z9hG4bK-load-";
/// Number of hexadecimal digits of an id.
pub(crate) const ID_DIGITS: usize = 16;

const SDP: &str = "v=0\r\no=alice 2890844526 2890844526 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
                   m=audio 49170 RTP/AVP 8 0 101\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:0 PCMU/8000\r\n\
                   a=rtpmap:101 telephone-event/8000\r\na=sendrecv\r\n";

/// The host of the first tenant. That of another tenant has its number in place of the zeros.
const TENANT: &str = "t00000.tenants.example";
/// Position of a tenant's number in its host.
const TENANT_DIGITS: std::ops::Range<usize> = 1..6;

/// The request of one source.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    bytes: Vec<u8>,
    id_at: [usize; 2],
    /// Number of tenants, and positions of their hosts in request URI and To.
    tenants: Option<(u32, [usize; 2])>,
}

impl Template {
    /// The request that `source` sends in this plan.
    pub(crate) fn new(plan: &Plan, source: SocketAddr) -> Self {
        let Plan {
            target, transport, ..
        } = *plan;
        let (callee, port) = match plan.tenants {
            Some(_) => (TENANT.to_owned(), None),
            None => (host(target.ip()), Some(target.port())),
        };
        let text = match plan.mode {
            Mode::Options => options(source, transport, &callee, port),
            Mode::Message => message(source, transport, &callee, port),
            Mode::Reject | Mode::Relay | Mode::Call | Mode::Echo => {
                invite(source, transport, &callee, port)
            }
        }
        .to_string();
        let id = "#".repeat(ID_DIGITS);
        let id_at = [position(&text, &id, 0), position(&text, &id, 1)];
        let hosts = [0, 1];
        let tenants = plan.tenants.map(|count| {
            let at = hosts.map(|nth| position(&text, TENANT, nth));
            (count, at)
        });
        Self {
            bytes: text.into_bytes(),
            id_at,
            tenants,
        }
    }

    /// The request with this id. The id determines the tenant, so that a request that is sent again goes to the same one.
    pub(crate) fn with_id(&mut self, id: u64) -> &[u8] {
        let digits = digits(id);
        for at in self.id_at {
            self.bytes[at..at + ID_DIGITS].copy_from_slice(&digits);
        }
        if let Some((count, hosts)) = self.tenants {
            let mut rest = tenant_of(id, count);
            for digit in TENANT_DIGITS.rev() {
                for at in hosts {
                    self.bytes[at + digit] = b'0' + (rest % 10) as u8;
                }
                rest /= 10;
            }
        }
        &self.bytes
    }

    /// The id in a datagram that is one of this template's requests; `None` if any other byte differs.
    pub(crate) fn id_of(&self, bytes: &[u8]) -> Option<u64> {
        let [first, second] = self.id_at;
        let rest = second + ID_DIGITS;
        let same = bytes.len() == self.bytes.len()
            && bytes[..first] == self.bytes[..first]
            && bytes[first + ID_DIGITS..second] == self.bytes[first + ID_DIGITS..second]
            && bytes[rest..] == self.bytes[rest..]
            && bytes[first..first + ID_DIGITS] == bytes[second..rest];
        same.then(|| parse_id(&bytes[first..])).flatten()
    }
}

/// Parses the id at the start of `bytes`.
pub(crate) fn parse_id(bytes: &[u8]) -> Option<u64> {
    let mut id = 0;
    for byte in bytes.get(..ID_DIGITS)? {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        id = id << 4 | u64::from(digit);
    }
    Some(id)
}

/// The tenant of the request with this id: consecutive ids have tenants in random order (splitmix64).
fn tenant_of(id: u64, count: u32) -> u32 {
    let mut mixed = id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    (mixed % u64::from(count)) as u32
}

fn invite(source: SocketAddr, transport: Transport, callee: &str, port: Option<u16>) -> Request {
    let uri = uri(Some("+4930123456"), transport, callee, port);
    let headers = vec![
        Header::Allow(Allow::new("INVITE, ACK, CANCEL, BYE, OPTIONS")),
        Header::ContentType(ContentType::new("application/sdp")),
        Header::ContentLength(ContentLength::new(SDP.len().to_string())),
    ];
    request(Method::Invite, uri, source, transport, headers, SDP)
}

fn message(source: SocketAddr, transport: Transport, callee: &str, port: Option<u16>) -> Request {
    const TEXT: &str = "On my way.";
    let headers = vec![
        Header::ContentType(ContentType::new("text/plain")),
        Header::ContentLength(ContentLength::new(TEXT.len().to_string())),
    ];
    let uri = uri(Some("+4930123456"), transport, callee, port);
    request(Method::Message, uri, source, transport, headers, TEXT)
}

fn options(source: SocketAddr, transport: Transport, callee: &str, port: Option<u16>) -> Request {
    let headers = vec![
        Header::Accept(Accept::new("application/sdp")),
        Header::ContentLength(ContentLength::new("0")),
    ];
    request(
        Method::Options,
        uri(None, transport, callee, port),
        source,
        transport,
        headers,
        "",
    )
}

fn request(
    method: Method,
    uri: Uri,
    source: SocketAddr,
    transport: Transport,
    more: Vec<Header>,
    body: &str,
) -> Request {
    let host = host(source.ip());
    let via = transport.in_via();
    let parameter = transport
        .in_uri()
        .map_or_else(String::new, |name| format!(";transport={name}"));
    let branch = String::from_utf8_lossy(BRANCH);
    let id = "#".repeat(ID_DIGITS);
    let mut headers: Headers = vec![
        Header::Via(Via::new(format!(
            "SIP/2.0/{via} {source};branch={branch}{id};rport"
        ))),
        Header::MaxForwards(MaxForwards::new("70")),
        Header::From(headers::From::new(format!(
            "\"Alice\" <sip:alice@{host}>;tag=9fxced76sl"
        ))),
        Header::CallId(CallId::new(format!("{id}@{host}"))),
        Header::To(To::new(format!("<{uri}>"))),
        Header::CSeq(CSeq::new(format!("1 {method}"))),
        Header::Contact(Contact::new(format!("<sip:alice@{source}{parameter}>"))),
        Header::UserAgent(UserAgent::new("portcullis-load")),
    ]
    .into();
    headers.extend(more);
    Request {
        method,
        uri,
        version: Version::V2,
        headers,
        body: body.into(),
    }
}

fn uri(user: Option<&str>, transport: Transport, callee: &str, port: Option<u16>) -> Uri {
    let parameter = |value: &str| {
        let name = OtherParam::from("transport".to_owned());
        Param::Other(name, Some(OtherParamValue::from(value.to_owned())))
    };
    Uri {
        scheme: Some(Scheme::Sip),
        auth: user.map(|user| Auth::from((user, None::<String>))),
        host_with_port: HostWithPort {
            // `rsip` writes an IPv6 address without its brackets, and a name as it is.
            host: Host::from(callee.to_owned()),
            port: port.map(Into::into),
        },
        params: transport.in_uri().map(parameter).into_iter().collect(),
        ..Uri::default()
    }
}

fn host(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

fn position(text: &str, placeholder: &str, nth: usize) -> usize {
    text.match_indices(placeholder)
        .nth(nth)
        .map(|(at, _)| at)
        .expect("a request has its id in branch and Call-ID, its tenant in request URI and To")
}

fn digits(id: u64) -> [u8; ID_DIGITS] {
    let mut digits = [0; ID_DIGITS];
    for (n, digit) in digits.iter_mut().enumerate() {
        let nibble = (id >> (4 * (ID_DIGITS - 1 - n))) & 15;
        *digit = b"0123456789abcdef"[nibble as usize];
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(mode: Mode) -> Template {
        Template::new(&plan(mode), "127.1.0.1:40000".parse().unwrap())
    }

    fn plan(mode: Mode) -> Plan {
        let target = "127.0.0.1:5060".parse().unwrap();
        Plan::new(target, mode, "127.1.0.1".parse().unwrap())
    }

    #[test]
    fn requests_go_to_all_tenants_in_random_order() {
        const TENANTS: usize = 50;
        let mut plan = plan(Mode::Reject);
        plan.tenants = Some(TENANTS as u32);
        let mut template = Template::new(&plan, "127.1.0.1:40000".parse().unwrap());
        let mut counts = [0; TENANTS];
        let (mut last, mut next_ones) = (0, 0);
        for id in 0..10_000 {
            let text = String::from_utf8(template.with_id(id).to_vec()).unwrap();
            let host = text
                .strip_prefix("INVITE sip:+4930123456@t")
                .and_then(|rest| rest.split_once(".tenants.example SIP/2.0\r\n"))
                .unwrap()
                .0;
            let to = format!("\r\nTo: <sip:+4930123456@t{host}.tenants.example>\r\n");
            assert!(host.len() == 5 && text.contains(&to), "{text}");
            let tenant: usize = host.parse().unwrap();
            counts[tenant] += 1;
            next_ones += usize::from(tenant == (last + 1) % TENANTS);
            last = tenant;
            // A request that is sent again is the same.
            assert_eq!(template.with_id(id), text.as_bytes());
        }
        // 200 for each tenant, within five standard deviations of 14.
        assert!(
            counts.iter().all(|count| (130..270).contains(count)),
            "{counts:?}"
        );
        assert!((130..270).contains(&next_ones), "{next_ones}");
    }

    #[test]
    fn a_request_is_whole_and_carries_its_id_twice() {
        for mode in [
            Mode::Reject,
            Mode::Options,
            Mode::Relay,
            Mode::Message,
            Mode::Call,
            Mode::Echo,
        ] {
            let mut template = template(mode);
            let text = String::from_utf8(template.with_id(0x1234_5678_9abc_def0).to_vec()).unwrap();
            assert!(!text.contains('#'), "{text}");
            assert!(text.contains(";branch=z9hG4bK-load-123456789abcdef0;rport\r\n"));
            assert!(text.contains("\r\nCall-ID: 123456789abcdef0@127.1.0.1\r\n"));
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.ends_with(&format!("Content-Length: {}", body.len())));
        }
    }

    #[test]
    fn a_request_names_its_transport() {
        let mut plan = plan(Mode::Reject);
        for (transport, via, parameter) in [
            (Transport::Udp, "UDP", ""),
            (Transport::Tls, "TLS", ";transport=tls"),
            (Transport::Wss, "WSS", ";transport=ws"),
        ] {
            plan.transport = transport;
            let mut template = Template::new(&plan, "127.1.0.1:40000".parse().unwrap());
            let text = String::from_utf8(template.with_id(1).to_vec()).unwrap();
            let line = format!("INVITE sip:+4930123456@127.0.0.1:5060{parameter} SIP/2.0\r\n");
            assert!(text.starts_with(&line), "{text}");
            assert!(
                text.contains(&format!("\r\nVia: SIP/2.0/{via} 127.1.0.1:40000;")),
                "{text}"
            );
            let contact = format!("\r\nContact: <sip:alice@127.1.0.1:40000{parameter}>\r\n");
            assert!(text.contains(&contact), "{text}");
        }
    }

    #[test]
    fn an_echo_is_recognised_and_an_altered_one_is_not() {
        let mut template = template(Mode::Echo);
        let mut sent = template.with_id(77).to_vec();
        template.with_id(78);
        assert_eq!(template.id_of(&sent), Some(77));
        for at in [0, sent.len() / 2, sent.len() - 1, template.id_at[1]] {
            sent[at] ^= 1;
            assert_eq!(template.id_of(&sent), None, "byte {at} differs");
            sent[at] ^= 1;
        }
        assert_eq!(template.id_of(&sent[1..]), None);
    }

    #[test]
    fn ids_survive_the_way_there_and_back() {
        for id in [0, 1, 0xdead_beef, u64::MAX] {
            assert_eq!(parse_id(&digits(id)), Some(id));
        }
        assert_eq!(parse_id(b"123"), None);
        assert_eq!(parse_id(b"12345678-abcdef0"), None);
    }
}
