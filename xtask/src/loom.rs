//! `cargo xtask loom`

use anyhow::Result;

use crate::process::{cargo, run as run_command};
use crate::workspace::{Workspace, root};

/// The crates with models: small ones, because everything below them is built for loom as well.
const CRATES: [&str; 3] = ["portcullis-guard", "portcullis-rate", "portcullis-sync"];

/// Run the concurrent parts in every order of memory accesses that the memory model permits
///
/// The models are unit tests in modules named `models`, which loom runs. They are compiled with `--cfg loom`,
/// in a directory of their own, target/loom.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only the models whose names contain this
    filter: Option<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    models(args.filter.as_deref())
}

/// Runs all models, as one of the checks.
pub(crate) fn check() -> Result<()> {
    models(None)
}

fn models(filter: Option<&str>) -> Result<()> {
    let target = Workspace::own()?.target.join("loom");
    let mut test = cargo();
    test.current_dir(root())
        .env("CARGO_ENCODED_RUSTFLAGS", "--cfg\x1floom")
        .args(["test", "--lib", "--target-dir"])
        .arg(target)
        .args(CRATES.iter().flat_map(|name| ["--package", name]))
        .args(filter);
    run_command(&mut test)
}
