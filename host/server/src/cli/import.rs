//! `portcullis import`: translates kamailio.cfg into a configuration file.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};

use portcullis_config::DEFAULT_FILE;
use portcullis_kamailio::Machine;

use super::print::{clean, count, data};

/// Translates listen lines, aliases, the database with its tables and columns, control endpoints, and parameters of the module permissions.
/// The routing logic is not translated; its calls of the module are listed with the Rust code that replaces each. Everything that is not
/// translated is reported on standard error, with its line and what to do.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Kamailio's configuration, usually /etc/kamailio/kamailio.cfg
    #[arg(value_name = "KAMAILIO.CFG")]
    file: PathBuf,
    /// The file to write, readable only by its owner: it may contain the database password [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace an existing file
    #[arg(short, long, requires = "output")]
    force: bool,
    /// A name that Kamailio is started with as -A, for #!ifdef, with a value if there is one; can be given several times
    #[arg(short = 'A', long = "define", value_name = "NAME[=VALUE]", value_parser = define)]
    defines: Vec<(String, String)>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let import = portcullis_kamailio::import(&args.file, &args.defines, &Machine)?;
    match &args.output {
        Some(path) => write(path, &import.text, args.force)?,
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

fn write(path: &Path, text: &str, force: bool) -> anyhow::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    match force {
        true => options.create(true).truncate(true),
        false => options.create_new(true),
    };
    let mut file = match options.open(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!(
                "{} exists already; choose another file, or use --force to replace it",
                path.display()
            )
        }
        opened => opened.with_context(|| format!("cannot write {}", path.display()))?,
    };
    file.write_all(text.as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))
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
