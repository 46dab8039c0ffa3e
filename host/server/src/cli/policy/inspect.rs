//! What a policy file contains and needs, and whether this host would accept it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use portcullis_config::{Config, SeatConfig, show_size};
use portcullis_control::commands::policy::PolicyInspection;
use portcullis_policy::{Import, Inspection, NoReset, Policy, Reuse, Runtime, inspect, no_reset};

use portcullis_rollout::compiler;
use portcullis_rollout::policy_files::PolicyFiles;

use serde_json::json;

use super::super::print::{Format, clean, count, write_json};

/// The largest file that is read, in bytes: no host accepts a larger one.
const LARGEST: u64 = 1 << 30;

/// Shows the content of a file. Before the file is read, this process gets the restrictions of the compiler process.
pub(super) fn show(file: &Path, format: Format, out: &mut impl Write) -> anyhow::Result<()> {
    let bytes = read(file).with_context(|| format!("cannot read {}", file.display()))?;
    compiler::confine_this_process().context("this process cannot be given bounds")?;
    let found = inspect(&bytes).with_context(|| file.display().to_string())?;
    let state = between_calls(no_reset(&bytes, &found), Reuse::Never);
    if format.json {
        let mut shown = serde_json::to_value(PolicyInspection::from(found))?;
        shown["file"] = file.display().to_string().into();
        shown["state"] = state.into();
        return write_json(out, &shown);
    }
    Ok(write_inspection(file, &found, &state, out)?)
}

/// Runs all checks that a host makes before it activates a policy.
pub(super) fn check(
    file: &Path,
    seat: &str,
    config: &Config,
    format: Format,
    out: &mut impl Write,
) -> anyhow::Result<ExitCode> {
    let runtime = Arc::new(Runtime::new(config.policy.seat.limits.clone())?);
    runtime.compile_with(compiler::for_a_command());
    // If the configuration is unusable, `portcullis check` says why.
    let _kept = compiler::share_code(&runtime, &config.policy.cache);
    let seat = config.seat(seat).with_context(|| {
        let tenants = config.tenants.iter().map(|tenant| tenant.name.as_str());
        let all: Vec<_> = ["default", "before", "after"]
            .into_iter()
            .chain(tenants)
            .collect();
        format!(
            "the configuration has no seat {seat}; there are {}",
            all.join(", ")
        )
    })?;
    let seat = SeatConfig {
        file: Some(file.to_owned()),
        ..seat.clone()
    };
    let files = PolicyFiles::alone("check", seat, runtime);
    files.load()?;
    let Some(generation) = files.slot().current() else {
        return Ok(ExitCode::FAILURE);
    };
    let policy = &generation.policy;
    if format.json {
        let failure = policy.trial_failure().map(ToString::to_string);
        let found = json!({
            "file": file.display().to_string(),
            "bytes": policy.inspection().size,
            "digest": format!("sha256:{}", policy.digest()),
            "load_ms": policy.load_time().as_millis(),
            "state": state_of(policy),
            "warning": failure.map(|failure| format!("it fails on a plain OPTIONS: {failure}")),
        });
        write_json(out, &found)?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(
        out,
        "{}: can be used: {}, sha256:{}, loaded in {} ms",
        clean(&file.display().to_string()),
        show_size(policy.inspection().size as u64),
        policy.digest(),
        policy.load_time().as_millis()
    )?;
    writeln!(out, "state: {}", state_of(policy))?;
    if let Some(failure) = policy.trial_failure() {
        writeln!(
            out,
            "warning: it fails on a plain OPTIONS: {}",
            clean(&failure.to_string())
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What happens to an instance of the policy after a call.
pub(in super::super) fn state_of(policy: &Policy) -> String {
    between_calls(policy.no_reset(), policy.reuse())
}

fn between_calls(no_reset: Option<NoReset>, reuse: Reuse) -> String {
    match (reuse, no_reset) {
        (Reuse::Calls(calls), _) => format!("kept for {calls} calls"),
        (Reuse::Always, _) => "kept until a call fails".into(),
        (Reuse::Never, None) => "reset after each call".into(),
        (Reuse::Never, Some(reason)) => format!(
            "new instance for each call, because {reason} (`reuse = \"1000 calls\"` in the configuration keeps it)"
        ),
    }
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(file)?
        .take(LARGEST + 1)
        .read_to_end(&mut bytes)?;
    match read as u64 > LARGEST {
        true => Err(io::ErrorKind::FileTooLarge.into()),
        false => Ok(bytes),
    }
}

fn write_inspection(
    file: &Path,
    found: &Inspection,
    state: &str,
    out: &mut impl Write,
) -> io::Result<()> {
    let mut line = |name: &str, value: &str| writeln!(out, "{name:<10}  {}", clean(value));
    line("file:", &file.display().to_string())?;
    line("kind:", &found.kind.to_string())?;
    line("size:", &format!("{} bytes", found.size))?;
    line("digest:", &format!("sha256:{}", found.digest))?;
    if let Some(world) = &found.world {
        line("world:", world)?;
    }
    if let Some(sdk) = &found.sdk {
        line("sdk:", sdk)?;
    }
    let most = match found.max_memory_bytes {
        Some(most) => format!("at most {}", show_size(most)),
        None => "no own maximum".into(),
    };
    line(
        "memory:",
        &format!("{} at the start, {most}", show_size(found.memory_bytes)),
    )?;
    line("state:", state)?;
    // A component imports the types of the contract besides its functions.
    let is_type = |import: &Import| {
        import.kind == "type" || import.interface.starts_with("portcullis:policy/types@")
    };
    let imports = found.imports.iter().filter(|import| !is_type(import));
    let imports: Vec<_> = imports.collect();
    line("imports:", if imports.is_empty() { "none" } else { "" })?;
    for import in imports {
        line("", &format!("{import} ({})", import.kind))?;
    }
    line("exports:", &count(found.exports.len() as u64, "item"))?;
    for export in &found.exports {
        line("", &format!("{} ({})", export.name, export.kind))?;
    }
    for producer in &found.producers {
        line(
            "made with:",
            &format!("{} {} ({})", producer.name, producer.version, producer.role),
        )?;
    }
    Ok(())
}
