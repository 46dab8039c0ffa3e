//! The report of a soak with a fleet. Its tables are those of docs/scale.md.

use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;

use super::databases::Work;
use super::plan::Plan;
use crate::report::verdict;
use crate::times::milliseconds;

/// The whole report; its JSON form has the same fields.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Report {
    /// From the start of the database to the end.
    pub(crate) seconds: u64,
    /// Number of servers of the database.
    pub(crate) servers: usize,
    /// Number of hosts.
    pub(crate) hosts: usize,
    /// Rows of the address table.
    pub(crate) rows: u32,
    /// Tenants at the start.
    pub(crate) tenants: u32,
    /// The first start of all hosts at once: everything is compiled.
    pub(crate) cold: Herd,
    /// The next start of all hosts at once: compiled code is in the caches.
    pub(crate) warm: Herd,
    /// The restart of the database, or of one of its nodes, with all hosts connected. `ready_ms` is the time until the first change after it is live on each host.
    pub(crate) restart: Herd,
    /// The fleet while nothing changes.
    pub(crate) idle: Cost,
    /// Open connections of the idle fleet.
    pub(crate) connections: u64,
    /// The fleet while rows change.
    pub(crate) changing: Cost,
    /// Number of changes of rows.
    pub(crate) row_changes: usize,
    /// Time from a change of a row until it is live on one host: each change on each host.
    pub(crate) row_each_ms: Option<Spread>,
    /// Time from a change of a row until it is live on all hosts: each change.
    pub(crate) row_all_ms: Option<Spread>,
    /// Time from the beginning of a push until it is active on all hosts.
    pub(crate) push_all_ms: Option<Spread>,
    /// Time from the beginning of the command that adds a tenant until all hosts have it.
    pub(crate) tenant_all_ms: Option<Spread>,
    /// Memory of each host after the changes, MiB.
    pub(crate) memory_mib: Option<Spread>,
    /// The same after the last start.
    pub(crate) memory_after_start_mib: Option<Spread>,
    /// Invariants that did not hold.
    pub(crate) broken: Vec<String>,
}

/// What happens when all hosts do the same thing at the same moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Herd {
    /// Time until each host is ready.
    pub(crate) ready_ms: Option<Spread>,
    /// Time until each host has loaded the policies of all tenants.
    pub(crate) loaded_ms: Option<Spread>,
    /// The most connections that were open at once.
    pub(crate) most_connections: u64,
    /// What it costs the database.
    pub(crate) cost: Cost,
}

/// What the fleet costs the database in some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Cost {
    /// The time.
    pub(crate) seconds: f64,
    /// All of it.
    #[serde(flatten)]
    pub(crate) work: Work,
}

/// The distribution of several times or sizes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    /// Median.
    pub(crate) p50: f64,
    /// 99th percentile.
    pub(crate) p99: f64,
    /// Maximum.
    pub(crate) max: f64,
}

impl Cost {
    pub(crate) fn new(work: Work, seconds: f64) -> Self {
        Self { seconds, work }
    }

    fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.seconds.max(f64::MIN_POSITIVE)
    }

    /// The share of one core that the servers used, in percent.
    fn cpu_percent(&self) -> f64 {
        self.per_second(self.work.cpu_ms) / 10.0
    }
}

impl Spread {
    /// Of times, in milliseconds; `None` without any.
    pub(crate) fn of(all: impl IntoIterator<Item = Duration>) -> Option<Self> {
        Self::of_values(all.into_iter().map(milliseconds).collect())
    }

    /// Of sizes; `None` without any.
    pub(crate) fn of_numbers(all: impl IntoIterator<Item = u64>) -> Option<Self> {
        Self::of_values(all.into_iter().map(|number| number as f64).collect())
    }

    fn of_values(mut all: Vec<f64>) -> Option<Self> {
        all.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = (all.len() as f64 * share).ceil() as usize;
            all.get(place.saturating_sub(1)).copied()
        };
        Some(Self {
            p50: at(0.5)?,
            p99: at(0.99)?,
            max: at(1.0)?,
        })
    }
}

