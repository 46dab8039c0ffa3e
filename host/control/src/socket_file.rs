//! The files that unix sockets and the FIFO have: made with their permissions, taken over from a dead host, removed at the end.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, anyhow, bail};
use nix::errno::Errno;
use nix::sys::stat::Mode;
use nix::unistd::{Group, User, mkfifo};
use socket2::{Domain, SockAddr, Socket, Type};

use portcullis_config::FileAccess;

/// Connections that may wait for being taken.
const BACKLOG: i32 = 128;

/// A file of ours, removed when this is dropped.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// A file that somebody has put in its place is not ours.
    identity: Identity,
}

/// What tells a file from another one at the same path. Numbers of inodes are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    kind: fs::FileType,
    created: Option<SystemTime>,
}

/// Permissions with the numbers of user and group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    mode: u32,
    user: Option<u32>,
    group: Option<u32>,
}

impl Owner {
    /// Looks the names up.
    ///
    /// # Errors
    /// Names the key and the user or group that there is not.
    pub(super) fn find(access: &FileAccess) -> anyhow::Result<Self> {
        let absent = |what: &str, name: &str| {
            anyhow!("there is no {what} {name}: change `socket-{what}` in [control]")
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
}

impl SocketFile {
    /// A unix socket at `path`, listening if it is one for streams. Not blocking.
    ///
    /// # Errors
    /// If somebody answers there, or the path can't be used.
    pub(super) fn bind(path: &Path, kind: Type, owner: Owner) -> anyhow::Result<(OwnedFd, Self)> {
        let shown = path.display();
        let addr = SockAddr::unix(path).with_context(|| format!("can't use the path {shown}"))?;
        if is_there(path, |file| file.is_socket(), "unix socket")? {
            take_over(path, || {
                Socket::new(Domain::UNIX, kind, None)?.connect(&addr)
            })?;
        }
        let bind = || -> io::Result<Socket> {
            let socket = Socket::new(Domain::UNIX, kind, None)?;
            socket.set_nonblocking(true)?;
            // The file gets the permissions that the socket has before, so that there is no moment with wider ones.
            let descriptor = File::from(OwnedFd::from(socket));
            descriptor.set_permissions(Permissions::from_mode(owner.mode))?;
            let socket = Socket::from(OwnedFd::from(descriptor));
            socket.bind(&addr)?;
            Ok(socket)
        };
        let socket = bind().with_context(|| cant_make(path))?;
        let file = Self::claim(path, owner)?;
        if kind == Type::STREAM {
            socket.listen(BACKLOG).with_context(|| cant_make(path))?;
        }
        Ok((socket.into(), file))
    }

    /// A FIFO at `path`.
    ///
    /// # Errors
    /// If somebody reads from it, or the path can't be used.
    pub(super) fn fifo(path: &Path, owner: Owner) -> anyhow::Result<Self> {
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
        Self::claim(path, owner)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives a new file its permissions, whatever the mask of the process has left of them, and its owner.
    fn claim(path: &Path, owner: Owner) -> anyhow::Result<Self> {
        let shown = path.display();
        let found = fs::symlink_metadata(path).with_context(|| cant_make(path))?;
        let file = Self {
            path: path.to_owned(),
            identity: Identity::of(&found),
        };
        if owner.user.is_some() || owner.group.is_some() {
            chown(path, owner.user, owner.group).with_context(|| {
                format!("can't give {shown} to the user and group of [control]: `socket-user`, `socket-group`")
            })?;
        }
        fs::set_permissions(path, Permissions::from_mode(owner.mode))
            .with_context(|| format!("can't set the permissions of {shown}"))?;
        Ok(file)
    }
}

impl Identity {
    fn of(found: &fs::Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
            kind: found.file_type(),
            created: found.created().ok(),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
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

/// True if there is a file of the right kind.
fn is_there(
    path: &Path,
    is_right: impl FnOnce(fs::FileType) -> bool,
    kind: &str,
) -> anyhow::Result<bool> {
    let shown = path.display();
    match fs::symlink_metadata(path) {
        Ok(found) if is_right(found.file_type()) => Ok(true),
        Ok(_) => bail!("{shown} is there and no {kind}: remove it, or change [control]"),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("can't look at {shown}")),
    }
}

/// Removes what a dead host has left. `try_it` succeeds if somebody is there.
fn take_over(path: &Path, try_it: impl FnOnce() -> io::Result<()>) -> anyhow::Result<()> {
    let shown = path.display();
    // Nobody listens on the socket, or has the FIFO open for reading.
    let is_dead = |error: &io::Error| {
        error.kind() == ErrorKind::ConnectionRefused
            || error.raw_os_error() == Some(Errno::ENXIO as i32)
    };
    match try_it() {
        Ok(()) => bail!(
            "somebody answers at {shown} already, another host or Kamailio: stop it, or change [control]"
        ),
        Err(error) if is_dead(&error) => {
            tracing::debug!(event = "control_file_replaced", path = %shown, "control socket file of an ended process replaced");
            fs::remove_file(path).with_context(|| format!("can't replace {shown}"))
        }
        // Another kind of unix socket: somebody uses it.
        Err(error) => Err(error).with_context(|| {
            format!("can't tell whether somebody uses {shown}: remove it, or change [control]")
        }),
    }
}

pub(super) fn cant_make(path: &Path) -> String {
    format!(
        "can't make {}: its folder must be there, and this user must be allowed to write to it",
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixDatagram, UnixListener};

    use super::*;

    fn owner() -> Owner {
        Owner {
            mode: 0o620,
            user: None,
            group: None,
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn files_have_their_permissions_and_go_with_their_host() {
        let folder = tempfile::tempdir().unwrap();
        for kind in [Type::STREAM, Type::DGRAM] {
            let path = folder.path().join("socket");
            let (socket, file) = SocketFile::bind(&path, kind, owner()).unwrap();
            assert_eq!(mode(&path), 0o620);
            let error = SocketFile::bind(&path, kind, owner())
                .unwrap_err()
                .to_string();
            assert!(error.starts_with("somebody answers at "), "{error}");
            assert!(path.exists());
            drop((socket, file));
            assert!(!path.exists());
        }
        let path = folder.path().join("fifo");
        let file = SocketFile::fifo(&path, owner()).unwrap();
        assert_eq!(mode(&path), 0o620);
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn what_a_dead_host_left_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("left");
        drop(UnixListener::bind(&path).unwrap());
        drop(SocketFile::bind(&path, Type::STREAM, owner()).unwrap());
        drop(UnixDatagram::bind(&path).unwrap());
        drop(SocketFile::bind(&path, Type::DGRAM, owner()).unwrap());
        mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        let ours = SocketFile::fifo(&path, owner()).unwrap();
        let reader = fs::OpenOptions::new()
            .read(true)
            .custom_flags(nix::libc::O_NONBLOCK)
            .open(&path)
            .unwrap();
        let error = SocketFile::fifo(&path, owner()).unwrap_err().to_string();
        assert!(error.starts_with("somebody answers at "), "{error}");
        drop((reader, ours));
    }

    #[test]
    fn a_file_of_somebody_else_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "precious").unwrap();
        for error in [
            SocketFile::fifo(&path, owner()).unwrap_err(),
            SocketFile::bind(&path, Type::STREAM, owner()).unwrap_err(),
        ] {
            assert!(error.to_string().contains(" is there and no "), "{error}");
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");

        let taken = folder.path().join("taken");
        let file = SocketFile::fifo(&taken, owner()).unwrap();
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
            "there is no group no such group: change `socket-group` in [control]"
        );
        let error = SocketFile::fifo(Path::new("/no/such/folder/fifo"), owner()).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("can't make /no/such/folder/fifo: its folder must be there")
        );
    }
}
