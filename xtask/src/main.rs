//! What a person or CI types: `cargo xtask build`, `run`, `test`, `bench`, `book`, `soak`, `package`, `loom`, `miri`, `deny`.

#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

mod bench;
mod book;
mod build;
mod debian;
mod deny;
mod disk;
mod fuzz;
mod languages;
mod loom;
mod miri;
mod npm;
mod package;
mod policy;
mod process;
mod run;
mod schemathesis;
mod soak;
mod steps;
#[cfg(test)]
mod structure;
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
    Book(book::Args),
    Package(package::Args),
    Policy(policy::Args),
    Fuzz(fuzz::Args),
    /// Check licences, bans and sources of all crates that are used, as `deny.toml` says
    Deny,
    Languages(languages::Args),
    Loom(loom::Args),
    Miri(miri::Args),
    Soak(soak::Args),
    #[command(hide = true)]
    Companion(run::CompanionArgs),
}

fn main() -> ExitCode {
    let verb = Cli::parse().verb;
    run(verb).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(verb: Verb) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Build(args) => build::run(&args),
        Verb::Run(args) => run::run(&args),
        Verb::Test(args) => return test::run(&args),
        Verb::Bench(args) => bench::run(args),
        Verb::Book(args) => book::run(&args),
        Verb::Package(args) => package::run(&args),
        Verb::Policy(args) => policy::run(&args),
        Verb::Fuzz(args) => fuzz::run(&args),
        Verb::Deny => deny::check(),
        Verb::Languages(args) => languages::run(&args),
        Verb::Loom(args) => loom::run(&args),
        Verb::Miri(args) => miri::run(&args),
        Verb::Soak(args) => soak::run(&args),
        Verb::Companion(args) => run::companion(&args),
    }?;
    Ok(ExitCode::SUCCESS)
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