impl Report {
    /// Notes what did not come about. Times are told, not judged: they depend on the machine.
    pub(crate) fn check(&mut self, plan: &Plan) {
        let hosts = plan.hosts as u64;
        let statements = self.idle.per_second(self.idle.work.questions) / hosts as f64;
        // A node of a cluster is asked how far it is before each use of a connection.
        let most = match plan.is_cluster {
            true => 2.0 * MOST_STATEMENTS,
            false => MOST_STATEMENTS,
        };
        if statements > most {
            self.broken.push(format!(
                "an idle host makes {statements:.1} statements per second; {most} were expected at most"
            ));
        }
        if self.connections > hosts * MOST_CONNECTIONS {
            self.broken.push(format!(
                "the idle hosts hold {} connections; {} were expected at most",
                self.connections,
                hosts * MOST_CONNECTIONS
            ));
        }
        // The answer about how far a node is counts as rows.
        if !plan.is_cluster && self.idle.work.rows_read > self.most_idle_rows(plan) {
            self.broken.push(format!(
                "idle hosts have read {} rows: they read a table that has not changed",
                self.idle.work.rows_read
            ));
        }
    }

    /// Rows that idle hosts read: those of the server about its tables, those of other hosts, and nothing of a table that has not changed. The limit is that of
    /// hosts that read the seats and the tenants twice a second.
    fn most_idle_rows(&self, plan: &Plan) -> u64 {
        let each = 2 * u64::from(plan.tenants) + 100;
        let polls = (self.idle.seconds * 2.0).ceil() as u64 + 2;
        plan.hosts as u64 * polls * each
    }

    /// The report as text: tables in Markdown.
    pub(crate) fn text(&self) -> String {
        let mut text = format!(
            "\nSoak of {} s: {} hosts, {} rows of addresses, {} tenants, {}\n\n",
            self.seconds,
            self.hosts,
            self.rows,
            self.tenants,
            match self.servers {
                0 | 1 => "one server of the database".to_owned(),
                nodes => format!("{nodes} nodes of Galera"),
            }
        );
        self.write_costs(&mut text);
        self.write_times(&mut text);
        self.write_herds(&mut text);
        for (when, memory) in [
            ("after the changes", self.memory_mib),
            ("after a start", self.memory_after_start_mib),
        ] {
            let _infallible = writeln!(
                text,
                "Memory of a host {when}, MiB: {}",
                memory.map_or_else(
                    || "-".to_owned(),
                    |memory| format!("{:.0} (median), {:.0} (most)", memory.p50, memory.max)
                )
            );
        }
        text.push_str(&verdict(&self.broken));
        text
    }

    fn write_costs(&self, text: &mut String) {
        let changes = self.row_changes.max(1) as f64;
        line(text, &["database", "idle", "rows change"]);
        line(text, &["---", "---:", "---:"]);
        let both = [&self.idle, &self.changing];
        let mut row = |what: &str, value: &dyn Fn(&Cost) -> f64, digits: usize| {
            let values = both.map(|cost| format!("{:.digits$}", value(cost)));
            line(text, &[what, &values[0], &values[1]]);
        };
        let hosts = self.hosts.max(1) as f64;
        let each = |cost: &Cost, count: u64| cost.per_second(count) / hosts;
        row(
            "statements per second and host",
            &|cost| each(cost, cost.work.questions),
            2,
        );
        row(
            "bytes sent per second and host",
            &|cost| each(cost, cost.work.bytes_sent),
            0,
        );
        row(
            "bytes received per second and host",
            &|cost| each(cost, cost.work.bytes_received),
            0,
        );
        row(
            "rows read per second and host",
            &|cost| each(cost, cost.work.rows_read),
            0,
        );
        row(
            "new connections per second and host",
            &|cost| each(cost, cost.work.connections),
            3,
        );
        row("one core, percent", &Cost::cpu_percent, 1);
        let more = |now: u64, idle: u64| {
            let idle = self.idle.per_second(idle) * self.changing.seconds;
            ((now as f64 - idle) / changes / hosts).max(0.0)
        };
        let (changing, idle) = (&self.changing.work, &self.idle.work);
        let _infallible = writeln!(
            text,
            "\nOpen connections of a host: {:.1}. One change of a row costs, for each host: {:.0} rows read, {:.0} bytes, {:.1} ms of processor time.\n",
            self.connections as f64 / hosts,
            more(changing.rows_read, idle.rows_read),
            more(changing.bytes_sent, idle.bytes_sent),
            more(changing.cpu_ms, idle.cpu_ms),
        );
    }

