//! Tells when a file has changed: rewritten, replaced by a rename, or reached through a symbolic link that was switched.
//!
//! The directories are watched, not the file: a rename puts another file in its place, and a watch on the old one would never
//! hear of it. Each event only asks for a look; the file's identity, size and times decide. A slow look without any event
//! covers file systems that report none (NFS, some overlays).

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::{sleep, timeout};

/// A file is taken for complete when it has not changed for this long.
const QUIET: Duration = Duration::from_millis(20);
/// How often to look when events should come by themselves.
const SLOW_LOOK: Duration = Duration::from_secs(2);
/// How often to look when no events can come.
const FAST_LOOK: Duration = Duration::from_millis(250);
/// Links that lead from one to the next; more are a loop.
const MOST_LINKS: usize = 40;

/// Watches one file.
pub(super) struct FileWatch {
    path: PathBuf,
    seen: Option<Print>,
    directories: Option<Directories>,
    hint: Sender<()>,
    hints: Receiver<()>,
}

impl FileWatch {
    /// Starts to watch. What the file is now counts as seen.
    pub(super) fn new(path: &Path) -> Self {
        let (hint, hints) = channel(1);
        let mut watch = Self {
            path: path.to_owned(),
            seen: None,
            directories: None,
            hint,
            hints,
        };
        watch.follow();
        watch.seen = Print::of(&watch.path);
        watch
    }

    /// Returns when the file has changed, or has come or gone, and has been at rest for a moment.
    pub(super) async fn changed(&mut self) {
        loop {
            let print = self.settled().await;
            self.follow();
            if print != self.seen {
                self.seen = print;
                return;
            }
            let look = if self.directories.is_some() {
                SLOW_LOOK
            } else {
                FAST_LOOK
            };
            let _time_to_look = timeout(look, self.hints.recv()).await;
        }
    }

    /// The file as it is now; if it differs from what was seen, as it is after its writer has come to rest.
    async fn settled(&self) -> Option<Print> {
        let mut print = Print::of(&self.path);
        while print != self.seen {
            sleep(QUIET).await;
            let again = Print::of(&self.path);
            if again == print {
                break;
            }
            print = again;
        }
        print
    }

    /// Watches the directories that lead to the file now.
    fn follow(&mut self) {
        let wanted = directories(&self.path);
        if self
            .directories
            .as_ref()
            .is_some_and(|watched| watched.names == wanted)
        {
            return;
        }
        // The new watch stands before the old one ends, so that nothing is missed between them.
        self.directories = match Directories::watch(wanted, self.hint.clone()) {
            Ok(watched) => Some(watched),
            Err(error) => {
                if self.directories.is_some() {
                    tracing::warn!(file = %self.path.display(), %error, "no events for the policy file: looking {FAST_LOOK:?} apart");
                }
                None
            }
        };
    }
}

/// What tells one state of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Print {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Print {
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// Watched directories, with the identity that each had when the watch began.
struct Directories {
    names: Vec<(PathBuf, u64, u64)>,
    _watcher: RecommendedWatcher,
}

impl Directories {
    fn watch(names: Vec<(PathBuf, u64, u64)>, hint: Sender<()>) -> notify::Result<Self> {
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.is_ok_and(|event| is_reading(event.kind)) {
                return;
            }
            // A hint that is already waiting does for this event too.
            let _waiting = hint.try_send(());
        })?;
        if names.is_empty() {
            return Err(io::Error::from(io::ErrorKind::NotFound).into());
        }
        for (directory, ..) in &names {
            watcher.watch(directory, RecursiveMode::NonRecursive)?;
        }
        Ok(Self {
            names,
            _watcher: watcher,
        })
    }
}

/// The directory that holds the file, and that of every link on the way there; where the way ends early, the last directory.
fn directories(path: &Path) -> Vec<(PathBuf, u64, u64)> {
    let mut found = Vec::new();
    let mut links = 0;
    let mut here = PathBuf::new();
    let mut ahead = steps(&std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
    while let Some(step) = ahead.pop() {
        let next = here.join(&step);
        let target = std::fs::read_link(&next);
        if (ahead.is_empty() || target.is_ok() || !next.exists()) && here != next {
            add(&mut found, &here);
        }
        match target {
            Ok(target) if links < MOST_LINKS => {
                links += 1;
                ahead.extend(steps(&target));
            }
            Ok(_) => break,
            Err(_) if step == ".." => _ = here.pop(),
            Err(_) => here = next,
        }
    }
    found
}

/// The steps of a path, the first one last.
fn steps(path: &Path) -> Vec<OsString> {
    path.components()
        .rev()
        .map(|component| component.as_os_str().to_owned())
        .collect()
}

fn add(found: &mut Vec<(PathBuf, u64, u64)>, directory: &Path) {
    let Ok(metadata) = std::fs::metadata(directory) else {
        return;
    };
    let entry = (directory.to_owned(), metadata.dev(), metadata.ino());
    if !found.contains(&entry) {
        found.push(entry);
    }
}

fn is_reading(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => false,
        EventKind::Access(_) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Waits for the watch to notice; the tests' own limit, far above what it takes.
    async fn noticed(watch: &mut FileWatch) {
        timeout(Duration::from_secs(60), watch.changed())
            .await
            .expect("the change is noticed");
    }

    #[tokio::test]
    async fn rewriting_renaming_removing_and_coming_back_are_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("policy.wasm");
        let mut watch = FileWatch::new(&file);
        assert!(watch.directories.is_some());
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
        assert_eq!(watch.seen, None);
        std::fs::write(&file, "fourth").unwrap();
        noticed(&mut watch).await;
        assert_eq!(watch.seen, Print::of(&file));
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
        let mut watch = FileWatch::new(&at("policy.wasm"));
        std::fs::write(at("one/policy.wasm"), "one, rewritten").unwrap();
        noticed(&mut watch).await;
        symlink("two", at("..tmp")).unwrap();
        std::fs::rename(at("..tmp"), at("..data")).unwrap();
        noticed(&mut watch).await;
        std::fs::write(at("two/policy.wasm"), "two, rewritten").unwrap();
        noticed(&mut watch).await;
    }

    #[tokio::test]
    async fn a_folder_that_comes_later_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("later/policy.wasm");
        let mut watch = FileWatch::new(&file);
        std::fs::create_dir(folder.path().join("later")).unwrap();
        std::fs::write(&file, "now").unwrap();
        noticed(&mut watch).await;
        std::fs::write(&file, "and again").unwrap();
        noticed(&mut watch).await;
        assert!(watch.directories.is_some());
    }

    #[test]
    fn a_loop_of_links_ends() {
        let folder = tempfile::tempdir().unwrap();
        symlink("b", folder.path().join("a")).unwrap();
        symlink("a", folder.path().join("b")).unwrap();
        let found = directories(&folder.path().join("a"));
        assert_eq!(
            found.iter().map(|(path, ..)| path).collect::<Vec<_>>(),
            [folder.path()]
        );
    }

    #[test]
    fn every_link_on_the_way_is_watched() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("releases/1/policies")).unwrap();
        std::fs::create_dir(at("store")).unwrap();
        std::fs::write(at("store/x.wasm"), "x").unwrap();
        symlink("releases/1", at("current")).unwrap();
        symlink("../../../store/x.wasm", at("releases/1/policies/p.wasm")).unwrap();
        let found = directories(&at("current/policies/../policies/p.wasm"));
        let expected = [
            folder.path().to_owned(),
            at("releases/1/policies"),
            at("store"),
        ];
        assert_eq!(
            found.into_iter().map(|(path, ..)| path).collect::<Vec<_>>(),
            expected
        );
    }
}
