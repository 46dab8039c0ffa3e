//! Which files are being written, according to the events of the directories that lead to them.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use tokio::sync::mpsc::Sender;

use super::Writer;
use super::events::{EVENTS, Follower, Place};

/// Longest chain of symbolic links; a longer one is a loop.
const MOST_LINKS: usize = 40;

/// Follows all names on the paths of some files.
pub(crate) struct Writers {
    follower: Follower,
    places: Vec<Place>,
    /// The directory entry of the file at each path; `None` if the file does not exist.
    files: HashMap<PathBuf, Option<Place>>,
    is_watching: bool,
    has_failed: bool,
}

impl Writers {
    /// Follows no files yet. `hint` is notified of every event.
    pub(crate) fn new(hint: Option<Sender<()>>) -> Self {
        Self::of(EVENTS.follower(hint, false))
    }

    /// Follows no files yet. The states of all files in the directories of followed files are recorded.
    pub(crate) fn of_whole_folders() -> Self {
        Self::of(EVENTS.follower(None, true))
    }

    fn of(follower: Follower) -> Self {
        Self {
            follower,
            places: Vec::new(),
            files: HashMap::new(),
            is_watching: false,
            has_failed: false,
        }
    }

    /// Follows the names on the current paths of these files, and no others.
    pub(crate) fn follow<'p>(&mut self, files: impl IntoIterator<Item = &'p Path>) {
        let (mut places, mut found) = (Vec::new(), HashMap::new());
        let mut failed = None;
        for file in files {
            let way = PathSteps::to(file);
            let mut last = None;
            for (folder, name) in &way.names {
                match EVENTS.follow(&self.follower, folder, name) {
                    Ok(place) => last = Some(place),
                    // The directory has just been removed, which an event of its parent reports.
                    Err(_) if !folder.exists() => last = None,
                    Err(error) => failed = Some(error),
                }
                places.extend(last.clone());
            }
            let place = last.filter(|_| way.is_whole);
            found.insert(file.to_owned(), place);
        }
        for left in self.places.iter().filter(|place| !places.contains(place)) {
            EVENTS.leave(&self.follower, left);
        }
        self.is_watching = failed.is_none() && !places.is_empty();
        self.places = places;
        self.files = found;
        let had_failed = std::mem::replace(&mut self.has_failed, failed.is_some());
        if let (Some(error), false) = (failed, had_failed) {
            tracing::debug!(event = "file_events_missing", %error, "no file events on this system, files are polled");
        }
    }

    pub(crate) fn is_watching(&self) -> bool {
        self.is_watching
    }

    /// Returns the state of a followed file.
    pub(crate) fn state(&self, file: &Path) -> Writer {
        if !self.is_watching {
            return Writer::Unknown;
        }
        let place = self.files.get(file).and_then(Option::as_ref);
        let state = place.and_then(|place| EVENTS.writer(place));
        state.unwrap_or(Writer::Unheard)
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        for place in &self.places {
            EVENTS.leave(&self.follower, place);
        }
        EVENTS.end();
    }
}

/// The names whose events can change where a path leads, each with its directory: that of the file, that of every symbolic link on the way,
/// and, if the file does not exist, that of the first missing component.
struct PathSteps {
    names: Vec<(PathBuf, OsString)>,
    /// Whether the last name is that of the file itself.
    is_whole: bool,
}

impl PathSteps {
    fn to(path: &Path) -> Self {
        let mut way = Self {
            names: Vec::new(),
            is_whole: false,
        };
        let mut links = 0;
        let mut here = PathBuf::new();
        let mut ahead = steps(&std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
        while let Some(step) = ahead.pop() {
            let next = here.join(&step);
            let target = std::fs::read_link(&next);
            let is_there = target.is_ok() || next.exists();
            if (ahead.is_empty() || target.is_ok() || !is_there) && here != next {
                way.add(&here, &step);
            }
            match target {
                Ok(target) if links < MOST_LINKS => {
                    links += 1;
                    ahead.extend(steps(&target));
                }
                // Nothing after this component can be followed.
                Ok(_) => return way,
                Err(_) if !is_there => return way,
                Err(_) if step == ".." => _ = here.pop(),
                Err(_) => here = next,
            }
        }
        way.is_whole = true;
        way
    }

    fn add(&mut self, folder: &Path, name: &OsString) {
        let entry = (folder.to_owned(), name.clone());
        if !self.names.contains(&entry) {
            self.names.push(entry);
        }
    }
}

/// Returns the components of a path in reverse order.
fn steps(path: &Path) -> Vec<OsString> {
    path.components()
        .rev()
        .map(|component| component.as_os_str().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_loop_of_links_is_detected() {
        let folder = tempfile::tempdir().unwrap();
        symlink("b", folder.path().join("a")).unwrap();
        symlink("a", folder.path().join("b")).unwrap();
        let way = PathSteps::to(&folder.path().join("a"));
        let at = |name: &str| (folder.path().to_owned(), name.into());
        assert_eq!(way.names, [at("a"), at("b")]);
        assert!(!way.is_whole);
    }

    #[test]
    fn every_link_of_the_path_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("releases/1/policies")).unwrap();
        std::fs::create_dir(at("store")).unwrap();
        std::fs::write(at("store/x.wasm"), "x").unwrap();
        symlink("releases/1", at("current")).unwrap();
        symlink("../../../store/x.wasm", at("releases/1/policies/p.wasm")).unwrap();
        let way = PathSteps::to(&at("current/policies/../policies/p.wasm"));
        let expected = [
            (folder.path().to_owned(), "current".into()),
            (at("releases/1/policies"), "p.wasm".into()),
            (at("store"), "x.wasm".into()),
        ];
        assert_eq!(way.names, expected);
        assert!(way.is_whole);
    }

    #[test]
    fn the_first_missing_component_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let way = PathSteps::to(&folder.path().join("later/policies/p.wasm"));
        assert_eq!(way.names, [(folder.path().to_owned(), "later".into())]);
        assert!(!way.is_whole);
    }
}
