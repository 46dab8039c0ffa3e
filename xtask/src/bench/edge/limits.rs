//! The limit of open files of the programs that have many connections.

use std::process::Command;

use anyhow::{Context, Result};

use crate::process::capture;

/// Returns the command with this limit of open files.
///
/// # Errors
/// If the system does not permit it. The error says how to permit it.
pub(crate) fn with_open_files(files: usize, command: &Command) -> Result<Command> {
    let limit = format!("--nofile={files}:{files}");
    let permitted = capture(Command::new("prlimit").args([&limit, "true"]));
    permitted.with_context(|| {
        format!("{files} open files are needed: raise the limit with `ulimit -Hn {files}` as root, or run this as root")
    })?;
    let mut limited = Command::new("prlimit");
    limited
        .arg(limit)
        .arg(command.get_program())
        .args(command.get_args());
    if let Some(folder) = command.get_current_dir() {
        limited.current_dir(folder);
    }
    Ok(limited)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_gets_the_limit_and_its_arguments() {
        let mut shell = Command::new("sh");
        shell.args(["-c", "ulimit -n"]);
        let mut limited = with_open_files(100, &shell).expect("a low limit is permitted");
        assert_eq!(capture(&mut limited).expect("it runs").trim(), "100");
    }

    #[test]
    fn what_the_system_does_not_permit_is_refused_with_advice() {
        // Beyond fs.nr_open, even root may not.
        let error = with_open_files(usize::MAX / 4, &Command::new("true"));
        let text = format!("{:#}", error.expect_err("no system has so many"));
        assert!(text.contains("ulimit -Hn"), "{text}");
    }
}
