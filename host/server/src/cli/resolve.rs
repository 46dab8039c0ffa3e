//! `portcullis resolve`: where a URI leads, with each query.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, anyhow, bail};
use portcullis_config::Config;
use portcullis_resolve::{Answer, Found, Records};
use portcullis_rollout::resolve::Dns;
use portcullis_sip::{Candidate, Host, Lookup, Scheme, Sought, Transport, Uri};
use serde_json::{Value, json};

use super::database::block_on;
use super::print::{Format, Table, clean, stdout, write_json};

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

/// What a URI says of its destination.
#[derive(Debug)]
enum Way {
    /// An address: nothing is asked.
    Address(Candidate),
    /// A name.
    Name {
        lookup: Lookup,
        /// For addresses without SRV records: the URI's own, or UDP.
        transport: Transport,
        port: Option<u16>,
    },
}

impl Way {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let has_scheme = ["sip:", "sips:"].iter().any(|scheme| {
            let start = text.get(..scheme.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(scheme))
        });
        let whole = match has_scheme {
            true => text.to_owned(),
            false => format!("sip:{text}"),
        };
        let uri = Uri::parse(whole.as_bytes())
            .with_context(|| format!("{text}: write for example sip:example.com"))?;
        let transport = transport_of(&uri).map_err(|mend| anyhow!("{text}: {mend}"))?;
        let (port, used) = (uri.port, transport.unwrap_or(Transport::Udp));
        let host = match uri.maddr() {
            None => uri.host,
            Some(maddr) => {
                Host::parse(maddr).with_context(|| format!("{text}: maddr is not a host"))?
            }
        };
        let Host::Name(name) = host else {
            let ip = host.ip().context("neither a name nor an address")?;
            let port = port.unwrap_or_else(|| used.default_port());
            let addr = (ip, port).into();
            return Ok(Self::Address(Candidate::plain(used, addr)));
        };
        let name = std::str::from_utf8(name)?.to_ascii_lowercase();
        let name = name.strip_suffix('.').unwrap_or(&name);
        Ok(Self::Name {
            lookup: Lookup::of(name, port, transport),
            transport: used,
            port,
        })
    }

    async fn found(&self, dns: &Dns) -> Found {
        let (lookup, transport, port) = match self {
            Self::Address(candidate) => {
                return Found {
                    candidates: vec![*candidate],
                    ttl: portcullis_resolve::TTL_MOST,
                    steps: Vec::new(),
                };
            }
            Self::Name {
                lookup,
                transport,
                port,
            } => (lookup, *transport, *port),
        };
        let mut found = dns.plan(lookup).await;
        if let (Sought::Addresses, Some(port)) = (lookup.sought, port) {
            for candidate in &mut found.candidates {
                candidate.addr.set_port(port);
                candidate.transport = transport;
            }
        }
        found
    }
}

/// The transport that the URI demands; `None`: any. The error says what to write instead.
fn transport_of(uri: &Uri<'_>) -> Result<Option<Transport>, &'static str> {
    let is_named = uri.transport().is_some();
    match (uri.scheme, uri.known_transport()) {
        (Scheme::Sip, Some(_)) if !is_named => Ok(None),
        (_, Some(Transport::Ws | Transport::Wss)) => {
            Err("only clients open connections of WebSocket: remove transport=ws")
        }
        (_, Some(transport)) => Ok(Some(transport)),
        (Scheme::Sip, None) => Err("write transport=udp, transport=tcp or transport=tls"),
        (Scheme::Sips, None) => Err("a sips URI leads over TLS: remove the transport"),
    }
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
    let mut table = Table::new(["TRANSPORT", "ADDRESS", "ORDER", "PRIORITY", "WEIGHT"]);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_hosts_and_addresses_are_read() {
        for (text, expected) in [
            ("sip:bob@Example.com.", "example.com"),
            ("example.com", "example.com"),
            ("SIP:example.com;transport=TCP", "example.com (tcp)"),
            ("example.com:5070", "example.com (addresses)"),
            ("sip:x@a.example;maddr=b.example", "b.example"),
            ("sips:example.com", "example.com (tls)"),
            ("SIPS:ada@example.com;transport=tcp", "example.com (tls)"),
            ("sip:example.com;transport=tls", "example.com (tls)"),
            ("sips:example.com:5071", "example.com (addresses)"),
        ] {
            match Way::parse(text).unwrap() {
                Way::Name { lookup, .. } => assert_eq!(lookup.to_string(), expected),
                Way::Address(candidate) => panic!("{text}: {candidate:?}"),
            }
        }
        for (text, expected) in [
            ("192.0.2.1", "192.0.2.1:5060"),
            ("sip:[2001:db8::1]:5070", "[2001:db8::1]:5070"),
            ("sips:192.0.2.1", "192.0.2.1:5061"),
            ("sip:192.0.2.1;transport=tls", "192.0.2.1:5061"),
        ] {
            match Way::parse(text).unwrap() {
                Way::Address(candidate) => {
                    assert_eq!(candidate.addr.to_string(), expected);
                    let is_secure = expected.ends_with(":5061");
                    assert_eq!(candidate.transport == Transport::Tls, is_secure, "{text}");
                }
                Way::Name { lookup, .. } => panic!("{text}: {lookup}"),
            }
        }
        for (bad, expected) in [
            ("sips:example.com;transport=udp", "remove the transport"),
            ("sip:example.com;transport=ws", "only clients open"),
            ("sip:example.com;transport=sctp", "write transport=udp"),
            ("sip:a b", "write for example"),
            ("", "write for example"),
        ] {
            let error = format!("{:#}", Way::parse(bad).unwrap_err());
            assert!(error.contains(expected), "{bad}: {error}");
        }
    }
}
