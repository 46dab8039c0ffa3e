//! `portcullis tenant …`: the tenants of the running host, and their statistics.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use portcullis_config::Config;
use portcullis_control::commands::tenant::{
    StoredTenant, TenantChanged, TenantStatus, TenantsReload,
};
use serde_json::{Value, json};

use super::client::{Client, Elsewhere, Reach, Reaching};
use super::print::{Format, Table, clean, stdout, write_json};

#[derive(Debug, clap::Subcommand)]
pub(super) enum TenantCommand {
    /// Show the tenants of the running host with statistics of their requests; `default` is the operator
    List(Format),
    /// Reload the tenants from the configuration file of the running host, without a restart
    ///
    /// SIGHUP does the same. All changes are applied or, if anything is wrong, none.
    Reload,
    /// Show a tenant of the database as it is stored
    Show {
        /// Its name
        name: String,
        #[command(flatten)]
        format: Format,
    },
    /// Create or change a tenant in the database, for all hosts on it, without a restart
    Put {
        /// Its name
        name: String,
        /// The content of [tenants.NAME] of a configuration file, without that line; - for standard input
        #[arg(value_name = "FILE.toml")]
        file: PathBuf,
    },
    /// Remove a tenant from the database
    Rm {
        /// Its name
        name: String,
    },
}

impl Reaching for TenantCommand {
    fn elsewhere(&self) -> Option<(&'static str, Elsewhere)> {
        match self {
            Self::List(_)
            | Self::Reload
            | Self::Show { .. }
            | Self::Put { .. }
            | Self::Rm { .. } => None,
        }
    }
}

impl TenantCommand {
    pub(super) fn run(self, config: &Config, reach: &Reach) -> anyhow::Result<ExitCode> {
        let out = &mut stdout();
        let client = Client::new(config, reach)?;
        match self {
            Self::List(Format { json: true }) => {
                write_json(out, &client.call::<Value>("tenant.list", json!([]))?)?;
            }
            Self::List(Format { json: false }) => list(&client, out)?,
            Self::Reload => reload(&client, out)?,
            Self::Show { name, format } => {
                let stored: StoredTenant = client.send("GET", &path(&name)?, &[], None)?;
                if format.json {
                    write_json(out, &stored)?;
                    return Ok(ExitCode::SUCCESS);
                }
                let (at, by) = (stored.changed_at, clean(&stored.changed_by));
                writeln!(out, "# {}: stored at {at} by {by}", clean(&name))?;
                let text = stored.config.unwrap_or_default();
                writeln!(out, "{}", text.trim_end())?;
            }
            Self::Put { name, file } => {
                let text = read(&file)?;
                let answer = client.send(
                    "PUT",
                    &path(&name)?,
                    &[("author", &author())],
                    Some(text.as_bytes()),
                )?;
                changed(&name, "stored", &answer, out)?;
            }
            Self::Rm { name } => {
                let answer =
                    client.send("DELETE", &path(&name)?, &[("author", &author())], None)?;
                changed(&name, "removed", &answer, out)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn path(name: &str) -> anyhow::Result<String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    match !name.is_empty() && name.bytes().all(is_plain) {
        true => Ok(format!("/v1/tenants/{name}")),
        false => bail!(
            "{name:?} is not a valid name of a tenant: use lower-case letters, digits, - and _, beginning with a letter or digit, at most 32"
        ),
    }
}

/// The author of the change, as far as known.
fn author() -> String {
    std::env::var("USER").unwrap_or_else(|_| "operator".to_owned())
}

fn read(file: &Path) -> anyhow::Result<String> {
    if file == Path::new("-") {
        return Ok(std::io::read_to_string(std::io::stdin())?);
    }
    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

fn changed(
    name: &str,
    what: &str,
    answer: &TenantChanged,
    out: &mut impl Write,
) -> std::io::Result<()> {
    let live = match answer.live_on_all_workers {
        true => "live on all workers here; other hosts follow within about a second",
        false => "not yet seen by all workers",
    };
    writeln!(out, "{}: {what}, {live}", clean(name))
}

fn list(client: &Client, out: &mut impl Write) -> anyhow::Result<()> {
    let columns = [
        "name",
        "from",
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
    let tenants: Vec<TenantStatus> = client.call("tenant.list", json!([]))?;
    let mut table = Table::new(columns);
    for tenant in &tenants {
        let counts = [
            tenant.requests,
            tenant.relay,
            tenant.reject,
            tenant.drop,
            tenant.pass,
            tenant.failed,
            tenant.shed,
        ];
        let [requests, relay, reject, drop, pass, failed, shed] =
            counts.map(|count| count.to_string());
        table.push([
            tenant.name.clone(),
            tenant.from.to_string(),
            tenant.policy.clone().unwrap_or_default(),
            tenant
                .generation
                .map_or_else(String::new, |number| number.to_string()),
            tenant.mode.to_string(),
            requests,
            relay,
            reject,
            drop,
            pass,
            failed,
            shed,
        ]);
    }
    table.write(out)?;
    for tenant in &tenants {
        if let Some(alert) = &tenant.alert {
            writeln!(out, "alert: {}: {}", clean(&tenant.name), clean(alert))?;
        }
    }
    Ok(())
}

fn reload(client: &Client, out: &mut impl Write) -> anyhow::Result<()> {
    let done: TenantsReload = client.call("tenant.reload", json!([]))?;
    let names = |names: &[String]| match names.is_empty() {
        true => "none".to_owned(),
        false => clean(&names.join(", ")).into_owned(),
    };
    writeln!(
        out,
        "{}: added {}; changed {}; removed {}",
        done.status,
        names(&done.added),
        names(&done.changed),
        names(&done.removed)
    )?;
    if !done.need_a_start.is_empty() {
        let sections = names(&done.need_a_start);
        writeln!(
            out,
            "note: changes of {sections} take effect after a restart"
        )?;
    }
    Ok(())
}
