//! Memory of the host under attack: `portcullis-soak memory` performs each attack on a host of its own.

use std::fs;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::servers::Programs;
use crate::process::cargo;
use crate::workspace::{Workspace, root};

/// Result of one attack, in MiB.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Attacked {
    /// Name of the attack.
    pub(crate) attack: String,
    /// Memory before the attack.
    pub(crate) before_mib: u64,
    /// Maximum during the attack.
    pub(crate) most_mib: u64,
    /// Permitted increase.
    pub(crate) bound_mib: u64,
}

/// Length of each attack.
const SECONDS: u32 = 20;

/// Performs every attack.
pub(crate) fn measure(programs: &Programs) -> Result<Vec<Attacked>> {
    let target = Workspace::own()?.target;
    let report = target.join("soak-memory.json");
    let _none_yet = fs::remove_file(&report);
    // The exit status says whether all attacks stayed within their limits, as the report does.
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
        .context("portcullis-soak cannot be run")?;
    let text = fs::read_to_string(&report).context("portcullis-soak left no report")?;
    Ok(serde_json::from_str(&text)?)
}
