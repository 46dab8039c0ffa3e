//! A small pool of connections to one database, on the server in use.
//!
//! The pools of the drivers open connections themselves, and so do not support a server reached without TLS where TLS is only preferred, a
//! file that has been replaced, or the runtimes of threads that load tables: a connection works only on the runtime that it was opened on.

mod migrate;
mod retry;
mod rows;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_file_id::FileId;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{sleep, timeout};

use crate::dialect::{self, driver_of};
use crate::health::Health;
use crate::link::Link;
use crate::pool::{Kept, Shared};
use crate::servers::ServersStatus;
use crate::unseen::Unseen;
use crate::wire::{Origin, Wire};
use crate::{DatabaseUrl, DatabaseUrls, Dialect, Failure};

pub use migrate::{MigrationAction, MigrationStep};
pub use retry::{HasFailure, Try};

/// Maximum number of idle connections.
const MOST_KEPT: usize = 4;

/// Time limit for the answer of a server whether it serves, where another one can be used instead.
const HEALTH: Duration = Duration::from_millis(700);

/// How long a server may lack what was written last: replicas are a moment late.
const LATE: Duration = Duration::from_millis(200);

/// A connection to a server that serves.
struct Taken {
    wire: Wire,
    origin: Origin,
    /// Whether it is used only if no other server serves.
    is_spare: bool,
}

/// The connections to one database. Clones share them.
#[derive(Clone)]
pub struct Connections {
    shared: Arc<Shared>,
}

impl Connections {
    /// Connections that are closed on return: for a command that needs one or two.
    pub fn new(urls: impl Into<DatabaseUrls>) -> Self {
        Self::keeping_some(urls.into(), 0)
    }

    /// Connections of which a few are kept for a minute: for a host that polls its tables every second.
    pub fn kept(urls: impl Into<DatabaseUrls>) -> Self {
        Self::keeping_some(urls.into(), MOST_KEPT)
    }

    fn keeping_some(urls: DatabaseUrls, most_kept: usize) -> Self {
        Self {
            shared: Arc::new(Shared::new(urls, most_kept)),
        }
    }

    /// The URL of the server in use, or of the one that is tried first; that of the file.
    pub fn url(&self) -> &DatabaseUrl {
        self.shared.url()
    }

    /// Whether both are of one pool.
    pub(crate) fn is_pool_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// The servers of the database.
    pub fn urls(&self) -> &DatabaseUrls {
        self.shared.servers.urls()
    }

    /// What is known of the servers.
    pub fn servers(&self) -> ServersStatus {
        self.shared.servers.status()
    }

    /// Accepts the state of the database although it is older than the one that was read last, or of another history, if that has been told as
    /// [`ServersStatus::older`]. A state that is only late is not accepted. Returns whether it was accepted.
    pub fn accept_older(&self) -> bool {
        self.shared.servers.accept()
    }

    /// Asks each server whether it serves. Returns its position, or why it does not.
    pub async fn ask_each(&self) -> Vec<(DatabaseUrl, Result<String, Failure>)> {
        let mut all = Vec::new();
        for (server, url) in self.urls().all().iter().enumerate() {
            let asked = self.take_from(server, HEALTH).await;
            let said = match asked {
                Ok(Taken {
                    mut wire,
                    mut origin,
                    is_spare,
                }) => {
                    let health = timeout(HEALTH, Health::ask(&mut wire, &mut origin.kind)).await;
                    wire.close().await;
                    let health = health.ok().and_then(Result::ok).unwrap_or_default();
                    let at = match health.position {
                        Some(position) => format!("serves, at {position}"),
                        None => "serves; it does not say how far it is, so that a server that lags is not noticed".to_owned(),
                    };
                    Ok(match is_spare {
                        true => format!("{at}; used only if no other server serves"),
                        false => at,
                    })
                }
                Err(failure) => Err(failure),
            };
            all.push((url.clone(), said));
        }
        all
    }

    /// Whether there are several servers.
    pub fn is_cluster(&self) -> bool {
        self.urls().is_cluster()
    }

    pub(crate) fn note_retry(&self) {
        self.shared.servers.retried();
    }

