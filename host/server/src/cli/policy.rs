//! `portcullis policy …`: look at a file, ask and reload the running host.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use portcullis_policy::{Inspection, inspect};
use serde_json::{Value, json};

use crate::config::{Config, show_size};

use super::client::Client;
use super::print::{clean, count};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Load the policy file again and give it to all workers; a file that can't be used changes nothing
    ///
    /// The running host does so by itself when the file changes. This command waits for it and tells how it went.
    Reload,
    /// Show which policy the running host serves, since when, and what was wrong with the last file
    Status,
    /// Show what a policy file is and needs, without a running host
    Inspect {
        /// The policy: a WebAssembly module or component
        #[arg(value_name = "FILE.wasm")]
        file: PathBuf,
    },
}

impl Command {
    pub(super) fn run(
        self,
        config: impl FnOnce() -> anyhow::Result<Config>,
    ) -> anyhow::Result<ExitCode> {
        let mut out = std::io::stdout().lock();
        match self {
            Self::Reload => {
                let answer = Client::new(&config()?)?.call("policy.reload", json!([]))?;
                writeln!(
                    out,
                    "{}: {}, generation {}, {}",
                    text(&answer["status"]),
                    text(&answer["file"]),
                    answer["generation"],
                    text(&answer["digest"])
                )?;
            }
            Self::Status => write_status(
                &Client::new(&config()?)?.call("policy.status", json!([]))?,
                &mut out,
            )?,
            Self::Inspect { file } => write_inspection(&file, &read(&file)?, &mut out)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn read(file: &Path) -> anyhow::Result<Inspection> {
    let bytes = std::fs::read(file).with_context(|| format!("can't read {}", file.display()))?;
    inspect(&bytes).with_context(|| file.display().to_string())
}

fn write_status(status: &Value, out: &mut impl Write) -> std::io::Result<()> {
    const LINES: [(&str, &str); 10] = [
        ("file", "file"),
        ("policy", "name"),
        ("generation", "generation"),
        ("digest", "digest"),
        ("loaded at", "loaded_at"),
        ("loads", "loads"),
        ("failed loads", "failed_loads"),
        ("sandboxes", "sandboxes"),
        ("error", "error"),
        ("error at", "error_at"),
    ];
    if status["file"].is_null() {
        writeln!(
            out,
            "no policy is configured: `default` in [policy] decides on every request"
        )?;
    }
    for (label, key) in LINES {
        let value = &status[key];
        if !value.is_null() {
            writeln!(out, "{:<14}{}", format!("{label}:"), text(value))?;
        }
    }
    Ok(())
}

fn write_inspection(file: &Path, found: &Inspection, out: &mut impl Write) -> std::io::Result<()> {
    let mut line = |name: &str, value: &str| writeln!(out, "{name:<10}  {}", clean(value));
    line("file:", &file.display().to_string())?;
    line("kind:", &found.kind.to_string())?;
    line("size:", &format!("{} bytes", found.size))?;
    line("digest:", &format!("sha256:{}", found.digest))?;
    if let Some(world) = &found.world {
        line("world:", world)?;
    }
    if let Some(sdk) = &found.sdk {
        line("sdk:", sdk)?;
    }
    let most = match found.max_memory_bytes {
        Some(most) => format!("at most {}", show_size(most)),
        None => "no own maximum".into(),
    };
    line(
        "memory:",
        &format!("{} at the start, {most}", show_size(found.memory_bytes)),
    )?;
    line(
        "imports:",
        if found.imports.is_empty() { "none" } else { "" },
    )?;
    for import in &found.imports {
        line("", &format!("{import} ({})", import.kind))?;
    }
    line("exports:", &count(found.exports.len() as u64, "item"))?;
    for export in &found.exports {
        line("", &format!("{} ({})", export.name, export.kind))?;
    }
    for producer in &found.producers {
        line(
            "made with:",
            &format!("{} {} ({})", producer.name, producer.version, producer.role),
        )?;
    }
    Ok(())
}

/// A JSON value as a person reads it.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => clean(text).into_owned(),
        other => other.to_string(),
    }
}
