//! The events of all files that this process watches: one inotify instance and one thread, however many files there are.
//!
//! Directories are watched instead of files, because a rename replaces the file, and a watch of the old file would not report that. The
//! system identifies a directory by its inode: two paths to a directory are one watch, and a directory that replaces another is a different
//! one.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use parking_lot::Mutex;
use tokio::sync::mpsc::Sender;

use super::Writer;

/// Most names in one directory that are remembered without a follower. Above that, all of these are forgotten.
const MOST_NAMES: usize = 1024;

/// The events of this process.
pub(super) static EVENTS: LazyLock<Events> = LazyLock::new(Events::default);

/// A name in a watched directory, as a source of events.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    folder: WatchDescriptor,
    name: OsString,
}

/// A party that is notified of events.
#[derive(Debug)]
pub(super) struct Follower {
    number: u64,
    /// Notified of every event of a followed name.
    hint: Option<Sender<()>>,
    /// Whether the states of all names in the directories are recorded, followed or not.
    is_wide: bool,
}

/// All watches and their followers.
#[derive(Debug, Default)]
pub(super) struct Events {
    watch: Mutex<Option<Watch>>,
    followers: AtomicUsize,
    numbers: AtomicU64,
}

/// The inotify instance and its thread.
#[derive(Debug)]
struct Watch {
    inotify: Arc<Inotify>,
    folders: Arc<Mutex<Folders>>,
}

#[derive(Debug, Default)]
struct Folders {
    all: HashMap<WatchDescriptor, Folder>,
    /// Whether the thread that reads events has ended.
    is_over: bool,
}

#[derive(Debug, Default)]
struct Folder {
    names: HashMap<OsString, Name>,
    /// Number of followers of all names.
    followers: usize,
    /// Number of followers that need the states of all names.
    wide: usize,
}

/// A name in a directory.
#[derive(Debug, Default)]
struct Name {
    writer: Option<Writer>,
    followers: Vec<(u64, Option<Sender<()>>)>,
}

impl Events {
    /// Adds a follower.
    pub(super) fn follower(&self, hint: Option<Sender<()>>, is_wide: bool) -> Follower {
        self.followers.fetch_add(1, Ordering::Relaxed);
        Follower {
            number: self.numbers.fetch_add(1, Ordering::Relaxed),
            hint,
            is_wide,
        }
    }

    /// Returns the number of followers.
    pub(super) fn followers(&self) -> usize {
        self.followers.load(Ordering::Relaxed)
    }

    /// Follows a name in a directory, whether it exists or not. Following it again has no effect.
    ///
    /// # Errors
    /// If the system provides no events.
    pub(super) fn follow(
        &self,
        follower: &Follower,
        folder: &Path,
        name: &OsStr,
    ) -> io::Result<Place> {
        let mut watch = self.watch.lock();
        let is_over = |watch: &Watch| watch.folders.lock().is_over;
        if watch.as_ref().is_none_or(is_over) {
            *watch = Some(Watch::start()?);
        }
        let Some(Watch { inotify, folders }) = &*watch else {
            return Err(io::ErrorKind::NotFound.into());
        };
        // Locked before the watch begins, so that its first event finds the follower.
        let mut folders = folders.lock();
        let folder = inotify.add_watch(folder, wanted())?;
        folders.follow(follower, folder, name);
        Ok(Place {
            folder,
            name: name.to_owned(),
        })
    }

    /// Stops following a name.
    pub(super) fn leave(&self, follower: &Follower, place: &Place) {
        let watch = self.watch.lock();
        let Some(Watch { inotify, folders }) = &*watch else {
            return;
        };
        if folders.lock().leave(follower, place) {
            // The watch may have ended with its directory.
            let _gone = inotify.rm_watch(place.folder);
        }
    }

    /// Removes a follower, which must have stopped following all names.
    pub(super) fn end(&self) {
        self.followers.fetch_sub(1, Ordering::Relaxed);
    }

    /// Returns the state of a followed file; `None` if its directory is no longer watched.
    pub(super) fn writer(&self, place: &Place) -> Option<Writer> {
        let watch = self.watch.lock();
        let folders = watch.as_ref()?.folders.lock();
        let folder = folders.all.get(&place.folder)?;
        let name = folder.names.get(&place.name);
        Some(name.and_then(|name| name.writer).unwrap_or(Writer::Unheard))
    }
}

