//! The connections that are kept, and how many may be open.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{FutureExt as _, Stream, StreamExt as _};
use parking_lot::Mutex;
use portcullis_file_id::FileId;
use sqlx::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::dialect::{BUSY, driver_of};
use crate::observer::Observer;
use crate::servers::Servers;
use crate::wire::{Origin, Wire};
use crate::{DatabaseUrl, DatabaseUrls, Failure};

/// Time limit for opening a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// The same where another server can be used instead.
const CONNECT_TO_ONE: Duration = Duration::from_secs(1);

/// Maximum number of open connections. Further callers wait at most as long as opening a connection may take.
pub(crate) const MOST_OPEN: usize = 16;

/// Time for which an idle connection is kept.
const KEPT: Duration = Duration::from_secs(60);

/// What the connections to one database share.
pub(crate) struct Shared {
    pub(crate) servers: Arc<Servers>,
    most_kept: usize,
    /// The connection returned last is the first to be taken.
    kept: Mutex<Vec<Kept>>,
    permits: Arc<Semaphore>,
    pub(crate) observer: Arc<Observer>,
}

/// How long the answers to statements may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Time limit for each answer, and for each row.
    each: Duration,
    /// When all answers must have arrived, and the time that they had for it; `None` without such a limit.
    all: Option<(Instant, Duration)>,
}

impl Patience {
    /// This time for each answer, and for each row.
    pub(crate) fn for_each(limit: Duration) -> Self {
        Self {
            each: limit,
            all: None,
        }
    }

    /// This time for all answers together, from now on.
    pub(crate) fn for_all(limit: Duration) -> Self {
        let now = Instant::now();
        Self {
            each: limit,
            all: now.checked_add(limit).map(|until| (until, limit)),
        }
    }

    /// How long the next answer may take.
    fn left(self) -> Duration {
        match self.all {
            None => self.each,
            Some((until, _)) => until.saturating_duration_since(Instant::now()),
        }
    }

    /// The time limit, for the error.
    fn told(self) -> Duration {
        self.all.map_or(self.each, |(_, limit)| limit)
    }
}

/// A connection that is kept.
pub(crate) struct Kept {
    pub(crate) wire: Wire,
    pub(crate) origin: Origin,
    since: Instant,
}

impl Shared {
    /// A pool that keeps at most this many connections.
    pub(crate) fn new(urls: DatabaseUrls, most_kept: usize) -> Self {
        Self {
            observer: Observer::of(urls.first()),
            servers: Servers::of(urls),
            most_kept,
            kept: Mutex::default(),
            permits: Arc::new(Semaphore::new(MOST_OPEN)),
        }
    }

    /// The server in use, or the one that is tried first; or the file.
    pub(crate) fn url(&self) -> &DatabaseUrl {
        self.servers.url(self.servers.current())
    }

    /// The file, if the database is one.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.servers.urls().file()
    }

    pub(crate) async fn permit(&self) -> Result<OwnedSemaphorePermit, Failure> {
        let permit = Arc::clone(&self.permits).acquire_owned();
        match timeout(CONNECT, permit).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(Failure::Unreachable {
                url: self.url().to_string(),
                cause: format!(
                    "all {MOST_OPEN} connections were in use for {} s; check whether the database is slow",
                    CONNECT.as_secs()
                ),
            }),
        }
    }

    pub(crate) async fn connect(&self, server: usize) -> Result<Wire, Failure> {
        let url = self.servers.url(server);
        let limit = match self.servers.urls().is_cluster() {
            true => CONNECT_TO_ONE,
            false => CONNECT,
        };
        let time = match url {
            DatabaseUrl::MySql(_) | DatabaseUrl::Postgres(_) => limit,
            DatabaseUrl::Sqlite(_) => limit + BUSY,
        };
        match timeout(time, driver_of(url).connect(url)).await {
            Ok(connected) => connected.map_err(|error| Failure::unreachable(url, &error)),
            Err(_elapsed) => Err(Failure::no_answer(url, limit)),
        }
    }

    /// An idle connection to a server that is usable here.
    pub(crate) fn take_kept(&self, server: usize, runtime: tokio::runtime::Id) -> Option<Kept> {
        if self.most_kept == 0 {
            return None;
        }
        let file = self.file().and_then(FileId::at);
        let mut kept = self.kept.lock();
        let usable = kept.iter().rposition(|Kept { origin, .. }| {
            origin.server == server && origin.runtime == runtime && origin.file == file
        })?;
        Some(kept.remove(usable))
    }

    /// Returns a connection to the pool, which keeps or closes it. If it `is_open`, it has an open transaction and is closed, which rolls
    /// the transaction back. A connection counts as open until it is closed.
    pub(crate) async fn take_back(
        &self,
        wire: Wire,
        origin: Origin,
        is_open: bool,
        _until_closed: OwnedSemaphorePermit,
    ) {
        if is_open || self.most_kept == 0 || origin.file != self.file().and_then(FileId::at) {
            wire.close().await;
            return;
        }
        for kept in self.keep(wire, origin) {
            kept.wire.close().await;
        }
    }

    /// Keeps a connection; returns the one evicted for it.
    fn keep(&self, wire: Wire, origin: Origin) -> Vec<Kept> {
        let since = Instant::now();
        let mut kept = self.kept.lock();
        kept.push(Kept {
            wire,
            origin,
            since,
        });
        let surplus = kept.len().saturating_sub(self.most_kept);
        let stale = kept.iter().take_while(|kept| kept.since.elapsed() > KEPT);
        let gone = surplus.max(stale.count());
        kept.drain(..gone).collect()
    }

    /// A statement for this server, with its time limit.
    pub(crate) async fn within<T>(
        &self,
        server: usize,
        patience: Patience,
        statement: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Failure> {
        match timeout(patience.left(), statement).await {
            Ok(done) => done.map_err(|error| self.failure(server, &error)),
            Err(_elapsed) => Err(self.hung(server, patience.told())),
        }
    }

    /// The error of a statement. The server is not the first choice any more if it does not serve.
    pub(crate) fn failure(&self, server: usize, error: &Error) -> Failure {
        let failure = Failure::of(self.servers.url(server), error);
        if failure.is_of_the_server() {
            self.servers.failed(server, &failure);
        }
        failure
    }

    /// The time limit of a statement was exceeded. Another server is used from now on, if there is one.
    fn hung(&self, server: usize, limit: Duration) -> Failure {
        let failure = Failure::hung(self.servers.url(server), limit);
        self.servers.failed(server, &failure);
        failure
    }

    /// The next row, if it arrives in time. A row that is already available costs no timer.
    pub(crate) async fn next<T>(
        &self,
        server: usize,
        patience: Patience,
        rows: &mut (impl Stream<Item = Result<T, Error>> + Unpin),
    ) -> Result<Option<T>, Failure> {
        let next = match rows.next().now_or_never() {
            Some(next) => next,
            None => match timeout(patience.left(), rows.next()).await {
                Ok(next) => next,
                Err(_elapsed) => return Err(self.hung(server, patience.told())),
            },
        };
        next.transpose()
            .map_err(|error| self.failure(server, &error))
    }

    /// How many connections are kept.
    pub(crate) fn kept(&self) -> usize {
        self.kept.lock().len()
    }
}
