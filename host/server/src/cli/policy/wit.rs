//! `portcullis policy wit`

use std::io::Write;
use std::path::PathBuf;

use portcullis_author::write_wit;

use super::super::print::clean;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The directory, which is created if it is missing
    #[arg(value_name = "DIR", default_value = "wit")]
    dir: PathBuf,
    /// Replace an existing file with another content
    #[arg(long)]
    replace: bool,
}

pub(super) fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<()> {
    let file = write_wit(&args.dir, args.replace)?;
    writeln!(out, "{}", clean(&file.display().to_string()))?;
    Ok(())
}
