//! Ways to compile Wasm, and the one that works here.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::debian;
use crate::process::{capture, cargo, find, is_program, run, show};
use crate::workspace::{Package, Workspace};

/// What policies are compiled for: nothing but the contract can be imported.
const TARGET: &str = "wasm32-unknown-unknown";

/// The stack of a policy in bytes. Small, because a fresh sandbox must clear what the last one used.
const STACK: u32 = 32 * 1024;

/// How policies are compiled, whatever their manifest says: fast, without unwinding, without debug sections (function names
/// stay, for the host's traces).
const PROFILE: [(&str, &str); 6] = [
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3"),
    ("CARGO_PROFILE_RELEASE_LTO", "fat"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1"),
    ("CARGO_PROFILE_RELEASE_PANIC", "abort"),
    ("CARGO_PROFILE_RELEASE_DEBUG", "false"),
    ("CARGO_PROFILE_RELEASE_STRIP", "debuginfo"),
];

/// Debian's compiler in the version that browsers need, with the source of the standard library for targets that it does not
/// bring.
const PACKAGES: [&str; 4] = ["rustc-web", "cargo-web", "rust-web-src", "lld-19"];

/// A compiler for Wasm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Compiler {
    /// The one that this program was compiled with.
    Own,
    /// Debian's, which compiles the standard library too.
    Debian { linker: PathBuf },
}

/// Compiles policies of one workspace and leaves each as NAME.wasm in the folder `to`.
pub(crate) fn compile(policies: &[&Package], to: &Path) -> Result<Vec<PathBuf>> {
    let Some(first) = policies.first() else {
        return Ok(Vec::new());
    };
    // One folder for all, wherever they are: what they have in common is the larger part of the work.
    let built = Workspace::own()?.target.join("policies-build");
    let mut command = Compiler::find()?.build();
    command
        .args(["--release", "--target", TARGET, "--manifest-path"])
        .arg(&first.manifest_path);
    command.arg("--target-dir").arg(&built);
    for policy in policies {
        command.args(["--package", &policy.name]);
    }
    run(&mut command)?;

    let from = built.join(TARGET).join("release");
    policies
        .iter()
        .map(|policy| deliver(policy, &from, to))
        .collect()
}

impl Compiler {
    /// The first that is there or can be installed.
    fn find() -> Result<Self> {
        if has_target() {
            return Ok(Self::Own);
        }
        eprintln!("The Rust in use can't compile for {TARGET} yet.");
        let has_debian = debian::are_installed(&PACKAGES);
        let patience = Duration::from_secs(if has_debian { 15 } else { 120 });
        let Err(refusal) = add_target(patience) else {
            return Ok(Self::Own);
        };
        eprintln!("rustup can't add it: {refusal:#}");

        if !has_debian {
            if !debian::can_install() {
                bail!(
                    "no way to compile policies is there or can be installed. Either of these mends it: `rustup target add \
                     {TARGET}`, or on Debian, as root, `{}`",
                    debian::install_line(&PACKAGES)
                );
            }
            debian::install(&PACKAGES).context("no way to compile policies could be installed")?;
        }
        eprintln!("Debian's compiler does it, with the standard library built anew.");
        Ok(Self::Debian {
            linker: linker().context("package lld-19 is installed, but there is no wasm-ld")?,
        })
    }

    /// A `cargo build` for policies.
    fn build(&self) -> Command {
        let mut command = match self {
            Self::Own => cargo(),
            Self::Debian { linker } => debian_cargo(linker),
        };
        command
            .arg("build")
            .envs(PROFILE)
            // What is set here replaces all other flags, in whichever variable or file they are.
            .env(
                "CARGO_ENCODED_RUSTFLAGS",
                format!("-Clink-arg=-zstack-size={STACK}"),
            )
            .env_remove("CARGO_BUILD_TARGET")
            .env_remove("RUSTC_WORKSPACE_WRAPPER");
        if let Self::Debian { .. } = self {
            // Debian's compiler may be older than the host asks for; the policies do not need more than it has.
            command.args(["-Zbuild-std=std,panic_abort", "--ignore-rust-version"]);
        }
        command
    }
}

/// Debian's cargo, kept apart from the rustup that runs us.
fn debian_cargo(linker: &Path) -> Command {
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::split_paths(&path).filter(|folder| !is_program(&folder.join("rustup")));
    let path = [PathBuf::from("/usr/bin")].into_iter().chain(path);

    let mut command = Command::new("/usr/bin/cargo");
    // The program's own variables name cargo, rustc and libraries of the other toolchain.
    for name in [
        "CARGO",
        "RUSTC",
        "RUSTDOC",
        "RUSTUP_TOOLCHAIN",
        "RUSTC_WRAPPER",
        "LD_LIBRARY_PATH",
    ] {
        command.env_remove(name);
    }
    command
        .env(
            "PATH",
            env::join_paths(path).unwrap_or_else(|_| "/usr/bin:/bin".into()),
        )
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
    command
}

/// True if the Rust in use has the target's standard library.
fn has_target() -> bool {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let library =
        capture(Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]));
    library.is_ok_and(|path| Path::new(path.trim()).is_dir())
}

/// Lets rustup fetch the target, if there is a rustup and a network.
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

/// False if the time is up. Behind a firewall that swallows everything, rustup would try for minutes.
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

/// LLVM's linker for Wasm, in whatever version is there.
fn linker() -> Option<PathBuf> {
    find("wasm-ld-19")
        .or_else(|| find("wasm-ld"))
        .or_else(|| find("rust-lld"))
}

/// Puts a compiled policy where it is looked for: whole or not at all, and only if it is new, as a running host reloads it.
fn deliver(policy: &Package, from: &Path, to: &Path) -> Result<PathBuf> {
    let library = policy
        .library()
        .with_context(|| format!("{} is no policy", policy.name))?;
    let built = from.join(library).with_extension("wasm");
    let bytes = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;

    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    let file = to.join(&policy.name).with_extension("wasm");
    if fs::read(&file).is_ok_and(|old| old == bytes) {
        return Ok(file);
    }
    let fresh = to.join(format!(".{}.wasm.new", policy.name));
    fs::write(&fresh, &bytes)
        .and_then(|()| fs::rename(&fresh, &file))
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}
