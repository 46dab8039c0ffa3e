//! The permitted destinations of requests: next hops and domains, with the current addresses of their names.
//!
//! [`RoutesBuilder`] reads the configuration. Names are resolved outside, and each resolution gives a new [`Routes`], which
//! never changes. Which of the addresses of a name a request takes depends on its Call-ID, so that every host makes the same choice for the
//! same call: a CANCEL must take the path of its INVITE (RFC 3261 §16.11, RFC 3263 §4.4).

mod builder;
mod candidate;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use siphasher::sip::SipHasher24;

use crate::arrival::Transport;
use crate::host::{Host, LONGEST_NAME};
use crate::uri::{Scheme, Uri};

pub use builder::{RouteError, RoutesBuilder};
pub(crate) use candidate::Rank;
pub use candidate::{Candidate, Choice, Lookup, Sought};

/// Next hops and domains with their addresses. Immutable: a change makes new routes.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    owner: Option<u64>,
    default_hop: Option<Hop>,
    hops: HashMap<Box<str>, Hop>,
    /// The names of `hops` by their marks.
    hop_marks: HashMap<u64, Box<str>>,
    names: HashMap<Box<[u8]>, Named>,
    hosts: HashMap<IpAddr, Ports>,
    /// By address: the mark of the name that leads there. `None` if several names do, or the configuration has the address itself.
    leading: HashMap<IpAddr, Option<u64>>,
    nets: Vec<(IpNet, Ports)>,
    /// The names of next hops and domains by their marks.
    marks: HashMap<u64, Box<str>>,
}

/// A configured next hop.
#[derive(Clone, Debug)]
pub(crate) struct Hop {
    /// As configured, for messages.
    pub(crate) uri: Box<str>,
    /// Its identifier in the seal of a dialog: the [`mark`] of its name.
    pub(crate) mark: u64,
    /// The mark of its host name; `None` for an address.
    pub(crate) name: Option<u64>,
    /// Empty while the name is not resolved.
    pub(crate) candidates: Box<[Candidate]>,
    /// The socket to send from, if one is chosen for it.
    pub(crate) from: Option<SocketAddr>,
}

/// What the configuration permits for a host named in Route or request URI.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Permission<'r> {
    /// Not permitted.
    Refused,
    /// Requests may go to this address.
    Address(IpAddr),
    /// Requests may go to this name.
    Name(&'r Named),
}

impl Permission<'_> {
    /// Whether requests may go there.
    pub(crate) fn is_granted(&self) -> bool {
        match self {
            Self::Refused => false,
            Self::Address(_) | Self::Name(_) => true,
        }
    }
}

impl Routes {
    /// The next hop for requests that name no destination themselves.
    pub(crate) fn default_hop(&self) -> Option<&Hop> {
        self.default_hop.as_ref()
    }

    /// The next hop with this name.
    pub(crate) fn hop(&self, name: &str) -> Option<&Hop> {
        self.hops.get(name)
    }

    /// The next hop with this mark.
    pub(crate) fn hop_of_mark(&self, mark: u64) -> Option<&Hop> {
        let default = self.default_hop.as_ref().filter(|hop| hop.mark == mark);
        default.or_else(|| self.hop(self.hop_marks.get(&mark)?))
    }

    /// The owner of these routes, as a [`mark`]: dialogs that begin along them belong to the owner.
    pub fn owner(&self) -> Option<u64> {
        self.owner
    }

    /// Whether there is a next hop with this name.
    pub fn has_hop(&self, name: &str) -> bool {
        self.hops.contains_key(name)
    }

    /// The host name of a next hop or domain with this [`mark`], in lower case.
    pub fn name_of_mark(&self, mark: u64) -> Option<&str> {
        self.marks.get(&mark).map(|name| &**name)
    }

    /// The [`mark`] of the only host name of a next hop or domain that leads to this address. `None` if there is none or another one, and if the
    /// configuration has the address itself.
    pub(crate) fn name_at(&self, ip: IpAddr) -> Option<u64> {
        self.leading.get(&ip).copied().flatten()
    }

