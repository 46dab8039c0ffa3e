//! `portcullis policy new`

use std::io::Write;
use std::path::{Path, PathBuf};

use portcullis_author::{Language, Name, create};

use super::super::print::clean;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The name of the policy, its directory and its file: small letters, digits, - and _
    name: Name,
    /// The language: rust, c, zig, assemblyscript, go, js or python
    #[arg(long, value_name = "LANGUAGE", default_value = "rust")]
    lang: Language,
    /// The directory in which the directory of the policy is created
    #[arg(long = "in", value_name = "DIR", default_value = ".")]
    parent: PathBuf,
}

pub(super) fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<()> {
    let created = create(&args.parent, &args.name, args.lang)?;
    let folder = created.folder.strip_prefix(".").unwrap_or(&created.folder);
    writeln!(
        out,
        "{}: a policy in {}",
        clean(&folder.display().to_string()),
        args.lang
    )?;
    for file in created.files {
        writeln!(out, "  {file}")?;
    }
    writeln!(out, "\nNext:")?;
    if args.parent != Path::new(".") {
        writeln!(out, "  cd {}", clean(&args.parent.display().to_string()))?;
    }
    for command in created.next {
        writeln!(out, "  {command}")?;
    }
    Ok(())
}
