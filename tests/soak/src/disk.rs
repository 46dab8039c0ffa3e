//! A small disk that can be filled: a tmpfs. Mounting it requires root.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use tempfile::TempDir;

/// Size of the disk.
const SIZE: &str = "4m";

/// A mounted disk; it is unmounted when this is dropped.
#[derive(Debug)]
pub(crate) struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    /// Mounts a disk; `None` if this process may not mount.
    pub(crate) fn mount() -> Result<Option<Self>> {
        let folder = tempfile::tempdir()?;
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o"])
            .arg(format!("size={SIZE},mode=0777"))
            .arg("tmpfs")
            .arg(folder.path())
            .stderr(Stdio::null())
            .status()
            .context("mount cannot be run")?;
        Ok(status.success().then_some(Self { folder }))
    }

    /// Its mount point.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Fills the disk until the filler is dropped.
    pub(crate) fn fill(&self) -> Result<Filler> {
        let path = self.path().join("filler");
        let mut filler = Filler {
            file: fs::File::create(&path)?,
            path,
        };
        filler.top_up();
        Ok(filler)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the host may still have its file open.
        let _unmounted = Command::new("umount")
            .arg("--lazy")
            .arg(self.folder.path())
            .status();
    }
}

/// The file that fills the disk.
pub(crate) struct Filler {
    file: fs::File,
    path: PathBuf,
}

impl Filler {
    /// Fills the room that other files have freed.
    pub(crate) fn top_up(&mut self) {
        for length in [4096, 1] {
            while self.file.write_all(&vec![0; length]).is_ok() {}
        }
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        let _removed = fs::remove_file(&self.path);
    }
}