    /// Whether this is the address of a next hop, or of a single host to which requests may go; whatever the port.
    pub fn has_address(&self, ip: IpAddr) -> bool {
        self.hosts.contains_key(&ip)
    }

    /// Whether requests may go to the host and port of this URI.
    pub fn permits(&self, uri: &[u8]) -> bool {
        Uri::parse(uri).is_ok_and(|uri| {
            self.permission(uri.host, uri.port_or_default())
                .is_granted()
        })
    }

    /// Whether this is the source of a next hop, or of a host of a domain that is no network. The source port of a stream says nothing.
    pub(crate) fn is_source_of_host(&self, source: SocketAddr, is_stream: bool) -> bool {
        let ports = self.hosts.get(&source.ip());
        ports.is_some_and(|ports| is_stream || ports.include(source.port()))
    }

    /// Whether requests may go to this host and port.
    pub(crate) fn permission(&self, host: Host<'_>, port: u16) -> Permission<'_> {
        let Host::Name(name) = host else {
            return match host.ip().map(|ip| ip.to_canonical()) {
                Some(ip) if self.is_permitted(ip, port) => Permission::Address(ip),
                _ => Permission::Refused,
            };
        };
        let mut lower = [0; LONGEST_NAME];
        let name = name.strip_suffix(b".").unwrap_or(name);
        let Some(lower) = lower.get_mut(..name.len()) else {
            return Permission::Refused;
        };
        lower.copy_from_slice(name);
        lower.make_ascii_lowercase();
        match self.names.get(&*lower) {
            Some(named) if named.ports.include(port) => Permission::Name(named),
            _ => Permission::Refused,
        }
    }

    fn is_permitted(&self, ip: IpAddr, port: u16) -> bool {
        self.hosts.get(&ip).is_some_and(|ports| ports.include(port))
            || self
                .nets
                .iter()
                .any(|(net, ports)| net.contains(&ip) && ports.include(port))
    }
}

impl Routes {
    /// Permits a name, the addresses that it has, and its servers at their ports.
    fn permit_name(&mut self, name: &str, found: impl FnOnce() -> Named, port: PortRule) {
        let Self {
            names,
            hosts,
            leading,
            marks,
            ..
        } = self;
        let named = names.entry(name.as_bytes().into()).or_insert_with(found);
        named.mark = mark(name);
        marks.insert(named.mark, name.into());
        named.ports.add(port);
        let servers = named.servers.iter().flat_map(|(_, servers)| servers);
        for candidate in named.addresses.iter().chain(servers) {
            let mark = Some(named.mark);
            let led = leading.entry(candidate.ip()).or_insert(mark);
            if *led != mark {
                *led = None;
            }
        }
        for candidate in &named.addresses {
            hosts.entry(candidate.ip()).or_default().add(port);
        }
        // URIs without a port lead to the servers.
        for (transport, servers) in &named.servers {
            let default = transport.map_or(Scheme::Sip.default_port(), Transport::default_port);
            if !named.ports.include(default) {
                continue;
            }
            for candidate in servers {
                let port = PortRule::One(candidate.addr.port());
                hosts.entry(candidate.ip()).or_default().add(port);
            }
        }
    }

    fn permit_net(&mut self, net: IpNet, port: PortRule) {
        if net.prefix_len() == net.max_prefix_len() {
            self.leading.insert(net.addr(), None);
            return self.hosts.entry(net.addr()).or_default().add(port);
        }
        match self.nets.iter_mut().find(|(known, _)| *known == net) {
            Some((_, ports)) => ports.add(port),
            None => {
                let mut ports = Ports::default();
                ports.add(port);
                self.nets.push((net, ports));
            }
        }
    }
}

/// Identifies a name in the seal of a dialog: a hash, the same on every host and after every start.
pub fn mark(name: &str) -> u64 {
    SipHasher24::new().hash(name.as_bytes())
}

/// A host name with its addresses and servers, and the ports that are allowed there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Named {
    /// Its [`mark`].
    pub(crate) mark: u64,
    /// For URIs with a port. Their own port is 0.
    addresses: Box<[Candidate]>,
    /// For URIs without a port, by their transport.
    servers: Vec<(Option<Transport>, Box<[Candidate]>)>,
    ports: Ports,
}

