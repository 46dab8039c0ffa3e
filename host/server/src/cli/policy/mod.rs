//! `portcullis policy …`: begin policies, inspect files, deploy them to the running host, and show their state.

mod adapt;
mod bench;
mod build;
mod dev;
mod inspect;
mod new;
mod offline;
mod profile;
mod publish;
mod registry;
mod run;
mod seat;
mod settings;
mod ship;
mod sign;
mod tags;
mod tail;
mod test;
mod wit;
mod work;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use portcullis_config::Config;
use portcullis_control::commands::policy::{PolicyReload, SeatStatus};
use serde_json::json;

pub(super) use inspect::state_of;
pub(super) use registry::{Connection, Verification};
use seat::Seat;
pub(super) use ship::{
    Content as PolicyContent, FleetPush, Origin, content, not_everywhere, push_to_fleet, segment,
};
use ship::{Push, Waiting};

use super::client::{Client, Elsewhere, Reach, Reaching};
use super::print::{Format, clean, stdout, write_json};

#[derive(Debug, clap::Subcommand)]
pub(super) enum PolicyCommand {
    /// Create the directory of a new policy: source, cases, build file, README
    ///
    /// Everything that the policy needs from Portcullis comes with this program, so that it builds without the repository. Nothing is
    /// overwritten.
    New(new::Args),
    /// Compile the policy in a directory to NAME.wasm, in any language
    ///
    /// The file policy.toml, or the files in the directory, name the language. A missing compiler is an error that says how to install it.
    Build(build::Args),
    /// Make what a compiler wrote a policy: declare the world of a module, link a floor for WASI, merge the core modules of a component
    ///
    /// A module or component that expects WASI gets a floor for it inside the file. A component whose core modules share memory and a table
    /// gets one module in place of them, so that a new instance is made from images; if they cannot be merged safely, the output says why, and
    /// they stay as they are.
    Adapt(adapt::Args),
    /// Write the contract between host and policies, in WIT, to a directory
    Wit(wit::Args),
    /// Reload the policy file of a seat on all workers; an unusable file changes nothing
    ///
    /// The running host reloads automatically when the file changes. This command waits for the reload and prints the result.
    Reload {
        #[command(flatten)]
        seat: Seat,
    },
    /// Show the active policy of a seat, since when it is active, and the last error
    Status(Shown),
    /// Push a policy to a seat of the running host: validated, compiled and tested before it is used
    ///
    /// The policy is a file, or an artifact in a registry: its digest, and its signature if a key is named, are checked here before the host
    /// gets it.
    Push(Push),
    /// Show the generations of a seat that can be activated immediately, with statistics of their requests
    List(Shown),
    /// Activate a generation
    Activate {
        /// A tenant, or default, before or after
        seat: String,
        /// Its number
        generation: u64,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Activate the previous generation again
    Rollback {
        /// A tenant, or default, before or after
        seat: String,
        /// A generation other than the previous one
        #[arg(long, value_name = "GENERATION")]
        to: Option<u64>,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Start a shadow trial: evaluate a generation on every request after the active one, without effect
    Shadow {
        /// A tenant, or default, before or after
        seat: String,
        /// Its number
        generation: u64,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Start a canary trial: let a generation decide on a share of the dialogs
    Canary {
        /// A tenant, or default, before or after
        seat: String,
        /// Its number
        generation: u64,
        /// The share of the dialogs, by a stable hash of Call-ID, for example 5%
        share: String,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// End the trial of the candidate
    EndTrial {
        /// A tenant, or default, before or after
        seat: String,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Set whether verdicts are carried out (enforce), or only logged and counted (monitor)
    Mode {
        /// A tenant, or default, before or after
        seat: String,
        /// enforce or monitor
        mode: String,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Show the settings that the policies of a seat read on the running host, or replace those of a tenant in the database
    ///
    /// Settings of a seat in the configuration file are changed there.
    Settings(settings::Args),
    /// Follow the decisions of a seat on the running host, a line for each
    ///
    /// Reconnects if the host restarts; Ctrl-C ends it.
    Tail(tail::Args),
    /// Show where the decisions of the shadow candidate differ, with the requests
    Diff(Shown),
    /// Download a policy: the file of a pushed generation from the running host, or an artifact from a registry
    Pull(ship::Pull),
    /// Upload a policy to an OCI registry, under a tag
    ///
    /// Prints the digest, which names this content forever. The signature beside the file (FILE.wasm.sig), which hosts check, is uploaded with it.
    Publish(publish::Args),
    /// List the tags of a repository in a registry
    Tags(tags::Args),
    /// Create a key for signing policies, and print its public part for the configuration
    ///
    /// The public part is also written to KEY.pub, which --verify-key of `pull` and `push` names.
    Keygen {
        /// The file for the private key (PKCS #8); neither it nor KEY.pub may exist
        #[arg(value_name = "KEY.pem")]
        key: PathBuf,
    },
    /// Sign a policy: a file for the hosts that use it, or an artifact in a registry for those who pull it
    ///
    /// The signature of a file is written to FILE.wasm.sig, which `push` also sends. That of an artifact is uploaded beside it, in the form
    /// of cosign.
    Sign(sign::Args),
    /// Show what a policy decides on a request and why, without a running host
    ///
    /// Tables, next hops and settings are those of the configuration file, if there is one.
    Run(run::Args),
    /// Run the cases of a file: requests with the decisions that are expected of a policy
    ///
    /// docs/cases.md describes the file. The exit code is 1 if a case fails.
    Test(test::Args),
    /// Measure what the calls of a policy cost on this machine
    ///
    /// The policy is called as a host would call it, on one core, with the deadline and the `reuse` of its seat. Fuel is counted in a second run.
    Bench(bench::Args),
    /// Show which functions of a policy its calls spend their instructions in
    ///
    /// It measures fuel, which is about one for each instruction of the policy, and not time: the result is exact, and the same on every
    /// machine and in each repetition. Each request is one call in a new instance. `own` is the fuel of a function itself, `with callees`
    /// adds what it calls. The host's functions (tables, log, header fields) cost no fuel; `policy bench` measures time. Functions have names
    /// if the file keeps them: `portcullis policy build --names`.
    Profile(profile::Args),
    /// Serve a policy on loopback while writing it, with a callee behind the host: build, reload, run the cases, show decisions
    Dev(dev::Args),
    /// Check whether a host with this configuration would accept a file, without a running host
    Check {
        /// The policy: a WebAssembly module or component
        #[arg(value_name = "FILE.wasm")]
        file: PathBuf,
        /// The seat whose limits and settings apply: a tenant, or default, before or after
        #[arg(long, default_value = "default")]
        seat: String,
        #[command(flatten)]
        format: Format,
    },
    /// Show the content and requirements of a policy file, without a running host
    Inspect {
        /// The policy: a WebAssembly module or component
        #[arg(value_name = "FILE.wasm")]
        file: PathBuf,
        #[command(flatten)]
        format: Format,
    },
}

/// A seat whose state is shown.
#[derive(Debug, clap::Args)]
pub(super) struct Shown {
    #[command(flatten)]
    seat: Seat,
    #[command(flatten)]
    format: Format,
}

impl Reaching for PolicyCommand {
    fn elsewhere(&self) -> Option<(&'static str, Elsewhere)> {
        Some(match self {
            Self::New(_) => ("policy new", Elsewhere::Files),
            Self::Build(_) => ("policy build", Elsewhere::Files),
            Self::Adapt(_) => ("policy adapt", Elsewhere::Files),
            Self::Wit(_) => ("policy wit", Elsewhere::Files),
            Self::Keygen { .. } => ("policy keygen", Elsewhere::Files),
            Self::Run(_) => ("policy run", Elsewhere::Files),
            Self::Test(_) => ("policy test", Elsewhere::Files),
            Self::Bench(_) => ("policy bench", Elsewhere::Files),
            Self::Profile(_) => ("policy profile", Elsewhere::Files),
            Self::Dev(_) => ("policy dev", Elsewhere::Files),
            Self::Check { .. } => ("policy check", Elsewhere::Files),
            Self::Inspect { .. } => ("policy inspect", Elsewhere::Files),
            Self::Publish(_) => ("policy publish", Elsewhere::Registry),
            Self::Tags(_) => ("policy tags", Elsewhere::Registry),
            Self::Sign(args) if args.is_of_registry() => ("policy sign", Elsewhere::Registry),
            Self::Sign(_) => ("policy sign", Elsewhere::Files),
            Self::Pull(pull) if pull.is_of_registry() => ("policy pull", Elsewhere::Registry),
            Self::Pull(_)
            | Self::Reload { .. }
            | Self::Status(_)
            | Self::Push(_)
            | Self::List(_)
            | Self::Activate { .. }
            | Self::Rollback { .. }
            | Self::Shadow { .. }
            | Self::Canary { .. }
            | Self::EndTrial { .. }
            | Self::Mode { .. }
            | Self::Settings(_)
            | Self::Tail(_)
            | Self::Diff(_) => return None,
        })
    }
}

impl PolicyCommand {
    pub(super) fn run(
        self,
        find: impl Fn() -> anyhow::Result<(Config, Option<PathBuf>)>,
        reach: &Reach,
    ) -> anyhow::Result<ExitCode> {
        let out = &mut stdout();
        let config = || anyhow::Ok(find()?.0);
        let client = || Client::new(&config()?, reach);
        match self {
            Self::New(args) => new::run(&args, out)?,
            Self::Build(args) => build::run(&args, out)?,
            Self::Adapt(args) => adapt::run(&args, out)?,
            Self::Wit(args) => wit::run(&args, out)?,
            Self::Reload { seat } => reload(&client()?, &seat.seat, out)?,
            Self::Status(Shown { seat, format }) => {
                let status = ship::status(&client()?, &seat.seat)?;
                match format.json {
                    true => write_json(out, &status)?,
                    false => write_status(&status, out)?,
                }
            }
            Self::Push(push) => ship::push(&client()?, &push, out)?,
            Self::List(Shown { seat, format }) => {
                ship::list(&client()?, &seat.seat, format, out)?;
            }
            Self::Activate {
                seat,
                generation,
                waiting,
            } => {
                let number = generation.to_string();
                ship::change(
                    &client()?,
                    &seat,
                    "activate",
                    &[("generation", &number)],
                    &waiting,
                    out,
                )?;
            }
            Self::Rollback { seat, to, waiting } => {
                let number = to.map(|to| to.to_string());
                let query: Vec<_> = number
                    .iter()
                    .map(|to| ("generation", to.as_str()))
                    .collect();
                ship::change(&client()?, &seat, "rollback", &query, &waiting, out)?;
            }
            Self::Shadow {
                seat,
                generation,
                waiting,
            } => {
                let number = generation.to_string();
                let query = [("generation", number.as_str())];
                ship::change(&client()?, &seat, "shadow", &query, &waiting, out)?;
            }
            Self::Canary {
                seat,
                generation,
                share,
                waiting,
            } => {
                let number = generation.to_string();
                let query = [("generation", number.as_str()), ("share", share.as_str())];
                ship::change(&client()?, &seat, "canary", &query, &waiting, out)?;
            }
            Self::EndTrial { seat, waiting } => {
                ship::change(&client()?, &seat, "candidate", &[], &waiting, out)?;
            }
            Self::Mode {
                seat,
                mode,
                waiting,
            } => {
                ship::set_mode(&client()?, &seat, &mode, &waiting, out)?;
            }
            Self::Settings(args) => settings::run(&client()?, &args, out)?,
            Self::Tail(args) => return tail::run(&args, client, out),
            Self::Diff(Shown { seat, format }) => {
                ship::diff(&client()?, &seat.seat, format, out)?;
            }
            Self::Pull(pull) => ship::pull(client, &pull, out)?,
            Self::Publish(args) => publish::run(&args, out)?,
            Self::Tags(args) => tags::run(&args, out)?,
            Self::Keygen { key } => sign::keygen(&key, out)?,
            Self::Sign(args) => sign::run(&args, out)?,
            Self::Run(args) => return run::run(&args, find()?, out),
            Self::Test(args) => return test::run(&args, find()?, out),
            Self::Bench(args) => return bench::run(&args, find()?, out),
            Self::Profile(args) => return profile::run(&args, find()?, out),
            Self::Dev(args) => return dev::run(&args, find()?),
            Self::Check { file, seat, format } => {
                return inspect::check(&file, &seat, &config()?, format, out);
            }
            Self::Inspect { file, format } => inspect::show(&file, format, out)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn reload(client: &Client, seat: &str, out: &mut impl Write) -> anyhow::Result<()> {
    let reloaded: PolicyReload = client.call("policy.reload", json!([seat]))?;
    writeln!(
        out,
        "{}: {}, generation {}, {}",
        reloaded.status,
        clean(reloaded.file.as_deref().unwrap_or("no file")),
        reloaded.generation,
        clean(&reloaded.digest)
    )?;
    Ok(())
}

fn write_status(status: &SeatStatus, out: &mut impl Write) -> std::io::Result<()> {
    if status.file.is_none() && status.generation.is_none() {
        writeln!(out, "no policy: its `default` decides on every request")?;
    }
    let stats = status.stats.as_ref();
    let kinds = stats.map(|stats| match stats.failures.is_empty() {
        true => "none".to_owned(),
        false => stats.failures.join(", "),
    });
    let number = |number: u64| Some(number.to_string());
    // Pushed policies are not counted.
    let of_file = |loads: u64| status.file.as_ref().map(|_| loads.to_string());
    for (label, value) in [
        ("seat", Some(status.seat.clone())),
        ("file", status.file.clone()),
        ("policy", status.name.clone()),
        ("generation", status.generation.and_then(number)),
        ("digest", status.digest.clone()),
        (
            "loaded at",
            status.loaded_at.as_ref().map(ToString::to_string),
        ),
        ("mode", Some(status.mode.to_string())),
        ("candidate", status.candidate.clone()),
        ("previous", status.previous.and_then(number)),
        ("calls", stats.and_then(|stats| number(stats.calls))),
        ("its failures", kinds),
        (
            "failed calls",
            Some(format!("{} of all generations", status.failed_calls)),
        ),
        ("alert", status.alert.clone()),
        ("loads", of_file(status.loads)),
        ("failed loads", of_file(status.failed_loads)),
        ("sandboxes", Some(status.sandboxes.clone())),
        ("error", status.error.clone()),
        (
            "error at",
            status.error_at.as_ref().map(ToString::to_string),
        ),
    ] {
        if let Some(value) = value {
            writeln!(out, "{:<14}{}", format!("{label}:"), clean(&value))?;
        }
    }
    let Some(last) = &status.last_failure else {
        return Ok(());
    };
    let decision = match &last.decision {
        Some(id) => format!(", decision {}", clean(id)),
        None => String::new(),
    };
    writeln!(
        out,
        "{:<14}{}: {}, generation {}, Call-ID {}{decision}: {}",
        "last failure:",
        last.at,
        clean(&last.kind),
        last.generation,
        clean(&last.call_id),
        clean(&last.text)
    )
}
