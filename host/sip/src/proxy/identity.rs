//! The identity of this host: its sockets, their names, and the choice of a socket to send from.

use std::net::{IpAddr, SocketAddr};

use crate::arrival::Transport;
use crate::host::Host;
use crate::top_via::DEFAULT_PORT;
use crate::uri::Uri;
use crate::via::Via;

/// One socket that the host listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// The transport.
    pub transport: Transport,
    /// The address that peers reach and that messages are sent from: a concrete one. Where a socket listens on every address
    /// of the machine, there is one `Local` for each of these.
    pub addr: SocketAddr,
    /// The host and port for Via and Record-Route instead of `addr`, behind NAT or for a name. IPv6 in brackets.
    pub advertised: Option<(String, u16)>,
}

/// The sockets of the host and its names.
#[derive(Debug)]
pub(super) struct Identity {
    places: Box<[Place]>,
    aliases: Box<[Name]>,
}

/// One [`Local`], with the header text prepared for it.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) transport: Transport,
    pub(super) addr: SocketAddr,
    /// `Via: SIP/2.0/TRANSPORT HOST:PORT;branch=`; the branch follows.
    pub(super) via: Box<[u8]>,
    /// `HOST:PORT`, as in Via.
    sent_by: Box<[u8]>,
    /// `HOST:PORT;lr` with the transport, if it is not UDP, for Record-Route and Path; parameters may follow.
    route: Box<[u8]>,
    /// `HOST:PORT;lr` with the scheme `sips`, if the transport is secure.
    secure_route: Option<Box<[u8]>>,
    /// Whether its peers are clients: see [`Clients`](super::Clients).
    pub(super) has_clients: bool,
    advertised: Option<Name>,
}

/// A host name or address of this host; without a port it applies to each of its ports.
#[derive(Debug, PartialEq, Eq)]
struct Name {
    host: OwnedHost,
    port: Option<u16>,
}

#[derive(Debug, PartialEq, Eq)]
enum OwnedHost {
    Ip(IpAddr),
    Name(Box<[u8]>),
}

impl Identity {
    pub(super) fn new(
        locals: &[Local],
        aliases: &[String],
        clients: &[(Transport, SocketAddr)],
    ) -> Self {
        let place = |local: &Local| {
            let has_clients = clients.contains(&(local.transport, local.addr));
            Place::new(local, has_clients)
        };
        Self {
            places: locals.iter().map(place).collect(),
            aliases: aliases.iter().map(|alias| Name::parse(alias)).collect(),
        }
    }

    /// Whether host and port name this host. `default` is the port that is meant without one.
    pub(super) fn is_us(&self, host: Host<'_>, port: Option<u16>, default: u16) -> bool {
        let number = port.unwrap_or(default);
        let ip = host.ip().map(|ip| ip.to_canonical());
        let is_place = |place: &Place| {
            let is_addr = ip == Some(place.addr.ip()) && number == place.addr.port();
            is_addr
                || place
                    .advertised
                    .as_ref()
                    .is_some_and(|name| name.is(host, number))
        };
        self.places.iter().any(is_place) || self.is_alias(host, port)
    }

    /// Whether the URI's host and port name this host.
    pub(super) fn is_our_uri(&self, uri: &Uri<'_>) -> bool {
        self.is_us(uri.host, uri.port, uri.port_or_default())
    }

    /// Whether one of our sockets has TLS.
    pub(super) fn has_tls(&self) -> bool {
        self.places.iter().any(|place| place.transport.is_secure())
    }

    /// Whether the Via's sent-by is one that this host writes.
    pub(super) fn is_our_via(&self, via: &Via<'_>) -> bool {
        let transport = Transport::from_token(via.transport);
        let default = transport.map_or(DEFAULT_PORT, Transport::default_port);
        let port = via.port.unwrap_or(default);
        self.places.iter().any(|place| {
            transport == Some(place.transport)
                && match &place.advertised {
                    Some(name) => name.is(via.host, port),
                    None => via.host.ip() == Some(place.addr.ip()) && port == place.addr.port(),
                }
        })
    }

    /// Whether one of our sockets listens there.
    pub(super) fn listens_on(&self, transport: Transport, addr: SocketAddr) -> bool {
        self.places
            .iter()
            .any(|place| place.transport == transport && place.addr == addr)
    }

