//! `portcullis tls …`: the certificates of SIP over TLS.

use std::io::Write;
use std::process::ExitCode;

use portcullis_config::Config;
use portcullis_control::commands::tls::TlsCertificate;
use serde_json::json;

use super::client::{Client, Elsewhere, Reach, Reaching};
use super::print::{Format, clean, stdout, write_json};

#[derive(Debug, clap::Subcommand)]
pub(super) enum TlsCommand {
    /// List the certificates in use, with their names and the days until they expire
    List(Format),
    /// Read all certificates, keys and authorities again
    ///
    /// The host reads them automatically when a file changes. This command waits for the result, and fails if a file cannot be used: the
    /// previous certificate then stays in use. Open connections are not affected.
    Reload,
}

impl Reaching for TlsCommand {
    fn elsewhere(&self) -> Option<(&'static str, Elsewhere)> {
        match self {
            Self::List(_) | Self::Reload => None,
        }
    }
}

impl TlsCommand {
    pub(super) fn run(self, config: &Config, reach: &Reach) -> anyhow::Result<ExitCode> {
        let out = &mut stdout();
        let client = Client::new(config, reach)?;
        match self {
            Self::List(format) => list(&client, format, out)?,
            Self::Reload => {
                let said: String = client.call("tls.reload", json!([]))?;
                writeln!(out, "{}", clean(&said))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn list(client: &Client, format: Format, out: &mut impl Write) -> anyhow::Result<()> {
    let all: Vec<TlsCertificate> = client.call("tls.certificates", json!([]))?;
    if format.json {
        return write_json(out, &all);
    }
    if all.is_empty() {
        writeln!(out, "no certificates: the host has no TLS")?;
    }
    for one in all {
        let default = if one.is_default { ", default" } else { "" };
        writeln!(out, "[{}]{default}", clean(&one.section))?;
        writeln!(out, "  subject      {}", clean(&one.subject))?;
        writeln!(out, "  issuer       {}", clean(&one.issuer))?;
        writeln!(out, "  names        {}", clean(&one.names.join(", ")))?;
        if !one.server_names.is_empty() {
            writeln!(
                out,
                "  server names {}",
                clean(&one.server_names.join(", "))
            )?;
        }
        writeln!(out, "  client-auth  {}", clean(&one.client_auth))?;
        writeln!(
            out,
            "  valid until  {} ({} days)",
            one.not_after, one.days_left
        )?;
        writeln!(out, "  SHA-256      {}", clean(&one.sha256))?;
        if let Some(fault) = one.fault {
            writeln!(out, "  refused      {}", clean(&fault))?;
        }
    }
    Ok(())
}