    /// The SQL dialect of this database.
    pub fn dialect(&self) -> &'static dyn Dialect {
        driver_of(self.urls().first())
    }

    /// Takes a connection, with this time limit for each answer: to the server in use if it serves, else to another one. Its state is never
    /// older than the one that was read or written last.
    ///
    /// # Errors
    /// When no server can be reached, none has that state, or all connections are in use for too long.
    pub async fn take(&self, limit: Duration) -> Result<Link, Failure> {
        let shared = &self.shared;
        let permit = shared.permit().await?;
        let mut spares: Vec<(Wire, Origin)> = Vec::new();
        let mut failures = Vec::new();
        for server in shared.servers.order() {
            match self.take_from(server, limit).await {
                Ok(Taken {
                    wire,
                    origin,
                    is_spare: true,
                }) => spares.push((wire, origin)),
                Ok(Taken { wire, origin, .. }) => {
                    // A spare rests: the server in use is one that serves without reserve.
                    for (_, spare) in &spares {
                        shared.servers.failed(spare.server, &self.spare(spare));
                    }
                    return Ok(self.linked(wire, origin, limit, permit));
                }
                Err(failure) => {
                    shared.servers.failed(server, &failure);
                    failures.push(failure);
                }
            }
        }
        if let Some((wire, origin)) = spares.into_iter().next() {
            return Ok(self.linked(wire, origin, limit, permit));
        }
        Err(self.all_failed(failures))
    }

    /// Why a spare is not used while another server serves.
    fn spare(&self, origin: &Origin) -> Failure {
        Failure::NotServing {
            url: self.shared.servers.url(origin.server).to_string(),
            cause: "it only reads, or sends its state to another node: it is used if no other server serves".to_owned(),
        }
    }

    fn linked(
        &self,
        wire: Wire,
        origin: Origin,
        limit: Duration,
        permit: OwnedSemaphorePermit,
    ) -> Link {
        self.shared.servers.served(origin.server);
        self.probe();
        Link::new(wire, origin, limit, Arc::clone(&self.shared), permit)
    }

    /// A connection to one server, which serves.
    async fn take_from(&self, server: usize, limit: Duration) -> Result<Taken, Failure> {
        let shared = &self.shared;
        let runtime = Handle::current().id();
        let patience = match self.is_cluster() {
            true => limit.min(HEALTH),
            false => limit,
        };
        while let Some(Kept {
            mut wire,
            mut origin,
            ..
        }) = shared.take_kept(server, runtime)
        {
            match timeout(patience, Health::ask(&mut wire, &mut origin.kind)).await {
                Ok(Ok(health)) => {
                    let is_spare = self.check(server, &mut wire, &mut origin, health).await?;
                    return Ok(Taken {
                        wire,
                        origin,
                        is_spare,
                    });
                }
                // The server has closed it.
                Ok(Err(_)) => {}
                Err(_elapsed) => return Err(Failure::hung(shared.servers.url(server), patience)),
            }
        }
        let (mut wire, mut origin) = self.open(server).await?;
        let asked = timeout(patience, Health::ask(&mut wire, &mut origin.kind)).await;
        let url = shared.servers.url(server);
        let health = match asked {
            Ok(asked) => asked.map_err(|error| Failure::of(url, &error))?,
            Err(_elapsed) => return Err(Failure::hung(url, patience)),
        };
        let is_spare = self.check(server, &mut wire, &mut origin, health).await?;
        Ok(Taken {
            wire,
            origin,
            is_spare,
        })
    }

    async fn open(&self, server: usize) -> Result<(Wire, Origin), Failure> {
        let shared = &self.shared;
        let file = shared.file().and_then(FileId::at);
        let wire = shared.connect(server).await?;
        let origin = Origin {
            runtime: Handle::current().id(),
            // The file may have been replaced while it was being opened.
            file: file.filter(|_| shared.file().and_then(FileId::at) == file),
            server,
            kind: None,
            settings: Vec::new(),
        };
        Ok((wire, origin))
    }

    /// Checks that a server serves and has the state that was read last. A replica may be a moment late. Returns whether it is a spare.
    async fn check(
        &self,
        server: usize,
        wire: &mut Wire,
        origin: &mut Origin,
        health: Health,
    ) -> Result<bool, Failure> {
        let servers = &self.shared.servers;
        let begun = Instant::now();
        let mut health = health;
        loop {
            if let Some(cause) = health.trouble {
                let url = servers.url(server).to_string();
                return Err(Failure::NotServing { url, cause });
            }
            match servers.admit(server, health.position.as_ref()) {
                Ok(()) => break,
                Err(failure @ Failure::Older { is_other: true, .. }) => return Err(failure),
                Err(failure) if begun.elapsed() >= LATE => return Err(failure),
                Err(_) => {}
            }
            if health.position.is_none() {
                // A server without GTIDs when the connection was opened may have some now.
                origin.kind = None;
            }
            sleep(LATE / 10).await;
            let url = servers.url(server);
            health = match timeout(HEALTH, Health::ask(wire, &mut origin.kind)).await {
                Ok(asked) => asked.map_err(|error| Failure::of(url, &error))?,
                Err(_elapsed) => return Err(Failure::hung(url, HEALTH)),
            };
        }
        Ok(health.is_spare && self.is_cluster())
    }

    /// The failure of all servers as one.
    fn all_failed(&self, failures: Vec<Failure>) -> Failure {
        let said: Vec<_> = failures.iter().map(ToString::to_string).collect();
        let said = said.join("; ");
        let mut older = failures.iter().filter_map(|failure| match failure {
            Failure::Older { is_other, .. } => Some(*is_other),
            Failure::Unreachable { .. }
            | Failure::NoFile { .. }
            | Failure::NoTable { .. }
            | Failure::NoColumn { .. }
            | Failure::Version { .. }
            | Failure::Hung { .. }
            | Failure::Lost { .. }
            | Failure::ReadOnly { .. }
            | Failure::NotServing { .. }
            | Failure::Denied { .. }
            | Failure::Conflict { .. }
            | Failure::Failed { .. } => None,
        });
        if let Some(first) = older.next() {
            let is_other = first || older.any(|is_other| is_other);
            self.shared.servers.all_older(&said, is_other);
            let cause = match self.servers().older {
                Some(_) => {
                    "it has an older state than the one in use, or is another one; a database that was restored from a backup is accepted with \
                     `portcullis address reload`"
                }
                None => "no server has the state in use yet",
            };
            // Without the positions, which change all the time: an error that repeats is logged once. `database_older` and the status have them.
            return Failure::Older {
                url: self.urls().to_string(),
                cause: cause.to_owned(),
                is_other,
            };
        }
        let url = self.urls().to_string();
        let mut failures = failures.into_iter();
        match (failures.next(), failures.next()) {
            (Some(only), None) => only,
            (_, None) => Failure::Unreachable {
                url,
                cause: "no server is known".to_owned(),
            },
            (_, Some(_)) => Failure::Unreachable { url, cause: said },
        }
    }

    /// Tries a preferred server while a less preferred one is in use, if its turn has come, without delaying the caller.
    fn probe(&self) {
        // A thread that loads tables drives its tasks only while it loads.
        let handle = Handle::current();
        if handle.runtime_flavor() != RuntimeFlavor::MultiThread {
            return;
        }
        let Some(server) = self.shared.servers.probe() else {
            return;
        };
        let connections = self.clone();
        handle.spawn(async move {
            let servers = &connections.shared.servers;
            match connections.take_from(server, HEALTH).await {
                Ok(Taken { wire, is_spare, .. }) => {
                    wire.close().await;
                    if !is_spare {
                        servers.proved(server);
                    }
                }
                Err(failure) => servers.failed(server, &failure),
            }
        });
    }

    /// The same, but a missing or empty file is an error: SQLite would treat it as a database without tables.
    ///
    /// # Errors
    /// As for [`take`](Self::take), and when there is no such file.
    pub async fn take_existing(&self, limit: Duration) -> Result<Link, Failure> {
        if self.is_absent() {
            let url = self.shared.url().to_string();
            return Err(Failure::NoFile { url });
        }
        self.take(limit).await
    }

    /// Takes the connection whose writes [`TableWatch`](crate::TableWatch) does not report, with this time limit for each answer. There is one for
    /// a file, so that others wait; for a server, it is any connection.
    ///
    /// # Errors
    /// As for [`take`](Self::take).
    pub async fn take_unseen(&self, limit: Duration) -> Result<Unseen, Failure> {
        let shared = &self.shared;
        let Some(path) = shared.file() else {
            return Ok(Unseen::new(self.take(limit).await?, 0, None));
        };
        let mut turn = shared.observer.turn().await;
        if let Some(idle) = turn.take()
            && let Some((wire, origin, permit, number)) = idle.opened(path)
        {
            let link = Link::new(wire, origin, limit, Arc::clone(shared), permit);
            return Ok(Unseen::new(link, number, Some(turn)));
        }
        let link = self.take(limit).await?;
        Ok(Unseen::new(link, shared.observer.number(), Some(turn)))
    }

    /// Whether the database is a file that is missing or empty: copying a database begins with an empty file.
    pub fn is_absent(&self) -> bool {
        let has_bytes = |path: &Path| std::fs::metadata(path).is_ok_and(|file| file.len() > 0);
        self.shared.file().is_some_and(|path| !has_bytes(path))
    }

    /// Creates an empty file that only its owner may read and write, unless one exists. Does nothing for a server.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn make_file(&self) -> Result<(), Failure> {
        let unreachable =
            |error: io::Error| Failure::unreachable(self.shared.url(), &sqlx::Error::Io(error));
        match self.shared.file() {
            Some(path) => dialect::make_private(path).map_err(unreachable),
            None => Ok(()),
        }
    }
}