impl Named {
    /// Where a URI leads that names this port and this transport: none while the name is not resolved.
    pub(crate) fn candidates(
        &self,
        port: Option<u16>,
        transport: Option<Transport>,
    ) -> impl Iterator<Item = Candidate> {
        let wanted = port.map(|port| (transport.unwrap_or(Transport::Udp), port));
        let list = match wanted {
            Some(_) => &self.addresses[..],
            None => {
                let mut servers = self.servers.iter();
                let found = servers.find(|(one, _)| *one == transport);
                found.map_or(&[][..], |(_, servers)| servers)
            }
        };
        list.iter().map(move |candidate| match wanted {
            Some((transport, port)) => candidate.at(transport, port),
            None => *candidate,
        })
    }
}

/// The ports that are allowed.
#[derive(Clone, Debug)]
enum Ports {
    Any,
    These(Vec<u16>),
}

impl Ports {
    fn include(&self, port: u16) -> bool {
        match self {
            Self::Any => true,
            Self::These(ports) => ports.contains(&port),
        }
    }

    fn add(&mut self, rule: PortRule) {
        let Self::These(ports) = self else {
            return;
        };
        let more: &[u16] = match &rule {
            PortRule::Any => {
                *self = Self::Any;
                return;
            }
            PortRule::Sip => &SIP_PORTS,
            PortRule::One(port) => std::slice::from_ref(port),
        };
        for port in more {
            if !ports.contains(port) {
                ports.push(*port);
            }
        }
    }
}

/// The ports that an entry of the configuration allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PortRule {
    /// The ports of SIP, the default.
    Sip,
    /// This one.
    One(u16),
    /// All ports.
    Any,
}

/// The ports of `sip` and `sips` (RFC 3261 §19.1.2).
const SIP_PORTS: [u16; 2] = [Scheme::Sip.default_port(), Scheme::Sips.default_port()];

