//! A primary and a replica of one database, for one test: MariaDB with GTIDs, or PostgreSQL with a standby.

use std::net::SocketAddr;

use crate::mariadb::MariaDb;
use crate::postgres::Postgres;
use crate::wait;

/// Statements of a PostgreSQL that writes nothing to its log by itself while a test stops a server.
const QUIET: [&str; 4] = ["-c", "autovacuum=off", "-c", "checkpoint_timeout=1d"];

/// A primary and its replica, which only reads.
#[derive(Debug)]
pub enum Replicas {
    /// MariaDB.
    MariaDb(Pair<MariaDb>),
    /// PostgreSQL.
    Postgres(Pair<Postgres>),
}

/// The servers.
#[derive(Debug)]
pub struct Pair<S> {
    primary: S,
    replica: S,
}

/// One of the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The one that is the primary at the start.
    Primary,
    /// The other one.
    Replica,
}

impl Replicas {
    /// Starts a MariaDB with Kamailio's tables, and its replica.
    ///
    /// # Panics
    /// If MariaDB is not installed: a test that needs it must not pass without it.
    pub fn mariadb() -> Self {
        let words = |server: u8, more: &[&str]| {
            let id = format!("--server-id={server}");
            let own = [id.as_str(), "--log-bin=binlog", "--binlog-format=ROW"];
            let all = own.iter().chain(more);
            all.map(|word| (*word).to_owned()).collect::<Vec<_>>()
        };
        let primary = MariaDb::start_with(|_| words(1, &[]));
        primary.sql(
            "",
            "CREATE USER 'copy'@'%' IDENTIFIED BY 'copy'; GRANT REPLICATION SLAVE ON *.* TO 'copy'@'%';",
        );
        let more = [
            "--log-slave-updates=ON",
            "--relay-log=relay",
            "--read-only=ON",
        ];
        let replica = MariaDb::bare(|_| words(2, &more));
        let (ip, port) = (primary.addr().ip(), primary.addr().port());
        replica.sql(
            "",
            &format!(
                "CHANGE MASTER TO MASTER_HOST = '{ip}', MASTER_PORT = {port}, MASTER_USER = 'copy', MASTER_PASSWORD = 'copy', \
                 MASTER_CONNECT_RETRY = 1, MASTER_USE_GTID = slave_pos; START SLAVE"
            ),
        );
        let pair = Self::MariaDb(Pair { primary, replica });
        pair.wait_until_equal();
        pair
    }

    /// Starts a PostgreSQL with Kamailio's tables, and its standby.
    ///
    /// # Panics
    /// If PostgreSQL is not installed: a test that needs it must not pass without it.
    pub fn postgres() -> Self {
        let quiet = || QUIET.map(str::to_owned).to_vec();
        let primary = Postgres::start_with(|_, _| quiet());
        let replica = Postgres::standby_of(&primary, quiet());
        let pair = Self::Postgres(Pair { primary, replica });
        pair.wait_until_equal();
        pair
    }

    /// The line `url` of `[database]`, with both servers, the primary first.
    pub fn urls(&self) -> String {
        let urls = match self {
            Self::MariaDb(Pair { primary, replica }) => [primary.url(), replica.url()],
            Self::Postgres(Pair { primary, replica }) => [primary.url(), replica.url()],
        };
        format!("url = {urls:?}")
    }

    /// Where a server listens.
    pub fn addr(&self, role: Role) -> SocketAddr {
        match (self, role) {
            (Self::MariaDb(pair), Role::Primary) => pair.primary.addr(),
            (Self::MariaDb(pair), Role::Replica) => pair.replica.addr(),
            (Self::Postgres(pair), Role::Primary) => pair.primary.addr(),
            (Self::Postgres(pair), Role::Replica) => pair.replica.addr(),
        }
    }

