//! The sockets of this machine that items of `listen` stand for.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use portcullis_sip::Transport;
use thiserror::Error;

use super::listen::{Listen, Place};

/// A socket that the host is to bind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// The transport.
    pub transport: Transport,
    /// The address. That of IPv6 within one link has the number of its interface (`scope_id`), which means nothing to other machines.
    pub addr: SocketAddr,
    /// The interface that has the address, if the item of `listen` does not name the address alone.
    pub interface: Option<String>,
    /// See [`Listen::advertise`].
    pub advertise: Option<(String, u16)>,
}

/// An item of `listen` that stands for no address of this machine.
#[derive(Debug, Error)]
pub enum SocketError {
    /// The system does not list its addresses.
    #[error("cannot list this machine's addresses for {listen}: {source}")]
    Unlisted {
        /// The item.
        listen: String,
        /// What the system says.
        source: io::Error,
    },
    /// There is no interface with this name.
    #[error("{listen}: this machine has no interface `{interface}`, but {there}")]
    NoInterface {
        /// The item.
        listen: String,
        /// The name.
        interface: String,
        /// The interfaces that there are.
        there: Names,
    },
    /// The interface has no address that can be used.
    #[error(
        "{listen}: the interface `{interface}` has no address: give it one, or name another interface"
    )]
    NoAddress {
        /// The item.
        listen: String,
        /// The name.
        interface: String,
    },
    /// The interface has addresses of its link only.
    #[error(
        "{listen}: the interface `{interface}` has link-local addresses only: give it another one, or write \"{instead}\""
    )]
    LinkLocalOnly {
        /// The item.
        listen: String,
        /// The name.
        interface: String,
        /// An item that names one of these addresses.
        instead: String,
    },
    /// The interface has other addresses.
    #[error("{listen}: the interface `{interface}` does not have this address, but {there}")]
    OtherAddresses {
        /// The item.
        listen: String,
        /// The interface.
        interface: String,
        /// The addresses that it has.
        there: Names,
    },
    /// The machine has no address of the family.
    #[error("{listen} matches no address: this machine has none of that family; change `listen`")]
    NoFamily {
        /// The item.
        listen: String,
    },
    /// Two interfaces have the same link-local address.
    #[error(
        "{listen}: another interface has the same address, and peers could not tell both: give one of them another port"
    )]
    SameAddress {
        /// The item.
        listen: String,
    },
}

/// What there is: `lo, eth0`, or `none`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names(BTreeSet<String>);

/// An address of this machine, with the name and the number of its interface.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Own {
    interface: String,
    index: u32,
    ip: IpAddr,
}

impl Socket {
    /// The sockets of all these items, each once.
    ///
    /// # Errors
    /// See [`Socket::of`]; and when two of them have the same link-local address and port.
    pub fn all(listen: &[Listen]) -> Result<Vec<Self>, SocketError> {
        let mut all = Vec::<Self>::new();
        for one in listen {
            for socket in Self::of(one)? {
                let is_known = socket.addr.port() != 0 && all.iter().any(|own| own.is(&socket));
                if is_known {
                    continue;
                }
                if all.iter().any(|own| own.looks_like(&socket)) {
                    let listen = one.to_string();
                    return Err(SocketError::SameAddress { listen });
                }
                all.push(socket);
            }
        }
        Ok(all)
    }

    /// The sockets to bind for an item: one, or one for every address of the machine or of the interface, so that a response leaves from the address
    /// that received the request. Kamailio does the same. Link-local addresses of IPv6 are omitted unless they are named: other links do not
    /// reach them.
    ///
    /// # Errors
    /// When the machine has no such address or interface; the error names those that it has.
    pub fn of(listen: &Listen) -> Result<Vec<Self>, SocketError> {
        if let Place::Addr(addr) = listen.place
            && !addr.ip().is_unspecified()
        {
            return Ok(vec![Self::new(listen, addr, None)]);
        }
        let (own, names) = own().map_err(|source| SocketError::Unlisted {
            listen: listen.to_string(),
            source,
        })?;
        Self::among(listen, &own, &names)
    }

    fn among(listen: &Listen, own: &[Own], names: &Names) -> Result<Vec<Self>, SocketError> {
        let mut sockets = Vec::<Self>::new();
        for own in chosen(listen, own, names)? {
            let addr = own.addr(listen.place.port());
            if !sockets.iter().any(|socket| socket.addr == addr) {
                sockets.push(Self::new(listen, addr, Some(own.interface.clone())));
            }
        }
        sockets.sort_by_key(|socket| socket.addr.ip());
        Ok(sockets)
    }

    fn new(listen: &Listen, addr: SocketAddr, interface: Option<String>) -> Self {
        Self {
            transport: listen.transport,
            addr,
            interface,
            advertise: listen.advertise.clone(),
        }
    }