impl Watch {
    fn start() -> io::Result<Self> {
        let inotify = Arc::new(Inotify::init(InitFlags::IN_CLOEXEC)?);
        let folders = Arc::new(Mutex::new(Folders::default()));
        let read = {
            let (inotify, folders) = (Arc::clone(&inotify), Arc::clone(&folders));
            move || read(&inotify, &folders)
        };
        thread::Builder::new().name("files".into()).spawn(read)?;
        Ok(Self { inotify, folders })
    }
}

/// Reads events until the watch ends.
fn read(inotify: &Inotify, folders: &Mutex<Folders>) {
    loop {
        match inotify.read_events() {
            Ok(events) => {
                let mut folders = folders.lock();
                events.iter().for_each(|event| folders.note(event));
            }
            Err(Errno::EINTR) => {}
            Err(_) => {
                let mut folders = folders.lock();
                folders.is_over = true;
                folders.all.drain().for_each(|(_, folder)| folder.hint());
                return;
            }
        }
    }
}

/// Returns the events to watch for: all except reading.
fn wanted() -> AddWatchFlags {
    AddWatchFlags::IN_ONLYDIR
        | AddWatchFlags::IN_ATTRIB
        | AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_MODIFY
        | AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_MOVE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVE_SELF
}

impl Folders {
    fn follow(&mut self, follower: &Follower, folder: WatchDescriptor, name: &OsStr) {
        let folder = self.all.entry(folder).or_default();
        let followed = folder.names.entry(name.to_owned()).or_default();
        let mut numbers = followed.followers.iter().map(|(number, _)| *number);
        if numbers.any(|number| number == follower.number) {
            return;
        }
        let hint = follower.hint.clone();
        followed.followers.push((follower.number, hint));
        folder.followers += 1;
        folder.wide += usize::from(follower.is_wide);
    }

    /// Removes a follower. Returns whether the directory has no followers left.
    fn leave(&mut self, follower: &Follower, place: &Place) -> bool {
        let Some(folder) = self.all.get_mut(&place.folder) else {
            return false;
        };
        let Some(name) = folder.names.get_mut(&place.name) else {
            return false;
        };
        let mut followers = name.followers.iter();
        let Some(at) = followers.position(|(number, _)| *number == follower.number) else {
            return false;
        };
        name.followers.swap_remove(at);
        folder.followers -= 1;
        if name.followers.is_empty() && folder.wide == 0 {
            folder.names.remove(&place.name);
        }
        if follower.is_wide {
            folder.wide -= 1;
            if folder.wide == 0 {
                folder.forget_others();
            }
        }
        let is_over = folder.followers == 0;
        if is_over {
            self.all.remove(&place.folder);
        }
        is_over
    }

    fn note(&mut self, event: &InotifyEvent) {
        let mask = event.mask;
        if mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            // Events were lost, so every state is unknown.
            for folder in self.all.values_mut() {
                folder.forget_states();
                folder.hint();
            }
            return;
        }
        if mask.contains(AddWatchFlags::IN_IGNORED) {
            // The directory is gone, and its watch with it.
            if let Some(folder) = self.all.remove(&event.wd) {
                folder.hint();
            }
            return;
        }
        let Some(folder) = self.all.get_mut(&event.wd) else {
            return;
        };
        match &event.name {
            Some(name) => folder.note(name, mask),
            // An event of the directory itself: it was moved or removed, or its permissions have changed.
            None => folder.hint(),
        }
    }
}

impl Folder {
    fn note(&mut self, name: &OsStr, mask: AddWatchFlags) {
        if !self.names.contains_key(name) {
            if self.wide == 0 {
                return;
            }
            if self.names.len() >= MOST_NAMES {
                self.forget_others();
            }
        }
        let is = |flag: AddWatchFlags| mask.intersects(flag);
        let noted = self.names.entry(name.to_owned()).or_default();
        if is(AddWatchFlags::IN_MOVED_FROM | AddWatchFlags::IN_DELETE) {
            noted.writer = None;
        } else if is(AddWatchFlags::IN_MOVED_TO) {
            noted.writer = Some(Writer::Moved);
        } else if is(AddWatchFlags::IN_CLOSE_WRITE) {
            noted.writer = Some(Writer::Closed);
        } else if is(AddWatchFlags::IN_MODIFY) {
            noted.writer = Some(Writer::Open);
        }
        noted.hint();
    }

    fn forget_states(&mut self) {
        self.names.values_mut().for_each(|name| name.writer = None);
    }

    /// Forgets the names without followers.
    fn forget_others(&mut self) {
        self.names.retain(|_, name| !name.followers.is_empty());
    }

