//! What attacks on the host's memory come to: `portcullis-soak memory` makes them, each on a host of its own.

use std::fs;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::servers::Programs;
use crate::process::cargo;
use crate::workspace::{Workspace, root};

/// What one attack came to, MiB.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Attacked {
    /// What was done.
    pub(crate) attack: String,
    /// Before.
    pub(crate) before_mib: u64,
    /// At most, while it lasted.
    pub(crate) most_mib: u64,
    /// How much more than before it may be.
    pub(crate) bound_mib: u64,
}

/// Length of each attack.
const SECONDS: u32 = 20;

/// Makes every attack.
pub(crate) fn measure(programs: &Programs) -> Result<Vec<Attacked>> {
    let target = Workspace::own()?.target;
    let report = target.join("soak-memory.json");
    let _none_yet = fs::remove_file(&report);
    // The status says whether all stayed within their bounds, which the report tells as well.
    cargo()
        .current_dir(root())
        .args([
            "run",
            "--quiet",
            "--package",
            "portcullis-soak",
            "--",
            "memory",
        ])
        .arg(format!("--seconds={SECONDS}"))
        .arg("--report")
        .arg(&report)
        .env("PORTCULLIS_BIN", &programs.portcullis)
        .env("PORTCULLIS_POLICIES", target.join("policies"))
        .status()
        .context("portcullis-soak can't be run")?;
    let text = fs::read_to_string(&report).context("portcullis-soak left no report")?;
    Ok(serde_json::from_str(&text)?)
}
