//! The command line.

mod address;
mod alert;
mod answer;
mod apply;
mod audit;
mod check;
mod check_hops;
mod check_listen;
mod check_peers;
mod check_tables;
mod check_tls;
mod client;
mod completions;
mod config;
mod database;
mod db;
mod dispatcher;
mod doctor;
mod events;
mod findings;
mod fleet;
mod followed;
mod guard;
mod https;
mod import;
mod man;
mod media;
#[cfg(test)]
mod pages;
mod policy;
mod print;
mod probe;
mod replay;
mod resolve;
mod rollout;
mod rules;
mod status;
mod tenant;
mod tls;
mod trace;
mod trusted;
mod way;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use portcullis_config::{Config, ConfigError};
use portcullis_text::{clean, clean_lines, one_line};

use portcullis_rollout::compiler::{self, Bounds};

use client::Remote;

/// A SIP edge whose routing rules are WebAssembly files.
#[derive(Debug, Parser)]
#[command(name = "portcullis", version, arg_required_else_help = true)]
#[command(
    after_help = "`portcullis check --defaults` prints a configuration file with every key, its default and its meaning."
)]
pub struct Cli {
    /// The configuration file [default: ./portcullis.toml, else /etc/portcullis/portcullis.toml, else the built-in defaults]
    #[arg(short, long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the host until SIGTERM or SIGINT. SIGHUP reloads tenants, policies, tables, rules and certificates.
    Serve,
    /// Check configuration, tables, rules and policy without serving, and report every error.
    Check(check::Args),
    /// Describe the configuration file for editors.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Say what this machine lacks: compilers, rights, ports, limits, each with what to do. The exit code is 1 only for failures.
    Doctor(doctor::Args),
    /// Show how the running host is doing: what is wrong first, then its tables, its policy and its transactions.
    ///
    /// The exit code is 1 if the host is not ready.
    Status(status::Args),
    /// List the conditions of the running host that need attention, and acknowledge them.
    Alert(Remote<alert::AlertCommand>),
    /// Follow the events of the running host, as its log has them.
    Events(events::Args),
    /// Show and change the address table.
    Address(Remote<address::AddressCommand>),
    /// Show and change the table of trusted peers.
    Trusted(Remote<trusted::TrustedCommand>),
    /// Show and change the sets of the dispatcher, and the states of their destinations.
    Dispatcher(Remote<dispatcher::DispatcherCommand>),
    /// Check, reload and test the allow and deny files.
    Rules(Remote<rules::RulesCommand>),
    /// Show the hosts on the same database, drain one of them, and forget those that are gone.
    Fleet(Remote<fleet::FleetCommand>),
    /// List and release the sources that the running host holds or bans.
    Guard(Remote<guard::GuardCommand>),
    /// Create the tables of Kamailio and of Portcullis where they are missing.
    #[command(subcommand)]
    Db(db::DbCommand),
    /// Write, test, deploy, show and roll back policies.
    Policy(Remote<policy::PolicyCommand>),
    /// Show tenants, store and remove those of the database, and apply changes of the configuration file.
    Tenant(Remote<tenant::TenantCommand>),
    Apply(apply::ApplyArgs),
    Diff(apply::DiffArgs),
    Export(apply::ExportArgs),
    /// Show and reload the certificates of SIP over TLS; list and end connections.
    Tls(Remote<tls::TlsCommand>),
    /// Trace messages on the running host: which policies were called, what was decided, where messages went, and why not.
    Trace(trace::Args),
    /// List what operators and tenants have done, the newest first.
    ///
    /// With a database, these are the actions on all its hosts; else the last 1,000 of the running host. A tenant sees its own.
    Audit(audit::Args),
    /// Translate Kamailio's configuration.
    Import(import::Args),
    /// Replay recorded or captured requests against a policy, and show where its decisions differ.
    ///
    /// Standard output is deterministic. The exit code is 0 if no decision differs; 1 if one differs that was not expected, and for errors;
    /// 2 if there was nothing to replay. The output first lists the parts of a capture that could not be parsed.
    Replay(replay::Args),
    /// Show where a URI leads: each DNS query with its answer, and the addresses in the order in which they are tried.
    Resolve(resolve::Args),
    /// Send one request and print the response.
    Probe(probe::Args),
    /// Compile a policy from standard input for the host that started this.
    #[command(name = Bounds::COMMAND, hide = true)]
    Compile(Bounds),
    /// Answer every SIP request with 200, for testing a host.
    Answer(answer::Args),
    /// Print the completions of the command line for a shell.
    Completions(completions::Args),
    /// Write the manual pages: one for each command, and portcullis.toml(5).
    Man(man::Args),
}

