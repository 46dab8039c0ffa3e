//! The events of the log as lines of JSON, in a file and in signed requests to a server.
//!
//! An event is a line of the log that has a name in its field `event`. They are taken where the log takes them, whatever the level of the
//! log is.

use std::fmt;
use std::iter;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use portcullis_config::EventsConfig;
use portcullis_records::LineFile;
use portcullis_text::{clean_json, rfc3339};
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::error::ExportError;
use crate::poster::{Destination, Poster};
use crate::stats::{ExportStats, Exports};

/// Most lines that wait for the file, and most bytes of them.
const WAITING: usize = 4096;
const WAITING_BYTES: usize = 4 << 20;

/// How long lines are gathered.
const GATHER: Duration = Duration::from_millis(200);

/// How long the end of the host waits for the file.
const LAST: Duration = Duration::from_secs(2);

/// What a policy logs is no event of the host, unless it is asked for by name.
pub(crate) const POLICY_LOG: &str = "policy_log";

/// The field with the name of an event.
const NAME: &str = "event";

/// Takes events to their destinations. What waits is delivered, within a short time, when this is dropped.
#[derive(Debug)]
pub struct Events {
    names: Vec<String>,
    file: Option<ToFile>,
    webhook: Option<Poster>,
    stats: Exports,
}

/// The part of the log that hears of events.
#[derive(Clone, Debug)]
pub struct Listener(Arc<Mutex<Option<Arc<Events>>>>);

/// The file and its thread.
#[derive(Debug)]
struct ToFile {
    /// `None` only while it is dropped.
    lines: Option<SyncSender<String>>,
    stats: Arc<ExportStats>,
    /// Disconnected when the thread has ended.
    end: Mutex<Receiver<()>>,
}

impl Events {
    /// Starts the threads. Returns `None` if no destination is configured.
    ///
    /// # Errors
    /// If the file cannot be written or no thread be started.
    pub fn start(config: &EventsConfig) -> Result<Option<Arc<Self>>, ExportError> {
        let mut stats = Vec::new();
        let mut count = |what| {
            let counts = Arc::new(ExportStats::default());
            stats.push((what, Arc::clone(&counts)));
            counts
        };
        let file = match &config.file {
            None => None,
            Some(path) => {
                let opened = LineFile::open(path, config.size);
                let file = opened.map_err(|source| ExportError::File {
                    path: path.clone(),
                    source,
                })?;
                Some(ToFile::start(file, count("events_file"))?)
            }
        };
        let webhook = match &config.webhook {
            None => None,
            Some(url) => {
                let destination = Destination {
                    what: "webhook",
                    url: url.clone(),
                    content_type: "application/x-ndjson",
                    body: |lines| lines.concat(),
                    gather: GATHER,
                    secret: config.secret.clone(),
                    queue: WAITING_BYTES,
                };
                Some(Poster::start(destination, count("webhook"))?)
            }
        };
        if file.is_none() && webhook.is_none() {
            return Ok(None);
        }
        Ok(Some(Arc::new(Self {
            names: config.names.clone(),
            file,
            webhook,
            stats,
        })))
    }

    /// The statistics of each destination.
    pub fn stats(&self) -> Exports {
        self.stats.clone()
    }

    fn wants(&self, name: &str) -> bool {
        match self.names.is_empty() {
            true => name != POLICY_LOG,
            false => self.names.iter().any(|wanted| wanted == name),
        }
    }

    fn send(&self, line: String) {
        match (&self.file, &self.webhook) {
            (Some(file), Some(webhook)) => {
                file.send(line.clone());
                webhook.send(line);
            }
            (Some(file), None) => file.send(line),
            (None, Some(webhook)) => webhook.send(line),
            (None, None) => {}
        }
    }
}

impl Listener {
    /// A part of the log that passes events on until [`Listener::end`].
    pub fn new(events: Arc<Events>) -> Self {
        Self(Arc::new(Mutex::new(Some(events))))
    }

    /// Passes nothing on any more. The log outlives everything else, and would keep the threads.
    pub fn end(&self) {
        let events = self.0.lock().take();
        drop(events);
    }
}

