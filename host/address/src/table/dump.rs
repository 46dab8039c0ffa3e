//! Dumps of the rows.

use std::net::IpAddr;

use super::Table;
use super::rows::Stored;

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
    /// Column `ip_addr`, including host bits.
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

impl Table {
    /// Returns the rows about one address, in the order of Kamailio's `permissions.addressDump`: by hash bucket, and within a bucket in
    /// reverse order of the load.
    ///
    /// Sorts the rows, which takes time and memory: not for the path of a message.
    pub fn hosts(&self) -> impl ExactSizeIterator<Item = HostRow<'_>> {
        let ip = |row: &Stored| row.network(&self.v4, &self.v6).0;
        let rows = &self.rows.hosts;
        let order = by_bucket(rows.iter().map(|row| bucket(&hashed(ip(row)))));
        order.into_iter().map(move |(bucket, number)| {
            let row = &rows[number as usize];
            let rule = self.sets.rule(row.rule);
            HostRow {
                bucket,
                group: rule.group,
                ip: ip(row),
                port: rule.port,
                tag: self.tag(rule),
            }
        })
    }

    /// Returns the rows about networks, in the order of `permissions.subnetDump`: by group, and within a group in the order of the load.
    pub fn subnets(&self) -> impl ExactSizeIterator<Item = SubnetRow<'_>> {
        self.rows.subnets.iter().enumerate().map(|(number, row)| {
            let (first, mask) = row.network(&self.v4, &self.v6);
            let rule = self.sets.rule(row.rule);
            SubnetRow {
                group: rule.group,
                ip: self.rows.with_host_bits(number as u32).unwrap_or(first),
                mask,
                port: rule.port,
                tag: self.tag(rule),
            }
        })
    }

    /// Returns the rows about names, in the order of `permissions.domainDump`: by hash bucket, and within a bucket in reverse order of the
    /// load.
    ///
    /// Sorts the rows, which takes time and memory: not for the path of a message.
    pub fn domains(&self) -> impl ExactSizeIterator<Item = DomainRow<'_>> {
        let rows = &self.rows.domains;
        let name = |number: u32| self.names.texts.text(number);
        let order = by_bucket(rows.iter().map(|&(text, _)| bucket(name(text).as_bytes())));
        order.into_iter().map(move |(bucket, number)| {
            let (text, rule) = rows[number as usize];
            let rule = self.sets.rule(rule);
            DomainRow {
                bucket,
                group: rule.group,
                name: name(text),
                port: rule.port,
                tag: self.tag(rule),
            }
        })
    }
}

/// Returns the numbers of rows with these buckets in the order of a dump. The rows themselves are created one by one, because many dumps
/// may be in progress.
fn by_bucket(buckets: impl ExactSizeIterator<Item = u8>) -> Vec<(u8, u32)> {
    let mut order: Vec<_> = buckets.zip(0..).collect();
    order.sort_unstable();
    order
}

/// Returns the bytes of an address that Kamailio hashes: the first four, for IPv6 too.
fn hashed(ip: IpAddr) -> [u8; 4] {
    let bits = match ip {
        IpAddr::V4(ip) => ip.to_bits(),
        IpAddr::V6(ip) => (ip.to_bits() >> 96) as u32,
    };
    bits.to_be_bytes()
}

/// Returns the bucket of Kamailio's hash tables in which a row would be: `core_hash` over 128 buckets. It adds `char`s, which are signed on
/// the most common machines.
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

    /// The buckets of names with a high byte are those that Kamailio 5.6.3 dumps, the others follow its formula.
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
