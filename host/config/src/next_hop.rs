//! Destinations of requests: next hops (`sip:192.0.2.7:5080;transport=tcp`) and domains (`example.com`, `192.0.2.0/24`).

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use portcullis_sip::Transport;

use super::listen::is_host;
use super::problem::Bad;

/// A destination that requests are sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// Address or name.
    pub host: Host,
    /// Port; `None` means those of the SRV records of the name, or the default port of the transport: 5060 or, for TLS, 5061.
    pub port: Option<u16>,
    /// Transport; `None` means that of the NAPTR or SRV records of the name, or UDP (RFC 3263 §4.1).
    pub transport: Option<Transport>,
}

/// An address, or a name that the host resolves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// An address.
    Addr(IpAddr),
    /// A name, in lower case, without a trailing dot.
    Name(String),
}

/// A destination to which Route or request URI may lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    /// Names or addresses.
    pub hosts: Hosts,
    /// Ports of these hosts.
    pub ports: Ports,
}

/// Ports of a domain to which requests may go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ports {
    /// The SIP ports, 5060 and 5061. This is the default.
    #[default]
    Sip,
    /// This port only.
    One(u16),
    /// All ports, written `*`.
    Any,
}

/// Names or addresses of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hosts {
    /// A network; a single address has the full prefix length.
    Net(IpNet),
    /// This name, in lower case, without a trailing dot; not the names below it.
    Name(String),
}

impl NextHop {
    /// Reads a SIP URI that consists of host, port and transport. `sips:HOST` is `sip:HOST;transport=tls`.
    ///
    /// # Errors
    /// What is wrong with the text, and how to correct it.
    pub fn parse(text: &str) -> Result<Self, Bad> {
        const MEND: &str = "write \"sip:HOST:PORT\", with \";transport=tcp\" for TCP and \";transport=tls\" for TLS, for example \"sip:127.0.0.1:5080\"";
        let rest = match text.split_once(':') {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("sip") => rest,
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("sips") => {
                return Self::parse_secure(rest);
            }
            _ => return Err(Bad::new("not a SIP URI", MEND)),
        };
        let mut parts = rest.split(';');
        let socket = parts.next().unwrap_or_default();
        if socket.contains('@') {
            return Err(Bad::new("a next hop has no user part", MEND));
        }
        let (host, port) =
            split_port(socket).ok_or_else(|| Bad::new("not a host with a port", MEND))?;
        if let Some(ip) = zoned(host) {
            let mend = format!(
                "write \"[{ip}]\": the link is that of the link-local address in `listen`, over the same transport"
            );
            return Err(Bad::new("a next hop has no zone", mend));
        }
        let mut transport = None;
        for parameter in parts {
            transport = Some(parse_transport(parameter)?);
        }
        Ok(Self {
            host: parse_host(host).ok_or_else(|| Bad::new("not a host name or address", MEND))?,
            port,
            transport,
        })
    }

    /// Whether the address means something on one link only, that of a link-local address in `listen`.
    pub fn is_link_local(&self) -> bool {
        match &self.host {
            Host::Addr(IpAddr::V6(ip)) => ip.is_unicast_link_local(),
            Host::Addr(IpAddr::V4(_)) | Host::Name(_) => false,
        }
    }

    /// The port, by default that of the transport.
    pub fn port_or_default(&self) -> u16 {
        let transport = self.transport.unwrap_or(Transport::Udp);
        self.port.unwrap_or_else(|| transport.default_port())
    }

