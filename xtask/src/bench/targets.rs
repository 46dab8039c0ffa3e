//! The targets of the figures.

use std::fmt;

use serde::Serialize;

use super::calls::{DEADLINE_MS, Longest};
use super::datagrams::Shaped;
use super::edge::Edge;
use super::edge::dispatcher::Dispatched;
use super::edge::idle::Idle;
use super::edge::storms::Storm;
use super::edge::wire::Wire;
use super::figures::{Figures, key, with_shape};
use super::lingering::Lingering;
use super::memory::Attacked;
use super::million::Million;
use super::neighbours::{Check, Neighbours};
use super::plan::{Rows, Server, Shape, Work};
use super::reload::{Reload, Source};
use super::set_up::{Beside, SetUpBeside};
use super::tenants::Crowded;
use super::upgrades::Upgrades;

/// A figure with its target and aim; smaller is better for all of them.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Target {
    /// Name of the figure.
    pub(crate) what: &'static str,
    /// Its value; `None` if it was not measured.
    pub(crate) value: Option<f64>,
    /// The target: the value must not be higher.
    pub(crate) bar: f64,
    /// The aim: the value should not be higher.
    pub(crate) aim: Option<f64>,
    #[serde(skip)]
    unit: Unit,
}

/// Format of a value.
#[derive(Clone, Copy, Debug)]
enum Unit {
    /// As "1/4.2".
    Fraction,
    /// As "1.42×".
    Times,
    Seconds,
    Mebibytes,
    Kibibytes,
    /// As "0.50".
    Count,
}

/// A value with its format.
pub(crate) struct Told(Unit, f64);

/// The parts that measure Portcullis alone.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    pub(crate) reloads: Vec<Reload>,
    pub(crate) neighbours: Vec<Neighbours>,
    pub(crate) tenants: Vec<Crowded>,
    pub(crate) million: Option<Million>,
    pub(crate) datagrams: Vec<Shaped>,
    pub(crate) attacks: Vec<Attacked>,
    pub(crate) calls: Vec<Longest>,
    pub(crate) lingering: Option<Lingering>,
    pub(crate) set_ups: Vec<SetUpBeside>,
    pub(crate) upgrades: Option<Upgrades>,
    /// Kamailio's figures are beside ours.
    pub(crate) edge: Edge,
}

/// Returns all targets, in the order of the project's goals.
pub(crate) fn targets(figures: &Figures, parts: &Parts) -> Vec<Target> {
    let Parts {
        reloads,
        neighbours,
        tenants,
        million,
        datagrams,
        attacks,
        calls,
        lingering,
        set_ups,
        upgrades: _,
        edge,
    } = parts;
    let million = million.as_ref();
    let mut targets = ratios(figures);
    targets.extend(of_a_quiet_host(figures));
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
    targets.extend(of_tenants(tenants));
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
    let worst = datagrams.iter().map(|shaped| shaped.against_plain);
    targets.push(Target {
        what: "The worst datagram of 60,000 bytes: CPU to a plain one's",
        value: worst.max_by(f64::total_cmp),
        bar: 2.0,
        aim: None,
        unit: Unit::Times,
    });
    let more = |one: &Attacked| one.most_mib.saturating_sub(one.before_mib) as f64;
    targets.push(Target {
        what: "Memory under the worst attack: more than before, to its bound",
        value: attacks
            .iter()
            .map(|one| more(one) / one.bound_mib as f64)
            .max_by(f64::total_cmp),
        bar: 1.0,
        aim: None,
        unit: Unit::Times,
    });
    targets.extend(of_lingering(lingering.as_ref()));
    targets.extend(of_set_ups(set_ups));
    targets.extend(of_the_edge(edge));
    let longest = calls.iter().map(|one| one.milliseconds);
    targets.push(Target {
        what: "The longest call of a function of the host: to its deadline",
        value: longest.max_by(f64::total_cmp).map(|ms| ms / DEADLINE_MS),
        // Two ticks of a millisecond each.
        bar: 1.4,
        aim: None,
        unit: Unit::Times,
    });
    targets
}

/// Returns the targets for a worker that sleeps between two requests.
fn of_a_quiet_host(figures: &Figures) -> impl Iterator<Item = Target> {
    let ours = key(Work::Reject, Server::Portcullis, Some(Rows::Few));
    let echo = key(Work::Echo, Server::Echo, None);
    [
        (
            Shape::Quiet,
            "401 at 1,000 a second: CPU against the bare UDP echo's",
        ),
        (
            Shape::Steady,
            "401 at 10,000 a second: CPU against the bare UDP echo's",
        ),
        (
            Shape::Brisk,
            "401 at 50,000 a second: CPU against the bare UDP echo's",
        ),
    ]
    .into_iter()
    .map(move |(shape, what)| Target {
        what,
        value: figures.ratio(with_shape(shape, ours), with_shape(shape, echo)),
        bar: 1.3,
        aim: None,
        unit: Unit::Times,
    })
}

