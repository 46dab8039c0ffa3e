//! Traces over OTLP/HTTP in its JSON encoding: one span for each recorded decision, one below it for each policy call, and an event in that for
//! each question of the policy.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use portcullis_config::RecordsConfig;
use portcullis_records::{Asking, Decided, Kind, Question, Record, TraceContext};
use serde_json::{Value, json};

use crate::error::ExportError;
use crate::poster::{Destination, Poster};
use crate::stats::ExportStats;

/// How long spans are gathered for one request.
const GATHER: Duration = Duration::from_millis(500);

/// Most bytes of an attribute that comes from a message or a policy.
const MOST: usize = 512;

/// Most events of one span.
const MOST_EVENTS: usize = 64;

/// Kinds of spans.
const INTERNAL: u8 = 1;
const SERVER: u8 = 2;

/// Sends recorded decisions as spans.
#[derive(Debug)]
pub struct Traces {
    poster: Poster,
    /// The header field that carries the context of a trace.
    header: Option<String>,
    stats: Arc<ExportStats>,
}

impl Traces {
    /// Starts the thread. Returns `None` if no collector is configured.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(config: &RecordsConfig) -> Result<Option<Self>, ExportError> {
        let Some(url) = &config.otlp else {
            return Ok(None);
        };
        let stats = Arc::new(ExportStats::default());
        let destination = Destination {
            what: "traces",
            url: url.clone(),
            content_type: "application/json",
            body: body_of,
            gather: GATHER,
            secret: None,
            queue: config.queue,
        };
        Ok(Some(Self {
            poster: Poster::start(destination, Arc::clone(&stats))?,
            header: config.trace_header.clone(),
            stats,
        }))
    }

    /// Passes the spans of a record to the thread.
    pub fn record(&self, record: &Record) {
        for span in spans(record, self.header.as_deref()) {
            self.poster.send(span.to_string());
        }
    }

    /// The statistics, of spans.
    pub fn stats(&self) -> Arc<ExportStats> {
        Arc::clone(&self.stats)
    }
}

/// Returns the name of this machine; empty if the system does not say it.
pub fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// The body of a request with these spans.
fn body_of(spans: &[String]) -> String {
    let resource = json!({"attributes": [
        text("service.name", "portcullis"),
        text("service.version", env!("CARGO_PKG_VERSION")),
        text("host.name", &host_name()),
    ]});
    let scope = json!({"name": "portcullis"});
    format!(
        "{{\"resourceSpans\":[{{\"resource\":{resource},\"scopeSpans\":[{{\"scope\":{scope},\"spans\":[{}]}}]}}]}}",
        spans.join(",")
    )
}

/// The span of a record, and those of its policy calls.
fn spans(record: &Record, header: Option<&str>) -> Vec<Value> {
    let message = record.request.as_deref().unwrap_or_default();
    let context = TraceContext::of_record(record, header);
    let trace_id = context.trace_id();
    let own = context.span_id();
    let start = u128::from(record.time_ms) * 1_000_000;
    let mut at = start;
    let mut children = Vec::new();
    for (number, asking) in record.policies.iter().enumerate() {
        let end = at + u128::from(asking.duration_us) * 1_000;
        children.push(json!({
            "traceId": trace_id,
            "spanId": context.child_id(number),
            "parentSpanId": own,
            "name": format!("policy {}", asking.seat),
            "kind": INTERNAL,
            "startTimeUnixNano": at.to_string(),
            "endTimeUnixNano": end.to_string(),
            "attributes": [
                text("portcullis.seat", &asking.seat),
                text("portcullis.policy", &asking.policy),
                number_of("portcullis.generation", asking.generation),
                text("portcullis.digest", &asking.digest),
                text("portcullis.verdict", &asking.decided.to_string()),
            ],
            "events": events(asking, at, end),
            "droppedEventsCount": asking.asked.len().saturating_sub(MOST_EVENTS),
            "status": status(asking),
        }));
        at = end;
    }
    let first_line = message.lines().next().unwrap_or_default();
    let mut words = first_line.split(' ');
    let (method, uri) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let is_failed = record.policies.iter().any(is_failed);
    let mut span = json!({
        "traceId": trace_id,
        "spanId": own,
        "name": match record.kind {
            Kind::Decision => method.to_owned(),
            Kind::Failure => format!("on-failure {method}"),
        },
        "kind": SERVER,
        "startTimeUnixNano": start.to_string(),
        "endTimeUnixNano": at.to_string(),
        "attributes": [
            text("sip.method", method),
            text("sip.request_uri", uri),
            text("sip.call_id", portcullis_records::header_of(message, "Call-ID", "i").unwrap_or_default()),
            text("client.address", &record.source.ip().to_string()),
            number_of("client.port", record.source.port().into()),
            text("server.address", &record.local.ip().to_string()),
            number_of("server.port", record.local.port().into()),
            text("network.transport", &record.transport.to_ascii_lowercase()),
            text("portcullis.tenant", &record.tenant),
            text("portcullis.decision", &record.id),
            text("portcullis.outcome", &record.outcome),
        ],
        "status": if is_failed { json!({"code": 2}) } else { json!({}) },
    });
    if let Some(parent) = context.parent_id() {
        span["parentSpanId"] = parent.into();
    }
    children.insert(0, span);
    children
}

/// The questions of a call. Their times are not recorded: they are spread over the call in their order.
fn events(asking: &Asking, start: u128, end: u128) -> Vec<Value> {
    let count = asking.asked.len().min(MOST_EVENTS);
    let step = (end - start) / (count as u128 + 1);
    let questions = asking.asked.iter().take(count).zip(1..);
    let event = |(question, number): (&Question, u128)| {
        json!({
            "timeUnixNano": (start + step * number).to_string(),
            "name": question.function,
            "attributes": [
                text("portcullis.arguments", &question.arguments.to_string()),
                text("portcullis.answer", &question.answer.to_string()),
            ],
        })
    };
    questions.map(event).collect()
}

fn is_failed(asking: &Asking) -> bool {
    matches!(asking.decided, Decided::Failed { .. })
}

fn status(asking: &Asking) -> Value {
    match is_failed(asking) {
        true => json!({"code": 2, "message": cut(&asking.decided.to_string())}),
        false => json!({}),
    }
}

fn text(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": cut(value)}})
}

fn number_of(key: &str, value: u64) -> Value {
    json!({"key": key, "value": {"intValue": value.to_string()}})
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MOST)]
}
