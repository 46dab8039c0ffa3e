//! Reads next hops and domains from the configuration.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use thiserror::Error;

use super::{Candidate, Hop, LONGEST_NAME, Lookup, Named, PortRule, Routes, Sought, mark};
use crate::arrival::Transport;
use crate::host::{Host, ip_address, port};
use crate::uri::{Scheme, Uri};

/// Next hops and domains as configured, with names that are not resolved yet.
#[derive(Clone, Debug, Default)]
pub struct RoutesBuilder {
    owner: Option<u64>,
    default_hop: Option<Target>,
    hops: Vec<(Box<str>, Target)>,
    /// The sockets that requests to next hops leave by, by the names of these.
    sockets: HashMap<Box<str>, SocketAddr>,
    domains: Vec<(Place, PortRule)>,
}

impl RoutesBuilder {
    /// No routes: every relay is refused.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the owner of these routes: dialogs that begin along them belong to it.
    pub fn owner(&mut self, name: &str) -> &mut Self {
        self.owner = Some(mark(name));
        self
    }

    /// Sets the next hop for requests whose Route and request URI name no permitted destination.
    ///
    /// # Errors
    /// When `uri` is not `sip:HOST` or `sips:HOST`, with `:PORT` and `;transport=udp`, `tcp` or `tls` if need be.
    pub fn default_hop(&mut self, uri: &str) -> Result<&mut Self, RouteError> {
        self.default_hop = Some(Target::parse(uri)?);
        Ok(self)
    }

    /// Adds a next hop that a policy can name. A second one with the same name replaces the first.
    ///
    /// # Errors
    /// As [`RoutesBuilder::default_hop`].
    pub fn hop(&mut self, name: &str, uri: &str) -> Result<&mut Self, RouteError> {
        self.hops.push((name.into(), Target::parse(uri)?));
        Ok(self)
    }

    /// Sets the socket that requests to the next hop with this name leave by. Without effect if no socket has this address, or none that can reach
    /// the next hop.
    pub fn socket(&mut self, name: &str, from: SocketAddr) -> &mut Self {
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        self.sockets.insert(name.into(), from);
        self
    }

    /// Adds hosts that requests may follow their Route and request URI to: a name, an address or a network. Without a port it means those
    /// of SIP, 5060 and 5061; with `:PORT` that one; with `:*` all. An IPv6 address with a port is in brackets. A name means itself, not
    /// the names below it, and the addresses that it resolves to.
    ///
    /// # Errors
    /// When `entry` is none of these.
    pub fn domain(&mut self, entry: &str) -> Result<&mut Self, RouteError> {
        let wrong = || RouteError::Domain(entry.to_owned());
        self.domains.push(parse_domain(entry).ok_or_else(wrong)?);
        Ok(self)
    }

