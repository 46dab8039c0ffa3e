//! Which version is packaged.

use std::env;
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::capture;
use crate::workspace::root;

/// The version, and the time that all files of its packages have.
#[derive(Clone, Debug)]
pub(crate) struct Release {
    pub(crate) version: String,
    /// Number of the packages of this version, from 1.
    pub(crate) revision: u32,
    /// In seconds since 1970.
    pub(crate) epoch: u64,
}

/// Whom the packages name: `authors` of the workspace. Reports of vulnerabilities go another way, which SECURITY.md describes.
pub(crate) const MAINTAINER: &str = env!("CARGO_PKG_AUTHORS");

/// Warns about an address that cannot exist (RFC 2606 §2), which packages for others must not name.
pub(crate) fn warn_of_maintainer() {
    if MAINTAINER.contains(".example>") {
        println!(
            "the packages name the maintainer \"{MAINTAINER}\", whose address does not exist: set `authors` in Cargo.toml before a release"
        );
    }
}

impl Release {
    /// The version of this program, which is that of the workspace, at the time of SOURCE_DATE_EPOCH or of the last commit.
    pub(crate) fn of_workspace() -> Result<Self> {
        let epoch = match env::var("SOURCE_DATE_EPOCH") {
            Ok(epoch) => epoch,
            Err(_) => capture(Command::new("git").current_dir(root()).args([
                "log",
                "-1",
                "--format=%ct",
            ]))
            .context(
                "SOURCE_DATE_EPOCH is not set, and git does not tell the time of the last commit",
            )?,
        };
        Ok(Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: 1,
            epoch: epoch
                .trim()
                .parse()
                .context("SOURCE_DATE_EPOCH is no number of seconds")?,
        })
    }

    /// Formats the time as the program `date` does.
    pub(crate) fn date(&self, format: &str) -> Result<String> {
        let mut date = Command::new("date");
        date.env("LC_ALL", "C")
            .args(["--utc", "--date"])
            .arg(format!("@{}", self.epoch))
            .arg(format!("+{format}"));
        Ok(capture(&mut date)?.trim().to_owned())
    }
}
