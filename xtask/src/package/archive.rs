//! Directories and archives whose bytes depend on names and content only.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::release::Release;
use crate::process::capture;

/// Creates the directory without the content that it had.
pub(super) fn fresh(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)
            .with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))
}

/// Replaces a file by FILE.gz, without its name and time.
pub(super) fn gzip(file: &Path) -> Result<()> {
    let mut gzip = Command::new("gzip");
    capture(gzip.args(["-9", "--no-name", "--force"]).arg(file)).map(drop)
}

/// Returns a command for tar, whose files have the time of the release and this owner and group.
pub(super) fn tar(release: &Release, owner: u32) -> Command {
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "--numeric-owner", "--format=gnu"])
        .arg(format!("--mtime=@{}", release.epoch))
        .arg(format!("--owner={owner}"))
        .arg(format!("--group={owner}"));
    tar
}