impl Default for Ports {
    fn default() -> Self {
        Self::These(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn resolved() -> HashMap<String, Vec<IpAddr>> {
        HashMap::from([
            (
                "gw.example.com".into(),
                vec![ip("192.0.2.9"), ip("192.0.2.8"), ip("192.0.2.9")],
            ),
            ("pbx.example.com".into(), vec![ip("::ffff:10.0.0.7")]),
        ])
    }

    fn routes() -> Routes {
        let mut builder = RoutesBuilder::new();
        builder
            .default_hop("sip:PBX.example.com.:5080;transport=tcp")
            .unwrap();
        builder.hop("trunk", "sip:[2001:db8::7]").unwrap();
        for domain in [
            "gw.Example.com:*",
            "sip.example.com",
            "late.example.com:5070",
            "198.51.100.1:5060",
            "198.51.100.1:5062",
            "203.0.113.77/24:*",
            "203.0.113.0/25:5060",
            "192.0.2.128/25",
            "2001:db8:1::/48:*",
            "2001:db8:3::/48",
            "[2001:db8:2::1]:5070",
            "10.9.0.0/16:5060",
        ] {
            builder.domain(domain).unwrap();
        }
        assert_eq!(
            builder.names_to_resolve(),
            [
                "gw.example.com",
                "late.example.com",
                "pbx.example.com",
                "sip.example.com"
            ]
        );
        builder.build(&resolved())
    }

    fn permission(routes: &Routes, host: &str, port: u16) -> String {
        match routes.permission(Host::parse(host.as_bytes()).unwrap(), port) {
            Permission::Refused => "refused".into(),
            Permission::Address(ip) => ip.to_string(),
            Permission::Name(named) => {
                let all = named.candidates(Some(port), None);
                format!("{:?}", all.map(|one| one.ip()).collect::<Vec<_>>())
            }
        }
    }

    #[test]
    fn hops_have_address_port_and_transport() {
        let routes = routes();
        let hop = routes.default_hop().unwrap();
        let pbx = SocketAddr::new(ip("10.0.0.7"), 5080);
        assert_eq!(*hop.candidates, [Candidate::plain(Transport::Tcp, pbx)]);
        let trunk = routes.hop("trunk").unwrap();
        let six = SocketAddr::new(ip("2001:db8::7"), 5060);
        assert_eq!(*trunk.candidates, [Candidate::plain(Transport::Udp, six)]);
        assert!(routes.hop("Trunk").is_none());
    }

    #[test]
    fn an_address_belongs_to_the_only_name_that_leads_there() {
        let routes = routes();
        for (address, name) in [
            ("192.0.2.8", Some("gw.example.com")),
            ("192.0.2.9", Some("gw.example.com")),
            ("10.0.0.7", Some("pbx.example.com")),
            // Configured as they are, or in a network, or unknown.
            ("198.51.100.1", None),
            ("2001:db8::7", None),
            ("203.0.113.1", None),
            ("192.0.2.200", None),
            ("192.0.2.1", None),
        ] {
            assert_eq!(routes.name_at(ip(address)), name.map(mark), "{address}");
        }
        let shared = HashMap::from([
            (
                "a.example".to_owned(),
                vec![ip("192.0.2.1"), ip("192.0.2.2")],
            ),
            (
                "b.example".to_owned(),
                vec![ip("192.0.2.2"), ip("192.0.2.3")],
            ),
        ]);
        for last in ["sip:192.0.2.3", "sips:192.0.2.3:5071"] {
            let mut builder = RoutesBuilder::new();
            builder.domain("a.example").unwrap();
            builder.hop("b", "sips:b.example").unwrap();
            builder.hop("address", last).unwrap();
            let routes = builder.build(&shared);
            let names = ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(|one| routes.name_at(ip(one)));
            assert_eq!(names, [Some(mark("a.example")), None, None], "{last}");
        }
    }

    #[test]
    fn numbers_are_decided_without_names() {
        let routes = routes();
        for (host, port, expected) in [
            ("198.51.100.1", 5060, "198.51.100.1"),
            ("198.51.100.1", 5062, "198.51.100.1"),
            ("198.51.100.1", 5061, "refused"),
            ("203.0.113.1", 9, "203.0.113.1"),
            ("[::ffff:203.0.113.1]", 9, "203.0.113.1"),
            ("203.0.114.1", 9, "refused"),
            ("192.0.2.200", 5060, "192.0.2.200"),
            ("192.0.2.200", 5061, "192.0.2.200"),
            ("192.0.2.200", 22, "refused"),
            ("192.0.2.200", 6379, "refused"),
            ("[2001:db8:3::1]", 5061, "2001:db8:3::1"),
            ("[2001:db8:3::1]", 80, "refused"),
            ("[2001:db8:1::9]", 1, "2001:db8:1::9"),
            ("[2001:db8:2::1]", 5070, "2001:db8:2::1"),
            ("[2001:db8:2::1]", 5060, "refused"),
            ("10.9.3.4", 5060, "10.9.3.4"),
            ("10.9.3.4", 5080, "refused"),
            // The addresses of next hops and of names are as good as these themselves.
            ("10.0.0.7", 5080, "10.0.0.7"),
            ("10.0.0.7", 5060, "refused"),
            ("[2001:db8::7]", 5060, "2001:db8::7"),
            ("192.0.2.8", 7000, "192.0.2.8"),
        ] {
            assert_eq!(permission(&routes, host, port), expected, "{host}:{port}");
        }
    }

    #[test]
    fn uris_are_permitted_by_host_and_port() {
        let routes = routes();
        for (uri, expected) in [
            ("sip:bob@gw.example.com:7000", true),
            ("sip:203.0.113.1", true),
            ("sip:198.51.100.1:5061", false),
            ("sip:bob@example.com", false),
            ("tel:+4930123", false),
            ("", false),
        ] {
            assert_eq!(routes.permits(uri.as_bytes()), expected, "{uri}");
        }
        assert!(routes.has_hop("trunk") && !routes.has_hop("Trunk") && !routes.has_hop(""));
    }

    #[test]
    fn names_have_their_addresses_in_order_and_each_once() {
        let routes = routes();
        for (host, port, expected) in [
            ("GW.example.com", 1, "[192.0.2.8, 192.0.2.9]"),
            ("gw.example.com.", 1, "[192.0.2.8, 192.0.2.9]"),
            ("sip.example.com", 5060, "[]"),
            ("sip.example.com", 5061, "[]"),
            ("sip.example.com", 5062, "refused"),
            ("late.example.com", 5070, "[]"),
            ("late.example.com", 5060, "refused"),
            ("pbx.example.com", 5080, "[10.0.0.7]"),
            ("pbx.example.com", 5060, "refused"),
            ("sub.gw.example.com", 1, "refused"),
            ("example.com", 1, "refused"),
            (&"x".repeat(255), 1, "refused"),
        ] {
            assert_eq!(permission(&routes, host, port), expected, "{host}:{port}");
        }
    }

    #[test]
    fn servers_of_a_name_are_permitted_at_their_ports() {
        let server = |ip_text: &str, port, transport| Candidate {
            weight: 1,
            service: 9,
            ..Candidate::plain(transport, SocketAddr::new(ip(ip_text), port))
        };
        let mut builder = RoutesBuilder::new();
        builder.domain("example.com").unwrap();
        builder
            .default_hop("sip:trunk.example;transport=tcp")
            .unwrap();
        let found = HashMap::from([
            (
                Lookup::of("example.com", None, None),
                vec![server("192.0.2.1", 5070, Transport::Udp)],
            ),
            (
                Lookup::of("trunk.example", None, Some(Transport::Tcp)),
                vec![server("192.0.2.2", 5080, Transport::Tcp)],
            ),
        ]);
        assert!(
            found
                .keys()
                .all(|lookup| builder.lookups().contains(lookup))
        );
        let routes = builder.build_of(|lookup| found.get(lookup).cloned().unwrap_or_default());
        for (host, port, expected) in [
            ("192.0.2.1", 5070, "192.0.2.1"),
            ("192.0.2.1", 5060, "refused"),
            ("192.0.2.2", 5080, "192.0.2.2"),
            ("192.0.2.2", 5060, "refused"),
            ("example.com", 5060, "[]"),
        ] {
            assert_eq!(permission(&routes, host, port), expected, "{host}:{port}");
        }
        let Permission::Name(named) = routes.permission(Host::parse(b"example.com").unwrap(), 5060)
        else {
            panic!("the domain is permitted");
        };
        let servers: Vec<_> = named.candidates(None, None).collect();
        assert_eq!(servers, [server("192.0.2.1", 5070, Transport::Udp)]);
        assert_eq!(named.candidates(None, Some(Transport::Tcp)).count(), 0);
    }

    #[test]
    fn every_port_outdoes_one_port_and_the_ports_of_sip() {
        for order in [
            ["192.0.2.1:*", "192.0.2.1:5070", "192.0.2.1"],
            ["192.0.2.1:5070", "192.0.2.1", "192.0.2.1:*"],
        ] {
            let mut builder = RoutesBuilder::new();
            for domain in order {
                builder.domain(domain).unwrap();
            }
            let routes = builder.build(&HashMap::new());
            assert_eq!(permission(&routes, "192.0.2.1", 1), "192.0.2.1");
        }
    }
}
