//! A Galera cluster of three MariaDB nodes for one test: started in a temporary directory, on addresses of a leased loopback network.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::lease::Lease;
use crate::{root, wait};

/// Number of nodes.
pub const NODES: usize = 3;

/// Paths of the server, which PATH may lack.
const SERVERS: [&str; 2] = ["/usr/sbin/mariadbd", "/usr/local/sbin/mariadbd"];

/// Where Debian has the library of Galera.
const PROVIDER: &str = "/usr/lib/galera/libgalera_smm.so";

/// The user that the servers run as when the tests run as root: rsync serves a state transfer as another user otherwise.
const USER: &str = "mysql";

/// Several servers run at once, and by default each has a log of 96 MiB.
const SMALL_LOG: &str = "--innodb-log-file-size=8M";

/// Three nodes with Kamailio's tables and users. Nodes are numbered from 0.
#[derive(Debug)]
pub struct Galera {
    nodes: [Option<Child>; NODES],
    folder: TempDir,
    lease: Lease,
    /// Additional command line options of each node.
    words: Vec<String>,
}

/// What happens to a node, and how it returns.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// It is killed, and takes the last changes when it returns.
    Killed,
    /// Its process is stopped: connections stay open, and nothing is answered.
    Stopped,
    /// It is cut off from the other nodes, and clients still reach it.
    CutOff,
    /// It is killed and loses its state, which it takes from another node.
    Lost,
}

impl Fault {
    /// One of each.
    pub const ALL: [Self; 4] = [Self::Killed, Self::Stopped, Self::CutOff, Self::Lost];

    /// Makes it happen to a node.
    pub fn begin(self, cluster: &mut Galera, node: usize) {
        match self {
            Self::Killed | Self::Lost => cluster.die(node),
            Self::Stopped => cluster.stop(node),
            Self::CutOff => cluster.isolate(node, true),
        }
    }

    /// Ends it; returns when the node has the state of the cluster.
    pub fn end(self, cluster: &mut Galera, node: usize) {
        match self {
            Self::Killed => cluster.up(node),
            Self::Stopped => cluster.go_on(node),
            Self::CutOff => cluster.isolate(node, false),
            Self::Lost => {
                cluster.forget(node);
                cluster.up(node);
            }
        }
        cluster.wait_until_synced(node);
    }
}

impl Galera {
    /// Starts the nodes, and creates the database `kamailio` with its tables and users.
    ///
    /// # Panics
    /// If MariaDB or Galera is not installed: a test that needs them must not pass without them.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with additional command line options of each node.
    ///
    /// # Panics
    /// See [`start`](Self::start).
    pub fn start_with(words: &[&str]) -> Self {
        assert!(
            Path::new(PROVIDER).exists(),
            "Galera is installed: apt-get install galera-4 rsync"
        );
        let folder = tempfile::tempdir().expect("a temporary directory can be made");
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(folder.path(), open).expect("the directory can be opened");
        let mut cluster = Self {
            nodes: [const { None }; NODES],
            folder,
            lease: Lease::new(),
            words: words.iter().map(|word| (*word).to_owned()).collect(),
        };
        for node in 0..NODES {
            fs::create_dir_all(cluster.of(node).join("tmp")).expect("a directory can be made");
        }
        cluster.own();
        cluster.install();
        cluster.bootstrap(0);
        cluster.sql(
            0,
            "",
            "CREATE DATABASE kamailio; \
             CREATE USER 'kamailio'@'%' IDENTIFIED BY 'kamailiorw'; \
             GRANT ALL ON kamailio.* TO 'kamailio'@'%';",
        );
        let folder = root().join("migrations/mysql");
        let files = fs::read_dir(folder).expect("the migrations can be read");
        let mut files: Vec<PathBuf> = files
            .map(|entry| entry.expect("a directory entry").path())
            .filter(|path| path.extension().is_some_and(|e| e == "sql"))
            .collect();
        files.sort();
        for file in files {
            let text = fs::read_to_string(&file).expect("a migration can be read");
            cluster.sql(0, "kamailio", &text);
        }
        for node in 1..NODES {
            cluster.up(node);
            cluster.wait_until_synced(node);
        }
        cluster
    }

    /// The URL of a node as an operator writes it.
    pub fn url(&self, node: usize) -> String {
        format!("mysql://kamailio:kamailiorw@{}/kamailio", self.addr(node))
    }

    /// The line `url` of `[database]`, with all nodes, beginning with this one.
    pub fn urls(&self, first: usize) -> String {
        let urls = (0..NODES).map(|at| format!("{:?}", self.url((first + at) % NODES)));
        format!("url = [{}]", urls.collect::<Vec<_>>().join(", "))
    }

    /// Where a node listens.
    pub fn addr(&self, node: usize) -> SocketAddr {
        self.at(node, 3306)
    }

