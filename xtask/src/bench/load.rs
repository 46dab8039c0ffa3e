//! One measurement: the load generator on its core, against a running server.

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::pinned::pin;
use super::plan::{Pace, Shape, Task, Work};
use super::servers::{Programs, Running};

/// The part of the generator's report that is used here; the generator documents the meaning of each figure.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Report {
    pub(crate) sent: u64,
    pub(crate) answered: u64,
    pub(crate) unexpected: u64,
    pub(crate) lost: u64,
    #[serde(default)]
    pub(crate) late: u64,
    pub(crate) resent: u64,
    #[serde(default)]
    pub(crate) repeated_answers: u64,
    pub(crate) foreign: u64,
    pub(crate) repeated: u64,
    pub(crate) relayed: Option<u64>,
    pub(crate) codes: serde_json::Value,
    pub(crate) window: Window,
    #[serde(default)]
    pub(crate) beside: Vec<Beside>,
}

/// The result of traffic that only adds load.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Beside {
    pub(crate) sent: u64,
    pub(crate) answered: u64,
}

/// The measured part of a run.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Window {
    pub(crate) seconds: f64,
    pub(crate) answered: u64,
    pub(crate) per_second: f64,
    pub(crate) latency: Latency,
    pub(crate) set_up: Option<SetUp>,
    pub(crate) generator_idle: f64,
    pub(crate) server: Usage,
}

/// Times of calls until they are set up.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct SetUp {
    pub(crate) ringing: Latency,
    pub(crate) accepted: Latency,
}

/// Microseconds from a request to its response.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50_us: f64,
    pub(crate) p90_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) max_us: f64,
}

/// What the server used per request.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Usage {
    pub(crate) cpu_us: f64,
    pub(crate) user_us: f64,
    pub(crate) system_us: f64,
    pub(crate) cores: f64,
    pub(crate) memory_bytes: u64,
}

/// Puts a server under load.
///
/// # Errors
/// If responses are wrong or missing: the figures of a server that does not do its work are worthless.
pub(crate) fn measure(
    task: Task,
    server: &Running,
    programs: &Programs,
    pace: &Pace,
) -> Result<Report> {
    let mut command = command(task.work, server, programs, pace);
    command
        .args(["--outstanding", &pace.outstanding.to_string()])
        .args(["--warm-up", &pace.warm_up_seconds.to_string()])
        .args(["--seconds", &pace.seconds.to_string()]);
    if let Some(rate) = task.shape.rate() {
        command.args(["--rate", &rate.to_string()]);
    }
    if Shape::EVEN.contains(&task.shape) {
        command.arg("--spin");
    }
    report(&command, pace)
}

/// The generator with the sources of these requests, against a running server.
pub(crate) fn command(work: Work, server: &Running, programs: &Programs, pace: &Pace) -> Command {
    let mut command = Command::new(&programs.load);
    command
        .args(["run", "--target", &server.address.to_string()])
        .args(["--mode", work.mode(), "--source", work.first_source()])
        .args(["--sources", &pace.sources.to_string()])
        .args(["--watch", &server.pid().to_string()]);
    if work != Work::Call {
        command.args(["--patience", "2000"]);
    }
    if work.has_callee() {
        command.args(["--sink", &server.callee.to_string()]);
    }
    command
}

/// Runs the generator on its core.
///
/// # Errors
/// See [`measure`].
pub(crate) fn report(generator: &Command, pace: &Pace) -> Result<Report> {
    let report = unchecked(generator, pace)?;
    report.check()?;
    Ok(report)
}

/// The same for a server that may lose requests.
///
/// # Errors
/// If the generator cannot be run.
pub(crate) fn unchecked(generator: &Command, pace: &Pace) -> Result<Report> {
    let output = pin(pace.load_core, generator)
        .output()
        .context("cannot run the generator")?;
    if !output.status.success() {
        bail!(
            "{}",
            String::from_utf8_lossy(&output.stderr).trim().to_owned()
        );
    }
    serde_json::from_slice(&output.stdout).context("the generator's report cannot be read")
}

impl Report {
    fn check(&self) -> Result<()> {
        let Self {
            sent,
            unexpected,
            lost,
            foreign,
            resent,
            repeated_answers,
            repeated,
            codes,
            ..
        } = self;
        ensure!(
            *unexpected == 0 && *lost == 0 && *foreign == 0,
            "of {sent} requests, {unexpected} had unexpected responses ({codes}) and {lost} had none; \
             {foreign} datagrams belong to no request"
        );
        ensure!(
            repeated <= resent,
            "{repeated} requests were answered twice, though only {resent} were sent twice"
        );
        // Every lost datagram costs the server CPU time that is counted for no response.
        let again = resent + repeated_answers;
        ensure!(
            again * 200 <= *sent,
            "{again} of {sent} requests or their responses had to be sent again: the server loses datagrams"
        );
        Ok(())
    }
}
