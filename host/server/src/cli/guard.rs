//! `portcullis guard …`: the sources that the running host holds or bans.

use std::io::Write;
use std::process::ExitCode;

use portcullis_config::Config;
use portcullis_control::commands::guard::{
    BanReach, BannedSource, BarredReason, BarredSource, BarredState, ReleasedSource,
};
use serde_json::json;

use super::client::{Client, Elsewhere, Reach, Reaching};
use super::print::{Format, Table, clean, stdout, write_json};

#[derive(Debug, clap::Subcommand)]
pub(super) enum GuardCommand {
    /// List the sources that the running host holds or bans, with the reason and the seconds until they are released
    List(Format),
    /// Ban a source at once, whatever it has done; hosts that share bans ban it, too
    ///
    /// A ban or hold of the source is replaced, also by a shorter ban. An address that a host knows is never banned there: those in the address table, trusted
    /// peers, next hops, and `exempt` of [guard].
    Ban {
        /// An address; one of an IPv6 /64 stands for all of them
        address: String,
        /// For how long, for example 90s, 10m or 1h, at most 24h [default: `ban` of [guard]]
        #[arg(long = "for", value_name = "TIME")]
        time: Option<String>,
    },
    /// Release a source at once, and forget what it did; hosts that share bans release it, too
    ///
    /// A source that goes on is held or banned again. One that must never be belongs into the address table, or into `exempt` of [guard].
    #[command(visible_alias = "unban")]
    Release {
        /// An address; one of an IPv6 /64 stands for all of them
        address: String,
    },
}

impl Reaching for GuardCommand {
    fn elsewhere(&self) -> Option<(&'static str, Elsewhere)> {
        match self {
            Self::List(_) | Self::Ban { .. } | Self::Release { .. } => None,
        }
    }
}

impl GuardCommand {
    pub(super) fn run(self, config: &Config, reach: &Reach) -> anyhow::Result<ExitCode> {
        let out = &mut stdout();
        let client = Client::new(config, reach)?;
        match self {
            Self::List(format) => list(&client, format, out)?,
            Self::Ban { address, time } => {
                let params: Vec<_> = [Some(address), time].into_iter().flatten().collect();
                let banned: BannedSource = client.call("guard.ban", json!(params))?;
                let reach = match banned.reach {
                    BanReach::Host => "on this host",
                    BanReach::Fleet => "on all hosts that share bans",
                    BanReach::Later => {
                        "on this host; on the others when they are heard again through Redis"
                    }
                };
                let (source, seconds) = (clean(&banned.source), banned.seconds);
                writeln!(out, "banned {source} for {seconds} s {reach}")?;
            }
            Self::Release { address } => {
                let released: ReleasedSource = client.call("guard.release", json!([address]))?;
                writeln!(out, "released {}", clean(&released.source))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn list(client: &Client, format: Format, out: &mut impl Write) -> anyhow::Result<()> {
    let all: Vec<BarredSource> = client.call("guard.list", json!([]))?;
    if format.json {
        return write_json(out, &all);
    }
    if all.is_empty() {
        return Ok(writeln!(out, "no source is held or banned")?);
    }
    let mut table = Table::new(["source", "state", "reason", "seconds", "dropped"]);
    for one in all {
        let state = match one.state {
            BarredState::Held => "held",
            BarredState::Banned => "banned",
        };
        let reason = match one.reason {
            BarredReason::Refusals => "refusals",
            BarredReason::Users => "users",
            BarredReason::Challenges => "challenges",
            BarredReason::Malformed => "malformed",
            BarredReason::Flood => "flood",
            BarredReason::Operator => "operator",
        };
        let state = match one.host {
            Some(host) => format!("{state} by {host}"),
            None => state.to_owned(),
        };
        table.push([
            one.source,
            state,
            reason.to_owned(),
            one.seconds.to_string(),
            one.dropped.to_string(),
        ]);
    }
    Ok(table.write(out)?)
}
