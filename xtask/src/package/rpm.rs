//! The package for Fedora, Red Hat and SUSE.

use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::release::Release;
use super::tree::{CONFIGURATION, Tree};
use crate::process::run as run_command;
use crate::workspace::root;

/// Builds NAME.rpm in the folder from the tree.
pub(super) fn build(tree: &Tree, release: &Release, folder: &Path) -> Result<PathBuf> {
    tree.set_times()?;
    let spec = fs::read_to_string(root().join("packaging/rpm/portcullis.spec"))?
        .replace("@VERSION@", &release.version)
        .replace("@REVISION@", &release.revision.to_string())
        .replace("@TREE@", &fs::canonicalize(tree.root())?.to_string_lossy())
        .replace("@FILES@", &files(tree)?);
    let work = tempfile::tempdir_in(folder)?;
    let spec_file = work.path().join("portcullis.spec");
    fs::write(&spec_file, spec)?;
    run_command(
        Command::new("rpmbuild")
            .env("SOURCE_DATE_EPOCH", release.epoch.to_string())
            .args(["-bb", "--quiet", "--target", ARCH])
            .arg(format!("--define=_topdir {}", work.path().display()))
            .arg(&spec_file),
    )?;

    let name = format!(
        "portcullis-{}-{}.{ARCH}.rpm",
        release.version, release.revision
    );
    let built = work.path().join("RPMS").join(ARCH).join(&name);
    let file = folder.join(&name);
    fs::rename(&built, &file).with_context(|| format!("rpmbuild made no {}", built.display()))?;
    Ok(file)
}

/// Returns the lines of `%files`: directories that only this package has, and the files.
fn files(tree: &Tree) -> Result<String> {
    let mut lines = OWN_FOLDERS
        .map(|folder| format!("%dir %attr(0755,root,root) {folder}\n"))
        .concat();
    for file in tree.files()? {
        let path = file.to_string_lossy();
        let kind = match &*path {
            CONFIGURATION => "%config(noreplace) ",
            "usr/share/doc/portcullis/LICENSE" => "%license ",
            _ if path.starts_with("usr/share/doc/") || path.starts_with("usr/share/man/") => {
                "%doc "
            }
            _ => "",
        };
        let mode = match &*path {
            CONFIGURATION => "0640",
            "usr/bin/portcullis" | "usr/share/portcullis/setup" => "0755",
            _ => "0644",
        };
        lines += &format!("{kind}%attr({mode},root,root) \"/{path}\"\n");
    }
    Ok(lines)
}

const OWN_FOLDERS: [&str; 5] = [
    "/etc/portcullis",
    "/usr/share/portcullis",
    "/usr/share/portcullis/policies",
    "/usr/share/portcullis/wit",
    "/usr/share/doc/portcullis",
];
