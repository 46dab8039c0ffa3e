//! Requests of the host itself, which ask whether a next hop answers (RFC 3261 §11), or keep the flow of a client open.
//!
//! The branch to a next hop is `z9hG4bKp`, 16 digits that number the ping, and 16 digits that seal them with a key of their own. That to a client
//! begins with `z9hG4bKk`, and its seal includes the address of the client and the time. They are the branches of no
//! transaction, so an answer is a response that nothing else claims.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::Proxy;
use super::identity::Place;
use super::legs::leg_to;
use super::relay::Forwarded;
use super::relay_error::RelayError;
use crate::arrival::{Arrival, Destination, Transport};
use crate::cseq::MAX_FORWARDS;
use crate::edit::{HEX_DIGITS, read_hex, write_decimal, write_hex};
use crate::key::Key;
use crate::routes::{Choice, Routes};
use crate::scan::{Framing, Index, Limits, Message, StartLine, scan};
use crate::top_via::TopVia;
use crate::uri::Uri;
use crate::via::MAGIC_COOKIE;

/// What the branch of a ping has after the magic cookie, in place of a digit.
const MARK: u8 = b'p';

/// The same for a ping to a client.
const FLOW_MARK: u8 = b'k';

/// What follows the branch of a ping to a client: it answers to the address and port that the ping comes from (RFC 3581). Its NAT has a binding for these,
/// which is the one to keep, whatever this host has in Via.
const RPORT: &[u8] = b";rport";

/// A request of the host itself to a next hop.
#[derive(Clone, Copy, Debug)]
pub struct Ping<'p> {
    /// The name of the next hop.
    pub hop: &'p str,
    /// The request URI, and the URI of To.
    pub uri: &'p str,
    /// The method.
    pub method: &'p str,
    /// The URI of From. Empty: `sip:dispatcher@HOST`, with host and port of the Via (Kamailio: `sip:dispatcher@localhost`).
    pub from: &'p str,
    /// A number that the answer brings back. No two pings under way may have the same.
    pub number: u64,
    /// Which of the addresses of the next hop it goes to.
    pub choice: Choice<'p>,
}

