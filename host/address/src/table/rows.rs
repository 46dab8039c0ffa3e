//! The rows, kept for dumps.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::address::Address;
use super::slots::{Placed, Slots};
use crate::turns::InTurns;

/// All rows of a table, each kind in the order in which Kamailio tries it.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// In reverse order of the load.
    pub(super) hosts: Vec<Stored>,
    /// By group, then in the order of the load.
    pub(super) subnets: Vec<Stored>,
    /// Number of the text of the name, and of the rule; in reverse order of the load.
    pub(super) domains: Vec<(u32, u32)>,
    /// The `subnets` that were written with host bits, which slots do not have, and the addresses as written.
    host_bits: Vec<(u32, IpAddr)>,
}

/// A row about a host or network.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored {
    /// Number of the slot, with [`V6`] for an IPv6 slot.
    slot: u32,
    pub(super) rule: u32,
}

/// Marks an IPv6 slot.
const V6: u32 = 1 << 31;

impl Rows {
    /// Creates the rows about hosts and networks, in order.
    pub(super) fn new(hosts: Vec<Stored>, subnets: Vec<Stored>) -> Self {
        Self {
            hosts,
            subnets,
            ..Self::default()
        }
    }

    /// Stores the slot of a row.
    pub(super) fn place<A: Address>(&mut self, row: &Placed<A>, slot: u32) {
        let rows = match row.is_host() {
            true => &mut self.hosts,
            false => &mut self.subnets,
        };
        let family = if A::WIDTH == u128::WIDTH { V6 } else { 0 };
        rows[row.rank() as usize].slot = slot | family;
    }

    /// Stores which networks were written with host bits, given as they were written.
    pub(super) fn keep_host_bits(
        &mut self,
        written: impl Iterator<Item = IpAddr>,
        v4: &Slots<u32>,
        v6: &Slots<u128>,
    ) {
        let odd = (0..).zip(written).zip(&self.subnets).in_turns();
        let odd = odd.filter(|((_, ip), row)| row.network(v4, v6).0 != *ip);
        self.host_bits = odd.map(|(written, _)| written).collect();
        self.host_bits.shrink_to_fit();
    }

    pub(super) fn memory_bytes(&self) -> usize {
        (self.hosts.capacity() + self.subnets.capacity()) * size_of::<Stored>()
            + self.domains.capacity() * size_of::<(u32, u32)>()
            + self.host_bits.capacity() * size_of::<(u32, IpAddr)>()
    }

    pub(super) fn with_host_bits(&self, number: u32) -> Option<IpAddr> {
        let found = self
            .host_bits
            .binary_search_by_key(&number, |&(number, _)| number);
        found.ok().map(|at| self.host_bits[at].1)
    }
}

impl Stored {
    /// Creates a row whose slot is not known yet.
    pub(super) fn new(rule: u32) -> Self {
        Self { slot: 0, rule }
    }

    pub(super) fn network(self, v4: &Slots<u32>, v6: &Slots<u128>) -> (IpAddr, u8) {
        match self.slot & V6 {
            0 => {
                let (first, bits) = v4.network(self.slot);
                (Ipv4Addr::from_bits(first).into(), bits)
            }
            _ => {
                let (first, bits) = v6.network(self.slot & !V6);
                (Ipv6Addr::from_bits(first).into(), bits)
            }
        }
    }
}
