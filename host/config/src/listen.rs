//! Listen addresses: `udp:192.0.2.1:5060`, `tcp:[2001:db8::1]:5060`, `tls:192.0.2.1:5061`, `udp:0.0.0.0:5060 advertise sip.example.com:5060`.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use portcullis_sip::Transport;

use super::problem::Bad;

/// Default port of SIP over UDP and TCP (RFC 3261 §19.1.2).
pub const SIP_PORT: u16 = 5060;

/// One listen address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The transport.
    pub transport: Transport,
    /// The address; unspecified (0.0.0.0, ::) means every address of the machine.
    pub addr: SocketAddr,
    /// Host and port in Via and Record-Route instead of the address, for a host behind NAT.
    pub advertise: Option<(String, u16)>,
}

impl Listen {
    /// Reads `TRANSPORT:ADDRESS:PORT`, optionally followed by ` advertise HOST:PORT`.
    ///
    /// # Errors
    /// What is wrong with the text, and how to correct it.
    pub fn parse(text: &str) -> Result<Self, Bad> {
        const MEND: &str = "write \"udp:ADDRESS:PORT\", or tcp, tls, ws or wss in place of udp, IPv6 in brackets, for example \"udp:[::1]:5060\"";
        let (socket, advertise) = match text.split_once(" advertise ") {
            Some((socket, advertise)) => (socket.trim(), Some(advertise.trim())),
            None => (text, None),
        };
        let Some((transport, rest)) = socket.split_once(':') else {
            return Err(Bad::new("no transport", MEND));
        };
        let transport: Transport =
            transport
                .parse()
                .map_err(|_| match transport.to_ascii_lowercase().as_str() {
                    "sctp" => Bad::new(
                        format!("the transport {transport} is not supported yet"),
                        "listen on udp, tcp or tls",
                    ),
                    _ => Bad::new(format!("unknown transport `{transport}`"), MEND),
                })?;
        let addr = parse_socket(rest, transport)
            .ok_or_else(|| Bad::new("not an address with a port", MEND))?;
        let advertise = advertise.map(|text| parse_advertise(text, transport));
        Ok(Self {
            transport,
            addr,
            advertise: advertise.transpose()?,
        })
    }

    /// Whether requests received on the local address `local` arrived through this listen address.
    pub fn covers(&self, local: &Self) -> bool {
        let is_any = self.addr.ip().is_unspecified() && self.addr.is_ipv4() == local.addr.is_ipv4();
        self.transport == local.transport
            && self.addr.port() == local.addr.port()
            && (is_any || self.addr.ip() == local.addr.ip())
    }

    /// Returns the addresses to bind: this one, or every address of the machine if it is unspecified. Kamailio does the same, so that a
    /// response leaves from the address that received the request. Link-local IPv6 addresses are omitted, because they cannot be used in a
    /// Via.
    ///
    /// # Errors
    /// If the system does not list its addresses.
    pub fn expand(&self) -> io::Result<Vec<Self>> {
        if !self.addr.ip().is_unspecified() {
            return Ok(vec![self.clone()]);
        }
        let mut addresses: Vec<IpAddr> = if_addrs::get_if_addrs()?
            .into_iter()
            .map(|interface| interface.ip())
            .collect();
        addresses.sort();
        addresses.dedup();
        Ok(self.expand_to(&addresses))
    }

    fn expand_to(&self, addresses: &[IpAddr]) -> Vec<Self> {
        let usable = |ip: &&IpAddr| match ip {
            IpAddr::V4(_) => self.addr.is_ipv4(),
            IpAddr::V6(ip) => self.addr.is_ipv6() && !ip.is_unicast_link_local(),
        };
        let bind = |ip: &IpAddr| Self {
            addr: SocketAddr::new(*ip, self.addr.port()),
            ..self.clone()
        };
        addresses.iter().filter(usable).map(bind).collect()
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transport = self.transport.parameter();
        write!(f, "{transport}:{}", self.addr)?;
        match &self.advertise {
            Some((host, port)) => write!(f, " advertise {host}:{port}"),
            None => Ok(()),
        }
    }
}

