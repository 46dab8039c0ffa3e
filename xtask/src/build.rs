//! `cargo xtask build`

use std::path::PathBuf;

use anyhow::Result;

use crate::process::{cargo, run as run_command};
use crate::wasm;
use crate::workspace::{Workspace, root};

/// Build target/release/portcullis and target/policies/*.wasm
///
/// Policies are compiled by the Rust in use if it can (`rustup target add wasm32-unknown-unknown` is tried), else by Debian's
/// packages rustc-web, cargo-web, rust-web-src and lld-19, which are installed when this runs as root. What is up to date is not
/// built again.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Build the policies only
    #[arg(long)]
    policies: bool,
    /// Build the policies of the tests as well
    #[arg(long)]
    tests: bool,
}

/// How the host is compiled. Policies are always optimised.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Profile {
    Debug,
    Release,
}

/// What a build leaves.
pub(crate) struct Built {
    pub(crate) portcullis: PathBuf,
    pub(crate) policies: Vec<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::own()?;
    let mut files = match args.tests {
        true => policies_with_tests(&workspace)?,
        false => policies(&workspace)?,
    };
    if !args.policies {
        files.insert(0, host(&workspace, Profile::Release)?);
    }
    for file in files {
        println!("{} ({} bytes)", file.display(), file.metadata()?.len());
    }
    Ok(())
}

/// Everything that runs.
pub(crate) fn all(profile: Profile) -> Result<Built> {
    let workspace = Workspace::own()?;
    let policies = policies(&workspace)?;
    Ok(Built {
        portcullis: host(&workspace, profile)?,
        policies,
    })
}

/// The policies of this repository, as .wasm files.
pub(crate) fn policies(workspace: &Workspace) -> Result<Vec<PathBuf>> {
    let policies: Vec<_> = workspace.policies().collect();
    wasm::compile(&policies, &workspace.target.join("policies"))
}

/// These and those of the tests, as .wasm files.
pub(crate) fn policies_with_tests(workspace: &Workspace) -> Result<Vec<PathBuf>> {
    let policies = workspace.policies().chain(workspace.test_policies());
    let policies: Vec<_> = policies.collect();
    wasm::compile(&policies, &workspace.target.join("policies"))
}

fn host(workspace: &Workspace, profile: Profile) -> Result<PathBuf> {
    let mut build = cargo();
    build
        .current_dir(root())
        .args(["build", "--package", "portcullis"]);
    let folder = match profile {
        Profile::Debug => "debug",
        Profile::Release => {
            build.arg("--release");
            "release"
        }
    };
    run_command(&mut build)?;
    Ok(workspace.target.join(folder).join("portcullis"))
}
