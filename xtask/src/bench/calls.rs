//! The longest policy call for each host function, measured by `host/policy/benches/worst.rs`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;

use crate::process::{cargo, run};
use crate::workspace::{Workspace, root};

/// Deadline of these calls in milliseconds: the default.
pub(crate) const DEADLINE_MS: f64 = 5.0;

/// The duration of a call that repeats one operation until its deadline.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Longest {
    /// The function of the contract, or the instruction.
    pub(crate) function: String,
    /// Median duration of the call in milliseconds.
    pub(crate) milliseconds: f64,
}

/// Measures all of them, the longest first.
pub(crate) fn measure() -> Result<Vec<Longest>> {
    let folder = Workspace::own()?.target.join("criterion/worst");
    // Results of an earlier run may include functions that no longer exist.
    let _nothing_there = fs::remove_dir_all(&folder);
    run(cargo().current_dir(root()).args([
        "bench",
        "--locked",
        "--package",
        "portcullis-policy",
        "--bench",
        "worst",
        "--",
        "--warm-up-time",
        "0.5",
        "--measurement-time",
        "1",
    ]))?;
    read(&folder)
}

fn read(folder: &Path) -> Result<Vec<Longest>> {
    let shown = || folder.display().to_string();
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).with_context(shown)? {
        let path = entry.with_context(shown)?.path();
        let file = path.join("new/estimates.json");
        let Ok(text) = fs::read_to_string(&file) else {
            continue;
        };
        let estimates: Value =
            serde_json::from_str(&text).with_context(|| file.display().to_string())?;
        let nanoseconds = estimates["median"]["point_estimate"]
            .as_f64()
            .with_context(|| format!("{} has no median", file.display()))?;
        all.push(Longest {
            function: path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            milliseconds: nanoseconds / 1e6,
        });
    }
    all.sort_by(|a, b| b.milliseconds.total_cmp(&a.milliseconds));
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_comes_first() {
        let folder = tempfile::tempdir().unwrap();
        for (function, nanoseconds) in [("rules.allow-uri", 5.5e6), ("memory.fill", 6.25e6)] {
            let path = folder.path().join(function).join("new");
            fs::create_dir_all(&path).unwrap();
            let text = format!(r#"{{"median": {{"point_estimate": {nanoseconds}}}}}"#);
            fs::write(path.join("estimates.json"), text).unwrap();
        }
        fs::create_dir(folder.path().join("report")).unwrap();

        let all = read(folder.path()).unwrap();

        let told: Vec<_> = all
            .iter()
            .map(|one| (&*one.function, one.milliseconds))
            .collect();
        assert_eq!(told, [("memory.fill", 6.25), ("rules.allow-uri", 5.5)]);
    }
}
