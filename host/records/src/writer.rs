//! The thread that writes records.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_config::RecordsConfig;
use portcullis_policy::DecisionId;
use portcullis_text::rfc3339;
use serde::Serialize;

use portcullis_request::Request;

use super::decision::Decision;
use super::file::{File, Flushed};
use super::mask::Mask;
use super::record::{Asking, Kind, Record};
use super::told::Told;

/// How long records are gathered before they are written.
pub(super) const PAUSE: Duration = Duration::from_millis(200);

/// Interval of the checks whether the file has been removed, while there is nothing to write.
pub(super) const IDLE: Duration = Duration::from_secs(5);

/// Least time between two log lines about a file that cannot be written.
const BETWEEN_LINES: Duration = Duration::from_secs(60);

/// One decision to be written.
#[derive(Debug)]
pub(super) struct Job {
    id: DecisionId,
    /// Number of the call of `on-failure`; 0 for a decision.
    call: usize,
    time: SystemTime,
    tenant: Arc<str>,
    request: Request,
    policies: Vec<Asking>,
    outcome: String,
    /// Memory that the decision takes.
    bytes: usize,
}

/// A line of bounded length.
pub(super) struct Line {
    bytes: Vec<u8>,
    most: usize,
}

/// Error for a record that is too long for a line.
struct TooLong;

impl Job {
    pub(super) fn of(decision: Decision<'_>, call: usize, bytes: usize) -> Self {
        Self {
            id: decision.id,
            call,
            time: decision.time,
            tenant: Arc::clone(decision.tenant),
            request: decision.request.clone(),
            policies: decision.policies,
            outcome: decision.outcome.to_string(),
            bytes,
        }
    }

    /// Returns the memory of a decision in the queue, in bytes.
    pub(super) fn bytes(decision: &Decision<'_>) -> usize {
        let policies = decision.policies.iter().map(Asking::bytes);
        size_of::<Self>() + decision.request.bytes() + policies.sum::<usize>() + decision.tape_bytes
    }
}

/// Writes records until all senders are gone.
pub(super) fn work(next: &Receiver<Job>, mut file: File, mut line: Line, mask: &Mask, told: &Told) {
    let mut flushed = Instant::now();
    let mut wait = IDLE;
    loop {
        match next.recv_timeout(wait) {
            Ok(job) => {
                let bytes = job.bytes;
                match line.write(record(job, mask)) {
                    Ok(()) => file.gather(&line.bytes),
                    Err(TooLong) => {
                        told.too_long.fetch_add(1, Ordering::Relaxed);
                    }
                }
                told.waiting.fetch_sub(bytes, Ordering::Relaxed);
                wait = PAUSE;
            }
            Err(RecvTimeoutError::Timeout) => wait = IDLE,
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if file.is_due() || flushed.elapsed() >= PAUSE {
            let done = file.flush();
            tell(told, &file, done);
            flushed = Instant::now();
        }
    }
    let done = file.flush();
    tell(told, &file, done);
}

/// Updates the statistics, and logs changes of the file's state.
pub(super) fn tell(told: &Told, file: &File, flushed: Flushed) {
    let Flushed {
        written,
        lost,
        error,
    } = flushed;
    told.written.fetch_add(written, Ordering::Relaxed);
    told.failed.fetch_add(lost, Ordering::Relaxed);
    let path = file.path().display();
    let mut trouble = told.trouble.lock();
    match error {
        Some(error) => {
            trouble.error = Some(format!("{path}: {error}"));
            // On a nearly full disk, some writes fail and some succeed. This is reported as one error.
            let is_early = trouble
                .told_at
                .is_some_and(|at| at.elapsed() < BETWEEN_LINES);
            if !is_early {
                trouble.told_at = Some(Instant::now());
                trouble.is_told = true;
                tracing::error!(
                    event = "records_failed",
                    file = %path,
                    %error,
                    "records cannot be written; the host runs without them"
                );
            }
        }
        None if written > 0 && trouble.error.take().is_some() && trouble.is_told => {
            trouble.is_told = false;
            let lost = told.failed.load(Ordering::Relaxed);
            tracing::info!(
                event = "records_resumed",
                file = %path,
                lost,
                "records are written again"
            );
        }
        None => {}
    }
}

impl Line {
    pub(super) fn new(config: &RecordsConfig) -> Self {
        Self {
            bytes: Vec::new(),
            // The limit includes the line end, and the file holds at least one line.
            most: config
                .line
                .min(usize::try_from(config.size).unwrap_or(usize::MAX))
                - 1,
        }
    }

    /// What was written.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Formats the line of this record, without the queries of policies if it would be too long.
    fn write(&mut self, mut record: Record) -> Result<(), TooLong> {
        if self.try_write(&record).is_ok() {
            return Ok(());
        }
        record.policies.iter_mut().for_each(Asking::cut_off);
        self.try_write(&record).map_err(|_| TooLong)
    }

    pub(super) fn try_write(&mut self, record: &impl Serialize) -> serde_json::Result<()> {
        self.bytes.clear();
        serde_json::to_writer(self, record)
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.most - self.bytes.len() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn record(job: Job, mask: &Mask) -> Record {
    let Job {
        id,
        call,
        time,
        tenant,
        request,
        mut policies,
        outcome,
        bytes: _,
    } = job;
    policies.iter_mut().for_each(|asking| mask.asking(asking));
    let (text, body_bytes) = mask.request(&request);
    let (text, encoded) = match String::from_utf8(text) {
        Ok(text) => (Some(text), None),
        Err(error) => (None, Some(STANDARD.encode(error.as_bytes()))),
    };
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let arrival = &request.arrival;
    Record {
        kind: match call {
            0 => Kind::Decision,
            _ => Kind::Failure,
        },
        id: id.to_string(),
        call,
        time: rfc3339(time),
        time_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        tenant: tenant.to_string(),
        source: arrival.source,
        local: arrival.local,
        transport: arrival.transport.to_string(),
        request: text,
        request_base64: encoded,
        body_bytes,
        policies,
        outcome,
    }
}
