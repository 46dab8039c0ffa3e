//! The console in a real browser, driven by `tests/console/run.mjs`.

#![forbid(unsafe_code)]

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use portcullis_testkit::callee::Callee;
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::policy;
use serde_json::json;

const OPERATOR: &str = "operator-0123456789abcdef";
const ACME: &str = "acme-0123456789abcdef";

/// Tenants in the database: one whose settings the operator changes, and one that changes its own.
const STORED: [&str; 2] = ["hooli", "piper"];
const PIPER: &str = "piper-0123456789abcdef";

/// A source in the address table, and one that is in no group.
const KNOWN: u8 = 10;
const UNKNOWN: u8 = 11;

/// An address file with one line that is skipped.
fn addresses(known: &str) -> String {
    let mut lines = String::new();
    for line in [
        &format!("200 {known} 32"),
        "250 192.0.2.7 32 5060 TestServer",
        "300 10.9.0.0 16 0 lab",
        "300 2001:db8:: 32",
        "200 10.0.0.300",
    ] {
        writeln!(lines, "{line}").expect("a string can be written");
    }
    lines
}

fn start(file: &Path) -> (Host, Callee) {
    let builder = Builder::new();
    let known = builder.lease().ip(KNOWN).to_string();
    std::fs::write(file, addresses(&known)).expect("the file can be written");
    let callee = Callee::start(builder.lease().addr(3, 5080));
    let host = builder
        .set("relay", &format!("next-hop = \"sip:{}\"", callee.addr()))
        .set("database", &format!("address-file = {file:?}"))
        .set("control", &format!("token = \"{OPERATOR}\""))
        .set("tenants.acme", "uri-domains = [\"acme.example\"]")
        .set("tenants.acme", &format!("token = \"{ACME}\""))
        .set("tenants.globex", "uri-domains = [\"globex.example\"]")
        .start();
    let observe = std::fs::read(policy("observe")).expect("the policy can be read");
    let path = "/v1/policies/acme?arrival=activate&name=observe.wasm";
    let pushed = host.ask(
        Some(ACME),
        "POST",
        path,
        (Some("application/wasm"), &observe),
    );
    assert_eq!(pushed.0, 201);
    (host, callee)
}

/// A host whose tables are in a database: one row of a group that the tenant may change, 251 of another group, and a gateway that answers. Its guard
/// watches loopback addresses, too.
fn start_with_tables() -> (Host, Callee) {
    let builder = Builder::new();
    let gateway = Callee::start(builder.lease().addr(6, 5060));
    let host = builder
        .set("guard", "exempt = []")
        .set("control", &format!("token = \"{OPERATOR}\""))
        .set("tenants.acme", "uri-domains = [\"acme.example\"]")
        .set("tenants.acme", &format!("token = \"{ACME}\""))
        .set("tenants.acme", "groups = [201]")
        .set("tenants.acme", "edit-groups = [201]")
        .set("tenants.acme", "edit-rows = 3")
        .set("fleet", "announce = true")
        .set("tenants.acme.settings", "list = []")
        .set("tenants.acme.settings", "scale = 1.0")
        .row("201 10.2.0.1 32 0 own")
        .start();
    let mut rows = "grp,ip_addr\n".to_owned();
    for number in 1..=251 {
        writeln!(rows, "200,10.0.0.{number}").expect("a string can be written");
    }
    let path = "/v1/addresses/import";
    let sent = (Some("text/csv"), rows.as_bytes());
    assert_eq!(host.ask(Some(OPERATOR), "POST", path, sent).0, 200);
    let gateways = format!("{{\"set\": 1, \"uri\": \"{}\"}}", uri(&gateway));
    let sent = (Some("application/json"), gateways.as_bytes());
    let added = host.ask(Some(OPERATOR), "POST", "/v1/dispatcher/rows", sent);
    assert_eq!(added.0, 201, "{}", String::from_utf8_lossy(&added.2));
    for name in STORED {
        store(&host, name);
    }
    (host, gateway)
}

/// The URI of a gateway.
fn uri(gateway: &Callee) -> String {
    format!("sip:{}", gateway.addr())
}

/// Stores a tenant with settings, and a policy that checks them.
fn store(host: &Host, name: &str) {
    let section = format!(
        "uri-domains = [\"{name}.example\"]\ntoken = \"{name}-0123456789abcdef\"\nedit-settings = true\n[settings]\nzone = \
         \"Europe/Berlin\"\n[settings.hours]\nmonday = [\"08:00-18:00\"]\n"
    );
    let sent = (Some("application/toml"), section.as_bytes());
    let path = format!("/v1/tenants/{name}");
    let put = host.ask(Some(OPERATOR), "PUT", &path, sent);
    assert_eq!(put.0, 200, "{}", String::from_utf8_lossy(&put.2));
    let hours = std::fs::read(policy("business-hours")).expect("the policy can be read");
    let path = format!("/v1/policies/{name}?arrival=activate&name=hours.wasm");
    let sent = (Some("application/wasm"), &hours[..]);
    let pushed = host.ask(Some(OPERATOR), "POST", &path, sent);
    assert_eq!(pushed.0, 201, "{}", String::from_utf8_lossy(&pushed.2));
}

/// The packages of `tests/console/package-lock.json`, which `cargo xtask test` installs.
fn modules() -> PathBuf {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/console");
    assert!(
        target.join("node_modules").is_dir(),
        "{} is missing: run `cargo xtask test`, or npm ci in a copy of tests/console",
        target.display()
    );
    target.join("package.json")
}

/// `PORTCULLIS_PICTURES=DIRECTORY` also writes the pictures of docs/console.md; `PORTCULLIS_FLOW=TEXT` runs the flows with this text.
#[test]
fn peers_the_console_works_in_a_browser() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let (host, _callee) = start(&folder.path().join("addresses"));
    let (tables, gateway) = start_with_tables();
    let given = json!({
        "url": format!("http://{}/", host.lease().addr(1, 8060)),
        "tables": format!("http://{}/", tables.lease().addr(1, 8060)),
        "tablesSip": tables.sip().to_string(),
        "gateway": uri(&gateway),
        "sip": host.sip().to_string(),
        "known": host.lease().ip(KNOWN).to_string(),
        "unknown": host.lease().ip(UNKNOWN).to_string(),
        "operator": OPERATOR,
        "tenant": "acme",
        "secret": ACME,
        "other": "globex",
        "stored": {"operator": STORED[0], "tenant": STORED[1], "secret": PIPER},
        "policies": {"observe": policy("observe"), "acl": policy("address-acl")},
        "modules": modules(),
        "pictures": std::env::var_os("PORTCULLIS_PICTURES").map(PathBuf::from),
    });
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("console/run.mjs");
    let run = Command::new("node")
        .arg(script)
        .arg(given.to_string())
        .env("HOME", folder.path())
        .output()
        .expect("node is installed: apt-get install nodejs");
    let said = String::from_utf8_lossy(&run.stdout);
    let failed = String::from_utf8_lossy(&run.stderr);
    println!("{said}");
    assert!(run.status.success(), "{said}{failed}\n{}", host.log());
    let refused = host.complaints();
    let refused = refused.iter().find(|line| line.contains("http_refused"));
    assert_eq!(refused, None, "the page is not foreign");
}
