//! `docs/contract.md` matches the contract.

#![forbid(unsafe_code)]

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
