//! Compilers for Wasm, and the choice of one.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use portcullis_toolchains::{
    PACKAGES, RustCompiler, TARGET, are_installed, find, has_target, show,
};

use crate::debian;
use crate::process::run;
use crate::workspace::{Package, Workspace};

/// Compiles policies of one workspace, and writes each to NAME.wasm in the directory `to`.
pub(crate) fn compile(
    compiler: &RustCompiler,
    policies: &[&Package],
    to: &Path,
) -> Result<Vec<PathBuf>> {
    let Some(first) = policies.first() else {
        return Ok(Vec::new());
    };
    let (mut command, from) = build(compiler, first)?;
    for policy in policies {
        command.args(["--package", &policy.name]);
    }
    run(&mut command)?;

    let deliver = |policy: &&Package| {
        let library = policy
            .library()
            .with_context(|| format!("{} is no policy", policy.name))?;
        deliver(&policy.name, &from.join(library), to)
    };
    policies.iter().map(deliver).collect()
}

/// Compiles the examples of a crate, each of which is a policy, and writes each to NAME.wasm in the directory `to`.
pub(crate) fn compile_examples(
    compiler: &RustCompiler,
    package: &Package,
    to: &Path,
) -> Result<Vec<PathBuf>> {
    let (mut command, from) = build(compiler, package)?;
    command.args([
        "--package",
        &package.name,
        "--examples",
        "--features",
        "wasm",
    ]);
    run(&mut command)?;

    let from = from.join("examples");
    let deliver = |name| deliver(name, &from.join(name.replace('-', "_")), to);
    package.examples().map(deliver).collect()
}

/// The command that compiles policies of the workspace of `package`, and the directory of its results. All policies share one build directory,
/// because most of the work is for their common dependencies.
fn build(compiler: &RustCompiler, package: &Package) -> Result<(Command, PathBuf)> {
    let built = Workspace::own()?.target.join("policies-build");
    let mut command = compiler.build();
    command
        .args(["--release", "--target", TARGET, "--manifest-path"])
        .arg(&package.manifest_path);
    command.arg("--target-dir").arg(&built);
    Ok((command, built.join(TARGET).join("release")))
}

/// Returns the first compiler that is installed or can be installed.
pub(crate) fn compiler() -> Result<RustCompiler> {
    if has_target() {
        return Ok(RustCompiler::Own);
    }
    eprintln!("The Rust in use cannot compile for {TARGET} yet.");
    let has_debian = are_installed(&PACKAGES);
    let patience = Duration::from_secs(if has_debian { 15 } else { 120 });
    let Err(refusal) = add_target(patience) else {
        return Ok(RustCompiler::Own);
    };
    eprintln!("rustup cannot add it: {refusal:#}");

    if !has_debian {
        if !debian::can_install() {
            bail!(
                "no compiler for policies is installed or can be installed: run `rustup target add \
                 {TARGET}`, or on Debian, as root, `{}`",
                debian::install_line(&PACKAGES)
            );
        }
        debian::install(&PACKAGES).context("no way to compile policies could be installed")?;
    }
    eprintln!("Debian's compiler does it, with the standard library built anew.");
    RustCompiler::debian().context("package lld-19 is installed, but there is no wasm-ld")
}

/// Has rustup install the target, if there is rustup and a network.
fn add_target(patience: Duration) -> Result<()> {
    let rustup = find("rustup").context("there is no rustup")?;
    let mut command = Command::new(rustup);
    command.args(["target", "add", TARGET]);
    if let Ok(toolchain) = env::var("RUSTUP_TOOLCHAIN") {
        command.args(["--toolchain", &toolchain]);
    }

    eprintln!("$ {}", show(&command));
    command
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().context("rustup does not start")?;
    if !ends_within(patience, &mut child)? {
        child.kill()?;
        child.wait()?;
        bail!("it got no answer within {} s", patience.as_secs());
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let error = said.lines().find_map(|line| line.strip_prefix("error: "));
        bail!(
            "{}",
            error
                .or_else(|| said.lines().next_back())
                .unwrap_or("no reason given")
        );
    }
    Ok(())
}

/// Returns false after the time limit. Behind a firewall that drops packets, rustup would try for minutes.
fn ends_within(patience: Duration, child: &mut Child) -> Result<bool> {
    let began = Instant::now();
    while child.try_wait()?.is_none() {
        if began.elapsed() > patience {
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(true)
}

/// Copies a compiled policy to its destination, atomically, and only if it has changed, because a running host reloads a changed file.
fn deliver(name: &str, built: &Path, to: &Path) -> Result<PathBuf> {
    let built = built.with_extension("wasm");
    let bytes = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;

    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    let file = to.join(name).with_extension("wasm");
    if fs::read(&file).is_ok_and(|old| old == bytes) {
        return Ok(file);
    }
    let fresh = to.join(format!(".{name}.wasm.new"));
    fs::write(&fresh, &bytes)
        .and_then(|()| fs::rename(&fresh, &file))
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}
