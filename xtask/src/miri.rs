//! `cargo xtask miri`

use std::process::Command;

use anyhow::{Result, bail};

use crate::process::{capture, run as run_command};
use crate::workspace::{Workspace, root};

/// The crates with `unsafe` code that Miri can run. `portcullis-policy` is not among them: it runs machine code.
const CRATES: [&str; 2] = ["portcullis-sdk", "portcullis-udp"];

/// The tests use sockets and the clock, which Miri otherwise isolates them from.
const FLAGS: &str = "-Zmiri-disable-isolation";

/// Run unit tests of unsafe code in Miri, which finds undefined behaviour
///
/// Needs a nightly compiler with Miri: `rustup toolchain install nightly --profile minimal --component miri,rust-src`. It is not part
/// of `cargo xtask test`. Tests that need system calls which Miri does not know are marked `cfg_attr(miri, ignore)`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The toolchain
    #[arg(long, default_value = "nightly")]
    toolchain: String,
    /// Only the tests whose names contain this
    filter: Option<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let toolchain = &args.toolchain;
    if let Err(error) = capture(miri(toolchain).arg("--version")) {
        bail!(
            "there is no Miri: {error:#}\ninstall it: rustup toolchain install {toolchain} --profile minimal --component miri,rust-src"
        );
    }
    let target = Workspace::own()?.target.join("miri");
    let mut test = miri(toolchain);
    test.current_dir(root())
        .env("MIRIFLAGS", FLAGS)
        .args(["test", "--lib", "--target-dir"])
        .arg(target)
        .args(CRATES.iter().flat_map(|name| ["--package", name]))
        .args(&args.filter);
    run_command(&mut test)
}

/// `cargo miri` of another toolchain than the one that runs this program.
fn miri(toolchain: &str) -> Command {
    let mut command = Command::new("rustup");
    command
        .args(["run", toolchain, "cargo", "miri"])
        .env_remove("CARGO")
        .env_remove("RUSTC")
        .env_remove("RUSTUP_TOOLCHAIN");
    command
}
