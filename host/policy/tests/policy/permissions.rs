//! The interface `permissions`, from modules and from components.

use portcullis_policy::Verdict;

use crate::support::{
    Host, answer_with, asking, both_forms, guest, invite, invite_from, number_guest, reject, table,
    unauthorised,
};

const PERMISSIONS: &str = "portcullis:policy/permissions@0.1.0";

#[test]
fn the_reference_policy_decides_by_group() {
    let mut host = Host::new();
    host.addresses = table(&[
        (250, "10.8.203.139", 32, 5060, Some("TestServer")),
        (200, "192.168.1.0", 24, 5060, Some("OfficeSubnet")),
    ]);

    for policy in both_forms(&host, &guest("page")) {
        let mut ask = |source| host.ask(&policy, invite_from(source)).unwrap();
        assert_eq!(ask("192.168.1.7:5060"), Verdict::Relay(None));
        assert_eq!(ask("10.8.203.139:5060"), Verdict::Relay(None));
        assert_eq!(ask("10.8.203.139:5061"), unauthorised());
        assert_eq!(ask("[2001:db8::1]:5060"), unauthorised());
    }
}

#[test]
fn queries_of_addresses() {
    let rows = [
        (7, "192.0.2.1", 32, 5060, None),
        (8, "192.0.2.0", 24, 0, Some("net")),
        (9, "2001:db8::1", 128, 0, Some("six")),
        (10, "gw.example.com", 0, 0, Some("name")),
    ];
    let ask = |wat: &str| answer_with(&rows, wat);
    let source = |group| {
        let arguments = format!("(i32.const {group})");
        ask(&number_guest(
            PERMISSIONS,
            "allow-source-address",
            "i32",
            &arguments,
        ))
    };
    let address = |group, text: &str, port| ask(&address_guest(group, text, port));
    let group = |text: &str, port| ask(&group_guest(text, port));

    assert_eq!(source(7), reject(301, ""));
    assert_eq!(source(8), reject(301, ""));
    assert_eq!(source(9), reject(300, ""));
    assert_eq!(address(8, "192.0.2.200", 1), reject(301, ""));
    assert_eq!(address(7, "192.0.2.1", 5061), reject(300, ""));
    assert_eq!(address(9, "2001:db8::1", 1), reject(301, ""));
    assert_eq!(address(9, "[2001:db8:0::1]", 1), reject(301, ""));
    assert_eq!(address(10, "gw.example.com", 1), reject(301, ""));
    assert_eq!(address(10, "GW.example.com", 1), reject(300, ""));
    assert_eq!(group("192.0.2.1", 5060), reject(307, ""));
    assert_eq!(group("192.0.2.1", 5061), reject(308, ""));
    assert_eq!(group("gw.example.com", 1), reject(310, ""));
    assert_eq!(group("203.0.113.1", 5060), reject(699, ""));
    assert_eq!(ask(&source_group_guest()), reject(307, ""));
}

#[test]
fn the_last_tag_is_that_of_the_last_match() {
    let rows = [
        (7, "192.0.2.1", 32, 5060, None),
        (8, "192.0.2.0", 24, 0, Some("net")),
        (9, "192.0.2.0", 24, 0, Some("")),
    ];
    let tag = |groups: &[u32]| answer_with(&rows, &tag_guest(groups));

    assert_eq!(tag(&[]), reject(404, ""));
    assert_eq!(tag(&[8]), reject(401, "net"));
    assert_eq!(
        tag(&[8, 99]),
        reject(401, "net"),
        "a query without a match changes nothing"
    );
    assert_eq!(tag(&[8, 7]), reject(404, ""), "a row without a tag");
    assert_eq!(tag(&[8, 9]), reject(401, ""), "an empty tag is a tag");
}

#[test]
fn the_last_tag_is_cleared_before_each_call() {
    let mut host = Host::new();
    host.addresses = table(&[(8, "192.0.2.0", 24, 0, Some("net"))]);
    let matching = host.load_text(&tag_guest(&[8]));
    let silent = host.load_text(&tag_guest(&[]));

    assert_eq!(host.ask(&matching, invite()), Ok(reject(401, "net")));
    assert_eq!(host.ask(&silent, invite()), Ok(reject(404, "")));
}

/// Calls `allow-address` and answers with 300 plus the result.
fn address_guest(group: u32, address: &str, port: u16) -> String {
    asking(
        &format!(
            r#"(import "{PERMISSIONS}" "allow-address" (func $ask (param i32 i32 i32 i32) (result i32)))"#
        ),
        address,
        &format!(
            "(call $code (call $ask (i32.const {group}) (i32.const 256) (i32.const {}) (i32.const {port})))",
            address.len()
        ),
    )
}

/// Calls `address-group` and answers with 300 plus the group, or 699.
fn group_guest(address: &str, port: u16) -> String {
    asking(
        &format!(r#"(import "{PERMISSIONS}" "address-group" (func $ask (param i32 i32 i32 i32)))"#),
        address,
        &format!(
            "(call $ask (i32.const 256) (i32.const {}) (i32.const {port}) (i32.const 512))
             (call $number)",
            address.len()
        ),
    )
}

/// Calls `source-address-group` and answers with 300 plus the group, or 699.
fn source_group_guest() -> String {
    asking(
        &format!(r#"(import "{PERMISSIONS}" "source-address-group" (func $ask (param i32)))"#),
        "",
        "(call $ask (i32.const 512))
         (call $number)",
    )
}

/// Calls `allow-source-address` for each group, then `last-tag`: 401 with the tag, or 404.
fn tag_guest(groups: &[u32]) -> String {
    let questions: String = groups
        .iter()
        .map(|group| format!("(drop (call $allow (i32.const {group})))"))
        .collect();
    asking(
        &format!(
            r#"(import "{PERMISSIONS}" "allow-source-address" (func $allow (param i32) (result i32)))
               (import "{PERMISSIONS}" "last-tag" (func $tag (param i32)))"#
        ),
        "",
        &format!(
            "{questions}
             (call $tag (i32.const 512))
             (call $reason)"
        ),
    )
}
