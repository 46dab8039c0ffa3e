//! Detects when a file has changed and is complete: rewritten, replaced by a rename, or reached through a symbolic link that was changed.
//!
//! An event only triggers a check; identity, size and times of the file decide. Slow polling covers file systems without events (NFS, some
//! overlays).

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::timeout;

use super::events::EVENTS;
use super::{FileState, SettleTimes, Settling, Step, Writer, Writers};

/// Polling interval while events arrive; longer for many files, see [`SLOW_SHARE`].
const SLOW_LOOK: Duration = Duration::from_secs(2);
/// Polling interval without events; longer for many files, see [`FAST_SHARE`].
const FAST_LOOK: Duration = Duration::from_millis(250);
/// A check that follows the path anew took 80 to 100 µs of CPU time with 1,000 files. With events, most checks only read the metadata of the file, and
/// one file is checked each 10 ms. Without events, every check follows the path: one each millisecond takes a tenth of a processor.
const SLOW_SHARE: Duration = Duration::from_millis(10);
const FAST_SHARE: Duration = Duration::from_millis(1);
/// Number of checks without an event after which the directories on the path are followed anew: a directory above them may have been replaced.
const QUIET_CHECKS: u32 = 10;
/// Longest time to wait before a file that is settling is checked again.
const WAIT: Duration = Duration::from_secs(1);

/// For a file whose format shows whether it is complete, such as a policy: an incomplete one cannot be loaded.
const QUICK: SettleTimes = SettleTimes {
    whole: Duration::from_millis(20),
    in_place: Duration::from_millis(20),
    nothing: Duration::from_secs(5),
};

/// For a file whose content does not show whether it is complete.
const UNHURRIED: SettleTimes = SettleTimes {
    whole: Duration::ZERO,
    in_place: Duration::from_secs(2),
    nothing: Duration::from_secs(2),
};

/// Watches one file.
pub struct FileWatch {
    path: PathBuf,
    times: SettleTimes,
    seen: FileState,
    was_in_place: bool,
    settling: Settling<FileState>,
    writers: Writers,
    hints: Receiver<()>,
    /// Whether the path may lead through other directories than before.
    is_way_unknown: bool,
    /// Number of checks since the last event.
    quiet_checks: u32,
}

impl FileWatch {
    /// Watches a file whose format shows whether it is complete: a change is reported as soon as its writer has closed the file. The
    /// current state is not a change.
    pub fn quick(path: &Path) -> Self {
        Self::new(path, QUICK)
    }

    /// Watches a file whose content does not show whether it is complete: a change that is written in place is reported when the file has
    /// stayed the same for two seconds. The current state is not a change.
    pub fn patient(path: &Path) -> Self {
        Self::new(path, UNHURRIED)
    }

    fn new(path: &Path, times: SettleTimes) -> Self {
        let (hint, hints) = channel(1);
        let mut watch = Self {
            path: path.to_owned(),
            times,
            seen: FileState::Absent,
            was_in_place: false,
            settling: Settling::default(),
            writers: Writers::new(Some(hint)),
            hints,
            is_way_unknown: true,
            quiet_checks: 0,
        };
        watch.follow();
        watch.seen = FileState::of(path);
        watch
    }

    /// Returns when the file has changed, appeared or disappeared, and is complete. Cancel-safe.
    pub async fn changed(&mut self) {
        loop {
            self.follow();
            let mut state = FileState::of(&self.path);
            if state != self.seen {
                self.is_way_unknown = true;
                self.follow();
                state = FileState::of(&self.path);
            }
            let writer = self.writers.state(&self.path);
            let (seen, times) = (self.seen, self.times);
            let quiet = |state: &FileState| state.quiet(&seen, writer, &times);
            let now = Instant::now();
            let look = match self.settling.step(state, &seen, quiet, now) {
                Step::Take => {
                    self.was_in_place =
                        writer != Writer::Moved && matches!(state, FileState::File(_));
                    self.seen = state;
                    return;
                }
                Step::Wait(left) => left.min(WAIT),
                Step::Same => interval(self.writers.is_watching(), EVENTS.followers()),
            };
            if let Some(waited) = self.settling.overdue(now) {
                tracing::warn!(
                    event = "file_not_whole",
                    file = %self.path.display(),
                    seconds = waited.as_secs(),
                    "file is being written or missing, not read until it is complete; the previous content stays"
                );
            }
            let is_hinted = timeout(look, self.hints.recv()).await.is_ok();
            self.quiet_checks = if is_hinted { 0 } else { self.quiet_checks + 1 };
            self.is_way_unknown |= is_hinted || self.quiet_checks.is_multiple_of(QUIET_CHECKS);
        }
    }

