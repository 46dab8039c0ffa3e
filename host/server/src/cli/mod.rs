//! The command line: what a person types, and what comes of it.

mod address;
mod answer;
mod check;
mod check_tables;
mod client;
mod database;
mod db;
mod findings;
mod import;
mod policy;
mod print;
mod probe;
mod replay;
mod rules;
mod tenant;
mod trusted;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::compiler::{self, Bounds};
use crate::config::Config;
use crate::error_text::one_line;

/// A SIP edge whose routing rules are WebAssembly files.
#[derive(Debug, Parser)]
#[command(name = "portcullis", version, arg_required_else_help = true)]
#[command(
    after_help = "`portcullis check --defaults` prints a configuration file with every key, its default and its meaning."
)]
pub struct Cli {
    /// The configuration file [default: ./portcullis.toml if it exists, else the built-in defaults]
    #[arg(short, long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the host until SIGTERM or SIGINT. SIGHUP reloads tenants, policies, tables and rules.
    Serve,
    /// Check configuration, tables, rules and policy without serving, and tell everything that is wrong.
    Check(check::Args),
    /// See and change the address table.
    #[command(subcommand)]
    Address(address::Command),
    /// See and change the table of trusted peers.
    #[command(subcommand)]
    Trusted(trusted::Command),
    /// Check, reload and try the allow and deny files.
    #[command(subcommand)]
    Rules(rules::Command),
    /// Create Kamailio's tables, and ours for pushed policies, where they are absent.
    #[command(subcommand)]
    Db(db::Command),
    /// Look at policies and reload the running one.
    #[command(subcommand)]
    Policy(policy::Command),
    /// See the tenants, and take over what the configuration file says of them.
    #[command(subcommand)]
    Tenant(tenant::Command),
    /// Make a configuration file from Kamailio's.
    Import(import::Args),
    /// Let a policy decide again what was recorded or captured, and show what it decides otherwise.
    ///
    /// Standard output is the same each time for the same input. The exit code is 1 if a decision differs that was not expected to.
    Replay(replay::Args),
    /// Send one request and show the answer.
    Probe(probe::Args),
    /// Compile a policy from standard input for the host that started this.
    #[command(name = Bounds::COMMAND, hide = true)]
    Compile(Bounds),
    /// Answer every SIP request with 200, to try a host out.
    Answer(answer::Args),
}

impl Cli {
    /// Does what the command says. Errors go to standard error, and the exit code tells of them.
    pub fn run(self) -> ExitCode {
        match self.dispatch() {
            Ok(code) => code,
            // Whoever reads our output has read enough (`portcullis address dump | head`).
            Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {}", one_line(&error));
                ExitCode::FAILURE
            }
        }
    }

    fn dispatch(self) -> anyhow::Result<ExitCode> {
        let named = self.config.as_deref();
        match self.command {
            Command::Serve => {
                let (config, path) = Config::find(named)?;
                crate::serve::run(config, path)
            }
            Command::Check(args) => check::run(&args, named),
            Command::Address(command) => command.run(&Config::find(named)?.0),
            Command::Trusted(command) => command.run(&Config::find(named)?.0),
            Command::Rules(command) => command.run(&Config::find(named)?.0),
            Command::Db(command) => command.run(&Config::find(named)?.0),
            Command::Policy(command) => command.run(|| Ok(Config::find(named)?.0)),
            Command::Tenant(command) => command.run(&Config::find(named)?.0),
            Command::Import(args) => import::run(&args),
            Command::Replay(args) => replay::run(&args, &Config::find(named)?.0),
            Command::Probe(args) => probe::run(&args),
            Command::Compile(bounds) => Ok(compiler::work(&bounds)),
            Command::Answer(args) => answer::run(&args),
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_configuration_can_be_named_before_and_behind_the_command() {
        for words in [
            ["portcullis", "--config", "a.toml", "serve"],
            ["portcullis", "serve", "-c", "a.toml"],
        ] {
            let cli = Cli::try_parse_from(words).unwrap();
            assert_eq!(cli.config, Some("a.toml".into()));
            assert!(matches!(cli.command, Command::Serve));
        }
    }
}
