//! A thread that sends items to a server over HTTP, several in one request, with a few attempts.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::error::ExportError;
use crate::signature;
use crate::stats::ExportStats;

/// Most items in the queue.
const WAITING: usize = 4096;

/// Most items in one request.
const BATCH: usize = 256;

/// Most bytes of items in one request.
const BATCH_BYTES: usize = 1 << 20;

/// Pauses before each further attempt.
const PAUSES: [Duration; 3] = [
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(5),
];

/// Most time for one attempt.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the end of the host waits for what has not been sent.
const LAST: Duration = Duration::from_secs(2);

/// Least time between two log lines about a server.
const BETWEEN_LINES: Duration = Duration::from_secs(60);

/// A server and the form of requests to it.
pub(crate) struct Destination {
    /// What is sent, for the log and the thread's name.
    pub(crate) what: &'static str,
    pub(crate) url: String,
    pub(crate) content_type: &'static str,
    /// Makes the body of several items.
    pub(crate) body: fn(&[String]) -> String,
    /// How long items are gathered.
    pub(crate) gather: Duration,
    /// Key of the signature; `None`: requests are not signed.
    pub(crate) secret: Option<String>,
    /// Most bytes that wait.
    pub(crate) queue: usize,
}

/// The sending end of the queue.
#[derive(Debug)]
pub(crate) struct Poster {
    /// `None` only while it is dropped.
    items: Option<SyncSender<String>>,
    most: usize,
    stats: Arc<ExportStats>,
    /// Disconnected when the thread has ended.
    end: Mutex<Receiver<()>>,
}

impl Poster {
    /// Starts the thread, which counts in `stats`.
    pub(crate) fn start(
        destination: Destination,
        stats: Arc<ExportStats>,
    ) -> Result<Self, ExportError> {
        let (items, next) = sync_channel(WAITING);
        let (ended, end) = sync_channel(0);
        let what = destination.what;
        let most = destination.queue;
        let counted = Arc::clone(&stats);
        thread::Builder::new()
            .name(what.to_owned())
            .spawn(move || {
                let _ended = ended;
                PosterThread::new(destination, counted).run(&next);
            })
            .map_err(|source| ExportError::Thread { what, source })?;
        Ok(Self {
            items: Some(items),
            most,
            stats,
            end: Mutex::new(end),
        })
    }

    /// Passes an item to the thread. An item that has no room is counted as lost.
    pub(crate) fn send(&self, item: String) {
        let bytes = item.len();
        let waiting = self.stats.waiting.fetch_add(bytes, Ordering::Relaxed);
        let has_room = waiting.saturating_add(bytes) <= self.most;
        let items = self.items.as_ref().filter(|_| has_room);
        if items.is_none_or(|items| items.try_send(item).is_err()) {
            self.stats.waiting.fetch_sub(bytes, Ordering::Relaxed);
            self.stats.too_fast.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Waits for a short time until what is in the queue has been sent.
impl Drop for Poster {
    fn drop(&mut self) {
        drop(self.items.take());
        let _ended = self.end.lock().recv_timeout(LAST);
    }
}

struct PosterThread {
    destination: Destination,
    agent: ureq::Agent,
    stats: Arc<ExportStats>,
    reported_at: Option<Instant>,
    is_down: bool,
}

/// Why a request was not accepted.
struct Refused {
    why: String,
    /// Whether another attempt may succeed.
    is_temporary: bool,
}

impl PosterThread {
    fn new(destination: Destination, stats: Arc<ExportStats>) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .user_agent(concat!("portcullis/", env!("CARGO_PKG_VERSION")))
            .build();
        Self {
            destination,
            agent: config.new_agent(),
            stats,
            reported_at: None,
            is_down: false,
        }
    }

    /// Sends items until the sender is gone.
    fn run(mut self, next: &Receiver<String>) {
        let mut items = Vec::new();
        let mut first_of_next = None;
        loop {
            let first = match first_of_next.take() {
                Some(item) => item,
                None => match next.recv() {
                    Ok(item) => item,
                    Err(_) => return,
                },
            };
            let mut bytes = first.len();
            items.push(first);
            let until = Instant::now() + self.destination.gather;
            let mut is_last = false;
            while items.len() < BATCH {
                match next.recv_timeout(until.saturating_duration_since(Instant::now())) {
                    Ok(item) if bytes + item.len() > BATCH_BYTES => {
                        first_of_next = Some(item);
                        break;
                    }
                    Ok(item) => {
                        bytes += item.len();
                        items.push(item);
                    }
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => {
                        is_last = true;
                        break;
                    }
                }
            }
            self.deliver(&items, is_last);
            self.stats.waiting.fetch_sub(bytes, Ordering::Relaxed);
            items.clear();
        }
    }

    /// Sends one request, with a few attempts. At the end of the host there is time for one.
    fn deliver(&mut self, items: &[String], is_last: bool) {
        let body = (self.destination.body)(items);
        let pauses: &[Duration] = if is_last { &[] } else { &PAUSES };
        let mut pauses = pauses.iter();
        loop {
            let refused = match self.post(&body) {
                Ok(()) => break,
                Err(refused) => refused,
            };
            self.report(&refused.why);
            match pauses.next().filter(|_| refused.is_temporary) {
                Some(pause) => thread::sleep(*pause),
                None => {
                    let lost = items.len() as u64;
                    self.stats.failed.fetch_add(lost, Ordering::Relaxed);
                    return;
                }
            }
        }
        self.stats
            .sent
            .fetch_add(items.len() as u64, Ordering::Relaxed);
        if std::mem::take(&mut self.is_down) {
            tracing::info!(
                event = "export_resumed",
                what = self.destination.what,
                lost = self.stats.failed.load(Ordering::Relaxed),
                "the server accepts requests again"
            );
        }
    }

    fn post(&self, body: &str) -> Result<(), Refused> {
        let Destination {
            url,
            content_type,
            secret,
            ..
        } = &self.destination;
        let mut request = self.agent.post(url).header("Content-Type", *content_type);
        if let Some(secret) = secret {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            let now = now.map_or(0, |since| since.as_secs());
            request = request
                .header("X-Portcullis-Timestamp", now.to_string())
                .header(
                    "X-Portcullis-Signature",
                    signature::of(secret, now, body.as_bytes()),
                );
        }
        let response = request.send(body).map_err(|error| Refused {
            why: error.to_string(),
            is_temporary: true,
        })?;
        let status = response.status().as_u16();
        match status {
            200..=299 => Ok(()),
            _ => Err(Refused {
                why: format!("status {status}"),
                is_temporary: matches!(status, 408 | 429 | 500..=599),
            }),
        }
    }

    fn report(&mut self, why: &str) {
        self.is_down = true;
        if self
            .reported_at
            .is_some_and(|at| at.elapsed() < BETWEEN_LINES)
        {
            return;
        }
        self.reported_at = Some(Instant::now());
        tracing::warn!(
            event = "export_failed",
            what = self.destination.what,
            url = server_of(&self.destination.url),
            error = why,
            "a server does not accept what the host exports"
        );
    }
}
/// Scheme, host and port of a URL. The rest may be a secret: many servers know their clients by a path that is hard to guess.
fn server_of(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_may_be_a_secret_is_not_logged() {
        for (url, server) in [
            (
                "http://hooks.example:8080/T0/B1/secret?token=x",
                "http://hooks.example:8080",
            ),
            ("http://ann:secret@hooks.example/x", "http://hooks.example"),
            ("http://[2001:db8::1]:80", "http://[2001:db8::1]:80"),
        ] {
            assert_eq!(server_of(url), server);
        }
    }
}