    /// Reads what follows `sips:`, which means TLS (RFC 3261 §26.2.2).
    fn parse_secure(rest: &str) -> Result<Self, Bad> {
        let hop = Self::parse(&format!("sip:{rest}"))?;
        match hop.transport {
            None | Some(Transport::Tcp | Transport::Tls) => Ok(Self {
                transport: Some(Transport::Tls),
                ..hop
            }),
            Some(Transport::Udp | Transport::Ws | Transport::Wss) => Err(Bad::new(
                "a sips URI over UDP, which has no TLS",
                "remove \";transport=udp\"",
            )),
        }
    }
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sip:{}", self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        match self.transport {
            Some(transport) => write!(f, ";transport={}", transport.parameter()),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addr(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
            Self::Addr(ip) => ip.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl Domain {
    pub(crate) fn parse(text: &str) -> Result<Self, Bad> {
        const MEND: &str = "write a host name, an address or a network for ports 5060 and 5061, with \":PORT\" for one port, or with \":*\" for all ports: \"example.com\", \"192.0.2.0/24:*\"";
        if text.contains('/') {
            let wrong = || Bad::new("not a network", MEND);
            let (net, ports) = split_net(text).ok_or_else(wrong)?;
            return Ok(Self {
                hosts: Hosts::Net(net.trunc()),
                ports,
            });
        }
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self {
                hosts: Hosts::Net(ip.into()),
                ports: Ports::Sip,
            });
        }
        if text.starts_with("*.") || text.starts_with('.') {
            let what = "a wildcard, which is not supported here";
            return Err(Bad::new(what, "list each name"));
        }
        let wrong = || Bad::new("not a host name, address or network", MEND);
        let (host, ports) = match text.strip_suffix(":*") {
            Some(host) => (host, Ports::Any),
            None => {
                let (host, port) = split_port(text).ok_or_else(wrong)?;
                (host, port.map_or(Ports::Sip, Ports::One))
            }
        };
        let hosts = match parse_host(host).ok_or_else(wrong)? {
            Host::Addr(ip) => Hosts::Net(ip.into()),
            Host::Name(name) => Hosts::Name(name),
        };
        Ok(Self { hosts, ports })
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.hosts {
            Hosts::Net(net) if net.prefix_len() < net.max_prefix_len() => net.fmt(f)?,
            Hosts::Net(net) if self.ports == Ports::Sip => net.addr().fmt(f)?,
            Hosts::Net(net) => Host::Addr(net.addr()).fmt(f)?,
            Hosts::Name(name) => f.write_str(name)?,
        }
        match self.ports {
            Ports::Sip => Ok(()),
            Ports::One(port) => write!(f, ":{port}"),
            Ports::Any => f.write_str(":*"),
        }
    }
}

/// Splits a network and its ports.
fn split_net(text: &str) -> Option<(IpNet, Ports)> {
    let (address, rest) = text.split_once('/')?;
    let (length, ports) = match rest.split_once(':') {
        None => (rest, Ports::Sip),
        Some((length, "*")) => (length, Ports::Any),
        Some((length, port)) => {
            let port = port.parse().ok().filter(|port| *port > 0)?;
            (length, Ports::One(port))
        }
    };
    let net = IpNet::new(address.parse().ok()?, length.parse().ok()?).ok()?;
    Some((net, ports))
}

/// The address of a host that is written with its zone: `[fe80::1%eth0]`.
fn zoned(host: &str) -> Option<std::net::Ipv6Addr> {
    let (ip, zone) = host.strip_prefix('[')?.strip_suffix(']')?.split_once('%')?;
    ip.parse().ok().filter(|_| !zone.is_empty())
}

/// Splits host and port. An IPv6 address keeps its brackets.
fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    let end = if text.starts_with('[') {
        text.find(']')? + 1
    } else {
        0
    };
    match text[end..].find(':') {
        Some(colon) => {
            let (host, port) = text.split_at(end + colon);
            let port = port[1..].parse().ok().filter(|port| *port > 0)?;
            Some((host, Some(port)))
        }
        None => Some((text, None)),
    }
}

