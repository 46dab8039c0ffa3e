//! `portcullis policy run`: what a policy decides on one request, and why.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context, anyhow, bail};
use portcullis_cases::{
    Evaluated, Evaluation, FirstLook, MessageFields, PeerSpec, Sight, read_message,
};
use portcullis_config::{Config, DefaultVerdict, SIP_PORT};
use portcullis_policy::{ForwardTarget, StatedHost};
use portcullis_records::replay::Answered;
use portcullis_records::{Decided, Question};
use portcullis_sip::{Arrival, Transport};
use portcullis_text::{clean_json, from_rfc3339, rfc3339};
use serde_json::json;

use super::super::print::clean;
use super::offline::{Surroundings, Tables};

/// The largest message that is read.
const LARGEST: u64 = 1 << 20;

/// The policy, the request and what it meets.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The policy: a WebAssembly module or component
    #[arg(value_name = "FILE.wasm")]
    policy: PathBuf,
    /// The request as a text file with LF or CRLF; - for standard input [default: an INVITE]
    #[arg(long, value_name = "FILE")]
    message: Option<PathBuf>,
    /// The source of the request, with a port other than 5060 if it matters
    #[arg(long, value_name = "ADDRESS[:PORT]", value_parser = parse_socket)]
    from: SocketAddr,
    /// The local socket that received it
    #[arg(long, value_name = "ADDRESS[:PORT]", default_value = "198.51.100.1:5060", value_parser = parse_socket)]
    to: SocketAddr,
    /// The transport: udp, tcp, tls, ws or wss
    #[arg(long, default_value = "udp")]
    transport: Transport,
    /// The peer over tls or wss, with the keys of `peer` in a file of cases, for example dns=sbc.example.com; can be given several times
    /// [default: a client without a certificate]
    #[arg(long, value_name = "KEY=VALUE")]
    peer: Vec<String>,
    /// The time that the policy reads, in RFC 3339 [default: now]
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    time: Option<SystemTime>,
    /// The seat whose limits, settings and scope apply: a tenant, or default, before or after
    #[arg(long, default_value = "default")]
    seat: String,
    /// Use a file in the format of Kamailio's `address_file` instead of the tables of the configuration
    #[arg(long, value_name = "FILE")]
    address_file: Option<PathBuf>,
    /// Use empty tables, and no sets of the dispatcher
    #[arg(long, conflicts_with = "address_file")]
    no_tables: bool,
    /// Settings: a TOML or JSON file, or KEY=VALUE; can be given several times [default: those of the seat in the configuration]
    #[arg(long, value_name = "FILE|KEY=VALUE")]
    settings: Vec<String>,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

pub(super) fn run(
    args: &Args,
    found: (Config, Option<PathBuf>),
    out: &mut impl Write,
) -> anyhow::Result<ExitCode> {
    let around = Surroundings::new(found);
    let arrival = Arrival {
        source: args.from,
        local: args.to,
        transport: args.transport,
        connection: None,
    };
    let (shown, bytes) = match &args.message {
        None => ("INVITE".into(), MessageFields::default().write(&arrival, 1)),
        Some(file) if file.as_os_str() == "-" => ("standard input".into(), read(file)?),
        Some(file) => (file.display().to_string(), read(file)?),
    };
    let request = read_message(&bytes, arrival).map_err(|error| anyhow!("{shown}: {error}"))?;
    let host = stated(args)?;
    let settings = around.settings(&args.seat, &args.settings)?;
    let tables = around.tables(args.address_file.as_deref(), args.no_tables)?;
    let runtime = around.runtime()?;
    let policy = around.load(&runtime, &args.policy, &args.seat, &settings)?;
    policy.check_settings(&settings)?;
    let scope = around.scope(&args.seat)?.with_settings(settings);
    let scope = match around.sets(args.no_tables)? {
        Some(sets) => scope.with_dispatcher_alone(sets),
        None => scope,
    };
    let evaluation = Evaluation {
        request: &request,
        at: args.time.unwrap_or_else(SystemTime::now),
        aliases: &around.config.sip.aliases,
        host: &host,
        tables: &tables.snapshot,
    };
    let evaluated = evaluation.run(policy, scope);
    let result = Run {
        file: &args.policy,
        around: &around,
        seat: &args.seat,
        evaluation,
        tables: &tables,
        evaluated,
    };
    match args.json {
        true => writeln!(out, "{}", clean_json(&result.as_json().to_string()))?,
        false => result.write(out)?,
    }
    let has_failed = result
        .evaluated
        .answered
        .is_some_and(|answered| matches!(answered.decided, Decided::Failed { .. }));
    Ok(match has_failed {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    })
}