    /// Whether one of our sockets has this address.
    pub(super) fn has_socket(&self, addr: SocketAddr) -> bool {
        let addr = SocketAddr::new(addr.ip().to_canonical(), addr.port());
        self.places.iter().any(|place| place.addr == addr)
    }

    /// The socket for sending to `ip`: the one of the arrival, if transport and address family match; else one with the same address;
    /// else the first. The reach is checked before that, because a loopback address reaches only loopback addresses, and a link-local one only
    /// those of its link.
    pub(super) fn place_towards(
        &self,
        transport: Transport,
        ip: IpAddr,
        arrived_at: SocketAddr,
    ) -> Option<&Place> {
        let rank = |place: &&Place| {
            (
                Reach::of(place.addr.ip()) == Reach::of(ip),
                place.addr == arrived_at,
                place.addr.ip() == arrived_at.ip(),
            )
        };
        // From another socket, the system would not know the link.
        let is_of_link = |place: &&Place| {
            Reach::of(ip) != Reach::Link || Reach::of(place.addr.ip()) == Reach::Link
        };
        let fitting = |place: &&Place| {
            place.transport == transport
                && place.addr.is_ipv4() == ip.is_ipv4()
                && is_of_link(place)
        };
        // `max_by_key` returns the last of equal elements; the first one is wanted.
        self.places.iter().rev().filter(fitting).max_by_key(rank)
    }

    /// The index and the number of the socket that received a message.
    pub(super) fn place_of(
        &self,
        transport: Transport,
        addr: SocketAddr,
    ) -> Option<(usize, &Place)> {
        let is_it =
            |(_, place): &(usize, &Place)| place.transport == transport && place.addr == addr;
        self.places.iter().enumerate().find(is_it)
    }

    /// The index for this number.
    pub(super) fn place(&self, number: usize) -> Option<&Place> {
        self.places.get(number)
    }

    fn is_alias(&self, host: Host<'_>, port: Option<u16>) -> bool {
        let number = port.unwrap_or(DEFAULT_PORT);
        let is_our_port = || {
            let is_it = |place: &Place| {
                let advertised = place.advertised.as_ref().and_then(|name| name.port);
                place.addr.port() == number || advertised == Some(number)
            };
            port.is_none() || number == DEFAULT_PORT || self.places.iter().any(is_it)
        };
        self.aliases.iter().any(|alias| match alias.port {
            Some(_) => alias.is(host, number),
            None => alias.host.is(host) && is_our_port(),
        })
    }
}

/// Which addresses an address reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Machine,
    Link,
    Anywhere,
}

impl Reach {
    fn of(ip: IpAddr) -> Self {
        match ip {
            ip if ip.is_loopback() => Self::Machine,
            IpAddr::V6(ip) if ip.is_unicast_link_local() => Self::Link,
            IpAddr::V4(_) | IpAddr::V6(_) => Self::Anywhere,
        }
    }
}

impl Place {
    fn new(local: &Local, has_clients: bool) -> Self {
        let addr = SocketAddr::new(local.addr.ip().to_canonical(), local.addr.port());
        let sent_by = match &local.advertised {
            Some((host, port)) => format!("{host}:{port}"),
            None => addr.to_string(),
        };
        let parameter = match local.transport {
            Transport::Udp => String::new(),
            Transport::Tcp | Transport::Tls | Transport::Ws | Transport::Wss => {
                format!(";transport={}", local.transport.uri_parameter())
            }
        };
        // TLS is what a `sips` URI means without the parameter.
        let secure_route = match local.transport {
            Transport::Udp | Transport::Tcp | Transport::Ws => None,
            Transport::Tls => Some(format!("{sent_by};lr")),
            Transport::Wss => Some(format!("{sent_by}{parameter};lr")),
        };
        let advertised = local.advertised.as_ref();
        Self {
            transport: local.transport,
            addr,
            via: format!("Via: SIP/2.0/{} {sent_by};branch=", local.transport)
                .into_bytes()
                .into(),
            route: format!("{sent_by}{parameter};lr").into_bytes().into(),
            secure_route: secure_route.map(|route| route.into_bytes().into()),
            sent_by: sent_by.into_bytes().into(),
            has_clients,
            advertised: advertised.map(|(host, port)| Name {
                host: OwnedHost::parse(host),
                port: Some(*port),
            }),
        }
    }

