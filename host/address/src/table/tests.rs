use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::model::{Model, ModelRow};
use super::*;
use crate::row::Row;

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// For any rows, source, group and port, the table gives the result of the lists.
    #[test]
    fn results_are_those_of_the_model(
        rows in proptest::collection::vec(model_row(5), 0..60),
        sources in proptest::collection::vec(ip(), 1..40),
    ) {
        compare(&rows, &sources)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Many groups and ports on few networks: long blocks.
    #[test]
    fn results_are_those_of_the_model_where_many_rows_share_a_network(
        rows in proptest::collection::vec(crowded_row(), 100..400),
        sources in proptest::collection::vec(crowded_ip(), 1..20),
    ) {
        compare(&rows, &sources)?;
    }
}

#[test]
fn the_last_of_equal_hosts_and_the_first_of_equal_networks_are_used() {
    let table = table(&[
        (1, "10.0.0.1", 32, 0, Some("first")),
        (1, "10.0.0.1", 0, 0, Some("last")),
        (1, "10.0.1.0", 24, 0, Some("first")),
        (1, "10.0.1.9", 24, 0, Some("last")),
    ]);
    assert_eq!(tag(&table, "10.0.0.1", 1, 5060), Some("last"));
    assert_eq!(tag(&table, "10.0.1.1", 1, 5060), Some("first"));
}

#[test]
fn a_host_precedes_the_networks_around_it_even_if_its_group_is_higher() {
    let table = table(&[
        (1, "10.0.0.0", 8, 0, Some("network")),
        (9, "10.0.0.1", 32, 5060, Some("host")),
    ]);
    let source = table.lookup(ip_of("10.0.0.1"));
    assert_eq!(
        source.first(5060),
        Some(Match {
            group: 9,
            tag: Some("host")
        })
    );
    assert_eq!(
        source.first(5061),
        Some(Match {
            group: 1,
            tag: Some("network")
        })
    );
    assert_eq!(
        source.find(1, 5060),
        Some(Match {
            group: 1,
            tag: Some("network")
        })
    );
}

#[test]
fn port_0_is_any_port_in_a_row_and_no_port_in_a_request() {
    let table = table(&[
        (1, "10.0.0.1", 32, 5060, None),
        (2, "10.0.0.1", 32, 0, None),
    ]);
    let source = table.lookup(ip_of("10.0.0.1"));
    assert!(source.find(1, 5060).is_some());
    assert!(source.find(1, 0).is_none());
    assert!(source.find(2, 0).is_some());
    assert!(source.find(2, 65535).is_some());
}

#[test]
fn null_and_empty_tags_differ() {
    let table = table(&[
        (1, "10.0.0.1", 32, 0, None),
        (2, "10.0.0.1", 32, 0, Some("")),
    ]);
    assert_eq!(tag(&table, "10.0.0.1", 1, 1), None);
    assert_eq!(tag(&table, "10.0.0.1", 2, 1), Some(""));
}

#[test]
fn the_ends_of_the_address_space_belong_to_their_networks() {
    let table = table(&[
        (1, "0.0.0.0", 1, 0, Some("low")),
        (1, "128.0.0.0", 1, 0, Some("high")),
        (1, "255.255.255.255", 32, 0, Some("last")),
        (1, "::", 1, 0, Some("low6")),
        (1, "8000::", 1, 0, Some("high6")),
        (
            1,
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            128,
            0,
            Some("last6"),
        ),
    ]);
    for (source, expected) in [
        ("0.0.0.0", "low"),
        ("127.255.255.255", "low"),
        ("128.0.0.0", "high"),
        ("255.255.255.254", "high"),
        ("255.255.255.255", "last"),
        ("::", "low6"),
        ("7fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "low6"),
        ("8000::", "high6"),
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "last6"),
    ] {
        assert_eq!(tag(&table, source, 1, 1), Some(expected), "{source}");
    }
}