    /// Whether an address that is written elsewhere in the configuration is this socket.
    pub fn is_of(&self, written: &Listen) -> bool {
        let ip = self.addr.ip();
        let has_place = match &written.place {
            Place::Addr(addr) if addr.ip().is_unspecified() => {
                addr.is_ipv4() == ip.is_ipv4() && !is_link_local(ip)
            }
            Place::Addr(addr) => addr.ip() == ip,
            Place::Interface(name, _) => {
                self.interface.as_ref() == Some(name) && !is_link_local(ip)
            }
            Place::Zoned(zoned, zone, _) => ip == *zoned && self.interface.as_ref() == Some(zone),
        };
        written.transport == self.transport && written.place.port() == self.addr.port() && has_place
    }

    fn is(&self, other: &Self) -> bool {
        self.transport == other.transport && self.addr == other.addr
    }

    /// Whether other machines take both for the same.
    fn looks_like(&self, other: &Self) -> bool {
        self.transport == other.transport
            && self.addr.port() != 0
            && (self.addr.ip(), self.addr.port()) == (other.addr.ip(), other.addr.port())
    }
}

/// The addresses of this machine that an item stands for: at least one.
fn chosen<'o>(listen: &Listen, own: &'o [Own], names: &Names) -> Result<Vec<&'o Own>, SocketError> {
    match &listen.place {
        Place::Addr(addr) => {
            let is_it = |own: &&Own| own.ip.is_ipv4() == addr.is_ipv4() && !is_link_local(own.ip);
            let all: Vec<_> = own.iter().filter(is_it).collect();
            match all.is_empty() {
                true => Err(SocketError::NoFamily {
                    listen: listen.to_string(),
                }),
                false => Ok(all),
            }
        }
        Place::Interface(name, port) => {
            let (local, all): (Vec<_>, Vec<_>) = of_interface(own, name)
                .into_iter()
                .partition(|own| is_link_local(own.ip));
            match (all.is_empty(), local.first()) {
                (false, _) => Ok(all),
                (true, None) => Err(without_address(listen, name, names)),
                (true, Some(own)) => Err(SocketError::LinkLocalOnly {
                    listen: listen.to_string(),
                    interface: name.clone(),
                    instead: format!(
                        "{}:[{}%{name}]:{port}",
                        listen.transport.parameter(),
                        own.ip
                    ),
                }),
            }
        }
        Place::Zoned(ip, zone, _) => {
            let all = of_interface(own, zone);
            match all.iter().find(|own| own.ip == *ip) {
                Some(own) => Ok(vec![*own]),
                None if all.is_empty() => Err(without_address(listen, zone, names)),
                None => Err(SocketError::OtherAddresses {
                    listen: listen.to_string(),
                    interface: zone.clone(),
                    there: Names(all.iter().map(|own| own.ip.to_string()).collect()),
                }),
            }
        }
    }
}

fn of_interface<'o>(own: &'o [Own], name: &str) -> Vec<&'o Own> {
    own.iter().filter(|own| own.interface == name).collect()
}

fn without_address(listen: &Listen, interface: &str, names: &Names) -> SocketError {
    let (listen, interface) = (listen.to_string(), interface.to_owned());
    match names.0.contains(&interface) {
        true => SocketError::NoAddress { listen, interface },
        false => SocketError::NoInterface {
            listen,
            interface,
            there: names.clone(),
        },
    }
}

impl Own {
    fn addr(&self, port: u16) -> SocketAddr {
        match self.ip {
            IpAddr::V6(ip) if ip.is_unicast_link_local() => {
                SocketAddrV6::new(ip, port, 0, self.index).into()
            }
            ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => SocketAddr::new(ip, port),
        }
    }
}

