//! A MariaDB of one test: started in a temporary directory on a leased loopback address.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::lease::Lease;
use crate::{root, wait};

/// Paths of the server, which PATH may lack.
const SERVERS: [&str; 2] = ["/usr/sbin/mariadbd", "/usr/local/sbin/mariadbd"];

/// Several servers run at once, and by default each has a log of 96 MiB.
const SMALL_LOG: &str = "--innodb-log-file-size=8M";

/// A running MariaDB with Kamailio's tables and users.
#[derive(Debug)]
pub struct MariaDb {
    server: Option<Child>,
    folder: TempDir,
    lease: Lease,
    /// Additional command line options.
    words: Vec<String>,
}

impl MariaDb {
    /// Makes the data directory, starts the server, creates the database `kamailio` with its tables and users.
    ///
    /// # Panics
    /// If MariaDB is not installed: a test that needs it must not pass without it.
    pub fn start() -> Self {
        Self::start_with(|_| Vec::new())
    }

    /// The same with additional command line options. `words` gets the address that the server will listen on.
    pub fn start_with(words: impl FnOnce(SocketAddr) -> Vec<String>) -> Self {
        let database = Self::empty(words);
        let mut files: Vec<PathBuf> = std::fs::read_dir(root().join("migrations/mysql"))
            .expect("the migrations can be read")
            .map(|entry| entry.expect("a directory entry").path())
            .filter(|path| path.extension().is_some_and(|e| e == "sql"))
            .collect();
        files.sort();
        for file in files {
            let text = std::fs::read_to_string(&file).expect("a migration can be read");
            database.sql("kamailio", &text);
        }
        database
    }

    /// The same with a database `kamailio` that has no table.
    pub fn empty(words: impl FnOnce(SocketAddr) -> Vec<String>) -> Self {
        let database = Self::bare(words);
        database.sql(
            "",
            "CREATE DATABASE kamailio; \
             CREATE USER 'kamailio'@'%' IDENTIFIED BY 'kamailiorw'; \
             GRANT ALL ON kamailio.* TO 'kamailio'@'%'; \
             CREATE USER 'kamailioro'@'%' IDENTIFIED BY 'kamailioro'; \
             GRANT SELECT ON kamailio.* TO 'kamailioro'@'%';",
        );
        database
    }

    /// The same without that database and its users: they come from a primary.
    pub fn bare(words: impl FnOnce(SocketAddr) -> Vec<String>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory can be made");
        let mut database = Self {
            server: None,
            folder,
            lease: Lease::new(),
            words: Vec::new(),
        };
        database.words = words(database.addr());
        database.install();
        database.up();
        database
    }

    /// The URL as an operator writes it.
    pub fn url(&self) -> String {
        format!("mysql://kamailio:kamailiorw@{}/kamailio", self.addr())
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.lease.addr(2, 3306)
    }

    /// The id of its process.
    ///
    /// # Panics
    /// If it does not run.
    pub fn pid(&self) -> u32 {
        self.server.as_ref().expect("the server runs").id()
    }

