//! Decides when a changed file is complete and may be read.
//!
//! Three things distinguish a complete file from one that is being written:
//! - [`Writers`]: file events report that a writer has it open, has closed it, or has renamed another file to its name;
//! - [`Settling`]: the file does not change for a while, whose length depends on these events;
//! - [`Emptied`]: its content does not become empty, unless that lasts.
//!
//! [`FileWatch`] combines the first two for one file.

mod events;
mod watch;
mod writer;
mod writers;

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use portcullis_file_id::FileId;

pub use watch::FileWatch;
pub(crate) use writer::Writer;
pub(crate) use writers::Writers;

/// How long a change waits while a writer has the file open.
const OPEN: Duration = Duration::from_secs(60);

/// How long a change waits on file systems without events (NFS, some overlays).
const BLIND: Duration = Duration::from_secs(2);

/// How long an event may take to arrive.
const ON_ITS_WAY: Duration = Duration::from_millis(50);

/// After this time, the log reports that a file is still being written.
const OVERDUE: Duration = Duration::from_secs(5);

/// What a path leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum FileState {
    /// Nothing.
    #[default]
    Absent,
    /// A directory, or anything else that is not a regular file.
    Other,
    /// A file.
    File(Fingerprint),
}

/// Fingerprint of a file: detects a change without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    id: FileId,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// How long a changed file must stay unchanged before the change takes effect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SettleTimes {
    /// For a file that was renamed to this name.
    pub(crate) whole: Duration,
    /// For a file whose writer has closed it. Another writer may follow.
    pub(crate) in_place: Duration,
    /// For a file that is missing or empty.
    pub(crate) nothing: Duration,
}

/// Waits until a changed file stays unchanged.
#[derive(Debug)]
pub(crate) struct Settling<S> {
    waiting: Option<Waiting<S>>,
}

#[derive(Debug)]
struct Waiting<S> {
    state: S,
    /// Since when the file has been in its current state.
    since: Instant,
    /// Since when the file has differed from the state in use.
    begun: Instant,
    is_told: bool,
}

/// What to do about a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing has changed.
    Same,
    /// Check again, after this time at the latest.
    Wait(Duration),
    /// Use the state.
    Take,
}

/// Waits until content that has become empty stays so.
#[derive(Debug, Default)]
pub(crate) struct Emptied {
    since: Option<Instant>,
}

/// Whether new content may replace the current one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// Yes: it is not empty.
    None,
    /// No: it has just become empty. Log it, and read again.
    Begins,
    /// No: it became empty a short time ago. Read again.
    Goes,
    /// Yes: it has been empty for long enough.
    Over,
}

impl FileState {
    pub(crate) fn of(path: &Path) -> Self {
        match std::fs::metadata(path) {
            Err(_) => Self::Absent,
            Ok(metadata) if !metadata.is_file() => Self::Other,
            Ok(metadata) => Self::File(Fingerprint {
                id: FileId::of(&metadata),
                size: metadata.size(),
                modified: (metadata.mtime(), metadata.mtime_nsec()),
                changed: (metadata.ctime(), metadata.ctime_nsec()),
            }),
        }
    }

    /// Returns how long this state must stay unchanged to replace `before`.
    pub(crate) fn quiet(&self, before: &Self, writer: Writer, times: &SettleTimes) -> Duration {
        let Self::File(print) = self else {
            return times.nothing;
        };
        let is_same_file = |before: &Fingerprint| print.id == before.id;
        match writer {
            Writer::Open => OPEN,
            _ if print.size == 0 => times.nothing,
            Writer::Moved => times.whole,
            Writer::Closed => times.in_place,
            // A link to another file, or an event that has not arrived yet.
            Writer::Unheard => match before {
                Self::File(before) if is_same_file(before) => times.in_place,
                Self::File(_) | Self::Absent | Self::Other => times.whole.max(ON_ITS_WAY),
            },
            Writer::Unknown if print.is_older_than(BLIND) => times.whole,
            Writer::Unknown => times.in_place.max(BLIND),
        }
    }
}

impl Fingerprint {
    /// Compares the modification time; a time in the future is ignored.
    fn is_older_than(&self, age: Duration) -> bool {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.map_or(0, |now| now.as_secs() as i64);
        now - self.modified.0 > age.as_secs() as i64
    }
}

impl<S> Default for Settling<S> {
    fn default() -> Self {
        Self { waiting: None }
    }
}

impl<S: PartialEq> Settling<S> {
    /// Returns what to do about the state `seen` now, while `taken` is in use. The state must stay unchanged for `quiet`.
    pub(crate) fn step(
        &mut self,
        state: S,
        taken: &S,
        quiet: impl FnOnce(&S) -> Duration,
        now: Instant,
    ) -> Step {
        if state == *taken {
            self.waiting = None;
            return Step::Same;
        }
        let waiting = match self.waiting.take() {
            Some(waiting) if waiting.state == state => waiting,
            other => Waiting {
                state,
                since: now,
                begun: other.as_ref().map_or(now, |other| other.begun),
                is_told: other.is_some_and(|other| other.is_told),
            },
        };
        let left =
            quiet(&waiting.state).saturating_sub(now.saturating_duration_since(waiting.since));
        if left.is_zero() {
            return Step::Take;
        }
        self.waiting = Some(waiting);
        Step::Wait(left)
    }

    /// Returns how long a change has been waiting, if that should be logged and has not been yet.
    pub(crate) fn overdue(&mut self, now: Instant) -> Option<Duration> {
        let waiting = self.waiting.as_mut()?;
        let waited = now.saturating_duration_since(waiting.begun);
        let is_news = waited >= OVERDUE && !waiting.is_told;
        waiting.is_told |= is_news;
        is_news.then_some(waited)
    }
}

impl Emptied {
    /// Whether new content may replace the current one. `is_emptied`: the new content is empty and the current one is not.
    pub(crate) fn hold(&mut self, is_emptied: bool, settle: Duration, now: Instant) -> Hold {
        if !is_emptied {
            self.since = None;
            return Hold::None;
        }
        match self.since {
            Some(since) if now.saturating_duration_since(since) >= settle => {
                self.since = None;
                Hold::Over
            }
            Some(_) => Hold::Goes,
            None if settle.is_zero() => Hold::Over,
            None => {
                self.since = Some(now);
                Hold::Begins
            }
        }
    }
}

#[cfg(test)]
mod tests;
