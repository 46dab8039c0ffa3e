//! `portcullis tls …`: the certificates of SIP over TLS.

use std::io::Write;
use std::process::ExitCode;

use portcullis_config::Config;
use portcullis_control::commands::tls::{TlsCertificate, TlsConnection};
use serde_json::json;

use super::client::{Client, Elsewhere, Reach, Reaching};
use super::print::{Format, Table, clean, stdout, write_json};

#[derive(Debug, clap::Subcommand)]
pub(super) enum TlsCommand {
    /// List the certificates in use, with their names and the days until they expire
    List(Format),
    /// Read all certificates, keys and authorities again
    ///
    /// The host reads them automatically when a file changes. This command waits for the result, and fails if a file cannot be used: the
    /// previous certificate then stays in use. Open connections are not affected.
    Reload,
    /// List the open connections over TLS, those of WebSocket included
    Connections(Format),
    /// End a connection over TLS at once, with what is in progress on it
    Kill {
        /// Its id, as `tls connections` shows it
        id: u32,
    },
}

impl Reaching for TlsCommand {
    fn elsewhere(&self) -> Option<(&'static str, Elsewhere)> {
        match self {
            Self::List(_) | Self::Reload | Self::Connections(_) | Self::Kill { .. } => None,
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
            Self::Connections(format) => connections(&client, format, out)?,
            Self::Kill { id } => {
                let _ok: String = client.call("tls.kill", json!([id]))?;
                writeln!(out, "connection {id} has been ended")?;
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

fn connections(client: &Client, format: Format, out: &mut impl Write) -> anyhow::Result<()> {
    let all: Vec<TlsConnection> = client.call("tls.list", json!([]))?;
    if format.json {
        return write_json(out, &all);
    }
    let mut table = Table::new(["id", "peer", "local", "state", "cipher", "waiting", "names"]);
    for one in all {
        // The first word names the suite.
        let suite = one.cipher.split_whitespace().next().unwrap_or_default();
        table.push([
            one.id.to_string(),
            socket(&one.src_ip, one.src_port),
            socket(&one.dst_ip, one.dst_port),
            clean(&one.state).into_owned(),
            clean(suite).into_owned(),
            one.ct_wq_size.to_string(),
            clean(&one.peer).into_owned(),
        ]);
    }
    table.write(out)?;
    Ok(())
}

fn socket(ip: &str, port: u16) -> String {
    match ip.contains(':') {
        true => format!("[{}]:{port}", clean(ip)),
        false => format!("{}:{port}", clean(ip)),
    }
}
