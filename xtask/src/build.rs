//! `cargo xtask build`

use std::path::PathBuf;

use anyhow::Result;

use crate::process::{cargo, run as run_command};
use crate::wasm;
use crate::workspace::{Workspace, root};

/// Build target/debug/portcullis and target/policies/*.wasm
///
/// With --release, the host is built as packages have it: target/dist/portcullis. Policies are compiled by the Rust in use if it can (`rustup target add wasm32-unknown-unknown` is tried), else by Debian's
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
    /// Optimise the host over all crates, as packages have it, which takes many minutes of processor time
    #[arg(long, conflicts_with = "policies")]
    release: bool,
}

/// How the host is compiled. Policies are always optimised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// As tests are: soon, with the libraries that it uses optimised a little.
    Debug,
    /// As packages are: optimised over all crates.
    Dist,
}

impl Profile {
    /// The profile for a command with or without `--release`.
    pub(crate) fn of(is_release: bool) -> Self {
        match is_release {
            true => Self::Dist,
            false => Self::Debug,
        }
    }

    /// Cargo's name for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Debug => "dev",
            Self::Dist => "dist",
        }
    }

    /// The folder of what is built, in the target folder.
    pub(crate) fn folder(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Dist => "dist",
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::own()?;
    let mut files = match args.tests {
        true => policies_with_tests(&workspace)?,
        false => policies(&workspace)?,
    };
    if !args.policies {
        files.insert(0, host(&workspace, Profile::of(args.release))?);
    }
    for file in files {
        println!("{} ({} bytes)", file.display(), file.metadata()?.len());
    }
    Ok(())
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

/// The host; gives the path of its binary.
pub(crate) fn host(workspace: &Workspace, profile: Profile) -> Result<PathBuf> {
    program(workspace, profile, "portcullis-server", "portcullis")
}

/// A program of this repository; gives its path.
pub(crate) fn program(
    workspace: &Workspace,
    profile: Profile,
    package: &str,
    program: &str,
) -> Result<PathBuf> {
    let mut build = cargo();
    build
        .current_dir(root())
        .args(["build", "--profile", profile.name()])
        .args(["--package", package]);
    run_command(&mut build)?;
    Ok(built(workspace, profile, program))
}

/// Where a program is when it is built.
pub(crate) fn built(workspace: &Workspace, profile: Profile, program: &str) -> PathBuf {
    workspace.target.join(profile.folder()).join(program)
}
