//! `portcullis resolve`: where a URI leads, with each query.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::bail;
use portcullis_config::Config;
use portcullis_resolve::{Answer, Found, Records};
use portcullis_rollout::resolve::Dns;
use serde_json::{Value, json};

use super::database::block_on;
use super::print::{Format, Table, clean, stdout, write_json};
use super::way::Way;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A SIP URI or a host: "sip:example.com", "sips:example.com", "sip:example.com;transport=tcp", "example.com:5070"
    #[arg(value_name = "URI")]
    uri: String,
    #[command(flatten)]
    format: Format,
}

pub(super) fn run(args: &Args, named: Option<&Path>) -> anyhow::Result<ExitCode> {
    let (config, _) = Config::find(named)?;
    let way = Way::parse(&args.uri)?;
    let dns = Dns::new(&config.resolver);
    let found = block_on(way.found(&dns))?;
    let mut out = stdout();
    match args.format.json {
        true => write_json(&mut out, &as_json(&found))?,
        false => write(&mut out, &found)?,
    }
    if found.candidates.is_empty() {
        let error = found.error().unwrap_or_default();
        bail!("{} leads nowhere: {error}", args.uri);
    }
    Ok(ExitCode::SUCCESS)
}

fn write(out: &mut impl Write, found: &Found) -> anyhow::Result<()> {
    for step in &found.steps {
        let seconds = step.answer.ttl().as_secs();
        let answer = match &step.answer {
            Answer::Found { stale: None, .. } => format!("{seconds} s"),
            Answer::Found {
                stale: Some(error), ..
            } => format!("{seconds} s, from an earlier answer: {error}"),
            Answer::None { .. } => format!("{seconds} s, no such record"),
            Answer::Failed { error, .. } => format!("failed: {error}"),
        };
        writeln!(
            out,
            "{}: {}",
            clean(&step.query.to_string()),
            clean(&answer)
        )?;
        if let Answer::Found { records, .. } = &step.answer {
            for record in shown(records) {
                writeln!(out, "    {}", clean(&record))?;
            }
        }
    }
    if found.candidates.is_empty() {
        return Ok(());
    }
    if !found.steps.is_empty() {
        writeln!(out)?;
    }
    let mut table = Table::new(["transport", "address", "order", "priority", "weight"]);
    for one in &found.candidates {
        table.push([
            one.transport.parameter().to_owned(),
            one.addr.to_string(),
            one.order.to_string(),
            one.priority.to_string(),
            one.weight.to_string(),
        ]);
    }
    table.write(out)?;
    Ok(())
}

/// The records as zone files write them.
fn shown(records: &Records) -> Vec<String> {
    match records {
        Records::Addresses(ips) => ips.iter().map(ToString::to_string).collect(),
        Records::Srv(records) => records
            .iter()
            .map(|srv| {
                format!(
                    "{} {} {} {}",
                    srv.priority, srv.weight, srv.port, srv.target
                )
            })
            .collect(),
        Records::Naptr(records) => records
            .iter()
            .map(|naptr| {
                format!(
                    "{} {} \"{}\" \"{}\" \"{}\" {}",
                    naptr.order,
                    naptr.preference,
                    naptr.flags,
                    naptr.service,
                    naptr.regexp,
                    naptr.replacement
                )
            })
            .collect(),
    }
}

fn as_json(found: &Found) -> Value {
    let steps = found.steps.iter().map(|step| {
        let (records, error) = match &step.answer {
            Answer::Found { records, stale, .. } => (shown(records), stale.as_ref()),
            Answer::None { .. } => (Vec::new(), None),
            Answer::Failed { error, .. } => (Vec::new(), Some(error)),
        };
        json!({
            "name": step.query.name,
            "type": step.query.kind.as_str(),
            "ttl": step.answer.ttl().as_secs(),
            "records": records,
            "error": error,
        })
    });
    let addresses = found.candidates.iter().map(|one| {
        json!({
            "transport": one.transport.parameter(),
            "address": one.addr.to_string(),
            "order": one.order,
            "priority": one.priority,
            "weight": one.weight,
        })
    });
    json!({
        "queries": steps.collect::<Vec<_>>(),
        "addresses": addresses.collect::<Vec<_>>(),
        "ttl": found.ttl.as_secs(),
    })
}
