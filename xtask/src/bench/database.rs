//! The MariaDB from which both servers read their tables, in a temporary directory and on loopback, for the duration of the benchmark.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use super::pinned::{Process, free_port};
use super::plan::Rows;
use crate::process::{capture, find};

/// Number of rows of the largest table.
pub(crate) const MILLION: u32 = 1_000_000;

const USER: &str = "CREATE USER 'kamailio'@'127.0.0.1' IDENTIFIED BY 'kamailiorw'; \
                    GRANT ALL ON *.* TO 'kamailio'@'127.0.0.1';";
const PAGE: &str = "INSERT INTO address (grp, ip_addr, mask, port, tag) VALUES \
                    (250, '10.8.203.139', 32, 5060, 'TestServer'), (200, '192.168.1.0', 24, 5060, 'OfficeSubnet');";
/// The last row, so that a linear search finds it last.
const LOOPBACK: &str = "INSERT INTO address (grp, ip_addr, mask, port, tag) VALUES (200, '127.2.0.0', 16, 0, 'Loopback');";

/// A running database server.
#[derive(Debug)]
pub(crate) struct Database {
    // Dropped in this order: the server ends before its files are removed.
    _server: Process,
    folder: TempDir,
    port: u16,
}

impl Database {
    /// Returns the version of the installed MariaDB.
    pub(crate) fn version() -> Result<String> {
        let text = capture(Command::new(program()?).arg("--version"))?;
        let version = text.split("Ver ").nth(1).unwrap_or(&text);
        Ok(version.split_whitespace().next().unwrap_or("?").to_owned())
    }

    /// Starts a server on this core.
    pub(crate) fn start(core: usize) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let port = free_port()?;
        let user = current_user()?;
        install(folder.path(), &user)?;
        // The database shares its core with the load generator, whose time matters.
        let mut command = Command::new("nice");
        command
            .args(["-n", "19"])
            .arg(program()?)
            .arg("--no-defaults")
            .arg(format!("--user={user}"))
            .arg(format!(
                "--datadir={}",
                folder.path().join("data").display()
            ))
            .arg(format!("--socket={}", socket(folder.path()).display()))
            .arg(format!(
                "--pid-file={}",
                folder.path().join("pid").display()
            ))
            .args(["--bind-address=127.0.0.1", "--skip-log-bin"])
            .args([
                "--innodb-flush-log-at-trx-commit=0",
                "--innodb-buffer-pool-size=256M",
            ])
            .arg(format!("--port={port}"));
        let log = folder.path().join("log");
        let mut server = Process::start("MariaDB", core, &command, &log)?;
        let path = folder.path().to_owned();
        server.wait_until(|| statement(&path, "", "SELECT 1").is_ok())?;
        statement(&path, "", USER)?;
        Ok(Self {
            _server: server,
            folder,
            port,
        })
    }

    /// Creates and fills the database for this table.
    pub(crate) fn fill(&self, rows: Rows, schema: &str) -> Result<()> {
        let others = match rows {
            Rows::Few => String::new(),
            // Networks from 20.0.0.0 on, which overlap neither loopback nor the rows of the README's example.
            Rows::Many => format!(
                "INSERT INTO address (grp, ip_addr, mask, port, tag) \
                 SELECT 200, INET_NTOA((20 << 24) + (seq << 8)), 24, 0, NULL FROM seq_1_to_{};",
                rows.count() - 3
            ),
        };
        self.create(name(rows), schema, &format!("{PAGE} {others} {LOOPBACK}"))?;
        self.expect_rows(name(rows), rows.count())
    }

    /// Creates the database `million`: four of five rows are hosts, the fifth is a /24, all over IPv4, in the two groups of the README's
    /// example, with a thousand different tags.
    pub(crate) fn fill_million(&self, schema: &str) -> Result<()> {
        // The factor is odd, so every number below 2^32 occurs at most once. 127/8 is excluded.
        let hosts = "INET_NTOA((seq * 2654435761) & 0xFFFFFFFF)";
        let networks = "INET_NTOA(((seq * 2654435761) & 0xFFFFFF00))";
        let rows = format!(
            "INSERT INTO address (grp, ip_addr, mask, port, tag) \
             SELECT IF(seq % 2, 200, 250), IF(seq % 5, {hosts}, {networks}), IF(seq % 5, 32, 24), \
                    IF(seq % 3, 0, 5060), CONCAT('carrier-', seq % 1000) \
             FROM seq_1_to_2000000 WHERE ((seq * 2654435761) & 0xFF000000) NOT IN (0x7F000000, 0) LIMIT {MILLION};"
        );
        self.create("million", schema, &rows)?;
        self.expect_rows("million", MILLION)
    }

    /// Returns the URL of one of the databases.
    pub(crate) fn url(&self, name: &str) -> String {
        format!("mysql://kamailio:kamailiorw@127.0.0.1:{}/{name}", self.port)
    }

    fn create(&self, name: &str, schema: &str, rows: &str) -> Result<()> {
        let folder = self.folder.path();
        statement(folder, "", &format!("CREATE DATABASE {name}"))?;
        statement(folder, name, schema).context("the tables cannot be made")?;
        statement(folder, name, rows)
            .with_context(|| format!("the table of {name} cannot be filled"))?;
        Ok(())
    }

    fn expect_rows(&self, name: &str, expected: u32) -> Result<()> {
        let found = statement(self.folder.path(), name, "SELECT COUNT(*) FROM address")?;
        ensure!(
            found.trim() == expected.to_string(),
            "the table of {name} has {} rows instead of {expected}",
            found.trim()
        );
        Ok(())
    }
}

