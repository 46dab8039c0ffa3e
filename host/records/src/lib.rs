//! Decisions that are written down: which, how, and by whom; and [`replay`], which puts recorded or captured requests to a policy again.
//!
//! A thread of its own writes the files, and a worker never waits for it. This crate knows neither sockets nor tenants.

#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

mod decision;
mod file;
mod mask;
mod record;
pub mod replay;
mod told;
mod writer;

use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Instant;

use portcullis_config::RecordsConfig;
use portcullis_policy::{DecisionId, Share, ShareKey};
use thiserror::Error;

use portcullis_rate as pace;
use portcullis_rate::{Active, Clock, Due, Seen};
use portcullis_request::Request;

pub use decision::Decision;
pub use mask::Mask;
pub use record::{Asking, Change, Decided, Question, Record};
pub use told::Told;

use file::File;
use writer::Job;

/// Records that may wait for the writer, if they are small. What comes when there is no room is counted.
const WAITING: usize = 4096;

/// Gives decisions their ids, chooses those that are recorded, and takes them to the thread that writes.
#[derive(Debug)]
pub struct Recorder {
    config: RecordsConfig,
    start: u32,
    next: AtomicU64,
    pace: Pace,
    /// Which dialogs are in the share.
    share_key: ShareKey,
    jobs: Option<SyncSender<Job>>,
    told: Arc<Told>,
}

/// How many records a second there are.
#[derive(Debug)]
struct Pace {
    clock: Clock,
    due: Due,
    /// Tenants.
    active: Active,
}

/// What one tenant has had of the records.
#[derive(Debug, Default)]
pub struct Part {
    seen: Seen,
    due: Due,
    due_in_all: Due,
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
            pace: Pace::new(),
            share_key: ShareKey::random(),
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
    ///
    /// `part` is that of the request's tenant. Each tenant that is heard is sure of an equal part of the rate, however many requests
    /// others have.
    pub fn wants(&self, request: &Request, part: &Part, now: Instant) -> bool {
        if self.jobs.is_none() {
            return false;
        }
        let share = self.config.share;
        if share != Share::ALL && !share.holds(request.call_id_bytes(), &self.share_key) {
            return false;
        }
        let is_within = self
            .pace
            .admits(part, self.config.per_second, self.config.per_tenant, now);
        if !is_within {
            self.told.too_many.fetch_add(1, Ordering::Relaxed);
        }
        is_within
    }

    /// Hands a decision to the writer, if there is room.
    pub fn write(&self, decision: Decision<'_>) {
        let Some(jobs) = &self.jobs else {
            return;
        };
        let bytes = Job::bytes(&decision);
        let waiting = self.told.waiting.fetch_add(bytes, Ordering::Relaxed);
        // Nothing is copied for which there is no room.
        let is_taken = waiting.saturating_add(bytes) <= self.config.queue
            && jobs.try_send(Job::of(decision, bytes)).is_ok();
        if !is_taken {
            self.told.waiting.fetch_sub(bytes, Ordering::Relaxed);
            self.told.too_fast.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What became of the records.
    pub fn told(&self) -> &Told {
        &self.told
    }
}

impl Pace {
    fn new() -> Self {
        Self {
            clock: Clock::new(),
            due: Due::default(),
            active: Active::default(),
        }
    }

    /// Takes one record of a tenant.
    fn admits(&self, part: &Part, per_second: u32, per_tenant: Option<u32>, now: Instant) -> bool {
        let now = self.clock.at(now);
        self.active.meet(&part.seen, now);
        let second = |each: u64| each.max(pace::SECOND);
        if let Some(most) = per_tenant {
            let each = pace::each(most);
            if !part.due_in_all.take(now, each, second(each)) {
                return false;
            }
        }
        let each = pace::each(per_second);
        let part_each = each.saturating_mul(self.active.count(now));
        if part.due.take(now, part_each, second(part_each)) {
            self.due.charge(now, each);
            return true;
        }
        self.due.take(now, each, second(each))
    }
}

#[cfg(test)]
mod tests;
