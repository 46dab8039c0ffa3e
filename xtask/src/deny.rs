//! Licences, bans and sources of all dependencies: the part of `deny.toml` that can be checked without a network.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use spdx::{Expression, Licensee, ParseMode};

use crate::process::{capture, cargo};
use crate::workspace::root;

/// The part of `deny.toml` that is checked here.
#[derive(Debug, Deserialize)]
struct Rules {
    licenses: Licenses,
    bans: Bans,
    sources: Sources,
}

#[derive(Debug, Deserialize)]
struct Licenses {
    allow: Vec<String>,
    #[serde(default)]
    clarify: Vec<Clarification>,
}

#[derive(Debug, Deserialize)]
struct Clarification {
    #[serde(rename = "crate")]
    name: String,
    expression: String,
}

#[derive(Debug, Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

#[derive(Debug, Deserialize)]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
    /// Whether several versions are banned or reported.
    #[serde(default, rename = "deny-multiple-versions")]
    several: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Sources {
    allow_registry: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    /// `None` for a package of this repository.
    source: Option<String>,
}

/// Checks the packages in Cargo.lock.
pub(crate) fn check() -> Result<()> {
    let text = fs::read_to_string(root().join("deny.toml")).context("cannot read deny.toml")?;
    let rules: Rules = toml::from_str(&text).context("deny.toml")?;
    let mut metadata = cargo();
    metadata
        .current_dir(root())
        .args(["metadata", "--format-version=1", "--locked"]);
    let metadata: Metadata = serde_json::from_str(&capture(&mut metadata)?)
        .context("cargo metadata did not answer as expected")?;
    let (problems, doubles) = rules.judge(&metadata.packages)?;
    for double in doubles {
        eprintln!("note: {double}");
    }
    if !problems.is_empty() {
        bail!("deny.toml does not allow this:\n{}", problems.join("\n"));
    }
    eprintln!("{} packages comply with deny.toml", metadata.packages.len());
    Ok(())
}

impl Rules {
    /// Returns violations, and crates with several versions.
    fn judge(&self, packages: &[Package]) -> Result<(Vec<String>, Vec<String>)> {
        let allowed = self.licenses.allow.iter();
        let allowed: Vec<_> = allowed
            .map(|text| Licensee::parse(text).with_context(|| format!("deny.toml: {text}")))
            .collect::<Result<_>>()?;
        let mut problems = Vec::new();
        let mut versions = BTreeMap::<_, Vec<_>>::new();
        for package in packages {
            let Package { name, version, .. } = package;
            versions.entry(name).or_default().push(version.as_str());
            if let Err(problem) = self.licence(package, &allowed) {
                problems.push(format!("{name} {version}: {problem:#}"));
            }
            if let Some(source) = &package.source {
                let mut known = self.sources.allow_registry.iter();
                if !known.any(|known| source.strip_prefix("registry+") == Some(known)) {
                    problems.push(format!("{name} {version}: it comes from {source}"));
                }
            }
        }
        for ban in &self.bans.deny {
            match versions.get(&ban.name).map(Vec::as_slice) {
                None | Some([_]) if ban.several => {}
                None => {}
                Some(found) => problems.push(format!("{}: {}", ban.name, found.join(", "))),
            }
        }
        let doubles = versions.iter().filter(|(_, versions)| versions.len() > 1);
        let doubles = doubles.map(|(name, versions)| format!("{name}: {}", versions.join(", ")));
        Ok((problems, doubles.collect()))
    }

    fn licence(&self, package: &Package, allowed: &[Licensee]) -> Result<()> {
        let mut clarified = self.licenses.clarify.iter();
        let clarified = clarified.find(|one| one.name == package.name);
        let text = match (clarified, &package.license) {
            (Some(clarified), _) => &clarified.expression,
            (None, Some(text)) => text,
            (None, None) => bail!("it declares no licence"),
        };
        let expression = Expression::parse_mode(text, ParseMode::LAX)
            .with_context(|| format!("its licence cannot be read: {text}"))?;
        let is_met = |wanted: &spdx::LicenseReq| allowed.iter().any(|one| one.satisfies(wanted));
        if !expression.evaluate(is_met) {
            bail!("its licence is {text}");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, version: &str, license: Option<&str>, source: &str) -> Package {
        Package {
            name: name.into(),
            version: version.into(),
            license: license.map(str::to_owned),
            source: (!source.is_empty()).then(|| source.to_owned()),
        }
    }

    #[test]
    fn violations_are_reported() {
        let text = fs::read_to_string(root().join("deny.toml")).unwrap();
        let rules: Rules = toml::from_str(&text).unwrap();
        let registry = "registry+https://github.com/rust-lang/crates.io-index";
        let mit = Some("MIT/Apache-2.0");
        let good = [
            package("own", "0.1.0", Some("Apache-2.0"), ""),
            package(
                "a",
                "1.0.0",
                Some("(MIT OR GPL-3.0-only) AND Unicode-3.0"),
                registry,
            ),
            package("rsip", "0.4.0", None, registry),
            package("wasmtime", "48.0.0", mit, registry),
            package("b", "1.0.0", mit, registry),
            package("b", "2.0.0", mit, registry),
        ];
        let (problems, doubles) = rules.judge(&good).unwrap();
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(doubles, ["b: 1.0.0, 2.0.0"]);

        let bad = [
            package("gpl", "1.0.0", Some("MIT AND GPL-3.0-only"), registry),
            package("unnamed", "1.0.0", None, registry),
            package("elsewhere", "1.0.0", mit, "git+https://example.com/x"),
            package("openssl", "1.0.0", mit, registry),
            package("wasmtime", "48.0.0", mit, registry),
            package("wasmtime", "49.0.0", mit, registry),
        ];
        let (problems, _) = rules.judge(&bad).unwrap();
        let expected = [
            "gpl 1.0.0: its licence is MIT AND GPL-3.0-only",
            "unnamed 1.0.0: it declares no licence",
            "elsewhere 1.0.0: it comes from git+https://example.com/x",
            "openssl: 1.0.0",
            "wasmtime: 48.0.0, 49.0.0",
        ];
        assert_eq!(problems, expected);
    }
}
