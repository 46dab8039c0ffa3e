//! Packages of the tests in a browser.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::run;
use crate::workspace::root;

/// Installs what `package-lock.json` in this folder of `tests` names, into the folder of the same name in the target directory. Nothing happens if
/// it is there.
pub(crate) fn install(folder: &str, target: &Path) -> Result<()> {
    let (from, to) = (root().join("tests").join(folder), target.join(folder));
    let lock = "package-lock.json";
    let wanted = fs::read(from.join(lock));
    let wanted = wanted.with_context(|| format!("tests/{folder}/{lock}"))?;
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
