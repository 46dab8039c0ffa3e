//! Three hosts on a Galera cluster of three nodes. Nodes fail and return while rows change, policies are pushed and requests are judged: how long it
//! takes until a change is live on all hosts, and what is lost.

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use portcullis_testkit::galera::{Fault, Galera, NODES};
use portcullis_testkit::guests::rejecting;
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::wait;
use serde::Serialize;

use crate::report::verdict;
use crate::times::milliseconds;

/// Parameters of the soak.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Number of faults.
    pub(crate) faults: u64,
    /// Number of changes of rows.
    pub(crate) changes: u64,
    /// Whether times are judged.
    pub(crate) is_timed: bool,
}

/// Changes between two pushes.
const PUSHES: u64 = 10;

/// Last parts of the addresses of callers: one is in the table, one is not.
const CALLER: u8 = 10;
const STRANGER: u8 = 20;

/// The longest time until 99 of 100 changes are live on all hosts while all nodes serve.
const LIVE: Duration = Duration::from_secs(1);

/// Runs the soak.
pub(crate) fn run(plan: &Plan) -> Report {
    let mut cluster = Galera::start();
    let hosts: [Host; NODES] = std::array::from_fn(|first| host(&cluster, first));
    let mut rows = NODES as u64;
    live(&hosts, rows);
    let (is_over, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut report = Report::default();
    let (mut quiet, mut beside) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        let (over, count) = (&is_over, &answered);
        let _ends = Ends(over);
        let traffic = hosts
            .each_ref()
            .map(|host| scope.spawn(move || judged(host, over, count)));
        let mut faults = 0;
        for change in 0..plan.changes {
            // The faults are spread evenly over the changes.
            let is_fault = faults * plan.changes <= change * plan.faults && faults < plan.faults;
            let node = usize::try_from(faults % NODES as u64).unwrap_or(0);
            let kind = usize::try_from(faults / NODES as u64 % 4).unwrap_or(0);
            let fault = is_fault.then(|| Fault::ALL[kind]);
            if let Some(fault) = fault {
                fault.begin(&mut cluster, node);
                faults += 1;
            }
            let healthy = (node + 1 + usize::try_from(change % 2).unwrap_or(0)) % NODES;
            let ip = format!(
                "10.{}.{}.{}",
                change >> 16,
                (change >> 8) & 255,
                change & 255
            );
            cluster.add_row(healthy, &ip);
            let begun = Instant::now();
            rows += 1;
            live(&hosts, rows);
            match fault {
                Some(_) => beside.push(begun.elapsed()),
                None => quiet.push(begun.elapsed()),
            }
            if change % PUSHES == 0 {
                let at = usize::try_from(change / PUSHES % NODES as u64).unwrap_or(0);
                let policy = rejecting(486, &format!("push {change}"));
                let (status, _) = hosts[at].push("acme", "", &policy);
                match status < 300 {
                    true => report.pushes_acknowledged += 1,
                    false => report.pushes_refused += 1,
                }
            }
            if let Some(fault) = fault {
                fault.end(&mut cluster, node);
            }
        }
        report.faults = faults;
        is_over.store(true, Ordering::Relaxed);
        report.wrong_verdicts = traffic
            .into_iter()
            .map(|traffic| traffic.join().unwrap_or(u64::MAX))
            .fold(0, u64::saturating_add);
    });
    report.changes = plan.changes;
    report.verdicts = answered.into_inner();
    report.quiet = Share::of(quiet);
    report.beside_faults = Share::of(beside);
    // Only the newest generations are kept: the number of the last one counts all.
    let last = cluster.sql(
        0,
        "kamailio",
        "SELECT last FROM portcullis_seat WHERE seat = 'acme'",
    );
    report.pushes_stored = last.trim().parse().unwrap_or(0);
    let without = "SELECT COUNT(*) FROM portcullis_generation WHERE digest NOT IN (SELECT digest FROM portcullis_artifact)";
    let lost = |node| cluster.sql(node, "kamailio", without).trim().parse::<u64>();
    let lost = (0..NODES).map(|node| lost(node).unwrap_or(u64::MAX));
    report.pushes_without_a_file = lost.max();
    report.judge(plan.is_timed);
    report
}

/// Ends the traffic, also if the soak cannot go on.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A host that begins with this node.
fn host(cluster: &Galera, first: usize) -> Host {
    let builder = Builder::new()
        .set("database", &cluster.urls(first))
        .set("tenants.acme", "uri-domains = [\"acme.example\"]");
    cluster.add_row(0, &builder.lease().ip(CALLER).to_string());
    builder.start()
}

