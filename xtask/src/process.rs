//! Other programs, run.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, bail};

pub(crate) use portcullis_toolchains::{cargo, find, show};

/// Shows the command, runs it, and returns an error if it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    eprintln!("$ {}", show(command));
    let status = command.status().with_context(|| cannot_start(command))?;
    if !status.success() {
        bail!("`{}` failed ({status})", show(command));
    }
    Ok(())
}

/// Runs the command without showing it. Returns its output, or an error that contains it.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().with_context(|| cannot_start(command))?;
    if !status.success() {
        bail!(
            "`{}` failed ({status}): {}",
            show(command),
            String::from_utf8_lossy(&stderr).trim_end()
        );
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

/// Finds a file of a package below the library directories of Debian, Fedora and local builds.
pub(crate) fn library_file(name: &str) -> Option<PathBuf> {
    [
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/lib64",
        "/usr/lib",
        "/usr/local/lib64",
        "/usr/local/lib",
    ]
    .map(|folder| Path::new(folder).join(name))
    .into_iter()
    .find(|file| file.is_file())
}

fn cannot_start(command: &Command) -> String {
    format!("cannot start `{}`", show(command))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_contain_the_output() {
        let error = capture(Command::new("sh").args(["-c", "echo no good >&2; exit 3"]))
            .expect_err("it fails");

        assert!(
            format!("{error:#}").ends_with("failed (exit status: 3): no good"),
            "{error:#}"
        );
    }
}
