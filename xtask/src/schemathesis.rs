//! schemathesis, which asks a host everything that its OpenAPI document describes.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::run;
use crate::workspace::root;

/// Installs what `tests/schemathesis/requirements.txt` names from PyPI, into `schemathesis` of the target directory. Nothing happens if it
/// is there.
pub(crate) fn install(target: &Path) -> Result<()> {
    let requirements = root().join("tests/schemathesis/requirements.txt");
    let venv = target.join("schemathesis");
    let marker = venv.join(".of");
    let wanted = fs::read(&requirements).context("tests/schemathesis/requirements.txt")?;
    if fs::read(&marker).ok().as_ref() == Some(&wanted) {
        return Ok(());
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    let mut pip = Command::new(venv.join("bin/pip"));
    pip.args([
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--requirement",
    ]);
    run(pip.arg(&requirements))?;
    // The last step, so that an installation that was interrupted is repeated.
    fs::write(marker, wanted)?;
    Ok(())
}
