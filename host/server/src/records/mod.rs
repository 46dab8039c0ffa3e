//! Decisions that are written down: which, how, and by whom. They can be replayed.

mod mask;
mod record;
mod writer;

use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime};

use portcullis_policy::{Counters, DecisionId, Share};
use thiserror::Error;

use crate::config::RecordsConfig;
use crate::pipeline::PolicyRequest;

pub use record::{Asking, Change, Decided, Question, Record};

use writer::{File, Job};

/// Records that may wait for the writer. What comes when there is no room is counted.
const WAITING: usize = 4096;

/// Gives decisions their ids, chooses those that are recorded, and takes them to the thread that writes.
#[derive(Debug)]
pub struct Recorder {
    config: RecordsConfig,
    start: u32,
    next: AtomicU64,
    pace: Counters,
    jobs: Option<SyncSender<Job>>,
    told: Arc<Told>,
}

/// What became of the records.
#[derive(Debug, Default)]
pub struct Told {
    written: AtomicU64,
    /// Beyond the rate.
    too_many: AtomicU64,
    /// The writer was too slow.
    too_fast: AtomicU64,
    /// The file could not be written.
    failed: AtomicU64,
    error: OnceLock<String>,
}

/// Why records can't be written.
#[derive(Debug, Error)]
pub enum RecordsError {
    /// The file can't be opened.
    #[error("[records] file: can't write {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There can be no thread.
    #[error("the thread that writes records can't be started: {0}")]
    Thread(std::io::Error),
}

impl Recorder {
    /// Opens the file, if there is one, and starts the thread that writes. None where nothing of it is wanted.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn start(config: &RecordsConfig) -> Result<Option<Self>, RecordsError> {
        if !config.is_on() {
            return Ok(None);
        }
        let told = Arc::new(Told::default());
        let jobs = match &config.file {
            None => None,
            Some(path) => {
                let opened = File::open(path, config.size);
                let file = opened.map_err(|source| RecordsError::File {
                    path: path.clone(),
                    source,
                })?;
                let (jobs, next) = sync_channel(WAITING);
                let (told, config) = (Arc::clone(&told), config.clone());
                std::thread::Builder::new()
                    .name("records".to_owned())
                    .spawn(move || writer::work(&next, file, &config, &told))
                    .map_err(RecordsError::Thread)?;
                Some(jobs)
            }
        };
        Ok(Some(Self {
            config: config.clone(),
            start: RandomState::new().hash_one(0) as u32,
            next: AtomicU64::new(1),
            pace: Counters::new(1),
            jobs,
            told,
        }))
    }

    /// The id of the next decision.
    pub fn next_id(&self) -> DecisionId {
        DecisionId {
            start: self.start,
            number: self.next.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// The name of the header field that shows ids.
    pub fn id_header(&self) -> Option<&str> {
        self.config.id_header.as_deref()
    }

    /// Whether the decision on this request is to be recorded. One beyond the rate is counted.
    pub fn wants(&self, request: &PolicyRequest, now: Instant) -> bool {
        if self.jobs.is_none() {
            return false;
        }
        let share = self.config.share;
        if share != Share::ALL && !share.holds(request.call_id_bytes()) {
            return false;
        }
        let rate = self.config.per_second;
        let is_within = self.pace.admits(f64::from(rate), rate, now);
        if !is_within {
            self.told.too_many.fetch_add(1, Ordering::Relaxed);
        }
        is_within
    }

    /// Hands a decision to the writer, if there is room.
    pub fn write(
        &self,
        id: DecisionId,
        time: SystemTime,
        tenant: &Arc<str>,
        request: &PolicyRequest,
        policies: Vec<Asking>,
        outcome: String,
    ) {
        let Some(jobs) = &self.jobs else {
            return;
        };
        let job = Job {
            id,
            time,
            tenant: Arc::clone(tenant),
            request: request.clone(),
            policies,
            outcome,
        };
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = jobs.try_send(job) {
            self.told.too_fast.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What became of the records.
    pub fn told(&self) -> &Told {
        &self.told
    }
}

impl Told {
    /// Records in the file.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Why, and how many decisions were not written down that were in the share.
    pub fn lost(&self) -> [(&'static str, u64); 3] {
        [
            ("rate", self.too_many.load(Ordering::Relaxed)),
            ("queue", self.too_fast.load(Ordering::Relaxed)),
            ("error", self.failed.load(Ordering::Relaxed)),
        ]
    }

    /// The first error of the file.
    pub fn error(&self) -> Option<&str> {
        self.error.get().map(String::as_str)
    }
}

#[cfg(test)]
mod tests;
