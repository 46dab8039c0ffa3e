//! The examples in contrib: those for Kubernetes and Docker Compose are checked against the schemas of both, and the role for Ansible is run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use portcullis_toolchains::are_installed;

use crate::debian::{self, Need};
use crate::process::run as run_command;
use crate::workspace::{Workspace, root};

/// Reads and resolves a file without a daemon.
const COMPOSE: Need = Need {
    name: "docker-compose",
    package: "docker-compose",
};

/// Kubernetes' schemas and Ansible come from PyPI, into an environment of their own.
const VENV: &str = "python3-venv";

/// What is installed there.
const TOOLS: [&str; 3] = [
    "kubernetes-validate==1.37.0",
    "ansible-core==2.19.14",
    "ansible-lint==26.10.1",
];

/// Checks all examples. The role for Ansible installs this binary.
pub(super) fn check(host: &Path) -> Result<()> {
    debian::require(&[COMPOSE])?;
    run_command(
        Command::new("docker-compose")
            .current_dir(root().join("contrib/compose"))
            .env("DATABASE_PASSWORD", "of-a-check")
            .args(["--file", "compose.yaml", "config", "--quiet"]),
    )?;

    let tools = environment()?.join("bin");
    let validate = tools.join("kubernetes-validate");
    let mut files: Vec<_> = fs::read_dir(root().join("contrib/kubernetes"))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    files.sort();
    run_command(Command::new(validate).arg("--strict").args(files))?;

    // The linter and the trial start `ansible-playbook`.
    let mut path = tools.clone().into_os_string();
    if let Some(others) = std::env::var_os("PATH") {
        path.push(":");
        path.push(others);
    }
    let folder = root().join("contrib/ansible");
    run_command(
        Command::new(tools.join("ansible-lint"))
            .current_dir(&folder)
            .env("PATH", &path)
            .args(["--offline", "."]),
    )?;
    run_command(
        Command::new(folder.join("tests/run.sh"))
            .env("PATH", &path)
            .arg(host),
    )
}

/// Returns the environment with the validator, which is made once.
fn environment() -> Result<PathBuf> {
    let folder = Workspace::own()?.target.join("package-venv");
    if !folder.join("bin/ansible-lint").is_file() {
        if debian::can_install() && !are_installed(&[VENV]) {
            debian::install(&[VENV])?;
        }
        run_command(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
        let pip = folder.join("bin/pip");
        run_command(Command::new(pip).args(["install", "--quiet"]).args(TOOLS))?;
    }
    Ok(folder)
}
