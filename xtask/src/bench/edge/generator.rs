//! One run of the generator of handshakes.

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::super::load::{Latency, Usage};
use super::super::pinned::pin;
use super::super::plan::Pace;

/// The part of its report that is used here; the generator documents the meaning of each figure.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Report {
    pub(crate) tls: Option<String>,
    pub(crate) done: u64,
    pub(crate) failed: u64,
    pub(crate) first_failure: Option<String>,
    pub(crate) window: Window,
}

/// The measured part of a run.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Window {
    pub(crate) seconds: f64,
    pub(crate) full: u64,
    pub(crate) resumed: u64,
    pub(crate) per_second: f64,
    pub(crate) latency: Latency,
    pub(crate) generator_idle: f64,
    pub(crate) server: Option<Usage>,
}

/// Runs the generator on its core. Failed handshakes are no error.
///
/// # Errors
/// If none succeeds, or the generator cannot be run.
pub(crate) fn report(generator: &Command, pace: &Pace) -> Result<Report> {
    let output = pin(pace.load_core, generator)
        .output()
        .context("cannot run the generator")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    serde_json::from_slice(&output.stdout).context("the generator's report cannot be read")
}

impl Report {
    /// Checks that at most one in a thousand has failed.
    ///
    /// # Errors
    /// Otherwise, with the first failure.
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(
            self.failed * 1000 <= self.done,
            "of {} handshakes, {} failed, the first one because: {}",
            self.done + self.failed,
            self.failed,
            self.first_failure.as_deref().unwrap_or("?")
        );
        Ok(())
    }
}
