//! `cargo xtask build`

use std::panic;
use std::path::PathBuf;
use std::thread;

use anyhow::Result;

use portcullis_toolchains::RustCompiler;

use crate::process::{cargo, run as run_command};
use crate::wasm;
use crate::workspace::{Workspace, root};

/// Build target/debug/portcullis and target/policies/*.wasm
///
/// With --release, the host is built as packages are: target/dist/portcullis. Policies are compiled by the installed Rust if possible
/// (`rustup target add wasm32-unknown-unknown` is tried), otherwise by Debian's packages rustc-web, cargo-web, rust-web-src and lld-19,
/// which are installed when this runs as root. Nothing that is up to date is built again.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Build the policies only
    #[arg(long)]
    policies: bool,
    /// Also build the policies of the tests
    #[arg(long)]
    tests: bool,
    /// Optimise the host across all crates, as packages are, which takes many minutes of CPU time
    #[arg(long, conflicts_with = "policies")]
    release: bool,
}

/// Which policies are compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Set {
    /// Those of this repository.
    Bundled,
    /// These and those that only tests have a use for.
    WithTests,
}

/// Profile of the host. Policies are always optimised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// As for tests: a short build, with some optimisation of the dependencies.
    Debug,
    /// As for packages: optimised across all crates.
    Dist,
}

impl Profile {
    /// Returns the profile for a command with or without `--release`.
    pub(crate) fn of(is_release: bool) -> Self {
        match is_release {
            true => Self::Dist,
            false => Self::Debug,
        }
    }

    /// Returns cargo's name of the profile.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Debug => "dev",
            Self::Dist => "dist",
        }
    }

    /// Returns the directory of the output, in the target directory.
    pub(crate) fn folder(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Dist => "dist",
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::own()?;
    let set = match args.tests {
        true => Set::WithTests,
        false => Set::Bundled,
    };
    let files = match args.policies {
        true => compile(&workspace, &wasm::compiler()?, set)?,
        false => {
            let (host, policies) = host_and_policies(&workspace, Profile::of(args.release), set)?;
            [vec![host], policies].concat()
        }
    };
    for file in files {
        println!("{} ({} bytes)", file.display(), file.metadata()?.len());
    }
    Ok(())
}

/// Builds the policies of this repository and those of the tests; returns the .wasm files.
pub(crate) fn policies_with_tests(workspace: &Workspace) -> Result<Vec<PathBuf>> {
    compile(workspace, &wasm::compiler()?, Set::WithTests)
}

/// Builds the host and the policies at the same time, because the host alone often leaves a processor idle.
pub(crate) fn host_and_policies(
    workspace: &Workspace,
    profile: Profile,
    set: Set,
) -> Result<(PathBuf, Vec<PathBuf>)> {
    // Checked first, so that a missing compiler is reported at once and not after minutes.
    let compiler = wasm::compiler()?;
    thread::scope(|scope| {
        let policies = scope.spawn(|| compile(workspace, &compiler, set));
        let host = host(workspace, profile);
        let policies = policies
            .join()
            .unwrap_or_else(|payload| panic::resume_unwind(payload));
        Ok((host?, policies?))
    })
}

fn compile(workspace: &Workspace, compiler: &RustCompiler, set: Set) -> Result<Vec<PathBuf>> {
    let mut policies: Vec<_> = workspace.policies().collect();
    if set == Set::WithTests {
        policies.extend(workspace.test_policies());
    }
    let folder = workspace.target.join("policies");
    let mut files = wasm::compile(compiler, &policies, &folder)?;
    let collections: &[&str] = match set {
        Set::Bundled => &["policies/recipes"],
        Set::WithTests => &["policies/recipes", "tests/imported"],
    };
    for name in collections {
        if let Some(package) = workspace.collection(name) {
            let folder = folder.join(&package.name);
            files.extend(wasm::compile_examples(compiler, package, &folder)?);
        }
    }
    Ok(files)
}

/// Builds the host; returns the path of its binary.
pub(crate) fn host(workspace: &Workspace, profile: Profile) -> Result<PathBuf> {
    program(workspace, profile, "portcullis-server", "portcullis")
}

/// Builds a program of this repository; returns its path.
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

/// Returns the path of a program after it is built.
pub(crate) fn built(workspace: &Workspace, profile: Profile, program: &str) -> PathBuf {
    workspace.target.join(profile.folder()).join(program)
}
