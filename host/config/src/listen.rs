//! Listen addresses: `udp:192.0.2.1:5060`, `tcp:[2001:db8::1]:5060`, `tls:eth0:5061`, `udp:[fe80::1%eth0]:5060`,
//! `udp:0.0.0.0:5060 advertise sip.example.com:5060`.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use portcullis_sip::Transport;

use super::problem::Bad;

/// Default port of SIP over UDP and TCP (RFC 3261 §19.1.2).
pub const SIP_PORT: u16 = 5060;

/// Most bytes of the name of a network interface (`IFNAMSIZ`, with a zero byte).
const LONGEST_INTERFACE: usize = 15;

/// One item of `listen`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The transport.
    pub transport: Transport,
    /// Where on the machine.
    pub place: Place,
    /// Host and port in Via and Record-Route instead of the address, for a host behind NAT.
    pub advertise: Option<(String, u16)>,
}

/// Where on the machine the host listens, with the port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// An address; unspecified (0.0.0.0, ::) means every address of the machine.
    Addr(SocketAddr),
    /// Every address of a network interface.
    Interface(String, u16),
    /// A link-local address of IPv6, and the interface that it belongs to: its zone (RFC 4007 §11).
    Zoned(Ipv6Addr, String, u16),
}

impl Listen {
    /// Reads `TRANSPORT:ADDRESS:PORT`, optionally followed by ` advertise HOST:PORT`. The name of an interface may stand for the address.
    ///
    /// # Errors
    /// What is wrong with the text, and how to correct it.
    pub fn parse(text: &str) -> Result<Self, Bad> {
        const MEND: &str = "write \"udp:ADDRESS:PORT\", or tcp, tls, ws or wss in place of udp, IPv6 in brackets, for example \"udp:[::1]:5060\", \
                            or an interface in place of the address: \"udp:eth0:5060\"";
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
        let place = Place::parse(rest, transport.default_port())
            .ok_or_else(|| Bad::new("not an address with a port", MEND))?;
        if let Place::Addr(SocketAddr::V6(addr)) = place
            && addr.ip().is_unicast_link_local()
        {
            let ip = addr.ip();
            let what = "a link-local address without its interface";
            let mend = format!(
                "write \"{}:[{ip}%INTERFACE]:{}\"",
                transport.parameter(),
                addr.port()
            );
            return Err(Bad::new(what, mend));
        }
        let advertise = advertise.map(|text| parse_advertise(text, transport));
        Ok(Self {
            transport,
            place,
            advertise: advertise.transpose()?,
        })
    }

    /// The address without its zone; `None` for all addresses of an interface.
    pub fn addr(&self) -> Option<SocketAddr> {
        match &self.place {
            Place::Addr(addr) => Some(*addr),
            Place::Zoned(ip, _, port) => Some(SocketAddr::new((*ip).into(), *port)),
            Place::Interface(..) => None,
        }
    }

    /// Whether `other`, an address that is written elsewhere in the configuration, may be one of this item. Whether an interface has an address
    /// is known only on the machine.
    pub fn may_cover(&self, other: &Self) -> bool {
        self.transport == other.transport
            && self.place.port() == other.place.port()
            && self.place.may_cover(&other.place)
    }
}

impl Place {
    /// The port.
    pub fn port(&self) -> u16 {
        match self {
            Self::Addr(addr) => addr.port(),
            Self::Interface(_, port) | Self::Zoned(_, _, port) => *port,
        }
    }

    /// Reads an address or an interface with an optional port. IPv6 addresses are in brackets.
    fn parse(text: &str, default_port: u16) -> Option<Self> {
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !text.ends_with(']') => {
                let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
                (host, port.parse().ok().filter(|_| is_number)?)
            }
            Some(_) | None => (text, default_port),
        };
        let Some(v6) = host.strip_prefix('[') else {
            return match host.parse::<Ipv4Addr>() {
                Ok(ip) => Some(Self::Addr(SocketAddr::new(ip.into(), port))),
                Err(_) => is_interface(host).then(|| Self::Interface(host.to_owned(), port)),
            };
        };
        match v6.strip_suffix(']')?.split_once('%') {
            None => {
                let ip = v6.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?;
                Some(Self::Addr(SocketAddr::new(ip.into(), port)))
            }
            Some((ip, zone)) => {
                let ip = ip.parse::<Ipv6Addr>().ok()?;
                let is_zoned = ip.is_unicast_link_local() && is_interface(zone);
                is_zoned.then(|| Self::Zoned(ip, zone.to_owned(), port))
            }
        }
    }

    fn may_cover(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Addr(own), Self::Addr(other)) => {
                own.ip() == other.ip()
                    || own.ip().is_unspecified() && own.is_ipv4() == other.is_ipv4()
            }
            (Self::Addr(own), Self::Interface(..)) => own.ip().is_unspecified(),
            (Self::Interface(own, _), Self::Interface(other, _)) => own == other,
            (Self::Interface(..), Self::Addr(other)) => !other.ip().is_unspecified(),
            (Self::Zoned(..), Self::Zoned(..)) => self == other,
            (Self::Zoned(..), Self::Addr(_) | Self::Interface(..))
            | (Self::Addr(_) | Self::Interface(..), Self::Zoned(..)) => false,
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.transport.parameter(), self.place)?;
        match &self.advertise {
            Some((host, port)) => write!(f, " advertise {host}:{port}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addr(addr) => addr.fmt(f),
            Self::Interface(name, port) => write!(f, "{name}:{port}"),
            Self::Zoned(ip, zone, port) => write!(f, "[{ip}%{zone}]:{port}"),
        }
    }
}

