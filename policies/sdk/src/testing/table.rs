//! The address table with Kamailio's rules, in the simplest implementation.

use std::net::IpAddr;

/// The rows in the order of loading.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    rows: Vec<Row>,
}

#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) group: u32,
    pub(super) tag: Option<String>,
    port: u16,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Host(IpAddr),
    Subnet(IpAddr, u32),
    Name(String),
}

/// The subject of a query.
pub(super) enum Query<'a> {
    Ip(IpAddr),
    Name(&'a str),
}

impl Table {
    /// Adds a row, or returns what is wrong with it.
    pub(super) fn push(&mut self, group: u32, address: &str, port: u16) -> Result<(), String> {
        if group == 0 {
            return Err(format!(
                "address {address:?} is in group 0, but groups start at 1"
            ));
        }
        let what = What::parse(address)?;
        self.rows.push(Row {
            group,
            tag: None,
            port,
            what,
        });
        Ok(())
    }

    /// False if there is no row.
    pub(super) fn tag_last(&mut self, tag: &str) -> bool {
        let Some(row) = self.rows.last_mut() else {
            return false;
        };
        row.tag = Some(tag.to_owned());
        true
    }

    /// The row that Kamailio would choose: of single addresses (and names) the one loaded last; if there is none, of subnets the one with
    /// the lowest group, and among these the one loaded first.
    pub(super) fn find(&self, group: Option<u32>, query: &Query<'_>, port: u16) -> Option<&Row> {
        let fitting = self
            .rows
            .iter()
            .filter(|row| group.is_none_or(|group| row.group == group))
            .filter(|row| row.port == 0 || row.port == port);

        fitting
            .clone()
            .rfind(|row| row.what.is_exactly(query))
            .or_else(|| {
                fitting
                    .filter(|row| row.what.contains(query))
                    .min_by_key(|row| row.group)
            })
    }
}

impl What {
    fn parse(address: &str) -> Result<Self, String> {
        let Some((network, mask)) = address.split_once('/') else {
            let host = address
                .parse()
                .map(|host: IpAddr| Self::Host(host.to_canonical()));
            return Ok(host.unwrap_or_else(|_| Self::Name(address.to_owned())));
        };

        let network: IpAddr = network.parse().map_err(|_| {
            format!("subnet {address:?} does not start with an IPv4 or IPv6 address")
        })?;
        let bits = if network.is_ipv4() { 32 } else { 128 };
        match mask.parse() {
            Ok(0) => Err(format!(
                "subnet {address:?}: mask 0 stands for a single address, so the table cannot hold this"
            )),
            Ok(mask) if mask == bits => Ok(Self::Host(network.to_canonical())),
            Ok(mask) if mask < bits => Ok(Self::Subnet(network, mask)),
            _ => Err(format!(
                "subnet {address:?}: the mask is a number from 1 to {bits}"
            )),
        }
    }

    fn is_exactly(&self, query: &Query<'_>) -> bool {
        match (self, query) {
            (Self::Host(host), Query::Ip(ip)) => host == ip,
            (Self::Name(name), Query::Name(text)) => name == text,
            _ => false,
        }
    }

    fn contains(&self, query: &Query<'_>) -> bool {
        match (self, query) {
            (Self::Subnet(IpAddr::V4(network), mask), Query::Ip(IpAddr::V4(ip))) => {
                (network.to_bits() ^ ip.to_bits()).leading_zeros() >= *mask
            }
            (Self::Subnet(IpAddr::V6(network), mask), Query::Ip(IpAddr::V6(ip))) => {
                (network.to_bits() ^ ip.to_bits()).leading_zeros() >= *mask
            }
            _ => false,
        }
    }
}

impl<'a> Query<'a> {
    /// An address, with or without the brackets of IPv6 and leading zeros of IPv4, or otherwise a name.
    pub(super) fn parse(text: &'a str) -> Self {
        let bare = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        let address = match bare {
            Some(bare) => bare.parse().ok().map(IpAddr::V6),
            None => text.parse().ok().or_else(|| padded(text)),
        };
        address.map_or(Self::Name(text), |address: IpAddr| {
            Self::Ip(address.to_canonical())
        })
    }
}

