//! Why a folder can't be used, and why an entry is not taken.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why a folder can't be used as a cache.
#[derive(Debug, Error)]
pub enum CacheError {
    /// The folder can't be made or read.
    #[error("{}: {source}; it must be a folder that the host may make or write to", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The key can't be read or made.
    #[error("{}: {source}", path.display())]
    KeyFile {
        /// Its file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Folder or key belong to another user, who could read or replace the key.
    #[error(
        "{} belongs to user {owner}, and this process runs as user {user}: name a folder of this user's own", path.display()
    )]
    Owner {
        /// Folder or file.
        path: PathBuf,
        /// Whose it is (uid).
        owner: u32,
        /// Who this process is (uid).
        user: u32,
    },
    /// Others than the owner can get at folder or key.
    #[error(
        "{path} has mode {mode:04o}, so others on this machine can get at it: chmod {mend:04o} {path}",
        path = path.display()
    )]
    Mode {
        /// Folder or file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// The mode that it should have.
        mend: u32,
    },
    /// The file of the key holds no key.
    #[error("{}: no key; empty the folder, and the host makes a new one", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The system gives no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(String),
}

/// Why an entry is not taken or not kept.
#[derive(Debug, Error)]
pub enum EntryError {
    /// It can't be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is no regular file, but a link, a folder or the like.
    #[error("it is not a regular file")]
    NoFile,
    /// It belongs to another user.
    #[error("it belongs to user {owner}")]
    Owner {
        /// Whose it is (uid).
        owner: u32,
    },
    /// Others can write it or read it.
    #[error("it has mode {mode:04o} in place of 0600")]
    Mode {
        /// Its mode.
        mode: u32,
    },
    /// It was not written under this host's key, not under this name, or it is damaged.
    #[error("it is damaged, or was not written by this host")]
    Foreign,
    /// It is larger than all entries together may be.
    #[error("it has {size} bytes, more than the {most} of the whole cache")]
    TooLarge {
        /// Its size in bytes.
        size: u64,
        /// The bound in bytes.
        most: u64,
    },
}

impl CacheError {
    /// Whether folder or key are not there yet.
    pub fn is_absent(&self) -> bool {
        match self {
            Self::Folder { source, .. } | Self::KeyFile { source, .. } => {
                source.kind() == io::ErrorKind::NotFound
            }
            Self::Owner { .. } | Self::Mode { .. } | Self::NoKey { .. } | Self::Random(_) => false,
        }
    }
}