/// Whether this can be the name of a network interface. A name of a host with a dot cannot: behind a dot is the number of a VLAN.
fn is_interface(text: &str) -> bool {
    let is_part =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'@');
    let is_vlan = text
        .rsplit_once('.')
        .is_none_or(|(_, vlan)| !vlan.is_empty() && vlan.bytes().all(|byte| byte.is_ascii_digit()));
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.len() <= LONGEST_INTERFACE
        && text.bytes().all(is_part)
        && is_vlan
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
            "udp:eth0:5060",
            "tls:enp3s0.100:5061 advertise sip.example.com:5061",
            "udp:[fe80::1%eth0]:5060",
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
    fn a_port_may_be_left_out() {
        for (text, shown) in [
            ("tcp:[::1]", "tcp:[::1]:5060"),
            ("udp:br-lan", "udp:br-lan:5060"),
            ("tls:[fe80::1%wg0]", "tls:[fe80::1%wg0]:5061"),
        ] {
            assert_eq!(Listen::parse(text).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn invalid_listen_addresses_are_refused() {
        for (text, what) in [
            ("127.0.0.1:5060", "unknown transport `127.0.0.1`"),
            ("udp", "no transport"),
            ("udp:::1:5060", "not an address with a port"),
            ("udp:sip.example.com:5060", "not an address with a port"),
            ("udp:aninterfacename0:5060", "not an address with a port"),
            ("udp:127.0.0:5060", "not an address with a port"),
            ("udp:eth0:+5060", "not an address with a port"),
            ("udp:eth0:", "not an address with a port"),
            ("udp::5060", "not an address with a port"),
            // A zone belongs to link-local addresses, and in the brackets.
            ("udp:[2001:db8::1%eth0]:5060", "not an address with a port"),
            ("udp:[fe80::1]%eth0:5060", "not an address with a port"),
            ("udp:[fe80::1%]:5060", "not an address with a port"),
            (
                "udp:[fe80::1]:5060",
                "a link-local address without its interface",
            ),
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
    fn an_item_covers_what_it_may_stand_for() {
        let covers = |own: &str, other: &str| {
            let [own, other] = [own, other].map(|text| Listen::parse(text).unwrap());
            own.may_cover(&other)
        };
        for (own, other) in [
            ("udp:0.0.0.0:5060", "udp:192.0.2.1:5060"),
            ("udp:0.0.0.0:5060", "udp:eth0:5060"),
            ("udp:192.0.2.1:5060", "udp:192.0.2.1:5060"),
            ("udp:eth0:5060", "udp:eth0:5060"),
            ("udp:eth0:5060", "udp:192.0.2.1:5060"),
            ("udp:[fe80::1%eth0]:5060", "udp:[fe80::1%eth0]:5060"),
        ] {
            assert!(covers(own, other), "{own} {other}");
        }
        for (own, other) in [
            ("udp:0.0.0.0:5060", "udp:192.0.2.1:5061"),
            ("udp:0.0.0.0:5060", "tcp:192.0.2.1:5060"),
            ("udp:0.0.0.0:5060", "udp:[::1]:5060"),
            ("udp:192.0.2.1:5060", "udp:192.0.2.2:5060"),
            ("udp:192.0.2.1:5060", "udp:eth0:5060"),
            ("udp:eth0:5060", "udp:eth1:5060"),
            ("udp:eth0:5060", "udp:0.0.0.0:5060"),
            ("udp:eth0:5060", "udp:[fe80::1%eth0]:5060"),
            ("udp:[fe80::1%eth0]:5060", "udp:[fe80::1%eth1]:5060"),
        ] {
            assert!(!covers(own, other), "{own} {other}");
        }
    }
}
