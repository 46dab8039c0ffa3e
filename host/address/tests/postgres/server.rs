//! A PostgreSQL of one test, spoken to as its administrator over its unix socket.

use std::path::Path;

use portcullis_database::{Connections, DatabaseUrl};
use portcullis_testkit::postgres::Postgres;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection, Executor, Row};

/// A running server with the user `kamailio` (password `kamailiorw`) and a database `kamailio` of that user's.
pub(crate) struct Server(Postgres);

impl Server {
    /// A server whose database is empty.
    ///
    /// Panics when PostgreSQL is not installed: who asks for these tests wants them run.
    pub(crate) fn start() -> Self {
        Self(Postgres::empty(|_, _| Vec::new()))
    }

    /// A server with Kamailio's tables, as its own scripts create them.
    pub(crate) fn with_tables() -> (Self, Connections) {
        let server = Self(Postgres::start());
        let connections = server.connections();
        (server, connections)
    }

    /// As an operator would write it.
    pub(crate) fn url(&self) -> String {
        self.0.url()
    }

    /// The folder of its unix socket.
    pub(crate) fn socket(&self) -> &Path {
        self.0.socket()
    }

    pub(crate) fn connections(&self) -> Connections {
        let url: DatabaseUrl = self.url().parse().expect("a good URL");
        Connections::kept(url)
    }

    /// Ends the server as a crash does: its next start recovers what was written.
    pub(crate) fn kill(&mut self) {
        self.0.die();
    }

    /// Starts the server again on the same data and address, and waits until it answers.
    pub(crate) fn up(&mut self) {
        self.0.up();
    }

    /// Runs statements as the administrator, in the database `kamailio`, in a session of their own.
    pub(crate) async fn sql(&self, statements: &str) {
        let mut link = self.session().await;
        let done = link
            .execute(sqlx::raw_sql(AssertSqlSafe(statements.to_owned())))
            .await;
        done.unwrap_or_else(|error| panic!("{statements}: {error}"));
        link.close().await.expect("the connection closes");
    }

    /// The first column of the only row.
    pub(crate) async fn ask(&self, question: &str) -> String {
        let mut link = self.session().await;
        let row = link
            .fetch_one(sqlx::raw_sql(AssertSqlSafe(question.to_owned())))
            .await;
        row.unwrap_or_else(|error| panic!("{question}: {error}"))
            .get(0)
    }

    /// A session of the administrator.
    pub(crate) async fn session(&self) -> PgConnection {
        let administrator = PgConnectOptions::new_without_pgpass()
            .socket(self.socket())
            .port(self.0.addr().port())
            .username("postgres")
            .database("kamailio");
        PgConnection::connect_with(&administrator)
            .await
            .expect("the administrator may connect")
    }
}