impl Proxy {
    /// Writes a ping. The socket is the one that a relayed request would leave by.
    ///
    /// # Errors
    /// When it cannot be sent: there is no such next hop, it has no address, or no socket leads there.
    pub fn ping(
        &self,
        routes: &Routes,
        ping: &Ping<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Forwarded, RelayError> {
        out.clear();
        // The address of a name follows from the Call-ID, and is another one for each ping.
        let mut call_id = Vec::with_capacity(HEX_DIGITS);
        write_hex(ping.number, &mut call_id);
        let mut head = b"OPTIONS sip:a SIP/2.0\r\nCall-ID: ".to_vec();
        head.extend_from_slice(&call_id);
        head.extend_from_slice(b"\r\n\r\n");
        let mut index = Index::default();
        let _lacks_fields = scan(&head, Framing::Datagram, &Limits::NONE, &mut index);
        let nowhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        let arrival = Arrival {
            source: nowhere,
            local: nowhere,
            transport: Transport::Udp,
            connection: None,
        };
        let message = Message::new(&head, &index);
        let leg = leg_to(self, message, &arrival, routes, ping.hop, ping.choice)?;
        let branch = PingBranch {
            mark: MARK,
            number: &call_id,
            seal: self.keys.current().ping(ping.number),
            params: b"",
        };
        write(leg.place, ping, &branch, out);
        Ok(Forwarded {
            to: Destination {
                transport: leg.transport,
                addr: leg.addr,
                from: Some(leg.place.addr),
                connection: None,
                name: leg.name,
                is_flow: false,
            },
            others: leg.others,
        })
    }

    /// The number of the ping that this message answers, or that this message is. `None` for anything else: nobody else can write such a
    /// branch.
    pub fn ping_of(&self, message: Message<'_>) -> Option<u64> {
        self.numbered(message, MARK, |key, number, seal| key.ping(number) == seal)
    }

    /// Writes a ping to a client over UDP, along the flow from this socket of the host to the address of the client: an OPTIONS, so that the client
    /// sends something, too. Many NATs keep a binding only for what comes from inside (RFC 4787 §4.3).
    /// Returns `None` if the host has no such socket.
    pub fn ping_flow(
        &self,
        local: SocketAddr,
        client: SocketAddr,
        number: u64,
        out: &mut Vec<u8>,
    ) -> Option<Destination> {
        out.clear();
        let (_, place) = self.identity.place_of(Transport::Udp, local)?;
        let mut digits = Vec::with_capacity(HEX_DIGITS);
        write_hex(number, &mut digits);
        let uri = uri_of_client(client);
        let sent_by = String::from_utf8_lossy(place.sent_by());
        let ping = Ping {
            hop: "",
            uri: &uri,
            method: "OPTIONS",
            from: &format!("sip:keepalive@{sent_by}"),
            number,
            choice: Choice::FIRST,
        };
        let branch = PingBranch {
            mark: FLOW_MARK,
            number: &digits,
            seal: self.keys.current().flow_ping(number, client, self.period()),
            params: RPORT,
        };
        write(place, &ping, &branch, out);
        Some(Destination {
            transport: Transport::Udp,
            addr: client,
            from: Some(local),
            connection: None,
            name: None,
            is_flow: true,
        })
    }

    /// The number of the ping to the client at this address that a message answers. Nobody else can write such a branch, so whoever answers has
    /// received the ping there. It counts for four to eight minutes: later, somebody else may have the address.
    pub fn flow_ping_of(&self, message: Message<'_>, client: SocketAddr) -> Option<u64> {
        let periods = self.accepted_periods();
        self.numbered(message, FLOW_MARK, |key, number, seal| {
            let mut periods = periods.iter();
            periods.any(|period| key.flow_ping(number, client, *period) == seal)
        })
    }

    /// The client and the number of a ping along a flow, by the request itself.
    pub fn flow_pinged(&self, message: Message<'_>) -> Option<(SocketAddr, u64)> {
        let StartLine::Request { uri, .. } = message.start_line() else {
            return None;
        };
        let uri = Uri::parse(uri).ok()?;
        let client = SocketAddr::new(uri.host.ip()?, uri.port?);
        Some((client, self.flow_ping_of(message, client)?))
    }

    fn numbered(
        &self,
        message: Message<'_>,
        mark: u8,
        is_seal: impl Fn(&Key, u64, u64) -> bool,
    ) -> Option<u64> {
        let top = TopVia::of(message)?;
        if !self.identity.is_our_via(&top.via) {
            return None;
        }
        let digits = top.via.rfc3261_branch()?.get(MAGIC_COOKIE.len()..)?;
        let digits = digits.strip_prefix(&[mark])?;
        let (number, seal) = digits.split_at_checked(HEX_DIGITS)?;
        let (number, seal) = (read_hex(number)?, read_hex(seal)?);
        let mut keys = self.keys.all();
        keys.any(|key| is_seal(key, number, seal)).then_some(number)
    }
}

/// The branch of a ping.
struct PingBranch<'b> {
    mark: u8,
    /// As digits. It is the Call-ID and the tag as well.
    number: &'b [u8],
    seal: u64,
    /// What follows it in Via.
    params: &'static [u8],
}

/// The request URI of a ping to a client. A zone means something on this machine only.
fn uri_of_client(client: SocketAddr) -> String {
    format!("sip:{}", SocketAddr::new(client.ip(), client.port()))
}

