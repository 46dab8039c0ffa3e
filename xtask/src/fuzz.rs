//! `cargo xtask fuzz`

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::build;
use crate::process::{capture, cargo, run as run_command};
use crate::workspace::{Workspace, root};

/// Run a fuzz target
///
/// Works with the stable compiler: the targets are built with coverage counters, but without a sanitizer. New inputs are kept in
/// host/fuzz/target/corpus/TARGET; an input that breaks the target is written to host/fuzz/artifacts.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The target; `cargo xtask fuzz list` shows them
    target: String,
    /// How long to run it
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u32,
    /// Further arguments for libFuzzer, for example a crashing input
    #[arg(last = true)]
    further: Vec<String>,
}

/// The coverage that libFuzzer wants.
const FLAGS: [&str; 6] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];

pub(crate) fn run(args: &Args) -> Result<()> {
    let targets = targets()?;
    if args.target == "list" {
        println!("{}", targets.join("\n"));
        return Ok(());
    }
    if !targets.contains(&args.target) {
        bail!(
            "there is no fuzz target {}, but {}",
            args.target,
            targets.join(", ")
        );
    }
    fuzz(&args.target, Until::Seconds(args.seconds), &args.further)
}

/// Where the fuzz targets are: a workspace of their own.
pub(crate) fn folder() -> PathBuf {
    root().join("host/fuzz")
}

/// The names of all targets.
pub(crate) fn targets() -> Result<Vec<String>> {
    let workspace = Workspace::of(&folder().join("Cargo.toml"))?;
    Ok(workspace
        .packages
        .iter()
        .flat_map(|package| package.programs())
        .collect())
}

/// The package whose targets depend on neither wasmtime nor sqlx, and build within a minute.
const QUICK: &str = "portcullis-fuzz";

/// The names of the targets that build quickly, and of the others.
pub(crate) fn quick_and_other_targets() -> Result<(Vec<String>, Vec<String>)> {
    let workspace = Workspace::of(&folder().join("Cargo.toml"))?;
    let mut quick = Vec::new();
    let mut other = Vec::new();
    for package in &workspace.packages {
        match package.name == QUICK {
            true => quick.extend(package.programs()),
            false => other.extend(package.programs()),
        }
    }
    Ok((quick, other))
}

/// When a run ends that finds nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Until {
    /// Inputs that differ from run to run.
    Seconds(u32),
    /// This many inputs, from a fixed seed: the same ones on every machine where nothing was found before.
    Runs(u32),
}

/// Builds a target and runs it.
pub(crate) fn fuzz(target: &str, until: Until, further: &[String]) -> Result<()> {
    let triple = host_triple()?;
    let built = folder().join("target");
    let mut build = cargo();
    build
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"))
        // With a target of its own, build scripts and procedural macros do without the flags.
        .args([
            "build",
            "--release",
            "--locked",
            "--workspace",
            "--bin",
            target,
            "--target",
            &triple,
            "--manifest-path",
        ])
        .arg(folder().join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&built);
    run_command(&mut build)?;

    let corpus = built.join("corpus").join(target);
    let artifacts = folder().join("artifacts");
    for folder in [&corpus, &artifacts] {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let input = Input::of(target);
    let mut run = Command::new(built.join(triple).join("release").join(target));
    run.args(["-timeout=5", "-print_final_stats=1"])
        .arg(format!("-max_len={}", input.longest))
        .args(match until {
            Until::Seconds(seconds) => vec![format!("-max_total_time={seconds}")],
            Until::Runs(runs) => vec![format!("-runs={runs}"), "-seed=1".to_owned()],
        })
        .arg(format!(
            "-artifact_prefix={}/{target}-",
            artifacts.display()
        ));
    if let Some(dictionary) = input.dictionary {
        run.arg(format!("-dict={}", folder().join(dictionary).display()));
    }
    if further.is_empty() {
        // What is found grows in the first; the seeds in the others are only read.
        run.arg(corpus).arg(folder().join("corpus").join(target));
        if input.has_policies {
            let workspace = Workspace::own()?;
            build::policies_with_tests(&workspace)?;
            run.arg(workspace.target.join("policies"));
        }
    }
    run_command(run.args(further))
}

/// What a target reads.
struct Input {
    /// Bytes of the longest input.
    longest: usize,
    /// The words of it.
    dictionary: Option<&'static str>,
    /// The compiled policies of this repository are seeds, too.
    has_policies: bool,
}

impl Input {
    fn of(target: &str) -> Self {
        let text = |dictionary| Self {
            longest: 2_048,
            dictionary: Some(dictionary),
            has_policies: false,
        };
        match target {
            "loader" => Self {
                longest: 64 << 10,
                dictionary: None,
                has_policies: true,
            },
            "binrpc" | "fifo" | "json_rpc" => text("control.dict"),
            "config" | "tenant_toml" => text("toml.dict"),
            "kamailio_cfg" => text("kamailio.dict"),
            "patterns" | "rows" | "sets" => text("address.dict"),
            "pcap" => Self {
                longest: 4_096,
                ..text("sip.dict")
            },
            _ => text("sip.dict"),
        }
    }
}

fn host_triple() -> Result<String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = capture(Command::new(rustc).arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned)
        .context("rustc -vV does not name its host")
}
