//! Sources: an IPv4 address, or the /64 of an IPv6 address.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// An IPv4 address, or the /64 of an IPv6 address: what a subscriber usually has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix(u64);

/// Marks IPv4 addresses. As the beginning of an IPv6 address, these 32 bits are unassigned.
const V4: u64 = 1 << 32;

impl Prefix {
    /// The source with this address.
    #[inline]
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self(V4 | u64::from(ip.to_bits())),
            IpAddr::V6(ip) => Self(((ip.to_bits() >> 64) as u64).max(1)),
        }
    }

    /// The network: a /32 or a /64.
    pub fn net(self) -> IpNet {
        match self.0 >> 32 == 1 {
            true => Ipv4Net::from(Ipv4Addr::from_bits(self.0 as u32)).into(),
            false => {
                let high = match self.0 {
                    1 => 0,
                    high => high,
                };
                let address = Ipv6Addr::from_bits(u128::from(high) << 64);
                Ipv6Net::new_assert(address, 64).into()
            }
        }
    }

    /// The first address.
    pub fn ip(self) -> IpAddr {
        self.net().addr()
    }

    /// As a number that is never 0.
    pub(crate) fn number(self) -> u64 {
        self.0
    }

    /// The source with this number; `None` for 0.
    pub(crate) fn of_number(number: u64) -> Option<Self> {
        (number != 0).then_some(Self(number))
    }
}

impl fmt::Display for Prefix {
    /// An IPv4 address without a length, an IPv6 network with `/64`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.net() {
            IpNet::V4(net) => net.addr().fmt(f),
            IpNet::V6(net) => net.fmt(f),
        }
    }
}