    /// The host names that must be resolved: in lower case, sorted, without duplicates.
    pub fn names_to_resolve(&self) -> Vec<&str> {
        let places = self.domains.iter().map(|(place, _)| place);
        let mut names: Vec<&str> = places
            .chain(self.targets().map(|hop| &hop.place))
            .filter_map(Place::name)
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The questions about these names that URIs can ask: sorted, without duplicates.
    pub fn lookups(&self) -> Vec<Lookup> {
        let names = self.names_to_resolve();
        let (followed, plain): (Vec<_>, Vec<_>) =
            names.into_iter().partition(|name| self.is_followed(name));
        let plain = plain.into_iter().map(addresses);
        let followed = followed.into_iter().flat_map(lookups_of);
        let hops = self.targets().filter_map(Target::lookup);
        let mut lookups: Vec<Lookup> = plain.chain(followed).chain(hops).collect();
        lookups.sort_unstable();
        lookups.dedup();
        lookups
    }

    /// The routes of names that have these addresses and no SRV records. A name without addresses is known, but nothing can be sent to it.
    pub fn build(&self, resolved: &HashMap<String, Vec<IpAddr>>) -> Routes {
        self.build_of(|lookup| {
            let (port, transport) = match lookup.sought {
                Sought::Addresses => (0, Transport::Udp),
                Sought::Servers(transport) => (transport.default_port(), transport),
                Sought::Anything => (Scheme::Sip.default_port(), Transport::Udp),
            };
            let addresses = in_order(resolved.get(&*lookup.name)).into_iter();
            addresses
                .map(|ip| Candidate::plain(transport, SocketAddr::new(ip, port)))
                .collect()
        })
    }

    /// The routes with these answers to the [`RoutesBuilder::lookups`]. A name without an address is known, but nothing can be sent to it.
    pub fn build_of(&self, found: impl Fn(&Lookup) -> Vec<Candidate>) -> Routes {
        let mut routes = Routes {
            owner: self.owner,
            // A name is never empty.
            default_hop: self.default_hop.as_ref().map(|hop| hop.with("", &found)),
            hops: self
                .hops
                .iter()
                .map(|(name, hop)| {
                    let from = self.sockets.get(name).copied();
                    let hop = hop.with(name, &found);
                    (name.clone(), Hop { from, ..hop })
                })
                .collect(),
            hop_marks: self
                .hops
                .iter()
                .map(|(name, _)| (mark(name), name.clone()))
                .collect(),
            ..Routes::default()
        };
        let domains = self.domains.iter().map(|(place, port)| (place, *port));
        let hops = self
            .targets()
            .map(|target| (&target.place, PortRule::One(target.port_or_default())));
        for (place, port) in domains.chain(hops) {
            match place {
                Place::Net(net) => routes.permit_net(*net, port),
                Place::Name(name) if self.is_followed(name) => {
                    routes.permit_name(name, || named(name, &found), port);
                }
                Place::Name(name) => {
                    routes.permit_name(name, || addresses_of(name, &found), port);
                }
            }
        }
        routes
    }

    /// Whether URIs with this name and without a port lead to its servers: it is a domain, or a next hop without a port.
    fn is_followed(&self, name: &str) -> bool {
        let is_it = |place: &Place| place.name() == Some(name);
        self.domains.iter().any(|(place, _)| is_it(place))
            || self
                .targets()
                .any(|target| target.port.is_none() && is_it(&target.place))
    }

    fn targets(&self) -> impl Iterator<Item = &Target> {
        self.default_hop
            .iter()
            .chain(self.hops.iter().map(|(_, hop)| hop))
    }
}

/// An error in an entry of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RouteError {
    /// Not a next hop.
    #[error(
        "`{0}` is not a next hop: write \"sip:HOST:PORT\", with \";transport=tcp\" or \";transport=tls\" if need be, for example \"sip:127.0.0.1:5080\""
    )]
    Hop(String),
    /// Not a domain.
    #[error(
        "`{0}` is not a domain: write a host name, an address or a network, with \":PORT\" for another port than 5060 and 5061 and \":*\" for every port, for example \"example.com\" or \"192.0.2.0/24:*\""
    )]
    Domain(String),
}

/// A next hop before its name is resolved.
#[derive(Clone, Debug)]
struct Target {
    uri: Box<str>,
    place: Place,
    port: Option<u16>,
    transport: Option<Transport>,
}

/// Addresses, or a name for some, in lower case and without a final dot.
#[derive(Clone, Debug)]
enum Place {
    Net(IpNet),
    Name(Box<str>),
}

impl Target {
    fn parse(text: &str) -> Result<Self, RouteError> {
        let wrong = || RouteError::Hop(text.to_owned());
        let uri = Uri::parse(text.as_bytes()).map_err(|_| wrong())?;
        let is_plain = uri.user.is_none()
            && uri.headers.is_none()
            && uri
                .params
                .clone()
                .all(|param| param.is("transport") || param.is("lr"));
        if !is_plain {
            return Err(wrong());
        }
        Ok(Self {
            uri: text.into(),
            place: Place::of(uri.host).ok_or_else(wrong)?,
            port: uri.port,
            transport: match (uri.scheme, uri.transport()) {
                (Scheme::Sip, None) => None,
                (Scheme::Sip, Some(_)) | (Scheme::Sips, _) => {
                    let transport = uri.known_transport();
                    Some(
                        transport
                            .filter(|transport| !transport.is_websocket())
                            .ok_or_else(wrong)?,
                    )
                }
            },
        })
    }

    fn port_or_default(&self) -> u16 {
        let transport = self.transport.unwrap_or(Transport::Udp);
        self.port.unwrap_or_else(|| transport.default_port())
    }

    /// The question about its name; `None` for an address.
    fn lookup(&self) -> Option<Lookup> {
        let name = self.place.name()?;
        Some(Lookup::of(name, self.port, self.transport))
    }

    fn with(&self, name: &str, found: &impl Fn(&Lookup) -> Vec<Candidate>) -> Hop {
        let transport = self.transport.unwrap_or(Transport::Udp);
        let port = self.port_or_default();
        let candidates = match (&self.place, self.lookup()) {
            (Place::Net(net), _) => {
                vec![Candidate::plain(
                    transport,
                    SocketAddr::new(net.addr(), port),
                )]
            }
            (Place::Name(_), None) => Vec::new(),
            (Place::Name(_), Some(lookup)) => match lookup.sought {
                Sought::Addresses => found(&lookup)
                    .into_iter()
                    .map(|candidate| candidate.at(transport, port))
                    .collect(),
                Sought::Servers(_) | Sought::Anything => found(&lookup),
            },
        };
        Hop {
            mark: mark(name),
            name: self.place.name().map(mark),
            uri: self.uri.clone(),
            candidates: candidates.into(),
            from: None,
        }
    }
}