/// Returns the targets for thousands of tenants.
fn of_tenants(tenants: &[Crowded]) -> [Target; 6] {
    let of = |number| tenants.iter().find(|crowded| crowded.tenants == number);
    let crowd = of(1_000);
    let each = crowd.and_then(|crowded| crowded.each);
    let target = |what, value, bar, unit| Target {
        what,
        value,
        bar,
        aim: None,
        unit,
    };
    [
        target(
            "A request with 1,000 tenants' own policies, at 10,000 a second: CPU to one tenant",
            crowd.map(|crowded| crowded.steady.against_one),
            1.3,
            Unit::Times,
        ),
        target(
            "A request with 1,000 tenants' own policies, at full load: CPU to one tenant",
            crowd.map(|crowded| crowded.full.against_one),
            1.3,
            Unit::Times,
        ),
        target(
            "1,000 tenants: time to start with policies compiled before",
            crowd.map(|crowded| crowded.next_start_seconds),
            5.0,
            Unit::Seconds,
        ),
        target(
            "10,000 tenants: time to start with policies compiled before",
            of(10_000).map(|crowded| crowded.next_start_seconds),
            45.0,
            Unit::Seconds,
        ),
        target(
            "1,000 tenants: memory of each one that is idle",
            each.map(|each| each.idle_bytes / 1024.0),
            100.0,
            Unit::Kibibytes,
        ),
        target(
            "1,000 tenants: file descriptors of each",
            each.map(|each| each.descriptors),
            1.0,
            Unit::Count,
        ),
    ]
}

/// Returns the targets for ended transactions.
fn of_lingering(lingering: Option<&Lingering>) -> [Target; 2] {
    let million = lingering.map(|lingering| lingering.bytes_each * 1e6);
    [
        Target {
            what: "1,000,000 ended transactions: more memory than with few",
            value: million.map(|bytes| bytes / f64::from(1 << 20)),
            bar: 300.0,
            aim: None,
            unit: Unit::Mebibytes,
        },
        Target {
            what: "A MESSAGE beside 1,000,000 ended transactions: CPU to beside few",
            value: lingering.map(|lingering| lingering.cpu_ratio),
            bar: 1.2,
            aim: None,
            unit: Unit::Times,
        },
    ]
}

/// Returns the targets for the set-up of calls.
fn of_set_ups(set_ups: &[SetUpBeside]) -> [Target; 4] {
    [
        (
            Beside::Reload,
            "Set-up of a call beside reloads of 100,000 rows: p99 to quiet",
        ),
        (
            Beside::Swap,
            "Set-up of a call beside swaps of the policy: p99 to quiet",
        ),
        (
            Beside::Closed,
            "Set-up of a call beside calls to a closed port: p99 to quiet",
        ),
        (
            Beside::Silent,
            "Set-up of a call beside calls to a silent target: p99 to quiet",
        ),
    ]
    .map(|(beside, what)| Target {
        what,
        value: set_ups
            .iter()
            .find(|set_up| set_up.beside == beside)
            .map(|set_up| set_up.p99_ratio),
        bar: 2.0,
        aim: None,
        unit: Unit::Times,
    })
}