    /// Runs statements as the administrator on a server, in the database `kamailio`.
    ///
    /// # Panics
    /// If they fail.
    pub fn sql(&self, role: Role, statements: &str) -> String {
        match (self, role) {
            (Self::MariaDb(pair), Role::Primary) => pair.primary.sql("kamailio", statements),
            (Self::MariaDb(pair), Role::Replica) => pair.replica.sql("kamailio", statements),
            (Self::Postgres(pair), Role::Primary) => pair.primary.sql("kamailio", statements),
            (Self::Postgres(pair), Role::Replica) => pair.replica.sql("kamailio", statements),
        }
    }

    /// Adds an address to group 200 on a server.
    ///
    /// # Panics
    /// If the server refuses it.
    pub fn add_row(&self, role: Role, ip: &str) {
        let insert = format!(
            "INSERT INTO address (grp, ip_addr, mask, port, tag) VALUES (200, '{ip}', 32, 0, '')"
        );
        self.sql(role, &insert);
    }

    /// Lets the replica receive changes, and not make them.
    pub fn pause(&self) {
        let pause = match self {
            Self::MariaDb(_) => "STOP SLAVE SQL_THREAD",
            Self::Postgres(_) => "SELECT pg_wal_replay_pause()",
        };
        self.sql(Role::Replica, pause);
        if let Self::Postgres(_) = self {
            wait::until("the standby pauses", || {
                let state = self.sql(Role::Replica, "SELECT pg_get_wal_replay_pause_state()");
                (state.trim() == "paused").then_some(())
            });
        }
    }

    /// Lets the replica make the changes that it has received.
    pub fn resume(&self) {
        let resume = match self {
            Self::MariaDb(_) => "START SLAVE SQL_THREAD",
            Self::Postgres(_) => "SELECT pg_wal_replay_resume()",
        };
        self.sql(Role::Replica, resume);
    }

    /// Waits until the replica has received all changes of the primary.
    ///
    /// # Panics
    /// If that takes too long.
    pub fn wait_until_received(&self) {
        wait::until("the replica has received all changes", || {
            match self {
                Self::MariaDb(_) => {
                    let at = self.sql(Role::Primary, "SELECT @@GLOBAL.gtid_binlog_pos");
                    let status = self.sql(Role::Replica, "SHOW SLAVE STATUS");
                    // Gtid_IO_Pos is the only field of this form.
                    status
                        .split(['\t', '\n'])
                        .any(|field| field.trim() == at.trim())
                }
                Self::Postgres(_) => {
                    let at = self.sql(Role::Primary, "SELECT pg_current_wal_flush_lsn()");
                    let ask = format!("SELECT pg_last_wal_receive_lsn() >= '{}'", at.trim());
                    self.sql(Role::Replica, &ask).trim() == "t"
                }
            }
            .then_some(())
        });
    }

    /// Waits until the replica has made all changes of the primary.
    fn wait_until_equal(&self) {
        wait::until("the replica has the state of the primary", || {
            match self {
                Self::MariaDb(pair) => {
                    let at = |server: &MariaDb| server.sql("", "SELECT @@GLOBAL.gtid_current_pos");
                    at(&pair.primary) == at(&pair.replica)
                }
                Self::Postgres(pair) => {
                    let at = pair
                        .primary
                        .sql("postgres", "SELECT pg_current_wal_flush_lsn()");
                    let ask = format!("SELECT pg_last_wal_replay_lsn() >= '{}'", at.trim());
                    pair.replica.sql("postgres", &ask).trim() == "t"
                }
            }
            .then_some(())
        });
    }

    /// Kills the primary, as a crash does.
    pub fn primary_dies(&mut self) {
        match self {
            Self::MariaDb(pair) => pair.primary.die(),
            Self::Postgres(pair) => pair.primary.die(),
        }
    }

    /// Starts the primary again, with what it had.
    pub fn primary_returns(&mut self) {
        match self {
            Self::MariaDb(pair) => pair.primary.up(),
            Self::Postgres(pair) => pair.primary.up(),
        }
    }

    /// Makes the replica a primary.
    pub fn promote(&self) {
        let promote = match self {
            Self::MariaDb(_) => "STOP SLAVE; RESET SLAVE ALL; SET GLOBAL read_only = OFF",
            Self::Postgres(_) => "SELECT pg_promote()",
        };
        self.sql(Role::Replica, promote);
    }
}