    fn hint(&self) {
        self.names.values().for_each(Name::hint);
    }
}

impl Name {
    fn hint(&self) {
        for hint in self.followers.iter().filter_map(|(_, hint)| hint.as_ref()) {
            // A notification that is still pending covers this event too.
            let _waiting = hint.try_send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use tokio::sync::mpsc::channel;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn an_event_notifies_only_the_followers_of_the_file() {
        let events = Events::default();
        let folder = tempfile::tempdir().unwrap();
        let names: Vec<_> = (0..1000).map(|n| OsString::from(format!("{n}"))).collect();
        let mut following: Vec<_> = names
            .iter()
            .map(|name| {
                let (hint, hints) = channel(1);
                let follower = events.follower(Some(hint), false);
                let place = events.follow(&follower, folder.path(), name).unwrap();
                (follower, place, hints)
            })
            .collect();
        assert_eq!(events.followers(), 1000);
        let watches = || {
            let watch = events.watch.lock();
            let folders = watch.as_ref().unwrap().folders.lock();
            folders.all.len()
        };
        assert_eq!(watches(), 1);
        for number in [999, 0, 500] {
            fs::write(folder.path().join(&names[number]), "x").unwrap();
            let (_, place, hints) = &mut following[number];
            while events.writer(place) != Some(Writer::Closed) {
                let hint = timeout(Duration::from_secs(60), hints.recv()).await;
                hint.expect("the follower is notified").unwrap();
            }
        }
        for (number, (_, place, hints)) in following.iter_mut().enumerate() {
            if ![999, 0, 500].contains(&number) {
                assert!(hints.try_recv().is_err(), "{number}");
                assert_eq!(events.writer(place), Some(Writer::Unheard));
            }
        }
        for (follower, place, _) in &following {
            events.leave(follower, place);
        }
        assert_eq!(watches(), 0);
    }

    /// The events of two directories at the same path, one after the other.
    #[tokio::test]
    async fn a_directory_that_replaces_another_is_watched_anew() {
        let events = Events::default();
        let folder = tempfile::tempdir().unwrap();
        let (here, aside) = (folder.path().join("here"), folder.path().join("aside"));
        fs::create_dir(&here).unwrap();
        let (hint, mut hints) = channel(1);
        let follower = events.follower(Some(hint), false);
        let name = OsStr::new("file");
        let old = events.follow(&follower, &here, name).unwrap();
        assert_eq!(events.follow(&follower, &here, name).unwrap(), old);
        fs::rename(&here, &aside).unwrap();
        let mut told = async || {
            let hint = timeout(Duration::from_secs(60), hints.recv()).await;
            hint.expect("the follower is notified").unwrap();
        };
        told().await;
        fs::create_dir(&here).unwrap();
        let new = events.follow(&follower, &here, name).unwrap();
        assert_ne!(new, old);
        events.leave(&follower, &old);
        assert_eq!(events.writer(&old), None);
        fs::remove_dir(&here).unwrap();
        while events.writer(&new).is_some() {
            told().await;
        }
        assert!(events.follow(&follower, &here, name).is_err());
    }

    #[test]
    fn states_of_all_names_are_recorded_up_to_a_limit() {
        let mut folders = Folders::default();
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let folder = inotify.add_watch(folder.path(), wanted()).unwrap();
        let follower = |number, is_wide| Follower {
            number,
            hint: None,
            is_wide,
        };
        let (one, wide) = (follower(1, false), follower(2, true));
        let write = |folders: &mut Folders, name: &str| {
            folders.note(&InotifyEvent {
                wd: folder,
                mask: AddWatchFlags::IN_MODIFY,
                cookie: 0,
                name: Some(name.into()),
            });
        };
        let count = |folders: &Folders| folders.all[&folder].names.len();
        folders.follow(&one, folder, OsStr::new("a"));
        write(&mut folders, "b");
        assert_eq!(count(&folders), 1);
        folders.follow(&wide, folder, OsStr::new("a"));
        folders.follow(&wide, folder, OsStr::new("a"));
        for n in 0..5 * MOST_NAMES {
            write(&mut folders, &format!("file {n}"));
            assert!(count(&folders) <= MOST_NAMES);
        }
        let place = |name: &str| Place {
            folder,
            name: name.into(),
        };
        assert!(!folders.leave(&wide, &place("a")));
        assert_eq!(count(&folders), 1);
        assert!(folders.leave(&one, &place("a")));
        assert!(folders.all.is_empty());
    }
}
