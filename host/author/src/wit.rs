//! The text of the contract, as files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use portcullis_policy::WIT;

/// The name of the file in the folder of a contract.
const FILE: &str = "routing-policy.wit";

/// The contract could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WitError {
    /// There is a file with another content.
    #[error("{path} exists and has another content: remove it, or choose another directory", path = .0.display())]
    Other(PathBuf),
    /// The file system refused.
    #[error("cannot write {path}: {source}", path = path.display())]
    Unwritable {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Writes the contract to `routing-policy.wit` in a directory, which is created if it is missing. Returns the file.
///
/// # Errors
/// If the file cannot be written, or exists with another content and `replace` is false.
pub fn write_wit(folder: &Path, replace: bool) -> Result<PathBuf, WitError> {
    let path = folder.join(FILE);
    let unwritable = |path: &Path| {
        let path = path.to_owned();
        |source| WitError::Unwritable { path, source }
    };
    match fs::read(&path) {
        Ok(bytes) if bytes == WIT.as_bytes() => return Ok(path),
        Ok(_) if !replace => return Err(WitError::Other(path)),
        Ok(_) | Err(_) => {}
    }
    fs::create_dir_all(folder).map_err(unwritable(folder))?;
    fs::write(&path, WIT).map_err(unwritable(&path))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contract_is_written_once_and_replaced_only_on_request() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("a/wit");
        let file = write_wit(&folder, false).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), WIT);
        write_wit(&folder, false).unwrap();

        fs::write(&file, "package other:contract;\n").unwrap();
        assert!(matches!(write_wit(&folder, false), Err(WitError::Other(_))));
        write_wit(&folder, true).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), WIT);
    }
}
