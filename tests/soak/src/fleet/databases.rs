//! The database servers of a fleet, and what the fleet costs them.

use std::fs;
use std::ops::Sub;
use std::time::Duration;

use anyhow::{Context, Result};
use portcullis_testkit::galera::{Galera, NODES};
use portcullis_testkit::host::Builder;
use portcullis_testkit::mariadb::MariaDb;
use portcullis_testkit::wait;
use serde::Serialize;

/// More connections than any fleet of the soak opens: how many it opens is what is measured.
const CONNECTIONS: &str = "--max-connections=5000";

/// The time for which the servers are away in a restart: hosts notice it in this time.
const AWAY: Duration = Duration::from_secs(5);

/// Unit of the times in /proc/PID/stat, in milliseconds: Linux reports hundredths of a second on every platform.
const TICK_MS: u64 = 10;

/// What the servers count.
const STATUS: &str = "SHOW GLOBAL STATUS WHERE Variable_name IN ('Questions', 'Bytes_sent', 'Bytes_received', 'Rows_read', 'Connections', \
     'Threads_connected', 'Max_used_connections')";

/// The servers.
#[derive(Debug)]
pub(crate) enum Databases {
    /// One MariaDB.
    One(Box<MariaDb>),
    /// Three nodes of MariaDB with Galera. Hosts spread over them.
    Cluster(Box<Galera>),
}

/// What the servers have done since they were started, in total.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Work {
    /// Statements.
    pub(crate) questions: u64,
    /// Bytes sent to the hosts.
    pub(crate) bytes_sent: u64,
    /// Bytes received from the hosts.
    pub(crate) bytes_received: u64,
    /// Rows read by all statements.
    pub(crate) rows_read: u64,
    /// Connections that were opened.
    pub(crate) connections: u64,
    /// Processor time, in milliseconds.
    pub(crate) cpu_ms: u64,
}

/// The connections of the servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Open {
    /// Open now.
    pub(crate) now: u64,
    /// The most since [`Databases::forget_most`] or a start.
    pub(crate) most: u64,
}

impl Databases {
    /// The servers with Kamailio's tables, and this many rows in `address`.
    pub(crate) fn start(is_cluster: bool, rows: u32) -> Self {
        match is_cluster {
            false => {
                let server = MariaDb::start_with(|_| vec![CONNECTIONS.to_owned()]);
                if rows > 0 {
                    server.fill_subnets(rows);
                }
                Self::One(Box::new(server))
            }
            true => {
                let cluster = Galera::start_with(&[CONNECTIONS]);
                if rows > 0 {
                    cluster.fill_subnets(rows);
                }
                Self::Cluster(Box::new(cluster))
            }
        }
    }

    /// Configures a host for these servers.
    pub(crate) fn configure(&self, host: Builder) -> Builder {
        match self {
            Self::One(server) => host.database(&server.url()),
            Self::Cluster(cluster) => host
                .set("database", &cluster.urls(0))
                .set("database", "prefer = \"spread\""),
        }
    }

    /// Runs statements on the first server.
    pub(crate) fn sql(&self, statements: &str) {
        match self {
            Self::One(server) => drop(server.sql("kamailio", statements)),
            // A write of a host may be first: it is certified before.
            Self::Cluster(cluster) => wait::until("the cluster accepts a change", || {
                cluster.try_sql(0, "kamailio", statements).ok().map(drop)
            }),
        }
    }

    /// Kills the server, or the first node of the cluster, and starts it again after a while. Returns as soon as it serves, with what the servers
    /// had done by then.
    ///
    /// # Errors
    /// If a server does not say it.
    pub(crate) fn restart(&mut self) -> Result<Work> {
        match self {
            Self::One(server) => {
                server.die();
                std::thread::sleep(AWAY);
                server.up();
                // It counts from its start.
                Ok(Work::default())
            }
            Self::Cluster(cluster) => {
                cluster.die(0);
                std::thread::sleep(AWAY);
                cluster.up(0);
                cluster.wait_until_synced(0);
                self.work()
            }
        }
    }

