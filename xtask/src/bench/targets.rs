//! What the figures must reach, and where they aim.

use std::fmt;

use serde::Serialize;

use super::figures::{Figures, Key};
use super::million::Million;
use super::neighbours::{Check, Neighbours};
use super::plan::{Rows, Server, Shape, Subject, Task, Work};
use super::reload::{Reload, Source};

/// A figure against its bar and aim; smaller is better for all of them.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Target {
    /// What the figure is.
    pub(crate) what: &'static str,
    /// Its value; none if it was not measured.
    pub(crate) value: Option<f64>,
    /// At most this much must be reached.
    pub(crate) bar: f64,
    /// This is where we go.
    pub(crate) aim: Option<f64>,
    #[serde(skip)]
    unit: Unit,
}

/// How a value is told.
#[derive(Clone, Copy, Debug)]
enum Unit {
    /// As "1/4.2".
    Fraction,
    /// As "1.42×".
    Times,
    Seconds,
    Mebibytes,
}

/// A value in its unit.
pub(crate) struct Told(Unit, f64);

/// A ratio that is worth knowing and has no target.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Comparison {
    /// What it is.
    pub(crate) what: &'static str,
    /// Its value.
    pub(crate) value: f64,
}

/// Ratios to read the targets by.
pub(crate) fn comparisons(figures: &Figures) -> Vec<Comparison> {
    let few = Some(Rows::Few);
    let (ours, theirs, bare) = (Server::Portcullis, Server::Kamailio, Server::KamailioBare);
    let steady = |(task, subject): Key| {
        let shape = Shape::Steady;
        (Task { shape, ..task }, subject)
    };
    let reject = |server| key(Work::Reject, server, few);
    let relay = |server| key(Work::Relay, server, few);
    let options = |server| key(Work::Options, server, few);
    [
        ("401 against Kamailio bare", reject(ours), reject(bare)),
        ("Relay against Kamailio bare", relay(ours), relay(bare)),
        (
            "OPTIONS 200 against Kamailio",
            options(ours),
            options(theirs),
        ),
        (
            "401 at a steady rate against Kamailio",
            steady(reject(ours)),
            steady(reject(theirs)),
        ),
        (
            "401 at a steady rate against Kamailio bare",
            steady(reject(ours)),
            steady(reject(bare)),
        ),
        (
            "401 at a steady rate against the bare UDP echo",
            steady(reject(ours)),
            steady(key(Work::Echo, Server::Echo, None)),
        ),
        (
            "Relay at a steady rate against Kamailio",
            steady(relay(ours)),
            steady(relay(theirs)),
        ),
        (
            "Relay at a steady rate against Kamailio bare",
            steady(relay(ours)),
            steady(relay(bare)),
        ),
    ]
    .into_iter()
    .filter_map(|(what, of, to)| {
        let value = figures.ratio(of, to)?;
        Some(Comparison { what, value })
    })
    .collect()
}

/// Everything that must be reached, in the order of the project's goals.
pub(crate) fn targets(
    figures: &Figures,
    reloads: &[Reload],
    neighbours: &[Neighbours],
    million: Option<&Million>,
) -> Vec<Target> {
    let mut targets = ratios(figures);
    let beside = [
        (
            Source::MariaDb,
            "401 beside reloads of 100,000 rows from MariaDB: p99 to quiet",
        ),
        (
            Source::Sqlite,
            "401 beside reloads of 100,000 rows from SQLite: p99 to quiet",
        ),
    ];
    targets.extend(beside.map(|(source, what)| {
        let reload = reloads.iter().find(|reload| reload.source == source);
        Target {
            what,
            value: reload.map(|reload| reload.p99_ratio),
            bar: 2.0,
            aim: None,
            unit: Unit::Times,
        }
    }));
    let beside = neighbours
        .iter()
        .find(|beside| beside.check == Check::Breaker);
    targets.push(Target {
        what: "A tenant beside four hostile ones at 5,000 a second each: p99 to alone",
        value: beside.map(|beside| beside.p99_ratio),
        bar: 2.0,
        aim: None,
        unit: Unit::Times,
    });
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    targets.push(Target {
        what: "1,000,000 rows from MariaDB: time to load",
        value: million.map(|million| million.load_seconds),
        bar: 3.0,
        aim: Some(2.0),
        unit: Unit::Seconds,
    });
    targets.push(Target {
        what: "1,000,000 rows: size of the table",
        value: million.map(|million| mib(million.table_bytes)),
        bar: 64.0,
        aim: None,
        unit: Unit::Mebibytes,
    });
    targets
}

