//! What a person or CI types: `cargo xtask build`, `run`, `test`, `bench`.

#![forbid(unsafe_code)]

mod bench;
mod build;
mod debian;
mod fuzz;
mod policy;
mod process;
mod run;
mod steps;
mod test;
mod wasm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Builds, runs, tests and measures Portcullis.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    arg_required_else_help = true
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Build(build::Args),
    Run(run::Args),
    Test(test::Args),
    Bench(bench::BenchArgs),
    Policy(policy::Args),
    Fuzz(fuzz::Args),
    #[command(hide = true)]
    Companion(run::CompanionArgs),
}

fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::Build(args) => build::run(&args),
        Verb::Run(args) => run::run(&args),
        Verb::Test(args) => test::run(&args),
        Verb::Bench(args) => bench::run(args),
        Verb::Policy(args) => policy::run(&args),
        Verb::Fuzz(args) => fuzz::run(&args),
        Verb::Companion(args) => run::companion(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
