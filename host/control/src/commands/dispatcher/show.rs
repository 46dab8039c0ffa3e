//! `dispatcher.show`: the sets with the states of their destinations, and why they have them.

use std::time::{Duration, UNIX_EPOCH};

use axum::extract::{Extension, State};
use axum::http::Method;
use portcullis_config::TokenRole;
use portcullis_dispatcher::{Dispatcher, Member, Set};
use portcullis_rpc::{Call, Fault};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Control;
use crate::caller::Caller;
use crate::commands::reply::{Timestamp, lines, milliseconds};
use crate::commands::{Dispatch, FromCall, Procedure};
use crate::operation::{Answer, Api, Operation, Routes, answer};

/// `dispatcher.show`.
#[derive(Debug)]
pub(crate) struct Show;

/// The sets of the dispatcher.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DispatcherShown {
    /// Where the rows are: the database, or a file.
    pub source: String,
    /// Number of the load; 0 before the first.
    pub generation: u64,
    /// Time of the load.
    pub loaded_at: Timestamp,
    /// Duration of the load in milliseconds.
    pub took_ms: u64,
    /// Whether the database has no such table.
    pub table_is_absent: bool,
    /// The error of the last load, if it failed; the sets are those of the one before.
    pub last_error: Option<String>,
    /// Rows that are invalid.
    pub skipped: u64,
    /// Rows with a warning: they may not mean what was intended.
    pub warned: u64,
    /// The first invalid rows, with reasons.
    pub errors: Vec<String>,
    /// The first rows with a warning.
    pub warnings: Vec<String>,
    /// Calls that are counted now.
    pub calls: u64,
    /// Whether pings are sent: not with `ping = "0s"`, nor after `dispatcher.ping_active 0`.
    pub is_pinging: bool,
    /// The sets, by number.
    pub sets: Vec<ShownSet>,
}

/// A set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ShownSet {
    /// The number.
    pub id: u32,
    /// The destinations, in the order of their slots.
    pub destinations: Vec<ShownDestination>,
}

/// A destination.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ShownDestination {
    /// The URI.
    pub uri: String,
    /// The state: A (active), I (inactive), D (disabled) or T (trying), and P (pinged, or tried again by itself) or X.
    pub state: String,
    /// Whether requests go there.
    pub is_open: bool,
    /// Failures in a row.
    pub failures: u8,
    /// Successes in a row while it is inactive.
    pub successes: u8,
    /// Time of the last result of a request or ping; null before the first.
    pub last_at: Option<Timestamp>,
    /// Status code of the last result; null if there was no answer.
    pub last_code: Option<u16>,
    /// Until when it gets no requests because it has said so: Retry-After of a 503. Null if it has not.
    pub paused_until: Option<Timestamp>,
    /// Whether it is pinged in its state.
    pub is_pinged: bool,
    /// Why the last ping was no success; null if it was one, and before the first.
    pub ping_failure: Option<String>,
    /// The average time of an answer to a ping in milliseconds.
    pub latency_ms: f64,
    /// The standard deviation.
    pub latency_deviation_ms: f64,
    /// What the next answer is expected to take.
    pub latency_estimate_ms: f64,
    /// The longest.
    pub latency_longest_ms: f64,
    /// Number of pings without an answer.
    pub ping_timeouts: u32,
    /// Higher ones come first.
    pub priority: i32,
    /// The attributes as they are in the row.
    pub attrs: String,
    /// The description; empty if there is none.
    pub description: String,
    /// Calls that are counted now, by all hosts that share calls.
    pub calls: u32,
    /// Those that this host counts.
    #[serde(default)]
    pub own_calls: u32,
}

impl FromCall for Show {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        call.no_params().map(|()| Self)
    }
}

impl Procedure for Show {
    type Reply = DispatcherShown;

    const NEEDS: TokenRole = TokenRole::Read;

    async fn execute(self, control: &Control, _: &Caller) -> Result<DispatcherShown, Fault> {
        let dispatcher = &control.shared.dispatcher;
        let (sets, status) = (dispatcher.current(), dispatcher.status());
        Ok(DispatcherShown {
            source: dispatcher.source().to_string(),
            generation: sets.generation,
            loaded_at: sets.loaded_at.into(),
            took_ms: milliseconds(sets.took),
            table_is_absent: status.is_absent,
            last_error: status.last_error.map(|error| error.to_string()),
            skipped: sets.skipped,
            warned: sets.warned,
            errors: lines(&sets.errors),
            warnings: lines(&sets.warnings),
            calls: dispatcher.calls().counted(),
            is_pinging: dispatcher.is_pinging() && !dispatcher.rules().pings.interval.is_zero(),
            sets: sets
                .iter()
                .map(|set| ShownSet::of(set, dispatcher))
                .collect(),
        })
    }
}

impl ShownSet {
    fn of(set: &Set, dispatcher: &Dispatcher) -> Self {
        let destinations = set.members().iter();
        let destinations = destinations.map(|member| ShownDestination::of(member, dispatcher));
        Self {
            id: set.id(),
            destinations: destinations.collect(),
        }
    }
}

impl ShownDestination {
    fn of(member: &Member, dispatcher: &Dispatcher) -> Self {
        let (state, last) = (member.runtime.state(), member.runtime.last());
        let latencies = member.runtime.latencies();
        let time = |seconds| Timestamp::from(UNIX_EPOCH + Duration::from_secs(seconds));
        Self {
            uri: member.uri.to_string(),
            state: state.to_string(),
            is_open: state.admission.is_open(),
            failures: state.failures,
            successes: state.successes,
            last_at: last.map(|last| time(last.at)),
            last_code: last.and_then(|last| last.code),
            paused_until: member.runtime.paused_until().map(time),
            is_pinged: dispatcher.pings(member),
            ping_failure: member.runtime.complaint().map(String::from),
            latency_ms: latencies.average,
            latency_deviation_ms: latencies.deviation,
            latency_estimate_ms: latencies.estimate,
            latency_longest_ms: latencies.longest,
            ping_timeouts: latencies.timeouts,
            priority: member.priority,
            attrs: member.attrs.to_string(),
            description: member.description.to_string(),
            calls: member.calls(),
            own_calls: member.own_calls(),
        }
    }
}

impl Show {
    /// `GET /v1/dispatcher`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let get = Operation::new::<DispatcherShown>(
            Method::GET,
            "/v1/dispatcher",
            "showDispatcher",
            "Show the sets of the dispatcher with the states of their destinations",
        );
        routes.on(get.answers(200, "The sets"), show)
    }
}

async fn show(State(control): Api, Extension(caller): Extension<Caller>) -> Answer {
    answer(Show.dispatch(&control, &caller).await)
}
