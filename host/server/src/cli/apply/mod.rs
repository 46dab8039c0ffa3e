//! `portcullis apply`, `diff` and `export`: the state of a host as files.

mod actual;
mod comparison;
mod desired;
mod execute;
mod export;
mod folder;
mod mistakes;
mod policies;
mod rows;
mod sheet;
mod show;
mod tenants;

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use portcullis_config::Config;
use portcullis_plan::{Kind, Plan, Prune};

use super::client::{Client, Reach};
use super::policy::{Connection, Verification};
use super::print::{Format, clean, count, stdout};
use comparison::Comparison;
use execute::Execution;

pub(super) use export::Args as ExportArgs;
pub(super) use export::run as export;

/// Make a host what files describe: tenants, policies, addresses, trusted peers and destinations of the dispatcher
///
/// The folder may contain tenants/NAME.toml, policies/SEAT.wasm, policies.toml, and addresses, trusted and dispatcher as .csv or .toml. A kind
/// that it does not contain is left alone. First all files are checked, also by the host, and every error is reported; then the plan is shown;
/// then it is carried out: tenants, policies, rows that are added or changed, and at last what is removed. If a step fails, the output says what
/// was done, and the same command completes it. A policy that is not in effect on all hosts of a fleet in time is stored all the same; the output names the
/// hosts, and the exit code is 1.
#[derive(Debug, clap::Args)]
pub(super) struct ApplyArgs {
    #[command(flatten)]
    compared: ComparedArgs,
    /// Show the plan only; the exit code is 2 if there is something to do
    #[arg(long)]
    plan: bool,
    /// Do not ask before the plan is carried out
    #[arg(short, long, alias = "auto-approve", conflicts_with = "plan")]
    yes: bool,
    /// Also remove more than half of the items of a kind
    #[arg(long)]
    allow_large_prune: bool,
    /// The author of the changes [default: $USER]
    #[arg(long)]
    author: Option<String>,
}

/// Show in what a host differs from what files describe
///
/// The files are those of `apply`. The exit code is 0 if there is no difference, 2 if there is one, and 1 for errors.
#[derive(Debug, clap::Args)]
pub(super) struct DiffArgs {
    #[command(flatten)]
    compared: ComparedArgs,
}

/// What is compared.
#[derive(Debug, clap::Args)]
struct ComparedArgs {
    /// A folder with the desired state, or one of its files; may be repeated
    #[arg(short, long = "file", value_name = "DIR|FILE", required = true)]
    files: Vec<PathBuf>,
    /// Remove what the files do not contain, of each kind that they describe or of these kinds: tenants, addresses, trusted, dispatcher
    #[arg(
        long,
        value_name = "KIND,…",
        num_args = 0..=1,
        require_equals = true,
        value_delimiter = ','
    )]
    prune: Option<Vec<Kind>>,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    verification: Verification,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    reach: Reach,
}

pub(super) fn diff(args: &DiffArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let compared = &args.compared;
    let client = Client::new(config, &compared.reach)?;
    let comparison = compared.compare(&client)?;
    show::plan(&comparison, compared.format, &mut stdout())?;
    Ok(comparison.exit_code())
}

pub(super) fn apply(args: &ApplyArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let ApplyArgs {
        compared,
        plan: is_plan_only,
        yes,
        allow_large_prune,
        author,
    } = args;
    let out = &mut stdout();
    let client = Client::new(config, &compared.reach)?;
    let comparison = compared.compare(&client)?;
    // The result in JSON is one document, which is written at the end.
    if *is_plan_only || !compared.format.json {
        show::plan(&comparison, compared.format, out)?;
    }
    if *is_plan_only {
        return Ok(comparison.exit_code());
    }
    if let Some(large) = comparison
        .plan
        .large_prunes()
        .first()
        .filter(|_| !allow_large_prune)
    {
        bail!("nothing was changed: {large}");
    }
    if comparison.plan.is_empty() {
        if compared.format.json {
            show::plan(&comparison, compared.format, out)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if !yes && !is_confirmed(&comparison.plan, out)? {
        writeln!(out, "nothing was changed")?;
        return Ok(ExitCode::FAILURE);
    }
    // Time may have passed since the state was read.
    let Comparison {
        desired,
        actual,
        plan,
    } = comparison.again(&client, &compared.prune())?;
    let author = author.clone().or_else(|| std::env::var("USER").ok());
    let mut execution = Execution::new(&client, &desired, &actual, &plan, author)?;
    let result = execution.run();
    let (done, behind) = (execution.done(), execution.behind());
    show::result(&plan, (done, behind), &result, compared.format, out)?;
    match result {
        Ok(()) if behind.is_empty() => Ok(ExitCode::SUCCESS),
        Ok(()) | Err(_) => Ok(ExitCode::FAILURE),
    }
}

fn is_confirmed(plan: &Plan, out: &mut impl Write) -> anyhow::Result<bool> {
    ensure!(
        io::stdin().is_terminal(),
        "nothing was changed: standard input is no terminal where the plan could be confirmed; add --yes, or --plan to see the plan only"
    );
    let steps = count(plan.steps.len() as u64, "change");
    write!(out, "make {steps}? only \"yes\" does it: ")?;
    out.flush()?;
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line);
    read.context("cannot read the answer")?;
    Ok(line.trim() == "yes")
}

impl ComparedArgs {
    /// Reads the files and the host, and checks the files with the host.
    ///
    /// # Errors
    /// Every error in the files.
    fn compare(&self, client: &Client) -> anyhow::Result<Comparison> {
        let read = desired::read(&self.files, &self.verification, &self.connection)?;
        for warning in &read.warnings {
            eprintln!("warning: {}", clean(warning));
        }
        let comparison = Comparison::of(client, read.desired, &self.prune())?;
        execute::check(client, &comparison)?;
        Ok(comparison)
    }

    fn prune(&self) -> Prune {
        match &self.prune {
            None => Prune::Nothing,
            Some(kinds) if kinds.is_empty() => Prune::All,
            Some(kinds) => Prune::Kinds(kinds.clone()),
        }
    }
}