/// Waits until all hosts have this number of rows.
fn live(hosts: &[Host], rows: u64) {
    for host in hosts {
        wait::until("the change is live", || {
            (host.metric("portcullis_address_rows", &[]) as u64 == rows).then_some(())
        });
    }
}

/// Asks for verdicts until it is over; returns how many were wrong.
fn judged(host: &Host, is_over: &AtomicBool, answered: &AtomicU64) -> u64 {
    let mut wrong = 0;
    // There is no next hop: an allowed source gets 403.
    let mut callers = [(host.udp(CALLER), 403), (host.udp(STRANGER), 401)];
    while !is_over.load(Ordering::Relaxed) {
        for (caller, expected) in &mut callers {
            let request = caller.request("MESSAGE", "sip:bob@example.com");
            if let Some(answer) = caller.try_ask(&request) {
                answered.fetch_add(1, Ordering::Relaxed);
                wrong += u64::from(answer.code() != *expected);
            }
        }
        thread::sleep(Duration::from_millis(5));
    }
    wrong
}

/// The result.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    /// Faults of nodes.
    faults: u64,
    /// Changes of rows.
    changes: u64,
    /// Time until a change is live on all hosts, while all nodes serve.
    quiet: Option<Share>,
    /// The same while a node is away. The cluster needs some seconds to exclude it.
    beside_faults: Option<Share>,
    /// Verdicts asked for.
    verdicts: u64,
    /// Of these, the wrong ones.
    wrong_verdicts: u64,
    /// Pushes that a host acknowledged.
    pushes_acknowledged: u64,
    /// Pushes that were refused.
    pushes_refused: u64,
    /// Pushes that are stored.
    pushes_stored: u64,
    /// Stored pushes whose file is missing on a node: the most of one node.
    pushes_without_a_file: Option<u64>,
    /// What did not hold.
    pub(crate) broken: Vec<String>,
}

/// Times in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
struct Share {
    p50: f64,
    p99: f64,
    worst: f64,
}

impl Share {
    fn of(mut all: Vec<Duration>) -> Option<Self> {
        all.sort();
        let at = |percent: usize| all.get((all.len() * percent / 100).min(all.len() - 1));
        Some(Self {
            p50: milliseconds(*all.get(all.len() / 2)?),
            p99: milliseconds(*at(99)?),
            worst: milliseconds(*all.last()?),
        })
    }
}

impl Report {
    fn judge(&mut self, is_timed: bool) {
        let mut broken = Vec::new();
        if self.wrong_verdicts > 0 {
            broken.push(format!("{} wrong verdicts", self.wrong_verdicts));
        }
        if self.verdicts == 0 {
            broken.push("no verdict was asked for".to_owned());
        }
        // A push that was refused may have been stored: its answer was lost.
        let most = self.pushes_acknowledged + self.pushes_refused;
        if !(self.pushes_acknowledged..=most).contains(&self.pushes_stored) {
            broken.push(format!(
                "{} pushes acknowledged and {} refused, {} stored",
                self.pushes_acknowledged, self.pushes_refused, self.pushes_stored
            ));
        }
        if self.pushes_without_a_file != Some(0) {
            broken.push("the file of a stored push is missing".to_owned());
        }
        if is_timed
            && self
                .quiet
                .is_some_and(|times| times.p99 > milliseconds(LIVE))
        {
            broken.push("a change took longer than a second while all nodes served".to_owned());
        }
        self.broken = broken;
    }

    /// The report for people.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: String| {
            // A string takes all text.
            let _written = writeln!(text, "{name:<44}{value}");
        };
        let share = |share: Option<Share>| match share {
            Some(Share { p50, p99, worst }) => {
                format!("p50 {p50:.0} ms, p99 {p99:.0} ms, worst {worst:.0} ms")
            }
            None => "none".to_owned(),
        };
        line("faults of nodes", self.faults.to_string());
        line("changes of rows", self.changes.to_string());
        line("live on all hosts, all nodes serve", share(self.quiet));
        line(
            "live on all hosts, a node is away",
            share(self.beside_faults),
        );
        line("verdicts", self.verdicts.to_string());
        line("wrong verdicts", self.wrong_verdicts.to_string());
        line(
            "pushes acknowledged, refused, stored",
            format!(
                "{}, {}, {}",
                self.pushes_acknowledged, self.pushes_refused, self.pushes_stored
            ),
        );
        line(
            "stored pushes without their file",
            self.pushes_without_a_file.unwrap_or(0).to_string(),
        );
        text.push_str(&verdict(&self.broken));
        text
    }
}
