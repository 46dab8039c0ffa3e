//! `portcullis tenant …`: who the tenants of the running host are, and how they fare.

use std::io::Write;
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::config::Config;

use super::client::Client;
use super::print::{Table, cell, clean, rows};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Show the tenants of the running host with what became of their requests; `default` is the operator
    List,
    /// Read the configuration file of the running host again and make its tenants the tenants, without a restart
    ///
    /// SIGHUP does so, too. Everything is taken over, or, if anything is wrong, nothing.
    Reload,
}

impl Command {
    pub(super) fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        let out = &mut std::io::stdout().lock();
        let client = Client::new(config)?;
        match self {
            Self::List => list(&client, out)?,
            Self::Reload => reload(&client, out)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn list(client: &Client, out: &mut impl Write) -> anyhow::Result<()> {
    let columns = [
        "name",
        "policy",
        "generation",
        "mode",
        "requests",
        "relay",
        "reject",
        "drop",
        "pass",
        "failed",
        "shed",
    ];
    let answer = client.call("tenant.list", json!([]))?;
    let mut table = Table::new(columns);
    for row in rows(&answer) {
        table.push(columns.map(|column| match &row[column] {
            Value::Null => String::new(),
            value => cell(value),
        }));
    }
    table.write(out)?;
    for row in rows(&answer) {
        if let Some(alert) = row["alert"].as_str() {
            writeln!(out, "alert: {}: {}", cell(&row["name"]), clean(alert))?;
        }
    }
    Ok(())
}

fn reload(client: &Client, out: &mut impl Write) -> anyhow::Result<()> {
    let answer = client.call("tenant.reload", json!([]))?;
    let names = |key: &str| {
        let names: Vec<_> = rows(&answer[key]).iter().map(cell).collect();
        match names.is_empty() {
            true => "none".to_owned(),
            false => names.join(", "),
        }
    };
    writeln!(
        out,
        "{}: added {}; changed {}; removed {}",
        cell(&answer["status"]),
        names("added"),
        names("changed"),
        names("removed")
    )?;
    if !rows(&answer["need_a_start"]).is_empty() {
        let sections = names("need_a_start");
        writeln!(
            out,
            "note: the file says something else of {sections}, too: that needs a start"
        )?;
    }
    Ok(())
}
