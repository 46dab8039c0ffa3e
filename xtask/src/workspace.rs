//! Information from cargo about a crate and its workspace.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::process::{capture, cargo};

/// Returns the root of this repository.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// A workspace, or a single crate.
#[derive(Debug, Deserialize)]
pub(crate) struct Workspace {
    pub(crate) packages: Vec<Package>,
    /// Directory of the build output.
    #[serde(rename = "target_directory")]
    pub(crate) target: PathBuf,
}

/// One crate.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) manifest_path: PathBuf,
    targets: Vec<Target>,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
    crate_types: Vec<String>,
}

impl Workspace {
    /// Returns the workspace of this repository.
    pub(crate) fn own() -> Result<Self> {
        Self::of(&root().join("Cargo.toml"))
    }

    /// Returns the workspace of the crate with this manifest.
    pub(crate) fn of(manifest: &Path) -> Result<Self> {
        let mut metadata = cargo();
        metadata
            .args([
                "metadata",
                "--format-version=1",
                "--no-deps",
                "--manifest-path",
            ])
            .arg(manifest);
        serde_json::from_str(&capture(&mut metadata)?)
            .context("cargo metadata did not answer as expected")
    }

    /// Returns the policies of this repository.
    pub(crate) fn policies(&self) -> impl Iterator<Item = &Package> {
        self.policies_in("policies")
    }

    /// Returns the crate in this folder of the repository, whose examples are policies.
    pub(crate) fn collection(&self, folder: &str) -> Option<&Package> {
        let folder = root().join(folder);
        self.packages
            .iter()
            .find(|package| package.manifest_path.starts_with(&folder))
    }

    /// Returns the policies that only tests use.
    pub(crate) fn test_policies(&self) -> impl Iterator<Item = &Package> {
        self.policies_in("tests")
    }

    fn policies_in(&self, folder: &str) -> impl Iterator<Item = &Package> {
        let folder = root().join(folder);
        self.packages.iter().filter(move |package| {
            package.manifest_path.starts_with(&folder) && package.library().is_some()
        })
    }
}

impl Package {
    /// Returns the file name of the dynamic library, without its extension; `None` if the crate is not built as one.
    pub(crate) fn library(&self) -> Option<String> {
        let target = self
            .targets
            .iter()
            .find(|target| target.kind != ["example"] && target.is_dynamic())?;
        Some(target.name.replace('-', "_"))
    }

    /// Returns the names of the examples that are dynamic libraries: one policy each.
    pub(crate) fn examples(&self) -> impl Iterator<Item = &str> {
        self.targets
            .iter()
            .filter(|target| target.kind == ["example"] && target.is_dynamic())
            .map(|target| target.name.as_str())
    }

    /// Returns the names of its binaries.
    pub(crate) fn programs(&self) -> impl Iterator<Item = String> {
        self.targets
            .iter()
            .filter(|target| target.kind == ["bin"])
            .map(|target| target.name.clone())
    }
}

impl Target {
    fn is_dynamic(&self) -> bool {
        self.crate_types.iter().any(|kind| kind == "cdylib")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundled_policies_are_found() {
        let workspace = Workspace::own().expect("cargo metadata works");
        let policies: Vec<_> = workspace
            .policies()
            .map(|package| package.name.as_str())
            .collect();

        assert!(policies.contains(&"address-acl"), "{policies:?}");
        assert!(policies.contains(&"observe"), "{policies:?}");
        assert!(!policies.contains(&"portcullis-sdk"), "{policies:?}");
        assert!(!policies.contains(&"oracle"), "{policies:?}");
    }

    #[test]
    fn the_recipes_are_found() {
        let workspace = Workspace::own().expect("cargo metadata works");
        let recipes = workspace
            .collection("policies/recipes")
            .expect("the crate of the recipes");

        assert_eq!(recipes.library(), None);
        assert!(recipes.examples().any(|name| name == "emergency"));
    }

    #[test]
    fn libraries_are_named_as_rustc_names_them() {
        let package: Package = serde_json::from_str(
            r#"{"name": "my-policy", "manifest_path": "/x/Cargo.toml",
                "targets": [{"name": "my-policy", "kind": ["cdylib", "rlib"], "crate_types": ["cdylib", "rlib"]}]}"#,
        )
        .expect("a package");

        assert_eq!(package.library().as_deref(), Some("my_policy"));
    }
}
