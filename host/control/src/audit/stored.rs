//! The audit in the database: a task writes what waits, so that no command waits for the database.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use portcullis_config::AuditConfig;
use portcullis_store::{
    Action as Row, ActionBounds, ActionFilter, MOST_NOTED, Store, StoreError, StoredAction,
};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant as Moment, sleep, sleep_until, timeout};

use super::action::Action;
use super::waiting::{Lost, Waiting};

/// How long actions are gathered before they are written together: with SQLite, each write makes other hosts on the file read their tables
/// again.
const GATHERED: Duration = Duration::from_secs(1);

/// The longest pause after a failed write; it doubles up to the longest one of all.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Longest time from the start to the first deletion of what is beyond the bounds, and between two deletions. The hosts of a fleet have one table, so
/// that each deletes at random moments.
const FIRST_PRUNED: Duration = Duration::from_secs(60);
const PRUNED: Duration = Duration::from_secs(3_600);

/// Number of stored actions after which there is a deletion, whatever the time is.
const PRUNED_AFTER: usize = 1_000;

/// A day in milliseconds.
const DAY: u64 = 24 * 3_600 * 1_000;

/// The audit in the database.
#[derive(Debug)]
pub(crate) struct Stored {
    store: Store,
    config: AuditConfig,
    host: String,
    /// Distinguishes the actions of this process from those of others.
    process: String,
    waiting: Mutex<Waiting>,
    /// Notified when an action begins to wait.
    wake: Notify,
    /// Notified when somebody waits for what waits.
    hurry: Notify,
    /// Notified when a write has failed.
    failed: Notify,
    /// The number of the last action that was written.
    written: watch::Sender<u64>,
    /// The last error of the database; `None` if there is none.
    error: Mutex<Option<StoreError>>,
    count: AtomicU64,
    lost_queue: AtomicU64,
    lost_rate: AtomicU64,
}

impl Stored {
    /// The audit in this database. Nothing is written before [`run`](Self::run) runs.
    pub(crate) fn new(store: Store, config: AuditConfig, host: &str) -> Self {
        Self {
            store,
            config,
            host: within(host, 255),
            process: format!("{:032x}", fastrand::u128(..)),
            waiting: Mutex::default(),
            wake: Notify::new(),
            hurry: Notify::new(),
            failed: Notify::new(),
            written: watch::channel(0).0,
            error: Mutex::default(),
            count: AtomicU64::new(0),
            lost_queue: AtomicU64::new(0),
            lost_rate: AtomicU64::new(0),
        }
    }

    /// Takes an action, which waits for the database. It is counted if there is no room for it.
    pub(super) fn take(&self, action: &Action) {
        let row = self.row(action);
        let pushed = self
            .waiting
            .lock()
            .push(row, action.is_bounded, Instant::now());
        let lost = match pushed {
            Ok(()) => return self.wake.notify_one(),
            Err(Lost::Queue) => &self.lost_queue,
            Err(Lost::Rate) => &self.lost_rate,
        };
        lost.fetch_add(1, Ordering::Relaxed);
    }

