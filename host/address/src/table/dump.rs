//! The rows themselves, kept for dumps, and the dumps.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Table;
use super::address::Address;
use super::slots::{Placed, Slots};
use crate::turns::InTurns;

/// A row about one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostRow<'t> {
    /// The bucket of Kamailio's hash table in which the row would be: `table` in a dump.
    pub bucket: u8,
    /// Column `grp`.
    pub group: u32,
    /// Column `ip_addr`.
    pub ip: IpAddr,
    /// Column `port`.
    pub port: u16,
    /// Column `tag`.
    pub tag: Option<&'t str>,
}

/// A row about a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubnetRow<'t> {
    /// Column `grp`.
    pub group: u32,
    /// Column `ip_addr`, host bits and all.
    pub ip: IpAddr,
    /// Column `mask`.
    pub mask: u8,
    /// Column `port`.
    pub port: u16,
    /// Column `tag`.
    pub tag: Option<&'t str>,
}

/// A row about a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DomainRow<'t> {
    /// The bucket of Kamailio's hash table in which the row would be: `table` in a dump.
    pub bucket: u8,
    /// Column `grp`.
    pub group: u32,
    /// Column `ip_addr`.
    pub name: &'t str,
    /// Column `port`.
    pub port: u16,
    /// Column `tag`.
    pub tag: Option<&'t str>,
}

/// All rows of a table, each kind in the order in which Kamailio tries it.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// The last loaded first.
    pub(super) hosts: Vec<Stored>,
    /// By group, then as loaded.
    pub(super) subnets: Vec<Stored>,
    /// Number of the name's text, and of the rule; the last loaded first.
    pub(super) domains: Vec<(u32, u32)>,
    /// Which of the `subnets` were written with host bits, which the slot does not have, and how.
    host_bits: Vec<(u32, IpAddr)>,
}

/// A row about a host or network.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored {
    /// Number of the slot, with [`V6`] if it is one of IPv6.
    slot: u32,
    rule: u32,
}

/// Marks a slot of IPv6.
const V6: u32 = 1 << 31;

pub(super) fn hosts(table: &Table) -> impl ExactSizeIterator<Item = HostRow<'_>> {
    let ip = |row: &Stored| row.network(&table.v4, &table.v6).0;
    let rows = &table.rows.hosts;
    let order = by_bucket(rows.iter().map(|row| bucket(&hashed(ip(row)))));
    order.into_iter().map(move |(bucket, number)| {
        let row = &rows[number as usize];
        let rule = table.sets.rule(row.rule);
        HostRow {
            bucket,
            group: rule.group,
            ip: ip(row),
            port: rule.port,
            tag: table.tag(rule),
        }
    })
}

pub(super) fn subnets(table: &Table) -> impl ExactSizeIterator<Item = SubnetRow<'_>> {
    table.rows.subnets.iter().enumerate().map(|(number, row)| {
        let (first, mask) = row.network(&table.v4, &table.v6);
        let rule = table.sets.rule(row.rule);
        SubnetRow {
            group: rule.group,
            ip: table.rows.with_host_bits(number as u32).unwrap_or(first),
            mask,
            port: rule.port,
            tag: table.tag(rule),
        }
    })
}

pub(super) fn domains(table: &Table) -> impl ExactSizeIterator<Item = DomainRow<'_>> {
    let rows = &table.rows.domains;
    let name = |number: u32| table.names.texts.text(number);
    let order = by_bucket(rows.iter().map(|&(text, _)| bucket(name(text).as_bytes())));
    order.into_iter().map(move |(bucket, number)| {
        let (text, rule) = rows[number as usize];
        let rule = table.sets.rule(rule);
        DomainRow {
            bucket,
            group: rule.group,
            name: name(text),
            port: rule.port,
            tag: table.tag(rule),
        }
    })
}

/// The numbers of rows with these buckets in the order of a dump: by bucket, then as they are. The rows themselves are made one by
/// one, because many dumps may be under way.
fn by_bucket(buckets: impl ExactSizeIterator<Item = u8>) -> Vec<(u8, u32)> {
    let mut order: Vec<_> = buckets.zip(0..).collect();
    order.sort_unstable();
    order
}

impl Rows {
    /// Rows about hosts and networks, in order.
    pub(super) fn new(hosts: Vec<Stored>, subnets: Vec<Stored>) -> Self {
        Self {
            hosts,
            subnets,
            ..Self::default()
        }
    }

    /// Notes the slot of a row.
    pub(super) fn place<A: Address>(&mut self, row: &Placed<A>, slot: u32) {
        let rows = match row.is_host() {
            true => &mut self.hosts,
            false => &mut self.subnets,
        };
        let family = if A::WIDTH == u128::WIDTH { V6 } else { 0 };
        rows[row.rank() as usize].slot = slot | family;
    }

    /// Notes which networks were written with host bits, given as they were written.
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

    fn with_host_bits(&self, number: u32) -> Option<IpAddr> {
        let found = self
            .host_bits
            .binary_search_by_key(&number, |&(number, _)| number);
        found.ok().map(|at| self.host_bits[at].1)
    }
}

impl Stored {
    /// A row whose slot is not known yet.
    pub(super) fn new(rule: u32) -> Self {
        Self { slot: 0, rule }
    }

    fn network(self, v4: &Slots<u32>, v6: &Slots<u128>) -> (IpAddr, u8) {
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

/// What Kamailio hashes of an address: the first four bytes, of IPv6 too.
fn hashed(ip: IpAddr) -> [u8; 4] {
    let bits = match ip {
        IpAddr::V4(ip) => ip.to_bits(),
        IpAddr::V6(ip) => (ip.to_bits() >> 96) as u32,
    };
    bits.to_be_bytes()
}

/// The bucket of Kamailio's hash tables in which a row would be: `core_hash` over 128 buckets. It adds up `char`s, which have a sign
/// on the machines that it mostly runs on.
pub(crate) fn bucket(bytes: &[u8]) -> u8 {
    let mut words = bytes.chunks_exact(4);
    let mut hash = 0u32;
    let mut add = |bytes: &[u8]| {
        let word = bytes.iter().fold(0u32, |word, &byte| {
            (word << 8).wrapping_add_signed(i32::from(byte.cast_signed()))
        });
        hash = hash.wrapping_add(word ^ (word >> 3));
    };
    for word in &mut words {
        add(word);
    }
    add(words.remainder());
    let hash = hash
        .wrapping_add(hash >> 11)
        .wrapping_add(hash >> 13)
        .wrapping_add(hash >> 23);
    (hash % 128) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Those with a high byte as Kamailio 5.6.3 dumps them, the others by its formula.
    #[test]
    fn buckets_are_those_of_kamailio() {
        for (ip, expected) in [
            ([127, 0, 0, 1], 98),
            ([10, 0, 0, 10], 33),
            ([192, 168, 1, 1], 121),
            ([8, 8, 8, 8], 4),
            ([203, 0, 113, 7], 93),
            ([10, 8, 203, 139], 15),
            ([128, 0, 0, 1], 33),
            ([255, 255, 255, 255], 15),
            ([0x20, 0x01, 0x0d, 0xb8], 37),
            ([0xfe, 0x80, 0, 0], 68),
        ] {
            assert_eq!(bucket(&ip), expected, "{ip:?}");
        }
        assert_eq!(bucket(b"sipdomain.com"), 53);
        assert_eq!(bucket("bücher.example".as_bytes()), 36);
    }
}
