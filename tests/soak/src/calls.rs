//! Many calls through one host, in parts: what the host holds does not grow from the first part to the last one.

use std::fmt::Write;
use std::time::{Duration, Instant};

use anyhow::Result;
use portcullis_load::{End, Mode, Plan as Load};
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::{policy, wait};
use serde::Serialize;

use crate::process::{Held, dropped_by_kernel};
use crate::report::{dropped, explain, verdict};

/// Parameters of a soak with calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Number of calls.
    pub(crate) calls: u64,
    /// Calls per second.
    pub(crate) rate: u64,
}

/// Number of parts: what the host holds is read after each.
pub(crate) const PARTS: u64 = 10;

/// Runs with this number of calls, or more, last until no transaction lingers.
const WHOLE: u64 = 100_000;

/// Largest increase of the host's resources from the end of the first part to that of the last one, apart from lingering transactions. A leak of
/// 64 bytes in each of a million calls would exceed it.
const MORE: Held = Held {
    memory_mib: 48,
    files: 4,
    maps: 48,
    threads: 4,
};

/// Most memory of a lingering transaction: 0.7 KiB for both of a call, and slack of the allocator.
const LINGERING_BYTES: u64 = 768;

/// Most time that a transaction lingers (timers L and J), and time to read the number.
const LINGERS: Duration = Duration::from_secs(34);

/// Most time until no transaction is in progress: timer B, and timer H after it.
const LONGEST: Duration = Duration::from_secs(70);

/// Last parts of addresses in the lease of the host.
const CALLEE: u8 = 3;
const CALLERS: u8 = 100;

/// Runs the soak.
///
/// # Errors
/// If it cannot be set up. Broken invariants are in the report.
pub(crate) fn run(plan: &Plan) -> Result<Report> {
    let begun = Instant::now();
    let host = start();
    let mut load = Load::new(host.sip(), Mode::Call, host.lease().ip(CALLERS));
    load.sink = Some(host.lease().addr(CALLEE, 5060));
    load.rate = Some(plan.rate);
    load.end = End::Requests(plan.calls / PARTS);
    // Longer than any delay, except for a worker that hangs.
    load.patience = Duration::from_secs(20);
    let mut report = Report {
        rate: plan.rate,
        moments: vec![Moment::of(&host, 0)?],
        ..Report::default()
    };
    for part in 1..=PARTS {
        let part_begun = Instant::now();
        let told = portcullis_load::run(&load)?;
        report.calls += told.answered;
        report.lost += told.lost;
        report.repeated += told.repeated;
        report.resent += told.resent;
        if told.unexpected + told.foreign > 0 {
            let fault = told.fault().unwrap_or_default();
            report.broken.push(format!("part {part}: {fault}"));
        }
        let moment = Moment::of(&host, report.calls)?;
        eprintln!("{moment:?} after {:?}", part_begun.elapsed());
        report.moments.push(moment);
    }
    report.wait_for_the_end(&host, plan)?;
    report.retransmissions = host.metric("portcullis_retransmissions_total", &["_sent\""]) as u64;
    report.dropped_by_the_kernel = dropped_by_kernel(host.sip())?;
    report.seconds = begun.elapsed().as_secs();
    report.check(plan);
    explain(&host, &report.broken);
    Ok(report)
}

/// A host that relays each call to one callee.
fn start() -> Host {
    let builder = Builder::new();
    let callee = builder.lease().addr(CALLEE, 5060);
    builder
        .workers(2)
        .policy(policy("observe"))
        .set("log", "level = \"warn,policy=off\"")
        // The machine of a short run is shared.
        .set("policy", "deadline = \"1s\"")
        .set("relay", &format!("next-hop = \"sip:{callee}\""))
        .start()
}

/// The whole report; its JSON form has the same fields.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Report {
    /// From the start of the host to its end.
    pub(crate) seconds: u64,
    /// Calls per second.
    pub(crate) rate: u64,
    /// Calls that were answered and ended.
    pub(crate) calls: u64,
    /// Calls that were not.
    pub(crate) lost: u64,
    /// Answers that came again, after a retransmission.
    pub(crate) repeated: u64,
    /// Requests that the callers sent again.
    pub(crate) resent: u64,
    /// Requests and responses that the host has sent again.
    pub(crate) retransmissions: u64,
    /// What the host holds at the start, after each part, and at the end.
    pub(crate) moments: Vec<Moment>,
    /// Datagrams that the kernel dropped before the host saw them.
    pub(crate) dropped_by_the_kernel: u64,
    /// Invariants that did not hold.
    pub(crate) broken: Vec<String>,
}

/// What the host holds at one moment.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Moment {
    /// Calls so far.
    pub(crate) calls: u64,
    /// Resources of the process.
    pub(crate) held: Held,
    /// Transactions in progress.
    pub(crate) active: u64,
    /// Transactions that have ended and absorb retransmissions.
    pub(crate) lingering: u64,
    /// Bytes that both store.
    pub(crate) stored: u64,
}

