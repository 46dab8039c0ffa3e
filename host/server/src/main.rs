//! The `portcullis` binary.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    portcullis_server::serve::hold_upgrades();
    portcullis_server::cli::Cli::parse().run()
}
