//! The folder: whose it is, and what leaves it when it is full.

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

/// What the name of a file that is being written begins with.
const DRAFT: &str = ".draft-";

/// A draft that is older was left by a process that ended in the middle of it.
const ABANDONED: Duration = Duration::from_secs(60 * 60);

/// Which part of the bound is freed beyond what is needed, so that not every entry that is kept has the folder read.
const SPARE: u64 = 16;

/// The user that this process runs as.
pub(crate) fn user() -> u32 {
    geteuid().as_raw()
}

/// Makes the folder, if it is missing, for its owner alone.
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

/// Whether it is a folder of this user's alone.
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

/// Opens a file of this user's alone, of at most `most` bytes. What is opened is what was checked.
pub(crate) fn open(path: &Path, most: u64) -> Result<File, EntryError> {
    // A pipe would hold the opening up; a link could lead anywhere.
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

/// A file to be written and then renamed; it goes away if it is not. Only its owner can read it.
pub(crate) fn draft(folder: &Path) -> io::Result<NamedTempFile> {
    tempfile::Builder::new().prefix(DRAFT).tempfile_in(folder)
}

/// An entry, as the folder shows it.
struct Listed {
    path: PathBuf,
    size: u64,
    used: SystemTime,
}

/// Removes what was used least recently, if all together takes more than `most` bytes, and drafts that nobody writes any more. Bytes
/// that are left.
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
            // Where nothing can be removed, nothing is written either.
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
        // It may have gone meanwhile.
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
