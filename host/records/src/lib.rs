//! Records of decisions, and [`replay`], which evaluates recorded or captured requests again.
//!
//! The files are written by a thread of its own, and no worker waits for it. This crate does not depend on sockets or on the set of
//! tenants.

#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

pub mod calls;
mod decision;
mod file;
#[cfg(any(test, feature = "invariants"))]
pub mod invariants;
mod mask;
mod record;
pub mod replay;
mod stats;
mod trace_context;
mod writer;

use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use portcullis_config::RecordsConfig;
use portcullis_policy::{DecisionId, Share, ShareKey};
use thiserror::Error;

use portcullis_rate as pace;
use portcullis_rate::{Active, Clock, Due, Seen};
use portcullis_request::Request;

pub use decision::Decision;
pub use mask::Mask;
pub use record::{Asking, Change, Decided, Kind, Question, Record, Sink};
pub use stats::RecordStats;
pub use trace_context::{TraceContext, header_of};

use calls::Calls;
use decision::Job;
pub use file::{File as LineFile, Flushed};

use file::File;
use writer::{Output, Writer};

/// Assigns ids to decisions, selects those to be recorded, and passes them to the writer's thread.
#[derive(Debug)]
pub struct Recorder {
    config: RecordsConfig,
    start: u32,
    next: AtomicU64,
    pace: Pace,
    /// Key that selects the dialogs in the share.
    share_key: ShareKey,
    writer: Option<Writer<Job>>,
    stats: Arc<RecordStats>,
    calls: Option<Calls>,
}

/// Rate limit of records.
#[derive(Debug)]
struct Pace {
    clock: Clock,
    due: Due,
    /// Number of tenants with recorded traffic.
    active: Active,
}

/// The records of one tenant, counted for its rate limit.
#[derive(Debug, Default)]
pub struct Part {
    seen: Seen,
    due: Due,
    due_in_all: Due,
}

/// Why records cannot be written.
#[derive(Debug, Error)]
pub enum RecordsError {
    /// The file cannot be opened.
    #[error("[records] file: cannot write {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The file of call records cannot be opened.
    #[error("[records] calls: cannot write {path}: {source}")]
    Calls {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The thread cannot be started.
    #[error("the thread that writes records cannot be started: {0}")]
    Thread(std::io::Error),
}

impl Recorder {
    /// Opens the file, if one is configured, and starts the thread. Returns `None` if neither records nor ids are configured.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn start(config: &RecordsConfig) -> Result<Option<Self>, RecordsError> {
        Self::start_with(config, None)
    }

    /// The same. The sink gets each decision, whether or not there is a file.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn start_with(
        config: &RecordsConfig,
        sink: Option<Sink>,
    ) -> Result<Option<Self>, RecordsError> {
        if !config.is_on() {
            return Ok(None);
        }
        let stats = Arc::new(RecordStats::default());
        // One for both files: a user has the same pseudonym in both.
        let mask = Mask::new(config);
        let calls = match &config.calls {
            None => None,
            Some(path) => {
                let opened = File::open(path, config.size);
                let file = opened.map_err(|source| RecordsError::Calls {
                    path: path.clone(),
                    source,
                })?;
                let calls = Calls::start(file, config, mask.clone());
                Some(calls.map_err(RecordsError::Thread)?)
            }
        };
        let file = match &config.file {
            None => None,
            Some(path) => {
                let opened = File::open(path, config.size);
                let file = opened.map_err(|source| RecordsError::File {
                    path: path.clone(),
                    source,
                })?;
                Some(file)
            }
        };
        let writer = match file.is_some() || sink.is_some() {
            false => None,
            true => {
                let output = Output { file, sink };
                let writer = Writer::start("records", output, config, mask, Arc::clone(&stats));
                Some(writer.map_err(RecordsError::Thread)?)
            }
        };
        Ok(Some(Self {
            config: config.clone(),
            start: RandomState::new().hash_one(0) as u32,
            next: AtomicU64::new(1),
            pace: Pace::new(),
            share_key: ShareKey::random(),
            writer,
            stats,
            calls,
        }))
    }

    /// Returns the id of the next decision.
    pub fn next_id(&self) -> DecisionId {
        DecisionId {
            start: self.start,
            number: self.next.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// Returns the name of the header field with the id.
    pub fn id_header(&self) -> Option<&str> {
        self.config.id_header.as_deref()
    }

    /// Returns the name of the header field that carries the context of a trace.
    pub fn trace_header(&self) -> Option<&str> {
        self.config.trace_header.as_deref()
    }

    /// Returns the name of the header field that carries the context of a trace, and its value for a request that is relayed after a decision
    /// that is recorded.
    pub fn traceparent(&self, request: &Request, id: DecisionId) -> Option<(&str, String)> {
        let name = self.config.trace_header.as_deref()?;
        let given = request.header(name);
        let call_id = request.call_id();
        let context = TraceContext::new(given.as_deref(), &call_id, &id.to_string());
        Some((name, context.traceparent()))
    }

    /// Whether the decision on this request is to be recorded. Decisions above the rate are counted as lost.
    ///
    /// `part` is that of the request's tenant. Each tenant with recorded traffic is guaranteed an equal part of the rate, whatever the
    /// number of requests of others.
    pub fn wants(&self, request: &Request, part: &Part, now: Instant) -> bool {
        if self.writer.is_none() {
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
            self.stats.too_many.fetch_add(1, Ordering::Relaxed);
        }
        is_within
    }

    /// Passes a decision to the writer, if the queue has room.
    pub fn write(&self, decision: Decision<'_>) {
        self.write_call(decision, 0);
    }

    /// Passes a call of `on-failure` to the writer, if the queue has room: the call of this number, from 1, for the decision of this id. It is
    /// for decisions that have been recorded themselves.
    pub fn write_failure(&self, failure: Decision<'_>, call: usize) {
        self.write_call(failure, call.max(1));
    }

    fn write_call(&self, decision: Decision<'_>, call: usize) {
        let Some(writer) = &self.writer else {
            return;
        };
        writer.write(Job::bytes(&decision), || Job::of(decision, call));
    }

    /// The call records; `None` without `calls` in `[records]`.
    pub fn calls(&self) -> Option<&Calls> {
        self.calls.as_ref()
    }

    /// Returns the statistics of records.
    pub fn stats(&self) -> &RecordStats {
        &self.stats
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

    /// Takes one record from the rate of a tenant.
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
