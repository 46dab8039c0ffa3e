//! A PostgreSQL of one test: started in a temporary directory on a leased loopback address.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::lease::Lease;
use crate::wait;

/// The user that runs the server if the tests run as root: PostgreSQL refuses to run as root.
const NOBODY: u32 = 65_534;

/// A running PostgreSQL with the tables that Kamailio's own scripts create, and with Kamailio's users.
#[derive(Debug)]
pub struct Postgres {
    server: Option<Child>,
    folder: TempDir,
    lease: Lease,
    /// Additional command line options.
    words: Vec<String>,
}

impl Postgres {
    /// Makes the data directory, starts the server, creates the database `kamailio` with its tables and users.
    ///
    /// # Panics
    /// If PostgreSQL is not installed: a test that needs it must not pass without it.
    pub fn start() -> Self {
        Self::start_with(|_, _| Vec::new())
    }

    /// The same with additional command line options. `words` gets the directory for files of the server, and the address that it will listen on.
    pub fn start_with(words: impl FnOnce(&Path, SocketAddr) -> Vec<String>) -> Self {
        let database = Self::empty(words);
        for name in ["standard", "permissions", "dispatcher"] {
            let script = Self::script_of_kamailio(name);
            database.sql("kamailio", &format!("SET ROLE kamailio;\n{script}"));
        }
        database
    }

    /// The same with a database `kamailio` that has no table.
    pub fn empty(words: impl FnOnce(&Path, SocketAddr) -> Vec<String>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory can be made");
        let mut database = Self {
            server: None,
            folder,
            lease: Lease::new(),
            words: Vec::new(),
        };
        database.words = words(database.folder.path(), database.addr());
        give_away(database.folder.path());
        database.install();
        database.up();
        database.sql(
            "postgres",
            "CREATE ROLE kamailio LOGIN PASSWORD 'kamailiorw'; CREATE DATABASE kamailio OWNER kamailio;",
        );
        database
    }

    /// A standby of another server, with additional command line options: it has the same databases and users, and follows that server.
    pub fn standby_of(primary: &Self, words: Vec<String>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory can be made");
        let mut standby = Self {
            server: None,
            folder,
            lease: Lease::new(),
            words,
        };
        give_away(standby.folder.path());
        let output = as_nobody(&program("pg_basebackup"))
            .arg("--pgdata")
            .arg(standby.folder.path().join("data"))
            .arg("--host")
            .arg(primary.socket())
            .args(["--port", &primary.addr().port().to_string()])
            .args(["--username=postgres", "--write-recovery-conf"])
            .args(["--wal-method=stream", "--checkpoint=fast", "--no-sync"])
            .current_dir(standby.folder.path())
            .output()
            .expect("pg_basebackup can be started");
        assert!(
            output.status.success(),
            "pg_basebackup: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        standby.up();
        standby
    }

    /// A script of Kamailio's own that creates tables.
    pub fn script_of_kamailio(name: &str) -> String {
        let file = format!("/usr/share/kamailio/postgres/{name}-create.sql");
        fs::read_to_string(file)
            .expect("Kamailio's scripts are installed: apt-get install kamailio-postgres-modules")
    }

    /// The URL as an operator writes it.
    pub fn url(&self) -> String {
        format!("postgres://kamailio:kamailiorw@{}/kamailio", self.addr())
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.lease.addr(2, 5432)
    }

    /// The directory of its unix socket.
    pub fn socket(&self) -> &Path {
        self.folder.path()
    }

    /// Stops the server as a crash does.
    pub fn die(&mut self) {
        let Some(mut server) = self.server.take() else {
            return;
        };
        let quit = Command::new("kill")
            .args(["-QUIT", &server.id().to_string()])
            .status();
        assert!(quit.is_ok_and(|quit| quit.success()), "kill runs");
        server.wait().expect("the server can be reaped");
    }

    /// Starts the server again on the same data and address.
    pub fn up(&mut self) {
        let log =
            File::create(self.folder.path().join("postgres.log")).expect("a log can be written");
        let server = as_nobody(&program("postgres"))
            .arg("-D")
            .arg(self.folder.path().join("data"))
            .arg("-k")
            .arg(self.socket())
            .args(["-h", &self.addr().ip().to_string()])
            .args(["-p", &self.addr().port().to_string()])
            // Quick, and safe from a crash of the server, though not of the machine.
            .args(["-c", "fsync=off", "-c", "shared_buffers=16MB"])
            .args(&self.words)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file handle can be cloned"))
            .stderr(log)
            .spawn()
            .expect("the server can be started");
        self.server = Some(server);
        wait::until("PostgreSQL answers", || {
            let ended = self
                .server
                .as_mut()
                .and_then(|server| server.try_wait().ok()?);
            assert!(ended.is_none(), "PostgreSQL ended: {}", self.log());
            let mut client = self.client("postgres");
            let asked = client.args(["-c", "SELECT 1"]).output().ok();
            asked.filter(|output| output.status.success())
        });
    }

    /// Runs statements as the administrator, one after the other. Returns their output, one line for each row.
    pub fn sql(&self, database: &str, statements: &str) -> String {
        let mut client = self
            .client(database)
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("psql is installed: apt-get install postgresql");
        let mut input = client.stdin.take().expect("the input is a pipe");
        input
            .write_all(statements.as_bytes())
            .expect("psql reads its input");
        drop(input);
        let output = client.wait_with_output().expect("psql ends");
        assert!(
            output.status.success(),
            "{statements}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("the client prints UTF-8")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("postgres.log")).unwrap_or_default()
    }

    fn client(&self, database: &str) -> Command {
        let mut command = Command::new("psql");
        command
            .args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1"])
            .arg("-h")
            .arg(self.socket())
            .args(["-p", &self.addr().port().to_string()])
            .args(["-U", "postgres", "-d", database]);
        command
    }

    /// Creates the data directory. Connections over the socket are trusted, because only users with access to the directory can open it; connections
    /// over TCP need a password.
    fn install(&self) {
        let output = as_nobody(&program("initdb"))
            .arg("--pgdata")
            .arg(self.folder.path().join("data"))
            .args([
                "--username=postgres",
                "--auth-local=trust",
                "--auth-host=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
            ])
            .current_dir(self.folder.path())
            .output()
            .expect("initdb can be started");
        assert!(
            output.status.success(),
            "initdb: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.die();
    }
}

/// Makes the user that runs the server the owner of a directory and its files.
fn give_away(folder: &Path) {
    if !is_root() {
        return;
    }
    let entries = fs::read_dir(folder).expect("the directory can be read");
    let files = entries.map(|entry| entry.expect("a directory entry").path());
    for path in files.chain([folder.to_owned()]) {
        chown(path, Some(NOBODY), Some(NOBODY)).expect("root may give a file away");
    }
}

/// A program of the server. Debian installs those of each version in a directory that is not in PATH.
fn program(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let installed = versions
        .filter_map(|version| Some(version.ok()?.path().join("bin").join(name)))
        .filter(|program| program.exists());
    let path = std::env::var_os("PATH").unwrap_or_default();
    let others = std::env::split_paths(&path).map(|folder| folder.join(name));
    installed
        .max()
        .or_else(|| others.into_iter().find(|program| program.exists()))
        .expect("PostgreSQL is installed: apt-get install postgresql")
}

/// A command of a user who is not root.
fn as_nobody(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let id = NOBODY.to_string();
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", &id, "--regid", &id, "--clear-groups", "--"])
        .arg(program);
    command
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}
