//! The last events of the log in memory, for clients that follow them.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use portcullis_text::{clean_json, rfc3339};
use serde_json::{Map, Value};
use tokio::sync::watch;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::events::{Fields, POLICY_LOG};

/// Most events that are kept, and most bytes of them.
const MOST: usize = 1_000;
const MOST_BYTES: usize = 1 << 20;

/// The last events.
#[derive(Debug)]
pub struct LiveEvents {
    /// Distinguishes the numbers of this process from those of another one.
    epoch: u64,
    ring: Mutex<Ring>,
    newest: watch::Sender<u64>,
}

/// The part of the log that hears of events.
#[derive(Clone, Debug)]
pub struct LiveListener(Arc<LiveEvents>);

/// An event.
#[derive(Clone, Debug)]
pub struct LiveEvent {
    /// Its number since the start, from 1.
    pub number: u64,
    /// Its name.
    pub name: Arc<str>,
    /// Its level.
    pub level: Level,
    /// All of it, as one line of JSON without a line ending.
    pub json: Arc<str>,
}

/// Events in their order.
#[derive(Debug, Default)]
pub struct Batch {
    /// The events.
    pub events: Vec<LiveEvent>,
    /// Events before these that are not in memory any more.
    pub left_out: u64,
}

#[derive(Debug, Default)]
struct Ring {
    /// The oldest first.
    last: VecDeque<LiveEvent>,
    bytes: usize,
    count: u64,
}

impl LiveEvents {
    /// No events yet.
    pub fn new() -> Arc<Self> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let since = since.unwrap_or_default().as_micros();
        Arc::new(Self {
            epoch: u64::try_from(since).unwrap_or_default(),
            ring: Mutex::default(),
            newest: watch::channel(0).0,
        })
    }

    /// The part of the log that hears of events.
    pub fn listener(self: &Arc<Self>) -> LiveListener {
        LiveListener(Arc::clone(self))
    }

    /// The id of an event for clients: it names the process, too.
    pub fn id(&self, number: u64) -> String {
        format!("{:x}-{number}", self.epoch)
    }

    /// The number in an id; `None` if the id is not one of this process.
    pub fn number(&self, id: &str) -> Option<u64> {
        let (epoch, number) = id.split_once('-')?;
        let is_own = u64::from_str_radix(epoch, 16) == Ok(self.epoch);
        number.parse().ok().filter(|_| is_own)
    }

    /// The number of the newest event; it changes with each.
    pub fn newest(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// Returns the events after this number.
    pub fn after(&self, number: u64) -> Batch {
        let ring = self.ring.lock();
        let oldest = ring
            .last
            .front()
            .map_or(ring.count + 1, |event| event.number);
        let new = ring.last.iter().filter(|event| event.number > number);
        Batch {
            events: new.cloned().collect(),
            left_out: oldest.saturating_sub(number.saturating_add(1)),
        }
    }

    fn add(&self, name: String, level: Level, json: String) {
        let mut ring = self.ring.lock();
        ring.count += 1;
        let event = LiveEvent {
            number: ring.count,
            name: name.into(),
            level,
            json: json.into(),
        };
        ring.bytes += event.json.len();
        ring.last.push_back(event);
        while ring.last.len() > MOST || ring.bytes > MOST_BYTES {
            let Some(oldest) = ring.last.pop_front() else {
                break;
            };
            ring.bytes -= oldest.json.len();
        }
        self.newest.send_replace(ring.count);
    }
}

impl<S: Subscriber> Layer<S> for LiveListener {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut name = Name(None);
        event.record(&mut name);
        let Some(name) = name.0.filter(|name| name != POLICY_LOG) else {
            return;
        };
        let mut fields = Fields::default();
        event.record(&mut fields);
        let level = *event.metadata().level();
        let mut line = Map::new();
        line.insert("time".into(), rfc3339(SystemTime::now()).into());
        line.insert("level".into(), level.as_str().to_ascii_lowercase().into());
        line.append(&mut fields.0);
        let json = Value::Object(line).to_string();
        self.0.add(name, level, clean_json(&json).into_owned());
    }
}

/// The name of an event.
struct Name(Option<String>);

impl Visit for Name {
    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "event" {
            self.0 = Some(value.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn named_events_are_kept_and_numbered() {
        let live = LiveEvents::new();
        let log = tracing_subscriber::registry().with(live.listener());
        tracing::subscriber::with_default(log, || {
            tracing::warn!("no event");
            tracing::info!(event = POLICY_LOG, "of a policy");
            tracing::warn!(event = "next_hop_down", count = 3, "next hop down");
            tracing::info!(event = "serving", "serving");
        });
        let Batch { events, left_out } = live.after(0);
        let names: Vec<_> = events.iter().map(|event| &*event.name).collect();
        assert_eq!((names, left_out), (vec!["next_hop_down", "serving"], 0));
        let json: Value = serde_json::from_str(&events[0].json).unwrap();
        assert_eq!(
            (&json["level"], &json["count"], &json["message"]),
            (&"warn".into(), &3.into(), &"next hop down".into())
        );
        assert_eq!(live.after(1).events.len(), 1);
        assert_eq!(*live.newest().borrow(), 2);
        assert_eq!(live.number(&live.id(7)), Some(7));
        for foreign in ["1-7", "7", "", "x-y"] {
            assert_eq!(live.number(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn memory_is_bounded_and_losses_are_counted() {
        let live = LiveEvents::new();
        for _ in 0..MOST + 10 {
            live.add("a".into(), Level::INFO, "{}".into());
        }
        let batch = live.after(4);
        assert_eq!((batch.events.len(), batch.left_out), (MOST, 6));
        live.add("b".into(), Level::INFO, "x".repeat(MOST_BYTES - 10));
        assert_eq!(live.after(0).events.len(), 1 + 5);
        live.add("c".into(), Level::INFO, "x".repeat(2 * MOST_BYTES));
        let batch = live.after(MOST as u64);
        assert_eq!((batch.events.len(), batch.left_out), (0, 12));
    }
}
