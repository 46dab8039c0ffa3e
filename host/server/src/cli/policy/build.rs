//! `portcullis policy build`

use std::io::Write;
use std::path::PathBuf;

use portcullis_author::build;
use portcullis_config::show_size;

use super::super::print::clean;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The directory of the policy
    #[arg(value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Keep the names of functions in the file, for `policy profile` and messages about failures
    #[arg(long)]
    names: bool,
}

pub(super) fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<()> {
    let built = build(&args.dir, args.names, &mut |command: &str| {
        eprintln!("$ {}", clean(command));
    })?;
    let found = &built.inspection;
    let mut interfaces: Vec<_> = found
        .imports
        .iter()
        .filter_map(|import| import.interface.strip_prefix("portcullis:policy/"))
        .filter_map(|interface| interface.split('@').next())
        .filter(|&interface| interface != "types" && interface != "verdict")
        .collect();
    interfaces.sort_unstable();
    interfaces.dedup();
    let file = built.file.strip_prefix(".").unwrap_or(&built.file);
    writeln!(out, "{}", clean(&file.display().to_string()))?;
    let mut line = |name: &str, value: &str| writeln!(out, "  {name:<9} {}", clean(value));
    line("kind:", &found.kind.to_string())?;
    line("size:", &show_size(found.size as u64))?;
    line("digest:", &format!("sha256:{}", found.digest))?;
    line("memory:", &show_size(found.memory_bytes))?;
    line("uses:", &interfaces.join(", "))?;
    if let Some(merging) = &built.merging {
        line("modules:", merging)?;
    }
    if built.floor {
        line(
            "wasi:",
            "inside the file: what the policy prints is the log, the time is the host's; no files and no network",
        )?;
    }
    Ok(())
}
