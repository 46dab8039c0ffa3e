//! Two hosts with one address that moves between them, under requests and calls: a host is drained, killed, or only loses the address. No request may
//! be without an answer in the end, every call that was established can be ended, and every call that rings can be answered. What is lost on the way
//! and sent again is counted.

mod keepalived;

use std::fmt::Write;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use portcullis_testkit::host::Builder;
use portcullis_testkit::pair::{Call, Pair, Ringing};
use portcullis_testkit::steady::{Steady, T1};
use portcullis_testkit::wait;
use serde::Serialize;

use crate::report::verdict;
use crate::times::milliseconds;

use keepalived::Keepalived;

/// Parameters of a soak with an address that moves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Number of moves.
    pub(crate) moves: u64,
    /// Requests per second.
    pub(crate) rate: u64,
    /// Whether keepalived moves the address, as the example in `contrib` says. Otherwise the soak does.
    pub(crate) by_keepalived: bool,
    /// Whether rates are judged: the machine has no other work.
    pub(crate) is_timed: bool,
}

/// Calls that are established before each move, and as many that ring.
const CALLS: usize = 10;

/// Traffic before and after each move.
const AROUND: Duration = Duration::from_secs(2);

/// Why the address moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Cause {
    /// Both hosts go on.
    Moved,
    /// SIGTERM; the address moves when `/readyz` says that the host leaves.
    Drained,
    /// SIGKILL; the address moves afterwards.
    Killed,
}

impl Cause {
    const fn text(self) -> &'static str {
        match self {
            Self::Moved => "the address moves, both hosts go on",
            Self::Drained => "the host drains",
            Self::Killed => "the host is killed",
        }
    }
}

/// What one move has cost.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Move {
    cause: Cause,
    /// From the signal, or the beginning of the move, until the other host has the address, in milliseconds.
    took_ms: f64,
    /// Requests that were sent again once or more, from the signal until [`AROUND`] later.
    again: u64,
}

/// Runs the soak.
///
/// # Errors
/// If it cannot be set up. Broken invariants are in the report.
pub(crate) fn run(plan: &Plan) -> Result<Report> {
    let begun = Instant::now();
    let mut pair = Pair::start(configure);
    let keepalived = match plan.by_keepalived {
        true => Some(Keepalived::start(&mut pair)?),
        false => None,
    };
    let steady = Steady::start(Pair::shared(), Pair::outside(), plan.rate);
    let traffic = Instant::now();
    let mut moves = Vec::new();
    for nth in 0..plan.moves {
        let cause = match (nth % 3, plan.by_keepalived) {
            (0, false) => Cause::Moved,
            (0 | 1, _) => Cause::Drained,
            _ => Cause::Killed,
        };
        moves.push(make(cause, &mut pair, keepalived.as_ref(), &steady)?);
    }
    std::thread::sleep(AROUND);
    let sent_for = traffic.elapsed();
    let sums = steady.stop();
    let [adopted, strays] = ["adopted", "stray"].map(|kind| {
        let of = |host| pair.unmatched(host, kind);
        (of(0) + of(1)) as u64
    });
    let mut report = Report {
        seconds: begun.elapsed().as_secs(),
        rate: plan.rate,
        by_keepalived: plan.by_keepalived,
        sent: sums.sent,
        answered: sums.answered,
        again: sums.again,
        lost: sums.lost,
        refused: sums.refused,
        per_second: sums.sent as f64 / sent_for.as_secs_f64(),
        calls: moves.len() as u64 * CALLS as u64,
        adopted,
        strays,
        moves,
        broken: Vec::new(),
    };
    report.check(plan);
    if !report.broken.is_empty() {
        for host in [0, 1] {
            eprintln!("the log of host {host}:\n{}", pair.host(host).log());
        }
    }
    Ok(report)
}

/// As docs/fleet.md says.
fn configure(builder: Builder) -> Builder {
    builder
        .set("transactions", "adopt = \"always\"")
        .set("transactions", "drain-notice = \"3s\"")
        .set("transactions", "drain = \"5s\"")
        // The machine of a short run is shared.
        .set("policy", "deadline = \"10s\"")
}

/// Makes one move under traffic, with calls across it.
fn make(
    cause: Cause,
    pair: &mut Pair,
    keepalived: Option<&Keepalived>,
    steady: &Steady,
) -> Result<Move> {
    std::thread::sleep(AROUND);
    let established: Vec<Call> = (0..CALLS).map(|_| Call::establish()).collect();
    let ringing: Vec<Ringing> = (0..CALLS).map(|_| Ringing::start()).collect();
    let left = pair.holder();
    let before = steady.sums();
    let begun = Instant::now();
    match cause {
        Cause::Moved => {}
        Cause::Drained => {
            pair.host(left).signal("TERM");
            if keepalived.is_none() {
                pair.ask(left, |host| {
                    wait::until("the host says that it leaves", || {
                        host.get("/readyz").filter(|(code, _)| *code != 200)
                    })
                });
            }
        }
        Cause::Killed => {
            pair.kill(left);
            if let Some(keepalived) = keepalived {
                keepalived.tell(left, true)?;
            }
        }
    }
    match keepalived {
        Some(_) => pair.wait_for_address(1 - left),
        None => pair.move_address(),
    }
    let took = begun.elapsed();
    for call in ringing {
        call.answered().caller_asks("BYE", 2);
    }
    for call in established {
        call.caller_asks("BYE", 2);
    }
    std::thread::sleep(AROUND.saturating_sub(begun.elapsed()));
    let again = steady.sums().again - before.again;
    if cause != Cause::Moved {
        pair.wait_until_ended(left);
        pair.start_again(left);
        if let Some(keepalived) = keepalived {
            keepalived.tell(left, false)?;
        }
    }
    let log = pair.host(left).log();
    ensure!(!log.contains("panicked"), "a host has panicked:\n{log}");
    Ok(Move {
        cause,
        took_ms: milliseconds(took),
        again,
    })
}

