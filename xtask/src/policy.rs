//! `cargo xtask policy`

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::wasm;
use crate::workspace::Workspace;

/// Compile a policy crate in any directory to a .wasm file
///
/// The file is written next to the crate's Cargo.toml as NAME.wasm, and its path is printed. It is written atomically, so that a running
/// host may use it as its policy file.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The directory of the crate, or its Cargo.toml
    #[arg(value_name = "PATH")]
    path: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let manifest = manifest(&args.path)?;
    let workspace = Workspace::of(&manifest)?;
    let package = workspace
        .packages
        .iter()
        .find(|package| package.manifest_path == manifest)
        .with_context(|| {
            format!(
                "{} is a workspace, not a crate: choose the directory of the policy",
                manifest.display()
            )
        })?;
    if package.library().is_none() {
        bail!(
            "{} is not built as a policy: add to {}\n\n    [lib]\n    crate-type = [\"cdylib\"]\n",
            package.name,
            manifest.display()
        );
    }

    let folder = manifest.parent().unwrap_or_else(|| Path::new("/"));
    for file in wasm::compile(&wasm::compiler()?, &[package], folder)? {
        println!("{} ({} bytes)", file.display(), file.metadata()?.len());
    }
    Ok(())
}

fn manifest(path: &Path) -> Result<PathBuf> {
    let file = if path.is_dir() {
        path.join("Cargo.toml")
    } else {
        path.to_owned()
    };
    if !file.is_file() {
        bail!(
            "{} does not exist: choose the directory of a policy crate",
            file.display()
        );
    }
    file.canonicalize()
        .with_context(|| format!("cannot read {}", file.display()))
}
