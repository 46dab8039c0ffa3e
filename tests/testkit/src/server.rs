//! The database servers that the same tests run against, behind one interface.

use std::path::{Path, PathBuf};

use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, Row as _, raw_sql};

use crate::mariadb::MariaDb;
use crate::postgres::Postgres;

/// Makes a test of each function for each kind of server. A function takes the [`Dialect`], and is `async`.
///
/// The tests are called `mariadb::NAME` and `postgres::NAME`, and need `--run-ignored=all`.
#[macro_export]
macro_rules! on_each_server {
    ($($name:ident),* $(,)?) => {
        $crate::on_each_server!(@ mariadb, MariaDb, "needs MariaDB", $($name)*);
        $crate::on_each_server!(@ postgres, Postgres, "needs PostgreSQL", $($name)*);
    };
    (@ $module:ident, $dialect:ident, $needs:literal, $($name:ident)*) => {
        mod $module {
            $(
                #[tokio::test]
                #[ignore = $needs]
                async fn $name() {
                    super::$name($crate::server::Dialect::$dialect).await;
                }
            )*
        }
    };
}

/// A kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// MariaDB, which stands for all servers with MySQL's protocol.
    MariaDb,
    /// PostgreSQL.
    Postgres,
}

/// A server of one test, with a database `kamailio` whose user `kamailio` has the password `kamailiorw`.
#[derive(Debug)]
pub enum Server {
    /// MariaDB.
    MariaDb(MariaDb),
    /// PostgreSQL.
    Postgres(Postgres),
}

/// A session of the administrator in the database `kamailio`.
#[derive(Debug)]
pub enum Session {
    /// With a MariaDB.
    MariaDb(MySqlConnection),
    /// With a PostgreSQL.
    Postgres(PgConnection),
}

impl Dialect {
    /// A name in a statement.
    pub fn quoted(self, name: &str) -> String {
        match self {
            Self::MariaDb => format!("`{name}`"),
            Self::Postgres => format!("\"{name}\""),
        }
    }

    /// A text in a statement.
    pub fn text(self, text: &str) -> String {
        let text = text.replace('\'', "''");
        match self {
            Self::MariaDb => format!("'{}'", text.replace('\\', "\\\\")),
            Self::Postgres => format!("'{text}'"),
        }
    }

    /// A name as the server's errors quote it.
    pub fn in_errors(self, name: &str) -> String {
        match self {
            Self::MariaDb => format!("'{name}'"),
            Self::Postgres => format!("\"{name}\""),
        }
    }

    /// A statement that makes a user with this password. The user may read these tables.
    pub fn reader(self, user: &str, password: &str, tables: &[&str]) -> String {
        let (password, who) = (self.text(password), self.who(user));
        let made = match self {
            Self::MariaDb => format!("CREATE USER {who} IDENTIFIED BY {password}"),
            Self::Postgres => format!("CREATE ROLE {who} LOGIN PASSWORD {password}"),
        };
        let granted = tables.iter().map(|table| self.grant(table, user));
        [made]
            .into_iter()
            .chain(granted)
            .collect::<Vec<_>>()
            .join("; ")
    }

    /// A statement that lets a user read a table.
    pub fn grant(self, table: &str, user: &str) -> String {
        format!(
            "GRANT SELECT ON {} TO {}",
            self.quoted(table),
            self.who(user)
        )
    }

    fn who(self, user: &str) -> String {
        match self {
            Self::MariaDb => format!("'{user}'@'%'"),
            Self::Postgres => self.quoted(user),
        }
    }
}

impl Server {
    /// A server whose database has no tables.
    ///
    /// # Panics
    /// If the server is not installed: a test that needs it must not pass without it.
    pub fn empty(dialect: Dialect) -> Self {
        match dialect {
            Dialect::MariaDb => Self::MariaDb(MariaDb::empty(|_| Vec::new())),
            Dialect::Postgres => Self::Postgres(Postgres::empty(|_, _| Vec::new())),
        }
    }

