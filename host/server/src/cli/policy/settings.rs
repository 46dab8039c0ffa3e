//! `portcullis policy settings`: the settings of a seat of the running host.

use std::io::Write;

use portcullis_control::commands::policy::{SeatSettings, SettingsChanged, SettingsOrigin};
use serde_json::json;

use super::super::client::Client;
use super::super::print::{Format, clean, write_json};
use super::offline::with_given;
use super::seat::Seat;
use super::ship::segment;

/// The seat, and what its settings become.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    seat: Seat,
    /// All settings, which replace those before: a TOML or JSON file, or KEY=VALUE; can be given several times
    #[arg(long, value_name = "FILE|KEY=VALUE")]
    set: Vec<String>,
    /// Remove all settings
    #[arg(long, conflicts_with = "set")]
    clear: bool,
    /// The author of the change [default: $USER]
    #[arg(long)]
    author: Option<String>,
    #[command(flatten)]
    format: Format,
}

pub(super) fn run(client: &Client, args: &Args, out: &mut impl Write) -> anyhow::Result<()> {
    let path = format!("/v1/policies/{}/settings", segment(&args.seat.seat)?);
    if args.set.is_empty() && !args.clear {
        return show(client, &path, args.format, out);
    }
    let settings = with_given(json!({}), &args.set)?;
    let body = json!({"settings": settings}).to_string();
    let author = args.author.clone().or_else(|| std::env::var("USER").ok());
    let query: Vec<_> = author
        .iter()
        .map(|author| ("author", author.as_str()))
        .collect();
    let changed: SettingsChanged = client.send("PUT", &path, &query, Some(body.as_bytes()))?;
    if args.format.json {
        return write_json(out, &changed);
    }
    let state = match changed.live_on_all_workers {
        true => "all workers use the new settings",
        false => "stored; not all workers use the new settings yet",
    };
    Ok(writeln!(out, "{}: {state}", clean(&changed.seat))?)
}

fn show(client: &Client, path: &str, format: Format, out: &mut impl Write) -> anyhow::Result<()> {
    let shown: SeatSettings = client.send("GET", path, &[], None)?;
    if format.json {
        return write_json(out, &shown);
    }
    let origin = match shown.origin {
        SettingsOrigin::Configuration => "in the configuration file",
        SettingsOrigin::StoredTenant => "of the tenant in the database",
    };
    if shown.settings.is_empty() {
        return Ok(writeln!(
            out,
            "{}: no settings {origin}",
            clean(&shown.seat)
        )?);
    }
    writeln!(out, "{}: settings {origin}", clean(&shown.seat))?;
    for (key, value) in &shown.settings {
        writeln!(out, "{} = {}", clean(key), clean(&value.to_string()))?;
    }
    Ok(())
}