/// Reads an address with an optional port, by default that of the transport. IPv6 addresses are in brackets.
fn parse_socket(text: &str, transport: Transport) -> Option<SocketAddr> {
    if let Ok(addr) = text.parse() {
        return Some(addr);
    }
    let ip = match text.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?.into(),
        None => text.parse::<std::net::Ipv4Addr>().ok()?.into(),
    };
    Some(SocketAddr::new(ip, transport.default_port()))
}

fn parse_advertise(text: &str, transport: Transport) -> Result<(String, u16), Bad> {
    let mend = "write \"… advertise HOST:PORT\", IPv6 in brackets";
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && !text.ends_with(']') => {
            let port = port.parse::<u16>().ok().filter(|port| *port > 0);
            (
                host,
                port.ok_or_else(|| Bad::new("not a valid advertised port", mend))?,
            )
        }
        _ => (text, transport.default_port()),
    };
    if !is_host(host) {
        return Err(Bad::new("not a valid advertised host", mend));
    }
    Ok((host.to_owned(), port))
}

/// Whether `text` is a host as in a SIP URI: a name, an IPv4 address, or an IPv6 address in brackets.
pub(crate) fn is_host(text: &str) -> bool {
    if let Some(rest) = text.strip_prefix('[') {
        return rest
            .strip_suffix(']')
            .is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok());
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    !name.is_empty() && name.len() <= 253 && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_addresses_are_displayed_as_they_are_written() {
        for text in [
            "udp:127.0.0.1:5060",
            "tcp:[::1]:5061",
            "udp:0.0.0.0:0",
            "udp:10.0.0.5:5060 advertise sip.example.com:5080",
            "tcp:[::]:5060 advertise [2001:db8::1]:5060",
        ] {
            assert_eq!(Listen::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(
            Listen::parse("UDP:10.0.0.5").unwrap().to_string(),
            "udp:10.0.0.5:5060"
        );
        assert_eq!(
            Listen::parse("tls:10.0.0.5 advertise a.example")
                .unwrap()
                .to_string(),
            "tls:10.0.0.5:5061 advertise a.example:5061"
        );
        assert_eq!(
            Listen::parse("ws:10.0.0.5 advertise a.example")
                .unwrap()
                .to_string(),
            "ws:10.0.0.5:80 advertise a.example:80"
        );
        assert_eq!(
            Listen::parse("tcp:[::1] advertise a.example")
                .unwrap()
                .to_string(),
            "tcp:[::1]:5060 advertise a.example:5060"
        );
    }

    #[test]
    fn invalid_listen_addresses_are_refused() {
        for (text, what) in [
            ("127.0.0.1:5060", "unknown transport `127.0.0.1`"),
            ("udp", "no transport"),
            ("udp:::1:5060", "not an address with a port"),
            ("udp:localhost:5060", "not an address with a port"),
            ("udp:127.0.0.1:99999", "not an address with a port"),
            (
                "sctp:127.0.0.1:5060",
                "the transport sctp is not supported yet",
            ),
            (
                "udp:127.0.0.1:5060 advertise a b",
                "not a valid advertised host",
            ),
            (
                "udp:127.0.0.1:5060 advertise a:0",
                "not a valid advertised port",
            ),
        ] {
            assert_eq!(Listen::parse(text).unwrap_err().what, what, "{text}");
        }
    }

    #[test]
    fn an_unspecified_address_covers_the_addresses_of_its_family() {
        let machine: Vec<IpAddr> = ["127.0.0.1", "10.0.0.5", "::1", "fe80::1", "2001:db8::5"]
            .map(|ip| ip.parse().unwrap())
            .to_vec();
        let shown = |text: &str| {
            let all = Listen::parse(text).unwrap().expand_to(&machine);
            all.iter().map(Listen::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            shown("udp:0.0.0.0:5070"),
            ["udp:127.0.0.1:5070", "udp:10.0.0.5:5070"]
        );
        assert_eq!(
            shown("tcp:[::]"),
            ["tcp:[::1]:5060", "tcp:[2001:db8::5]:5060"]
        );
    }
}