fn parse_host(text: &str) -> Option<Host> {
    if let Some(ip) = text.strip_prefix('[') {
        return Some(Host::Addr(
            ip.strip_suffix(']')?
                .parse::<std::net::Ipv6Addr>()
                .ok()?
                .into(),
        ));
    }
    if let Ok(ip) = text.parse::<std::net::Ipv4Addr>() {
        return Some(Host::Addr(ip.into()));
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    // "10.0.0.300" and "1.2.3" are mistyped addresses and not names: no top-level domain is a number.
    let numeric = name
        .rsplit('.')
        .next()?
        .bytes()
        .all(|byte| byte.is_ascii_digit());
    (is_host(name) && !numeric).then(|| Host::Name(name.to_ascii_lowercase()))
}

fn parse_transport(parameter: &str) -> Result<Transport, Bad> {
    const MEND: &str =
        "the only parameter is \";transport=udp\", \";transport=tcp\" or \";transport=tls\"";
    let wrong = || Bad::new(format!("unknown parameter `{parameter}`"), MEND);
    let (name, value) = parameter.split_once('=').ok_or_else(wrong)?;
    match name.eq_ignore_ascii_case("transport") {
        true => value
            .parse::<Transport>()
            .ok()
            .filter(|transport| !transport.is_websocket())
            .ok_or_else(wrong),
        false => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_hops_are_displayed_as_they_are_written() {
        for text in [
            "sip:127.0.0.1:5080",
            "sip:[::1]:5080;transport=tcp",
            "sip:[2001:db8::1]",
            "sip:proxy.example.com;transport=udp",
            "sip:proxy.example.com;transport=tls",
        ] {
            assert_eq!(NextHop::parse(text).unwrap().to_string(), text);
        }
        let secure = NextHop::parse("sips:proxy.example.com").unwrap();
        assert_eq!(secure.to_string(), "sip:proxy.example.com;transport=tls");
        assert_eq!(secure.port_or_default(), 5061);
        let shouted = NextHop::parse("SIP:Proxy.Example.COM.:5060;Transport=TCP").unwrap();
        assert_eq!(
            shouted.to_string(),
            "sip:proxy.example.com:5060;transport=tcp"
        );
    }

    #[test]
    fn invalid_next_hops_are_refused() {
        for (text, what) in [
            ("127.0.0.1:5080", "not a SIP URI"),
            (
                "sips:127.0.0.1;transport=udp",
                "a sips URI over UDP, which has no TLS",
            ),
            ("sip:alice@127.0.0.1", "a next hop has no user part"),
            ("sip:127.0.0.1:0", "not a host with a port"),
            ("sip:::1", "not a host with a port"),
            ("sip:10.0.0.300", "not a host name or address"),
            ("sip:", "not a host name or address"),
            ("sip:[fe80::1%eth0]:5060", "a next hop has no zone"),
            ("sip:[fe80::1%eth0];transport=tcp", "a next hop has no zone"),
            ("sip:a.example;lr", "unknown parameter `lr`"),
            (
                "sip:a.example;transport=sctp",
                "unknown parameter `transport=sctp`",
            ),
        ] {
            assert_eq!(NextHop::parse(text).unwrap_err().what, what, "{text}");
        }
    }

    #[test]
    fn domains_are_names_addresses_and_networks() {
        for text in [
            "example.com",
            "example.com:5070",
            "192.0.2.1",
            "192.0.2.1:5060",
            "[2001:db8::1]:5060",
            "2001:db8::1",
            "192.0.2.0/24",
            "2001:db8::/32",
            "192.0.2.0/24:5060",
            "2001:db8::/32:5080",
            "example.com:*",
            "192.0.2.1:*",
            "192.0.2.0/24:*",
            "[2001:db8::1]:*",
            "2001:db8::/32:*",
        ] {
            assert_eq!(Domain::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(
            Domain::parse("192.0.2.77/24").unwrap().to_string(),
            "192.0.2.0/24"
        );
        for bad in [
            "",
            "*.example.com",
            "a b",
            "192.0.2.0/33",
            "192.0.2.256",
            "example.com:x",
            "192.0.2.0/24:0",
            "192.0.2.0/24:",
            "192.0.2.0/24:5060:*",
            "2001:db8::/32:x",
            "2001:db8::1:*:*",
            "example.com:",
            ":*",
            "*",
        ] {
            assert!(Domain::parse(bad).is_err(), "{bad}");
        }
    }
}