    /// `HOST:PORT`, as in Via.
    pub(super) fn sent_by(&self) -> &[u8] {
        &self.sent_by
    }

    /// The beginning and the rest of a value of Record-Route or Path with this socket, without its end: a user part may come between both.
    /// `is_sips` says whether the request URI has the scheme `sips`.
    pub(super) fn route(&self, is_sips: bool) -> (&'static [u8], &[u8]) {
        match &self.secure_route {
            Some(route) if is_sips => (b"<sips:", route),
            Some(_) | None => (b"<sip:", &self.route),
        }
    }
}

impl Name {
    /// `HOST` or `HOST:PORT`; an IPv6 address with a port is in brackets.
    fn parse(text: &str) -> Self {
        let number = |port: &str| port.parse().ok();
        let split = text
            .rsplit_once(':')
            .filter(|(host, _)| !host.contains(':') || host.ends_with(']'));
        match split.and_then(|(host, port)| Some((host, number(port)?))) {
            Some((host, port)) => Self {
                host: OwnedHost::parse(host),
                port: Some(port),
            },
            None => Self {
                host: OwnedHost::parse(text),
                port: None,
            },
        }
    }

    fn is(&self, host: Host<'_>, port: u16) -> bool {
        self.port.is_none_or(|own| own == port) && self.host.is(host)
    }
}

impl OwnedHost {
    fn parse(text: &str) -> Self {
        match crate::host::ip_address(text.as_bytes()) {
            Some(ip) => Self::Ip(ip.to_canonical()),
            None => Self::Name(without_dot(text.as_bytes()).into()),
        }
    }

    fn is(&self, host: Host<'_>) -> bool {
        match (self, host) {
            (Self::Ip(own), host) => host.ip().is_some_and(|ip| ip.to_canonical() == *own),
            (Self::Name(own), Host::Name(name)) => without_dot(name).eq_ignore_ascii_case(own),
            (Self::Name(_), _) => false,
        }
    }
}

