//! `portcullis policy tags`

use std::io::Write;

use anyhow::bail;
use portcullis_registry::{Access, Reference};

use super::super::print::{Format, clean, write_json};
use super::registry::Connection;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The repository
    #[arg(value_name = "oci://HOST/REPOSITORY")]
    repository: Reference,
    /// Also list the tags of signatures (sha256-….sig)
    #[arg(long)]
    signatures: bool,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    connection: Connection,
}

pub(super) fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<()> {
    if args.repository.tag().is_some() || args.repository.digest().is_some() {
        bail!(
            "{} names an artifact: name the repository without tag and digest",
            args.repository
        );
    }
    let repository = args.connection.open(&args.repository, Access::Pull)?;
    let mut tags = repository.tags()?;
    let is_signature = |tag: &str| tag.starts_with("sha256-") && tag.ends_with(".sig");
    tags.retain(|tag| args.signatures || !is_signature(tag));
    if args.format.json {
        return write_json(out, &tags);
    }
    for tag in tags {
        writeln!(out, "{}", clean(&tag))?;
    }
    Ok(())
}
