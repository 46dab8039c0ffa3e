//! The last decisions of a seat's policy, over HTTP.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::Method;
use axum::response::IntoResponse;
use portcullis_dataplane::trace::{self, Filter, Following};
use portcullis_rpc::Fault;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::Timestamp;
use super::decisions::{Decided, DecisionEvent};
use super::files_of;
use crate::Control;
use crate::caller::Caller;
use crate::operation::{
    Answer, Api, Given, IPV4_NETWORK, IPV6_NETWORK, Operation, Routes, Segments, limit,
};
use crate::recent::{self, Key};

/// Number of decisions that are returned without `limit`.
const SOME: usize = 100;

/// The query that selects decisions.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct RecentQuery {
    /// How the policy decided
    verdict: Option<Decided>,
    /// Source address or network of the request
    #[schemars(extend("anyOf" = [
        { "format": "ipv4" },
        { "format": "ipv6" },
        { "pattern": IPV4_NETWORK },
        { "pattern": IPV6_NETWORK },
    ]))]
    source: Option<String>,
    /// Call-ID
    call_id: Option<String>,
    /// Method of the request
    method: Option<String>,
    /// Status code of the response to the request: 401, or 4xx for a class
    #[schemars(extend("pattern" = "^[1-6]([0-9]{2}|xx)$"))]
    code: Option<String>,
    /// Maximum number of decisions (default: 100)
    #[schemars(extend("minimum" = 1, "maximum" = recent::MOST))]
    limit: Option<usize>,
}

/// The last decisions of a seat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RecentDecisions {
    /// Since when the decisions of the seat are kept: since the first of these requests, unless there has been none for ten minutes.
    pub since: Timestamp,
    /// Decisions since then that were not kept, because there were more than 50 in a second.
    pub left_out: u64,
    /// The last decisions, at most 500, the newest first.
    pub decisions: Vec<DecisionEvent>,
}

/// The conditions of a query.
struct Wanted {
    verdict: Option<Decided>,
    filter: Filter,
}

/// `GET /v1/policies/{seat}/decisions/recent`.
pub(crate) fn operation(routes: Routes) -> Routes {
    let get = Operation::new::<RecentDecisions>(
        Method::GET,
        "/v1/policies/{seat}/decisions/recent",
        "listDecisions",
        "List the last decisions of a seat",
    );
    let get = get.query::<RecentQuery>(&[]).answers(
        200,
        "The last decisions. The first request begins to keep them, so that its answer has none",
    );
    routes.on(get.refuses(&[404, 429]), recent)
}

async fn recent(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Segments(seat): Segments<String>,
    Given(query): Given<RecentQuery>,
) -> Answer {
    files_of(&control, &seat)?;
    let most = limit("limit", query.limit, SOME, recent::MOST)?;
    let wanted = Wanted::of(query)?;
    let key = (seat, !caller.is_operator());
    if control.recent.last(&key).is_none() {
        let following = Following::begin(control.shared.clone(), filter(&key)?);
        let following = following.map_err(|error| Fault::new(429, error.to_string()))?;
        // Another request may have come first.
        if control.recent.begin(&key) {
            tokio::spawn(gather(Arc::clone(&control), key.clone(), following));
        }
    }
    let found = control.recent.last(&key);
    let found = found.ok_or_else(|| Fault::new(503, "the seat is not followed any more"))?;
    let lines = found.lines.iter();
    let decisions = lines.filter_map(|line| serde_json::from_slice(line).ok());
    let reply = RecentDecisions {
        since: found.since.into(),
        left_out: found.left_out,
        decisions: decisions
            .filter(|decision| wanted.has(decision))
            .take(most)
            .collect(),
    };
    Ok(Json(reply).into_response())
}

/// Keeps the decisions of a seat as long as somebody asks for them, and the seat exists.
async fn gather(control: Arc<Control>, key: Key, mut following: Following) {
    loop {
        let next = following.next(recent::LOOK).await;
        if control.registry.files(&key.0).is_none() {
            control.recent.end(&key);
        }
        if !control.recent.take(&key, next) {
            return;
        }
    }
}

/// All decisions of a seat, up to the rate.
fn filter((seat, is_tenants): &Key) -> Result<Filter, Fault> {
    let mut filter = Filter::default();
    filter.rate = Some(recent::RATE);
    let filter = filter.read();
    let filter = filter.map_err(|error| Fault::new(500, error.to_string()))?;
    Ok(filter.of_decisions(trace::Decisions {
        seat: seat.clone(),
        verdict: None,
        share: None,
        is_tenants: *is_tenants,
    }))
}

impl Wanted {
    /// # Errors
    /// 400 if the source or the status code is invalid.
    fn of(query: RecentQuery) -> Result<Self, Fault> {
        let mut filter = Filter::default();
        filter.source = query.source;
        filter.call_id = query.call_id;
        filter.method = query.method;
        filter.code = query.code;
        let filter = filter.read();
        let filter = filter.map_err(|error| Fault::new(400, error.to_string()))?;
        Ok(Self {
            verdict: query.verdict,
            filter,
        })
    }

    fn has(&self, decision: &DecisionEvent) -> bool {
        let is = |wanted: &Option<String>, value: Option<&str>| {
            wanted.is_none() || wanted.as_deref() == value
        };
        let filter = &self.filter;
        self.verdict.is_none_or(|verdict| verdict == decision.kind)
            && filter.has_code(decision.code)
            && is(&filter.call_id, Some(&decision.call_id))
            && is(&filter.method, decision.first_line.split(' ').next())
            && match decision.source {
                Some(source) => filter.has_source(source.ip()),
                None => filter.source.is_none(),
            }
    }
}
