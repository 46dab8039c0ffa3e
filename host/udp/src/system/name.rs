//! Socket addresses as the kernel reads and writes them.

use std::fmt;
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// A socket address as the kernel reads and writes it, with space for the larger address family.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) union Name {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

impl Name {
    /// Bytes of it that the address uses.
    pub(super) fn length(&self) -> usize {
        if self.family() == libc::AF_INET6 {
            mem::size_of::<libc::sockaddr_in6>()
        } else {
            mem::size_of::<libc::sockaddr_in>()
        }
    }

    /// The address that the kernel wrote with this length; `None` unless it is an internet address.
    pub(super) fn address(&self, length: libc::socklen_t) -> Option<SocketAddr> {
        let length = length as usize;
        if length < self.length() {
            return None;
        }
        match self.family() {
            libc::AF_INET => {
                // SAFETY: the family says so, and any bytes are a valid value of this plain C struct.
                let name = unsafe { &self.v4 };
                let ip = Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr));
                Some(SocketAddrV4::new(ip, u16::from_be(name.sin_port)).into())
            }
            libc::AF_INET6 => {
                // SAFETY: as above; all of the union was written when it was made.
                let name = unsafe { &self.v6 };
                let ip = Ipv6Addr::from(name.sin6_addr.s6_addr);
                let port = u16::from_be(name.sin6_port);
                Some(SocketAddrV6::new(ip, port, name.sin6_flowinfo, name.sin6_scope_id).into())
            }
            _ => None,
        }
    }

    fn family(&self) -> libc::c_int {
        // SAFETY: both structs begin with their family.
        libc::c_int::from(unsafe { self.v4.sin_family })
    }
}

/// The address that a name was made from.
pub(crate) fn socket_addr(name: &Name) -> Option<SocketAddr> {
    name.address(name.length() as libc::socklen_t)
}

impl From<SocketAddr> for Name {
    fn from(address: SocketAddr) -> Self {
        // SAFETY: all-zero is a valid value of these plain C structs.
        let mut name: Self = unsafe { mem::zeroed() };
        match address {
            SocketAddr::V4(address) => {
                name.v4 = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: address.port().to_be(),
                    sin_addr: libc::in_addr {
                        s_addr: u32::from(*address.ip()).to_be(),
                    },
                    sin_zero: [0; 8],
                };
            }
            SocketAddr::V6(address) => {
                name.v6 = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: address.port().to_be(),
                    sin6_flowinfo: address.flowinfo(),
                    sin6_addr: libc::in6_addr {
                        s6_addr: address.ip().octets(),
                    },
                    sin6_scope_id: address.scope_id(),
                };
            }
        }
        name
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = mem::size_of::<Self>() as libc::socklen_t;
        fmt::Debug::fmt(&self.address(whole), f)
    }
}

#[cfg(test)]
mod tests {
    use super::super::NOWHERE;
    use super::*;

    #[test]
    fn addresses_survive_the_way_to_the_kernel_and_back() {
        for text in [
            "192.0.2.1:5060",
            "0.0.0.0:0",
            "[2001:db8::1]:65535",
            "[::]:1",
        ] {
            let address: SocketAddr = text.parse().unwrap();
            let name = Name::from(address);
            assert_eq!(
                name.address(name.length() as libc::socklen_t),
                Some(address)
            );
            assert_eq!(name.address(name.length() as libc::socklen_t - 1), None);
        }
        let scoped = SocketAddrV6::new("fe80::1".parse().unwrap(), 5060, 0, 3).into();
        let name = Name::from(scoped);
        assert_eq!(name.address(28), Some(scoped));
    }

    #[test]
    fn what_is_no_internet_address_is_none() {
        let mut name = Name::from(NOWHERE);
        name.v4.sin_family = libc::AF_UNIX as libc::sa_family_t;
        assert_eq!(name.address(28), None);
        assert_eq!(name.address(0), None);
    }
}
