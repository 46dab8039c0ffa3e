//! The static binary, and the tarball that contains it.

use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::archive::{gzip, tar};
use super::flavour::Flavour;
use super::notices::Dependencies;
use super::release::Release;
use super::tree::{Parts, Tree};
use crate::build::Profile;
use crate::debian::Need;
use crate::process::{capture, cargo, find, run as run_command};
use crate::workspace::{Workspace, root};

/// The compiler for the C libraries among the dependencies.
pub(super) const MUSL: Need = Need {
    name: "musl-gcc",
    package: "musl-tools",
};

/// Where distributions have the licence of musl, which the binary contains.
const LICENCES: [&str; 3] = [
    "/usr/share/doc/musl-tools/copyright",
    "/usr/share/doc/musl/copyright",
    "/usr/share/licenses/musl/COPYRIGHT",
];

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
    if find("rustup").is_some() {
        // In the directory that says which compiler is used.
        let mut add = Command::new("rustup");
        run_command(add.current_dir(root()).args(["target", "add", &target]))?;
    }
    run_command(
        cargo()
            .current_dir(root())
            .env(flags_of(&target), "-C target-feature=+crt-static")
            .args(["build", "--package=portcullis-server"])
            .args(["--profile", Profile::Dist.name(), "--target", &target]),
    )?;
    Ok(built)
}

/// Cargo's variable with the flags of the compiler for a target. Without flags, it depends on the compiler whether musl is linked statically.
fn flags_of(target: &str) -> String {
    let name = target.to_uppercase().replace('-', "_");
    format!("CARGO_TARGET_{name}_RUSTFLAGS")
}

/// # Errors
/// If the binary needs a library of the machine on which it runs.
fn must_be_static(host: &Path) -> Result<()> {
    let mut readelf = Command::new("readelf");
    let headers = capture(readelf.args(["--program-headers", "--wide"]).arg(host))?;
    if names_an_interpreter(&headers) {
        bail!(
            "{} is linked dynamically: RUSTFLAGS, if it is set, must have -C target-feature=+crt-static",
            host.display()
        );
    }
    Ok(())
}

/// Whether these program headers have one for the dynamic linker.
fn names_an_interpreter(headers: &str) -> bool {
    let mut lines = headers.lines();
    lines.any(|line| line.trim_start().starts_with("INTERP "))
}

/// Packs a static binary with the files of the packages; returns the tarball.
pub(super) fn package(
    workspace: &Workspace,
    host: &Path,
    release: &Release,
    folder: &Path,
) -> Result<PathBuf> {
    must_be_static(host)?;
    let mut licences = LICENCES.map(Path::new).into_iter();
    let licence = licences.find(|path| path.is_file()).with_context(|| {
        format!(
            "the licence of musl, which the binary contains, is at none of {}",
            LICENCES.join(", ")
        )
    })?;
    let name = format!("portcullis-{}-linux-{ARCH}", release.version);
    let dependencies = Dependencies::of_host()?;
    let parts = Parts::prepare(workspace, host, release, &dependencies, folder)?;
    let tree = Tree::lay(&parts, Flavour::Static, &folder.join(&name))?;
    tree.copy(licence, "usr/share/doc/portcullis/musl.copyright", 0o644)?;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_binary_is_recognised() {
        let line = "  INTERP         0x000350 0x0000000000000350 0x0000000000000350 0x00001c 0x00001c R   0x1\n";
        let load = "  LOAD           0x000000 0x0000000000000000 0x0000000000000000 0x000ff0 0x000ff0 R   0x1000\n";
        assert!(names_an_interpreter(&format!("{load}{line}")));
        assert!(!names_an_interpreter(load));
    }

    #[test]
    fn cargo_gets_the_flags_of_one_target() {
        assert_eq!(
            flags_of("x86_64-unknown-linux-musl"),
            "CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_RUSTFLAGS"
        );
    }
}
