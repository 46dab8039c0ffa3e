//! `portcullis dispatcher …`: the sets of the dispatcher in the database, and those of the running host.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, anyhow, bail, ensure};
use portcullis_cases::read_message;
use portcullis_config::Config;
use portcullis_control::commands::dispatcher::{DispatcherShown, ShownDestination};
use portcullis_database::Connections;
use portcullis_dispatcher::{
    Algorithm, Dispatcher, HashOf, MOST_CHOSEN, NewDestination, Question, Source, State, hash,
    hash_of_uri,
};
use portcullis_policy::hash_of_request;
use portcullis_request::Request;
use portcullis_sip::{Arrival, Transport};
use serde_json::{Value, json};

use super::client::{Client, Elsewhere, Reach, Reaching};
use super::database::block_on;
use super::findings::{write_answered, write_findings};
use super::print::{Format, Table, clean, count, stdout, write_json};

#[derive(Debug, clap::Subcommand)]
pub(super) enum DispatcherCommand {
    /// Show the sets of the running host: the state of each destination, the last result of a request there, and of a ping
    Show(Format),
    /// Add a destination to the database; a running host detects it within about a second
    ///
    /// The arguments and their order are those of `kamctl dispatcher add`. An invalid row is refused.
    Add(Row),
    /// Remove all rows of a set and a URI from the database
    Rm {
        /// The number of the set
        set: u32,
        /// The URI, as written in the row
        uri: String,
    },
    /// Show the rows in the database, and those that cannot be used
    Rows(Format),
    /// Set the state of destinations of the running host: it lasts until it is set again, or the flags of the row change
    SetState {
        /// a (active), i (inactive), d (disabled) or t (trying); with p (ip), the host tries the destination again by itself
        state: State,
        /// The number of the set
        set: u32,
        /// The URI, as written in the row, or all
        uri: String,
    },
    /// Show whether the running host pings destinations, or switch that on or off until its end
    Pings {
        /// on or off
        state: Option<Switch>,
    },
    /// Reload the sets of the running host, and list unusable rows
    ///
    /// The host reloads them automatically when the table changes. This command waits for the reload.
    Reload,
    /// Show which destinations of a set an algorithm chooses, in their order, as the rows in the database or the file say
    Test(Test),
}

/// Whether pings are sent.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum Switch {
    /// They are
    On,
    /// They are not
    Off,
}

#[derive(Debug, clap::Args)]
pub(super) struct Row {
    /// The number of the set
    set: u32,
    /// The SIP URI: sip:HOST or sips:HOST, with :PORT and ;transport=tcp or tls if need be
    uri: String,
    /// The sum of 1 (inactive), 2 (trying), 4 (disabled), 8 (probing), 32 (no pings)
    #[arg(default_value_t = 0)]
    flags: u32,
    /// Destinations with a higher priority come first
    #[arg(default_value_t = 0, allow_negative_numbers = true)]
    priority: i32,
    /// name=value pairs, separated by semicolons: weight, rweight, maxload, duid, and others for people
    #[arg(default_value = "", hide_default_value = true)]
    attrs: String,
    /// A text for people
    #[arg(default_value = "", hide_default_value = true)]
    description: String,
}

#[derive(Debug, clap::Args)]
pub(super) struct Test {
    /// The number of the set
    set: u32,
    /// The algorithm: a number from 0 to 13 or 15, or its name
    algorithm: Algorithm,
    /// What the algorithm takes the hash of: the Call-ID, the URI, the user or the key
    text: Option<String>,
    /// A request as a text file with LF or CRLF, of which the algorithm takes the hash; - for standard input. The key is still TEXT
    #[arg(long, value_name = "FILE")]
    request: Option<PathBuf>,
    /// Most destinations
    #[arg(long, default_value_t = MOST_CHOSEN as u8, value_parser = clap::value_parser!(u8).range(1..=MOST_CHOSEN as i64))]
    limit: u8,
    #[command(flatten)]
    format: Format,
}

impl Reaching for DispatcherCommand {
    fn elsewhere(&self) -> Option<(&'static str, Elsewhere)> {
        let name = match self {
            Self::Add(_) => "dispatcher add",
            Self::Rm { .. } => "dispatcher rm",
            Self::Rows(_) => "dispatcher rows",
            Self::Test(_) => "dispatcher test",
            Self::Show(_) | Self::SetState { .. } | Self::Pings { .. } | Self::Reload => {
                return None;
            }
        };
        Some((name, Elsewhere::Database))
    }
}

