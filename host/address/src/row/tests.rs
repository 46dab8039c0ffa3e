use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

#[test]
fn ipv4_rows() {
    assert_eq!(placed("10.8.203.139", 32), host4("10.8.203.139"));
    assert_eq!(placed("10.8.203.139", 0), host4("10.8.203.139"));
    assert_eq!(placed("192.168.1.0", 24), subnet4("192.168.1.0", 24));
    assert_eq!(placed("192.168.1.77", 1), subnet4("192.168.1.77", 1));
    assert_eq!(placed("192.168.1.77", 31), subnet4("192.168.1.77", 31));
    assert_eq!(placed("0.0.0.0", 32), host4("0.0.0.0"));
    assert_eq!(placed("255.255.255.255", 32), host4("255.255.255.255"));
}

#[test]
fn ipv6_rows() {
    assert_eq!(placed("2001:db8::1", 128), host6("2001:db8::1"));
    assert_eq!(placed("2001:db8::1", 0), host6("2001:db8::1"));
    assert_eq!(placed("[2001:db8::1]", 128), host6("2001:db8::1"));
    assert_eq!(placed("2001:DB8:0::", 48), subnet6("2001:db8::", 48));
    assert_eq!(placed("2001:db8::", 127), subnet6("2001:db8::", 127));
    assert_eq!(placed("2001:db8::", 32), subnet6("2001:db8::", 32));
    assert_eq!(placed("::1", 128), host6("::1"));
}