    /// Follows the directories on the path, if they may have changed. Most of the cost of a check is spent here.
    fn follow(&mut self) {
        if self.is_way_unknown || !self.writers.is_watching() {
            self.writers.follow([self.path.as_path()]);
            self.is_way_unknown = false;
        }
    }

    /// Whether the file changes within this time.
    pub async fn changes_within(&mut self, time: Duration) -> bool {
        timeout(time, self.changed()).await.is_ok()
    }

    /// Whether the last change was written in place and not renamed into place, so that more may follow.
    pub fn was_in_place(&self) -> bool {
        self.was_in_place
    }
}

/// Returns how long to wait for an event before checking a file that has not changed, one of `files`.
fn interval(has_events: bool, files: usize) -> Duration {
    let files = u32::try_from(files).unwrap_or(u32::MAX);
    match has_events {
        true => SLOW_LOOK.max(SLOW_SHARE.saturating_mul(files)),
        false => FAST_LOOK.max(FAST_SHARE.saturating_mul(files)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn many_files_are_polled_less_often() {
        assert_eq!(interval(true, 1), SLOW_LOOK);
        assert_eq!(interval(true, 200), SLOW_LOOK);
        assert_eq!(interval(true, 1000), Duration::from_secs(10));
        assert_eq!(interval(true, 10_000), Duration::from_secs(100));
        assert_eq!(interval(false, 250), FAST_LOOK);
        assert_eq!(interval(false, 1000), Duration::from_secs(1));
        assert_eq!(interval(false, 10_000), Duration::from_secs(10));
    }

    /// One thread and one instance for all files: the system permits 128 instances per user by default.
    #[tokio::test]
    async fn thousands_of_files_are_watched_and_a_change_is_detected_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = |n: usize| {
            let own = folder.path().join(format!("{}", n % 100));
            std::fs::create_dir_all(&own).unwrap();
            own.join(format!("{n}.wasm"))
        };
        let files: Vec<_> = (0..2000).map(file).collect();
        let mut watches: Vec<_> = files
            .iter()
            .map(|file| {
                std::fs::write(file, "first").unwrap();
                FileWatch::new(file, TIMES)
            })
            .collect();
        assert!(watches.iter().all(|watch| watch.writers.is_watching()));
        for n in [0, 1999, 777] {
            let beside = folder.path().join("next");
            std::fs::write(&beside, "second!").unwrap();
            std::fs::rename(&beside, &files[n]).unwrap();
            // Only an event can wake the watch here: the next poll is seconds away.
            let changed = watches[n].hints.recv();
            let hint = timeout(Duration::from_secs(60), changed).await;
            assert_eq!(hint.expect("there is an event"), Some(()));
            noticed(&mut watches[n]).await;
        }
    }

    const TIMES: SettleTimes = SettleTimes {
        whole: Duration::from_millis(20),
        in_place: Duration::from_millis(20),
        nothing: Duration::from_millis(20),
    };

    /// Waits until the watch detects a change, with a limit far above the usual time.
    async fn noticed(watch: &mut FileWatch) {
        timeout(Duration::from_secs(60), watch.changed())
            .await
            .expect("the change is detected");
    }

    #[tokio::test]
    async fn rewriting_renaming_removing_and_creating_are_detected() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("policy.wasm");
        let mut watch = FileWatch::new(&file, TIMES);
        assert!(watch.writers.is_watching());
        std::fs::write(&file, "first").unwrap();
        noticed(&mut watch).await;
        std::fs::write(&file, "second").unwrap();
        noticed(&mut watch).await;
        let beside = folder.path().join("next");
        std::fs::write(&beside, "third!").unwrap();
        std::fs::rename(&beside, &file).unwrap();
        noticed(&mut watch).await;
        std::fs::remove_file(&file).unwrap();
        noticed(&mut watch).await;
        assert_eq!(watch.seen, FileState::Absent);
        std::fs::write(&file, "fourth").unwrap();
        noticed(&mut watch).await;
        assert_eq!(watch.seen, FileState::of(&file));
    }

    #[tokio::test]
    async fn a_link_is_followed_to_its_target_and_beyond() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for release in ["one", "two"] {
            std::fs::create_dir(at(release)).unwrap();
            std::fs::write(at(release).join("policy.wasm"), release).unwrap();
        }
        // As Kubernetes lays out a ConfigMap.
        symlink("one", at("..data")).unwrap();
        symlink("..data/policy.wasm", at("policy.wasm")).unwrap();
        let mut watch = FileWatch::new(&at("policy.wasm"), TIMES);
        std::fs::write(at("one/policy.wasm"), "one, rewritten").unwrap();
        noticed(&mut watch).await;
        symlink("two", at("..tmp")).unwrap();
        std::fs::rename(at("..tmp"), at("..data")).unwrap();
        noticed(&mut watch).await;
        std::fs::write(at("two/policy.wasm"), "two, rewritten").unwrap();
        noticed(&mut watch).await;
    }

    #[tokio::test]
    async fn a_directory_that_is_created_later_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("later/policy.wasm");
        let mut watch = FileWatch::new(&file, TIMES);
        std::fs::create_dir(folder.path().join("later")).unwrap();
        std::fs::write(&file, "now").unwrap();
        noticed(&mut watch).await;
        std::fs::write(&file, "and again").unwrap();
        noticed(&mut watch).await;
        assert!(watch.writers.is_watching());
    }

    #[tokio::test]
    async fn a_file_that_is_open_for_writing_is_not_read_until_it_is_closed() {
        use std::io::Write as _;

        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("policy.wasm");
        std::fs::write(&file, "before").unwrap();
        let mut watch = FileWatch::new(&file, TIMES);
        let mut writer = std::fs::File::create(&file).unwrap();
        for piece in ["one", "two", "three"] {
            writer.write_all(piece.as_bytes()).unwrap();
            // Much longer than the time to settle after the file is closed.
            let changed = watch.changes_within(Duration::from_millis(200)).await;
            assert!(!changed, "{piece}");
        }
        drop(writer);
        noticed(&mut watch).await;
        assert!(watch.was_in_place());
        let next = folder.path().join("next");
        std::fs::write(&next, "after").unwrap();
        std::fs::rename(&next, &file).unwrap();
        noticed(&mut watch).await;
        assert!(!watch.was_in_place());
    }

    #[tokio::test]
    async fn a_file_that_is_missing_for_a_moment_has_not_changed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("policy.wasm");
        let aside = folder.path().join("aside");
        std::fs::write(&file, "before").unwrap();
        let times = SettleTimes {
            nothing: Duration::from_secs(3600),
            ..TIMES
        };
        let mut watch = FileWatch::new(&file, times);
        std::fs::rename(&file, &aside).unwrap();
        assert!(!watch.changes_within(Duration::from_millis(200)).await);
        std::fs::create_dir(&file).unwrap();
        assert!(!watch.changes_within(Duration::from_millis(200)).await);
        std::fs::remove_dir(&file).unwrap();
        std::fs::rename(&aside, &file).unwrap();
        noticed(&mut watch).await;
        assert_eq!(watch.seen, FileState::of(&file));
    }
}
