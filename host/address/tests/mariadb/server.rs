//! A MariaDB in a temporary folder, for one test.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use portcullis_address::{Database, DatabaseUrl};
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::{AssertSqlSafe, Connection, Executor, Row};
use tempfile::TempDir;

/// Where Debian has the server, which is not in everybody's path.
const SERVERS: [&str; 3] = ["/usr/sbin/mariadbd", "/usr/local/sbin/mariadbd", "mariadbd"];

/// Many servers run at once, and by itself each takes 96 MiB of the disk for its log.
const SMALL_LOG: &str = "--innodb-log-file-size=8M";

/// A running server with the user `kamailio` (password `kamailiorw`) and the database `kamailio`, empty.
pub(crate) struct Server {
    process: Option<Child>,
    folder: TempDir,
    addr: SocketAddr,
    options: Vec<String>,
}

impl Server {
    /// Panics when MariaDB is not installed: who asks for these tests wants them run.
    pub(crate) async fn start(options: &[&str]) -> Self {
        let mut server = Self {
            process: None,
            folder: tempfile::tempdir().expect("a temporary folder can be made"),
            addr: free_addr(),
            options: options.iter().map(|&option| option.to_owned()).collect(),
        };
        install(&server.data());
        server.up().await;
        server
            .sql(
                "CREATE DATABASE kamailio; \
                 CREATE USER 'kamailio'@'%' IDENTIFIED BY 'kamailiorw'; \
                 GRANT ALL ON kamailio.* TO 'kamailio'@'%'",
            )
            .await;
        server
    }

    /// A server with Kamailio's tables.
    pub(crate) async fn with_tables(options: &[&str]) -> (Self, Database) {
        let server = Self::start(options).await;
        let database = server.database();
        database
            .create_tables()
            .await
            .expect("the tables can be made");
        (server, database)
    }

    /// As an operator would write it.
    pub(crate) fn url(&self) -> String {
        format!("mysql://kamailio:kamailiorw@{}/kamailio", self.addr)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("my.sock")
    }

    pub(crate) fn database(&self) -> Database {
        let url: DatabaseUrl = self.url().parse().expect("a good URL");
        Database::new(url)
    }

    /// Ends the server as a crash does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("the server can be killed");
            process.wait().expect("the server can be reaped");
        }
    }

    /// Starts the server, again on the same data and address, and waits until it answers.
    pub(crate) async fn up(&mut self) {
        let log = File::create(self.folder.path().join("log")).expect("a log can be made");
        let program = SERVERS.iter().find(|program| Path::new(program).exists());
        let program = program.expect("MariaDB is not installed: apt-get install mariadb-server");
        let process = Command::new(program)
            .arg("--no-defaults")
            .arg("--user=root")
            .arg(format!("--datadir={}", self.data().display()))
            // Servers that share a folder for temporary tables delete each other's.
            .arg(format!("--tmpdir={}", self.folder.path().display()))
            .arg(format!("--socket={}", self.socket().display()))
            .arg(format!(
                "--pid-file={}",
                self.folder.path().join("pid").display()
            ))
            .arg(format!("--bind-address={}", self.addr.ip()))
            .arg(format!("--port={}", self.addr.port()))
            // Quick, and safe from a kill of the server, though not of the machine.
            .arg("--innodb-flush-log-at-trx-commit=2")
            .arg(SMALL_LOG)
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file handle can be cloned"))
            .stderr(log)
            .spawn()
            .expect("the server can be started");
        self.process = Some(process);
        let begun = Instant::now();
        while MySqlConnection::connect_with(&self.root()).await.is_err() {
            let ended = self
                .process
                .as_mut()
                .and_then(|p| p.try_wait().ok().flatten());
            assert!(
                ended.is_none() && begun.elapsed() < Duration::from_secs(60),
                "MariaDB does not answer: {}",
                std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Runs statements as root, in the database `kamailio` if there is one yet.
    pub(crate) async fn sql(&self, statements: &str) {
        let mut link = MySqlConnection::connect_with(&self.root())
            .await
            .expect("root may connect");
        let _absent_at_first = link.execute("USE kamailio").await;
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
        let mut link = MySqlConnection::connect_with(&self.root())
            .await
            .expect("root may connect");
        link.execute("USE kamailio")
            .await
            .expect("the database is there");
        let row = link
            .fetch_one(sqlx::raw_sql(AssertSqlSafe(question.to_owned())))
            .await;
        row.unwrap_or_else(|error| panic!("{question}: {error}"))
            .get(column)
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn root(&self) -> MySqlConnectOptions {
        MySqlConnectOptions::new()
            .socket(self.socket())
            .username("root")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn install(data: &Path) {
    let output = Command::new("mariadb-install-db")
        .arg("--no-defaults")
        .arg("--user=root")
        .arg("--auth-root-authentication-method=normal")
        .arg("--skip-test-db")
        .arg(SMALL_LOG)
        // Servers that share a folder for temporary tables delete each other's.
        .arg(format!(
            "--tmpdir={}",
            data.parent().unwrap_or(data).display()
        ))
        .arg(format!("--datadir={}", data.display()))
        .output()
        .expect("MariaDB is not installed: apt-get install mariadb-server");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn free_addr() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    listener
        .local_addr()
        .expect("a bound socket has an address")
}
