//! One line of a trace.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use portcullis_sip::{Arrival, HeaderName, Message, StartLine, Transport};
use portcullis_text::{clean_json, rfc3339};
use serde::Serialize;

use super::decided_kind::DecidedKind;
use super::outcome::Outcome;

/// Bytes shown of one text from a message.
const MOST: usize = 256;

/// A policy call and its result.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Asked {
    /// The seat: a tenant, `default`, `before` or `after`.
    pub(crate) seat: String,
    /// The file.
    pub(crate) policy: String,
    pub(crate) generation: u64,
    /// The verdict, or the failure.
    pub(crate) verdict: String,
    #[serde(skip)]
    pub(crate) kind: DecidedKind,
    pub(crate) microseconds: u64,
}

/// A decision, as a line shows it. It has nothing of other seats, because a tenant may read it.
#[derive(Serialize)]
struct Decision<'a> {
    time: &'a str,
    #[serde(flatten)]
    fields: &'a Fields,
    tenant: &'a str,
    #[serde(flatten)]
    asked: &'a Asked,
    kind: DecidedKind,
    outcome: &'static str,
    code: Option<u16>,
    reason: Option<&'a str>,
    cause: Option<&'static str>,
    decision: Option<&'a str>,
}

/// The outcome of a message, as a line of a trace shows it.
#[derive(Debug, Serialize)]
pub(crate) struct Entry<'a> {
    time: String,
    #[serde(flatten)]
    pub(crate) fields: Fields,
    pub(crate) tenant: Option<&'a str>,
    /// The policies called.
    pub(crate) asked: &'a [Asked],
    /// The outcome.
    outcome: &'static str,
    #[serde(skip)]
    kind: Outcome,
    /// The status of a response.
    pub(crate) code: Option<u16>,
    pub(crate) reason: Option<String>,
    /// The cause.
    pub(crate) cause: Option<&'static str>,
    pub(crate) detail: Option<String>,
    /// The destination.
    pub(crate) next: Option<SocketAddr>,
    pub(crate) decision: Option<String>,
}

/// The part of a line that describes the message itself.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Fields {
    pub(crate) source: Option<SocketAddr>,
    pub(crate) local: Option<SocketAddr>,
    pub(crate) transport: &'static str,
    /// The first line.
    pub(crate) first_line: String,
    pub(crate) from: Option<String>,
    pub(crate) to: Option<String>,
    pub(crate) call_id: String,
    pub(crate) cseq: Option<String>,
}

impl Fields {
    /// The entry of a received message.
    pub(crate) fn of(
        message: Message<'_>,
        arrival: &Arrival,
        first_line: String,
        call_id: String,
    ) -> Self {
        let header = |name| message.header(name).map(|field| cut(field.value));
        Self {
            source: Some(arrival.source),
            local: Some(arrival.local),
            transport: parameter(arrival.transport),
            first_line,
            from: header(HeaderName::From),
            to: header(HeaderName::To),
            call_id,
            cseq: header(HeaderName::CSeq),
        }
    }
}

impl<'a> Entry<'a> {
    /// An entry with this part only.
    pub(crate) fn new(fields: Fields, outcome: Outcome) -> Self {
        Self {
            time: with_milliseconds(SystemTime::now()),
            fields,
            tenant: None,
            asked: &[],
            outcome: outcome.label(),
            kind: outcome,
            code: None,
            reason: None,
            cause: None,
            detail: None,
            next: None,
            decision: None,
        }
    }

    pub(super) fn call_id(&self) -> &str {
        &self.fields.call_id
    }

    pub(super) fn tenant(&self) -> &str {
        self.tenant.unwrap_or("default")
    }

    pub(super) fn code(&self) -> Option<u16> {
        self.code
    }

    pub(super) fn outcome(&self) -> Outcome {
        self.kind
    }

    /// As one line of JSON.
    pub(crate) fn line(&self) -> Bytes {
        line(self)
    }

    /// The decision of one of its calls, as one line of JSON.
    pub(super) fn line_of(&self, asked: &Asked) -> Bytes {
        line(&Decision {
            time: &self.time,
            fields: &self.fields,
            tenant: self.tenant(),
            asked,
            kind: asked.kind,
            outcome: self.outcome,
            code: self.code,
            reason: self.reason.as_deref(),
            cause: self.cause,
            decision: self.decision.as_deref(),
        })
    }
}

fn line(shown: &impl Serialize) -> Bytes {
    let json = serde_json::to_string(shown).unwrap_or_default();
    let mut line = clean_json(&json).into_owned();
    line.push('\n');
    line.into()
}

/// The status of a received response.
pub(crate) fn code_of(message: Message<'_>) -> Option<u16> {
    match message.start_line() {
        StartLine::Response { code, .. } => Some(code),
        StartLine::Request { .. } => None,
    }
}

fn parameter(transport: Transport) -> &'static str {
    transport.parameter()
}

fn cut(bytes: &[u8]) -> String {
    let cut = bytes.get(..MOST).unwrap_or(bytes);
    String::from_utf8_lossy(cut).into_owned()
}

/// RFC 3339 with milliseconds.
fn with_milliseconds(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let seconds = rfc3339(time);
    format!(
        "{}.{:03}Z",
        seconds.trim_end_matches('Z'),
        since.subsec_millis()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_object_and_harmless() {
        let fields = Fields {
            call_id: "a\u{9b}2J\n\u{202e}".into(),
            transport: "udp",
            ..Fields::default()
        };
        let mut entry = Entry::new(fields, Outcome::Rejected);
        entry.code = Some(401);
        let line = entry.line();
        let text = std::str::from_utf8(&line).unwrap();
        let inner = text.strip_suffix('\n').unwrap();
        assert!(!inner.chars().any(portcullis_text::is_active), "{inner}");
        let read: serde_json::Value = serde_json::from_str(inner).unwrap();
        assert_eq!(read["call_id"], "a\u{9b}2J\n\u{202e}");
        assert_eq!(
            (&read["outcome"], &read["code"]),
            (&"rejected".into(), &401.into())
        );
    }

    #[test]
    fn times_have_milliseconds() {
        let time = UNIX_EPOCH + Duration::from_millis(1_709_208_000_007);
        assert_eq!(with_milliseconds(time), "2024-02-29T12:00:00.007Z");
    }
}
