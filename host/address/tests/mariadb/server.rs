//! A MariaDB of one test, spoken to as root over its unix socket.

use std::path::PathBuf;

use portcullis_address::{Database, DatabaseUrl};
use portcullis_testkit::mariadb::MariaDb;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::{AssertSqlSafe, Connection, Executor, Row};

/// A running server with the user `kamailio` (password `kamailiorw`) and the database `kamailio`, empty.
pub(crate) struct Server(MariaDb);

impl Server {
    /// Panics when MariaDB is not installed: who asks for these tests wants them run.
    pub(crate) fn start(options: &[&str]) -> Self {
        let options = options.iter().map(|&option| option.to_owned()).collect();
        Self(MariaDb::empty(|_| options))
    }

    /// A server with Kamailio's tables.
    pub(crate) async fn with_tables(options: &[&str]) -> (Self, Database) {
        let server = Self::start(options);
        let database = server.database();
        database
            .create_tables()
            .await
            .expect("the tables can be made");
        (server, database)
    }

    /// As an operator would write it.
    pub(crate) fn url(&self) -> String {
        self.0.url()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.0.socket()
    }

    pub(crate) fn database(&self) -> Database {
        let url: DatabaseUrl = self.url().parse().expect("a good URL");
        Database::new(url)
    }

    /// Ends the server as a crash does.
    pub(crate) fn kill(&mut self) {
        self.0.die();
    }

    /// Starts the server again on the same data and address, and waits until it answers.
    pub(crate) fn up(&mut self) {
        self.0.up();
    }

    /// Runs statements as root in the database `kamailio`.
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
        self.ask_at(question, 0).await
    }

    /// One column of the only row.
    pub(crate) async fn ask_at(&self, question: &str, column: usize) -> String {
        let row = self
            .session()
            .await
            .fetch_one(sqlx::raw_sql(AssertSqlSafe(question.to_owned())))
            .await;
        row.unwrap_or_else(|error| panic!("{question}: {error}"))
            .get(column)
    }

    async fn session(&self) -> MySqlConnection {
        let root = MySqlConnectOptions::new()
            .socket(self.socket())
            .username("root")
            .database("kamailio");
        MySqlConnection::connect_with(&root)
            .await
            .expect("root may connect")
    }
}