#[test]
fn a_mapped_source_is_its_ipv4_address() {
    let table = table(&[
        (1, "192.0.2.0", 24, 0, Some("v4")),
        (1, "::", 8, 0, Some("v6")),
    ]);
    assert_eq!(tag(&table, "::ffff:192.0.2.1", 1, 1), Some("v4"));
    assert_eq!(
        tag(&table, "::ffff:192.0.3.1", 1, 1),
        None,
        "not a source in ::/8, but an unknown IPv4 source"
    );
    assert_eq!(tag(&table, "::192.0.2.1", 1, 1), Some("v6"));
}

#[test]
fn an_empty_table_matches_no_source() {
    let table = Table::default();
    for source in ["0.0.0.0", "255.255.255.255", "::", "ffff::"] {
        assert!(table.lookup(ip_of(source)).is_empty());
        assert!(table.lookup(ip_of(source)).first(5060).is_none());
    }
    assert!(table.lookup_name("").is_empty());
    assert_eq!(table.len(), 0);
    assert!(
        TableBuilder::default()
            .build()
            .lookup(ip_of("10.0.0.1"))
            .is_empty()
    );
}

#[test]
fn names_are_compared_as_text_and_never_match_a_source() {
    let mut builder = TableBuilder::default();
    for (id, group, name, port, tag) in [
        (1, 1, "sip.example.com", 0, Some("first")),
        (2, 1, "sip.example.com", 5060, Some("last")),
        (3, 2, "sip.example.com", 5061, None),
    ] {
        let row = Row {
            id,
            group,
            ip_addr: name,
            mask: 77,
            port,
            tag,
        };
        assert!(
            builder
                .push(row)
                .unwrap()
                .unwrap()
                .to_string()
                .starts_with(&format!("row {id}: ip_addr"))
        );
    }
    let table = builder.build();
    let name = table.lookup_name("sip.example.com");
    assert_eq!(name.find(1, 5060).unwrap().tag, Some("last"));
    assert_eq!(name.find(1, 5062).unwrap().tag, Some("first"));
    assert_eq!(
        name.first(5061),
        Some(Match {
            group: 2,
            tag: None
        })
    );
    assert!(name.find(3, 5060).is_none());
    for other in ["SIP.example.com", "sip.example.com.", "sip.example.co", ""] {
        assert!(table.lookup_name(other).is_empty(), "{other}");
    }
    assert!(table.lookup(ip_of("0.0.0.0")).is_empty());
}

#[test]
fn a_name_may_have_thousands_of_rows() {
    let mut builder = TableBuilder::default();
    for port in 1..=5000 {
        let row = Row {
            id: port,
            group: 1 + port % 7,
            ip_addr: "a.example",
            mask: 32,
            port,
            tag: None,
        };
        builder.push(row).unwrap();
    }
    let table = builder.build();
    let name = table.lookup_name("a.example");
    assert_eq!(
        name.first(5000),
        Some(Match {
            group: 1 + 5000 % 7,
            tag: None
        })
    );
    assert!(name.find(1, 7).is_some());
    assert!(name.find(2, 7).is_none());
    assert_eq!(name.iter().count(), 5000);
}

/// If every network had a list of all rules that apply in it, this would take 10,000 × 100,000 entries.
#[test]
fn memory_is_proportional_to_the_rows() {
    let mut builder = TableBuilder::default();
    let mut id = 0;
    let mut push = |group: i64, ip_addr: &str, mask: i64, port: i64, tag: &str| {
        id += 1;
        builder
            .push(Row {
                id,
                group,
                ip_addr,
                mask,
                port,
                tag: Some(tag),
            })
            .unwrap();
    };
    for group in 1..=10_000 {
        push(group, "10.0.0.0", 8, group % 3, "outer");
    }
    for n in 0..100_000 {
        push(
            20_000 + n,
            &format!("10.{}.{}.{}", n / 6400, n / 25 % 256, n % 25 * 8),
            29,
            0,
            "inner",
        );
    }
    let table = builder.build();
    let source = table.lookup(ip_of("10.1.2.9"));
    assert_eq!(source.find(1, 1).unwrap().tag, Some("outer"));
    assert_eq!(source.find(10_000, 1).unwrap().tag, Some("outer"));
    assert!(source.find(10_001, 1).is_none());
    assert_eq!(
        source.find(20_000 + 6400 + 2 * 25 + 1, 1).unwrap().tag,
        Some("inner")
    );
    assert_eq!(source.first(1).unwrap().group, 1);
    assert_eq!(source.first(2).unwrap().group, 2);
    assert_eq!(source.first(9).unwrap().group, 3);
    let per_row = table.memory_bytes() / table.len();
    assert!(per_row < 100, "{per_row} bytes a row");
}

