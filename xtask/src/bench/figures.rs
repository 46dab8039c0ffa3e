//! Medians over the rounds.

use std::collections::BTreeMap;

use serde::Serialize;

use super::load::Report;
use super::plan::{Rows, Server, Shape, Subject, Task, Work};

/// A task and the server that performs it.
pub(crate) type Key = (Task, Subject);

/// The result of one server with one table and one task.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    #[serde(flatten)]
    pub(crate) task: Task,
    pub(crate) server: Server,
    pub(crate) rows: Option<Rows>,
    /// CPU time per request, in user mode and in the kernel, in microseconds.
    pub(crate) cpu_us: f64,
    pub(crate) user_us: f64,
    pub(crate) system_us: f64,
    /// Lowest and highest CPU time of the rounds.
    pub(crate) cpu_us_range: [f64; 2],
    pub(crate) per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) memory_bytes: u64,
    /// Share of one core that the server used.
    pub(crate) cores: f64,
    /// Share of the time in which the generator was idle.
    pub(crate) generator_idle: f64,
    /// Requests and 200s to INVITE that were sent again, in all rounds.
    pub(crate) resent: u64,
    /// Requests answered, in all rounds.
    pub(crate) answered: u64,
}

/// All measurements of a run.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    reports: BTreeMap<Key, BTreeMap<usize, Report>>,
}

impl Figures {
    /// Adds the measurement of a round.
    pub(crate) fn add(&mut self, key: Key, round: usize, report: Report) {
        self.reports.entry(key).or_default().insert(round, report);
    }

    /// Returns the figures, ordered by task, server and table.
    pub(crate) fn all(&self) -> Vec<Figure> {
        let reports = self.reports.iter();
        let reports = reports.map(|(key, rounds)| (*key, rounds.values().collect::<Vec<_>>()));
        reports
            .map(|(key, reports)| figure(key, &reports))
            .collect()
    }

    /// Returns the median over the rounds of the ratio of two CPU times. The ratio is computed for each round, because the speed of a
    /// shared machine varies between rounds, but less within one.
    pub(crate) fn ratio(&self, of: Key, to: Key) -> Option<f64> {
        let (of, to) = (self.reports.get(&of)?, self.reports.get(&to)?);
        let cpu = |report: &Report| report.window.server.cpu_us;
        let ratios: Vec<f64> = of
            .iter()
            .filter_map(|(round, of)| Some(cpu(of) / cpu(to.get(round)?)))
            .collect();
        (!ratios.is_empty()).then(|| median(ratios))
    }
}

/// The same task at another rate.
pub(crate) fn with_shape(shape: Shape, (task, subject): Key) -> Key {
    (Task { shape, ..task }, subject)
}

/// A task with the server's core full.
pub(crate) fn key(work: Work, server: Server, rows: Option<Rows>) -> Key {
    let shape = Shape::Full;
    (Task { work, shape }, Subject { server, rows })
}

fn figure((task, subject): Key, reports: &[&Report]) -> Figure {
    let over =
        |pick: &dyn Fn(&Report) -> f64| median(reports.iter().map(|report| pick(report)).collect());
    let cpu = || reports.iter().map(|report| report.window.server.cpu_us);
    Figure {
        task,
        server: subject.server,
        rows: subject.rows,
        cpu_us: over(&|r| r.window.server.cpu_us),
        user_us: over(&|r| r.window.server.user_us),
        system_us: over(&|r| r.window.server.system_us),
        cpu_us_range: [
            cpu().fold(f64::INFINITY, f64::min),
            cpu().fold(0.0, f64::max),
        ],
        per_second: over(&|r| r.window.per_second),
        p50_us: over(&|r| r.window.latency.p50_us),
        p99_us: over(&|r| r.window.latency.p99_us),
        memory_bytes: over(&|r| r.window.server.memory_bytes as f64) as u64,
        cores: over(&|r| r.window.server.cores),
        generator_idle: over(&|r| r.window.generator_idle),
        resent: reports.iter().map(|r| r.resent + r.repeated_answers).sum(),
        answered: reports.iter().map(|r| r.answered).sum(),
    }
}

/// Returns the middle value, or the mean of the two middle values.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::load::{Latency, Usage, Window};
    use super::*;

    /// A report in which only the CPU time matters.
    pub(crate) fn report(cpu_us: f64) -> Report {
        let latency = Latency {
            p50_us: 100.0,
            p90_us: 150.0,
            p99_us: 200.0,
            max_us: 300.0,
        };
        let server = Usage {
            cpu_us,
            user_us: cpu_us / 2.0,
            system_us: cpu_us / 2.0,
            cores: 1.0,
            memory_bytes: 1 << 20,
        };
        Report {
            sent: 1000,
            answered: 1000,
            unexpected: 0,
            lost: 0,
            late: 0,
            resent: 0,
            repeated_answers: 0,
            foreign: 0,
            repeated: 0,
            relayed: None,
            codes: serde_json::Value::Null,
            beside: Vec::new(),
            window: Window {
                seconds: 1.0,
                answered: 1000,
                per_second: 1000.0,
                latency,
                set_up: None,
                generator_idle: 0.5,
                server,
            },
        }
    }

    /// A 401 with three rows at full load.
    pub(crate) fn reject(server: Server) -> Key {
        let task = Task {
            work: Work::Reject,
            shape: Shape::Full,
        };
        let rows = Some(Rows::Few);
        (task, Subject { server, rows })
    }

    #[test]
    fn a_ratio_compares_measurements_of_the_same_round() {
        let (ours, theirs) = (reject(Server::Portcullis), reject(Server::Kamailio));
        let mut figures = Figures::default();
        assert_eq!(figures.ratio(ours, theirs), None);
        figures.add(ours, 0, report(2.0));
        figures.add(ours, 1, report(6.0));
        figures.add(theirs, 1, report(12.0));
        figures.add(theirs, 2, report(100.0));
        assert_eq!(figures.ratio(ours, theirs), Some(0.5));
    }

    #[test]
    fn a_figure_is_the_median_of_its_rounds() {
        let mut figures = Figures::default();
        for (round, cpu_us) in [9.0, 2.0, 3.0].into_iter().enumerate() {
            figures.add(reject(Server::Kamailio), round, report(cpu_us));
        }
        let all = figures.all();
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].cpu_us, 3.0);
        assert_eq!(all[0].cpu_us_range, [2.0, 9.0]);
        assert_eq!(all[0].answered, 3000);
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(Vec::new()).is_nan());
    }
}
