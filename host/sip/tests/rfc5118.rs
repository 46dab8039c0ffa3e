//! The sections of RFC 5118 (SIP torture test messages for IPv6), each with a message of our own and the answer of a proxy.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // A panic is how a test fails.

mod torture;

use torture::{harness, ipv6};

#[test]
fn messages_with_ipv6() {
    harness::run(
        &ipv6::cases(),
        "[2001:db8::9:1]:5060",
        "[2001:db8:ffff::1]:5060",
    );
}

#[test]
fn every_section_has_its_message() {
    let mut sections: Vec<&str> = ipv6::cases().iter().map(|case| case.section).collect();
    sections.dedup();
    let expected: Vec<String> = (1..=10).map(|n| format!("4.{n}")).collect();
    assert_eq!(sections, expected);
}
