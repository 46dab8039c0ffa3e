//! `portcullis policy tail`: the decisions of a seat as the running host makes them.

use std::io::{BufRead, Write};
use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use portcullis_control::commands::policy::DecisionEvent;
use portcullis_text::clean_json;
use serde_json::Value;

use super::super::client::{Client, NoAnswer};
use super::super::followed::{Followed, borrowed};
use super::super::print::{clean, count};
use super::seat::Seat;
use super::ship::segment;

/// Number of lines that are read before they are shown: few, because the host leaves out decisions if they are not read.
const WAITING: usize = 16;

/// Time between attempts to reach a host that does not answer.
const PAUSE: Duration = Duration::from_secs(1);

/// Which decisions, and how they are shown. Without a filter, all are.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    seat: Seat,
    /// Only decisions of this kind: relay, reject, drop, pass or failed
    #[arg(long)]
    verdict: Option<String>,
    /// Only this share of the dialogs, for example 5%; always the same ones
    #[arg(long)]
    share: Option<String>,
    #[command(flatten)]
    followed: Followed,
}

/// The host sends a comment every 5 s while there are no decisions. After this time without anything, it hangs, or a firewall on the way has
/// forgotten the connection.
const SILENCE: Duration = Duration::from_secs(30);

/// How following ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// What was asked for has been shown.
    Done,
    /// The host has closed the connection.
    Closed,
    /// Nothing came for too long.
    Silent,
}

/// What is shown, and how much is left to show.
struct Tail<'o, W> {
    out: &'o mut W,
    json: bool,
    left: Option<u64>,
    end: Option<Instant>,
    /// The generation of the last decision.
    generation: Option<u64>,
}

pub(super) fn run<W: Write>(
    args: &Args,
    client: impl Fn() -> anyhow::Result<Client>,
    out: &mut W,
) -> anyhow::Result<ExitCode> {
    let path = format!("/v1/policies/{}/decisions", segment(&args.seat.seat)?);
    let followed = &args.followed;
    let query = followed.query([("verdict", &args.verdict), ("share", &args.share)]);
    let query = borrowed(&query);
    let mut tail = Tail {
        out,
        json: followed.json,
        left: followed.count,
        end: followed.end(),
        generation: None,
    };
    let mut events = client()?.follow(&path, &query)?;
    eprintln!(
        "following the decisions of seat {}; Ctrl-C ends it",
        clean(&args.seat.seat)
    );
    loop {
        match tail.show(events, SILENCE)? {
            Ended::Done => return Ok(ExitCode::SUCCESS),
            Ended::Closed => eprintln!("the host has closed the connection; connecting again"),
            Ended::Silent => eprintln!(
                "nothing came from the host for {} s; connecting again",
                SILENCE.as_secs()
            ),
        }
        // A host that starts anew may have another token, which a new client reads.
        events = loop {
            if tail.is_over() {
                return Ok(ExitCode::SUCCESS);
            }
            std::thread::sleep(PAUSE);
            match client()?.follow(&path, &query) {
                Ok(events) => break events,
                Err(error) if error.is::<NoAnswer>() => {}
                Err(error) => return Err(error),
            }
        };
        eprintln!("connected again");
    }
}