/// An IPv4 address with leading zeros, which are ignored.
fn padded(text: &str) -> Option<IpAddr> {
    let octets: Vec<u8> = text
        .split('.')
        .map(|octet| {
            let is_octet =
                (1..=3).contains(&octet.len()) && octet.bytes().all(|b| b.is_ascii_digit());
            is_octet.then(|| octet.parse().ok())?
        })
        .collect::<Option<_>>()?;
    <[u8; 4]>::try_from(octets).ok().map(IpAddr::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leading_zeros_are_ignored() {
        let ip = |text| match Query::parse(text) {
            Query::Ip(ip) => Some(ip.to_string()),
            Query::Name(_) => None,
        };
        assert_eq!(ip("010.001.000.099").as_deref(), Some("10.1.0.99"));
        assert_eq!(ip("0010.1.0.99"), None);
        assert_eq!(ip("10..0.99"), None);
    }

    fn table(rows: &[(u32, &str, u16, &str)]) -> Table {
        let mut table = Table::default();
        for (group, address, port, tag) in rows {
            table.push(*group, address, *port).expect("a row");
            table.tag_last(tag);
        }
        table
    }

    fn found<'t>(
        table: &'t Table,
        group: impl Into<Option<u32>>,
        ip: &str,
        port: u16,
    ) -> Option<(u32, &'t str)> {
        let query = Query::Ip(ip.parse().expect("an address"));
        table
            .find(group.into(), &query, port)
            .map(|row| (row.group, row.tag.as_deref().unwrap_or_default()))
    }

    #[test]
    fn hosts_come_before_subnets() {
        let table = table(&[(1, "192.0.2.0/24", 0, "net"), (9, "192.0.2.5", 0, "host")]);

        assert_eq!(found(&table, None, "192.0.2.5", 5060), Some((9, "host")));
        assert_eq!(found(&table, None, "192.0.2.6", 5060), Some((1, "net")));
        assert_eq!(found(&table, 1, "192.0.2.5", 5060), Some((1, "net")));
    }

    #[test]
    fn port_zero_of_a_row_is_any_port() {
        let table = table(&[(1, "192.0.2.1", 0, ""), (2, "192.0.2.2", 5060, "")]);

        assert!(found(&table, 1, "192.0.2.1", 40000).is_some());
        assert!(found(&table, 2, "192.0.2.2", 5060).is_some());
        assert!(found(&table, 2, "192.0.2.2", 5061).is_none());
        assert!(
            found(&table, 2, "192.0.2.2", 0).is_none(),
            "port 0 of a query is an ordinary port"
        );
    }

    #[test]
    fn a_host_with_another_port_does_not_hide_the_subnet() {
        let table = table(&[
            (1, "192.0.2.1", 5060, "host"),
            (1, "192.0.2.0/24", 0, "net"),
        ]);

        assert_eq!(found(&table, 1, "192.0.2.1", 5070), Some((1, "net")));
    }

    #[test]
    fn of_duplicates_the_last_host_and_the_first_subnet_are_used() {
        let table = table(&[
            (3, "192.0.2.1", 0, "old"),
            (2, "192.0.2.1", 0, "new"),
            (8, "198.51.100.0/24", 0, "high"),
            (7, "198.51.100.0/24", 0, "first"),
            (7, "198.51.0.0/16", 0, "second"),
        ]);

        assert_eq!(found(&table, None, "192.0.2.1", 1), Some((2, "new")));
        assert_eq!(found(&table, None, "198.51.100.1", 1), Some((7, "first")));
    }

    #[test]
    fn host_bits_of_a_subnet_do_not_matter() {
        let table = table(&[(1, "192.0.2.77/24", 0, ""), (1, "2001:db8::77/32", 0, "")]);

        assert!(found(&table, 1, "192.0.2.1", 1).is_some());
        assert!(found(&table, 1, "192.0.3.1", 1).is_none());
        assert!(found(&table, 1, "2001:db8:ffff::1", 1).is_some());
        assert!(found(&table, 1, "2001:db9::1", 1).is_none());
    }

    #[test]
    fn a_full_mask_is_a_host() {
        let table = table(&[
            (5, "192.0.2.1/32", 0, "host"),
            (1, "192.0.2.0/24", 0, "net"),
        ]);

        assert_eq!(found(&table, None, "192.0.2.1", 1), Some((5, "host")));
    }

    #[test]
    fn rows_that_the_table_cannot_contain() {
        let refused = |group, address| {
            Table::default()
                .push(group, address, 0)
                .expect_err("not a row")
        };

        assert!(refused(0, "192.0.2.1").contains("groups start at 1"));
        assert!(refused(1, "0.0.0.0/0").contains("mask 0 stands for a single address"));
        assert!(refused(1, "192.0.2.0/33").contains("from 1 to 32"));
        assert!(refused(1, "2001:db8::/129").contains("from 1 to 128"));
        assert!(refused(1, "192.0.2.0/x").contains("from 1 to 32"));
        assert!(refused(1, "example.com/24").contains("does not start with"));
    }
}
