//! The static binary, and the tarball that contains it.

use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use super::archive::{gzip, tar};
use super::flavour::Flavour;
use super::notices::Dependencies;
use super::release::Release;
use super::tree::{Parts, Tree};
use crate::build::Profile;
use crate::debian::{self, Need};
use crate::process::{cargo, find, run as run_command};
use crate::workspace::{Workspace, root};

/// The compiler for the C libraries among the dependencies.
const MUSL: Need = Need {
    name: "musl-gcc",
    package: "musl-tools",
};

/// Builds the host with musl as its C library, as packages are built; with `no_build`, returns what was built before.
pub(super) fn host(workspace: &Workspace, no_build: bool) -> Result<PathBuf> {
    let target = format!("{ARCH}-unknown-linux-musl");
    let folder = workspace.target.join(&target);
    let built = folder.join(Profile::Dist.folder()).join("portcullis");
    if no_build {
        if !built.is_file() {
            bail!(
                "there is no {}: leave out --no-build or --static",
                built.display()
            );
        }
        return Ok(built);
    }
    debian::require(&[MUSL])?;
    if find("rustup").is_some() {
        run_command(Command::new("rustup").args(["target", "add", &target]))?;
    }
    run_command(
        cargo()
            .current_dir(root())
            .args(["build", "--package=portcullis-server"])
            .args(["--profile", Profile::Dist.name(), "--target", &target]),
    )?;
    Ok(built)
}

/// Packs a static binary with the files of the packages; returns the tarball.
pub(super) fn package(
    workspace: &Workspace,
    host: &Path,
    release: &Release,
    folder: &Path,
) -> Result<PathBuf> {
    let name = format!("portcullis-{}-linux-{ARCH}", release.version);
    let dependencies = Dependencies::of_host()?;
    let parts = Parts::prepare(workspace, host, release, &dependencies, folder)?;
    let tree = Tree::lay(&parts, Flavour::Static, &folder.join(&name))?;

    let file = folder.join(format!("{name}.tar"));
    run_command(
        tar(release, 0)
            .args(["--create", "--file"])
            .arg(&file)
            .arg("--directory")
            .arg(folder)
            .arg(&name),
    )?;
    gzip(&file)?;
    fs::remove_dir_all(tree.root())?;
    fs::remove_dir_all(parts.folder())?;
    Ok(file.with_extension("tar.gz"))
}
