//! A folder of entries that only this host can have written: what is expensive to make is kept there from one start to the next.
//!
//! Each entry is authenticated (HMAC-SHA256) under a key that is made with the folder and that only its owner can read. An entry that is
//! damaged, was written by somebody else, or stands under another name is refused, so its content may be trusted like what this process
//! has made itself. The folder has a bound on its size; the entries that were used least recently leave first.
//!
//! This crate does not know what an entry holds.

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

/// A folder of entries, used by any number of threads and processes of one user at the same time.
pub struct Cache {
    folder: PathBuf,
    key: Key,
    /// The most that all entries may take, in bytes.
    most: u64,
    /// What they take, in bytes, as far as this process knows: others may write to the folder, too.
    used: Mutex<u64>,
}

impl Cache {
    /// Opens the folder, and makes it and its key where they are missing. All entries together take at most `most` bytes.
    ///
    /// # Errors
    /// When the folder or the key is not this user's alone, or can't be made or read.
    pub fn open(folder: &Path, most: u64) -> Result<Self, CacheError> {
        folder::make(folder)?;
        Self::with_key(folder, most, Key::load_or_make(folder)?)
    }

    /// Opens a folder that is there with its key: for a command that must not make files of its own user.
    ///
    /// # Errors
    /// As [`Cache::open`], and when there is no folder or no key ([`CacheError::is_absent`]).
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

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What all entries take, in bytes.
    pub fn bytes(&self) -> u64 {
        *self.used.lock()
    }

    /// The file of an entry.
    pub fn file_of(&self, name: &Name) -> PathBuf {
        self.folder.join(name.file_name())
    }

    /// The content of an entry, as it was kept; none if there is no such entry. It counts as used now.
    ///
    /// # Errors
    /// When the file can't be read, or this host has not written it so. It may be kept anew.
    pub fn find(&self, name: &Name) -> Result<Option<Vec<u8>>, EntryError> {
        let mut file = match folder::open(&self.file_of(name), self.most) {
            Ok(file) => file,
            Err(EntryError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let content = entry::read(&mut file, &self.key, name)?;
        // Where the time can't be set, the entry counts as older than it is.
        let _kept_from_eviction = file.set_modified(SystemTime::now());
        Ok(Some(content))
    }

    /// Keeps an entry, in place of one of the same name, and removes those used least recently if there is no room. Readers see the old
    /// entry or the new one.
    ///
    /// # Errors
    /// When it can't be written, or is larger than all entries together may be. The folder is as it was, then.
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
        // An entry that a crash has left half written would be refused, and somebody would look for a reason.
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
