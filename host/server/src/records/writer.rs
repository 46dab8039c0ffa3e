//! The thread that writes records, and its file.

use std::fs::{self, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_policy::DecisionId;

use crate::config::RecordsConfig;
use crate::pipeline::PolicyRequest;
use crate::time::rfc3339;

use super::Told;
use super::mask::Mask;
use super::record::{Asking, Record};

/// How long records wait for more of them before they are in the file.
const PAUSE: Duration = Duration::from_millis(200);

/// One decision on its way to the file.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) id: DecisionId,
    pub(super) time: SystemTime,
    pub(super) tenant: Arc<str>,
    pub(super) request: PolicyRequest,
    pub(super) policies: Vec<Asking>,
    pub(super) outcome: String,
}

/// A file that is put aside when it is full, and begun anew when someone else has put it aside.
#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    most: u64,
    size: u64,
    inode: u64,
    file: BufWriter<fs::File>,
}

impl File {
    /// Opens the file; what is in it stays.
    pub(super) fn open(path: &Path, most: u64) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let metadata = file.metadata()?;
        Ok(Self {
            path: path.to_owned(),
            most,
            size: metadata.len(),
            inode: metadata.ino(),
            file: BufWriter::new(file),
        })
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let length = line.len() as u64 + 1;
        if self.size > 0 && self.size + length > self.most {
            self.put_aside()?;
        }
        self.file.write_all(line)?;
        self.file.write_all(b"\n")?;
        self.size += length;
        Ok(())
    }

    /// What was written is in the file. If the file was moved or removed, the next record goes to a new one.
    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()?;
        let is_there = fs::metadata(&self.path).is_ok_and(|found| found.ino() == self.inode);
        if !is_there {
            *self = Self::open(&self.path, self.most)?;
        }
        Ok(())
    }

    fn put_aside(&mut self) -> io::Result<()> {
        self.file.flush()?;
        let mut aside = self.path.clone().into_os_string();
        aside.push(".1");
        fs::rename(&self.path, aside)?;
        *self = Self::open(&self.path, self.most)?;
        Ok(())
    }
}

/// Writes until nobody sends any more.
pub(super) fn work(next: &Receiver<Job>, mut file: File, config: &RecordsConfig, told: &Told) {
    let mask = Mask::new(config);
    let mut waiting = 0;
    let mut flushed = Instant::now();
    loop {
        let done = match next.recv_timeout(PAUSE) {
            Ok(job) => write(&mut file, job, &mask).inspect(|()| waiting += 1),
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Err(RecvTimeoutError::Disconnected) => break,
        };
        if let Err(error) = done {
            note(told, &file, &error, 1);
        }
        if flushed.elapsed() >= PAUSE {
            flush(&mut file, told, &mut waiting);
            flushed = Instant::now();
        }
    }
    flush(&mut file, told, &mut waiting);
}

/// Puts what waits into the file, and counts it.
fn flush(file: &mut File, told: &Told, waiting: &mut u64) {
    match file.flush() {
        Ok(()) => {
            told.written.fetch_add(*waiting, Ordering::Relaxed);
        }
        Err(error) => note(told, file, &error, *waiting),
    }
    *waiting = 0;
}

fn note(told: &Told, file: &File, error: &io::Error, lost: u64) {
    told.failed.fetch_add(lost, Ordering::Relaxed);
    let text = format!("{}: {error}", file.path.display());
    if told.error.set(text).is_ok() {
        tracing::error!(file = %file.path.display(), %error, "Decision records can't be written; the host goes on without them.");
    }
}

fn write(file: &mut File, job: Job, mask: &Mask) -> io::Result<()> {
    let line = serde_json::to_vec(&record(job, mask))?;
    file.write(&line)
}

fn record(job: Job, mask: &Mask) -> Record {
    let Job {
        id,
        time,
        tenant,
        request,
        mut policies,
        outcome,
    } = job;
    policies.iter_mut().for_each(|asking| mask.asking(asking));
    let (bytes, body_bytes) = mask.request(&request);
    let (text, encoded) = match String::from_utf8(bytes) {
        Ok(text) => (Some(text), None),
        Err(error) => (None, Some(STANDARD.encode(error.as_bytes()))),
    };
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let arrival = &request.arrival;
    Record {
        id: id.to_string(),
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
