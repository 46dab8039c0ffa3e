//! The address table in the shapes of Kamailio's `permissions.addressDump`, `subnetDump` and `domainDump`: names, order and
//! spelling of absent tags are Kamailio's. `domainDump` is a list of structures, where Kamailio repeats the keys of one object.

use std::net::IpAddr;

use portcullis_address::{DomainRow, HostRow, SubnetRow, Table};
use serde::{Serialize, Serializer};

/// All rows about single addresses.
pub(super) struct Hosts<'t>(pub(super) &'t Table);

/// All rows about networks.
pub(super) struct Subnets<'t>(pub(super) &'t Table);

/// All rows about names.
pub(super) struct Domains<'t>(pub(super) &'t Table);

#[derive(Serialize)]
struct Host<'t> {
    table: u8,
    group: u32,
    item: HostItem<'t>,
}

#[derive(Serialize)]
struct HostItem<'t> {
    ip: IpAddr,
    port: u16,
    tag: &'t str,
}

#[derive(Serialize)]
struct Subnet<'t> {
    id: usize,
    group: u32,
    item: SubnetItem<'t>,
}

#[derive(Serialize)]
struct SubnetItem<'t> {
    ip: IpAddr,
    mask: u8,
    port: u16,
    tag: &'t str,
}

#[derive(Serialize)]
struct Domain<'t> {
    table: u8,
    group: u32,
    item: DomainItem<'t>,
}

#[derive(Serialize)]
struct DomainItem<'t> {
    domain_name: &'t str,
    port: u16,
    tag: &'t str,
}

impl Serialize for Hosts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.hosts().map(|row: HostRow<'_>| Host {
            table: row.bucket,
            group: row.group,
            item: HostItem {
                ip: row.ip,
                port: row.port,
                tag: tag_or_null(row.tag),
            },
        }))
    }
}

impl Serialize for Subnets<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.subnets().enumerate().map(
            |(id, row): (usize, SubnetRow<'_>)| Subnet {
                id,
                group: row.group,
                item: SubnetItem {
                    ip: row.ip,
                    mask: row.mask,
                    port: row.port,
                    tag: row.tag.unwrap_or_default(),
                },
            },
        ))
    }
}

impl Serialize for Domains<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.domains().map(|row: DomainRow<'_>| Domain {
            table: row.bucket,
            group: row.group,
            item: DomainItem {
                domain_name: row.name,
                port: row.port,
                tag: tag_or_null(row.tag),
            },
        }))
    }
}

/// Kamailio shows neither an absent nor an empty tag.
fn tag_or_null(tag: Option<&str>) -> &str {
    tag.filter(|tag| !tag.is_empty()).unwrap_or("NULL")
}

#[cfg(test)]
mod tests {
    use portcullis_address::{Row, TableBuilder};
    use serde_json::{json, to_value};

    use super::*;

    #[test]
    fn dumps_have_kamailios_shapes() {
        let mut builder = TableBuilder::default();
        let rows = [
            (200, "127.0.0.1", 32, 5060, Some("Test")),
            (250, "192.168.1.7", 24, 0, None),
            (1, "10.0.0.10", 32, 0, Some("")),
            (3, "sipdomain.com", 32, 5060, None),
        ];
        for (id, (group, ip_addr, mask, port, tag)) in (1..).zip(rows) {
            let row = Row {
                id,
                group,
                ip_addr,
                mask,
                port,
                tag,
            };
            builder.push(row).unwrap();
        }
        let table = builder.build();
        assert_eq!(
            to_value(Hosts(&table)).unwrap(),
            json!([
                {"table": 33, "group": 1, "item": {"ip": "10.0.0.10", "port": 0, "tag": "NULL"}},
                {"table": 98, "group": 200, "item": {"ip": "127.0.0.1", "port": 5060, "tag": "Test"}},
            ])
        );
        assert_eq!(
            to_value(Subnets(&table)).unwrap(),
            json!([{"id": 0, "group": 250, "item": {"ip": "192.168.1.7", "mask": 24, "port": 0, "tag": ""}}])
        );
        assert_eq!(
            to_value(Domains(&table)).unwrap(),
            json!([{"table": 53, "group": 3, "item": {"domain_name": "sipdomain.com", "port": 5060, "tag": "NULL"}}])
        );
        assert_eq!(to_value(Hosts(&Table::default())).unwrap(), json!([]));
    }
}
