//! `cargo xtask book`

use std::path::PathBuf;

use anyhow::Result;

use crate::process::{cargo, run as run_command};
use crate::workspace::{Workspace, root};

/// Build the book of the documentation, in target/book/html
///
/// The pages are those of docs/SUMMARY.md. The program that builds it is a workspace of its own, docs/book, with mdBook's library. Its links are
/// checked; what the pages say is checked by `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_: &Args) -> Result<()> {
    let workspace = Workspace::own()?;
    let mut build = cargo();
    build
        .current_dir(root())
        .args(["run", "--quiet", "--locked", "--manifest-path"])
        .arg(manifest())
        .arg("--target-dir")
        .arg(workspace.target.join("book-build"))
        .arg("--")
        .arg(root())
        .arg(workspace.target.join("book"));
    run_command(&mut build)
}

/// The program's workspace.
pub(crate) fn manifest() -> PathBuf {
    root().join("docs/book/Cargo.toml")
}
