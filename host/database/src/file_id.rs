//! Which file is open: a path may name another one later.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Device and inode.
pub(crate) type FileId = (u64, u64);

/// The identity of the file at a path.
pub(crate) fn file_id(path: &Path) -> Option<FileId> {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.dev(), meta.ino()))
}