impl From<DatabaseUrl> for Connections {
    fn from(url: DatabaseUrl) -> Self {
        Self::new(url)
    }
}

impl From<DatabaseUrls> for Connections {
    fn from(urls: DatabaseUrls) -> Self {
        Self::new(urls)
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections")
            .field("urls", self.urls())
            .field("kept", &self.shared.kept())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt as _;

    use super::*;
    use crate::pool::MOST_OPEN;

    const LIMIT: Duration = Duration::from_secs(10);

    fn url(folder: &tempfile::TempDir, name: &str) -> DatabaseUrl {
        let path = folder.path().join(name);
        std::fs::write(&path, b"").unwrap();
        DatabaseUrl::Sqlite(path)
    }

    /// SQLite tells connections apart: each has a table of its own that the others do not see.
    async fn mark(link: &mut Link) {
        link.run("CREATE TEMP TABLE IF NOT EXISTS mine (n)")
            .await
            .unwrap();
    }

    async fn is_marked(link: &mut Link) -> bool {
        let sql = "SELECT COUNT(*) FROM sqlite_temp_master WHERE name = 'mine'";
        let count = link.row(sql, &[], |row| row.integer(0)).await.unwrap();
        count.flatten() == Some(1)
    }

    #[tokio::test]
    async fn a_connection_that_is_kept_is_taken_again_and_one_that_failed_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let connections = Connections::kept(url(&folder, "kept.db"));
        let mut link = connections.take(LIMIT).await.unwrap();
        mark(&mut link).await;
        link.release().await;
        let mut link = connections.take(LIMIT).await.unwrap();
        assert!(is_marked(&mut link).await);
        // Two at once are two.
        let mut other = connections.take(LIMIT).await.unwrap();
        assert!(!is_marked(&mut other).await);
        other.release().await;
        // What was begun and not ended is undone.
        link.begin_write(None).await.unwrap();
        link.run("CREATE TABLE half (n)").await.unwrap();
        link.release().await;
        let mut link = connections.take(LIMIT).await.unwrap();
        assert!(!is_marked(&mut link).await);
        let error = link.run("INSERT INTO half VALUES (1)").await.unwrap_err();
        assert!(
            matches!(&error, Failure::NoTable { table, .. } if table == "half"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn no_more_are_open_and_kept_than_may_be() {
        let folder = tempfile::tempdir().unwrap();
        let connections = Connections::kept(url(&folder, "many.db"));
        let mut links = Vec::new();
        for _ in 0..MOST_OPEN {
            links.push(connections.take(LIMIT).await.unwrap());
        }
        // One more has to wait until one of them is given back.
        let mut waiting = pin!(connections.take(LIMIT));
        assert!(waiting.as_mut().now_or_never().is_none());
        links.pop().unwrap().release().await;
        links.push(waiting.await.unwrap());
        for link in links {
            link.release().await;
        }
        assert_eq!(connections.shared.kept(), MOST_KEPT);
        connections.take(LIMIT).await.unwrap();
    }

    #[tokio::test]
    async fn a_file_that_took_the_place_of_another_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let (url, other) = (url(&folder, "one.db"), url(&folder, "other.db"));
        let connections = Connections::kept(url.clone());
        let mut link = connections.take(LIMIT).await.unwrap();
        mark(&mut link).await;
        link.release().await;
        std::fs::rename(other.file().unwrap(), url.file().unwrap()).unwrap();
        let mut link = connections.take(LIMIT).await.unwrap();
        assert!(!is_marked(&mut link).await);
    }

    #[test]
    fn a_connection_stays_on_its_runtime() {
        let folder = tempfile::tempdir().unwrap();
        let connections = Connections::kept(url(&folder, "runtimes.db"));
        let runtime = || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            builder.enable_all().build().unwrap()
        };
        let first = runtime();
        first.block_on(async {
            let mut link = connections.take(LIMIT).await.unwrap();
            mark(&mut link).await;
            link.release().await;
        });
        runtime().block_on(async {
            let mut link = connections.take(LIMIT).await.unwrap();
            assert!(!is_marked(&mut link).await);
            link.release().await;
        });
        first.block_on(async {
            let mut link = connections.take(LIMIT).await.unwrap();
            assert!(is_marked(&mut link).await);
        });
    }

    #[tokio::test]
    async fn connections_of_a_command_are_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let connections = Connections::new(url(&folder, "command.db"));
        let mut link = connections.take(LIMIT).await.unwrap();
        mark(&mut link).await;
        link.release().await;
        let mut link = connections.take(LIMIT).await.unwrap();
        assert!(!is_marked(&mut link).await);
    }
}
