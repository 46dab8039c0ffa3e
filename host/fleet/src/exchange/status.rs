//! How the exchange is doing, for metrics, alerts and `status`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How the exchange is doing. The task writes it; anybody reads it.
#[derive(Debug)]
pub struct Status {
    begun: Instant,
    exchanges: AtomicU64,
    failures: AtomicU64,
    items: AtomicU64,
    waiting: AtomicU64,
    lost: AtomicU64,
    /// Time from the sending of the last exchange to its answer, in nanoseconds.
    round_trip: AtomicU64,
    health: Mutex<Health>,
}

/// Whether the other hosts are heard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Number of hosts that take part, this one included; `None` while they are not heard.
    pub hosts: Option<usize>,
    /// Number of hosts that took part when they were heard last; 0: never.
    pub last_hosts: usize,
    /// The server.
    pub server: String,
    /// Why the last exchange failed: kind and message; `None` if it succeeded.
    pub trouble: Option<(&'static str, String)>,
    /// When the last exchange succeeded.
    pub last: Option<Instant>,
    /// How far the clock of Redis is ahead of that of this host, in milliseconds.
    pub ahead_ms: i64,
}

impl Status {
    /// Number of exchanges that succeeded.
    pub fn exchanges(&self) -> u64 {
        self.exchanges.load(Ordering::Relaxed)
    }

    /// Number of exchanges that failed.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Number of items of this host and of the others that the exchange keeps.
    pub fn items(&self) -> u64 {
        self.items.load(Ordering::Relaxed)
    }

    /// Number of items of this host that Redis does not have yet.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Number of items that were not stored or not read: no room, or garbage.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Time from the sending of the last exchange to its answer.
    pub fn round_trip(&self) -> Duration {
        Duration::from_nanos(self.round_trip.load(Ordering::Relaxed))
    }

    /// Time since the last exchange that succeeded; since the start, if there was none.
    pub fn lag(&self, now: Instant) -> Duration {
        let last = self.health.lock().last.unwrap_or(self.begun);
        now.saturating_duration_since(last)
    }

    /// Whether the other hosts are heard.
    pub fn health(&self) -> Health {
        self.health.lock().clone()
    }

    pub(super) fn new() -> Self {
        Self {
            begun: Instant::now(),
            exchanges: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            items: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            round_trip: AtomicU64::new(0),
            health: Mutex::default(),
        }
    }

    pub(super) fn succeed(&self, server: &str, took: Duration, ahead_ms: i64) {
        self.exchanges.fetch_add(1, Ordering::Relaxed);
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.round_trip.store(took, Ordering::Relaxed);
        let mut health = self.health.lock();
        if health.server != server {
            server.clone_into(&mut health.server);
        }
        health.trouble = None;
        health.last = Some(Instant::now());
        health.ahead_ms = ahead_ms;
    }

    pub(super) fn fail(&self, kind: &'static str, message: String) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.health.lock().trouble = Some((kind, message));
    }

    pub(super) fn hear(&self, hosts: Option<usize>) {
        let mut health = self.health.lock();
        health.hosts = hosts;
        if let Some(hosts) = hosts {
            health.last_hosts = hosts;
        }
    }

    pub(super) fn count(&self, items: usize, waiting: usize, lost: u64) {
        self.items.store(items as u64, Ordering::Relaxed);
        self.waiting.store(waiting as u64, Ordering::Relaxed);
        self.lost.store(lost, Ordering::Relaxed);
    }
}
