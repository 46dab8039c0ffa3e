//! The decisions of a seat's policy as they are made, over HTTP.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::{Extension, State};
use axum::http::Method;
use futures_util::stream;
use portcullis_config::Token;
use portcullis_dataplane::trace::{self, DecidedKind, Filter, Following, Next};
use portcullis_rpc::Fault;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{SHARE, files_of, share};
use crate::Control;
use crate::caller::{Authority, Caller};
use crate::operation::{
    Answer, Api, EVENTS, Given, IPV4_NETWORK, IPV6_NETWORK, Operation, Routes, Segments,
    event_stream,
};

/// Interval after which a comment is sent if there are no decisions, and after which the caller's rights are checked again.
const SILENCE: Duration = Duration::from_secs(5);

/// The query that selects decisions.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct DecisionsQuery {
    /// How the policy decided
    #[schemars(extend("enum" = ["relay", "reject", "drop", "pass", "failed"]))]
    verdict: Option<String>,
    /// Source address or network of the request
    #[schemars(extend("anyOf" = [
        { "format": "ipv4" },
        { "format": "ipv6" },
        { "pattern": IPV4_NETWORK },
        { "pattern": IPV6_NETWORK },
    ]))]
    source: Option<String>,
    /// Method of the request
    method: Option<String>,
    /// Call-ID
    call_id: Option<String>,
    /// User part of From
    from: Option<String>,
    /// User part of To
    to: Option<String>,
    /// Status code of the response to the request: 401, or 4xx for a class
    #[schemars(extend("pattern" = "^[1-6]([0-9]{2}|xx)$"))]
    code: Option<String>,
    /// Share of the dialogs, for example 5%; always the same ones
    #[schemars(extend("pattern" = SHARE))]
    share: Option<String>,
    /// Maximum number of decisions per second, 1 to 2000 (default: 200); further decisions are counted
    #[schemars(extend("minimum" = 1, "maximum" = 2000))]
    rate: Option<u32>,
}

/// The data of an event `decision`: what the policy of the seat decided on a request, and what became of the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DecisionEvent {
    /// Time in RFC 3339 with milliseconds.
    pub time: String,
    /// Source of the request.
    pub source: Option<SocketAddr>,
    /// Local socket that received the request.
    pub local: Option<SocketAddr>,
    /// Transport.
    pub transport: String,
    /// First line of the request, at most 120 bytes.
    pub first_line: String,
    /// From.
    pub from: Option<String>,
    /// To.
    pub to: Option<String>,
    /// Call-ID.
    pub call_id: String,
    /// CSeq.
    pub cseq: Option<String>,
    /// Tenant of the request; default for the operator.
    pub tenant: String,
    /// The seat.
    pub seat: String,
    /// Name of the policy.
    pub policy: String,
    /// Generation that decided.
    pub generation: u64,
    /// The verdict, or the failure.
    pub verdict: String,
    /// Duration of the call in microseconds.
    pub microseconds: u64,
    /// How the call ended.
    pub kind: Decided,
    /// What became of the request: relayed, rejected, dropped or answered.
    pub outcome: String,
    /// Status code of the host's response.
    pub code: Option<u16>,
    /// Its reason phrase.
    pub reason: Option<String>,
    /// The basis of the outcome.
    pub cause: Option<String>,
    /// Id of the decision; null without `[records]`.
    pub decision: Option<String>,
}

/// How the call of a policy ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Decided {
    /// Relay.
    Relay,
    /// Reject.
    Reject,
    /// Drop.
    Drop,
    /// Pass to the next policy.
    Pass,
    /// The call failed.
    Failed,
}

/// The decisions that a client follows.
struct Followed {
    control: Arc<Control>,
    following: Following,
    seat: String,
    /// The token of the tenant that follows; `None` for the operator.
    token: Option<Token>,
    checked: Instant,
}

/// `GET /v1/policies/{seat}/decisions`.
pub(crate) fn operation(routes: Routes) -> Routes {
    let get = Operation::new::<DecisionEvent>(
        Method::GET,
        "/v1/policies/{seat}/decisions",
        "followDecisions",
        "Follow the decisions of a seat as they are made",
    );
    let get = get.query::<DecisionsQuery>(&[]).sends(EVENTS);
    let get = get.answers(
        200,
        "Server-sent events as long as the connection is open: `decision` with this data, `left_out` with {\"left_out\": N} for decisions \
         above the rate or faster than the client reads; a comment every 5 seconds while there are none",
    );
    routes.on(get.refuses(&[404, 429]), decisions)
}

