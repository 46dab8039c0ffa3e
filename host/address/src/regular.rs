//! Files that are read as a whole.

use std::fs::File;
use std::io;
use std::path::Path;

/// Opens a file for reading. A pipe, a socket or a device is an error: opening a pipe blocks until it has a writer, and would delay
/// everything that waits for the file.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let metadata = std::fs::metadata(path)?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !metadata.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is a pipe, a socket or a device, and not a file",
        ));
    }
    File::open(path)
}
