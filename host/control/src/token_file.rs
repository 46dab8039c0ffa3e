//! The generated token of a host without a token in its configuration: created at the first start, in a file that only this user can read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::libc::{O_NOFOLLOW, O_NONBLOCK};
use nix::unistd::{Uid, geteuid};

use portcullis_config::Token;

/// Random bytes of a token.
const RANDOM: usize = 32;

/// Upper bound of the length of a token in bytes.
const MOST: u64 = 1024;

/// Returns the token in this file, which is created if it does not exist.
///
/// # Errors
/// If the file cannot be created, others may read or replace it, or it contains no token.
pub(super) fn open_or_make(path: &Path) -> anyhow::Result<Token> {
    let shown = path.display();
    match check(path, geteuid())? {
        Some(token) => Ok(token),
        None => {
            make(path).with_context(|| cant_make(path))?;
            tracing::info!(event = "token_made", path = %shown, "token for HTTP created");
            // If two hosts start at the same time, both use the token that the first has created.
            check(path, geteuid())?.with_context(|| format!("{shown} was removed at once"))
        }
    }
}

/// Returns the token in this file, if it exists. The file must belong to `owner`.
fn check(path: &Path, owner: Uid) -> anyhow::Result<Option<Token>> {
    let shown = path.display();
    let file = match open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(error).with_context(|| {
                format!("cannot read the token file {shown}: change `token-file` in [control]")
            });
        }
    };
    let found = file.metadata()?;
    if !found.is_file() {
        bail!("the token file {shown} is not a file: change `token-file` in [control]");
    }
    if found.uid() != owner.as_raw() {
        bail!(
            "the token file {shown} belongs to user {}, who could read the token: remove it, or change `token-file` in [control]",
            found.uid()
        );
    }
    if found.mode() & 0o077 != 0 {
        bail!(
            "the token file {shown} is accessible to others (mode {:04o}): remove it, or `chmod 0600` it if nobody else has read it",
            found.mode() & 0o7777
        );
    }
    let secret = secret(file)?;
    let token = secret.and_then(|secret| Token::from_secret(&secret));
    match token {
        Some(token) => Ok(Some(token)),
        None => {
            bail!(
                "the token file {shown} contains no valid token: remove it, and the host generates a new one"
            )
        }
    }
}

/// Returns the token in this file, for a command; `None` if the file does not exist.
///
/// # Errors
/// If it cannot be read.
pub fn read(path: &Path) -> io::Result<Option<String>> {
    match open(path) {
        Ok(file) => secret(file),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns what would prevent a host from using this file.
pub(super) fn problem(path: &Path) -> Option<String> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    // Root may check the files of a host that runs as another user.
    let owner = match fs::symlink_metadata(path) {
        Ok(found) if geteuid().is_root() => Uid::from_raw(found.uid()),
        _ => geteuid(),
    };
    match check(path, owner) {
        Ok(None) if !folder.is_dir() => Some(cant_make(path)),
        Ok(_) => None,
        Err(error) => Some(portcullis_text::one_line(&error)),
    }
}

/// Opens the file without blocking on a FIFO and without following a symbolic link.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(O_NOFOLLOW | O_NONBLOCK);
    options.open(path)
}

fn secret(file: File) -> io::Result<Option<String>> {
    let mut text = String::new();
    file.take(MOST).read_to_string(&mut text)?;
    let secret = text.trim();
    Ok((!secret.is_empty()).then(|| secret.to_owned()))
}

/// Creates the file with its whole content atomically, unless it exists.
fn make(path: &Path) -> io::Result<()> {
    let mut random = [0; RANDOM];
    getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
    let digits = hex::encode(random);
    let draft = draft(path);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let written = options.open(&draft).and_then(|mut file| {
        file.write_all(format!("{digits}\n").as_bytes())?;
        file.sync_all()?;
        match fs::hard_link(&draft, path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    });
    let _best_effort = fs::remove_file(&draft);
    written
}

fn draft(path: &Path) -> PathBuf {
    let mut draft = path.to_owned().into_os_string();
    draft.push(format!(".{}", std::process::id()));
    draft.into()
}

fn cant_make(path: &Path) -> String {
    format!(
        "cannot create the token file {}: its directory must exist and be writable for this user; change `token-file` \
         in [control], or set `token`",
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_token_is_generated_once_and_readable_by_its_user_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        assert_eq!(read(&path).unwrap(), None);
        let made = open_or_make(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        let secret = read(&path).unwrap().unwrap();
        assert!(secret.len() == 2 * RANDOM && made.is(secret.as_bytes()));
        assert_eq!(open_or_make(&path).unwrap(), made);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let other = open_or_make(&folder.path().join("other")).unwrap();
        assert_ne!(other, made);
    }

    #[test]
    fn a_file_that_others_can_read_or_that_is_not_a_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let told = |path: &Path| open_or_make(path).unwrap_err().to_string();

        open_or_make(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(
            told(&path).contains("is accessible to others (mode 0640)"),
            "{}",
            told(&path)
        );
        assert!(problem(&path).is_some());

        let link = folder.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(
            told(&link).contains("cannot read the token file"),
            "{}",
            told(&link)
        );
        assert!(told(folder.path()).contains("is not a file"));

        let empty = folder.path().join("empty");
        fs::write(&empty, "short\n").unwrap();
        fs::set_permissions(&empty, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(
            told(&empty).contains("contains no valid token"),
            "{}",
            told(&empty)
        );

        let nowhere = Path::new("/no/such/folder/token");
        assert!(told(nowhere).contains("its directory must exist"));
        assert!(problem(nowhere).is_some());
        assert_eq!(problem(&folder.path().join("new")), None);
    }
}