fn ratios(figures: &Figures) -> Vec<Target> {
    let reject = |server, rows| key(Work::Reject, server, Some(rows));
    let relay = |server| key(Work::Relay, server, Some(Rows::Few));
    let ratio = |what, of, to, bar, aim, unit| Target {
        what,
        value: figures.ratio(of, to),
        bar,
        aim,
        unit,
    };
    vec![
        ratio(
            "401, 3 rows: CPU against Kamailio's",
            reject(Server::Portcullis, Rows::Few),
            reject(Server::Kamailio, Rows::Few),
            1.0 / 3.0,
            Some(0.25),
            Unit::Fraction,
        ),
        ratio(
            "401, 3 rows: CPU against the bare UDP echo's",
            reject(Server::Portcullis, Rows::Few),
            key(Work::Echo, Server::Echo, None),
            2.0,
            Some(1.5),
            Unit::Times,
        ),
        ratio(
            "Stateless relay, 3 rows: CPU against Kamailio's",
            relay(Server::Portcullis),
            relay(Server::Kamailio),
            0.25,
            Some(0.2),
            Unit::Fraction,
        ),
        ratio(
            "401, 100,000 rows: CPU against Kamailio's",
            reject(Server::Portcullis, Rows::Many),
            reject(Server::Kamailio, Rows::Many),
            0.02,
            Some(0.01),
            Unit::Fraction,
        ),
        ratio(
            "401, 100,000 rows: CPU against our own at 3 rows",
            reject(Server::Portcullis, Rows::Many),
            reject(Server::Portcullis, Rows::Few),
            1.05,
            None,
            Unit::Times,
        ),
    ]
}

impl Target {
    /// True if the bar is reached; none if there is no value.
    pub(crate) fn reached(&self) -> Option<bool> {
        self.value.map(|value| value <= self.bar)
    }

    /// The value, told in its unit.
    pub(crate) fn told(&self) -> Option<Told> {
        self.value.map(|value| Told(self.unit, value))
    }

    /// Bar and aim in words.
    pub(crate) fn goal(&self) -> String {
        let bar = Told(self.unit, self.bar);
        match self.aim.map(|aim| Told(self.unit, aim)) {
            Some(aim) => format!("at most {bar}, aim {aim}"),
            None => format!("at most {bar}"),
        }
    }

    /// One word or two for a reader in a hurry.
    pub(crate) fn verdict(&self) -> &'static str {
        let Some(value) = self.value else {
            return "not measured";
        };
        match self.aim {
            _ if value > self.bar => "MISSED",
            Some(aim) if value > aim => "reached",
            Some(_) => "aim reached",
            None => "reached",
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<50} {:.2}x", self.what, self.value)
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(unit, value) = self;
        match unit {
            Unit::Fraction if *value > 0.0 => {
                let share = 1.0 / value;
                let digits = usize::from(share.fract().abs() > 0.05 && share < 100.0);
                write!(f, "1/{share:.digits$}")
            }
            Unit::Fraction => write!(f, "{value}"),
            Unit::Times => write!(f, "{value:.2}x"),
            Unit::Seconds => write!(f, "{value:.2} s"),
            Unit::Mebibytes => write!(f, "{value:.0} MiB"),
        }
    }
}

fn key(work: Work, server: Server, rows: Option<Rows>) -> Key {
    let shape = Shape::Full;
    (Task { work, shape }, Subject { server, rows })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(value: Option<f64>) -> Target {
        Target {
            what: "x",
            value,
            bar: 1.0 / 3.0,
            aim: Some(0.25),
            unit: Unit::Fraction,
        }
    }

    #[test]
    fn verdicts() {
        assert_eq!(target(None).verdict(), "not measured");
        assert_eq!(target(Some(0.34)).verdict(), "MISSED");
        assert_eq!(target(Some(0.30)).verdict(), "reached");
        assert_eq!(target(Some(0.25)).verdict(), "aim reached");
        assert_eq!(target(None).reached(), None);
        assert_eq!(target(Some(0.34)).reached(), Some(false));
    }

    #[test]
    fn fractions_read_as_a_person_says_them() {
        assert_eq!(target(None).goal(), "at most 1/3, aim 1/4");
        assert_eq!(target(Some(0.24)).told().unwrap().to_string(), "1/4.2");
        assert_eq!(target(Some(0.005)).told().unwrap().to_string(), "1/200");
    }
}
