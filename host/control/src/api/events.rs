//! `GET /v1/events`: the events of the host, as they happen.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, HeaderName, Method};
use futures_util::stream;
use portcullis_config::TokenRole;
use portcullis_export::{Batch, LiveEvent, LiveEvents};
use portcullis_rpc::Fault;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value as Json;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tracing::Level;

use crate::caller::Caller;
use crate::operation::{Answer, Api, EVENTS, Given, Operation, Routes, event_stream};

/// Where a client goes on after its connection has broken (HTML Living Standard, server-sent events).
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Most clients at the same time.
const MOST: usize = 8;

/// Interval after which a comment is sent if there are no events.
const SILENCE: Duration = Duration::from_secs(5);

/// Number of clients.
static CLIENTS: AtomicUsize = AtomicUsize::new(0);

/// The query that selects events.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct EventsQuery {
    /// Names of events, separated by commas (default: all)
    names: Option<String>,
    /// Lowest level: error, warn or info (default: info)
    #[schemars(extend("enum" = ["error", "warn", "info"]))]
    level: Option<String>,
    /// Whether to begin with the events that the host still has
    past: bool,
}

/// A client that follows events.
struct Followed {
    live: Arc<LiveEvents>,
    newest: watch::Receiver<u64>,
    ending: watch::Receiver<bool>,
    /// The last event that the client has.
    seen: u64,
    names: Vec<String>,
    level: Level,
    _place: Place,
}

/// One of the clients, until it is dropped.
struct Place;

/// `GET /v1/events`.
pub(super) fn operation(routes: Routes) -> Routes {
    let get = Operation::new::<Json>(
        Method::GET,
        "/v1/events",
        "followEvents",
        "Follow the events of the host",
    );
    let get = get.query::<EventsQuery>(&[]).sends(EVENTS).refuses(&[429]);
    let get = get.answers(
        200,
        "Server-sent events as long as the connection is open: `event` with the JSON of the log line, `left_out` with {\"left_out\": N} for events \
         that are not in memory any more; a comment every 5 seconds while there are none. A client that sends Last-Event-ID goes on after that \
         event",
    );
    routes.on(get, events)
}

async fn events(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Given(query): Given<EventsQuery>,
) -> Answer {
    caller.may(TokenRole::Read)?;
    let level = match query.level.as_deref() {
        None | Some("info") => Level::INFO,
        Some("warn") => Level::WARN,
        Some("error") => Level::ERROR,
        Some(other) => {
            let text = format!("`{other}` is not a level: write error, warn or info");
            return Err(Fault::new(400, text).into());
        }
    };
    let place = Place::take().ok_or_else(|| {
        let text = format!("{MOST} clients follow the events already: end one of them");
        Fault::new(429, text)
    })?;
    let live = Arc::clone(&control.live);
    let newest = live.newest();
    let last = headers.get(LAST_EVENT_ID);
    let last = last.and_then(|last| last.to_str().ok());
    let seen = match last {
        // An id of an earlier process: everything of this process is new.
        Some(id) => live.number(id).unwrap_or(0),
        None if query.past => 0,
        None => *newest.borrow(),
    };
    let names = query.names.unwrap_or_default();
    let names = names.split(',').map(str::trim);
    let followed = Followed {
        names: names
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect(),
        ending: control.ending.subscribe(),
        live,
        newest,
        seen,
        level,
        _place: place,
    };
    let events = stream::unfold(followed, |mut followed| async {
        let part = followed.next().await?;
        Some((part, followed))
    });
    Ok(event_stream(events))
}

impl Followed {
    /// The next events; `None` if the host ends.
    async fn next(&mut self) -> Option<Bytes> {
        // Events that the client does not want are silence, too.
        let silent = Instant::now() + SILENCE;
        loop {
            if *self.ending.borrow() {
                return None;
            }
            self.newest.borrow_and_update();
            let Batch { events, left_out } = self.live.after(self.seen);
            let mut text = String::new();
            if left_out > 0 {
                text += &format!("event: left_out\ndata: {{\"left_out\":{left_out}}}\n\n");
            }
            for event in &events {
                self.seen = event.number;
                if self.wants(event) {
                    let id = self.live.id(event.number);
                    text += &format!("id: {id}\nevent: event\ndata: {}\n\n", event.json);
                }
            }
            if events.is_empty() {
                self.seen += left_out;
            }
            if !text.is_empty() {
                return Some(text.into());
            }
            let changed = async {
                tokio::select! {
                    changed = self.newest.changed() => drop(changed),
                    ended = self.ending.changed() => drop(ended),
                }
            };
            if timeout_at(silent, changed).await.is_err() {
                return Some(Bytes::from_static(b":\n\n"));
            }
        }
    }

    fn wants(&self, event: &LiveEvent) -> bool {
        let is_named = self.names.is_empty() || self.names.iter().any(|name| **name == *event.name);
        is_named && event.level <= self.level
    }
}

impl Place {
    fn take() -> Option<Self> {
        let more = |count| (count < MOST).then_some(count + 1);
        let taken = CLIENTS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.ok().map(|_| Self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        CLIENTS.fetch_sub(1, Ordering::Relaxed);
    }
}
