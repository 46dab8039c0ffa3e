//! `portcullis policy test`: the cases of a file.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use portcullis_cases::{CaseReport, Coverage, Mismatch, Report, StepReport, Suite, junit};
use portcullis_config::Config;
use portcullis_text::clean_json;
use serde_json::json;

use super::super::print::{clean, count};
use super::offline::{Surroundings, name_of, read};

/// The cases, and the policy.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The cases
    #[arg(value_name = "CASES.toml", default_value = "cases.toml")]
    cases: PathBuf,
    /// The policy to test [default: `policy` of the file]
    #[arg(long, value_name = "FILE.wasm")]
    policy: Option<PathBuf>,
    /// The seat whose scope applies: a tenant of the configuration, or default, where everything is permitted
    #[arg(long, value_name = "SEAT")]
    seat: Option<String>,
    /// Also show the cases that succeed, with their queries and log lines
    #[arg(short, long)]
    verbose: bool,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
    /// Also write the results as JUnit XML
    #[arg(long, value_name = "FILE.xml")]
    junit: Option<PathBuf>,
}

pub(super) fn run(
    args: &Args,
    found: (Config, Option<PathBuf>),
    out: &mut impl Write,
) -> anyhow::Result<ExitCode> {
    let around = Surroundings::new(found);
    let suite = Suite::read(&args.cases)?;
    let shown = args.cases.display().to_string();
    let file = args.policy.as_deref().or_else(|| suite.policy());
    let file = file.with_context(|| {
        format!("which policy? Name it with --policy FILE.wasm, or write `policy = \"FILE.wasm\"` in {shown}")
    })?;
    let runtime = around.runtime()?;
    let policy = suite.load(&runtime, &name_of(file), &read(file)?)?;
    let scope = || match &args.seat {
        Some(seat) => around.scope(seat),
        None => Ok(portcullis_policy::Scope::operator()),
    };
    scope()?;
    // The scope has been made once, so it can be made again.
    let report = suite.run(policy, || scope().unwrap_or_default());
    if let Some(path) = &args.junit {
        let text = junit(&report, &shown);
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    match args.json {
        true => {
            let line = json!({
                "file": shown,
                "policy": file,
                "failed": report.failed(),
                "cases": report.cases,
                "coverage": report.coverage,
            });
            writeln!(out, "{}", clean_json(&line.to_string()))?;
        }
        false => write_report(out, &report, &shown, args.verbose)?,
    }
    Ok(match report.failed() {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// The report as text.
pub(super) fn write_report(
    out: &mut impl Write,
    report: &Report,
    file: &str,
    verbose: bool,
) -> std::io::Result<()> {
    for case in &report.cases {
        write_case(out, case, file, verbose)?;
    }
    let all = count(report.cases.len() as u64, "case");
    match report.failed() {
        0 => writeln!(out, "{all} passed")?,
        failed => writeln!(out, "{all}, {failed} failed")?,
    }
    write_coverage(out, &report.coverage)
}

fn write_case(
    out: &mut impl Write,
    case: &CaseReport,
    file: &str,
    verbose: bool,
) -> std::io::Result<()> {
    let outcomes = case.steps.iter().filter_map(|step| step.outcome.as_ref());
    let outcomes: Vec<_> = outcomes.map(ToString::to_string).collect();
    let outcomes = match outcomes.is_empty() {
        // No call was made, as expected.
        true => "settings refused".to_owned(),
        false => outcomes.join("; then "),
    };
    match case.is_ok() {
        true => writeln!(out, "ok    {}: {}", clean(&case.name), clean(&outcomes))?,
        false => writeln!(
            out,
            "FAIL  {} ({}:{})",
            clean(&case.name),
            clean(file),
            case.line
        )?,
    }
    for step in &case.steps {
        if verbose || !step.mismatches.is_empty() {
            write_step(out, step, case.steps.len() > 1)?;
        }
    }
    Ok(())
}

fn write_step(out: &mut impl Write, step: &StepReport, is_named: bool) -> std::io::Result<()> {
    if is_named {
        writeln!(out, "      {}:", step.call)?;
    }
    write_mismatches(out, &step.mismatches)?;
    for asked in &step.asked {
        writeln!(out, "        asked: {}", clean(asked))?;
    }
    let Some(outcome) = &step.outcome else {
        return Ok(());
    };
    for line in &outcome.log {
        writeln!(out, "        log: {}", clean(line))?;
    }
    writeln!(out, "        decided: {}", clean(&outcome.to_string()))
}

/// What was expected and what came, side by side.
fn write_mismatches(out: &mut impl Write, mismatches: &[Mismatch]) -> std::io::Result<()> {
    if mismatches.is_empty() {
        return Ok(());
    }
    let cell = |text: &str| match text {
        "" => "nothing".to_owned(),
        text => clean(text).into_owned(),
    };
    let widest = |length: &dyn Fn(&Mismatch) -> usize, least: usize| {
        let lengths = mismatches.iter().map(length);
        lengths.chain([least]).max().unwrap_or(least)
    };
    let key = widest(&|found| found.key.chars().count(), 4);
    let expected = widest(&|found| cell(&found.expected).chars().count(), 8);
    writeln!(out, "        {:<key$}  {:<expected$}  got", "", "expected")?;
    for found in mismatches {
        writeln!(
            out,
            "        {:<key$}  {:<expected$}  {}",
            clean(&found.key),
            cell(&found.expected),
            cell(&found.got)
        )?;
    }
    Ok(())
}

fn write_coverage(out: &mut impl Write, coverage: &Coverage) -> std::io::Result<()> {
    let verdicts = coverage.verdicts.iter();
    let verdicts: Vec<_> = verdicts
        .map(|(verdict, n)| format!("{verdict} ({n})"))
        .collect();
    if !verdicts.is_empty() {
        writeln!(out, "verdicts: {}", clean(&verdicts.join(", ")))?;
    }
    if !coverage.never.is_empty() {
        writeln!(out, "in no case: {}", coverage.never.join(", "))?;
    }
    if !coverage.never_asked.is_empty() {
        writeln!(
            out,
            "never asked: {}",
            clean(&coverage.never_asked.join(", "))
        )?;
    }
    Ok(())
}