    /// Forgets how many connections were open at most.
    pub(crate) fn forget_most(&self) {
        for server in 0..self.count() {
            self.ask(server, "FLUSH STATUS");
        }
    }

    /// # Errors
    /// If a server does not say it.
    pub(crate) fn open(&self) -> Result<Open> {
        let mut open = Open::default();
        for server in 0..self.count() {
            let status = self.ask(server, STATUS);
            // One of them is that of this question.
            open.now += value(&status, "Threads_connected")?.saturating_sub(1);
            open.most += value(&status, "Max_used_connections")?.saturating_sub(1);
        }
        Ok(open)
    }

    /// # Errors
    /// If a server does not say it.
    pub(crate) fn work(&self) -> Result<Work> {
        let mut work = Work::default();
        for server in 0..self.count() {
            let status = self.ask(server, STATUS);
            work.questions += value(&status, "Questions")?;
            work.bytes_sent += value(&status, "Bytes_sent")?;
            work.bytes_received += value(&status, "Bytes_received")?;
            work.rows_read += value(&status, "Rows_read")?;
            work.connections += value(&status, "Connections")?;
            work.cpu_ms += cpu_ms(self.pid(server))?;
        }
        Ok(work)
    }

    /// Number of servers.
    pub(crate) fn count(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Cluster(_) => NODES,
        }
    }

    /// Runs a statement as root on a server.
    fn ask(&self, server: usize, statement: &str) -> String {
        match self {
            Self::One(one) => one.sql("", statement),
            Self::Cluster(cluster) => cluster.sql(server, "", statement),
        }
    }

    fn pid(&self, server: usize) -> u32 {
        match self {
            Self::One(one) => one.pid(),
            Self::Cluster(cluster) => cluster.pid(server),
        }
    }
}

impl Sub for Work {
    type Output = Self;

    /// What was done since an earlier moment of the same processes.
    fn sub(self, before: Self) -> Self {
        let less = |now: u64, before: u64| now.saturating_sub(before);
        Self {
            questions: less(self.questions, before.questions),
            bytes_sent: less(self.bytes_sent, before.bytes_sent),
            bytes_received: less(self.bytes_received, before.bytes_received),
            rows_read: less(self.rows_read, before.rows_read),
            connections: less(self.connections, before.connections),
            cpu_ms: less(self.cpu_ms, before.cpu_ms),
        }
    }
}

/// The value of a line "NAME TAB VALUE".
fn value(status: &str, name: &str) -> Result<u64> {
    let mut lines = status.lines().filter_map(|line| line.split_once('\t'));
    let found = lines.find(|(line, _)| *line == name);
    let found = found.and_then(|(_, value)| value.trim().parse().ok());
    found.with_context(|| format!("the server does not say {name}: {status}"))
}

/// Processor time of a process.
fn cpu_ms(pid: u32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    ticks(&stat).map(|ticks| ticks * TICK_MS)
}

/// User and system time in the text of /proc/PID/stat.
fn ticks(stat: &str) -> Result<u64> {
    // The name of the program, in parentheses, may contain blanks.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut fields = after_name.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    let both = next().zip(next());
    let (user, system) = both.with_context(|| format!("no times in {stat:?}"))?;
    Ok(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_of_a_process_are_the_14th_and_15th_field() {
        let stat = "17 (maria db) S 1 17 17 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 9 0 100";
        assert_eq!(ticks(stat).unwrap(), 300);
        assert!(ticks("17 (mariadbd) S 1").is_err());
        assert!(cpu_ms(std::process::id()).is_ok());
    }

    #[test]
    fn a_value_that_is_missing_is_an_error() {
        let status = "Questions\t12\nRows_read\t7\n";
        assert_eq!(value(status, "Rows_read").unwrap(), 7);
        assert!(value(status, "Rows").is_err());
    }
}
