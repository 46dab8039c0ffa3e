//! `portcullis policy adapt`

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use portcullis_author::adapt;

use super::super::print::clean;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The module or component that a compiler made
    #[arg(value_name = "IN.wasm")]
    input: PathBuf,
    /// The file to write
    #[arg(short, long, value_name = "OUT.wasm")]
    output: PathBuf,
}

pub(super) fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<()> {
    let shown = args.input.display();
    let bytes = fs::read(&args.input).with_context(|| format!("cannot read {shown}"))?;
    let adapted = adapt(&bytes).with_context(|| shown.to_string())?;
    let output = args.output.display().to_string();
    fs::write(&args.output, &adapted.bytes).with_context(|| format!("cannot write {output}"))?;

    let merged = adapted.merging();
    let merged = format!("with {}", merged.as_deref().unwrap_or_default());
    let done: Vec<_> = [
        (adapted.embedded, "with the world it is for"),
        (adapted.floor, "with the floor for WASI"),
        (adapted.groups > 0, &merged),
    ]
    .into_iter()
    .filter_map(|(is_done, what)| is_done.then_some(what))
    .collect();
    let done = match &*done {
        [] => "unchanged: it says what world it is for, and expects no WASI".to_owned(),
        _ => done.join(", "),
    };
    writeln!(out, "{}: {done}", clean(&output))?;
    if let Some(reason) = adapted.unmerged {
        writeln!(
            out,
            "  not all core modules could be merged: {}",
            clean(&reason)
        )?;
    }
    Ok(())
}