impl DispatcherCommand {
    pub(super) fn run(self, config: &Config, reach: &Reach) -> anyhow::Result<ExitCode> {
        let out = &mut stdout();
        let connections = || Connections::new(config.database.servers());
        let source = || config.dispatcher.source(connections(), &config.database);
        match self {
            Self::Show(format) => show(&Client::new(config, reach)?, format, out)?,
            Self::Add(row) => add(&source(), row, out)?,
            Self::Rm { set, uri } => remove(&source(), set, &uri, out)?,
            Self::Rows(format) => rows(config, format, out)?,
            Self::SetState { state, set, uri } => {
                let client = Client::new(config, reach)?;
                let params = json!([state.to_string(), set, uri]);
                let done: String = client.call("dispatcher.set_state", params)?;
                writeln!(out, "{done}")?;
            }
            Self::Pings { state } => pings(&Client::new(config, reach)?, state, out)?,
            Self::Reload => reload(&Client::new(config, reach)?, out)?,
            Self::Test(test) => self::test(config, &test, out)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn show(client: &Client, format: Format, out: &mut impl Write) -> anyhow::Result<()> {
    if format.json {
        return write_json(out, &client.call::<Value>("dispatcher.show", json!([]))?);
    }
    let shown: DispatcherShown = client.call("dispatcher.show", json!([]))?;
    let mut table = Table::new(HEAD);
    for set in &shown.sets {
        for destination in &set.destinations {
            table.push([
                set.id.to_string(),
                destination.uri.clone(),
                destination.state.clone(),
                destination.failures.to_string(),
                last_of(destination),
                ping_of(destination),
                calls_of(destination),
                destination.priority.to_string(),
                destination.attrs.clone(),
            ]);
        }
    }
    match (table.is_empty(), shown.table_is_absent) {
        (true, true) => writeln!(
            out,
            "{} has no table of the dispatcher",
            clean(&shown.source)
        )?,
        (true, false) => writeln!(out, "{} has no destinations", clean(&shown.source))?,
        (false, _) => table.write(out)?,
    }
    if let Some(error) = &shown.last_error {
        writeln!(out, "\nthe last load failed: {}", clean(error))?;
    }
    write_found(&shown, out)
}

/// The last result, and whether requests wait because of it.
fn last_of(destination: &ShownDestination) -> String {
    let last = match (&destination.last_at, destination.last_code) {
        (None, _) => String::new(),
        (Some(at), Some(code)) => format!("{code} at {at}"),
        (Some(at), None) => format!("no answer at {at}"),
    };
    match &destination.paused_until {
        Some(until) => format!("{last}, no requests until {until} (Retry-After)"),
        None => last,
    }
}

/// The calls to it, and how many of them this host counts if others count some.
fn calls_of(destination: &ShownDestination) -> String {
    match (destination.calls, destination.own_calls) {
        (calls, own) if calls == own => calls.to_string(),
        (calls, own) => format!("{calls} ({own} here)"),
    }
}

/// Why the last ping failed, or what the next answer is expected to take.
fn ping_of(destination: &ShownDestination) -> String {
    match (&destination.ping_failure, destination.latency_estimate_ms) {
        (Some(reason), _) => reason.clone(),
        (None, estimate) if estimate > 0.0 => format!("{estimate:.1} ms"),
        (None, _) => String::new(),
    }
}

fn pings(client: &Client, state: Option<Switch>, out: &mut impl Write) -> anyhow::Result<()> {
    if let Some(state) = state {
        let number = match state {
            Switch::On => 1,
            Switch::Off => 0,
        };
        let _before: Value = client.call("dispatcher.ping_active", json!([number]))?;
    }
    let shown: DispatcherShown = client.call("dispatcher.show", json!([]))?;
    let pinged = shown.sets.iter().flat_map(|set| &set.destinations);
    let pinged = pinged.filter(|destination| destination.is_pinged).count();
    match (shown.is_pinging, state) {
        (true, _) => writeln!(out, "on: {} pinged", count(pinged as u64, "destination"))?,
        (false, Some(Switch::On)) => {
            bail!("`ping` in [dispatcher] is \"0s\": set an interval, and restart the host")
        }
        (false, Some(Switch::Off) | None) => writeln!(out, "off: nothing is pinged")?,
    }
    Ok(())
}

fn write_found(shown: &DispatcherShown, out: &mut impl Write) -> anyhow::Result<()> {
    let (wrong, odd) = (
        (shown.skipped, &*shown.errors),
        (shown.warned, &*shown.warnings),
    );
    Ok(write_answered("row", wrong, odd, out)?)
}

fn add(source: &Source, row: Row, out: &mut impl Write) -> anyhow::Result<()> {
    let new = NewDestination {
        setid: row.set.into(),
        destination: row.uri,
        flags: row.flags.into(),
        priority: row.priority.into(),
        attrs: row.attrs,
        description: row.description,
    };
    let warning = block_on(source.add(&new))??;
    writeln!(
        out,
        "added to {source}: set {}, {}, flags {}, priority {}",
        new.setid,
        clean(&new.destination),
        new.flags,
        new.priority
    )?;
    if let Some(warning) = warning {
        writeln!(out, "warning: {}", clean(&warning.to_string()))?;
    }
    Ok(())
}

fn remove(source: &Source, set: u32, uri: &str, out: &mut impl Write) -> anyhow::Result<()> {
    match block_on(source.remove(set.into(), uri))?? {
        0 => bail!(
            "no row of {source} has set {set} and {uri}; `portcullis dispatcher rows` shows them"
        ),
        n => Ok(writeln!(
            out,
            "removed from {source}: {} with set {set} and {}",
            count(n, "row"),
            clean(uri)
        )?),
    }
}

fn rows(config: &Config, format: Format, out: &mut impl Write) -> anyhow::Result<()> {
    let dispatcher = config.dispatcher.dispatcher(&config.database);
    let (sets, is_absent) = loaded(&dispatcher)?;
    if format.json {
        let members = sets.members().map(|member| {
            json!({
                "set": member.set,
                "uri": member.uri,
                "flags": member.flags,
                "priority": member.priority,
                "attrs": member.attrs.body,
                "description": member.description,
            })
        });
        let shown = json!({
            "rows": members.collect::<Vec<_>>(),
            "skipped": sets.skipped,
            "errors": sets.errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "warned": sets.warned,
            "warnings": sets.warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
        });
        return write_json(out, &shown);
    }
    let mut table = Table::new(["set", "URI", "flags", "priority", "attrs", "description"]);
    for member in sets.members() {
        table.push([
            member.set.to_string(),
            member.uri.to_string(),
            member.flags.to_string(),
            member.priority.to_string(),
            member.attrs.to_string(),
            member.description.to_string(),
        ]);
    }
    let source = dispatcher.source();
    match (table.is_empty(), is_absent) {
        (true, true) => writeln!(out, "{source} has no table `{}`", source.table())?,
        (true, false) => writeln!(out, "{source} has no destinations")?,
        (false, _) => table.write(out)?,
    }
    write_findings(out, "row", sets.skipped, "cannot be used", &sets.errors)?;
    let odd = "may not mean what was intended";
    Ok(write_findings(
        out,
        "row",
        sets.warned,
        odd,
        &sets.warnings,
    )?)
}

fn reload(client: &Client, out: &mut impl Write) -> anyhow::Result<()> {
    let done: String = client.call("dispatcher.reload", json!([]))?;
    let shown: DispatcherShown = client.call("dispatcher.show", json!([]))?;
    let destinations = shown.sets.iter().map(|set| set.destinations.len() as u64);
    writeln!(
        out,
        "{done} {} in {}, generation {}, {} ms",
        count(destinations.sum(), "destination"),
        count(shown.sets.len() as u64, "set"),
        shown.generation,
        shown.took_ms
    )?;
    write_found(&shown, out)
}

fn test(config: &Config, test: &Test, out: &mut impl Write) -> anyhow::Result<()> {
    let dispatcher = config.dispatcher.dispatcher(&config.database);
    let (sets, _) = loaded(&dispatcher)?;
    let Some(set) = sets.get(test.set) else {
        let known = sets.iter().map(|set| set.id().to_string());
        let known = known.collect::<Vec<_>>().join(", ");
        bail!(
            "{} has no set {}; there are: {known}",
            dispatcher.source(),
            test.set
        );
    };
    let question = Question {
        algorithm: test.algorithm,
        hash: hash_for(test)?,
        most: test.limit.into(),
        failed: None,
    };
    let chosen = set.choose(question, |_| true);
    if test.format.json {
        let uris = chosen.slots().map(|slot| {
            let member = &set.members()[slot];
            json!({"uri": member.uri, "slot": slot})
        });
        return write_json(out, &uris.collect::<Vec<_>>());
    }
    if chosen.is_empty() {
        writeln!(out, "no destination of set {} is up", test.set)?;
    }
    for (place, slot) in (1..).zip(chosen.slots()) {
        let member = &set.members()[slot];
        writeln!(out, "{place}. {} (slot {slot})", clean(&member.uri))?;
    }
    Ok(())
}

/// The hash of the text, for an algorithm that needs one.
fn hash_for(test: &Test) -> anyhow::Result<Option<u32>> {
    let Some(part) = test.algorithm.hash_of() else {
        ensure!(
            test.text.is_none(),
            "the algorithm {} takes no text",
            test.algorithm
        );
        return Ok(None);
    };
    let what = match part {
        HashOf::CallId => "the Call-ID",
        HashOf::FromUri => "the From URI",
        HashOf::ToUri => "the To URI",
        HashOf::RequestUri => "the request URI",
        HashOf::AuthUser => "the user",
        HashOf::Key => "the key",
    };
    if let Some(file) = &test.request {
        ensure!(
            part == HashOf::Key || test.text.is_none(),
            "--request has {what} already: leave {:?} out",
            test.text.as_deref().unwrap_or_default()
        );
        ensure!(
            part != HashOf::Key || test.text.is_some(),
            "the algorithm {} needs {what} after it",
            test.algorithm
        );
        let request = read_request(file)?;
        let key = test.text.as_deref().unwrap_or_default();
        // Without credentials, the next destination has its turn.
        return Ok(hash_of_request(&request, part, key));
    }
    let Some(text) = &test.text else {
        bail!("the algorithm {} needs {what} after it", test.algorithm);
    };
    match part {
        HashOf::FromUri | HashOf::ToUri | HashOf::RequestUri => {
            let hash = hash_of_uri(text.as_bytes(), false);
            ensure!(hash.is_some(), "{text:?} is not a SIP URI");
            Ok(hash)
        }
        HashOf::CallId | HashOf::AuthUser | HashOf::Key => Ok(Some(hash(text.as_bytes(), None))),
    }
}

/// The request in a file, as if a host had received it.
fn read_request(file: &Path) -> anyhow::Result<Request> {
    let bytes = match file.as_os_str() == "-" {
        true => {
            let mut bytes = Vec::new();
            std::io::stdin().lock().read_to_end(&mut bytes)?;
            bytes
        }
        false => std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?,
    };
    let nowhere = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 5060);
    let arrival = Arrival {
        source: nowhere,
        local: nowhere,
        transport: Transport::Udp,
        connection: None,
    };
    read_message(&bytes, arrival).map_err(|error| anyhow!("{}: {error}", file.display()))
}

/// The sets as they are stored, and whether there is no such table.
fn loaded(
    dispatcher: &Dispatcher,
) -> anyhow::Result<(std::sync::Arc<portcullis_dispatcher::Sets>, bool)> {
    let sets = block_on(dispatcher.reload())??;
    Ok((sets, dispatcher.status().is_absent))
}

const HEAD: [&str; 9] = [
    "set",
    "URI",
    "state",
    "failures",
    "last result",
    "ping",
    "calls",
    "priority",
    "attrs",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn config(folder: &tempfile::TempDir) -> Config {
        let path = folder.path().join("a.db");
        Config::parse(&format!(
            "[database]\nurl = \"sqlite:{}\"\n",
            path.display()
        ))
        .unwrap()
    }

    fn source(config: &Config) -> Source {
        let connections = Connections::new(config.database.servers());
        config.dispatcher.source(connections, &config.database)
    }

    fn said(work: impl FnOnce(&mut Vec<u8>) -> anyhow::Result<()>) -> String {
        let mut out = Vec::new();
        work(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn row(uri: &str, attrs: &str) -> Row {
        Row {
            set: 1,
            uri: uri.to_owned(),
            flags: 0,
            priority: 0,
            attrs: attrs.to_owned(),
            description: String::new(),
        }
    }

    #[test]
    fn rows_are_added_shown_tested_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(&folder);
        let source = source(&config);
        let added = said(|out| add(&source, row("sip:192.0.2.1", "weight=5"), out));
        assert!(
            added.contains("set 1, sip:192.0.2.1, flags 0, priority 0"),
            "{added}"
        );
        let warned = said(|out| add(&source, row("sip:192.0.2.2", "sockname=edge"), out));
        assert!(warned.contains("warning: attrs"), "{warned}");
        let websocket = row("sip:192.0.2.2;transport=ws", "");
        let refused = add(&source, websocket, &mut Vec::new()).unwrap_err();
        assert!(refused.to_string().contains("not supported"), "{refused}");

        let shown = said(|out| rows(&config, Format { json: false }, out));
        assert!(
            shown.contains("sip:192.0.2.1") && shown.contains("1 row may not mean"),
            "{shown}"
        );
        let question = |algorithm: &str, text: Option<&str>| Test {
            set: 1,
            algorithm: algorithm.parse().unwrap(),
            text: text.map(str::to_owned),
            request: None,
            limit: 16,
            format: Format::default(),
        };
        let chosen = said(|out| test(&config, &question("8", None), out));
        assert_eq!(
            chosen,
            "1. sip:192.0.2.2 (slot 0)\n2. sip:192.0.2.1 (slot 1)\n"
        );
        let json = Test {
            format: Format { json: true },
            ..question("8", None)
        };
        let chosen = said(|out| test(&config, &json, out));
        let chosen: Value = serde_json::from_str(&chosen).unwrap();
        let uris = ["sip:192.0.2.2", "sip:192.0.2.1"];
        assert_eq!(
            chosen,
            json!([{"uri": uris[0], "slot": 0}, {"uri": uris[1], "slot": 1}])
        );
        let hashed = said(|out| test(&config, &question("call-id", Some("a")), out));
        assert_eq!(hashed.lines().count(), 2, "{hashed}");
        for (question, reason) in [
            (question("call-id", None), "needs the Call-ID"),
            (question("weight", Some("x")), "takes no text"),
            (question("from-uri", Some("x")), "is not a SIP URI"),
            (
                Test {
                    set: 9,
                    ..question("8", None)
                },
                "has no set 9; there are: 1",
            ),
        ] {
            let error = test(&config, &question, &mut Vec::new())
                .unwrap_err()
                .to_string();
            assert!(error.contains(reason), "{error}");
        }

        let file = folder.path().join("request.sip");
        let request = "INVITE sip:bob@example.com SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bK1\nFrom: <sip:alice@a.example>;tag=1\n\
                       To: <sip:bob@example.com>\nCall-ID: a\nCSeq: 1 INVITE\nMax-Forwards: 70\n\n";
        std::fs::write(&file, request).unwrap();
        let of_request = |algorithm: &str, text: Option<&str>| Test {
            request: Some(file.clone()),
            ..question(algorithm, text)
        };
        for (algorithm, text) in [
            ("call-id", "a"),
            ("from-uri", "sip:alice@a.example"),
            ("to-uri", "sip:bob@example.com"),
            ("request-uri", "sip:bob@example.com"),
        ] {
            let expected = said(|out| test(&config, &question(algorithm, Some(text)), out));
            let found = said(|out| test(&config, &of_request(algorithm, None), out));
            assert_eq!(found, expected, "{algorithm}");
        }
        let keyed = said(|out| test(&config, &of_request("key", Some("k")), out));
        assert_eq!(
            keyed,
            said(|out| test(&config, &question("key", Some("k")), out))
        );
        for (question, reason) in [
            (of_request("call-id", Some("a")), "has the Call-ID already"),
            (of_request("key", None), "needs the key"),
        ] {
            let error = test(&config, &question, &mut Vec::new()).unwrap_err();
            assert!(error.to_string().contains(reason), "{error}");
        }

        let removed = said(|out| remove(&source, 1, "sip:192.0.2.1", out));
        assert!(removed.contains("1 row with set 1"), "{removed}");
        assert!(remove(&source, 1, "sip:192.0.2.1", &mut Vec::new()).is_err());
    }
}