#[test]
fn a_network_of_every_length_around_one_address() {
    let mut rows: Vec<_> = (1..=32)
        .map(|mask| (mask, "10.20.30.40", mask, 0, Some("x")))
        .collect();
    rows.extend((1..=128).map(|mask| (mask, "2001:db8::1", mask, 0, Some("x"))));
    let table = table(&rows);
    for (source, masks) in [("10.20.30.40", 32), ("2001:db8::1", 128)] {
        let entries = table.lookup(ip_of(source));
        assert!(
            (1..=masks).all(|group| entries.find(group, 9).is_some()),
            "{source}"
        );
        assert_eq!(
            entries.first(9).unwrap().group,
            if masks == 32 { 32 } else { 128 },
            "the host goes first"
        );
        assert_eq!(entries.iter().count(), masks as usize);
    }
    let beside = table.lookup(ip_of("10.20.30.41"));
    assert!((1..=31).all(|group| beside.find(group, 9).is_some()));
    assert!(beside.find(32, 9).is_none());
    assert_eq!(beside.first(9).unwrap().group, 1);
}

#[test]
fn dumps_are_in_the_order_of_kamailio() {
    let table = table(&[
        (2, "10.0.1.7", 24, 5060, Some("b")),
        (1, "2001:db8::1", 48, 0, None),
        (2, "10.0.2.0", 24, 0, Some("a")),
        (7, "10.0.0.1", 32, 0, Some("old")),
        (8, "127.0.0.1", 32, 0, None),
        (9, "10.0.0.1", 32, 1, Some("")),
    ]);
    let subnets: Vec<_> = table
        .subnets()
        .map(|row| (row.group, row.ip.to_string(), row.mask, row.port, row.tag))
        .collect();
    assert_eq!(
        subnets,
        [
            (1, "2001:db8::1".to_owned(), 48, 0, None),
            (2, "10.0.1.7".to_owned(), 24, 5060, Some("b")),
            (2, "10.0.2.0".to_owned(), 24, 0, Some("a")),
        ]
    );
    let hosts: Vec<_> = table
        .hosts()
        .map(|row| (row.bucket, row.group, row.ip.to_string(), row.port, row.tag))
        .collect();
    assert_eq!(
        hosts,
        [
            (23, 9, "10.0.0.1".to_owned(), 1, Some("")),
            (23, 7, "10.0.0.1".to_owned(), 0, Some("old")),
            (98, 8, "127.0.0.1".to_owned(), 0, None),
        ]
    );
    assert_eq!(
        (
            table.host_count(),
            table.subnet_count(),
            table.domain_count()
        ),
        (3, 3, 0)
    );
}

type Plain<'a> = (i64, &'a str, i64, i64, Option<&'a str>);

fn table(rows: &[Plain<'_>]) -> Table {
    let mut builder = TableBuilder::default();
    for (id, &(group, ip_addr, mask, port, tag)) in (1..).zip(rows) {
        builder
            .push(Row {
                id,
                group,
                ip_addr,
                mask,
                port,
                tag,
            })
            .unwrap();
    }
    builder.build()
}

fn tag<'t>(table: &'t Table, source: &str, group: u32, port: u16) -> Option<&'t str> {
    table
        .lookup(ip_of(source))
        .find(group, port)
        .and_then(|found| found.tag)
}

