//! Policies of seats: files, artifacts in registries, their notes and signatures.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use portcullis_plan::Item;
use portcullis_registry::Digest;
use serde::Deserialize;
use toml::Spanned;

use super::mistakes::Mistakes;
use crate::cli::policy::{Connection, Origin, PolicyContent, Verification, content};

/// A policy of a seat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PolicyFile {
    pub(super) seat: String,
    /// Where it comes from, for errors.
    pub(super) place: String,
    /// Its name in logs and lists.
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
    /// In Base64; empty if it has none.
    pub(super) signature: String,
    pub(super) note: String,
    pub(super) digest: String,
}

/// Where the policy of a seat is described.
#[derive(Clone, Debug, Default)]
pub(super) struct Described {
    /// File and line.
    place: String,
    /// A file, or an artifact in a registry.
    file: Option<PathBuf>,
    signature: Option<PathBuf>,
    note: String,
}

/// A section of policies.toml.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    file: Option<String>,
    signature: Option<PathBuf>,
    #[serde(default)]
    note: String,
}

/// Reads policies.toml. Paths are relative to its folder.
pub(super) fn describe(
    path: &Path,
    all: &mut BTreeMap<String, Described>,
    mistakes: &mut Mistakes,
) {
    let shown = path.display();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => return mistakes.add(format!("cannot read {shown}: {error}")),
    };
    let line_of = |offset: usize| {
        let before = text.as_bytes().get(..offset).unwrap_or_default();
        before.iter().filter(|&&byte| byte == b'\n').count() + 1
    };
    let read: Result<BTreeMap<String, Spanned<toml::Table>>, _> = toml::from_str(&text);
    let sections = match read {
        Ok(sections) => sections,
        Err(error) => {
            let line = line_of(error.span().map_or(0, |span| span.start));
            let what = error.message();
            return mistakes.add(format!(
                "{shown}:{line}: {what}; write [SEAT] for each seat, with file = \"…\" below"
            ));
        }
    };
    let folder = path.parent().unwrap_or_else(|| Path::new(""));
    for (seat, section) in sections {
        let place = format!("{shown}:{}", line_of(section.span().start));
        let section: Section = match toml::Value::Table(section.into_inner()).try_into() {
            Ok(section) => section,
            Err(error) => {
                let error: toml::de::Error = error;
                mistakes.add(format!("{place}: [{seat}]: {}", error.message()));
                continue;
            }
        };
        let file = section.file.map(|file| match file.contains("://") {
            true => PathBuf::from(file),
            false => folder.join(file),
        });
        let described = Described {
            place,
            file,
            signature: section.signature.map(|file| folder.join(file)),
            note: section.note,
        };
        match all.get(&seat) {
            Some(other) => mistakes.add(format!(
                "{}: the seat {seat} is described at {} already",
                described.place, other.place
            )),
            None => drop(all.insert(seat, described)),
        }
    }
}

/// Adds the file of a seat.
pub(super) fn add_file(
    seat: String,
    path: PathBuf,
    all: &mut BTreeMap<String, Described>,
    mistakes: &mut Mistakes,
) {
    let described = all.entry(seat.clone()).or_default();
    match &described.file {
        Some(_) => mistakes.add(format!(
            "{}: the seat {seat} has another file at {}: remove one of them",
            path.display(),
            described.place
        )),
        None => {
            if described.place.is_empty() {
                described.place = path.display().to_string();
            }
            described.file = Some(path);
        }
    }
}

/// Reads the policies, and downloads those in registries.
pub(super) fn read(
    all: BTreeMap<String, Described>,
    verification: &Verification,
    connection: &Connection,
    mistakes: &mut Mistakes,
) -> Vec<PolicyFile> {
    let mut policies = Vec::new();
    for (seat, described) in all {
        let place = described.place.clone();
        let is_seat = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if seat.is_empty() || !seat.bytes().all(is_seat) {
            mistakes.add(format!(
                "{place}: {seat:?} is not a seat: name a tenant, or default, before or after"
            ));
            continue;
        }
        match read_one(seat, described, verification, connection) {
            Ok(policy) => policies.push(policy),
            Err(error) => mistakes.add(format!("{place}: {error:#}")),
        }
    }
    policies
}

fn read_one(
    seat: String,
    described: Described,
    verification: &Verification,
    connection: &Connection,
) -> anyhow::Result<PolicyFile> {
    let Described {
        place,
        file,
        signature,
        note,
    } = described;
    let file = file.context(
        "there is no file: write file = \"…\", or add policies/SEAT.wasm with the name of the seat",
    )?;
    let is_artifact = file.to_str().is_some_and(|file| file.contains("://"));
    let none = Verification::default();
    let origin = Origin {
        file: &file,
        signature: signature.as_deref(),
        note: &note,
        // A file has the signature that the host checks.
        verification: if is_artifact { verification } else { &none },
        connection,
    };
    let PolicyContent {
        name,
        bytes,
        signature,
        note,
    } = content(&origin, &mut std::io::sink().by_ref())?;
    let digest = Digest::of(&bytes).to_string();
    Ok(PolicyFile {
        seat,
        place,
        name,
        bytes,
        signature,
        note,
        digest,
    })
}

impl PolicyFile {
    /// The item of a plan.
    pub(super) fn item(&self) -> Item {
        item(&self.seat, &self.digest)
    }
}

/// The item of a seat with an active policy.
pub(super) fn item(seat: &str, digest: &str) -> Item {
    Item::new(seat).with("digest", digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_and_files_are_joined() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let described = root.join("policies.toml");
        let text = "[acme]\nnote = \"v2\"\n\n[default]\nfile = \"acl.wasm\"\n\n[before]\nfile = \"oci://registry/x:1\"\n\n[after]\nfiles = 1\n";
        std::fs::write(&described, text).unwrap();
        let mut mistakes = Mistakes::default();
        let mut all = BTreeMap::new();
        describe(&described, &mut all, &mut mistakes);
        add_file(
            "acme".into(),
            root.join("acme.wasm"),
            &mut all,
            &mut mistakes,
        );
        add_file(
            "default".into(),
            root.join("default.wasm"),
            &mut all,
            &mut mistakes,
        );
        add_file(
            "other".into(),
            root.join("other.wasm"),
            &mut all,
            &mut mistakes,
        );
        assert_eq!(all["before"].file, Some("oci://registry/x:1".into()));
        assert_eq!(all["default"].file, Some(root.join("acl.wasm")));
        let said = mistakes.all();
        assert!(
            said[0].contains("policies.toml:10: [after]: unknown field"),
            "{said:?}"
        );
        assert!(said[1].contains("has another file"), "{said:?}");

        all.remove("before");
        std::fs::write(root.join("acme.wasm"), b"\0asm").unwrap();
        std::fs::write(root.join("acme.wasm.sig"), "c2ln\n").unwrap();
        let mut mistakes = Mistakes::default();
        let (verification, connection) = (Verification::default(), Connection::default());
        let read = read(all, &verification, &connection, &mut mistakes);
        let [acme] = &read[..] else {
            panic!("{read:?}")
        };
        assert_eq!((acme.note.as_str(), acme.signature.trim()), ("v2", "c2ln"));
        assert!(acme.digest.starts_with("sha256:"), "{}", acme.digest);
        let said = mistakes.all();
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].contains("policies.toml:4: cannot read"), "{said:?}");
        assert!(said[1].contains("other.wasm"), "{said:?}");
    }
}