/// What the policy gets to know beside the request.
fn stated(args: &Args) -> anyhow::Result<StatedHost> {
    let peer = match args.peer.is_empty() {
        true => None,
        false => {
            let pairs = args.peer.iter().map(String::as_str);
            Some(PeerSpec::of_pairs(pairs).map_err(|error| anyhow!("--{error}"))?)
        }
    };
    PeerSpec::state(peer.as_ref(), args.transport).map_err(|error| anyhow!("--{error}"))
}

/// One call and its surroundings.
struct Run<'r> {
    /// The policy.
    file: &'r Path,
    around: &'r Surroundings,
    seat: &'r str,
    evaluation: Evaluation<'r>,
    tables: &'r Tables,
    evaluated: Evaluated,
}

impl Run<'_> {
    fn write(&self, out: &mut impl Write) -> std::io::Result<()> {
        let Arrival {
            source, transport, ..
        } = self.evaluation.request.arrival;
        let mut line = |label: &str, text: &str| {
            let label = match label {
                "" => String::new(),
                label => format!("{label}:"),
            };
            writeln!(out, "{label:<10} {}", clean(text))
        };
        let request = self.evaluation.request;
        let (method, uri) = (request.method(), request.uri());
        line(
            "request",
            &format!("{method} {uri} from {source} over {transport}"),
        )?;
        line("time", &rfc3339(self.evaluation.at))?;
        let config = match &self.around.file {
            Some(file) => format!("{} of {}", self.seat, file.display()),
            None => format!("{}, without a configuration file", self.seat),
        };
        line("seat", &config)?;
        line("tables", &self.tables.origin)?;
        let Some(answered) = &self.evaluated.answered else {
            return line("verdict", &self.evaluated.look.to_string());
        };
        let mut label = "asked";
        for (question, reason) in self.evaluation.reasons(&self.evaluated, Sight::All) {
            line(label, &explained(question, reason))?;
            label = "";
        }
        if answered.is_cut {
            line("", "… and more, which are not recorded")?;
        }
        label = "log";
        for log in &answered.log {
            line(label, &log.to_string())?;
            label = "";
        }
        line("verdict", &answered.decided.to_string())?;
        if let Some(then) = self.then(answered) {
            line("", &then)?;
        }
        label = "header";
        for edit in &answered.edits {
            line(label, &edit.to_string())?;
            label = "";
        }
        let targets = answered.forwarding.iter().flat_map(|said| &said.targets);
        label = "targets";
        for target in targets {
            line(label, &self.shown(target))?;
            label = "";
        }
        let fuel = answered.fuel.unwrap_or_default();
        line(
            "cost",
            &format!("fuel {fuel}, {:.0?} with a new instance", answered.took),
        )
    }

    /// What a host does then, if the verdict does not say it.
    fn then(&self, answered: &Answered) -> Option<String> {
        let config = &self.around.config;
        match &answered.decided {
            Decided::Relay(Some(name)) => Some(format!("{name} is {}", self.hop(name))),
            Decided::Relay(None) if answered.forwarding.is_none() => {
                let hop = config.relay.next_hop.as_ref();
                Some(match hop {
                    Some(hop) => format!(
                        "where Route or request URI lead, if [relay] permits it; else to {hop}"
                    ),
                    None => "where Route or request URI lead, if [relay] permits it".to_owned(),
                })
            }
            Decided::Pass => Some(match &config.policy.default {
                DefaultVerdict::Relay => {
                    "the next policy decides; if none does, the request is relayed".to_owned()
                }
                DefaultVerdict::Drop => {
                    "the next policy decides; if none does, the request is dropped".to_owned()
                }
                DefaultVerdict::Reject(answer) => {
                    format!(
                        "the next policy decides; if none does, the answer is {} {}",
                        answer.code, answer.reason
                    )
                }
            }),
            Decided::Failed { .. } => {
                let seat = config.seat(self.seat)?;
                Some(format!(
                    "a host does what `on-failure` of the seat says: by default the answer {}",
                    seat.failure.answer.code
                ))
            }
            Decided::Relay(None)
            | Decided::Reject { .. }
            | Decided::Drop
            | Decided::Best
            | Decided::Answer { .. }
            | Decided::Again => None,
        }
    }

    fn hop(&self, name: &str) -> String {
        let hops = &self.around.config.relay.next_hops;
        let hop = hops.iter().find(|(own, _)| own == name);
        match hop {
            Some((_, hop)) => hop.to_string(),
            None => "not in [relay.next-hops]".to_owned(),
        }
    }

    /// `carrier-a (sip:192.0.2.1:5060), rank 1, request URI sip:+49@192.0.2.1, X-A: b`
    fn shown(&self, target: &ForwardTarget) -> String {
        let mut text = match &target.place {
            portcullis_policy::Place::NextHop(name) => format!("{name} ({})", self.hop(name)),
            portcullis_policy::Place::Uri(uri) => uri.clone(),
            member @ portcullis_policy::Place::Member(_) => member.to_string(),
        };
        text += &format!(", rank {}", target.rank);
        if let Some(uri) = &target.request_uri {
            text += &format!(", request URI {uri}");
        }
        if let Some(time) = target.no_answer {
            text += &format!(", {time:?} until the first response");
        }
        if let Some(time) = target.ring {
            text += &format!(", rings for {time:?}");
        }
        for (name, value) in &target.headers {
            text += &format!(", {name}: {value}");
        }
        text
    }

    fn as_json(&self) -> serde_json::Value {
        let Evaluation { request, at, .. } = self.evaluation;
        let arrival = &request.arrival;
        let answered = self.evaluated.answered.as_ref();
        let asked = answered.map(|_| {
            let asked = self
                .evaluation
                .reasons(&self.evaluated, Sight::All)
                .into_iter();
            let asked = asked.map(|(question, reason)| {
                json!({
                    "function": question.function,
                    "arguments": question.arguments,
                    "answer": question.answer,
                    "reason": reason,
                })
            });
            asked.collect::<Vec<_>>()
        });
        let look = &self.evaluated.look;
        let outcome = answered.map(portcullis_cases::Outcome::of);
        json!({
            "file": self.file,
            "method": request.method(),
            "uri": request.uri(),
            "source": arrival.source,
            "transport": arrival.transport.parameter(),
            "time": rfc3339(at),
            "seat": self.seat,
            "tables": self.tables.origin,
            "not_called": (*look != FirstLook::Judged).then(|| look.to_string()),
            "decided": answered.map(|answered| &answered.decided),
            "outcome": outcome,
            "asked": asked,
            "fuel": answered.and_then(|answered| answered.fuel),
            "microseconds": answered.map(|answered| answered.took.as_micros()),
        })
    }
}

