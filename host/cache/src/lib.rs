//! A directory of authenticated entries: results that are expensive to compute are kept there from one start to the next.
//!
//! Each entry is authenticated (HMAC-SHA256) under a key that is created with the directory and that only its owner can read. An entry that
//! is damaged, was written by another user, or has another name is refused, so its content can be trusted like data computed by this
//! process. The size of the directory is limited; the least recently used entries are evicted first.
//!
//! This crate is independent of the content of entries.

#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

mod entry;
mod error;
mod folder;
mod key;
mod name;

pub use error::{CacheError, EntryError};
pub use name::Name;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use parking_lot::Mutex;

use key::Key;

/// A directory of entries, used by any number of threads and processes of one user at the same time.
pub struct Cache {
    folder: PathBuf,
    key: Key,
    /// The limit for all entries, in bytes.
    most: u64,
    /// The size of all entries in bytes, as far as this process knows: other processes may also write to the directory.
    used: Mutex<u64>,
}

impl Cache {
    /// Opens the directory, and creates it and its key where they are missing. All entries together take at most `most` bytes.
    ///
    /// # Errors
    /// When other users have access to directory or key, or they cannot be created or read.
    pub fn open(folder: &Path, most: u64) -> Result<Self, CacheError> {
        folder::make(folder)?;
        Self::with_key(folder, most, Key::load_or_make(folder)?)
    }

    /// Opens an existing directory with its key: for a command that must not create files of its own user.
    ///
    /// # Errors
    /// As [`Cache::open`], and when there is no directory or no key ([`CacheError::is_absent`]).
    pub fn open_existing(folder: &Path, most: u64) -> Result<Self, CacheError> {
        folder::check(folder)?;
        Self::with_key(folder, most, Key::load(folder)?)
    }

    fn with_key(folder: &Path, most: u64, key: Key) -> Result<Self, CacheError> {
        let unusable = |source| CacheError::Folder {
            path: folder.to_owned(),
            source,
        };
        let used = folder::evict(folder, most).map_err(unusable)?;
        Ok(Self {
            folder: folder.to_owned(),
            key,
            most,
            used: Mutex::new(used),
        })
    }

    /// The directory.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The size of all entries, in bytes.
    pub fn bytes(&self) -> u64 {
        *self.used.lock()
    }

    /// The file of an entry.
    pub fn file_of(&self, name: &Name) -> PathBuf {
        self.folder.join(name.file_name())
    }

    /// The content of an entry, as it was stored; `None` if there is no such entry. The entry counts as used now.
    ///
    /// # Errors
    /// When the file cannot be read, or was not written under this key and name. The entry may be stored again.
    pub fn find(&self, name: &Name) -> Result<Option<Vec<u8>>, EntryError> {
        let mut file = match folder::open(&self.file_of(name), self.most) {
            Ok(file) => file,
            Err(EntryError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let content = entry::read(&mut file, &self.key, name)?;
        // If the time cannot be set, the entry counts as older than it is.
        let _kept_from_eviction = file.set_modified(SystemTime::now());
        Ok(Some(content))
    }

    /// Stores an entry, replacing one with the same name, and evicts the least recently used ones if necessary. Readers see either the old
    /// entry or the new one.
    ///
    /// # Errors
    /// When it cannot be written, or is larger than the limit for all entries. The directory is then unchanged.
    pub fn keep(&self, name: &Name, content: &[u8]) -> Result<(), EntryError> {
        let size = entry::size(content);
        if size > self.most {
            let most = self.most;
            return Err(EntryError::TooLarge { size, most });
        }
        let path = self.file_of(name);
        let before = fs::symlink_metadata(&path).map_or(0, |before| before.len());
        let mut draft = folder::draft(&self.folder)?;
        entry::write(&mut draft, &self.key, name, content)?;
        draft.flush()?;
        // An entry that a crash has left half written would be refused, and reported as damaged.
        draft.as_file().sync_data()?;
        draft.persist(&path).map_err(|failed| failed.error)?;
        let mut used = self.used.lock();
        *used = (*used + size).saturating_sub(before);
        if *used > self.most {
            *used = folder::evict(&self.folder, self.most)?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache")
            .field("folder", &self.folder)
            .field("most", &self.most)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
