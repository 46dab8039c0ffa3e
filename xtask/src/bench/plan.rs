//! The plan of a benchmark: servers, tables, tasks, rounds and durations.

use std::fmt;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Serialize;

/// A server under load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Server {
    /// Returns every datagram: the cost of UDP alone on this machine.
    Echo,
    /// Portcullis, built as packages are.
    Portcullis,
    /// Portcullis with `mode = "stateless"` in `[relay]`: only what is relayed is measured.
    #[serde(rename = "portcullis-stateless")]
    PortcullisStateless,
    /// Kamailio as it is commonly used: the configuration of the README with the modules and checks of Debian's configuration.
    Kamailio,
    /// Kamailio with only what the configuration of the README needs.
    #[serde(rename = "kamailio-bare")]
    KamailioBare,
}

/// Number of rows of the `address` table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Rows {
    /// The two rows of the README and the loopback group.
    Few,
    /// 100,000: the loopback group is the last row, the others are networks without traffic.
    Many,
}

/// What requests a server gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Work {
    /// INVITE from a source in no group: 401.
    Reject,
    /// OPTIONS to the server itself: 200.
    Options,
    /// INVITE from a source in group 200, relayed to a callee, and the callee's 200 relayed back.
    Relay,
    /// MESSAGE from a source in group 200, relayed to a callee, and the callee's 200 relayed back.
    Message,
    /// A call of seven messages from a source in group 200: INVITE, 100, 180, 200, ACK, BYE, 200. It counts as one request.
    Call,
    /// The datagram of [`Work::Reject`], returned unchanged.
    Echo,
}

/// Timing of the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Shape {
    /// As fast as the server responds: its core is saturated, and it always finds several datagrams.
    Full,
    /// 1,000 requests per second, evenly spaced: the server sleeps and wakes up for each, as most servers do most of the time.
    Quiet,
    /// [`STEADY`] requests per second, evenly spaced: the server sleeps and wakes up for nearly every one.
    Steady,
    /// 50,000 requests per second, evenly spaced: the server sleeps now and then.
    Brisk,
    /// [`STEADY`] requests per second in small bursts, between which the generator leaves its core to other programs.
    Bursts,
}

/// The task of a server in one measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Task {
    /// The requests.
    pub(crate) work: Work,
    /// Their timing.
    pub(crate) shape: Shape,
}

/// Requests per second of [`Shape::Steady`].
pub(crate) const STEADY: u64 = 10_000;

impl Shape {
    /// Those with evenly spaced requests.
    pub(crate) const EVEN: [Self; 3] = [Self::Quiet, Self::Steady, Self::Brisk];

    /// Returns the requests per second; `None` if the server determines the rate.
    pub(crate) fn rate(self) -> Option<u64> {
        match self {
            Self::Full => None,
            Self::Quiet => Some(1_000),
            Self::Steady | Self::Bursts => Some(STEADY),
            Self::Brisk => Some(50_000),
        }
    }
}

/// A part of the benchmark that can be selected by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// 401 to an unknown source.
    Reject,
    /// 200 to OPTIONS.
    Options,
    /// INVITE and its 200, relayed.
    Relay,
    /// MESSAGE and its 200, relayed.
    Message,
    /// Whole calls.
    Call,
    /// 401s during reloads of 100,000 rows.
    Reload,
    /// A tenant next to hostile ones.
    Neighbours,
    /// Many tenants, each with its own policy.
    Tenants,
    /// Loading a million rows.
    Million,
    /// Large datagrams of every shape.
    Datagrams,
    /// Memory under attack.
    Memory,
    /// The longest policy call for each host function.
    Calls,
    /// A million ended transactions.
    Lingering,
    /// The set-up of calls beside reloads, swaps and failing targets.
    SetUp,
    /// Upgrades of a running host.
    Upgrade,
    /// Requests and calls over TCP, TLS and WebSocket, beside Kamailio's.
    Tls,
    /// Handshakes of TLS, full and resumed, beside Kamailio's.
    Handshakes,
    /// Memory of 10,000 idle connections over TCP, TLS and WebSocket, beside Kamailio's.
    Idle,
    /// Requests over UDP beside a storm of handshakes.
    Storm,
    /// 1,000 renewals of certificates, good and bad, beside requests and handshakes.
    Certificates,
    /// Sets of 1,000 gateways of the dispatcher, some of which fail.
    Dispatcher,
}

impl Part {
    /// The parts with certificates.
    pub(crate) const EDGE: [Self; 5] = [
        Self::Tls,
        Self::Handshakes,
        Self::Idle,
        Self::Storm,
        Self::Certificates,
    ];
}

/// One server as it is started, with its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Subject {
    /// The server.
    pub(crate) server: Server,
    /// Its table; the echo server has none.
    pub(crate) rows: Option<Rows>,
}

/// Amount of load and its placement.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Pace {
    /// Whether this is a first impression, with less of everything.
    pub(crate) quick: bool,
    /// Number of rounds; the medians are reported.
    pub(crate) rounds: usize,
    /// Seconds of load before the measurement.
    pub(crate) warm_up_seconds: f64,
    /// Seconds of a measurement.
    pub(crate) seconds: f64,
    /// Number of loopback addresses that send requests.
    pub(crate) sources: usize,
    /// Number of pending requests of each source.
    pub(crate) outstanding: usize,
    /// The core of the server under load.
    pub(crate) server_core: usize,
    /// The core of everything else: load generator, callee, database.
    pub(crate) load_core: usize,
    /// Numbers of tenants in the part of that name. The others are compared with the first one.
    pub(crate) tenants: Vec<u32>,
}