fn ip_of(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn compare(rows: &[ModelRow], sources: &[IpAddr]) -> Result<(), TestCaseError> {
    let mut builder = TableBuilder::default();
    for (id, row) in (1..).zip(rows) {
        let row = Row {
            id,
            group: row.group.into(),
            ip_addr: &row.ip.to_string(),
            mask: row.mask.into(),
            port: row.port.into(),
            tag: row.tag.as_deref(),
        };
        builder.push(row).unwrap();
    }
    let table = builder.build();
    let model = Model::load(rows);
    let edges = rows.iter().flat_map(|row| [row.ip, beside(row.ip)]);
    let sources: BTreeSet<IpAddr> = sources.iter().copied().chain(edges).collect();
    for source in sources {
        let entries = table.lookup(source);
        for port in [0, 5060, 5061, 40000] {
            let first = entries.first(port).map(|found| (found.group, found.tag));
            prop_assert_eq!(
                first,
                model.first(source, port),
                "first({}, {})",
                source,
                port
            );
            let listed = entries
                .iter()
                .find(|entry| entry.port == 0 || entry.port == port);
            prop_assert_eq!(
                listed.map(|entry| (entry.group, entry.tag)),
                first,
                "iter of {}",
                source
            );
            for group in rows.iter().map(|row| row.group).collect::<BTreeSet<_>>() {
                let found = entries
                    .find(group, port)
                    .map(|found| (found.group, found.tag));
                prop_assert_eq!(
                    found,
                    model.find(group, source, port),
                    "find({}, {}, {})",
                    group,
                    source,
                    port
                );
            }
        }
    }
    Ok(())
}

fn beside(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits() ^ 1).into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() ^ 1).into(),
    }
}

fn model_row(groups: u32) -> impl Strategy<Value = ModelRow> {
    let port = prop_oneof![3 => Just(0), 1 => Just(5060), 1 => Just(5061), 1 => Just(40000)];
    let tag = proptest::option::of("[ab]?");
    (1..=groups, ip(), 0u8..=128, port, tag).prop_map(|(group, ip, mask, port, tag)| ModelRow {
        group,
        ip,
        mask: if ip.is_ipv4() { mask % 33 } else { mask },
        port,
        tag,
    })
}

/// Few addresses, close together and at the ends of the address space, so that networks nest and repeat.
fn ip() -> impl Strategy<Value = IpAddr> {
    let v4 = prop_oneof![
        (0u32..16).prop_map(|low| 0x0a00_0000 | low),
        (0u32..16, 0u32..32).prop_map(|(bits, shift)| bits << shift),
        (0u32..4).prop_map(|low| u32::MAX - low),
        any::<u32>(),
    ];
    let v6 = prop_oneof![
        (0u128..16).prop_map(|low| 0x2001_0db8 << 96 | low),
        (0u128..16, 0u32..128).prop_map(|(bits, shift)| bits << shift),
        (0u128..4).prop_map(|low| u128::MAX - low),
        any::<u128>(),
    ];
    prop_oneof![
        v4.prop_map(|bits| Ipv4Addr::from_bits(bits).into()),
        // Mapped addresses are IPv4 rows, which the tests of rows cover.
        v6.prop_map(Ipv6Addr::from_bits)
            .prop_filter("mapped", |ip| ip.to_ipv4_mapped().is_none())
            .prop_map(IpAddr::V6),
    ]
}

fn crowded_row() -> impl Strategy<Value = ModelRow> {
    let port = prop_oneof![1 => Just(0), 4 => 5060u16..5064, 1 => Just(40000)];
    let mask = prop_oneof![Just(28u8), Just(30), Just(31), Just(32), Just(8)];
    (
        1u32..60,
        crowded_ip(),
        mask,
        port,
        proptest::option::of("[ab]"),
    )
        .prop_map(|(group, ip, mask, port, tag)| ModelRow {
            group,
            ip,
            mask,
            port,
            tag,
        })
}

fn crowded_ip() -> impl Strategy<Value = IpAddr> {
    (0u32..8).prop_map(|low| Ipv4Addr::from_bits(0x0a00_0000 | low).into())
}