    /// All rows and tables of the database `kamailio`, as statements that put them back.
    ///
    /// # Panics
    /// If the server does not answer.
    pub fn dump(&self) -> String {
        let output = Command::new("mariadb-dump")
            .arg("--no-defaults")
            .arg(format!("--socket={}", self.socket().display()))
            .args([
                "--user=root",
                "--single-transaction",
                "--hex-blob",
                "kamailio",
            ])
            .output()
            .expect("mariadb-dump runs: apt-get install mariadb-client");
        assert!(
            output.status.success(),
            "mariadb-dump: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("the dump is UTF-8")
    }

    /// Puts back what [`MariaDb::dump`] has returned, as an operator does.
    ///
    /// # Panics
    /// If the server refuses it.
    pub fn restore(&self, dump: &str) {
        let file = self.folder.path().join("dump.sql");
        std::fs::write(&file, dump).expect("the dump can be written");
        let output = self
            .client("kamailio")
            .stdin(std::fs::File::open(&file).expect("the dump can be read"))
            .output()
            .expect("the mariadb client runs");
        assert!(
            output.status.success(),
            "the dump is refused: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Its unix socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("mysqld.sock")
    }

    /// Kills the server, as a crash does.
    pub fn die(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().expect("the server can be killed");
            server.wait().expect("the server can be reaped");
        }
    }

    /// Starts the server again on the same data and address.
    pub fn up(&mut self) {
        let log = std::fs::File::create(self.folder.path().join("mariadb.log"))
            .expect("a log can be written");
        let program = SERVERS.iter().find(|program| Path::new(program).exists());
        let program = program.expect("mariadbd is installed: apt-get install mariadb-server");
        let server = Command::new(program)
            .arg("--no-defaults")
            .arg("--user=root")
            .arg(format!(
                "--datadir={}",
                self.folder.path().join("data").display()
            ))
            .arg(format!("--tmpdir={}", self.folder.path().display()))
            .arg(format!("--socket={}", self.socket().display()))
            .arg(format!("--bind-address={}", self.addr().ip()))
            .arg(format!("--port={}", self.addr().port()))
            .arg("--innodb-buffer-pool-size=64M")
            // Quick, and safe from a crash of the server, though not of the machine.
            .arg("--innodb-flush-log-at-trx-commit=2")
            .arg(SMALL_LOG)
            .args(&self.words)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file handle can be cloned"))
            .stderr(log)
            .spawn()
            .expect("the server can be started");
        self.server = Some(server);
        wait::until("MariaDB answers", || {
            let ended = self
                .server
                .as_mut()
                .and_then(|server| server.try_wait().ok()?);
            assert!(ended.is_none(), "MariaDB ended: {}", self.log());
            self.client("")
                .args(["-e", "SELECT 1"])
                .output()
                .ok()
                .filter(|o| o.status.success())
        });
    }

    /// Runs statements as root.
    pub fn sql(&self, database: &str, statements: &str) -> String {
        let output = self
            .client(database)
            .args(["--batch", "--skip-column-names", "-e", statements])
            .output()
            .expect("the mariadb client runs");
        assert!(
            output.status.success(),
            "{statements}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("the client prints UTF-8")
    }

    /// Fills the table with this many /24 subnets of group 200 outside of 127/8, as fast as the engine can.
    pub fn fill_subnets(&self, count: u32) {
        self.sql("kamailio", &subnets(count));
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("mariadb.log")).unwrap_or_default()
    }

    fn client(&self, database: &str) -> Command {
        let mut command = Command::new("mariadb");
        command
            .arg("--no-defaults")
            .arg(format!("--socket={}", self.socket().display()))
            .arg("--user=root");
        if !database.is_empty() {
            command.arg(database);
        }
        command
    }

    fn install(&self) {
        let output = Command::new("mariadb-install-db")
            .arg("--no-defaults")
            .arg("--user=root")
            .arg("--auth-root-authentication-method=normal")
            .arg("--skip-test-db")
            .arg(SMALL_LOG)
            // Servers that share a directory for temporary tables delete each other's.
            .arg(format!("--tmpdir={}", self.folder.path().display()))
            .arg(format!(
                "--datadir={}",
                self.folder.path().join("data").display()
            ))
            .output()
            .expect("mariadb-install-db is installed: apt-get install mariadb-server");
        assert!(
            output.status.success(),
            "mariadb-install-db: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// A statement that adds this many /24 subnets of group 200 outside of 127/8.
pub(crate) fn subnets(count: u32) -> String {
    format!(
        "INSERT INTO address (grp, ip_addr, mask, port, tag) \
         SELECT 200, CONCAT(10 + (seq DIV 65536), '.', (seq DIV 256) MOD 256, '.', seq MOD 256, '.0'), 24, 0, '' \
         FROM seq_0_to_{};",
        count - 1
    )
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        self.die();
    }
}
