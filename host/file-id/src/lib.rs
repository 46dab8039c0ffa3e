//! Which file a path or a descriptor leads to: a path may lead to another file later.

#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// The identity of a file: its device and its inode. A new file may get the inode of a deleted one, so keep the file open to rely on this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// The file with these numbers, as the system gives them in `st_dev` and `st_ino`.
    pub const fn new(device: u64, inode: u64) -> Self {
        Self { device, inode }
    }

    /// The file that this metadata is of.
    pub fn of(metadata: &Metadata) -> Self {
        Self::new(metadata.dev(), metadata.ino())
    }

    /// The file at a path, through symbolic links; `None` if there is none, or if it cannot be reached.
    pub fn at(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().map(|found| Self::of(&found))
    }

    /// Whether this is still the file at a path.
    pub fn is_at(self, path: &Path) -> bool {
        Self::at(path) == Some(self)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_is_known_by_each_of_its_names_and_not_after_another_has_taken_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let [file, other, link, absent] =
            ["file", "other", "link", "absent"].map(|name| folder.path().join(name));
        let open = fs::File::create(&file).unwrap();
        let id = FileId::of(&open.metadata().unwrap());
        symlink(&file, &link).unwrap();
        assert!(id.is_at(&file) && id.is_at(&link));
        assert_eq!(FileId::at(&absent), None);
        assert!(!id.is_at(&absent));

        fs::write(&other, "").unwrap();
        assert!(!id.is_at(&other));
        fs::rename(&other, &file).unwrap();
        assert!(!id.is_at(&file) && !id.is_at(&link));
        assert_eq!(FileId::of(&open.metadata().unwrap()), id);
    }
}