/// The whole report; its JSON form has the same fields.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Report {
    /// From the start of the hosts to their end.
    pub(crate) seconds: u64,
    /// The intended requests per second.
    pub(crate) rate: u64,
    /// Whether keepalived moved the address.
    pub(crate) by_keepalived: bool,
    /// Requests.
    pub(crate) sent: u64,
    /// Those that were answered 200.
    pub(crate) answered: u64,
    /// Those that were sent again, because nothing came within 500 ms.
    pub(crate) again: u64,
    /// Those that were never answered.
    pub(crate) lost: u64,
    /// Those that were answered otherwise.
    pub(crate) refused: u64,
    /// Requests per second.
    pub(crate) per_second: f64,
    /// Calls that were established before a move and ended after it, and as many that rang.
    pub(crate) calls: u64,
    /// Answers of transactions of the other host that were relayed, since the last start of each host.
    pub(crate) adopted: u64,
    /// Answers that were dropped, since the last start of each host.
    pub(crate) strays: u64,
    /// Each move.
    pub(crate) moves: Vec<Move>,
    /// Invariants that did not hold.
    pub(crate) broken: Vec<String>,
}

impl Report {
    fn check(&mut self, plan: &Plan) {
        let mut broken = Vec::new();
        if self.lost + self.refused > 0 {
            broken.push(format!(
                "{} requests had no answer, and {} another one than 200",
                self.lost, self.refused
            ));
        }
        if plan.is_timed {
            if self.per_second < plan.rate as f64 * 0.9 {
                broken.push(format!(
                    "{:.0} requests a second were made, {} were intended: this machine is too slow or too busy",
                    self.per_second, plan.rate
                ));
            }
            broken.extend(self.costly(plan.rate));
        }
        self.broken = broken;
    }

    /// The moves that have cost more than one interval of retransmissions carries.
    fn costly(&self, rate: u64) -> Vec<String> {
        let most = (rate as f64 * T1.as_secs_f64()) as u64;
        let moves = self.moves.iter().zip(1..);
        let costly = moves.filter(|(one, _)| one.again >= most);
        let told = costly.map(|(one, nth)| {
            format!(
                "move {nth} ({}): {} requests were sent again; fewer than {most} were expected, what {} ms carry",
                one.cause.text(),
                one.again,
                T1.as_millis()
            )
        });
        told.collect()
    }

    /// The report as text.
    pub(crate) fn text(&self) -> String {
        let Self {
            seconds,
            sent,
            per_second,
            again,
            lost,
            refused,
            calls,
            adopted,
            strays,
            ..
        } = self;
        let by = if self.by_keepalived {
            " by keepalived"
        } else {
            ""
        };
        let mut text = format!(
            "\nSoak of {seconds} s with {} moves of an address{by}\n\n  {sent:>12}  requests, {per_second:.0} per second\n  {again:>12}  of them sent \
             again\n  {lost:>12}  without an answer\n  {refused:>12}  with another answer\n  {calls:>12}  calls ended that were established before a \
             move, and as many answered and ended that rang\n  {adopted:>12}  answers of the other host's transactions relayed, {strays} dropped\n\n",
            self.moves.len(),
        );
        for (one, nth) in self.moves.iter().zip(1..) {
            let _infallible = writeln!(
                text,
                "  move {nth:>3}: {:<40} {:>7.0} ms, {:>6} requests sent again",
                one.cause.text(),
                one.took_ms,
                one.again
            );
        }
        text.push_str(&verdict(&self.broken));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_that_costs_too_much_is_told() {
        let plan = Plan {
            moves: 3,
            rate: 1_000,
            by_keepalived: false,
            is_timed: true,
        };
        let one = |cause, again| Move {
            cause,
            took_ms: 1.0,
            again,
        };
        let mut report = Report {
            sent: 10_000,
            per_second: 1_000.0,
            moves: vec![
                one(Cause::Moved, 499),
                one(Cause::Drained, 0),
                one(Cause::Killed, 500),
            ],
            ..Report::default()
        };
        report.check(&plan);
        let [costly] = &report.broken[..] else {
            panic!("{:?}", report.broken);
        };
        assert!(
            costly.starts_with("move 3 (the host is killed): 500 "),
            "{costly}"
        );
        report.check(&Plan {
            is_timed: false,
            ..plan
        });
        assert_eq!(report.broken, [""; 0]);
        report.lost = 1;
        report.check(&plan);
        assert_eq!(report.broken.len(), 2);
        assert!(report.text().contains("Broken invariants: 2"));
    }
}
