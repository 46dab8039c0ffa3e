//! Checks for disk space, before something fails for lack of it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process::capture;

/// Checks that a directory has this many MiB of free space.
///
/// # Errors
/// If it has less. The error names the directory, the free and the required space.
pub(crate) fn require(folder: &Path, needed: u64) -> Result<()> {
    let mut df = Command::new("df");
    let free = free(&capture(df.args(["-P", "-k"]).arg(folder))?)?;
    ensure!(
        free >= needed,
        "{}: {free} MiB are free, {needed} MiB are needed: free some space, or set TMPDIR to a directory with enough",
        folder.display()
    );
    Ok(())
}

/// Parses the free MiB in the output of `df -P -k` for one directory: the word before the percentage. The name of the device may contain
/// spaces.
fn free(text: &str) -> Result<u64> {
    let line = text.lines().nth(1).unwrap_or_default();
    let before_percent = line.split('%').next().unwrap_or_default();
    let free = before_percent.split_whitespace().nth_back(1);
    let kib: u64 = free
        .and_then(|free| free.parse().ok())
        .with_context(|| format!("`df -P -k` did not answer as expected: {text}"))?;
    Ok(kib >> 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_of_df_is_parsed() {
        let text = "Filesystem 1024-blocks Used Available Capacity Mounted on\n\
                    /dev/my disk 263174212 31457280 65011712 33% /mnt/a 5% b\n";
        assert_eq!(free(text).unwrap(), 63488);
        assert!(free("df: /nowhere: No such file or directory").is_err());
    }

    #[test]
    fn too_little_space_is_reported() {
        let folder = std::env::temp_dir();
        require(&folder, 0).unwrap();
        let error = require(&folder, u64::MAX).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("{}: ", folder.display())),
            "{error}"
        );
        assert!(error.contains("TMPDIR"), "{error}");
    }
}
