//! `portcullis events`: the events of the running host, as they happen.

use std::io::{BufRead, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use portcullis_config::Config;
use portcullis_text::clean_json;
use serde_json::{Map, Value};

use super::client::{Client, Reach};
use super::followed::borrowed;
use super::print::{clean, count, stdout};

/// What begins a line with an event (HTML Living Standard, server-sent events).
const DATA: &str = "data:";

/// Which events, and for how long.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only events with these names, separated by commas
    #[arg(long, value_name = "NAME,…")]
    names: Option<String>,
    /// The least level: error, warn or info
    #[arg(long, default_value = "info")]
    level: String,
    /// Begin with the events that the host still has in memory
    #[arg(long)]
    past: bool,
    /// End after this many
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// End after this many seconds, or up to five seconds later if there are no events
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// One JSON object per line, instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

pub(super) fn run(args: &Args, config: &Config) -> anyhow::Result<ExitCode> {
    let client = Client::new(config, &args.reach)?;
    let lines = client.follow("/v1/events", &borrowed(&args.query()))?;
    if !args.json {
        eprintln!("following the events of the host; Ctrl-C ends it");
    }
    write(lines, args, &mut stdout())?;
    Ok(ExitCode::SUCCESS)
}

impl Args {
    fn query(&self) -> Vec<(&'static str, String)> {
        let mut query = vec![("level", self.level.clone())];
        query.extend(self.names.clone().map(|names| ("names", names)));
        if self.past {
            query.push(("past", "true".to_owned()));
        }
        query
    }
}

/// Writes the events of a stream until it ends, or a limit is reached. The host sends a comment if there are no events for a while.
fn write(lines: impl BufRead, args: &Args, out: &mut impl Write) -> anyhow::Result<()> {
    let limit = args.seconds.map(Duration::from_secs);
    let end = limit.and_then(|limit| Instant::now().checked_add(limit));
    let mut shown = 0;
    for line in lines.lines() {
        let line = line?;
        if end.is_some_and(|end| Instant::now() >= end) {
            break;
        }
        let event = line.strip_prefix(DATA).map(str::trim);
        let Some(Ok(fields)) = event.map(serde_json::from_str::<Map<String, Value>>) else {
            continue;
        };
        match args.json {
            true => writeln!(out, "{}", clean_json(event.unwrap_or_default()))?,
            false => writeln!(out, "{}", clean(&text(&fields)))?,
        }
        out.flush()?;
        shown += u64::from(!fields.contains_key("left_out"));
        if args.count.is_some_and(|most| shown >= most) {
            break;
        }
    }
    Ok(())
}

/// `2026-01-01T00:00:00Z WARN next hop is down event=next_hop_down peer=192.0.2.1:5060`
fn text(fields: &Map<String, Value>) -> String {
    if let Some(left_out) = fields.get("left_out").and_then(Value::as_u64) {
        let events = count(left_out, "event");
        return format!("… {events} left out: the host does not have them any more");
    }
    let first = ["time", "level", "message"];
    let of = |name: &str| fields.get(name).map(shown).unwrap_or_default();
    let mut text = format!(
        "{} {:<5} {}",
        of("time"),
        of("level").to_uppercase(),
        of("message")
    );
    for (name, value) in fields {
        if !first.contains(&name.as_str()) && !value.is_null() {
            text += &format!(" {name}={}", shown(value));
        }
    }
    text
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            value.to_string()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "event: left_out\ndata: {\"left_out\":2}\n\n\
        id: 1-7\nevent: event\ndata: {\"time\":\"1970-01-01T00:00:01Z\",\"level\":\"warn\",\"message\":\"a\\u001b[2J\",\"event\":\"x\",\"n\":1,\
        \"peer\":null}\n\n:\n\n\
        id: 1-8\nevent: event\ndata: {\"time\":\"1970-01-01T00:00:02Z\",\"level\":\"info\",\"message\":\"b\",\"event\":\"y\"}\n\n";

    fn written(json: bool, count: Option<u64>) -> String {
        let args = Args {
            names: None,
            level: "info".into(),
            past: false,
            count,
            seconds: None,
            json,
            reach: Reach::default(),
        };
        let mut out = Vec::new();
        write(STREAM.as_bytes(), &args, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_event_is_a_line() {
        assert_eq!(
            written(false, None),
            "… 2 events left out: the host does not have them any more\n\
             1970-01-01T00:00:01Z WARN  a\\u{1b}[2J event=x n=1\n\
             1970-01-01T00:00:02Z INFO  b event=y\n"
        );
        // What is left out is no event.
        assert_eq!(written(true, Some(1)).lines().count(), 2);
        for line in written(true, None).lines() {
            assert!(serde_json::from_str::<Value>(line).is_ok(), "{line}");
        }
    }

    #[test]
    fn only_what_is_given_is_asked_for() {
        let args = Args {
            names: Some("a,b".into()),
            level: "warn".into(),
            past: true,
            count: None,
            seconds: None,
            json: false,
            reach: Reach::default(),
        };
        let expected = [("level", "warn"), ("names", "a,b"), ("past", "true")];
        assert_eq!(borrowed(&args.query()), expected);
    }
}
