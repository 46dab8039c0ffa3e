//! Who may read the host's files.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Files for their owner only: databases with digests of tokens, keys.
pub(crate) const PRIVATE: u32 = 0o600;

/// Records of calls, which a group may read to forward them.
pub(crate) const RECORDS: u32 = 0o640;

/// What is wrong with the mode of a file that may have at most this one; `None` if it is correct, or the file does not exist.
pub(crate) fn too_open(file: &Path, most: u32) -> Option<String> {
    let metadata = std::fs::metadata(file).ok()?;
    let mode = metadata.permissions().mode() & 0o777;
    let beyond = mode & 0o077 & !most;
    (beyond != 0).then(|| {
        let file = file.display();
        format!(
            "{file} has mode {mode:04o}, so other users have access to it: chmod {most:04o} {file}"
        )
    })
}

#[cfg(test)]
mod tests {
    use std::fs::{File, Permissions, set_permissions};

    use super::*;

    #[test]
    fn a_file_that_others_can_read_is_told_with_its_mend() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("table.db");
        assert_eq!(too_open(&file, PRIVATE), None);
        File::create(&file).unwrap();
        for (mode, most, is_told) in [
            (0o600, PRIVATE, false),
            (0o400, PRIVATE, false),
            (0o640, PRIVATE, true),
            (0o640, RECORDS, false),
            (0o644, RECORDS, true),
            (0o660, RECORDS, true),
        ] {
            set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            assert_eq!(
                too_open(&file, most).is_some(),
                is_told,
                "{mode:o} {most:o}"
            );
        }
        let said = too_open(&file, RECORDS).unwrap();
        assert!(
            said.contains("mode 0660") && said.contains("chmod 0640"),
            "{said}"
        );
    }
}