/// Returns the targets for TLS, WebSocket and sets of gateways.
fn of_the_edge(edge: &Edge) -> [Target; 6] {
    let target = |what, value, bar, unit| Target {
        what,
        value,
        bar,
        aim: None,
        unit,
    };
    let kib = |wire| {
        let is_it = |one: &&Idle| one.server == Server::Portcullis && one.wire == wire;
        let idle = edge.idle.iter().find(is_it);
        idle.map(|idle| idle.report.bytes_each / 1024.0)
    };
    let storm = |storm: &&Storm| storm.server == Server::Portcullis;
    let renewals = edge.renewals.as_ref();
    let lost = |all: &[Dispatched]| all.iter().map(|one| one.lost + one.refused).sum::<u64>();
    [
        target(
            "An idle connection over TLS: memory",
            kib(Wire::Tls),
            30.0,
            Unit::Kibibytes,
        ),
        target(
            "An idle connection over WSS: memory",
            kib(Wire::Wss),
            30.0,
            Unit::Kibibytes,
        ),
        target(
            "401 over UDP beside a storm of handshakes: p99 to quiet",
            edge.storms.iter().find(storm).map(|storm| storm.p99_ratio),
            2.0,
            Unit::Times,
        ),
        target(
            "Certificates renewed under load: requests and handshakes lost",
            renewals.map(|all| (all.lost + all.handshakes_failed) as f64),
            0.0,
            Unit::Count,
        ),
        target(
            "Certificates renewed under load: more memory than before",
            renewals.map(|all| all.grown_bytes.max(0) as f64 / f64::from(1 << 20)),
            8.0,
            Unit::Mebibytes,
        ),
        target(
            "Sets of 1,000 gateways, ten of them failing: INVITEs lost",
            (!edge.dispatcher.is_empty()).then(|| lost(&edge.dispatcher) as f64),
            0.0,
            Unit::Count,
        ),
    ]
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
            "Relay, 3 rows: CPU against Kamailio's",
            relay(Server::Portcullis),
            relay(Server::Kamailio),
            0.25,
            Some(0.2),
            Unit::Fraction,
        ),
        ratio(
            "MESSAGE relayed, 3 rows: CPU against Kamailio's",
            key(Work::Message, Server::Portcullis, Some(Rows::Few)),
            key(Work::Message, Server::Kamailio, Some(Rows::Few)),
            1.0 / 6.0,
            None,
            Unit::Fraction,
        ),
        ratio(
            "Call, 3 rows: CPU against Kamailio's",
            key(Work::Call, Server::Portcullis, Some(Rows::Few)),
            key(Work::Call, Server::Kamailio, Some(Rows::Few)),
            1.0 / 6.0,
            None,
            Unit::Fraction,
        ),
        ratio(
            "Call, 3 rows: CPU against our own, relayed statelessly",
            key(Work::Call, Server::Portcullis, Some(Rows::Few)),
            key(Work::Call, Server::PortcullisStateless, Some(Rows::Few)),
            1.5,
            None,
            Unit::Times,
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
    /// Whether the target is reached; `None` without a value.
    pub(crate) fn reached(&self) -> Option<bool> {
        self.value.map(|value| value <= self.bar)
    }

    /// Returns the formatted value.
    pub(crate) fn told(&self) -> Option<Told> {
        self.value.map(|value| Told(self.unit, value))
    }

    /// Describes target and aim.
    pub(crate) fn goal(&self) -> String {
        let bar = Told(self.unit, self.bar);
        match self.aim.map(|aim| Told(self.unit, aim)) {
            Some(aim) => format!("at most {bar}, aim {aim}"),
            None => format!("at most {bar}"),
        }
    }

    /// Returns a summary of one or two words.
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
            Unit::Kibibytes => write!(f, "{value:.0} KiB"),
            Unit::Count => write!(f, "{value:.2}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::edge::idle;
    use crate::bench::tenants::{Cost, Each};

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
    fn thousands_of_tenants_have_targets() {
        let crowded = |tenants, against_one| Crowded {
            tenants,
            first_start_seconds: 90.0,
            next_start_seconds: 6.0,
            steady: Cost {
                cpu_us: 20.0,
                against_one,
            },
            full: Cost {
                cpu_us: 18.0,
                against_one,
            },
            each: Some(Each {
                idle_bytes: 102_400.0,
                used_bytes: 204_800.0,
                descriptors: 0.25,
                maps: 6.0,
            }),
        };
        let verdicts =
            |tenants: &[Crowded]| of_tenants(tenants).map(|target| target.verdict().to_owned());
        assert_eq!(verdicts(&[crowded(50, 1.0)]), ["not measured"; 6]);
        assert_eq!(
            verdicts(&[crowded(50, 9.0), crowded(1_000, 1.2), crowded(10_000, 9.0)]),
            [
                "reached", "reached", "MISSED", "reached", "reached", "reached"
            ]
        );
    }

    #[test]
    fn the_edge_has_targets_for_portcullis_only() {
        let connections = |server, bytes_each| Idle {
            server,
            wire: Wire::Tls,
            report: idle::Report {
                connections: 10_000,
                closed: 0,
                seconds: 1.0,
                before_bytes: 1,
                after_bytes: 2,
                closed_bytes: 1,
                bytes_each,
            },
        };
        let verdicts = |idle| {
            let edge = Edge {
                idle,
                ..Edge::default()
            };
            of_the_edge(&edge).map(|target| target.verdict())
        };
        let theirs = connections(Server::Kamailio, 1024.0);
        assert_eq!(verdicts(vec![theirs.clone()]), ["not measured"; 6]);
        let ours = connections(Server::Portcullis, 31.0 * 1024.0);
        assert_eq!(
            verdicts(vec![theirs, ours])[..2],
            ["MISSED", "not measured"]
        );
    }

    #[test]
    fn fractions_are_displayed_as_one_over_n() {
        assert_eq!(target(None).goal(), "at most 1/3, aim 1/4");
        assert_eq!(target(Some(0.24)).told().unwrap().to_string(), "1/4.2");
        assert_eq!(target(Some(0.005)).told().unwrap().to_string(), "1/200");
    }
}