impl<S: Subscriber> Layer<S> for Listener {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        // An event of this crate would lead to the next one.
        if metadata.target().starts_with("portcullis_export") {
            return;
        }
        if metadata.fields().field(NAME).is_none() {
            return;
        }
        let Some(events) = self.0.lock().clone() else {
            return;
        };
        // Most lines of a busy log are not wanted: their other fields are not even formatted.
        let mut name = Wanted {
            events: &events,
            is_wanted: false,
        };
        event.record(&mut name);
        if !name.is_wanted {
            return;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut line = Map::new();
        line.insert("time".into(), rfc3339(SystemTime::now()).into());
        let level = metadata.level().as_str().to_ascii_lowercase();
        line.insert("level".into(), level.into());
        line.append(&mut fields.0);
        let json = Value::Object(line).to_string();
        let mut line = clean_json(&json).into_owned();
        line.push('\n');
        events.send(line);
    }
}

impl ToFile {
    fn start(file: LineFile, stats: Arc<ExportStats>) -> Result<Self, ExportError> {
        let (lines, next) = sync_channel(WAITING);
        let (ended, end) = sync_channel(0);
        let counted = Arc::clone(&stats);
        let what = "events";
        thread::Builder::new()
            .name(what.to_owned())
            .spawn(move || {
                let _ended = ended;
                write(&next, file, &counted);
            })
            .map_err(|source| ExportError::Thread { what, source })?;
        Ok(Self {
            lines: Some(lines),
            stats,
            end: Mutex::new(end),
        })
    }

    fn send(&self, line: String) {
        let bytes = line.len();
        let waiting = self.stats.waiting.fetch_add(bytes, Ordering::Relaxed);
        let has_room = waiting.saturating_add(bytes) <= WAITING_BYTES;
        let lines = self.lines.as_ref().filter(|_| has_room);
        if lines.is_none_or(|lines| lines.try_send(line).is_err()) {
            self.stats.waiting.fetch_sub(bytes, Ordering::Relaxed);
            self.stats.too_fast.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for ToFile {
    fn drop(&mut self) {
        drop(self.lines.take());
        let _ended = self.end.lock().recv_timeout(LAST);
    }
}

/// Writes lines until the sender is gone.
fn write(next: &Receiver<String>, mut file: LineFile, stats: &ExportStats) {
    loop {
        let mut bytes = 0;
        let is_over = match next.recv_timeout(GATHER) {
            Ok(line) => {
                let others = next.try_iter().take(WAITING);
                for line in iter::once(line).chain(others) {
                    bytes += line.len();
                    file.gather(line.trim_end().as_bytes());
                }
                false
            }
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => true,
        };
        let flushed = file.flush();
        stats.waiting.fetch_sub(bytes, Ordering::Relaxed);
        stats.sent.fetch_add(flushed.written, Ordering::Relaxed);
        stats.failed.fetch_add(flushed.lost, Ordering::Relaxed);
        if is_over {
            return;
        }
    }
}

/// Whether an event is wanted, by its name.
struct Wanted<'e> {
    events: &'e Events,
    is_wanted: bool,
}

impl Visit for Wanted<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == NAME {
            self.is_wanted = self.events.wants(&format!("{value:?}"));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == NAME {
            self.is_wanted = self.events.wants(value);
        }
    }
}

/// The fields of an event.
#[derive(Default)]
pub(crate) struct Fields(pub(crate) Map<String, Value>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        self.0.insert(field.name().into(), text.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().into(), value.into());
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::signature;

    /// What the events of this crate are not: they are not passed on.
    const HOST: &str = "portcullis_dataplane";

    /// A request, which is answered with this status.
    fn request(server: &TcpListener, status: &str) -> (String, String) {
        let (mut stream, _) = server.accept().unwrap();
        let mut bytes = Vec::new();
        let mut part = [0; 4096];
        loop {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let head = head.to_ascii_lowercase();
                let length = head
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: "));
                if body.len() == length.unwrap().parse::<usize>().unwrap() {
                    answer(&mut stream, status);
                    return (head, body.to_owned());
                }
            }
            let length = stream.read(&mut part).unwrap();
            assert!(length > 0, "{text}");
            bytes.extend_from_slice(&part[..length]);
        }
    }

