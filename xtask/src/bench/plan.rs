//! What is measured: which servers, over which tables, with which work, how often and how long.

use std::fmt;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Serialize;

/// A server under load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Server {
    /// Sends every datagram back: what UDP alone costs on this machine.
    Echo,
    /// Ours, built as packages are.
    Portcullis,
    /// The reference as it is in service: the page in a Kamailio with the modules and checks of Debian's configuration.
    Kamailio,
    /// The reference with nothing but what the page needs.
    #[serde(rename = "kamailio-bare")]
    KamailioBare,
}

/// How many rows the `address` table has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Rows {
    /// The page's two and the loopback group.
    Few,
    /// 100,000: the loopback group is the last, every other is a network that nothing comes from.
    Many,
}

/// What is asked of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Work {
    /// INVITE from a source in no group: 401.
    Reject,
    /// OPTIONS to the server itself: 200.
    Options,
    /// INVITE from a source in group 200, relayed to a callee, and the callee's 200 on its way back.
    Relay,
    /// The datagram of [`Work::Reject`], back as it came.
    Echo,
}

/// How requests come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Shape {
    /// As fast as the server answers: its core is full, and it finds several datagrams whenever it looks.
    Full,
    /// 1,000 requests a second, evenly: the server sleeps and wakes for each, as most servers do most of the time.
    Quiet,
    /// [`STEADY`] requests a second, evenly: the server sleeps and wakes for nearly every one.
    Steady,
    /// 50,000 requests a second, evenly: the server sleeps now and then.
    Brisk,
    /// [`STEADY`] requests a second in small bursts, between which the generator leaves its core to others.
    Bursts,
}

/// What is done with a server in one window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Task {
    /// What is asked.
    pub(crate) work: Work,
    /// How it comes.
    pub(crate) shape: Shape,
}

/// Requests a second of [`Shape::Steady`].
pub(crate) const STEADY: u64 = 10_000;

impl Shape {
    /// Those with requests that come evenly.
    pub(crate) const EVEN: [Self; 3] = [Self::Quiet, Self::Steady, Self::Brisk];

    /// Requests a second; none where the server sets the pace.
    pub(crate) fn rate(self) -> Option<u64> {
        match self {
            Self::Full => None,
            Self::Quiet => Some(1_000),
            Self::Steady | Self::Bursts => Some(STEADY),
            Self::Brisk => Some(50_000),
        }
    }
}

/// A part of the benchmark that can be asked for by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// 401 to an unknown source.
    Reject,
    /// 200 to OPTIONS.
    Options,
    /// Stateless relay.
    Relay,
    /// 401s beside reloads of 100,000 rows.
    Reload,
    /// A tenant beside hostile ones.
    Neighbours,
    /// Many tenants, each with a policy of its own.
    Tenants,
    /// Loading a million rows.
    Million,
    /// Large datagrams of every shape.
    Datagrams,
    /// Memory under attack.
    Memory,
    /// The longest call of each function of the host.
    Calls,
}

/// One server as it is started: what it serves and over which table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Subject {
    /// The server.
    pub(crate) server: Server,
    /// Its table; the echo has none.
    pub(crate) rows: Option<Rows>,
}

/// How load is made.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Pace {
    /// Each measurement is made this often; the median counts.
    pub(crate) rounds: usize,
    /// Load before a measured window.
    pub(crate) warm_up_seconds: f64,
    /// Length of a measured window.
    pub(crate) seconds: f64,
    /// Loopback addresses that requests come from.
    pub(crate) sources: usize,
    /// Requests that each source has under way.
    pub(crate) outstanding: usize,
    /// The core of the server under load.
    pub(crate) server_core: usize,
    /// The core of everything else: generator, callee, database.
    pub(crate) load_core: usize,
    /// Numbers of tenants of the hosts in the part of that name. The others are set beside the first one.
    pub(crate) tenants: Vec<u32>,
}

/// The tasks of each subject, subjects in the order in which they are measured. Our two tables stand side by side, because they are
/// compared to within a few percent.
pub(crate) fn matrix(parts: &[Part], servers: &[Server]) -> Vec<(Subject, Vec<Task>)> {
    let parts: Vec<Work> = [
        (Part::Reject, Work::Reject),
        (Part::Options, Work::Options),
        (Part::Relay, Work::Relay),
    ]
    .into_iter()
    .filter(|(part, _)| parts.is_empty() || parts.contains(part))
    .map(|(_, work)| work)
    .collect();
    let mut subjects = Vec::new();
    for server in [
        Server::Echo,
        Server::Portcullis,
        Server::Kamailio,
        Server::KamailioBare,
    ] {
        if !(servers.is_empty() || servers.contains(&server)) {
            continue;
        }
        let tables: &[_] = match server {
            Server::Echo => &[None],
            Server::Portcullis | Server::Kamailio => &[Some(Rows::Few), Some(Rows::Many)],
            Server::KamailioBare => &[Some(Rows::Few)],
        };
        subjects.extend(tables.iter().map(|rows| Subject {
            server,
            rows: *rows,
        }));
    }
    let all = subjects.into_iter().map(|subject| {
        let tasks = subject.tasks(&parts);
        (subject, tasks)
    });
    all.filter(|(_, tasks)| !tasks.is_empty()).collect()
}