    /// The id of the process of a node.
    ///
    /// # Panics
    /// If it does not run.
    pub fn pid(&self, node: usize) -> u32 {
        self.nodes[node].as_ref().expect("the node runs").id()
    }

    /// Fills the table with this many /24 subnets of group 200 outside of 127/8, as fast as the engine can.
    pub fn fill_subnets(&self, count: u32) {
        self.sql(0, "kamailio", &crate::mariadb::subnets(count));
    }

    /// Runs statements as root on a node.
    ///
    /// # Panics
    /// If they fail.
    pub fn sql(&self, node: usize, database: &str, statements: &str) -> String {
        self.try_sql(node, database, statements)
            .unwrap_or_else(|error| panic!("{statements}: {error}"))
    }

    /// Runs statements as root on a node.
    ///
    /// # Errors
    /// The error of the client.
    pub fn try_sql(&self, node: usize, database: &str, statements: &str) -> Result<String, String> {
        let output = Command::new("mariadb")
            .arg("--no-defaults")
            .arg(format!("--socket={}", self.socket(node).display()))
            .arg("--user=root")
            .args([
                "--connect-timeout=5",
                "--batch",
                "--skip-column-names",
                "-e",
                statements,
            ])
            .arg(database)
            .output()
            .expect("the mariadb client runs");
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// Adds an address to group 200 on a node. The cluster refuses writes for a moment when one of its nodes is gone.
    ///
    /// # Panics
    /// If it refuses them for too long.
    pub fn add_row(&self, node: usize, ip: &str) {
        let insert = format!(
            "INSERT INTO address (grp, ip_addr, mask, port, tag) VALUES (200, '{ip}', 32, 0, '')"
        );
        wait::until("the cluster accepts a row", || {
            // A try without an answer may have been committed.
            let there = format!("SELECT COUNT(*) FROM address WHERE ip_addr = '{ip}'");
            let found = self.try_sql(node, "kamailio", &there).ok()?;
            match found.trim() {
                "0" => self.try_sql(node, "kamailio", &insert).ok().map(drop),
                _ => Some(()),
            }
        });
    }

    /// Whether a node has the state of the cluster and serves.
    pub fn is_synced(&self, node: usize) -> bool {
        let asked = self.try_sql(
            node,
            "",
            "SHOW STATUS WHERE Variable_name IN ('wsrep_ready', 'wsrep_local_state', 'wsrep_cluster_status')",
        );
        let values = asked.unwrap_or_default();
        let has = |pair: &str| values.lines().any(|line| line == pair);
        has("wsrep_ready\tON")
            && has("wsrep_local_state\t4")
            && has("wsrep_cluster_status\tPrimary")
    }

    /// Waits until a node has the state of the cluster and serves.
    ///
    /// # Panics
    /// If that takes too long, or the node ends.
    pub fn wait_until_synced(&mut self, node: usize) {
        wait::until("the node is synced", || {
            let ended = self.nodes[node]
                .as_mut()
                .and_then(|one| one.try_wait().ok()?);
            assert!(ended.is_none(), "node {node} ended: {}", self.log(node));
            self.is_synced(node).then_some(())
        });
    }

    /// Kills a node, as a crash does.
    pub fn die(&mut self, node: usize) {
        if let Some(mut one) = self.nodes[node].take() {
            one.kill().expect("the server can be killed");
            one.wait().expect("the server can be reaped");
        }
    }

    /// Stops the process of a node: its connections stay open, and nothing is answered.
    pub fn stop(&self, node: usize) {
        self.signal(node, "-STOP");
    }

    /// Continues a node that was stopped.
    pub fn go_on(&self, node: usize) {
        self.signal(node, "-CONT");
    }

    /// Cuts a node off from the others, or ends that. Clients still reach it.
    pub fn isolate(&self, node: usize, is_cut: bool) {
        let value = u8::from(is_cut);
        let set = format!("SET GLOBAL wsrep_provider_options = 'gmcast.isolate={value}'");
        self.sql(node, "", &set);
    }

    /// Starts a node. It takes what it lacks from another one: the last changes (IST), or the whole state (SST) if it has none.
    pub fn up(&mut self, node: usize) {
        self.launch(node, &[]);
    }

    /// Removes the state of a node that does not run: it takes the whole state from another one when it starts.
    pub fn forget(&self, node: usize) {
        let data = self.of(node).join("data");
        fs::remove_dir_all(&data).expect("the data directory can be removed");
        fs::create_dir(&data).expect("a directory can be made");
        self.own();
    }

    /// Starts a node as the first of the cluster.
    pub fn bootstrap(&mut self, node: usize) {
        self.launch(node, &["--wsrep-new-cluster"]);
        self.wait_until_synced(node);
    }

    /// Says that a node that does not run may be the first of the cluster, although it may lack the last changes.
    pub fn permit_bootstrap(&self, node: usize) {
        let file = self.of(node).join("data/grastate.dat");
        let text = fs::read_to_string(&file).expect("the state of the node can be read");
        let text = text.replace("safe_to_bootstrap: 0", "safe_to_bootstrap: 1");
        fs::write(&file, text).expect("the state of the node can be written");
    }

    fn launch(&mut self, node: usize, words: &[&str]) {
        let folder = self.of(node);
        fs::create_dir_all(folder.join("data")).expect("a directory can be made");
        self.own();
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(folder.join("mariadb.log"))
            .expect("a log can be written");
        let ip = self.addr(node).ip();
        let mut members = String::from("gcomm://");
        for other in 0..NODES {
            let separator = if other == 0 { "" } else { "," };
            write!(members, "{separator}{}", self.at(other, 4567)).expect("a string takes text");
        }
        // A node that is gone is excluded after three seconds, and not while the machine is busy.
        let options = format!(
            "gcache.size=16M;gmcast.listen_addr=tcp://{};ist.recv_addr={};evs.keepalive_period=PT0.5S;\
             evs.suspect_timeout=PT3S;evs.inactive_timeout=PT6S",
            self.at(node, 4567),
            self.at(node, 4568)
        );
        let server = Command::new(program())
            .arg("--no-defaults")
            .arg(format!("--user={}", user()))
            .arg(format!("--datadir={}", folder.join("data").display()))
            .arg(format!("--tmpdir={}", folder.join("tmp").display()))
            .arg(format!("--socket={}", self.socket(node).display()))
            .arg(format!("--bind-address={ip}"))
            .arg("--port=3306")
            .arg("--innodb-buffer-pool-size=32M")
            .arg("--innodb-flush-log-at-trx-commit=2")
            .arg(SMALL_LOG)
            .args(["--binlog-format=ROW", "--innodb-autoinc-lock-mode=2"])
            .arg("--wsrep-on=ON")
            .arg(format!("--wsrep-provider={PROVIDER}"))
            .arg("--wsrep-cluster-name=portcullis")
            .arg(format!("--wsrep-cluster-address={members}"))
            .arg(format!("--wsrep-node-address={ip}"))
            .arg(format!("--wsrep-node-name=node{node}"))
            .arg("--wsrep-sst-method=rsync")
            .arg(format!(
                "--wsrep-sst-receive-address={}",
                self.at(node, 4444)
            ))
            .arg(format!("--wsrep-provider-options={options}"))
            .args(&self.words)
            .args(words)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file handle can be cloned"))
            .stderr(log)
            .spawn()
            .expect("the server can be started");
        self.nodes[node] = Some(server);
    }

    fn install(&self) {
        let folder = self.of(0);
        let output = Command::new("mariadb-install-db")
            .arg("--no-defaults")
            .arg(format!("--user={}", user()))
            .arg("--auth-root-authentication-method=normal")
            .arg("--skip-test-db")
            .arg(SMALL_LOG)
            .arg(format!("--tmpdir={}", folder.join("tmp").display()))
            .arg(format!("--datadir={}", folder.join("data").display()))
            .output()
            .expect("mariadb-install-db is installed: apt-get install mariadb-server");
        assert!(
            output.status.success(),
            "mariadb-install-db: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Gives the files to the user that the servers run as.
    fn own(&self) {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let given = Command::new("chown")
            .arg("--recursive")
            .arg(format!("{USER}:"))
            .arg(self.folder.path())
            .status();
        assert!(given.is_ok_and(|status| status.success()), "chown works");
    }

    fn signal(&self, node: usize, signal: &str) {
        let Some(one) = &self.nodes[node] else {
            return;
        };
        let sent = Command::new("kill")
            .args([signal, &one.id().to_string()])
            .status();
        assert!(sent.is_ok_and(|status| status.success()), "kill works");
    }

    fn at(&self, node: usize, port: u16) -> SocketAddr {
        let host = u8::try_from(node).expect("there are few nodes");
        self.lease.addr(10 + host, port)
    }

    fn of(&self, node: usize) -> PathBuf {
        self.folder.path().join(format!("node{node}"))
    }

    fn socket(&self, node: usize) -> PathBuf {
        self.of(node).join("mysqld.sock")
    }

    fn log(&self, node: usize) -> String {
        fs::read_to_string(self.of(node).join("mariadb.log")).unwrap_or_default()
    }
}

fn program() -> &'static str {
    let program = SERVERS.iter().find(|program| Path::new(program).exists());
    program.expect("mariadbd is installed: apt-get install mariadb-server")
}

/// The user that the servers run as: the one of the tests, unless that is root.
fn user() -> String {
    match nix::unistd::geteuid().is_root() {
        true => USER.to_owned(),
        false => nix::unistd::geteuid().to_string(),
    }
}

impl Drop for Galera {
    fn drop(&mut self) {
        for node in 0..NODES {
            self.die(node);
        }
    }
}