impl Cli {
    /// Executes the command. Errors are printed to standard error and determine the exit code.
    pub fn run(self) -> ExitCode {
        match self.dispatch() {
            Ok(code) => code,
            // The reader of the output has closed the pipe (`portcullis address dump | head`).
            Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {}", shown(&error));
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
            Command::Config(command) => command.run(),
            Command::Doctor(args) => doctor::run(&args, || Ok(Config::find(named)?.0)),
            Command::Status(args) => status::run(&args, &Config::find(named)?.0),
            Command::Alert(remote) => {
                let (command, reach) = remote.checked()?;
                command.run(&Config::find(named)?.0, &reach)
            }
            Command::Events(args) => events::run(&args, &Config::find(named)?.0),
            Command::Address(remote) => {
                let (command, reach) = remote.checked()?;
                command.run(&Config::find(named)?.0, &reach)
            }
            Command::Trusted(remote) => {
                let (command, reach) = remote.checked()?;
                command.run(&Config::find(named)?.0, &reach)
            }
            Command::Dispatcher(remote) => {
                let (command, reach) = remote.checked()?;
                command.run(&Config::find(named)?.0, &reach)
            }
            Command::Rules(remote) => {
                let (command, reach) = remote.checked()?;
                command.run(&Config::find(named)?.0, &reach)
            }
            Command::Fleet(remote) => {
                let (command, reach) = remote.checked()?;
                command.run(&Config::find(named)?.0, &reach)
            }
            Command::Guard(remote) => {
                let (command, reach) = remote.checked()?;
                command.run(&Config::find(named)?.0, &reach)
            }
            Command::Db(command) => command.run(&Config::find(named)?.0),
            Command::Policy(remote) => {
                let (command, reach) = remote.checked()?;
                command.run(|| Ok(Config::find(named)?), &reach)
            }
            Command::Tenant(remote) => {
                let (command, reach) = remote.checked()?;
                command.run(&Config::find(named)?.0, &reach)
            }
            Command::Apply(args) => apply::apply(&args, &Config::find(named)?.0),
            Command::Diff(args) => apply::diff(&args, &Config::find(named)?.0),
            Command::Export(args) => apply::export(&args, &Config::find(named)?.0),
            Command::Tls(remote) => {
                let (command, reach) = remote.checked()?;
                command.run(&Config::find(named)?.0, &reach)
            }
            Command::Trace(args) => trace::run(&args, &Config::find(named)?.0),
            Command::Audit(args) => audit::run(&args, &Config::find(named)?.0),
            Command::Import(args) => import::run(&args),
            Command::Replay(args) => replay::run(&args, &Config::find(named)?.0),
            Command::Resolve(args) => resolve::run(&args, named),
            Command::Probe(args) => probe::run(&args, named),
            Command::Compile(bounds) => Ok(compiler::work(&bounds)),
            Command::Answer(args) => answer::run(&args),
            Command::Completions(args) => completions::run(&args, Self::command()),
            Command::Man(args) => man::run(&args, Self::command()),
        }
    }
}

/// An error, escaped for a terminal. Only configuration errors have several lines, each escaped already.
fn shown(error: &anyhow::Error) -> String {
    let line = one_line(error);
    match error.is::<ConfigError>() {
        true => clean_lines(&line).into_owned(),
        false => clean(&line).into_owned(),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn url_and_ca_are_refused_where_they_have_no_effect() {
        let refused = |words: &str| {
            let parts = words.split_whitespace();
            let cli = Cli::try_parse_from(["portcullis"].into_iter().chain(parts)).unwrap();
            let error = if let Command::Address(remote) = cli.command {
                remote.checked().err()
            } else if let Command::Trusted(remote) = cli.command {
                remote.checked().err()
            } else if let Command::Dispatcher(remote) = cli.command {
                remote.checked().err()
            } else if let Command::Rules(remote) = cli.command {
                remote.checked().err()
            } else if let Command::Policy(remote) = cli.command {
                remote.checked().err()
            } else if let Command::Tenant(remote) = cli.command {
                remote.checked().err()
            } else {
                panic!("{words:?} reaches no host")
            };
            error.map(|error| error.to_string())
        };
        for (words, reason) in [
            (
                "address add 1 10.0.0.1 --url https://a",
                "--url does not apply to `address add`: it works on the database of the configuration (`url` in [database], or \
                 PORTCULLIS_DATABASE_URL)",
            ),
            (
                "trusted --ca a.pem rm 10.0.0.1",
                "--ca does not apply to `trusted rm`: it works on the database of the configuration (`url` in [database], or \
                 PORTCULLIS_DATABASE_URL)",
            ),
            (
                "rules check --url https://a",
                "--url does not apply to `rules check`: it does not speak to a running host",
            ),
            (
                "policy tags oci://a/b --ca a.pem",
                "--ca does not apply to `policy tags`: it is for the control port; SSL_CERT_FILE names the authorities for registries",
            ),
            (
                "policy pull oci://a/b --url https://a",
                "--url does not apply to `policy pull`: it speaks to the registry that oci://HOST names",
            ),
            (
                "policy sign a.wasm --key a.pem --url https://a",
                "--url does not apply to `policy sign`: it does not speak to a running host",
            ),
            (
                "policy bench a.wasm --url https://a",
                "--url does not apply to `policy bench`: it does not speak to a running host",
            ),
        ] {
            assert_eq!(refused(words).as_deref(), Some(reason), "{words}");
        }
        for words in [
            "address add 1 10.0.0.1",
            "address dump --url https://a",
            "trusted reload --ca a.pem",
            "rules reload --url https://a",
            "policy pull acme --url https://a --ca a.pem",
            "policy push acme oci://a/b --url https://a",
            "tenant list --url https://a",
        ] {
            assert_eq!(refused(words), None, "{words}");
        }
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
