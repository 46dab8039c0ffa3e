//! The sources of the SDK, as a crate without a workspace.

use portcullis_policy::WIT;

include!(concat!(env!("OUT_DIR"), "/sdk.rs"));

/// The place of the contract in the repository, as the bindings of the SDK name it, and its place in the crate.
const WIT_PATHS: [&str; 2] = ["path: \"../../policy-wit\"", "path: \"wit\""];

/// The files of the SDK as a crate that builds anywhere, with their paths in it.
pub fn files() -> Vec<(String, String)> {
    let sources = FILES.iter().map(|(name, text)| {
        let text = text.replace(WIT_PATHS[0], WIT_PATHS[1]);
        (format!("src/{name}"), text)
    });
    let manifest = include_str!("../templates/rust/sdk.toml")
        .replace("{version}", env!("CARGO_PKG_VERSION"))
        .replace("{rust-version}", env!("CARGO_PKG_RUST_VERSION"));
    let others = [
        ("Cargo.toml".to_owned(), manifest),
        ("wit/routing-policy.wit".to_owned(), WIT.to_owned()),
    ];
    sources.chain(others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bindings_find_the_contract_in_the_crate() {
        let files = files();
        let text = |name: &str| {
            let found = files.iter().find(|(path, _)| path == name);
            &found.unwrap().1
        };
        assert!(text("src/guest.rs").contains(WIT_PATHS[1]));
        for (name, text) in &files {
            assert!(!text.contains("../policy-wit"), "{name}");
        }
        assert!(text("src/lib.rs").contains("pub mod prelude"));
        assert!(text("src/testing/mod.rs").contains("pub struct Host"));
    }

    #[test]
    fn the_crate_has_the_dependencies_of_the_sdk() {
        let own: toml::Table =
            toml::from_str(include_str!("../../../policies/sdk/Cargo.toml")).unwrap();
        let workspace: toml::Table = toml::from_str(include_str!("../../../Cargo.toml")).unwrap();
        let files = files();
        let (_, manifest) = files.iter().find(|(path, _)| path == "Cargo.toml").unwrap();
        let ours: toml::Table = toml::from_str(manifest).unwrap();

        let guest = "cfg(target_arch = \"wasm32\")";
        assert!(!own.contains_key("dependencies"));
        let names = |table: &toml::Table| {
            let names = table["target"][guest]["dependencies"]
                .as_table()
                .unwrap()
                .keys();
            names.cloned().collect::<Vec<_>>()
        };
        assert_eq!(names(&own), ["wit-bindgen"]);
        assert_eq!(names(&ours), ["wit-bindgen"]);
        assert_eq!(
            ours["target"][guest]["dependencies"]["wit-bindgen"],
            workspace["workspace"]["dependencies"]["wit-bindgen"]
        );
    }
}
