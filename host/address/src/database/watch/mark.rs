//! What tells one state of a table from another.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::{ChangeSource, Look};

/// A change shows as a time in whole seconds, and is stamped a little before it can be read. A look that comes this long after
/// the second began has seen all of its changes. In seconds.
const SETTLED: f64 = 1.25;

/// A file that was written so lately may still be in the writing. Longer than the ticks in which file systems count.
const AT_REST: Duration = Duration::from_millis(250);

/// Engines that tell the time of a change at once, and how well they remember it. Aria writes it down half a minute late.
const TIMED: [(&str, Memory); 2] = [("InnoDB", Memory::Lost), ("MyISAM", Memory::Kept)];

/// Device and inode.
pub(super) type FileId = (u64, u64);

/// What a look saw.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Mark {
    /// SQLite: the file, and the version that the connection sees.
    Sqlite { id: FileId, version: i64 },
    /// SQLite: there is no file.
    NoFile,
    /// An address file.
    File(Stamp),
    /// A table of a server.
    Server(Times),
}

/// An address file; none when it is not there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Stamp(Option<Stat>);

#[derive(Clone, Copy, Debug)]
struct Stat {
    id: FileId,
    size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    changed: (i64, i64),
    /// It was written a moment before it was looked at.
    is_young: bool,
}

/// What a server knows of a table; nothing when there is no such table.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Times {
    /// A table or a view.
    pub(super) kind: Option<String>,
    pub(super) engine: Option<String>,
    /// When the table was made and last changed, in whole seconds.
    pub(super) created: Option<String>,
    pub(super) updated: Option<String>,
    /// What else changes with the table at times, above all when InnoDB truncates it, of which neither time tells: the next number of
    /// a row, whether there are rows (InnoDB only guesses how many), the sum that MyISAM and Aria keep where they are told to.
    pub(super) signs: Option<String>,
    /// How long ago that was when it was asked, in seconds.
    pub(super) age: f64,
}

/// What becomes of the time of the last change when the server is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Memory {
    Kept,
    Lost,
}

impl Mark {
    /// What happened since an earlier mark of the same table.
    pub(super) fn since(&self, before: &Self) -> Look {
        match (self, before) {
            (Self::Server(times), Self::Server(before)) => times.since(before),
            (Self::File(Stamp(Some(_))), Self::File(Stamp(Some(before)))) if before.is_young => {
                Look::Changed
            }
            _ if self == before => Look::Same,
            _ => Look::Changed,
        }
    }

    /// Whether what was seen is probably not whole.
    pub(super) fn is_being_written(&self) -> bool {
        matches!(self, Self::File(Stamp(Some(stat))) if stat.is_young)
    }

    pub(super) fn source(&self) -> ChangeSource {
        match self {
            Self::Sqlite { .. } | Self::NoFile => ChangeSource::DataVersion,
            Self::File(_) => ChangeSource::FileStamp,
            Self::Server(times) => times.source(),
        }
    }
}

impl Times {
    fn since(&self, before: &Self) -> Look {
        let of = |times: &Self| {
            let Self {
                kind,
                engine,
                created,
                updated,
                signs,
                age: _,
            } = times;
            [kind, engine, created, updated, signs].map(Clone::clone)
        };
        if of(self) != of(before) {
            return Look::Changed;
        }
        match (self.memory(), &self.updated) {
            (None, _) | (Some(Memory::Kept), None) => Look::Unknown,
            (Some(Memory::Lost), None) => Look::Quiet,
            // The second of the last change was not over: there may have been another change in it.
            (Some(_), Some(_)) if before.age < SETTLED => Look::Changed,
            (Some(_), Some(_)) => Look::Same,
        }
    }

    /// How well the time of a change is remembered; none when it can't be trusted.
    fn memory(&self) -> Option<Memory> {
        // Truncating a part leaves no trace.
        if self.kind.as_ref()?.ends_with("PARTITIONED") {
            return None;
        }
        let engine = self.engine.as_deref()?;
        let (_, memory) = TIMED.iter().find(|(timed, _)| *timed == engine)?;
        Some(*memory)
    }

    fn source(&self) -> ChangeSource {
        let why = match (&self.kind, &self.engine) {
            (_, Some(engine)) if self.memory().is_some() => {
                let engine = engine.clone();
                return ChangeSource::UpdateTime { engine };
            }
            (None, _) => "there is no such table".to_owned(),
            (Some(kind), _) if kind.contains("VIEW") => {
                "the server knows no time of change for a view".to_owned()
            }
            (Some(kind), _) if kind.ends_with("PARTITIONED") => {
                "the server does not tell when a part of the table is truncated".to_owned()
            }
            (Some(_), None) => "the server does not tell its engine".to_owned(),
            (Some(_), Some(engine)) => format!("{engine} tells of changes late or not at all"),
        };
        ChangeSource::Reread { why }
    }
}

impl PartialEq for Stat {
    /// All but the age of what was seen.
    fn eq(&self, other: &Self) -> bool {
        let of = |stat: &Self| (stat.id, stat.size, stat.modified, stat.changed);
        of(self) == of(other)
    }
}

