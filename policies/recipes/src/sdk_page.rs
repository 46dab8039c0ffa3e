//! Checks that `docs/sdk.md` has an example for each interface of the contract. The examples themselves are documentation tests of this crate.

use std::fs;
use std::path::Path;

#[test]
fn each_interface_has_an_example() {
    let read = |path: &str| {
        let file = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../..")
            .join(path);
        fs::read_to_string(file).expect("the file can be read")
    };
    let (wit, page) = (read("policy-wit/routing-policy.wit"), read("docs/sdk.md"));
    let interfaces = wit
        .lines()
        .filter_map(|line| line.strip_prefix("interface ")?.strip_suffix(" {"))
        // It has no functions.
        .filter(|name| *name != "types");
    let mut number = 0;
    for name in interfaces {
        let section = page.split(&format!("\n## {name}\n")).nth(1);
        let section = section.unwrap_or_else(|| panic!("docs/sdk.md has no section `## {name}`"));
        let section = section.split("\n## ").next().unwrap_or_default();
        assert!(
            section.contains("```rust\n"),
            "`## {name}` of docs/sdk.md has no example"
        );
        number += 1;
    }
    assert!(number >= 10, "the contract has been parsed");
}