    fn write_times(&self, text: &mut String) {
        line(text, &["time until it is live, ms", "p50", "p99", "most"]);
        line(text, &["---", "---:", "---:", "---:"]);
        for (what, times) in [
            ("a row, on one host", self.row_each_ms),
            ("a row, on all hosts", self.row_all_ms),
            ("a push, on all hosts", self.push_all_ms),
            ("a new tenant, on all hosts", self.tenant_all_ms),
        ] {
            let [p50, p99, max] = times.map_or([const { String::new() }; 3], |times| {
                [times.p50, times.p99, times.max].map(|ms| format!("{ms:.0}"))
            });
            line(text, &[what, &p50, &p99, &max]);
        }
        text.push('\n');
    }

    fn write_herds(&self, text: &mut String) {
        line(
            text,
            &[
                "all at once",
                "ready, s: p50",
                "most",
                "policies loaded, s: most",
                "most connections",
                "new connections",
                "statements",
                "MB sent",
                "core seconds",
            ],
        );
        line(
            text,
            &[
                "---", "---:", "---:", "---:", "---:", "---:", "---:", "---:", "---:",
            ],
        );
        for (what, herd) in [
            ("start, without compiled code", &self.cold),
            ("start, with compiled code", &self.warm),
            (
                match self.servers {
                    0 | 1 => "restart of the database",
                    _ => "restart of a node of the database",
                },
                &self.restart,
            ),
        ] {
            let seconds = |spread: Option<Spread>, which: fn(&Spread) -> f64| {
                spread.map_or_else(
                    || "-".to_owned(),
                    |spread| format!("{:.1}", which(&spread) / 1000.0),
                )
            };
            let work = &herd.cost.work;
            line(
                text,
                &[
                    what,
                    &seconds(herd.ready_ms, |spread| spread.p50),
                    &seconds(herd.ready_ms, |spread| spread.max),
                    &seconds(herd.loaded_ms, |spread| spread.max),
                    &herd.most_connections.to_string(),
                    &work.connections.to_string(),
                    &work.questions.to_string(),
                    &format!("{:.1}", work.bytes_sent as f64 / 1e6),
                    &format!("{:.1}", work.cpu_ms as f64 / 1000.0),
                ],
            );
        }
        text.push('\n');
    }
}

/// Most statements per second of an idle host: one for all tables in each look, at least every 190 ms, and some for its own row and those of other hosts.
/// A host that reads a small table with each look makes twice as many.
const MOST_STATEMENTS: f64 = 9.0;

/// Most connections of an idle host: what its two pools keep.
const MOST_CONNECTIONS: u64 = 8;

/// A line of a table.
fn line(text: &mut String, cells: &[&str]) {
    text.push('|');
    for cell in cells {
        let _infallible = write!(text, " {cell} |");
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            is_cluster: false,
            hosts: 2,
            rows: 10,
            tenants: 1,
            changes: 4,
            idle: Duration::from_secs(10),
        }
    }

    #[test]
    fn percentiles_are_those_of_the_sorted_times() {
        let spread = Spread::of((1..=200).rev().map(Duration::from_millis)).unwrap();
        assert_eq!((spread.p50, spread.p99, spread.max), (100.0, 198.0, 200.0));
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn hosts_that_read_an_unchanged_table_are_told() {
        let idle = |rows_read, questions| Report {
            hosts: 2,
            connections: 4,
            idle: Cost::new(
                Work {
                    rows_read,
                    questions,
                    ..Work::default()
                },
                10.0,
            ),
            ..Report::default()
        };
        let mut good = idle(400, 100);
        good.check(&plan());
        assert_eq!(good.broken, Vec::<String>::new());
        let mut bad = idle(100_000, 1_000);
        bad.connections = 100;
        bad.check(&plan());
        assert_eq!(bad.broken.len(), 3, "{:?}", bad.broken);
        assert!(bad.text().contains("Broken invariants: 3"));
        // Nodes of a cluster answer more questions.
        let cluster = Plan {
            is_cluster: true,
            ..plan()
        };
        let mut good = idle(100_000, 300);
        good.check(&cluster);
        assert_eq!(good.broken, Vec::<String>::new());
    }
}
