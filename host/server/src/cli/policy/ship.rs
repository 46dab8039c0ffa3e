//! What the running host answers about policies, as a person reads it.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::signature;

use super::super::client::Client;
use super::super::print::{Table, cell, clean, count, rows};
use super::text;

/// How a pushed policy begins.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(multiple = false)]
pub(in crate::cli) struct Beginning {
    /// Let it serve at once
    #[arg(long)]
    activate: bool,
    /// Ask it about every request after the one that serves, and carry nothing out
    #[arg(long)]
    shadow: bool,
    /// Let it decide on this share of the dialogs
    #[arg(long, value_name = "SHARE")]
    canary: Option<String>,
}

#[derive(Clone, Debug, clap::Args)]
pub(in crate::cli) struct Push {
    /// A tenant, or default, before or after for the operator's policies
    seat: String,
    /// The policy: a WebAssembly module or component
    #[arg(value_name = "FILE.wasm")]
    file: std::path::PathBuf,
    #[command(flatten)]
    beginning: Beginning,
    /// Who brings it [default: $USER]
    #[arg(long)]
    author: Option<String>,
    /// What is new in it
    #[arg(long, default_value = "", hide_default_value = true)]
    note: String,
    /// Its signature [default: FILE.wasm.sig if it exists]
    #[arg(long, value_name = "FILE.sig")]
    signature: Option<std::path::PathBuf>,
}

pub(super) fn push(client: &Client, push: &Push, out: &mut impl Write) -> anyhow::Result<()> {
    let file = &push.file;
    let bytes = fs::read(file).with_context(|| format!("can't read {}", file.display()))?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let Beginning {
        activate,
        shadow,
        canary,
    } = &push.beginning;
    let arrival = match (activate, shadow, canary) {
        (true, ..) => "activate",
        (_, true, _) => "shadow",
        (_, _, Some(_)) => "canary",
        _ => "keep",
    };
    let signature = match &push.signature {
        Some(file) if !file.exists() => bail!("there is no {}", file.display()),
        Some(file) => signature::read(file)?,
        None => signature::read(&signature::file_of(file))?,
    };
    let user = std::env::var("USER").ok();
    let author = push.author.clone().or(user);
    let mut query = vec![("name", &*name), ("arrival", arrival), ("note", &push.note)];
    query.extend(author.as_deref().map(|author| ("author", author)));
    if !signature.is_empty() {
        query.push(("signature", &signature));
    }
    query.extend(canary.as_deref().map(|share| ("share", share)));
    let path = format!("/v1/policies/{}", segment(&push.seat)?);
    let answer = client.send("POST", &path, &query, Some(&bytes))?;
    writeln!(
        out,
        "{}: generation {}, {}, {}, loaded in {} ms",
        clean(&push.seat),
        answer["generation"],
        text(&answer["arrival"]),
        text(&answer["digest"]),
        answer["load_ms"]
    )?;
    write_liveness(&answer, out)?;
    if let Some(warning) = answer["warning"].as_str() {
        writeln!(out, "warning: {}", clean(warning))?;
    }
    if arrival == "keep" {
        let seat = clean(&push.seat);
        writeln!(
            out,
            "it waits: `portcullis policy activate {seat} {}` lets it serve",
            answer["generation"]
        )?;
    }
    Ok(())
}

/// What a seat is in.
pub(super) fn status(client: &Client, seat: &str) -> anyhow::Result<Value> {
    client.send(
        "GET",
        &format!("/v1/policies/{}", segment(seat)?),
        &[],
        None,
    )
}

pub(super) fn list(client: &Client, seat: &str, out: &mut impl Write) -> anyhow::Result<()> {
    let path = format!("/v1/policies/{}/generations", segment(seat)?);
    let answer = client.send("GET", &path, &[], None)?;
    let columns = [
        "generation",
        "role",
        "name",
        "author",
        "calls",
        "relay",
        "reject",
        "drop",
        "pass",
    ];
    let mut table = Table::new(columns);
    for row in rows(&answer) {
        table.push(columns.map(|column| match &row[column] {
            Value::Null => String::new(),
            value => cell(value),
        }));
    }
    if table.is_empty() {
        writeln!(out, "{}: no policy", clean(seat))?;
        return Ok(());
    }
    Ok(table.write(out)?)
}

/// Changes which generation of a seat does what.
pub(super) fn change(
    client: &Client,
    seat: &str,
    what: &str,
    query: &[(&str, &str)],
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let path = format!("/v1/policies/{}/{what}", segment(seat)?);
    let method = match what {
        "mode" => "PUT",
        "candidate" => "DELETE",
        _ => "POST",
    };
    let answer = client.send(method, &path, query, None)?;
    let Some(status) = answer["status"].as_str() else {
        writeln!(out, "{}", text(&answer))?;
        return Ok(());
    };
    writeln!(
        out,
        "{}: {}: generation {}, {}, {}",
        clean(status),
        clean(seat),
        answer["generation"],
        text(&answer["name"]),
        text(&answer["digest"])
    )?;
    Ok(write_liveness(&answer, out)?)
}

pub(super) fn diff(client: &Client, seat: &str, out: &mut impl Write) -> anyhow::Result<()> {
    let path = format!("/v1/policies/{}/candidate", segment(seat)?);
    let answer = client.send("GET", &path, &[], None)?;
    let number = |key: &str| answer[key].as_u64().unwrap_or_default();
    writeln!(
        out,
        "{}: generation {} against {}: {} decided alike, {} otherwise, {} not compared",
        clean(seat),
        answer["candidate"],
        answer["active"],
        count(number("same"), "request"),
        number("different"),
        number("not_compared")
    )?;
    for sample in rows(&answer["samples"]) {
        writeln!(
            out,
            "\n{} from {}\n  serves:    {}\n  candidate: {}",
            text(&sample["at"]),
            text(&sample["source"]),
            text(&sample["active"]),
            text(&sample["candidate"])
        )?;
        let request = sample["request"].as_str().unwrap_or_default();
        for line in request.lines().take_while(|line| !line.is_empty()) {
            writeln!(out, "    {}", clean(line))?;
        }
    }
    Ok(())
}

pub(super) fn pull(
    client: &Client,
    seat: &str,
    generation: Option<u64>,
    file: &Path,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let number = generation.map_or_else(|| "active".to_owned(), |number| number.to_string());
    let path = format!("/v1/policies/{}/generations/{number}", segment(seat)?);
    let bytes = client.fetch(&path)?;
    fs::write(file, &bytes).with_context(|| format!("can't write {}", file.display()))?;
    let length = count(bytes.len() as u64, "byte");
    writeln!(out, "{}: {length}", clean(&file.display().to_string()))?;
    Ok(())
}

fn write_liveness(answer: &Value, out: &mut impl Write) -> io::Result<()> {
    match answer["live_on_all_workers"].as_bool() {
        Some(false) => writeln!(out, "warning: not every worker has taken it over yet"),
        _ => Ok(()),
    }
}

/// A name as a part of an address; anything else would be another address.
fn segment(seat: &str) -> anyhow::Result<&str> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if seat.is_empty() || !seat.bytes().all(fits) {
        bail!("{seat:?} is no seat: name a tenant, or default, before or after");
    }
    Ok(seat)
}