#[test]
fn queries_are_parsed_like_rows() {
    let ip = |text: &str| parse_ip(text).map(|ip| ip.to_string());
    for (text, read) in [
        ("192.0.2.1", "192.0.2.1"),
        ("010.001.000.099", "10.1.0.99"),
        ("2001:DB8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("64:ff9b::192.0.2.1", "64:ff9b::c000:201"),
    ] {
        assert_eq!(ip(text).as_deref(), Some(read), "{text}");
    }
    for text in [
        "",
        "gw.example.com",
        "192.0.2.1:5060",
        "[192.0.2.1]",
        "[2001:db8::1",
        "256.0.0.1",
        "1..2.3",
        "0010.0.0.1",
        "+1.2.3.4",
        "1.2.3",
        "1.2.3.4.5",
    ] {
        assert_eq!(ip(text), None, "{text}");
    }
}

#[test]
fn rows_that_are_used_with_a_warning() {
    for (ip_addr, mask, place, column, said) in [
        (
            "2001:db8::1",
            32,
            subnet6("2001:db8::1", 32),
            "mask",
            "write 128 or 0",
        ),
        (
            "10.001.002.003",
            32,
            host4("10.1.2.3"),
            "ip_addr",
            "write 10.1.2.3",
        ),
        (
            "010.0.0.0",
            8,
            subnet4("10.0.0.0", 8),
            "ip_addr",
            "write 10.0.0.0",
        ),
        (
            "::ffff:192.0.2.1",
            128,
            host4("192.0.2.1"),
            "ip_addr",
            "used as 192.0.2.1, mask 32",
        ),
        (
            "::ffff:192.0.2.1",
            0,
            host4("192.0.2.1"),
            "ip_addr",
            "used as 192.0.2.1, mask 32",
        ),
        (
            "[::ffff:c000:201]",
            120,
            subnet4("192.0.2.1", 24),
            "ip_addr",
            "used as 192.0.2.1, mask 24",
        ),
        (
            "::ffff:128.0.0.0",
            97,
            subnet4("128.0.0.0", 1),
            "ip_addr",
            "mask 1",
        ),
        (
            "64:ff9b::192.0.2.1",
            128,
            host6("64:ff9b::c000:201"),
            "ip_addr",
            "used as 64:ff9b::c000:201",
        ),
        (
            "64:ff9b::192.0.2.1",
            96,
            subnet6("64:ff9b::c000:201", 96),
            "ip_addr",
            "write it so",
        ),
        (
            "0.0.0.0",
            0,
            host4("0.0.0.0"),
            "mask",
            "two rows with mask 1",
        ),
        ("::", 0, host6("::"), "mask", "8000::"),
        (
            "sip.example.com",
            32,
            Place::Name("sip.example.com"),
            "ip_addr",
            "no DNS look-up",
        ),
        (
            "sip_1.example.com.",
            99,
            Place::Name("sip_1.example.com."),
            "ip_addr",
            "never matches a source",
        ),
        (
            "münchen.example",
            -1,
            Place::Name("münchen.example"),
            "ip_addr",
            "compared as text",
        ),
    ] {
        let (valid, warning) = row(ip_addr, mask).validate().unwrap();
        assert_eq!(valid.place, place, "{ip_addr}");
        let warning =
            warning.unwrap_or_else(|| panic!("{ip_addr} with mask {mask} has no warning"));
        assert_eq!((warning.id, warning.column), (17, column), "{ip_addr}");
        let line = warning.to_string();
        assert!(
            line.starts_with(&format!("row 17: {column} {}", warning.value)),
            "{line}"
        );
        assert!(line.contains(said) && !line.contains('\n'), "{line}");
    }
}

#[test]
fn invalid_addresses() {
    for (ip_addr, said) in [
        ("", "is empty"),
        ("10.0.0.0/24", "write ip_addr 10.0.0.0 and mask 24"),
        ("2001:db8::/32", "write ip_addr 2001:db8:: and mask 32"),
        ("[2001:db8::]/48", "write ip_addr 2001:db8:: and mask 48"),
        (
            "10.0.0.0/255.255.255.0",
            "the number of bits belongs in the column mask",
        ),
        (
            "10.0.0.0/33",
            "the number of bits belongs in the column mask",
        ),
        (
            "10.0.0.0/0",
            "the number of bits belongs in the column mask",
        ),
        ("sip.example.com/x", "has a slash"),
        ("300.1.1.1", "four numbers from 0 to 255"),
        ("1.2.3.256", "four numbers"),
        ("1.2.3", "four numbers"),
        ("1.2.3.4.5", "four numbers"),
        ("1..2.3", "four numbers"),
        ("1.2.3.4.", "four numbers"),
        ("1.2.3.0004", "four numbers"),
        ("99999999999999999999", "four numbers"),
        (".", "four numbers"),
        (" 10.0.0.1", "write \"10.0.0.1\""),
        ("10.0.0.1\n", "write \"10.0.0.1\""),
        ("10.0. 0.1", "has blanks"),
        ("10.0.0.1\0", "has blanks"),
        ("10.0.0.1:5060", "write ip_addr 10.0.0.1 and port 5060"),
        (
            "[2001:db8::1]:5060",
            "write ip_addr 2001:db8::1 and port 5060",
        ),
        ("[10.0.0.1]", "is not an IPv6 address"),
        ("[2001:db8::1", "is not an IPv6 address"),
        ("2001:db8::1]", "is not an IPv6 address"),
        ("sip:10.0.0.1", "is not an IPv6 address"),
        ("1:2:3:4:5:6:7:8:9", "is not an IPv6 address"),
        ("fe80::1%eth0", "has a zone"),
        ("*.example.com", "patterns are not supported"),
        ("10.0.0.*", "patterns are not supported"),
        ("10.0.0.1,10.0.0.2", "write one address"),
    ] {
        let error = row(ip_addr, 32).validate().unwrap_err();
        assert_eq!((error.id, error.column), (17, "ip_addr"), "{ip_addr:?}");
        let line = error.to_string();
        assert!(
            line.starts_with(&format!("row 17: ip_addr {ip_addr:?} ")),
            "{line}"
        );
        assert!(line.contains(said) && !line.contains('\n'), "{line}");
    }
}

#[test]
fn invalid_masks() {
    for (ip_addr, mask) in [
        ("10.0.0.0", 33),
        ("10.0.0.0", -1),
        ("10.0.0.0", 256),
        ("10.0.0.0", i64::MAX),
        ("10.0.0.0", i64::MIN),
        ("2001:db8::", 129),
        ("2001:db8::", -1),
        ("2001:db8::", 288),
        ("::ffff:10.0.0.0", 96),
    ] {
        let error = row(ip_addr, mask).validate().unwrap_err();
        assert_eq!(
            (error.column, error.value),
            ("mask", mask.to_string()),
            "{ip_addr}"
        );
    }
    for mask in [24, 32, 95, 129, -1] {
        let error = row("::ffff:10.0.0.0", mask).validate().unwrap_err();
        assert_eq!(error.column, "ip_addr");
        assert!(error.fault.contains(&format!("mask {mask}")), "{error}");
    }
}

#[test]
fn groups_and_ports_have_their_full_range() {
    for group in [1, 250, 2_147_483_648, 4_294_967_295] {
        let (valid, _) = Row {
            group,
            ..row("10.0.0.1", 32)
        }
        .validate()
        .unwrap();
        assert_eq!(i64::from(valid.group), group);
    }
    for group in [0, -1, 4_294_967_296, i64::MIN, i64::MAX] {
        let error = Row {
            group,
            ..row("10.0.0.1", 32)
        }
        .validate()
        .unwrap_err();
        assert_eq!((error.column, error.value), ("grp", group.to_string()));
    }
    for port in [0, 5060, 32_768, 40_000, 65_535] {
        let (valid, _) = Row {
            port,
            ..row("10.0.0.1", 32)
        }
        .validate()
        .unwrap();
        assert_eq!(i64::from(valid.port), port);
    }
    for port in [-1, 65_536, -25_536, i64::MAX] {
        let error = Row {
            port,
            ..row("10.0.0.1", 32)
        }
        .validate()
        .unwrap_err();
        assert_eq!((error.column, error.value), ("port", port.to_string()));
    }
}

#[test]
fn tags_are_bounded() {
    let longest = "x".repeat(LONGEST_TAG);
    let (valid, _) = Row {
        tag: Some(&longest),
        ..row("10.0.0.1", 32)
    }
    .validate()
    .unwrap();
    assert_eq!(valid.tag, Some(longest.as_str()));
    let longer = "x".repeat(LONGEST_TAG + 1);
    let error = Row {
        tag: Some(&longer),
        ..row("10.0.0.1", 32)
    }
    .validate()
    .unwrap_err();
    assert_eq!(error.column, "tag");
    assert!(error.value.len() < 100, "long values are shortened");
}

#[test]
fn a_row_that_is_not_stored_has_no_number() {
    let error = Row {
        id: 0,
        ..row("10.0.0.0/8", 32)
    }
    .validate()
    .unwrap_err();
    assert!(
        error.to_string().starts_with("ip_addr \"10.0.0.0/8\" is"),
        "{error}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any text in a column results in a message of one line, and never in a panic.
    #[test]
    fn any_text_is_answered_in_one_line(text in "\\PC{0,120}|[0-9a-f:.\\[\\]/% *\\n]{0,60}", mask in any::<i64>()) {
        match row(&text, mask).validate() {
            Ok((_, Some(warning))) => prop_assert!(!warning.to_string().contains(['\n', '\r'])),
            Ok((_, None)) => {}
            Err(error) => prop_assert!(!error.to_string().contains(['\n', '\r'])),
        }
    }

    #[test]
    fn printed_addresses_are_parsed_back(v4 in any::<u32>(), v6 in any::<u128>()) {
        let v4 = Ipv4Addr::from_bits(v4);
        let text = v4.to_string();
        prop_assert_eq!(row(&text, 32).validate().unwrap().0.place, Place::Host4(v4));
        let v6 = Ipv6Addr::from_bits(v6);
        prop_assume!(v6.to_ipv4_mapped().is_none());
        let text = v6.to_string();
        prop_assert_eq!(row(&text, 128).validate().unwrap().0.place, Place::Host6(v6));
    }
}

/// A valid row, except for what the test changes.
fn row(ip_addr: &str, mask: i64) -> Row<'_> {
    Row {
        id: 17,
        group: 200,
        ip_addr,
        mask,
        port: 5060,
        tag: Some("OfficeSubnet"),
    }
}

/// The place of a row that is valid without a warning.
fn placed(ip_addr: &str, mask: i64) -> Place<'_> {
    let (valid, warning) = row(ip_addr, mask).validate().unwrap();
    assert_eq!(warning, None, "{ip_addr}");
    assert_eq!(
        (valid.group, valid.port, valid.tag),
        (200, 5060, Some("OfficeSubnet"))
    );
    valid.place
}

fn host4(addr: &str) -> Place<'static> {
    Place::Host4(addr.parse().unwrap())
}

fn host6(addr: &str) -> Place<'static> {
    Place::Host6(addr.parse().unwrap())
}

fn subnet4(addr: &str, bits: u8) -> Place<'static> {
    Place::Subnet4(addr.parse().unwrap(), bits)
}

fn subnet6(addr: &str, bits: u8) -> Place<'static> {
    Place::Subnet6(addr.parse().unwrap(), bits)
}
