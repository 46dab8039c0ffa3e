//! Compatibility: files that were built for an older contract still work.
//!
//! `contracts` has the older contracts, one file for each.

use portcullis_policy::{Inspection, Verdict, WIT, inspect};
use wit_component::StringEncoding;
use wit_parser::Resolve;

use crate::support::{Host, both_forms, guest_text, invite, table, unauthorised};

/// The older contracts, the first one first.
const CONTRACTS: [&str; 1] = [include_str!("contracts/first.wit")];

/// A guest whose custom section has the world of an older contract.
fn built_for(contract: &str, guest: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let package = resolve.push_source("old.wit", contract).unwrap();
    let world = resolve
        .select_world(&[package], Some("routing-policy"))
        .unwrap();
    let mut module = wat::parse_str(guest_text(guest)).unwrap();
    let encoding = StringEncoding::UTF8;
    wit_component::embed_component_metadata(&mut module, &resolve, world, encoding).unwrap();
    module
}

#[test]
fn policies_for_every_contract_load_and_decide() {
    for contract in CONTRACTS {
        assert_ne!(contract, WIT, "this is the contract of the moment");
        let mut host = Host::new();
        let module = built_for(contract, "page");
        let Inspection { imports, .. } = inspect(&module).unwrap();
        assert!(!imports.is_empty());
        for policy in both_forms(&host, &module) {
            host.addresses = table(&[]);
            assert_eq!(host.ask(&policy, invite()), Ok(unauthorised()));
            host.addresses = table(&[(200, "192.0.2.1", 32, 0, None)]);
            let known = host.ask(&policy, invite());
            assert_eq!(known, Ok(Verdict::Relay(None)));
        }
    }
}

/// Each interface of an older contract is in the current one without a change, except for comments.
#[test]
fn released_interfaces_never_change() {
    // The lines without comments, each block from `interface NAME {` to its end.
    let interfaces = |text: &str| {
        let lines = text.lines().map(str::trim);
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with("//"));
        let text = lines.collect::<Vec<_>>().join("\n");
        let blocks = text.split("\ninterface ").skip(1);
        let blocks = blocks.map(|block| block.split("\nworld ").next().unwrap().to_owned());
        blocks.collect::<Vec<_>>()
    };
    let now = interfaces(WIT);
    for contract in CONTRACTS {
        let old = interfaces(contract);
        assert!(old.len() >= 4, "{old:?}");
        for old in old {
            assert!(now.contains(&old), "{old:?} was released");
        }
    }
}
