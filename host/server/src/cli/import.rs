//! `portcullis import`: translates kamailio.cfg into a configuration file.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use portcullis_config::DEFAULT_FILE;
use portcullis_kamailio::Machine;

use super::print::{clean, count, data};

mod file;
mod policy;

/// Translates listen lines, aliases, the database with its tables and columns, control endpoints, tls.cfg, and parameters of the modules
/// permissions, dispatcher, tm, pike, tls and websocket.
/// The calls of the routing logic are listed with the Rust code that replaces each; --policy translates the routing logic itself. Everything
/// that is not translated is reported on standard error, with its line and what to do.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Kamailio's configuration, usually /etc/kamailio/kamailio.cfg
    #[arg(value_name = "KAMAILIO.CFG")]
    file: PathBuf,
    /// The file to write, readable only by its owner: it may contain the database password [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write the routing logic as a policy in Rust to this folder, instead of the configuration unless there is also an --output: conditions,
    /// routes, replies, logs and relays. What has no counterpart is a comment there
    #[arg(long, value_name = "FOLDER")]
    policy: Option<PathBuf>,
    /// Replace existing files
    #[arg(short, long)]
    force: bool,
    /// A name that Kamailio is started with as -A, for #!ifdef, with a value if there is one; can be given several times
    #[arg(short = 'A', long = "define", value_name = "NAME[=VALUE]", value_parser = define)]
    defines: Vec<(String, String)>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if let Some(folder) = &args.policy {
        policy::write(&args.file, &args.defines, folder, args.force)?;
        if args.output.is_none() {
            return Ok(ExitCode::SUCCESS);
        }
    }
    let import = portcullis_kamailio::import(&args.file, &args.defines, &Machine)?;
    match &args.output {
        // It may contain the database password.
        Some(path) => file::write(path, &import.text, 0o600, args.force)?,
        None => data().write_all(import.text.as_bytes())?,
    }
    for finding in &import.findings {
        eprintln!("{}", clean(&finding.to_string()));
    }
    let taken = count(import.taken as u64, "value");
    let left = count(import.findings.len() as u64, "remark");
    match &args.output {
        Some(path) => {
            let path = path.display();
            eprintln!("{path}: {taken} taken over, {left}. Next: portcullis check --config {path}");
        }
        None => eprintln!(
            "{taken} taken over, {left}. Next: save this as {DEFAULT_FILE} and run portcullis check"
        ),
    }
    Ok(ExitCode::SUCCESS)
}

fn define(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty()
        || !name.chars().all(is_name)
        || name.starts_with(|c: char| c.is_ascii_digit())
    {
        return Err("a name has letters, digits and _; write NAME or NAME=VALUE".into());
    }
    Ok((name.to_owned(), value.to_owned()))
}
