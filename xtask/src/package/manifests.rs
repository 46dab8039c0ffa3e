//! The examples in contrib for Kubernetes and Docker Compose, checked against the schemas of both.

use std::fs;
use std::path::PathBuf;
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

/// Kubernetes' schemas come from PyPI, into an environment of their own.
const VENV: &str = "python3-venv";

/// Checks all examples.
pub(super) fn check() -> Result<()> {
    debian::require(&[COMPOSE])?;
    run_command(
        Command::new("docker-compose")
            .current_dir(root().join("contrib/compose"))
            .env("DATABASE_PASSWORD", "of-a-check")
            .args(["--file", "compose.yaml", "config", "--quiet"]),
    )?;

    let validate = environment()?.join("bin/kubernetes-validate");
    let mut files: Vec<_> = fs::read_dir(root().join("contrib/kubernetes"))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    files.sort();
    run_command(Command::new(validate).arg("--strict").args(files))
}

/// Returns the environment with the validator, which is made once.
fn environment() -> Result<PathBuf> {
    let folder = Workspace::own()?.target.join("package-venv");
    if !folder.join("bin/kubernetes-validate").is_file() {
        if debian::can_install() && !are_installed(&[VENV]) {
            debian::install(&[VENV])?;
        }
        run_command(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
        run_command(Command::new(folder.join("bin/pip")).args([
            "install",
            "--quiet",
            "kubernetes-validate==1.37.0",
        ]))?;
    }
    Ok(folder)
}