impl Subject {
    fn tasks(self, parts: &[Work]) -> Vec<Task> {
        let task = |work, shape| Task { work, shape };
        if parts.is_empty() {
            return Vec::new();
        }
        if self.server == Server::Echo {
            let even = Shape::EVEN.map(|shape| task(Work::Echo, shape));
            return [task(Work::Echo, Shape::Full)]
                .into_iter()
                .chain(even)
                .collect();
        }
        let full = parts.iter().map(|work| task(*work, Shape::Full));
        let mut tasks: Vec<Task> = full.collect();
        if self.rows == Some(Rows::Few) {
            for work in parts {
                let even: &[Shape] = match work {
                    // With all of Debian's modules it takes more than a core has at the highest rate.
                    Work::Reject if self.server == Server::Kamailio => {
                        &[Shape::Quiet, Shape::Steady]
                    }
                    Work::Reject => &Shape::EVEN,
                    Work::Relay => &[Shape::Steady],
                    Work::Options | Work::Echo => &[],
                };
                tasks.extend(even.iter().map(|shape| task(*work, *shape)));
            }
        }
        tasks
    }
}

impl Pace {
    /// The usual pace, or the one for a quick look.
    ///
    /// # Errors
    /// When the machine has a single core: server and generator must not share one.
    pub(crate) fn new(quick: bool, rounds: Option<usize>, seconds: Option<f64>) -> Result<Self> {
        let cores = thread::available_parallelism()?.get();
        ensure!(
            cores >= 2,
            "the benchmark needs two cores, one for the server and one for the load; this process may use {cores}"
        );
        Ok(Self {
            rounds: rounds.unwrap_or(if quick { 1 } else { 5 }).max(1),
            warm_up_seconds: if quick { 0.3 } else { 0.5 },
            seconds: seconds.unwrap_or(if quick { 1.0 } else { 3.0 }),
            sources: 16,
            outstanding: 8,
            server_core: cores - 1,
            load_core: 0,
            tenants: match quick {
                true => vec![1, 50],
                false => vec![1, 50, 200, 1_000, 10_000],
            },
        })
    }

    /// A rough length of the whole run, to say beforehand.
    pub(crate) fn expected(&self, matrix: &[(Subject, Vec<Task>)]) -> Duration {
        let windows: usize = matrix.iter().map(|(_, tasks)| tasks.len()).sum();
        let start_seconds = 1.5;
        let one = windows as f64 * (self.seconds + self.warm_up_seconds)
            + matrix.len() as f64 * start_seconds;
        Duration::from_secs_f64(one * self.rounds as f64)
    }
}

impl Rows {
    /// The number of rows.
    pub(crate) fn count(self) -> u32 {
        match self {
            Self::Few => 3,
            Self::Many => 100_000,
        }
    }
}

impl Work {
    /// The generator's name for it.
    pub(crate) fn mode(self) -> &'static str {
        match self {
            Self::Reject => "reject",
            Self::Options => "options",
            Self::Relay => "relay",
            Self::Echo => "echo",
        }
    }

    /// First source address: 127.2/16 is in group 200, 127.1/16 in none.
    pub(crate) fn first_source(self) -> &'static str {
        match self {
            Self::Relay => "127.2.0.1",
            Self::Reject | Self::Options | Self::Echo => "127.1.0.1",
        }
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reject => "401",
            Self::Options => "OPTIONS 200",
            Self::Relay => "relay",
            Self::Echo => "echo",
        })
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.shape.rate() {
            None => write!(f, "{}", self.work),
            Some(rate) => write!(f, "{} at {rate} a second", self.work),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Echo => "bare UDP",
            Self::Portcullis => "Portcullis",
            Self::Kamailio => "Kamailio",
            Self::KamailioBare => "Kamailio bare",
        })
    }
}

impl fmt::Display for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Few => "3",
            Self::Many => "100,000",
        })
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rows {
            Some(rows) => write!(f, "{}, {rows} rows", self.server),
            None => write!(f, "{}", self.server),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_measured_unless_parts_are_asked_for() {
        let windows = |parts: &[Part], servers: &[Server]| -> usize {
            matrix(parts, servers)
                .iter()
                .map(|(_, tasks)| tasks.len())
                .sum()
        };
        assert_eq!(windows(&[], &[]), 4 + (3 + 4 + 3) + (3 + 3 + 3) + (3 + 4));
        assert_eq!(windows(&[Part::Relay], &[]), 4 + 2 * 3 + 2);
        assert_eq!(
            windows(&[Part::Relay, Part::Options], &[Server::Kamailio]),
            3 + 2
        );
        assert_eq!(windows(&[Part::Million], &[]), 0);
        assert_eq!(windows(&[Part::Tenants], &[]), 0);
    }

    #[test]
    fn a_full_run_has_ten_thousand_tenants_beside_one() {
        if thread::available_parallelism().unwrap().get() < 2 {
            return;
        }
        let tenants = |quick| Pace::new(quick, None, None).unwrap().tenants;
        let full = tenants(false);
        assert_eq!((full.first(), full.last()), (Some(&1), Some(&10_000)));
        assert_eq!(tenants(true).first(), Some(&1));
    }
}
