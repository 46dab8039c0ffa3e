//! The key of a cache: random, in a file of the directory that only its owner can read.

use std::io::{self, Read, Write};
use std::path::Path;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::error::{CacheError, EntryError};
use crate::folder;
use crate::name::Name;

/// Bytes of an authentication code.
pub(crate) const TAG: usize = 32;

/// Bytes of a key: a block of the hash.
const SIZE: usize = 64;

const FILE: &str = "key";

/// The key that authenticates entries.
pub(crate) struct Key([u8; SIZE]);

impl Key {
    /// The key of this directory, which is created if there is none.
    pub(crate) fn load_or_make(folder: &Path) -> Result<Self, CacheError> {
        match Self::load(folder) {
            Err(error) if error.is_absent() => {
                make(folder)?;
                // Another process may have created it first: that key is used.
                Self::load(folder)
            }
            loaded => loaded,
        }
    }

    /// The key of this directory.
    pub(crate) fn load(folder: &Path) -> Result<Self, CacheError> {
        let path = folder.join(FILE);
        let unreadable = |source| CacheError::KeyFile {
            path: path.clone(),
            source,
        };
        let file = folder::open(&path, SIZE as u64).map_err(|error| match error {
            EntryError::Io(source) => unreadable(source),
            EntryError::Owner { owner } => CacheError::Owner {
                path: path.clone(),
                owner,
                user: folder::user(),
            },
            EntryError::Mode { mode } => CacheError::Mode {
                path: path.clone(),
                mode,
                mend: 0o600,
            },
            EntryError::NoFile | EntryError::Foreign | EntryError::TooLarge { .. } => {
                CacheError::NoKey { path: path.clone() }
            }
        })?;
        let mut bytes = Vec::new();
        file.take(SIZE as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(unreadable)?;
        let key = bytes.try_into();
        key.map(Self).map_err(|_| CacheError::NoKey { path })
    }

    /// The authentication code of an entry.
    pub(crate) fn tag(&self, name: &Name, content: &[u8]) -> [u8; TAG] {
        self.mac(name, content).finalize().into_bytes().into()
    }

    /// Whether this is the authentication code of the entry, compared in constant time.
    pub(crate) fn has_tagged(&self, name: &Name, content: &[u8], tag: &[u8]) -> bool {
        self.mac(name, content).verify_slice(tag).is_ok()
    }

    fn mac(&self, name: &Name, content: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new((&self.0).into());
        // Names have a fixed length, so that no two entries result in the same input.
        mac.update(&name.0);
        mac.update(content);
        mac
    }
}

/// Creates the file, unless it exists. No process ever sees a partial file.
fn make(folder: &Path) -> Result<(), CacheError> {
    let mut key = [0; SIZE];
    getrandom::fill(&mut key).map_err(|error| CacheError::Random(error.to_string()))?;
    let path = folder.join(FILE);
    let written = folder::draft(folder).and_then(|mut draft| {
        draft.write_all(&key)?;
        draft.as_file().sync_all()?;
        match draft.persist_noclobber(&path) {
            Err(failed) if failed.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(failed) => Err(failed.error),
            Ok(_) => Ok(()),
        }
    });
    written.map_err(|source| CacheError::KeyFile { path, source })
}