fn write(place: &Place, ping: &Ping<'_>, branch: &PingBranch<'_>, out: &mut Vec<u8>) {
    let Ping {
        uri, method, from, ..
    } = *ping;
    let PingBranch {
        mark,
        number: call_id,
        seal,
        params,
    } = *branch;
    let sent_by = place.sent_by();
    let mut add = |parts: &[&[u8]]| out.extend(parts.iter().copied().flatten());
    add(&[method.as_bytes(), b" ", uri.as_bytes(), b" SIP/2.0\r\n"]);
    add(&[&place.via, MAGIC_COOKIE, &[mark], call_id]);
    write_hex(seal, out);
    let mut add = |parts: &[&[u8]]| out.extend(parts.iter().copied().flatten());
    add(&[params, b"\r\nMax-Forwards: "]);
    write_decimal(MAX_FORWARDS.into(), out);
    let mut add = |parts: &[&[u8]]| out.extend(parts.iter().copied().flatten());
    match from {
        "" => add(&[b"\r\nFrom: <sip:dispatcher@", sent_by, b">;tag=", call_id]),
        from => add(&[b"\r\nFrom: <", from.as_bytes(), b">;tag=", call_id]),
    }
    add(&[
        b"\r\nTo: <",
        uri.as_bytes(),
        b">\r\nCall-ID: ",
        call_id,
        b"@",
        sent_by,
    ]);
    add(&[
        b"\r\nCSeq: 1 ",
        method.as_bytes(),
        b"\r\nAccept: application/sdp\r\nContent-Length: 0\r\n\r\n",
    ]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::{Local, ProxyConfig, Received};
    use crate::routes::RoutesBuilder;
    use crate::{Clients, DropReason};

    fn proxy(key: u8) -> Proxy {
        let local = |transport, addr: &str, advertised: Option<(String, u16)>| Local {
            transport,
            addr: addr.parse().unwrap(),
            advertised,
        };
        Proxy::new(ProxyConfig {
            locals: vec![
                local(Transport::Udp, "192.0.2.9:5060", None),
                local(
                    Transport::Tcp,
                    "192.0.2.9:5070",
                    Some(("edge.example".to_owned(), 5080)),
                ),
            ],
            aliases: Vec::new(),
            key: [key; 16],
            earlier_keys: Vec::new(),
            dialog_minutes: 60,
            record_route: true,
            server_header: None,
            force_rport: Vec::new(),
            clients: Clients::default(),
        })
    }

    fn routes() -> Routes {
        let mut builder = RoutesBuilder::new();
        for (name, uri) in [
            ("one", "sip:192.0.2.1"),
            ("two", "sip:192.0.2.2;transport=tcp"),
            ("six", "sip:[2001:db8::1]"),
            ("name", "sip:gw.example:5060"),
        ] {
            builder.hop(name, uri).unwrap();
        }
        builder.build_of(|_| Vec::new())
    }

    fn ping<'p>(hop: &'p str, uri: &'p str, from: &'p str) -> Ping<'p> {
        Ping {
            hop,
            uri,
            method: "OPTIONS",
            from,
            number: 0x1234,
            choice: Choice::FIRST,
        }
    }

    fn written(proxy: &Proxy, ping: &Ping<'_>) -> (String, Destination) {
        let mut out = b"old".to_vec();
        let forwarded = proxy.ping(&routes(), ping, &mut out).unwrap();
        (String::from_utf8(out).unwrap(), forwarded.to)
    }

    /// The number that comes back with a message.
    fn number(proxy: &Proxy, message: &str) -> Option<u64> {
        read(message, |message| proxy.ping_of(message))
    }

    fn read<R>(message: &str, then: impl FnOnce(Message<'_>) -> R) -> R {
        let mut index = Index::default();
        scan(
            message.as_bytes(),
            Framing::Datagram,
            &Limits::default(),
            &mut index,
        )
        .unwrap();
        then(Message::new(message.as_bytes(), &index))
    }

    #[test]
    fn a_client_is_pinged_along_its_flow_and_its_answer_counts_from_there_only() {
        let (proxy, other) = (proxy(7), self::proxy(8));
        let local = "192.0.2.9:5060".parse().unwrap();
        let mut out = b"old".to_vec();
        for client in ["198.51.100.7:40000", "[2001:db8::7]:40000"] {
            let client: SocketAddr = client.parse().unwrap();
            let to = proxy.ping_flow(local, client, 0x1234, &mut out).unwrap();
            assert_eq!((to.addr, to.from, to.is_flow), (client, Some(local), true));
            let request = String::from_utf8(out.clone()).unwrap();
            let beginning = format!(
                "OPTIONS sip:{client} SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.9:5060;branch=z9hG4bKk0000000000001234"
            );
            assert!(request.starts_with(&beginning), "{request}");
            let via = request.lines().nth(1).unwrap();
            assert!(via.ends_with(";rport"), "{via}");
            let from = "\r\nFrom: <sip:keepalive@192.0.2.9:5060>;tag=0000000000001234\r\n";
            assert!(request.contains(from), "{request}");
            let pinged = read(&request, |message| proxy.flow_pinged(message));
            assert_eq!(pinged, Some((client, 0x1234)));
            let first = format!("OPTIONS sip:{client} SIP/2.0");
            let answer = request.replacen(&first, "SIP/2.0 200 OK", 1);
            let answer = answer.replacen(";rport", ";rport=5060;received=192.0.2.9", 1);
            let number = |proxy: &Proxy, text: &str, from: SocketAddr| {
                read(text, |message| proxy.flow_ping_of(message, from))
            };
            assert_eq!(number(&proxy, &answer, client), Some(0x1234));
            let elsewhere = SocketAddr::new(client.ip(), 40_001);
            assert_eq!(number(&proxy, &answer, elsewhere), None);
            assert_eq!(number(&other, &answer, client), None);
            // A ping of the other kind is none of this one.
            let changed = answer.replace("z9hG4bKk", "z9hG4bKp");
            assert_eq!(number(&proxy, &changed, client), None);
            assert_eq!(self::number(&proxy, &answer), None);
            // Who has the address ten minutes later has not received the ping.
            proxy.set_time(3 * 60);
            assert_eq!(number(&proxy, &answer, client), Some(0x1234));
            proxy.set_time(10 * 60);
            assert_eq!(number(&proxy, &answer, client), None);
            proxy.set_time(0);
        }
        let (nowhere, client) = ("192.0.2.9:5061", "198.51.100.7:40000");
        let (nowhere, client) = (nowhere.parse().unwrap(), client.parse().unwrap());
        assert_eq!(proxy.ping_flow(nowhere, client, 1, &mut out), None);
    }

    #[test]
    fn a_ping_is_a_valid_request_from_the_socket_that_leads_there() {
        let proxy = proxy(7);
        let (request, to) = written(&proxy, &ping("one", "sip:gw@192.0.2.1", ""));
        assert_eq!(
            (to.transport, to.addr.to_string()),
            (Transport::Udp, "192.0.2.1:5060".to_owned())
        );
        assert_eq!(to.from.unwrap().to_string(), "192.0.2.9:5060");
        assert!(request.starts_with("OPTIONS sip:gw@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.9:5060;branch=z9hG4bKp0000000000001234"), "{request}");
        for line in [
            "\r\nMax-Forwards: 70\r\n",
            "\r\nFrom: <sip:dispatcher@192.0.2.9:5060>;tag=0000000000001234\r\n",
            "\r\nTo: <sip:gw@192.0.2.1>\r\n",
            "\r\nCall-ID: 0000000000001234@192.0.2.9:5060\r\n",
            "\r\nCSeq: 1 OPTIONS\r\n",
        ] {
            assert!(request.contains(line), "{line}: {request}");
        }
        assert!(
            request.ends_with("\r\nContent-Length: 0\r\n\r\n"),
            "{request}"
        );
        let (request, to) = written(
            &proxy,
            &ping("two", "sip:192.0.2.2;transport=tcp", "sip:edge@a.example"),
        );
        assert_eq!(to.transport, Transport::Tcp);
        assert!(
            request.contains("\r\nVia: SIP/2.0/TCP edge.example:5080;branch="),
            "{request}"
        );
        assert!(
            request.contains("\r\nFrom: <sip:edge@a.example>;tag="),
            "{request}"
        );
    }

    #[test]
    fn an_answer_brings_the_number_back_and_nobody_else_can_write_one() {
        let (proxy, other) = (proxy(7), self::proxy(8));
        let (request, _) = written(&proxy, &ping("one", "sip:192.0.2.1", ""));
        let answer = request.replacen("OPTIONS sip:192.0.2.1 SIP/2.0", "SIP/2.0 200 OK", 1);
        assert_eq!(number(&proxy, &answer), Some(0x1234));
        assert_eq!(
            number(&proxy, &request),
            Some(0x1234),
            "the request itself, if it is not delivered"
        );
        assert_eq!(number(&other, &answer), None);
        for forged in [
            answer.replace("z9hG4bKp0000000000001234", "z9hG4bKp0000000000001235"),
            answer.replace("z9hG4bKp", "z9hG4bK"),
            answer.replace("UDP 192.0.2.9:5060", "UDP 192.0.2.8:5060"),
        ] {
            assert_eq!(number(&proxy, &forged), None, "{forged}");
        }
        // The first look relays it nowhere.
        let mut index = Index::default();
        let scanned = scan(
            answer.as_bytes(),
            Framing::Datagram,
            &Limits::default(),
            &mut index,
        );
        let arrival = Arrival {
            source: "192.0.2.1:5060".parse().unwrap(),
            local: "192.0.2.9:5060".parse().unwrap(),
            transport: Transport::Udp,
            connection: None,
        };
        let message = Message::new(answer.as_bytes(), &index);
        let looked = proxy.receive(message, scanned, &arrival, &mut Vec::new());
        assert_eq!(looked, Received::Drop(DropReason::ForgedResponse));
    }

    #[test]
    fn a_next_hop_may_have_a_socket_of_its_own() {
        let local = |addr: &str| Local {
            transport: Transport::Udp,
            addr: addr.parse().unwrap(),
            advertised: None,
        };
        let proxy = Proxy::new(ProxyConfig {
            locals: vec![local("192.0.2.9:5060"), local("192.0.2.9:5090")],
            aliases: Vec::new(),
            key: [7; 16],
            earlier_keys: Vec::new(),
            dialog_minutes: 60,
            record_route: true,
            server_header: None,
            force_rport: Vec::new(),
            clients: Clients::default(),
        });
        let from = |socket: Option<&str>| {
            let mut builder = RoutesBuilder::new();
            builder.hop("one", "sip:192.0.2.1").unwrap();
            if let Some(socket) = socket {
                builder.socket("one", socket.parse().unwrap());
            }
            let routes = builder.build_of(|_| Vec::new());
            let sent = proxy.ping(&routes, &ping("one", "sip:192.0.2.1", ""), &mut Vec::new());
            sent.unwrap().to.from.unwrap().port()
        };
        assert_eq!(from(None), 5060);
        assert_eq!(from(Some("192.0.2.9:5090")), 5090);
        assert_eq!(from(Some("192.0.2.8:5090")), 5060, "no such socket");
        assert!(proxy.has_socket("192.0.2.9:5090".parse().unwrap()));
        assert!(!proxy.has_socket("192.0.2.8:5090".parse().unwrap()));
    }

    #[test]
    fn a_next_hop_that_cannot_be_reached_has_a_reason() {
        let proxy = proxy(7);
        let error = |hop: &str| {
            let sent = proxy.ping(&routes(), &ping(hop, "sip:a", ""), &mut Vec::new());
            sent.unwrap_err()
        };
        assert!(matches!(error("gone"), RelayError::UnknownNextHop(_)));
        assert!(matches!(error("six"), RelayError::NoSocket { .. }));
        assert!(matches!(error("name"), RelayError::Unresolved(_)));
    }
}