    /// Writes actions until the task is dropped.
    pub(crate) async fn run(&self) {
        let mut pause = FIRST_PAUSE;
        let (mut due, mut since) = (Moment::now() + random_part(FIRST_PRUNED), 0);
        loop {
            tokio::select! {
                biased;
                () = self.something_waits() => {}
                () = sleep_until(due) => {
                    // A failure is logged when something is written. Without the right to delete, the table keeps everything.
                    let deleted = self.prune().await;
                    tracing::debug!(event = "audit_pruned", ?deleted, "audit pruned");
                    due = Moment::now() + PRUNED / 2 + random_part(PRUNED / 2);
                    since = 0;
                    continue;
                }
            }
            match self.write().await {
                Ok(count) => {
                    since += count;
                    if since >= PRUNED_AFTER {
                        due = Moment::now();
                    }
                    pause = FIRST_PAUSE;
                }
                Err(_logged) => {
                    sleep(pause / 2 + random_part(pause / 2)).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Waits until everything that waits now is written, for `patience` at most, unless the database has failed.
    pub(crate) async fn settled(&self, patience: Duration) {
        let failed = self.failed.notified();
        if self.error.lock().is_some() {
            return;
        }
        tokio::select! {
            () = self.settled_soon(patience) => {}
            () = failed => {}
        }
    }

    /// The same, also if the database has failed.
    pub(crate) async fn settled_soon(&self, patience: Duration) {
        let Some(last) = self.waiting.lock().last() else {
            return;
        };
        self.hurry.notify_one();
        let mut written = self.written.subscribe();
        let _late = timeout(patience, written.wait_for(|written| *written >= last)).await;
    }

    /// Returns up to `most` actions of all hosts, the newest first.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub(crate) async fn actions(
        &self,
        filter: &ActionFilter,
        most: u32,
    ) -> Result<Vec<StoredAction>, StoreError> {
        self.store.actions(filter, most).await
    }

    /// Returns the number of actions that have been stored.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Returns the number of actions that wait to be stored.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.lock().len()
    }

    /// Returns the number of actions that are not stored, by reason.
    pub(crate) fn lost(&self) -> [(&'static str, u64); 2] {
        [
            ("queue", self.lost_queue.load(Ordering::Relaxed)),
            ("rate", self.lost_rate.load(Ordering::Relaxed)),
        ]
    }

    /// Waits until an action waits, and then for others, unless somebody is in a hurry.
    async fn something_waits(&self) {
        while self.waiting.lock().len() == 0 {
            self.wake.notified().await;
        }
        tokio::select! {
            () = sleep(GATHERED) => {}
            () = self.hurry.notified() => {}
        }
    }

    /// Writes the actions that wait. Returns their number.
    async fn write(&self) -> Result<usize, StoreError> {
        let mut count = 0;
        loop {
            let first = self.waiting.lock().first(MOST_NOTED);
            let Some(last) = first.last().map(|row| row.number) else {
                return Ok(count);
            };
            let noted = self.store.note(&first).await;
            self.tell(noted.as_ref().err());
            if noted.is_err() {
                self.failed.notify_waiters();
            }
            noted?;
            self.waiting.lock().drop_first(first.len(), Instant::now());
            count += first.len();
            self.count.fetch_add(first.len() as u64, Ordering::Relaxed);
            self.written.send_replace(last);
        }
    }

    async fn prune(&self) -> Result<u64, StoreError> {
        let bounds = ActionBounds {
            rows: self.config.rows,
            rows_of_one: self.config.rows.div_ceil(4),
            since: milliseconds(SystemTime::now()).saturating_sub(self.config.days * DAY),
        };
        self.store.prune_actions(&bounds).await
    }

    /// Logs how a write has ended, if that differs from the one before.
    fn tell(&self, error: Option<&StoreError>) {
        let mut last = self.error.lock();
        if last.as_ref() == error {
            return;
        }
        match error {
            Some(error @ (StoreError::NoTables { .. } | StoreError::Denied { .. })) => {
                tracing::info!(
                    event = "audit_in_memory",
                    "the audit is in memory only: {error}"
                );
            }
            Some(
                error @ (StoreError::Unreachable { .. }
                | StoreError::Hung { .. }
                | StoreError::Failed { .. }
                | StoreError::Damaged { .. }
                | StoreError::NoArtifact { .. }),
            ) => {
                tracing::warn!(event = "audit_not_stored", %error, "actions cannot be stored in the database: up to 2,000 wait");
            }
            None => tracing::info!(
                event = "audit_stored",
                "actions are stored in the database again"
            ),
        }
        *last = error.cloned();
    }

    fn row(&self, action: &Action) -> Row {
        // Databases refuse NUL in a text.
        let text = |text: &str| within(text, 512);
        let optional = |value: &Option<String>| value.as_deref().map(text);
        Row {
            host: self.host.clone(),
            process: self.process.clone(),
            number: action.id,
            at: milliseconds(action.at),
            author: text(&action.by),
            tenant: action.tenant.clone(),
            token: action.token.clone(),
            door: action.door.to_owned(),
            command: action.command.to_owned(),
            seat: optional(&action.seat),
            subject: optional(&action.subject),
            error: optional(&action.error),
        }
    }
}

/// A text that fits its column: without NUL, and with so many characters at most.
fn within(text: &str, most: usize) -> String {
    let shown = text.chars().take(most);
    shown
        .map(|c| match c {
            '\0' => char::REPLACEMENT_CHARACTER,
            c => c,
        })
        .collect()
}

fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Any part of a time.
fn random_part(of: Duration) -> Duration {
    of.mul_f64(fastrand::f64())
}
