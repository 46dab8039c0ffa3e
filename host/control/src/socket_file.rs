//! The files of Unix sockets and the FIFO: created with their permissions, taken over from a host that has ended, removed at the end.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, anyhow, bail};
use nix::errno::Errno;
use nix::sys::stat::Mode;
use nix::unistd::{Group, User, mkfifo};
use socket2::{Domain, SockAddr, Socket, Type};

use portcullis_config::FileAccess;
use portcullis_file_id::FileId;

use crate::heritage::Tenure;

/// Most connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// A file of this host, removed when dropped.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// A file that another program has put in its place is not removed.
    identity: Identity,
    tenure: Tenure,
}

/// Identity of a file, to recognise another file at the same path. Inode numbers are reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    id: FileId,
    kind: fs::FileType,
    created: Option<SystemTime>,
}

/// Permissions, with numeric user and group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    mode: u32,
    user: Option<u32>,
    group: Option<u32>,
}

impl Owner {
    /// Looks up user and group.
    ///
    /// # Errors
    /// If one does not exist. The error names the key.
    pub(super) fn find(access: &FileAccess) -> anyhow::Result<Self> {
        let absent = |what: &str, name: &str| {
            anyhow!("the {what} {name} does not exist: change `socket-{what}` in [control]")
        };
        let user = access.user.as_deref().map(|name| match name.parse() {
            Ok(number) => Ok(number),
            Err(_) => match User::from_name(name) {
                Ok(Some(user)) => Ok(user.uid.as_raw()),
                _ => Err(absent("user", name)),
            },
        });
        let group = access.group.as_deref().map(|name| match name.parse() {
            Ok(number) => Ok(number),
            Err(_) => match Group::from_name(name) {
                Ok(Some(group)) => Ok(group.gid.as_raw()),
                _ => Err(absent("group", name)),
            },
        });
        Ok(Self {
            mode: access.mode,
            user: user.transpose()?,
            group: group.transpose()?,
        })
    }

    /// Gives a file to this user and group with these permissions, independently of the umask.
    ///
    /// # Errors
    /// If this process may not do that.
    pub(super) fn take(self, path: &Path) -> anyhow::Result<()> {
        let shown = path.display();
        if self.user.is_some() || self.group.is_some() {
            chown(path, self.user, self.group).with_context(|| {
                format!("cannot give {shown} to the user and group of [control]: `socket-user`, `socket-group`")
            })?;
        }
        fs::set_permissions(path, Permissions::from_mode(self.mode))
            .with_context(|| format!("cannot set the permissions of {shown}"))
    }
}

impl SocketFile {
    /// Creates a Unix socket at `path`, which listens if it is a stream socket. It is non-blocking.
    ///
    /// # Errors
    /// If another process answers there, or the path cannot be used.
    pub(super) fn bind(
        path: &Path,
        kind: Type,
        owner: Owner,
        tenure: Tenure,
    ) -> anyhow::Result<(OwnedFd, Self)> {
        let shown = path.display();
        let addr = SockAddr::unix(path).with_context(|| format!("cannot use the path {shown}"))?;
        if is_there(path, |file| file.is_socket(), "unix socket")? {
            take_over(path, || {
                Socket::new(Domain::UNIX, kind, None)?.connect(&addr)
            })?;
        }
        let bind = || -> io::Result<Socket> {
            let socket = Socket::new(Domain::UNIX, kind, None)?;
            socket.set_nonblocking(true)?;
            // The socket gets its permissions before it is bound, so that the file never has wider ones.
            let descriptor = File::from(OwnedFd::from(socket));
            descriptor.set_permissions(Permissions::from_mode(owner.mode))?;
            let socket = Socket::from(OwnedFd::from(descriptor));
            socket.bind(&addr)?;
            Ok(socket)
        };
        let socket = bind().with_context(|| cant_make(path))?;
        let file = Self::claim(path, owner, tenure)?;
        if kind == Type::STREAM {
            socket.listen(BACKLOG).with_context(|| cant_make(path))?;
        }
        Ok((socket.into(), file))
    }

    /// Creates a FIFO at `path`.
    ///
    /// # Errors
    /// If another process reads from it, or the path cannot be used.
    pub(super) fn fifo(path: &Path, owner: Owner, tenure: Tenure) -> anyhow::Result<Self> {
        if is_there(path, |file| file.is_fifo(), "FIFO")? {
            let no_wait = nix::libc::O_NONBLOCK;
            take_over(path, || {
                let open = fs::OpenOptions::new()
                    .write(true)
                    .custom_flags(no_wait)
                    .open(path);
                open.map(drop)
            })?;
        }
        mkfifo(path, Mode::from_bits_truncate(owner.mode)).with_context(|| cant_make(path))?;
        Self::claim(path, owner, tenure)
    }