/// A name without the final dot of a fully qualified name.
fn without_dot(name: &[u8]) -> &[u8] {
    name.strip_suffix(b".").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(transport: Transport, addr: &str) -> Local {
        Local {
            transport,
            addr: addr.parse().unwrap(),
            advertised: None,
        }
    }

    fn identity() -> Identity {
        let mut behind_nat = local(Transport::Tcp, "10.0.0.5:5070");
        behind_nat.advertised = Some(("edge.example.com".into(), 5080));
        Identity::new(
            &[
                local(Transport::Udp, "127.0.0.1:5060"),
                local(Transport::Tcp, "127.0.0.1:5060"),
                behind_nat,
                local(Transport::Udp, "[2001:db8::1]:5060"),
            ],
            &[
                "sip.Example.com".into(),
                "other.example:5090".into(),
                "198.51.100.7".into(),
            ],
            &[],
        )
    }

    fn is_us(uri: &str) -> bool {
        identity().is_our_uri(&Uri::parse(uri.as_bytes()).unwrap())
    }

    #[test]
    fn sockets_advertised_names_and_aliases_are_us() {
        for uri in [
            "sip:127.0.0.1",
            "sip:user@127.0.0.1:5060;transport=tcp",
            "sip:[::ffff:127.0.0.1]:5060",
            "sip:10.0.0.5:5070",
            "sip:EDGE.example.com:5080",
            "sip:[2001:db8:0::1]",
            "sip:sip.example.com",
            "sip:sip.example.com.:5060",
            "sip:sip.example.com:5070",
            "sip:sip.example.com:5080",
            "sip:other.example:5090",
            "sip:198.51.100.7",
        ] {
            assert!(is_us(uri), "{uri}");
        }
    }

    #[test]
    fn other_hosts_and_other_ports_are_not_us() {
        for uri in [
            "sip:127.0.0.2",
            "sip:127.0.0.1:5061",
            "sip:10.0.0.5",
            "sip:edge.example.com",
            "sip:example.com",
            "sip:sip.example.com:6000",
            "sip:other.example",
            "sip:198.51.100.7:6000",
            "sip:[2001:db8::2]",
        ] {
            assert!(!is_us(uri), "{uri}");
        }
    }

    #[test]
    fn only_what_we_write_into_via_is_our_via() {
        let identity = identity();
        let is = |text: &str| identity.is_our_via(&Via::parse(text.as_bytes()).unwrap());
        assert!(is("SIP/2.0/UDP 127.0.0.1:5060"));
        assert!(is("SIP/2.0/TCP edge.example.com:5080"));
        assert!(!is("SIP/2.0/TCP 10.0.0.5:5070"));
        assert!(!is("SIP/2.0/UDP edge.example.com:5080"));
        assert!(!is("SIP/2.0/UDP sip.example.com"));
        assert!(!is("SIP/2.0/TLS 127.0.0.1:5060"));
    }

    #[test]
    fn the_arrival_socket_is_preferred_where_it_fits() {
        let identity = Identity::new(
            &[
                local(Transport::Udp, "10.0.0.5:5060"),
                local(Transport::Udp, "10.0.0.5:5080"),
                local(Transport::Tcp, "10.0.0.5:5060"),
                local(Transport::Udp, "10.0.0.6:5080"),
                local(Transport::Tcp, "10.0.0.6:5080"),
                local(Transport::Udp, "127.0.0.1:5060"),
            ],
            &[],
            &[],
        );
        let from = |transport, ip: &str, arrived: &str| {
            let place =
                identity.place_towards(transport, ip.parse().unwrap(), arrived.parse().unwrap());
            place.map(|place| place.addr.to_string())
        };
        assert_eq!(
            from(Transport::Udp, "10.0.0.9", "10.0.0.5:5080").unwrap(),
            "10.0.0.5:5080"
        );
        assert_eq!(
            from(Transport::Tcp, "10.0.0.9", "10.0.0.6:5080").unwrap(),
            "10.0.0.6:5080"
        );
        assert_eq!(
            from(Transport::Tcp, "10.0.0.9", "10.0.0.5:5080").unwrap(),
            "10.0.0.5:5060"
        );
        assert_eq!(
            from(Transport::Udp, "10.0.0.9", "127.0.0.1:5060").unwrap(),
            "10.0.0.5:5060"
        );
        assert_eq!(
            from(Transport::Udp, "127.0.0.9", "10.0.0.5:5080").unwrap(),
            "127.0.0.1:5060"
        );
        assert_eq!(from(Transport::Udp, "::1", "10.0.0.5:5080"), None);
    }

    #[test]
    fn a_link_local_socket_is_for_its_link() {
        let identity = Identity::new(
            &[
                local(Transport::Udp, "[fe80::1]:5060"),
                local(Transport::Udp, "[2001:db8::1]:5060"),
            ],
            &[],
            &[],
        );
        let from = |ip: &str, arrived: &str| {
            let place = identity.place_towards(
                Transport::Udp,
                ip.parse().unwrap(),
                arrived.parse().unwrap(),
            );
            place.unwrap().addr.to_string()
        };
        for arrived in ["[fe80::1]:5060", "[2001:db8::1]:5060"] {
            assert_eq!(from("2001:db8::9", arrived), "[2001:db8::1]:5060");
            assert_eq!(from("fe80::9", arrived), "[fe80::1]:5060");
        }
        // Over TCP, nothing of the host is on the link.
        let open = Identity::new(&[local(Transport::Tcp, "[2001:db8::1]:5060")], &[], &[]);
        let arrived = "[2001:db8::1]:5060".parse().unwrap();
        let place = open.place_towards(Transport::Tcp, "fe80::9".parse().unwrap(), arrived);
        assert!(place.is_none());
    }

    #[test]
    fn what_is_written_about_a_place_names_its_transport() {
        let identity = identity();
        let written = |number| {
            let place: &Place = identity.place(number).unwrap();
            [&*place.via, place.route(false).1]
                .map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
        };
        assert_eq!(
            written(0),
            [
                "Via: SIP/2.0/UDP 127.0.0.1:5060;branch=",
                "127.0.0.1:5060;lr"
            ]
        );
        assert_eq!(
            written(2),
            [
                "Via: SIP/2.0/TCP edge.example.com:5080;branch=",
                "edge.example.com:5080;transport=tcp;lr"
            ]
        );
        assert_eq!(written(3)[0], "Via: SIP/2.0/UDP [2001:db8::1]:5060;branch=");
    }
}
