//! Files that are read whole.

use std::fs::File;
use std::io;
use std::path::Path;

/// Opens a file to read it. A pipe, a socket or a device in its place is an error: opening a pipe waits until somebody writes to it, and
/// what waits for the file would wait with it.
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