pub(super) fn file_id(path: &Path) -> Option<FileId> {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.dev(), meta.ino()))
}

/// What there is to see of an address file.
pub(super) fn file_stamp(path: &Path) -> Mark {
    let stat = std::fs::metadata(path).ok().map(|meta| {
        let age = meta
            .modified()
            .ok()
            .and_then(|modified| SystemTime::now().duration_since(modified).ok());
        Stat {
            id: (meta.dev(), meta.ino()),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
            // A time in the future says nothing.
            is_young: age.is_some_and(|age| age < AT_REST),
        }
    });
    Mark::File(Stamp(stat))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(engine: &str, updated: Option<&str>, age: f64) -> Mark {
        Mark::Server(Times {
            kind: Some("BASE TABLE".to_owned()),
            engine: Some(engine.to_owned()),
            created: Some("2026-01-01 00:00:00".to_owned()),
            updated: updated.map(str::to_owned),
            signs: Some("4/0".to_owned()),
            age,
        })
    }

    fn times(updated: Option<&str>, age: f64) -> Mark {
        table("InnoDB", updated, age)
    }

    #[test]
    fn a_change_within_the_second_of_the_last_look_is_not_missed() {
        let fresh = times(Some("12:00:07"), 0.2);
        let still_fresh = times(Some("12:00:07"), 1.2);
        let settled = times(Some("12:00:07"), 2.2);
        assert_eq!(still_fresh.since(&fresh), Look::Changed);
        assert_eq!(settled.since(&still_fresh), Look::Changed);
        assert_eq!(settled.since(&settled), Look::Same);
        assert_eq!(times(Some("12:00:09"), 0.5).since(&settled), Look::Changed);
        assert_eq!(
            times(Some("11:00:00"), 9e9).since(&settled),
            Look::Changed,
            "clocks go back"
        );
    }

    #[test]
    fn a_table_that_was_truncated_has_changed() {
        let before = times(Some("12:00:07"), 99.0);
        let Mark::Server(mut times) = before.clone() else {
            panic!("a table of a server");
        };
        times.signs = Some("1/1".to_owned());
        assert_eq!(Mark::Server(times).since(&before), Look::Changed);
    }

    #[test]
    fn a_server_without_times_is_read_rarely_unless_it_never_has_them() {
        let none = times(None, f64::INFINITY);
        assert_eq!(none.since(&none), Look::Quiet);
        assert_eq!(
            none.since(&times(Some("12:00:07"), 99.0)),
            Look::Changed,
            "it was restarted"
        );
        assert_eq!(times(Some("12:00:07"), 99.0).since(&none), Look::Changed);
        let absent = Mark::Server(Times {
            kind: None,
            engine: None,
            created: None,
            updated: None,
            signs: None,
            age: f64::INFINITY,
        });
        assert_eq!(none.since(&absent), Look::Changed, "the table was made");
        assert_eq!(absent.since(&absent), Look::Unknown);
        let other = table("CSV", Some("12:00:07"), 99.0);
        assert_eq!(other.since(&other), Look::Unknown, "no engine that we know");
        let file = table("MyISAM", None, f64::INFINITY);
        assert_eq!(file.since(&file), Look::Unknown);
    }

    #[test]
    fn what_tells_of_changes_is_told() {
        let said = |mark: &Mark| mark.source().to_string();
        assert_eq!(said(&times(None, 1.0)), "UPDATE_TIME of the InnoDB table");
        assert_eq!(
            said(&table("CSV", None, 1.0)),
            "reading it again (CSV tells of changes late or not at all)"
        );
        let view = Mark::Server(Times {
            kind: Some("VIEW".to_owned()),
            engine: None,
            created: None,
            updated: None,
            signs: None,
            age: 1.0,
        });
        assert_eq!(
            said(&view),
            "reading it again (the server knows no time of change for a view)"
        );
    }

    #[test]
    fn a_file_is_told_from_one_in_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("address.list");
        let absent = file_stamp(&path);
        assert_eq!(absent.since(&absent), Look::Same);
        std::fs::write(&path, "1 10.0.0.1\n").unwrap();
        let young = file_stamp(&path);
        assert!(young.is_being_written());
        assert_eq!(young.since(&absent), Look::Changed);
        assert_eq!(
            young.since(&young),
            Look::Changed,
            "it was looked at too early"
        );
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        let long_ago = SystemTime::now() - Duration::from_secs(3600);
        file.set_modified(long_ago).unwrap();
        let old = file_stamp(&path);
        assert!(!old.is_being_written());
        assert_eq!(old.since(&old), Look::Same);
        // The same size and time, and another file.
        let other = folder.path().join("other");
        std::fs::write(&other, "1 10.0.0.2\n").unwrap();
        let file = std::fs::File::options().write(true).open(&other).unwrap();
        file.set_modified(long_ago).unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert_eq!(file_stamp(&path).since(&old), Look::Changed);
        file.set_modified(SystemTime::now() + Duration::from_secs(3600))
            .unwrap();
        assert!(!file_stamp(&path).is_being_written());
    }
}