impl Moment {
    fn of(host: &Host, calls: u64) -> Result<Self> {
        let gauge =
            |name: &str| host.metric(&format!("portcullis_transactions_{name}"), &[]) as u64;
        Ok(Self {
            calls,
            held: Held::of(host.pid())?,
            active: gauge("active"),
            lingering: gauge("lingering"),
            stored: gauge("stored_bytes"),
        })
    }
}

impl Report {
    /// Waits until no transaction is in progress and, after a whole run, until none lingers.
    fn wait_for_the_end(&mut self, host: &Host, plan: &Plan) -> Result<()> {
        let mut wait_for = |what: &str, moment: fn(&Moment) -> u64| {
            let none = || (moment(&Moment::of(host, self.calls).ok()?) == 0).then_some(());
            if wait::within(LONGEST, none).is_none() {
                let text = format!("transactions are {what} {LONGEST:?} after the last call");
                self.broken.push(text);
            }
        };
        wait_for("in progress", |moment| moment.active);
        if plan.calls >= WHOLE {
            wait_for("lingering", |moment| moment.lingering);
        }
        self.moments.push(Moment::of(host, self.calls)?);
        Ok(())
    }

    fn check(&mut self, plan: &Plan) {
        let (first, last) = (self.moments[1], self.moments[PARTS as usize]);
        let lingering = last.lingering.saturating_sub(first.lingering) * LINGERING_BYTES;
        let bound = first.held.and(Held {
            memory_mib: MORE.memory_mib + (lingering >> 20),
            ..MORE
        });
        for text in last.held.beyond(&bound) {
            self.broken.push(format!(
                "after the last part the host holds {text}: {first:?} after the first one"
            ));
        }
        // An INVITE and a BYE of each call.
        let most = 2 * plan.rate * LINGERS.as_secs();
        for moment in self.moments.iter().filter(|moment| moment.lingering > most) {
            self.broken.push(format!(
                "{} transactions linger after {} calls; {most} were expected at most",
                moment.lingering, moment.calls
            ));
        }
        let copies = self.retransmissions + self.resent;
        if self.repeated > copies {
            self.broken.push(format!(
                "{} answers came again, but only {copies} messages were sent again",
                self.repeated
            ));
        }
        if self.lost > self.dropped_by_the_kernel {
            self.broken.push(format!(
                "{} calls did not end, but the kernel dropped {} datagrams",
                self.lost, self.dropped_by_the_kernel
            ));
        }
    }

    /// The report as text.
    pub(crate) fn text(&self) -> String {
        let mut text = format!(
            "\nSoak of {} calls, {} per second, in {} s\n\n  {:>12}  calls that did not end\n  {:>12}  messages that were sent again\n{}\n  after calls    MiB  descriptors  in progress  lingering  MiB stored\n",
            self.calls,
            self.rate,
            self.seconds,
            self.lost,
            self.retransmissions + self.resent,
            dropped(self.dropped_by_the_kernel)
        );
        for moment in &self.moments {
            let _infallible = writeln!(
                text,
                "  {:>11}{:>7}{:>13}{:>13}{:>11}{:>12.1}",
                moment.calls,
                moment.held.memory_mib,
                moment.held.files,
                moment.active,
                moment.lingering,
                moment.stored as f64 / f64::from(1 << 20)
            );
        }
        text.push_str(&verdict(&self.broken));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(memory_mib: [u64; 2], lingering: [u64; 2]) -> Report {
        let moment = |n: u64| Moment {
            calls: n,
            held: Held {
                memory_mib: if n < PARTS {
                    memory_mib[0]
                } else {
                    memory_mib[1]
                },
                ..Held::default()
            },
            active: 0,
            lingering: if n < PARTS {
                lingering[0]
            } else {
                lingering[1]
            },
            stored: 0,
        };
        Report {
            moments: (0..=PARTS).map(moment).collect(),
            ..Report::default()
        }
    }

    #[test]
    fn memory_may_grow_with_lingering_transactions_only() {
        let plan = Plan {
            calls: 100,
            rate: 10_000,
        };
        for (memory_mib, lingering, broken) in [
            ([60, 60 + MORE.memory_mib], [0, 0], 0),
            ([60, 61 + MORE.memory_mib], [0, 0], 1),
            ([60, 400], [0, 500_000], 0),
            ([60, 400], [500_000, 500_000], 1),
        ] {
            let mut report = report(memory_mib, lingering);
            report.check(&plan);
            assert_eq!(report.broken.len(), broken, "{:?}", report.broken);
        }
    }

    #[test]
    fn a_transaction_that_does_not_end_is_told() {
        let mut report = report([60, 60], [0, 10_000]);
        let plan = Plan {
            calls: 100,
            rate: 100,
        };
        report.check(&plan);
        assert!(report.broken[0].starts_with("10000 transactions linger after 10 calls"));
        report.broken.clear();
        report.lost = 1;
        report.moments.truncate(PARTS as usize + 1);
        report.moments[PARTS as usize].lingering = 0;
        report.check(&plan);
        assert!(report.broken[0].starts_with("1 calls did not end"));
    }
}
