//! A small pool of connections to one database.
//!
//! The pools of the drivers open connections themselves, and so do not support a server reached without TLS where TLS is only preferred, a
//! file that has been replaced, or the runtimes of threads that load tables: a connection works only on the runtime that it was opened on.

mod migrate;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::dialect::{self, driver_of};
use crate::file_id::file_id;
use crate::link::Link;
use crate::pool::{Kept, Shared};
use crate::unseen::Unseen;
use crate::wire::Origin;
use crate::{DatabaseUrl, Dialect, Failure};

pub use migrate::{MigrationAction, MigrationStep};

/// Maximum number of idle connections.
const MOST_KEPT: usize = 4;

/// The connections to one database. Clones share them.
#[derive(Clone)]
pub struct Connections {
    shared: Arc<Shared>,
}

impl Connections {
    /// Connections that are closed on return: for a command that needs one or two.
    pub fn new(url: DatabaseUrl) -> Self {
        Self::keeping_some(url, 0)
    }

    /// Connections of which a few are kept for a minute: for a host that polls its tables every second.
    pub fn kept(url: DatabaseUrl) -> Self {
        Self::keeping_some(url, MOST_KEPT)
    }

    fn keeping_some(url: DatabaseUrl, most_kept: usize) -> Self {
        Self {
            shared: Arc::new(Shared::new(url, most_kept)),
        }
    }

    /// The URL of the database.
    pub fn url(&self) -> &DatabaseUrl {
        &self.shared.url
    }

    /// The SQL dialect of this database.
    pub fn dialect(&self) -> &'static dyn Dialect {
        driver_of(&self.shared.url)
    }

    /// Takes a connection, with this time limit for each answer.
    ///
    /// # Errors
    /// When the database cannot be reached, or all connections are in use for too long.
    pub async fn take(&self, limit: Duration) -> Result<Link, Failure> {
        let shared = &self.shared;
        let permit = shared.permit().await?;
        let runtime = Handle::current().id();
        while let Some(Kept {
            mut wire, origin, ..
        }) = shared.take_kept(runtime)
        {
            match timeout(limit, wire.ping()).await {
                Ok(Ok(())) => {
                    let shared = Arc::clone(shared);
                    return Ok(Link::new(wire, origin, limit, shared, permit));
                }
                // The server has closed it.
                Ok(Err(_)) => {}
                Err(_elapsed) => return Err(Failure::hung(&shared.url, limit)),
            }
        }
        let file = shared.url.file().and_then(file_id);
        let wire = shared.connect().await?;
        let origin = Origin {
            runtime,
            // The file may have been replaced while it was being opened.
            file: file.filter(|_| shared.url.file().and_then(file_id) == file),
            settings: Vec::new(),
        };
        Ok(Link::new(wire, origin, limit, Arc::clone(shared), permit))
    }

    /// The same, but a missing or empty file is an error: SQLite would treat it as a database without tables.
    ///
    /// # Errors
    /// As for [`take`](Self::take), and when there is no such file.
    pub async fn take_existing(&self, limit: Duration) -> Result<Link, Failure> {
        if self.is_absent() {
            let url = self.shared.url.to_string();
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
        let Some(path) = shared.url.file() else {
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
        self.shared.url.file().is_some_and(|path| !has_bytes(path))
    }

    /// Creates an empty file that only its owner may read and write, unless one exists. Does nothing for a server.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn make_file(&self) -> Result<(), Failure> {
        let unreachable =
            |error: io::Error| Failure::unreachable(&self.shared.url, &sqlx::Error::Io(error));
        match self.shared.url.file() {
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

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections")
            .field("url", &self.shared.url)
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
