//! `docs/contract.md` matches the contract.

#![forbid(unsafe_code)]

use portcullis_testkit::guests::{component, importing_everything};
use portcullis_testkit::host::Builder;
use serde_json::Value;

/// A module and a component that import every function of the contract can be loaded: the host has all of them in both forms.
#[test]
fn the_host_has_every_function_of_the_contract() {
    let host = Builder::new()
        .set("tenants.acme", "uri-domains = [\"acme.example\"]")
        .start();
    let module = importing_everything();
    for policy in [component(&module), module] {
        let (status, reply) = host.push("acme", "arrival=activate", &policy);
        assert_eq!((status, &reply["warning"]), (201, &Value::Null), "{reply}");
    }
}

#[test]
fn the_reference_matches_the_contract() {
    let file = portcullis_testkit::root().join("docs/contract.md");
    let page = portcullis_testkit::contract::page();
    for part in [
        "### permissions",
        "#### allow-source-address",
        "#### rejection (record)",
        "list<string>",
    ] {
        assert!(page.contains(part), "{part}");
    }
    if std::env::var_os("PORTCULLIS_WRITE").is_some() {
        std::fs::write(&file, &page).expect("the page can be written");
    }
    let written = std::fs::read_to_string(&file).expect("the page is there");
    assert!(
        written == page,
        "docs/contract.md is out of date: PORTCULLIS_WRITE=1 regenerates it"
    );
}