    /// The file of a socket or a FIFO that another process of this host has lent. It keeps its permissions: that process may still need it.
    ///
    /// # Errors
    /// If it is not there.
    pub(super) fn inherit(path: &Path, tenure: Tenure) -> anyhow::Result<Self> {
        let found = fs::symlink_metadata(path).with_context(|| cant_make(path))?;
        Ok(Self {
            path: path.to_owned(),
            identity: Identity::of(&found),
            tenure,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives a new file its owner and its permissions.
    fn claim(path: &Path, owner: Owner, tenure: Tenure) -> anyhow::Result<Self> {
        let file = Self::inherit(path, tenure)?;
        owner.take(path)?;
        Ok(file)
    }
}

impl Identity {
    fn of(found: &fs::Metadata) -> Self {
        Self {
            id: FileId::of(found),
            kind: found.file_type(),
            created: found.created().ok(),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if !self.tenure.is_ours() {
            return;
        }
        let Ok(found) = fs::symlink_metadata(&self.path) else {
            return;
        };
        if Identity::of(&found) == self.identity
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(event = "control_file_not_removed", %error, path = %self.path.display(), "control socket file cannot be removed");
        }
    }
}

/// Whether there is a file of the expected kind.
fn is_there(
    path: &Path,
    is_right: impl FnOnce(fs::FileType) -> bool,
    kind: &str,
) -> anyhow::Result<bool> {
    let shown = path.display();
    match fs::symlink_metadata(path) {
        Ok(found) if is_right(found.file_type()) => Ok(true),
        Ok(_) => bail!("{shown} exists and is not a {kind}: remove it, or change [control]"),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot look at {shown}")),
    }
}

/// Removes the file of a host that has ended. `try_it` succeeds if a process uses the file.
fn take_over(path: &Path, try_it: impl FnOnce() -> io::Result<()>) -> anyhow::Result<()> {
    let shown = path.display();
    // No process listens on the socket, or has the FIFO open for reading.
    let is_dead = |error: &io::Error| {
        error.kind() == ErrorKind::ConnectionRefused
            || error.raw_os_error() == Some(Errno::ENXIO as i32)
    };
    match try_it() {
        Ok(()) => bail!(
            "another process, such as a host or Kamailio, answers at {shown}: stop it, or change [control]"
        ),
        Err(error) if is_dead(&error) => {
            tracing::debug!(event = "control_file_replaced", path = %shown, "control socket file of an ended process replaced");
            fs::remove_file(path).with_context(|| format!("cannot replace {shown}"))
        }
        // Another kind of Unix socket, which is in use.
        Err(error) => Err(error).with_context(|| {
            format!("cannot determine whether {shown} is in use: remove it, or change [control]")
        }),
    }
}

pub(super) fn cant_make(path: &Path) -> String {
    format!(
        "cannot create {}: its directory must exist and be writable for this user",
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixDatagram, UnixListener};

    use super::*;

    fn kept() -> Tenure {
        Tenure::of(false)
    }

    fn owner() -> Owner {
        Owner {
            mode: 0o620,
            user: None,
            group: None,
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn files_have_their_permissions_and_are_removed_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        for kind in [Type::STREAM, Type::DGRAM] {
            let path = folder.path().join("socket");
            let (socket, file) = SocketFile::bind(&path, kind, owner(), kept()).unwrap();
            assert_eq!(mode(&path), 0o620);
            let error = SocketFile::bind(&path, kind, owner(), kept())
                .unwrap_err()
                .to_string();
            assert!(
                error.starts_with("another process, such as a host or Kamailio, answers at "),
                "{error}"
            );
            assert!(path.exists());
            drop((socket, file));
            assert!(!path.exists());
        }
        let path = folder.path().join("fifo");
        let file = SocketFile::fifo(&path, owner(), kept()).unwrap();
        assert_eq!(mode(&path), 0o620);
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn the_files_of_an_ended_host_are_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("left");
        drop(UnixListener::bind(&path).unwrap());
        drop(SocketFile::bind(&path, Type::STREAM, owner(), kept()).unwrap());
        drop(UnixDatagram::bind(&path).unwrap());
        drop(SocketFile::bind(&path, Type::DGRAM, owner(), kept()).unwrap());
        mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        let ours = SocketFile::fifo(&path, owner(), kept()).unwrap();
        let reader = fs::OpenOptions::new()
            .read(true)
            .custom_flags(nix::libc::O_NONBLOCK)
            .open(&path)
            .unwrap();
        let error = SocketFile::fifo(&path, owner(), kept())
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("another process, such as a host or Kamailio, answers at "),
            "{error}"
        );
        drop((reader, ours));
    }

    #[test]
    fn a_file_of_another_kind_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "precious").unwrap();
        for error in [
            SocketFile::fifo(&path, owner(), kept()).unwrap_err(),
            SocketFile::bind(&path, Type::STREAM, owner(), kept()).unwrap_err(),
        ] {
            assert!(
                error.to_string().contains(" exists and is not a "),
                "{error}"
            );
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");

        let taken = folder.path().join("taken");
        let file = SocketFile::fifo(&taken, owner(), kept()).unwrap();
        fs::remove_file(&taken).unwrap();
        fs::write(&taken, "another's").unwrap();
        drop(file);
        assert_eq!(fs::read_to_string(&taken).unwrap(), "another's");
    }

    #[test]
    fn errors_name_what_to_change() {
        let access = |user: Option<&str>, group: Option<&str>| FileAccess {
            mode: 0o600,
            user: user.map(Into::into),
            group: group.map(Into::into),
        };
        let find = |access| Owner::find(&access).map(|owner| (owner.user, owner.group));
        assert_eq!(
            find(access(Some("root"), Some("root"))).unwrap(),
            (Some(0), Some(0))
        );
        assert_eq!(find(access(Some("17"), None)).unwrap(), (Some(17), None));
        let error = find(access(None, Some("no such group"))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the group no such group does not exist: change `socket-group` in [control]"
        );
        let error =
            SocketFile::fifo(Path::new("/no/such/folder/fifo"), owner(), kept()).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("cannot create /no/such/folder/fifo: its directory must exist")
        );
    }
}