    /// Its kind.
    pub fn dialect(&self) -> Dialect {
        match self {
            Self::MariaDb(_) => Dialect::MariaDb,
            Self::Postgres(_) => Dialect::Postgres,
        }
    }

    /// The URL as an operator writes it.
    pub fn url(&self) -> String {
        match self {
            Self::MariaDb(server) => server.url(),
            Self::Postgres(server) => server.url(),
        }
    }

    /// The URL of another user.
    pub fn url_of(&self, user: &str, password: &str) -> String {
        self.url()
            .replace("kamailio:kamailiorw", &format!("{user}:{password}"))
    }

    /// The value of `socket` in a URL: the file of the unix socket or, for PostgreSQL, its directory.
    pub fn socket(&self) -> PathBuf {
        match self {
            Self::MariaDb(server) => server.socket(),
            Self::Postgres(server) => server.socket().to_owned(),
        }
    }

    /// Stops the server as a crash does.
    pub fn die(&mut self) {
        match self {
            Self::MariaDb(server) => server.die(),
            Self::Postgres(server) => server.die(),
        }
    }

    /// Starts the server again on the same data and address, and waits until it answers.
    pub fn up(&mut self) {
        match self {
            Self::MariaDb(server) => server.up(),
            Self::Postgres(server) => server.up(),
        }
    }

    /// Runs statements as the administrator in the database `kamailio`, in a session of their own.
    pub async fn sql(&self, statements: &str) {
        let mut session = self.session().await;
        session.sql(statements).await;
        session.close().await;
    }

    /// Returns the first column of the only row.
    pub async fn ask(&self, question: &str) -> String {
        self.ask_at(question, 0).await
    }

    /// Returns one column of the only row.
    pub async fn ask_at(&self, question: &str, column: usize) -> String {
        let query = raw_sql(AssertSqlSafe(question.to_owned()));
        let answer = match self.session().await {
            Session::MariaDb(mut link) => {
                let row = link.fetch_one(query).await;
                row.map(|row| row.get(column))
            }
            Session::Postgres(mut link) => {
                let row = link.fetch_one(query).await;
                row.map(|row| row.get(column))
            }
        };
        answer.unwrap_or_else(|error| panic!("{question}: {error}"))
    }

    /// A session of the administrator.
    pub async fn session(&self) -> Session {
        match self {
            Self::MariaDb(server) => Session::MariaDb(mysql_session(&server.socket()).await),
            Self::Postgres(server) => {
                let session = postgres_session(server.socket(), server.addr().port());
                Session::Postgres(session.await)
            }
        }
    }
}

impl From<MariaDb> for Server {
    fn from(server: MariaDb) -> Self {
        Self::MariaDb(server)
    }
}

impl From<Postgres> for Server {
    fn from(server: Postgres) -> Self {
        Self::Postgres(server)
    }
}

impl Session {
    /// Runs statements.
    pub async fn sql(&mut self, statements: &str) {
        let query = raw_sql(AssertSqlSafe(statements.to_owned()));
        let done = match self {
            Self::MariaDb(link) => link.execute(query).await.map(drop),
            Self::Postgres(link) => link.execute(query).await.map(drop),
        };
        done.unwrap_or_else(|error| panic!("{statements}: {error}"));
    }

    /// Ends the session.
    pub async fn close(self) {
        let closed = match self {
            Self::MariaDb(link) => link.close().await,
            Self::Postgres(link) => link.close().await,
        };
        closed.expect("the connection closes");
    }
}

async fn mysql_session(socket: &Path) -> MySqlConnection {
    let root = MySqlConnectOptions::new()
        .socket(socket)
        .username("root")
        .database("kamailio");
    let session = MySqlConnection::connect_with(&root);
    session.await.expect("root may connect")
}

async fn postgres_session(socket: &Path, port: u16) -> PgConnection {
    let administrator = PgConnectOptions::new_without_pgpass()
        .socket(socket)
        .port(port)
        .username("postgres")
        .database("kamailio");
    let session = PgConnection::connect_with(&administrator);
    session.await.expect("the administrator may connect")
}
