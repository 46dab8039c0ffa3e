//! Packages of the console's tests.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::run;
use crate::workspace::root;

/// Installs what `tests/console/package-lock.json` names, into `console` of the target directory. Nothing happens if it is there.
pub(crate) fn install(target: &Path) -> Result<()> {
    let (from, to) = (root().join("tests/console"), target.join("console"));
    let lock = "package-lock.json";
    let wanted = fs::read(from.join(lock)).context("tests/console/package-lock.json")?;
    let installed = fs::read(to.join("node_modules/.of")).ok();
    if installed.as_ref() == Some(&wanted) {
        return Ok(());
    }
    fs::create_dir_all(&to)?;
    for file in ["package.json", lock] {
        fs::copy(from.join(file), to.join(file)).with_context(|| format!("copying {file}"))?;
    }
    let mut npm = Command::new("npm");
    npm.current_dir(&to).args([
        "ci",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--fetch-retries=5",
    ]);
    run(&mut npm)?;
    // The last step, so that an installation that was interrupted is repeated.
    fs::write(to.join("node_modules/.of"), wanted)?;
    Ok(())
}
