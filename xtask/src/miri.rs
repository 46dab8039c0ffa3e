//! `cargo xtask miri`

use std::process::Command;

use anyhow::{Result, bail};

use crate::process::{capture, run as run_command};
use crate::workspace::{Workspace, root};

/// The packages with unsafe code that Miri can run, and the tests: all, or those whose names contain one of these. The other tests of
/// `host/udp` use sockets, which Miri does not have: its `polled`, `system::option` and `system::portable` do nothing without one.
/// `portcullis-policy` is not among the packages: its unsafe code loads machine code, and asks the scheduler of the system.
const TESTED: [(&str, &[&str]); 2] = [
    ("portcullis-sdk", &[]),
    (
        "portcullis-udp",
        &[
            "channel::tests::an_attached_descriptor",
            "channel::tests::one_descriptor",
            "system::linux",
            "system::name",
            "system::reports",
        ],
    ),
];

/// The tests use the clock, which Miri otherwise isolates them from.
const FLAGS: &str = "-Zmiri-disable-isolation";

/// Run unit tests of unsafe code in Miri, which finds undefined behaviour
///
/// Needs a nightly compiler with Miri: `rustup toolchain install nightly --profile minimal --component miri,rust-src`. It is not part
/// of `cargo xtask test`.
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
    for (package, tests) in TESTED {
        let mut test = miri(toolchain);
        test.current_dir(root())
            .env("MIRIFLAGS", FLAGS)
            .args(["test", "--lib", "--package", package, "--target-dir"])
            .arg(&target)
            .arg("--");
        match &args.filter {
            Some(filter) => test.arg(filter),
            None => test.args(tests),
        };
        run_command(&mut test)?;
    }
    Ok(())
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