/// The questions that URIs with this host name can ask.
fn lookups_of(name: &str) -> impl Iterator<Item = Lookup> {
    let servers = Transport::OF_SERVERS;
    let servers = servers.map(|transport| Lookup::of(name, None, Some(transport)));
    servers
        .into_iter()
        .chain([addresses(name), Lookup::of(name, None, None)])
}

fn addresses(name: &str) -> Lookup {
    Lookup::of(name, Some(Scheme::Sip.default_port()), None)
}

/// A name of next hops with ports: a URI without a port means its addresses, too.
fn addresses_of(name: &str, found: &impl Fn(&Lookup) -> Vec<Candidate>) -> Named {
    let addresses = found(&addresses(name));
    let at = |transport: Transport| -> Box<[Candidate]> {
        let port = transport.default_port();
        addresses
            .iter()
            .map(|one| one.at(transport, port))
            .collect()
    };
    let servers = Transport::OF_SERVERS.map(|transport| (Some(transport), at(transport)));
    Named {
        servers: servers
            .into_iter()
            .chain([(None, at(Transport::Udp))])
            .collect(),
        addresses: addresses.into(),
        ..Named::default()
    }
}

/// A name with everything that is found about it.
fn named(name: &str, found: &impl Fn(&Lookup) -> Vec<Candidate>) -> Named {
    let mut named = Named::default();
    for lookup in lookups_of(name) {
        let candidates = found(&lookup).into();
        match lookup.sought {
            Sought::Addresses => named.addresses = candidates,
            Sought::Servers(transport) => named.servers.push((Some(transport), candidates)),
            Sought::Anything => named.servers.push((None, candidates)),
        }
    }
    named
}

impl Place {
    fn of(host: Host<'_>) -> Option<Self> {
        let Host::Name(name) = host else {
            return Some(Self::Net(host.ip()?.to_canonical().into()));
        };
        let name = name.strip_suffix(b".").unwrap_or(name);
        let last = name.rsplit(|&byte| byte == b'.').next()?;
        // "10.0.0.300" and "1.2.3" are typing errors: no top-level domain is a number.
        let is_number = last.iter().all(u8::is_ascii_digit);
        if is_number || name.len() > LONGEST_NAME {
            return None;
        }
        let name = std::str::from_utf8(name).ok()?.to_ascii_lowercase();
        Some(Self::Name(name.into()))
    }

    fn name(&self) -> Option<&str> {
        match self {
            Self::Net(_) => None,
            Self::Name(name) => Some(name),
        }
    }
}

fn parse_domain(entry: &str) -> Option<(Place, PortRule)> {
    if let Some(ip) = ip_address(entry.as_bytes()) {
        return Some((Place::Net(ip.to_canonical().into()), PortRule::Sip));
    }
    if let Some((address, rest)) = entry.split_once('/') {
        let (length, ports) = match rest.split_once(':') {
            Some((length, port)) => (length, port_rule(port)?),
            None => (rest, PortRule::Sip),
        };
        let net = IpNet::new(address.parse().ok()?, length.parse().ok()?).ok()?;
        return Some((Place::Net(net.trunc()), ports));
    }
    let (host, ports) = match entry.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
            (host, port_rule(port)?)
        }
        _ => (entry, PortRule::Sip),
    };
    Some((Place::of(Host::parse(host.as_bytes())?)?, ports))
}

fn port_rule(text: &str) -> Option<PortRule> {
    match text {
        "*" => Some(PortRule::Any),
        digits => port(digits.as_bytes()).map(PortRule::One),
    }
}

fn in_order(addresses: Option<&Vec<IpAddr>>) -> Box<[IpAddr]> {
    let mut addresses: Vec<IpAddr> = addresses
        .into_iter()
        .flatten()
        .map(|ip| ip.to_canonical())
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_entries_are_named() {
        let mut builder = RoutesBuilder::new();
        for bad in [
            "127.0.0.1:5080",
            "sips:127.0.0.1;transport=udp",
            "sip:alice@127.0.0.1",
            "sip:127.0.0.1:0",
            "sip:10.0.0.300",
            "sip:a.example;transport=sctp",
            "sip:a.example;maddr=10.0.0.1",
            "tel:+1",
        ] {
            let error = builder.hop("x", bad).unwrap_err();
            assert!(
                error
                    .to_string()
                    .starts_with(&format!("`{bad}` is not a next hop")),
                "{error}"
            );
        }
        for bad in [
            "",
            "a b",
            "192.0.2.0/33",
            "192.0.2.256",
            "example.com:x",
            "example.com:0",
            "example.com:",
            "192.0.2.0/24:0",
            "2001:db8::/32:",
            ":*",
            "*.example.com",
        ] {
            let error = builder.domain(bad).unwrap_err();
            assert!(
                error
                    .to_string()
                    .starts_with(&format!("`{bad}` is not a domain")),
                "{error}"
            );
        }
    }
}
