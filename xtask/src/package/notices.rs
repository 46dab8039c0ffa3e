//! The crates that the binary contains, with their licences.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::process::{capture, cargo};
use crate::workspace::root;

/// A crate in the binary.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Dependency {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) license: Option<String>,
    pub(super) authors: Vec<String>,
    /// Where it comes from; `None` for the crates of this repository.
    pub(super) source: Option<String>,
    manifest_path: PathBuf,
    /// SHA-256 of the crate's file.
    #[serde(skip)]
    pub(super) checksum: Option<String>,
}

/// The crates in the binary, in the order of their names.
#[derive(Debug)]
pub(super) struct Dependencies(pub(super) Vec<Dependency>);

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    checksum: Option<String>,
}

impl Dependencies {
    /// Asks cargo.
    pub(super) fn of_host() -> Result<Self> {
        // With the features of this package, without what only runs at build time.
        let tree = capture(cargo().current_dir(root()).args([
            "tree",
            "--locked",
            "--package=portcullis-server",
            "--edges=normal,no-proc-macro",
            "--prefix=none",
            "--format={p}",
        ]))?;
        let in_binary: BTreeSet<_> = tree.lines().filter_map(name_and_version).collect();

        let metadata = capture(cargo().current_dir(root()).args([
            "metadata",
            "--locked",
            "--format-version=1",
        ]))?;
        let metadata: Metadata =
            serde_json::from_str(&metadata).context("cargo metadata did not answer as expected")?;
        let lock: Lock = toml::from_str(&fs::read_to_string(root().join("Cargo.lock"))?)
            .context("Cargo.lock is not as expected")?;
        let checksums: BTreeMap<_, _> = lock
            .package
            .into_iter()
            .map(|package| ((package.name, package.version), package.checksum))
            .collect();

        let mut all: Vec<_> = metadata
            .packages
            .into_iter()
            .filter(|one| in_binary.contains(&(one.name.as_str(), one.version.as_str())))
            .map(|one| {
                let checksum = checksums
                    .get(&(one.name.clone(), one.version.clone()))
                    .cloned()
                    .flatten();
                Dependency { checksum, ..one }
            })
            .collect();
        all.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
        Ok(Self(all))
    }

    /// Returns the texts of the licences of others' crates, each once, with the crates that it is for.
    pub(super) fn notices(&self) -> Result<String> {
        let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for dependency in self.0.iter().filter(|one| one.source.is_some()) {
            let name = format!("{} {}", dependency.name, dependency.version);
            for text in licence_texts(dependency.manifest_path.parent())? {
                texts.entry(text).or_default().push(name.clone());
            }
        }
        let mut texts: Vec<_> = texts.into_iter().collect();
        texts.sort_by(|(_, a), (_, b)| a.cmp(b));

        let line = "=".repeat(78);
        let sections = texts.iter().map(|(text, names)| {
            format!(
                "{line}\n{}\n{line}\n\n{}\n\n",
                names.join(", "),
                text.trim()
            )
        });
        Ok(HEAD.to_owned() + &sections.collect::<String>())
    }
}

const HEAD: &str =
    "The program portcullis contains the following libraries under the following licences.\n\n";

/// Splits a line of `cargo tree`: `name v1.2.3 (…)`.
fn name_and_version(line: &str) -> Option<(&str, &str)> {
    let mut words = line.split(' ');
    Some((words.next()?, words.next()?.strip_prefix('v')?))
}

fn licence_texts(folder: Option<&Path>) -> Result<Vec<String>> {
    let Some(folder) = folder else {
        return Ok(Vec::new());
    };
    let is_licence = |path: &PathBuf| {
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().to_uppercase());
        name.is_some_and(|name| {
            ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE"]
                .iter()
                .any(|start| name.starts_with(start))
        })
    };
    let mut files: Vec<_> = fs::read_dir(folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_file() && is_licence(path))
        .collect();
    files.sort();
    let texts = files.iter().map(fs::read);
    Ok(texts
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .map(|text| String::from_utf8_lossy(&text).replace("\r\n", "\n"))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_cargo_tree_are_split() {
        assert_eq!(
            name_and_version("serde v1.0.229"),
            Some(("serde", "1.0.229"))
        );
        assert_eq!(
            name_and_version("portcullis-sip v0.1.0 (/src/host/sip)"),
            Some(("portcullis-sip", "0.1.0"))
        );
        assert_eq!(name_and_version(""), None);
    }

    #[test]
    fn the_binary_contains_its_libraries_and_no_test_or_macro() {
        let dependencies = Dependencies::of_host().expect("cargo answers");
        let has = |name: &str| dependencies.0.iter().any(|one| one.name == name);

        assert!(has("wasmtime") && has("portcullis-sip"));
        assert!(!has("proptest") && !has("serde_derive") && !has("xtask"));
        let wasmtime = dependencies.0.iter().find(|one| one.name == "wasmtime");
        assert!(wasmtime.is_some_and(|one| one.checksum.is_some() && one.license.is_some()));
    }
}
