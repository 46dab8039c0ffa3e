//! Why a directory cannot be used, and why an entry is refused.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why a directory cannot be used as a cache.
#[derive(Debug, Error)]
pub enum CacheError {
    /// The directory cannot be created or read.
    #[error("{}: {source}; it must be a directory that the host may create or write to", path.display())]
    Folder {
        /// The directory.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The key cannot be read or created.
    #[error("{}: {source}", path.display())]
    KeyFile {
        /// Its file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// Directory or key belong to another user, who could read or replace the key.
    #[error(
        "{} belongs to user {owner}, and this process runs as user {user}: choose a directory that belongs to this user", path.display()
    )]
    Owner {
        /// The directory or file.
        path: PathBuf,
        /// The uid of its owner.
        owner: u32,
        /// The uid of this process.
        user: u32,
    },
    /// Users other than the owner have access to directory or key.
    #[error(
        "{path} has mode {mode:04o}, so other users have access to it: chmod {mend:04o} {path}",
        path = path.display()
    )]
    Mode {
        /// The directory or file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// The required mode.
        mend: u32,
    },
    /// The key file contains no key.
    #[error("{}: not a key file; empty the directory, and the host generates a new key", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The system provides no random numbers.
    #[error("the system provides no random numbers: {0}")]
    Random(String),
}

/// Why an entry is refused or not stored.
#[derive(Debug, Error)]
pub enum EntryError {
    /// It cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is not a regular file, but a link, a directory or the like.
    #[error("it is not a regular file")]
    NoFile,
    /// It belongs to another user.
    #[error("it belongs to user {owner}")]
    Owner {
        /// The uid of its owner.
        owner: u32,
    },
    /// Other users can write or read it.
    #[error("it has mode {mode:04o} in place of 0600")]
    Mode {
        /// Its mode.
        mode: u32,
    },
    /// It was written under another key or another name, or is damaged.
    #[error("it is damaged, or was not written by this host")]
    Foreign,
    /// It is larger than the limit for all entries.
    #[error("it has {size} bytes, more than the {most} of the whole cache")]
    TooLarge {
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        most: u64,
    },
}

impl CacheError {
    /// Whether directory or key do not exist yet.
    pub fn is_absent(&self) -> bool {
        match self {
            Self::Folder { source, .. } | Self::KeyFile { source, .. } => {
                source.kind() == io::ErrorKind::NotFound
            }
            Self::Owner { .. } | Self::Mode { .. } | Self::NoKey { .. } | Self::Random(_) => false,
        }
    }
}
