//! The directory: its ownership, and the eviction of entries when it is full.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::fcntl::OFlag;
use nix::unistd::geteuid;
use tempfile::NamedTempFile;

use crate::error::{CacheError, EntryError};
use crate::name::EXTENSION;

/// The prefix of the name of a file that is being written.
const DRAFT: &str = ".draft-";

/// An older temporary file was left behind by a process that ended while writing it.
const ABANDONED: Duration = Duration::from_secs(60 * 60);

/// The fraction of the limit that is freed in addition to what is needed, so that not every stored entry causes the directory to be read.
const SPARE: u64 = 16;

/// The user of this process.
pub(crate) fn user() -> u32 {
    geteuid().as_raw()
}

/// Creates the directory, if it is missing, for its owner only.
pub(crate) fn make(path: &Path) -> Result<(), CacheError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists && !path.exists() => {
            Err(CacheError::Folder {
                path: path.to_owned(),
                source: error,
            })
        }
        _ => check(path),
    }
}

/// Whether it is a directory that only this user can access.
pub(crate) fn check(path: &Path) -> Result<(), CacheError> {
    let unusable = |source| CacheError::Folder {
        path: path.to_owned(),
        source,
    };
    let metadata = fs::metadata(path).map_err(unusable)?;
    if !metadata.is_dir() {
        return Err(unusable(io::ErrorKind::NotADirectory.into()));
    }
    if metadata.uid() != user() {
        return Err(CacheError::Owner {
            path: path.to_owned(),
            owner: metadata.uid(),
            user: user(),
        });
    }
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(CacheError::Mode {
            path: path.to_owned(),
            mode,
            mend: 0o700,
        });
    }
    Ok(())
}

/// Opens a file that only this user can access, of at most `most` bytes. The checks apply to the opened file.
pub(crate) fn open(path: &Path, most: u64) -> Result<File, EntryError> {
    // Opening a pipe would block; a link could lead anywhere.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path);
    let file = match opened {
        Err(error) if error.raw_os_error() == Some(nix::libc::ELOOP) => {
            return Err(EntryError::NoFile);
        }
        opened => opened?,
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(EntryError::NoFile);
    }
    let owner = metadata.uid();
    if owner != user() {
        return Err(EntryError::Owner { owner });
    }
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(EntryError::Mode { mode });
    }
    let size = metadata.len();
    if size > most {
        return Err(EntryError::TooLarge { size, most });
    }
    Ok(file)
}

/// A temporary file to be written and then renamed; it is deleted if it is not renamed. Only its owner can read it.
pub(crate) fn draft(folder: &Path) -> io::Result<NamedTempFile> {
    tempfile::Builder::new().prefix(DRAFT).tempfile_in(folder)
}

/// An entry as listed in the directory.
struct Listed {
    path: PathBuf,
    size: u64,
    used: SystemTime,
}

/// Removes the least recently used entries if all together exceed `most` bytes, and abandoned temporary files. Returns the bytes that are
/// left.
pub(crate) fn evict(folder: &Path, most: u64) -> io::Result<u64> {
    let mut entries = list(folder)?;
    let mut left = entries.iter().map(|entry| entry.size).sum::<u64>();
    if left <= most {
        return Ok(left);
    }
    entries.sort_unstable_by(|a, b| (a.used, &a.path).cmp(&(b.used, &b.path)));
    let wanted = most - most / SPARE;
    for entry in entries {
        if left <= wanted {
            break;
        }
        match fs::remove_file(&entry.path) {
            // If nothing can be removed, nothing can be written either.
            Err(error) if error.kind() != io::ErrorKind::NotFound => {}
            _ => left -= entry.size,
        }
    }
    Ok(left)
}

fn list(folder: &Path) -> io::Result<Vec<Listed>> {
    let mut entries = Vec::new();
    for file in fs::read_dir(folder)? {
        let file = file?;
        let name = file.file_name();
        let is_draft = name.as_encoded_bytes().starts_with(DRAFT.as_bytes());
        let is_entry = Path::new(&name).extension() == Some(OsStr::new(EXTENSION));
        if !is_draft && !is_entry {
            continue;
        }
        // Another process may have removed it meanwhile.
        let Ok(metadata) = file.metadata() else {
            continue;
        };
        let used = metadata.modified()?;
        if is_entry {
            entries.push(Listed {
                path: file.path(),
                size: metadata.len(),
                used,
            });
        } else if used.elapsed().is_ok_and(|age| age > ABANDONED) {
            let _gone = fs::remove_file(file.path());
        }
    }
    Ok(entries)
}