async fn decisions(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Segments(seat): Segments<String>,
    Given(query): Given<DecisionsQuery>,
) -> Answer {
    files_of(&control, &seat)?;
    let filter = filter(query, &seat, !caller.is_operator())?;
    let following = Following::begin(control.shared.clone(), filter);
    let following = following.map_err(|error| Fault::new(429, error.to_string()))?;
    let followed = Followed {
        token: token_of(&control, &caller),
        control,
        following,
        seat,
        checked: Instant::now(),
    };
    let events = stream::unfold(followed, |mut followed| async {
        let event = followed.next().await?;
        Some((event, followed))
    });
    Ok(event_stream(events))
}

impl Followed {
    /// The next event; `None` if the host ends, the seat has been removed, or the token is not valid any more.
    async fn next(&mut self) -> Option<Bytes> {
        if self.checked.elapsed() >= SILENCE {
            self.checked = Instant::now();
            self.is_permitted().then_some(())?;
        }
        match self.following.next(SILENCE).await {
            Next::Line(line) => Some(event("decision", &line)),
            Next::LeftOut(count) => {
                let data = format!("{{\"left_out\":{count}}}\n");
                Some(event("left_out", data.as_bytes()))
            }
            Next::Silence => Some(Bytes::from_static(b":\n\n")),
            Next::End => None,
        }
    }

    fn is_permitted(&self) -> bool {
        let Some(token) = &self.token else {
            return files_of(&self.control, &self.seat).is_ok();
        };
        // The seat of a tenant has its name.
        let current = token_of(&self.control, &Caller::tenant(&self.seat));
        current.as_ref() == Some(token)
    }
}

/// An event with these data: one line, including its line ending.
fn event(name: &str, line: &[u8]) -> Bytes {
    let mut event = String::with_capacity(line.len() + 32);
    // Writing to a string cannot fail.
    let _infallible = write!(event, "event: {name}\ndata: ");
    event.push_str(&String::from_utf8_lossy(line));
    event.push('\n');
    event.into()
}

/// The token of the tenant that calls; `None` for the operator.
fn token_of(control: &Control, caller: &Caller) -> Option<Token> {
    let Authority::Tenant(name) = caller.authority() else {
        return None;
    };
    let tenants = control.shared.tenants.load();
    let tenant = tenants.named.iter().find(|tenant| *tenant.name == **name);
    tenant?.config.as_ref()?.token.clone()
}

/// # Errors
/// 400 if a condition is invalid.
fn filter(query: DecisionsQuery, seat: &str, is_tenants: bool) -> Result<Filter, Fault> {
    let decisions = trace::Decisions {
        seat: seat.to_owned(),
        verdict: query.verdict.as_deref().map(kind).transpose()?,
        share: query.share.as_deref().map(share).transpose()?,
        is_tenants,
    };
    let mut filter = Filter::default();
    filter.source = query.source;
    filter.method = query.method;
    filter.call_id = query.call_id;
    filter.from = query.from;
    filter.to = query.to;
    filter.code = query.code;
    filter.rate = query.rate;
    let filter = filter.read();
    let filter = filter.map_err(|error| Fault::new(400, error.to_string()))?;
    Ok(filter.of_decisions(decisions))
}

fn kind(word: &str) -> Result<DecidedKind, Fault> {
    Ok(match word {
        "relay" => DecidedKind::Relay,
        "reject" => DecidedKind::Reject,
        "drop" => DecidedKind::Drop,
        "pass" => DecidedKind::Pass,
        "failed" => DecidedKind::Failed,
        other => {
            let text =
                format!("`{other}` is not a verdict: write relay, reject, drop, pass or failed");
            return Err(Fault::new(400, text));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_of_data_and_an_empty_line() {
        assert_eq!(event("decision", b"{}\n"), "event: decision\ndata: {}\n\n");
    }

    #[test]
    fn conditions_are_checked() {
        let is_valid = |set: &dyn Fn(&mut DecisionsQuery)| {
            let mut query = DecisionsQuery::default();
            set(&mut query);
            filter(query, "acme", true).is_ok()
        };
        assert!(is_valid(&|_| {}));
        for word in ["relay", "reject", "drop", "pass", "failed"] {
            assert!(is_valid(&|query| query.verdict = Some(word.into())));
        }
        assert!(!is_valid(&|query| query.verdict = Some("refer".into())));
        assert!(is_valid(&|query| query.share = Some("2.5%".into())));
        assert!(!is_valid(&|query| query.share = Some("2.5".into())));
        assert!(!is_valid(&|query| query.source = Some("here".into())));
        assert!(!is_valid(&|query| query.rate = Some(0)));
    }
}