/// `permissions.allow-source-address(200) = false: no row has 192.0.2.7`
fn explained(question: &Question, reason: Option<String>) -> String {
    let reason = reason
        .map(|reason| format!(": {reason}"))
        .unwrap_or_default();
    format!("{question} = {}{reason}", question.answer)
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let shown = file.display();
    let read = match file.as_os_str() == "-" {
        true => std::io::stdin().take(LARGEST + 1).read_to_end(&mut bytes),
        false => std::fs::File::open(file)
            .and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes)),
    };
    match read.with_context(|| format!("cannot read {shown}"))? as u64 > LARGEST {
        true => bail!(
            "{shown} has more than {LARGEST} bytes, the most that a SIP message can have here: name the file with the request"
        ),
        false => Ok(bytes),
    }
}

/// An address with or without a port.
pub(super) fn parse_socket(text: &str) -> Result<SocketAddr, String> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, SIP_PORT));
    }
    let mend =
        "write an address with or without a port, for example 192.0.2.7:5060 or [2001:db8::7]:5060";
    text.parse().map_err(|_| mend.to_owned())
}

fn parse_time(text: &str) -> Result<SystemTime, String> {
    from_rfc3339(text).ok_or_else(|| "write a time like 2026-12-24T18:00:00+01:00".to_owned())
}