impl<W: Write> Tail<'_, W> {
    /// Shows the events of a stream (server-sent events) until it ends, or nothing comes for so long.
    fn show(
        &mut self,
        events: impl BufRead + Send + 'static,
        silence: Duration,
    ) -> anyhow::Result<Ended> {
        if self.is_over() {
            return Ok(Ended::Done);
        }
        // A read has no time limit of its own. The thread ends with the connection, or after the next line.
        let (sender, lines) = mpsc::sync_channel(WAITING);
        let _reader = std::thread::spawn(move || {
            for line in events.lines() {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        loop {
            let line = match lines.recv_timeout(silence) {
                Ok(Ok(line)) => line,
                Ok(Err(_)) | Err(RecvTimeoutError::Disconnected) => return Ok(Ended::Closed),
                Err(RecvTimeoutError::Timeout) => return Ok(Ended::Silent),
            };
            if let Some(data) = line.strip_prefix("data:") {
                self.event(data.trim_start())?;
            }
            if self.is_over() {
                return Ok(Ended::Done);
            }
        }
    }

    fn is_over(&self) -> bool {
        self.left == Some(0) || self.end.is_some_and(|end| Instant::now() >= end)
    }

    fn event(&mut self, data: &str) -> anyhow::Result<()> {
        let value: Value = match serde_json::from_str(data) {
            Ok(value) => value,
            // A later version may send events of other forms.
            Err(_) => return Ok(()),
        };
        if let Some(left_out) = value["left_out"].as_u64() {
            match self.json {
                true => writeln!(self.out, "{}", clean_json(data))?,
                false => writeln!(
                    self.out,
                    "… {} left out: above the rate, or faster than they are read",
                    count(left_out, "decision")
                )?,
            }
            return Ok(self.out.flush()?);
        }
        let Ok(event) = serde_json::from_value::<DecisionEvent>(value) else {
            return Ok(());
        };
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(1);
        }
        if self.json {
            writeln!(self.out, "{}", clean_json(data))?;
            return Ok(self.out.flush()?);
        }
        if self.generation.is_some_and(|last| last != event.generation) {
            eprintln!("generation {} decides", event.generation);
        }
        self.generation = Some(event.generation);
        writeln!(self.out, "{}", clean(&shown(&event)))?;
        Ok(self.out.flush()?)
    }
}

/// `2026-11-30T12:00:00.007Z INVITE sip:bob@example.com from 192.0.2.7:5060: reject 401 No, acl.wasm generation 3, 12 µs; rejected 401 No;
/// Call-ID 7@caller`
fn shown(event: &DecisionEvent) -> String {
    let line = &event.first_line;
    let mut text = format!(
        "{} {}",
        event.time,
        line.strip_suffix(" SIP/2.0").unwrap_or(line)
    );
    if let Some(source) = event.source {
        text += &format!(" from {source}");
    }
    text += &format!(
        ": {}, {} generation {}, {} µs; {}",
        event.verdict, event.policy, event.generation, event.microseconds, event.outcome
    );
    if let Some(code) = event.code {
        text += &format!(" {code}");
    }
    if let Some(reason) = &event.reason {
        text += &format!(" {reason}");
    }
    text += &format!("; Call-ID {}", event.call_id);
    if let Some(decision) = &event.decision {
        text += &format!("; decision {decision}");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Cursor, pipe};

    use super::*;

    const EVENT: &str = r#"{"time":"2026-11-30T12:00:00.007Z","source":"10.0.0.7:5060","local":"10.0.0.1:5060","transport":"udp",
        "first_line":"INVITE sip:b@c\u001b[2J SIP/2.0","from":"sip:a@b","to":"sip:b@c","call_id":"id\nrejected 200","cseq":"1 INVITE",
        "tenant":"acme","seat":"acme","policy":"acl.wasm","generation":3,"verdict":"reject 401 No","microseconds":12,"kind":"reject",
        "outcome":"rejected","code":401,"reason":"No","cause":"policy","decision":null}"#;

    fn shown_of(stream: &str, json: bool, left: Option<u64>) -> (String, Ended) {
        let mut out = Vec::new();
        let mut tail = Tail {
            out: &mut out,
            json,
            left,
            end: None,
            generation: None,
        };
        let stream = Cursor::new(stream.to_owned());
        let ended = tail.show(stream, SILENCE).unwrap();
        (String::from_utf8(out).unwrap(), ended)
    }

    #[test]
    fn a_decision_is_one_harmless_line() {
        let event = EVENT.replace('\n', " ");
        let stream = format!(
            ":\n\nevent: decision\ndata: {event}\n\nevent: left_out\ndata: {{\"left_out\":2}}\n\n"
        );
        let (text, ended) = shown_of(&stream, false, None);
        assert_eq!(
            text,
            "2026-11-30T12:00:00.007Z INVITE sip:b@c\\u{1b}[2J from 10.0.0.7:5060: reject 401 No, acl.wasm generation 3, 12 µs; \
             rejected 401 No; Call-ID id\\nrejected 200\n… 2 decisions left out: above the rate, or faster than they are read\n"
        );
        assert_eq!(ended, Ended::Closed);
    }

    #[test]
    fn silence_ends_a_connection() {
        let (reader, writer) = pipe().unwrap();
        let mut tail = Tail {
            out: &mut Vec::new(),
            json: false,
            left: None,
            end: None,
            generation: None,
        };
        let ended = tail.show(BufReader::new(reader), Duration::from_millis(1));
        assert_eq!(ended.unwrap(), Ended::Silent);
        drop(writer);
    }

    #[test]
    fn the_number_of_decisions_is_limited() {
        let event = EVENT.replace('\n', " ");
        let stream = format!("data: {event}\n\n").repeat(3);
        let (text, ended) = shown_of(&stream, true, Some(2));
        assert_eq!((text.lines().count(), ended), (2, Ended::Done));
        assert!(text.starts_with("{\"time\":"));
    }
}
