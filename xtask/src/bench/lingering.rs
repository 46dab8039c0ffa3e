//! A million ended transactions, which absorb retransmissions for 32 seconds: the memory that they take, and whether a message costs more beside
//! them.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::Serialize;

use super::control::Control;
use super::load;
use super::machine::resident_bytes;
use super::plan::{Pace, Work};
use super::servers::{Programs, Running};

/// MESSAGE requests per second, each with its 200.
const RATE: u64 = 31_250;

/// How long an ended transaction absorbs retransmissions (RFC 3261 §17.2.2, timer J).
const LINGER: Duration = Duration::from_secs(32);

/// The result.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Lingering {
    /// Requests per second.
    pub(crate) per_second: u64,
    /// Ended transactions at the end.
    pub(crate) transactions: u64,
    /// Bytes by which the process has grown since few transactions had ended.
    pub(crate) grown_bytes: u64,
    /// The same for each of the transactions that came in between.
    pub(crate) bytes_each: f64,
    /// CPU time for each request and its response during the first seconds, in microseconds.
    pub(crate) few_cpu_us: f64,
    /// The same while as many transactions end as are forgotten.
    pub(crate) many_cpu_us: f64,
    /// Ratio of the latter to the former.
    pub(crate) cpu_ratio: f64,
}

/// Sends MESSAGE requests until the first ones are forgotten, and measures the first and the last seconds.
pub(crate) fn measure(programs: &Programs, pace: &Pace) -> Result<Lingering> {
    let host = Running::start_with(
        "[transactions]\nlingering = 2000000\nmemory = \"4GiB\"\n",
        pace.server_core,
        programs,
    )?;
    let control = Control::new(host.control);
    let lingering = || control.metric("portcullis_transactions_lingering");
    let run = |warm_up: Duration, seconds: f64| {
        let mut command = load::command(Work::Message, &host, programs, pace);
        command
            .args(["--rate", &RATE.to_string()])
            .args(["--outstanding", "256"])
            .args(["--warm-up", &warm_up.as_secs_f64().to_string()])
            .args(["--seconds", &seconds.to_string()]);
        load::report(&command, pace)
    };
    run(Duration::from_millis(100), 0.1)?;
    let (few, few_bytes) = (lingering()?, resident_bytes(host.pid()));
    let begun = Instant::now();
    let first = run(Duration::ZERO, pace.seconds)?;
    let warm_up = (LINGER + Duration::from_secs(1)).saturating_sub(begun.elapsed());
    let last = run(warm_up, pace.seconds)?;
    // The level is set with the next message or timer.
    thread::sleep(Duration::from_millis(50));
    let (transactions, bytes) = (lingering()?, resident_bytes(host.pid()));
    ensure!(
        transactions > 2 * few,
        "the host has {transactions} ended transactions, {few} in the beginning"
    );
    let grown_bytes = bytes.saturating_sub(few_bytes);
    let cpu_us = |report: &load::Report| report.window.server.cpu_us;
    let result = Lingering {
        per_second: RATE,
        transactions,
        grown_bytes,
        bytes_each: grown_bytes as f64 / (transactions - few) as f64,
        few_cpu_us: cpu_us(&first),
        many_cpu_us: cpu_us(&last),
        cpu_ratio: cpu_us(&last) / cpu_us(&first),
    };
    eprintln!("lingering transactions: {result:?}");
    Ok(result)
}
