//! `portcullis policy profile`: which functions of a policy its calls spend their fuel in.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use portcullis_config::Config;
use portcullis_policy::{Evaluator, Limits, Profile, Runtime, with_marks};
use portcullis_records::replay;
use portcullis_text::clean_json;
use serde_json::json;

use super::super::print::{Table, clean, count};
use super::offline::{Surroundings, read};
use super::work::{Load, PreparedCall};

/// What is profiled, and what is shown.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    load: Load,
    /// Number of functions that are shown
    #[arg(long, value_name = "N", default_value_t = 20)]
    top: usize,
    /// Also write the stacks with their fuel, one a line, for flame graphs (speedscope.app, inferno-flamegraph, flamegraph.pl)
    #[arg(long, value_name = "FILE")]
    folded: Option<PathBuf>,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// A function in the table.
struct Row<'p> {
    name: &'p str,
    calls: u64,
    own: u64,
    total: u64,
}

/// The profiles of some calls together.
struct Profiled {
    profile: Profile,
    calls: u64,
    failures: BTreeMap<&'static str, u64>,
}

pub(super) fn run(
    args: &Args,
    found: (Config, Option<PathBuf>),
    out: &mut impl Write,
) -> anyhow::Result<ExitCode> {
    let around = Surroundings::new(found);
    let profiled = profiled(&args.load, &around)?;
    let profile = &profiled.profile;
    if let Some(file) = &args.folded {
        std::fs::write(file, folded(profile))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    let rows = rows(profile);
    if args.json {
        let functions = rows.iter().map(
            |row| json!({"name": row.name, "calls": row.calls, "own": row.own, "total": row.total}),
        );
        let line = json!({
            "calls": profiled.calls,
            "fuel": profile.fuel(),
            "failures": profiled.failures,
            "functions": functions.collect::<Vec<_>>(),
        });
        writeln!(out, "{}", clean_json(&line.to_string()))?;
        return Ok(ExitCode::SUCCESS);
    }
    write(&profiled, &rows, args.top, out)?;
    if let Some(file) = &args.folded {
        writeln!(out, "stacks: {}", clean(&shown(file)))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn shown(file: &Path) -> String {
    file.display().to_string()
}

fn profiled(load: &Load, around: &Surroundings) -> anyhow::Result<Profiled> {
    // First as it is: what is wrong with a file is said of the file, and not of the one with marks.
    let plain = around.runtime()?;
    let (_, work) = load.prepared(around, &plain)?;
    let marked = with_marks(&read(&load.policy)?).with_context(|| shown(&load.policy))?;
    let limits = Limits {
        module_bytes: marked.len().max(plain.limits().module_bytes),
        ..plain.limits().clone()
    };
    let runtime = replay::runtime(&limits)?;
    let profiled = profile_in(&runtime, load, around, &marked, &work);
    profiled.context("the policy with the marks of the profile")
}

fn profile_in(
    runtime: &Runtime,
    load: &Load,
    around: &Surroundings,
    marked: &[u8],
    work: &[PreparedCall],
) -> anyhow::Result<Profiled> {
    let policy = load.metered(around, runtime, marked, work)?;
    let mut sum = Profiled {
        profile: Profile::default(),
        calls: 0,
        failures: BTreeMap::new(),
    };
    for work in work {
        let request = work.request.clone();
        let host = Arc::clone(&work.host);
        let mut evaluator = Evaluator::muted();
        evaluator.set_host(host);
        let (profile, answer) = evaluator.profile(&policy, &work.scope, &work.tables, request);
        if let Some(profile) = profile {
            sum.profile.add(&profile);
        }
        sum.calls += 1;
        if let Err(failure) = answer {
            *sum.failures.entry(failure.kind().as_str()).or_default() += 1;
        }
    }
    Ok(sum)
}

/// The functions, those with the most fuel of their own first.
fn rows(profile: &Profile) -> Vec<Row<'_>> {
    let functions = profile.functions.iter().zip(profile.own_and_total());
    let rows = functions.map(|(function, (own, total))| Row {
        name: &function.name,
        calls: function.calls,
        own,
        total,
    });
    let mut rows: Vec<_> = rows.collect();
    rows.sort_by(|a, b| (b.own, b.total, a.name).cmp(&(a.own, a.total, b.name)));
    rows
}

fn write(
    profiled: &Profiled,
    rows: &[Row<'_>],
    top: usize,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let fuel = profiled.profile.fuel();
    let percent = |part: u64| match fuel {
        0 => "0.0 %".to_owned(),
        _ => format!("{:.1} %", part as f64 * 100.0 / fuel as f64),
    };
    writeln!(
        out,
        "{}, fuel {fuel}: about one for each instruction of the policy; the host's functions cost none",
        count(profiled.calls, "call")
    )?;
    for (kind, n) in &profiled.failures {
        writeln!(out, "failed calls: {n} ({kind})")?;
    }
    let mut table = Table::new(["own", "", "with callees", "", "entered", "function"]);
    for row in rows.iter().take(top) {
        table.push([
            row.own.to_string(),
            percent(row.own),
            row.total.to_string(),
            percent(row.total),
            row.calls.to_string(),
            row.name.to_owned(),
        ]);
    }
    table.write(out)?;
    if rows.len() > top {
        writeln!(
            out,
            "… and {} (--top N)",
            count((rows.len() - top) as u64, "function")
        )?;
    }
    let is_nameless = |row: &Row<'_>| row.name.starts_with("function ");
    if rows.len() > 1 && rows.iter().all(is_nameless) {
        writeln!(
            out,
            "The file has no names of functions: `portcullis policy build --names` keeps them, and so do other builds without `strip` and `-s`."
        )?;
    }
    Ok(())
}

/// Stacks in the format of `flamegraph.pl`: `outer;inner FUEL`.
fn folded(profile: &Profile) -> String {
    let mut text = String::new();
    for (stack, fuel) in &profile.stacks {
        for (at, &function) in stack.iter().enumerate() {
            if at > 0 {
                text.push(';');
            }
            // A name with the separator would split the frame.
            text += &clean(&profile.functions[function].name).replace(';', ":");
        }
        text += &format!(" {fuel}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use portcullis_policy::ProfiledFunction;

    use super::*;

    fn profile() -> Profile {
        let function = |name: &str, calls| ProfiledFunction {
            name: name.into(),
            calls,
        };
        Profile {
            functions: vec![function("decide", 1), function("a;b", 3)],
            stacks: vec![(vec![0], 25), (vec![0, 1], 75)],
        }
    }

    #[test]
    fn stacks_are_lines_of_a_flame_graph() {
        assert_eq!(folded(&profile()), "decide 25\ndecide;a:b 75\n");
    }

    #[test]
    fn the_table_begins_with_the_most_expensive_function() {
        let profiled = Profiled {
            profile: profile(),
            calls: 2,
            failures: BTreeMap::new(),
        };
        let rows = rows(&profiled.profile);
        let mut out = Vec::new();
        write(&profiled, &rows, 1, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("2 calls, fuel 100"), "{text}");
        let words: Vec<_> = lines[2].split_whitespace().collect();
        assert_eq!(words, ["75", "75.0", "%", "75", "75.0", "%", "3", "a;b"]);
        assert_eq!(lines[3], "… and 1 function (--top N)");
    }
}
