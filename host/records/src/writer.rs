//! A thread that writes records as lines of a file.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use portcullis_config::RecordsConfig;
use serde::Serialize;

use crate::file::{File, Flushed};
use crate::mask::Mask;
use crate::record::Sink;
use crate::stats::RecordStats;

/// Most records in a queue. Records above it are counted as lost.
const WAITING: usize = 4096;

/// How long records are gathered before they are written.
const PAUSE: Duration = Duration::from_millis(200);

/// Interval of the checks whether the file has been removed, while there is nothing to write.
const IDLE: Duration = Duration::from_secs(5);

/// Least time between two log lines about a file that cannot be written.
const BETWEEN_LINES: Duration = Duration::from_secs(60);

/// What the thread writes as one line.
pub(crate) trait Job: fmt::Debug + Send + 'static {
    /// Passes the record to the sink, and formats the line.
    ///
    /// # Errors
    /// If the line would be too long.
    fn write(
        self,
        mask: &Mask,
        sink: Option<&Sink>,
        line: Option<&mut Line>,
    ) -> Result<(), TooLong>;
}

/// Where records go.
pub(crate) struct Output {
    pub(crate) file: Option<File>,
    pub(crate) sink: Option<Sink>,
}

impl Output {
    /// Into a file only.
    pub(crate) fn file(file: File) -> Self {
        Self {
            file: Some(file),
            sink: None,
        }
    }
}

/// Passes jobs to the thread. The thread ends when its writer is dropped.
#[derive(Debug)]
pub(crate) struct Writer<J> {
    jobs: SyncSender<Queued<J>>,
    /// Most bytes that wait.
    most: usize,
    stats: Arc<RecordStats>,
}

/// A job in the queue.
#[derive(Debug)]
pub(crate) struct Queued<J> {
    job: J,
    /// Memory that the job takes.
    bytes: usize,
}

/// A line of bounded length.
pub(crate) struct Line {
    bytes: Vec<u8>,
    most: usize,
}

/// Error for a record that is too long for a line.
#[derive(Debug)]
pub(crate) struct TooLong;

impl<J: Job> Writer<J> {
    /// Starts the thread, which counts in `stats`.
    pub(crate) fn start(
        name: &str,
        output: Output,
        config: &RecordsConfig,
        mask: Mask,
        stats: Arc<RecordStats>,
    ) -> io::Result<Self> {
        let (writer, next) = Self::queue(config, Arc::clone(&stats));
        let line = Line::new(config);
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || work(&next, output, line, &mask, &stats))?;
        Ok(writer)
    }

    /// Creates the queue.
    pub(crate) fn queue(
        config: &RecordsConfig,
        stats: Arc<RecordStats>,
    ) -> (Self, Receiver<Queued<J>>) {
        let (jobs, next) = sync_channel(WAITING);
        let writer = Self {
            jobs,
            most: config.queue,
            stats,
        };
        (writer, next)
    }

    /// Passes a job of this many bytes to the thread. A job that has no room is counted as lost. It is not even made if its bytes have
    /// none.
    pub(crate) fn write(&self, bytes: usize, job: impl FnOnce() -> J) {
        let waiting = self.stats.waiting.fetch_add(bytes, Ordering::Relaxed);
        let queued = || Queued { job: job(), bytes };
        let is_taken =
            waiting.saturating_add(bytes) <= self.most && self.jobs.try_send(queued()).is_ok();
        if !is_taken {
            self.stats.waiting.fetch_sub(bytes, Ordering::Relaxed);
            self.stats.too_fast.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Writes records until the sender is gone.
fn work<J: Job>(
    next: &Receiver<Queued<J>>,
    output: Output,
    mut line: Line,
    mask: &Mask,
    stats: &RecordStats,
) {
    let Output { mut file, sink } = output;
    let mut flushed = Instant::now();
    let mut wait = IDLE;
    loop {
        match next.recv_timeout(wait) {
            Ok(Queued { job, bytes }) => {
                let text = file.is_some().then_some(&mut line);
                match job.write(mask, sink.as_ref(), text) {
                    Ok(()) => {
                        if let Some(file) = &mut file {
                            file.gather(&line.bytes);
                        }
                    }
                    Err(TooLong) => {
                        stats.too_long.fetch_add(1, Ordering::Relaxed);
                    }
                }
                stats.waiting.fetch_sub(bytes, Ordering::Relaxed);
                wait = PAUSE;
            }
            Err(RecvTimeoutError::Timeout) => wait = IDLE,
            Err(RecvTimeoutError::Disconnected) => break,
        }
        let Some(file) = &mut file else {
            continue;
        };
        if file.is_due() || flushed.elapsed() >= PAUSE {
            let done = file.flush();
            report(stats, file, done);
            flushed = Instant::now();
        }
    }
    if let Some(file) = &mut file {
        let done = file.flush();
        report(stats, file, done);
    }
}

/// Updates the statistics, and logs changes of the file's state.
fn report(stats: &RecordStats, file: &File, flushed: Flushed) {
    let Flushed {
        written,
        lost,
        error,
    } = flushed;
    stats.written.fetch_add(written, Ordering::Relaxed);
    stats.failed.fetch_add(lost, Ordering::Relaxed);
    let path = file.path().display();
    let mut trouble = stats.trouble.lock();
    match error {
        Some(error) => {
            trouble.error = Some(format!("{path}: {error}"));
            // On a nearly full disk, some writes fail and some succeed. This is reported as one error.
            let is_early = trouble
                .reported_at
                .is_some_and(|at| at.elapsed() < BETWEEN_LINES);
            if !is_early {
                trouble.reported_at = Some(Instant::now());
                trouble.is_reported = true;
                tracing::error!(
                    event = "records_failed",
                    file = %path,
                    %error,
                    "records cannot be written; the host runs without them"
                );
            }
        }
        None if written > 0 && trouble.error.take().is_some() && trouble.is_reported => {
            trouble.is_reported = false;
            let lost = stats.failed.load(Ordering::Relaxed);
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
    fn new(config: &RecordsConfig) -> Self {
        Self {
            bytes: Vec::new(),
            // The limit includes the line end, and the file holds at least one line.
            most: config
                .line
                .min(usize::try_from(config.size).unwrap_or(usize::MAX))
                - 1,
        }
    }

    /// Replaces the text by this record.
    ///
    /// # Errors
    /// If the record is too long.
    pub(crate) fn set(&mut self, record: &impl Serialize) -> Result<(), TooLong> {
        self.bytes.clear();
        // A record can always be formatted, so the only error is that of `Write`.
        serde_json::to_writer(self, record).map_err(|_| TooLong)
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
