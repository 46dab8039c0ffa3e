//! The file with the key that seals branches, tags and dialogs.
//!
//! The first key line, 32 hexadecimal digits, is the current key. Further lines are previous keys, with which values in transit may still
//! be sealed. Empty lines and lines that begin with `#` are ignored. All hosts of a fleet have the same file.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// The name of the file in the state directory that systemd provides.
const DEFAULT_NAME: &str = "seal.key";

/// Keys accepted in addition to the current one; each costs one more hash per forged message.
const MOST_EARLIER: usize = 3;

/// The keys of a host.
#[derive(Clone, PartialEq, Eq)]
pub struct SealKeys {
    /// The key that seals new values.
    pub current: [u8; 16],
    /// Previous keys, which are still accepted.
    pub earlier: Vec<[u8; 16]>,
}

/// Why there is no key.
#[derive(Debug, Error)]
pub enum SealKeyError {
    /// The file cannot be read or created.
    #[error(
        "[sip] key-file: {path}: {source}; the file must exist and be readable, or the host must be able to create it"
    )]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A line is not a key.
    #[error(
        "[sip] key-file: {path}:{line}: not a key; a key is 32 hexadecimal digits, as `openssl rand -hex 16` prints them. Remove an \
         empty file, and the host generates a new one"
    )]
    NoKey {
        /// The file.
        path: PathBuf,
        /// The line; the one after the last if there is no key at all.
        line: usize,
    },
    /// Too many lines.
    #[error("[sip] key-file: {path}: more than {MOST_EARLIER} previous keys; remove the last ones")]
    TooMany {
        /// The file.
        path: PathBuf,
    },
    /// The system provides no random numbers.
    #[error("the system provides no random numbers: {0}")]
    Random(String),
}

impl SealKeys {
    /// The keys of the file, which is created if it is missing; without a file, random keys for this process only.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub fn load(file: Option<&Path>) -> Result<Self, SealKeyError> {
        let Some(path) = file else {
            return Ok(Self {
                current: random()?,
                earlier: Vec::new(),
            });
        };
        let failed = |source| SealKeyError::File {
            path: path.to_owned(),
            source,
        };
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make(path, random()?).map_err(failed)?;
                fs::read_to_string(path)
            }
            read => read,
        };
        Self::parse(&text.map_err(failed)?, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, SealKeyError> {
        let lines = text.lines().map(str::trim).zip(1..);
        let mut keys = lines
            .filter(|(line, _)| !line.is_empty() && !line.starts_with('#'))
            .map(|(line, number)| {
                key_of(line).ok_or_else(|| SealKeyError::NoKey {
                    path: path.to_owned(),
                    line: number,
                })
            });
        let current = keys.next().unwrap_or_else(|| {
            Err(SealKeyError::NoKey {
                path: path.to_owned(),
                line: text.lines().count() + 1,
            })
        })?;
        let earlier = keys.collect::<Result<Vec<_>, _>>()?;
        if earlier.len() > MOST_EARLIER {
            let path = path.to_owned();
            return Err(SealKeyError::TooMany { path });
        }
        Ok(Self { current, earlier })
    }
}

impl std::fmt::Debug for SealKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SealKeys({} previous)", self.earlier.len())
    }
}

/// The file to use if the configuration names none: in the state directory of systemd (`StateDirectory=`), if there is one.
pub fn default_file() -> Option<PathBuf> {
    let folders = std::env::var_os("STATE_DIRECTORY")?;
    let first = std::env::split_paths(&folders).next()?;
    (!first.as_os_str().is_empty()).then(|| first.join(DEFAULT_NAME))
}

/// Whether users other than its owner and group may read the file.
pub fn is_open(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.mode() & 0o007 != 0)
}

fn key_of(line: &str) -> Option<[u8; 16]> {
    let mut key = [0; 16];
    hex::decode_to_slice(line, &mut key).ok()?;
    Some(key)
}

/// Creates the file, readable only by its owner. If another process creates it meanwhile, that file is used: no process ever sees a partial
/// file.
fn make(path: &Path, key: [u8; 16]) -> io::Result<()> {
    let digits = hex::encode(key);
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}", std::process::id()));
    let draft = PathBuf::from(draft);
    let written = write_draft(&draft, &digits).and_then(|()| match fs::hard_link(&draft, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    });
    let _gone = fs::remove_file(&draft);
    written
}

fn write_draft(draft: &Path, digits: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(draft)?;
    writeln!(
        file,
        "# Portcullis: the key that seals branches, tags and dialogs. Secret; the same on every host of a fleet.\n\
         # To change it, put a new key above this one, and remove the old one a day later.\n{digits}"
    )?;
    file.sync_all()
}

fn random() -> Result<[u8; 16], SealKeyError> {
    let mut key = [0; 16];
    getrandom::fill(&mut key).map_err(|error| SealKeyError::Random(error.to_string()))?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "000102030405060708090a0b0c0d0e0f";
    const TWO: &str = "FFffffffffffffffffffffffffffffff";

    fn read(text: &str) -> Result<SealKeys, String> {
        SealKeys::parse(text, Path::new("k")).map_err(|error| error.to_string())
    }

    #[test]
    fn the_first_key_is_the_current_one() {
        let keys = read(&format!("# a key\n\n {ONE} \r\n{TWO}\n")).unwrap();
        assert_eq!(keys.current[..4], [0, 1, 2, 3]);
        assert_eq!(keys.earlier, [[0xff; 16]]);
        assert_eq!(format!("{keys:?}"), "SealKeys(1 previous)");
    }

    #[test]
    fn what_is_no_key_is_named() {
        for (text, place) in [
            ("", "k:1: not a key"),
            ("# nothing\n", "k:2: not a key"),
            ("0001", "k:1: not a key"),
            (&format!("{ONE}\n{ONE}0"), "k:2: not a key"),
            (&format!("{ONE}\nkey: {TWO}"), "k:2: not a key"),
            (&"x".repeat(32), "k:1: not a key"),
            (&"€".repeat(32), "k:1: not a key"),
            (&format!("{ONE}\n").repeat(5), "k: more than 3"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(place), "{error}");
        }
    }

    #[test]
    fn a_file_is_made_once_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seal.key");
        let first = SealKeys::load(Some(&path)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(!is_open(&path));
        assert_eq!(SealKeys::load(Some(&path)).unwrap(), first);
        // Somebody else was quicker.
        make(&path, [7; 16]).unwrap();
        assert_eq!(SealKeys::load(Some(&path)).unwrap(), first);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let absent = folder.path().join("no folder/seal.key");
        let error = SealKeys::load(Some(&absent)).unwrap_err().to_string();
        assert!(error.contains("no folder/seal.key"), "{error}");
    }

    #[test]
    fn without_a_file_every_start_has_its_own() {
        assert_ne!(SealKeys::load(None).unwrap(), SealKeys::load(None).unwrap());
    }
}
