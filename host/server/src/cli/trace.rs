//! `portcullis trace`: a live view of messages.

use std::io::{BufRead, Write};
use std::process::ExitCode;
use std::time::Instant;

use serde_json::Value;

use portcullis_config::Config;
use portcullis_text::clean_json;

use super::client::{Client, Reach};
use super::followed::{Followed, borrowed};
use super::print::{clean, count, stdout};

/// The filter, the format, and the limits. Without a filter, all messages are shown.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only messages of this tenant; default for the operator
    #[arg(long)]
    tenant: Option<String>,
    /// Only messages with this outcome: relayed, returned, answered, rejected, absorbed, dropped or undelivered
    #[arg(long)]
    outcome: Option<String>,
    #[command(flatten)]
    followed: Followed,
    #[command(flatten)]
    reach: Reach,
}

pub(super) fn run(args: &Args, config: &Config) -> anyhow::Result<ExitCode> {
    let client = Client::new(config, &args.reach)?;
    let followed = &args.followed;
    let query = followed.query([("tenant", &args.tenant), ("outcome", &args.outcome)]);
    let lines = client.follow("/v1/trace", &borrowed(&query))?;
    if !followed.json {
        eprintln!("following; Ctrl-C ends it");
    }
    let out = &mut stdout();
    let end = followed.end();
    let is_over = || end.is_some_and(|end| Instant::now() >= end);
    let mut shown = 0;
    // An empty line is sent at intervals, so the end is noticed soon.
    for line in lines.lines() {
        let line = line?;
        if is_over() {
            break;
        }
        let Ok(entry) = serde_json::from_str::<Value>(&line) else {
            continue;
        };
        match followed.json {
            true => writeln!(out, "{}", clean_json(&line))?,
            false => write_entry(&entry, out)?,
        }
        out.flush()?;
        shown += u64::from(entry["left_out"].is_null());
        if followed.count.is_some_and(|most| shown >= most) {
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn write_entry(entry: &Value, out: &mut impl Write) -> std::io::Result<()> {
    if let Some(left_out) = entry["left_out"].as_u64() {
        let messages = count(left_out, "message");
        return writeln!(
            out,
            "… {messages} left out: above the rate limit of the trace"
        );
    }
    let text = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => clean(text).into_owned(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    };
    write!(
        out,
        "{} {}",
        text(&entry["time"]),
        text(&entry["first_line"])
    )?;
    if !entry["source"].is_null() {
        write!(out, ", from {}", text(&entry["source"]))?;
    }
    writeln!(out, " over {}", text(&entry["transport"]))?;
    for (label, key) in [
        ("Call-ID", "call_id"),
        ("From", "from"),
        ("To", "to"),
        ("tenant", "tenant"),
        ("decision", "decision"),
    ] {
        let value = text(&entry[key]);
        if !value.is_empty() {
            writeln!(out, "  {label}: {value}")?;
        }
    }
    for asked in entry["asked"].as_array().into_iter().flatten() {
        writeln!(
            out,
            "  asked {} ({} generation {}): {}, {} µs",
            text(&asked["seat"]),
            text(&asked["policy"]),
            asked["generation"],
            text(&asked["verdict"]),
            asked["microseconds"]
        )?;
    }
    let mut end = text(&entry["outcome"]);
    for (before, key, behind) in [
        (" ", "code", ""),
        (" ", "reason", ""),
        (" to ", "next", ""),
        (" (", "cause", ")"),
        (": ", "detail", ""),
    ] {
        let value = text(&entry[key]);
        if !value.is_empty() {
            end += &format!("{before}{value}{behind}");
        }
    }
    writeln!(out, "  {end}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_entry_is_a_few_lines_and_harmless() {
        let entry = json!({
            "time": "2024-02-29T12:00:00.007Z", "first_line": "INVITE sip:b@c\u{1b}[2J SIP/2.0", "source": "10.0.0.7:5060",
            "transport": "udp", "call_id": "id\nrejected 200", "from": null, "to": null, "tenant": "acme", "decision": null,
            "asked": [{"seat": "acme", "policy": "acme.wasm", "generation": 3, "verdict": "reject 401 No", "microseconds": 12}],
            "outcome": "rejected", "code": 401, "reason": "No", "cause": "policy", "detail": null, "next": null,
        });
        let mut out = Vec::new();
        write_entry(&entry, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "2024-02-29T12:00:00.007Z INVITE sip:b@c\\u{1b}[2J SIP/2.0, from 10.0.0.7:5060 over udp\n  Call-ID: id\\nrejected 200\n  \
             tenant: acme\n  asked acme (acme.wasm generation 3): reject 401 No, 12 µs\n  rejected 401 No (policy)\n"
        );
    }
}
