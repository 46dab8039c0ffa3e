//! The sections of RFC 4475 (SIP torture test messages), each with a message of our own and the answer of a proxy.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // A panic is how a test fails.

mod torture;

use torture::{harness, outside, syntax_invalid, syntax_valid};

const SOURCE: &str = "192.0.2.15:5060";
const LOCAL: &str = "198.51.100.1:5060";

#[test]
fn valid_messages() {
    harness::run(&syntax_valid::cases(), SOURCE, LOCAL);
}

#[test]
fn invalid_messages() {
    harness::run(&syntax_invalid::cases(), SOURCE, LOCAL);
}

#[test]
fn messages_whose_trouble_lies_beyond_the_grammar() {
    harness::run(&outside::cases(), SOURCE, LOCAL);
}

#[test]
fn every_section_has_its_message() {
    let mut sections: Vec<String> = (1..=13).map(|n| format!("3.1.1.{n}")).collect();
    sections.extend((1..=19).map(|n| format!("3.1.2.{n}")));
    sections.push("3.2.1".into());
    sections.extend((1..=15).map(|n| format!("3.3.{n}")));
    sections.push("3.4.1".into());
    let cases = [
        syntax_valid::cases(),
        syntax_invalid::cases(),
        outside::cases(),
    ]
    .concat();
    let found: Vec<&str> = cases.iter().map(|case| case.section).collect();
    assert_eq!(found, sections);
}