/// Returns the name of the database with this many rows.
pub(crate) fn name(rows: Rows) -> &'static str {
    match rows {
        Rows::Few => "few",
        Rows::Many => "many",
    }
}

/// Returns the SQL that creates Kamailio's tables: our migrations for MySQL.
pub(crate) fn schema(root: &Path) -> Result<String> {
    let folder = root.join("migrations/mysql");
    let mut files = Vec::new();
    for entry in
        fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "sql") {
            files.push(path);
        }
    }
    ensure!(!files.is_empty(), "{} contains no SQL", folder.display());
    files.sort();
    let mut schema = String::new();
    for file in files {
        schema.push_str(&fs::read_to_string(file)?);
    }
    Ok(schema)
}

fn program() -> Result<PathBuf> {
    find("mariadbd").context("mariadbd is not installed")
}

fn current_user() -> Result<String> {
    Ok(capture(Command::new("id").arg("-un"))?.trim().to_owned())
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("socket")
}

fn install(folder: &Path, user: &str) -> Result<()> {
    let mut command = Command::new("mariadb-install-db");
    command
        .args([
            "--no-defaults",
            "--skip-test-db",
            "--auth-root-authentication-method=normal",
        ])
        .arg(format!("--user={user}"))
        .arg(format!("--datadir={}", folder.join("data").display()));
    capture(&mut command).map(drop)
}

/// Executes statements as the database's root, and returns the output.
fn statement(folder: &Path, database: &str, text: &str) -> Result<String> {
    let mut command = Command::new("mariadb");
    command
        .args([
            "--no-defaults",
            "--batch",
            "--skip-column-names",
            "--user=root",
        ])
        .arg(format!("--socket={}", socket(folder).display()));
    if !database.is_empty() {
        command.arg(database);
    }
    let mut client = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run mariadb, MariaDB's client")?;
    let mut input = client.stdin.take().context("no standard input")?;
    input.write_all(text.as_bytes())?;
    drop(input);
    let output = client.wait_with_output()?;
    if !output.status.success() {
        bail!(
            "{}",
            String::from_utf8_lossy(&output.stderr).trim().to_owned()
        );
    }
    Ok(String::from_utf8(output.stdout)?)
}
