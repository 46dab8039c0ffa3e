//! Each recipe, compiled to Wasm, decides in a running host, with the settings that its documentation shows.

#![forbid(unsafe_code)]

use std::path::PathBuf;

use portcullis_testkit::callee::Callee;
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::{policy, root};

/// A recipe, a request as `METHOD URI`, further header fields, and the response: what `default-code` says if the recipe passes.
type Case = (
    &'static str,
    &'static str,
    &'static [&'static str],
    &'static str,
);

const CASES: [Case; 20] = [
    (
        "anonymous-calls",
        "INVITE sip:+4930123@anonymous-calls.example",
        &["Privacy: id"],
        "433",
    ),
    (
        "attestation",
        "INVITE sip:1@attestation.example",
        &[],
        "428",
    ),
    (
        "caller-id",
        "INVITE sip:1@caller-id.example",
        &[],
        "403 Caller ID not allowed",
    ),
    (
        "carrier-canary",
        "INVITE sip:1@carrier-canary.example",
        &[],
        "200",
    ),
    (
        "carrier-rate",
        "INVITE sip:1@carrier-rate.example",
        &[],
        "200",
    ),
    (
        "class-of-service",
        "INVITE sip:0900123@class-of-service.example",
        &[],
        "403 Number not",
    ),
    ("e164", "INVITE sip:+49@e164.example", &[], "484"),
    ("emergency", "INVITE sip:112@emergency.example", &[], "200"),
    (
        "geo-block",
        "INVITE sip:1@geo-block.example",
        &[],
        "480 Passed",
    ),
    (
        "header-hygiene",
        "INVITE sip:1@header-hygiene.example",
        &["X-Account: 7"],
        "480 Passed",
    ),
    (
        "invite-flood",
        "INVITE sip:1@invite-flood.example",
        &[],
        "480 Passed",
    ),
    (
        "least-cost",
        "INVITE sip:112@least-cost.example",
        &[],
        "404 No route",
    ),
    (
        "maintenance",
        "INVITE sip:1@maintenance.example",
        &[],
        "480 Passed",
    ),
    (
        "office-hours",
        "OPTIONS sip:1@office-hours.example",
        &[],
        "480 Passed",
    ),
    (
        "register-limit",
        "REGISTER sip:register-limit.example",
        &["Expires: 1"],
        "423",
    ),
    (
        "scanner-block",
        "INVITE sip:1@scanner-block.example",
        &["User-Agent: sipcli"],
        "480 Passed",
    ),
    (
        "tenant-quota",
        "INVITE sip:1@tenant-quota.example",
        &[],
        "480 Passed",
    ),
    (
        "test-calls",
        "INVITE sip:1@test-calls.example",
        &["X-Test-Call: 1"],
        "480 Passed",
    ),
    (
        "toll-fraud",
        "INVITE sip:+531@toll-fraud.example",
        &[],
        "480 Passed",
    ),
    (
        "trunk-failover",
        "INVITE sip:1@trunk-failover.example",
        &[],
        "200",
    ),
];

/// All are tenants of one host, each with its own domain.
fn start() -> Host {
    let mut builder = Builder::new().row("200 127.0.0.0 8 0 acme");
    let callee = builder.lease().addr(4, 5060);
    for hop in [
        "carrier-a",
        "carrier-b",
        "carrier-c",
        "psap",
        "test",
        "voicemail",
    ] {
        builder = builder.set("relay.next-hops", &format!("{hop} = \"sip:{callee}\""));
    }
    for (name, ..) in CASES {
        let file = wasm(name);
        let section = format!("tenants.{name}");
        for line in [
            format!("uri-domains = [\"{name}.example\"]"),
            format!("file = {file:?}"),
            "groups = [200, 400, 900]".to_owned(),
            "next-hops = [\"carrier-a\", \"carrier-b\", \"carrier-c\", \"psap\", \"test\", \"voicemail\"]".to_owned(),
            "headers = [\"P-Asserted-Identity\", \"P-Preferred-Identity\", \"P-Charging-Vector\", \"P-Access-Network-Info\", \
             \"Remote-Party-ID\", \"Diversion\", \"X-Account\", \"X-Test-Call\"]"
                .to_owned(),
            "default = \"reject\"".to_owned(),
            "default-code = 480".to_owned(),
            "default-reason = \"Passed\"".to_owned(),
        ] {
            builder = builder.set(&section, &line);
        }
        let (own, tables) = settings(name);
        let section = format!("{section}.settings");
        builder = builder.set(&section, &own);
        for (table, lines) in tables {
            builder = builder.set(&format!("{section}.{table}"), &lines);
        }
    }
    builder.start()
}

fn wasm(name: &str) -> PathBuf {
    let folder = policy("address-acl");
    let folder = folder.parent().expect("policies are in a folder");
    folder.join("recipes").join(name).with_extension("wasm")
}

/// The settings in the documentation of a recipe: its own lines, and its tables.
fn settings(name: &str) -> (String, Vec<(String, String)>) {
    let source = root().join(format!("policies/recipes/examples/{name}.rs"));
    let source = std::fs::read_to_string(source).expect("the source of a recipe");
    let (_, behind) = source.split_once("//! ```toml\n").expect("settings");
    let (block, _) = behind
        .split_once("//! ```")
        .expect("the end of the settings");
    let (mut own, mut tables) = (String::new(), Vec::<(String, String)>::new());
    for line in block.lines() {
        let line = line
            .trim_start_matches("//!")
            .strip_prefix(' ')
            .unwrap_or_default();
        if let Some(table) = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
        {
            tables.push((table.to_owned(), String::new()));
            continue;
        }
        let lines = tables.last_mut().map_or(&mut own, |(_, lines)| lines);
        lines.push_str(line);
        lines.push('\n');
    }
    (own, tables)
}

#[test]
fn recipes_decide_with_their_documented_settings() {
    let host = start();
    let _callee = Callee::start(host.lease().addr(4, 5060));
    let mut caller = host.udp(10);
    for (name, line, headers, expected) in CASES {
        let (method, uri) = line.split_once(' ').expect("a method");
        let mut request = caller.request(method, uri);
        for header in headers {
            request = request.header(header);
        }
        let answer = caller.ask(&request);
        assert!(
            answer
                .start_line()
                .trim_start_matches("SIP/2.0 ")
                .starts_with(expected),
            "{name}: {}",
            answer.start_line()
        );
    }
}