    fn answer(stream: &mut TcpStream, status: &str) {
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        stream.write_all(answer.as_bytes()).unwrap();
    }

    #[test]
    fn events_reach_the_file_and_the_server() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let config = EventsConfig {
            file: Some(path.clone()),
            webhook: Some(format!("http://{}/hook", server.local_addr().unwrap())),
            secret: Some("a long secret of a test".into()),
            ..EventsConfig::default()
        };
        let events = Events::start(&config).unwrap().unwrap();
        let listener = Listener::new(Arc::clone(&events));
        let log = tracing_subscriber::registry().with(listener.clone());
        tracing::subscriber::with_default(log, || {
            tracing::warn!(target: HOST, "no event");
            tracing::info!(
                target: HOST,
                event = POLICY_LOG,
                text = "of a policy",
                "no event of the host"
            );
            tracing::warn!(
                target: HOST,
                event = "next_hop_down",
                next_hop = %"192.0.2.1:5060\u{1b}",
                count = 3,
                "next hop down"
            );
        });
        // The first attempt is refused, and the same body comes again.
        let (_, first) = request(&server, "503 Busy");
        let (head, body) = request(&server, "204 No Content");
        assert_eq!(first, body);
        let line: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            (&line["event"], &line["level"], &line["count"]),
            (&"next_hop_down".into(), &"warn".into(), &3.into())
        );
        assert_eq!(line["next_hop"], "192.0.2.1:5060\u{1b}");
        assert!(!body.trim_end().chars().any(portcullis_text::is_active));
        let field = |name: &str| {
            let found = head.lines().find_map(|line| line.strip_prefix(name));
            found
                .unwrap_or_else(|| panic!("{name} in {head}"))
                .to_owned()
        };
        assert!(head.starts_with("post /hook "), "{head}");
        assert_eq!(field("content-type: "), "application/x-ndjson");
        let time = field("x-portcullis-timestamp: ").parse().unwrap();
        let expected = signature::of("a long secret of a test", time, body.as_bytes());
        assert_eq!(field("x-portcullis-signature: "), expected);
        let stats = events.stats();
        listener.end();
        drop(events);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), body);
        for (what, stats) in stats {
            assert_eq!(
                (stats.sent(), stats.lost()),
                (1, [("queue", 0), ("error", 0)]),
                "{what}"
            );
        }
    }

    #[test]
    fn lines_that_wait_are_bounded_in_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let (lines, next) = sync_channel(WAITING);
        let stats = Arc::new(ExportStats::default());
        let file = ToFile {
            lines: Some(lines),
            stats: Arc::clone(&stats),
            end: Mutex::new(sync_channel(0).1),
        };
        for _ in 0..5 {
            file.send(format!("{}\n", "x".repeat((1 << 20) - 1)));
        }
        assert_eq!(stats.lost(), [("queue", 1), ("error", 0)]);
        drop(file);
        let lines = LineFile::open(&folder.path().join("events.jsonl"), 100 << 20).unwrap();
        write(&next, lines, &stats);
        assert_eq!(
            (stats.sent(), stats.waiting.load(Ordering::Relaxed)),
            (4, 0)
        );
    }

    /// A value that may not be formatted.
    struct Unwanted;

    impl fmt::Debug for Unwanted {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            panic!("a field of an event that nobody wants was formatted");
        }
    }

    #[test]
    fn only_named_events_are_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let config = EventsConfig {
            file: Some(path.clone()),
            names: vec![POLICY_LOG.into()],
            ..EventsConfig::default()
        };
        let events = Events::start(&config).unwrap().unwrap();
        let listener = Listener::new(events);
        let log = tracing_subscriber::registry().with(listener.clone());
        tracing::subscriber::with_default(log, || {
            tracing::warn!(
                target: HOST,
                next_hop = ?Unwanted,
                event = "next_hop_down",
                "next hop down"
            );
            tracing::warn!(target: HOST, next_hop = ?Unwanted, "no event");
            tracing::info!(target: HOST, event = POLICY_LOG, text = "one", "policy");
        });
        listener.end();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("\"text\":\"one\""), "{text}");
    }
}