/// Returns the tasks of each subject, in the order of measurement. The two tables of Portcullis are adjacent, because they are compared to
/// within a few percent.
pub(crate) fn matrix(parts: &[Part], servers: &[Server]) -> Vec<(Subject, Vec<Task>)> {
    let parts: Vec<Work> = [
        (Part::Reject, Work::Reject),
        (Part::Options, Work::Options),
        (Part::Relay, Work::Relay),
        (Part::Message, Work::Message),
        (Part::Call, Work::Call),
    ]
    .into_iter()
    .filter(|(part, _)| parts.is_empty() || parts.contains(part))
    .map(|(_, work)| work)
    .collect();
    let mut subjects = Vec::new();
    for server in [
        Server::Echo,
        Server::Portcullis,
        Server::PortcullisStateless,
        Server::Kamailio,
        Server::KamailioBare,
    ] {
        if !(servers.is_empty() || servers.contains(&server)) {
            continue;
        }
        let tables: &[_] = match server {
            Server::Echo => &[None],
            Server::Portcullis | Server::Kamailio => &[Some(Rows::Few), Some(Rows::Many)],
            Server::PortcullisStateless | Server::KamailioBare => &[Some(Rows::Few)],
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
        if self.server == Server::PortcullisStateless {
            let relayed = parts.iter().filter(|work| work.has_callee());
            return relayed.map(|work| task(*work, Shape::Full)).collect();
        }
        let full = parts.iter().map(|work| task(*work, Shape::Full));
        let mut tasks: Vec<Task> = full.collect();
        if self.rows == Some(Rows::Few) {
            for work in parts {
                let even: &[Shape] = match work {
                    // With all of Debian's modules, the highest rate needs more than a core.
                    Work::Reject if self.server == Server::Kamailio => {
                        &[Shape::Quiet, Shape::Steady]
                    }
                    Work::Reject => &Shape::EVEN,
                    Work::Relay => &[Shape::Steady],
                    Work::Call => &[Shape::Quiet],
                    Work::Options | Work::Message | Work::Echo => &[],
                };
                tasks.extend(even.iter().map(|shape| task(*work, *shape)));
            }
        }
        tasks
    }
}

impl Pace {
    /// Returns the usual load, or that for a quick run.
    ///
    /// # Errors
    /// If the machine has a single core: server and load generator must not share one.
    pub(crate) fn new(quick: bool, rounds: Option<usize>, seconds: Option<f64>) -> Result<Self> {
        let cores = thread::available_parallelism()?.get();
        ensure!(
            cores >= 2,
            "the benchmark needs two cores, one for the server and one for the load; this process may use {cores}"
        );
        Ok(Self {
            quick,
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

    /// Returns a rough estimate of the duration of the whole run.
    pub(crate) fn expected(&self, matrix: &[(Subject, Vec<Task>)]) -> Duration {
        let windows: usize = matrix.iter().map(|(_, tasks)| tasks.len()).sum();
        let start_seconds = 1.5;
        let one = windows as f64 * (self.seconds + self.warm_up_seconds)
            + matrix.len() as f64 * start_seconds;
        Duration::from_secs_f64(one * self.rounds as f64)
    }
}

impl Rows {
    /// Returns the number of rows.
    pub(crate) fn count(self) -> u32 {
        match self {
            Self::Few => 3,
            Self::Many => 100_000,
        }
    }
}

impl Work {
    /// Returns the load generator's name for the task.
    pub(crate) fn mode(self) -> &'static str {
        match self {
            Self::Reject => "reject",
            Self::Options => "options",
            Self::Relay => "relay",
            Self::Message => "message",
            Self::Call => "call",
            Self::Echo => "echo",
        }
    }

    /// Whether requests go to a callee.
    pub(crate) fn has_callee(self) -> bool {
        match self {
            Self::Relay | Self::Message | Self::Call => true,
            Self::Reject | Self::Options | Self::Echo => false,
        }
    }

    /// Returns the first source address: 127.2/16 is in group 200, 127.1/16 is in no group.
    pub(crate) fn first_source(self) -> &'static str {
        match self {
            Self::Relay | Self::Message | Self::Call => "127.2.0.1",
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
            Self::Message => "MESSAGE relayed",
            Self::Call => "call of 7 messages",
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
            Self::PortcullisStateless => "Portcullis stateless",
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
    fn everything_is_measured_unless_parts_are_selected() {
        let windows = |parts: &[Part], servers: &[Server]| -> usize {
            matrix(parts, servers)
                .iter()
                .map(|(_, tasks)| tasks.len())
                .sum()
        };
        assert_eq!(
            windows(&[], &[]),
            4 + (5 + 5 + 5) + 3 + (5 + 4 + 5) + (5 + 5)
        );
        assert_eq!(windows(&[Part::Relay], &[]), 4 + 2 * 3 + 1 + 2);
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