impl fmt::Display for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.transport.parameter())?;
        match (self.addr, &self.interface) {
            (SocketAddr::V6(addr), Some(zone)) if addr.ip().is_unicast_link_local() => {
                write!(f, "[{}%{zone}]:{}", addr.ip(), addr.port())?;
            }
            (addr, _) => addr.fmt(f)?,
        }
        match &self.advertise {
            Some((host, port)) => write!(f, " advertise {host}:{port}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (at, name) in self.0.iter().enumerate() {
            let separator = if at == 0 { "" } else { ", " };
            write!(f, "{separator}{name}")?;
        }
        Ok(())
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

/// The addresses of this machine, and the names of its interfaces, some of which may have none.
fn own() -> io::Result<(Vec<Own>, Names)> {
    let all = if_addrs::get_if_addrs()?;
    let mut names: BTreeSet<String> = all.iter().map(|one| one.name.clone()).collect();
    if let Ok(folder) = std::fs::read_dir("/sys/class/net") {
        let files = folder.flatten().map(|file| file.file_name());
        names.extend(files.filter_map(|name| name.into_string().ok()));
    }
    let own = all.into_iter().map(|one| Own {
        ip: one.ip(),
        index: one.index.unwrap_or_default(),
        interface: one.name,
    });
    Ok((own.collect(), Names(names)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Vec<Own> {
        [
            ("lo", 1, "127.0.0.1"),
            ("lo", 1, "::1"),
            ("eth0", 2, "10.0.0.5"),
            ("eth0", 2, "10.0.0.6"),
            ("eth0", 2, "fe80::1"),
            ("eth0", 2, "2001:db8::5"),
            ("wg0", 3, "fe80::2"),
        ]
        .map(|(interface, index, ip)| Own {
            interface: interface.into(),
            index,
            ip: ip.parse().unwrap(),
        })
        .to_vec()
    }

    fn sockets(text: &str) -> Result<Vec<Socket>, String> {
        let names = ["lo", "eth0", "wg0", "dummy0"].map(str::to_owned);
        let listen = Listen::parse(text).unwrap();
        let sockets = Socket::among(&listen, &machine(), &Names(names.into()));
        sockets.map_err(|error| error.to_string())
    }

    fn shown(text: &str) -> Vec<String> {
        let sockets = sockets(text).unwrap();
        sockets.iter().map(Socket::to_string).collect()
    }

    #[test]
    fn an_unspecified_address_stands_for_the_addresses_of_its_family() {
        assert_eq!(
            shown("udp:0.0.0.0:5070"),
            [
                "udp:10.0.0.5:5070",
                "udp:10.0.0.6:5070",
                "udp:127.0.0.1:5070"
            ]
        );
        assert_eq!(
            shown("tcp:[::]"),
            ["tcp:[::1]:5060", "tcp:[2001:db8::5]:5060"]
        );
    }

    #[test]
    fn an_interface_stands_for_its_addresses_of_both_families() {
        assert_eq!(
            shown("udp:eth0:5060 advertise sip.example.com"),
            [
                "udp:10.0.0.5:5060 advertise sip.example.com:5060",
                "udp:10.0.0.6:5060 advertise sip.example.com:5060",
                "udp:[2001:db8::5]:5060 advertise sip.example.com:5060",
            ]
        );
        assert_eq!(shown("tls:lo"), ["tls:127.0.0.1:5061", "tls:[::1]:5061"]);
    }

    #[test]
    fn a_link_local_address_has_the_number_of_its_interface() {
        let sockets = sockets("udp:[fe80::1%eth0]:5060").unwrap();
        assert_eq!(sockets.len(), 1);
        let SocketAddr::V6(addr) = sockets[0].addr else {
            panic!("{sockets:?}");
        };
        assert_eq!((addr.scope_id(), addr.port()), (2, 5060));
        assert_eq!(sockets[0].to_string(), "udp:[fe80::1%eth0]:5060");
    }

    #[test]
    fn what_the_machine_lacks_is_said_with_what_it_has() {
        for (text, error) in [
            (
                "udp:eth1:5060",
                "udp:eth1:5060: this machine has no interface `eth1`, but dummy0, eth0, lo, wg0",
            ),
            (
                "udp:dummy0:5060",
                "udp:dummy0:5060: the interface `dummy0` has no address: give it one, or name another interface",
            ),
            (
                "udp:wg0:5060",
                "udp:wg0:5060: the interface `wg0` has link-local addresses only: give it another one, or write \"udp:[fe80::2%wg0]:5060\"",
            ),
            (
                "udp:[fe80::9%eth0]:5060",
                "udp:[fe80::9%eth0]:5060: the interface `eth0` does not have this address, but 10.0.0.5, 10.0.0.6, 2001:db8::5, fe80::1",
            ),
            (
                "udp:[fe80::9%eth1]:5060",
                "udp:[fe80::9%eth1]:5060: this machine has no interface `eth1`, but dummy0, eth0, lo, wg0",
            ),
        ] {
            assert_eq!(sockets(text).unwrap_err(), error);
        }
    }

    #[test]
    fn an_address_that_is_written_elsewhere_is_found_among_the_sockets() {
        let is_of = |text: &str, written: &str| {
            let written = Listen::parse(written).unwrap();
            let sockets = sockets(text).unwrap();
            sockets.iter().filter(|one| one.is_of(&written)).count()
        };
        assert_eq!(is_of("udp:eth0:5060", "udp:eth0:5060"), 3);
        assert_eq!(is_of("udp:eth0:5060", "udp:0.0.0.0:5060"), 2);
        assert_eq!(is_of("udp:eth0:5060", "udp:10.0.0.6:5060"), 1);
        assert_eq!(is_of("udp:0.0.0.0:5060", "udp:eth0:5060"), 2);
        assert_eq!(is_of("udp:eth0:5060", "udp:10.0.0.7:5060"), 0);
        assert_eq!(is_of("udp:eth0:5060", "tcp:10.0.0.6:5060"), 0);
        assert_eq!(is_of("udp:eth0:5060", "udp:10.0.0.6:5061"), 0);
        assert_eq!(is_of("udp:[fe80::1%eth0]", "udp:[fe80::1%eth0]:5060"), 1);
    }

    #[test]
    fn each_socket_is_there_once() {
        let listen = [
            "udp:127.0.0.1:5060",
            "udp:127.0.0.1:5060",
            "udp:127.0.0.1:0",
            "udp:127.0.0.1:0",
        ];
        let listen = listen.map(|text| Listen::parse(text).unwrap());
        assert_eq!(Socket::all(&listen).unwrap().len(), 3);
    }
}
