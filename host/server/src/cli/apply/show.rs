//! Plans and their results, as text and as JSON.

use std::io::Write;

use portcullis_plan::{Action, Kind, Plan, Step, Tally};
use portcullis_text::one_line;
use serde_json::json;

use super::comparison::Comparison;
use crate::cli::print::{Format, clean, count, write_json};

/// Most characters of a value in a plan.
const LONGEST: usize = 100;

/// Shows a plan.
pub(super) fn plan(
    comparison: &Comparison,
    format: Format,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let plan = &comparison.plan;
    if format.json {
        return write_json(out, plan);
    }
    for step in &plan.steps {
        writeln!(out, "{}", line(step))?;
    }
    write_tallies(plan, out)
}

/// Shows how a plan was carried out. `behind` are the policies that are not in effect on all hosts, a line each.
pub(super) fn result(
    plan: &Plan,
    (done, behind): (&[bool], &[String]),
    result: &anyhow::Result<()>,
    format: Format,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let count_done = done.iter().filter(|&&done| done).count();
    let all = plan.steps.len();
    if format.json {
        let error = result.as_ref().err().map(one_line);
        let steps = plan.steps.iter().zip(done);
        let open = steps.clone().filter(|(_, done)| !**done);
        let open: Vec<_> = open.map(|(step, _)| step).collect();
        let finished: Vec<_> = steps
            .filter(|(_, done)| **done)
            .map(|(step, _)| step)
            .collect();
        let shown = json!({"done": finished, "not_done": open, "behind": behind, "error": error});
        return write_json(out, &shown);
    }
    for text in behind {
        eprintln!("error: {}", clean(text));
    }
    let Err(error) = result else {
        writeln!(out, "done: {}", count(all as u64, "change"))?;
        return Ok(());
    };
    eprintln!("error: {}", clean(&one_line(error)));
    writeln!(
        out,
        "done: {count_done} of {}; not done:",
        count(all as u64, "change")
    )?;
    for (step, _) in plan.steps.iter().zip(done).filter(|(_, done)| !**done) {
        writeln!(out, "{}", line(step))?;
    }
    writeln!(out, "the same command does the rest")?;
    Ok(())
}

fn line(step: &Step) -> String {
    let what = format!("{} {}", step.kind.noun(), step.key);
    let line = match &step.action {
        Action::Create { .. } => format!("+ {what}"),
        Action::Prune { .. } => format!("- {what}"),
        Action::Change { fields, .. } => {
            let shown = |value: &Option<String>| match value {
                Some(value) => short(value),
                None => "nothing".to_owned(),
            };
            let fields = fields.iter().map(|field| {
                let (from, to) = (shown(&field.from), shown(&field.to));
                format!("{}: {from} -> {to}", field.name)
            });
            let fields: Vec<_> = fields.collect();
            format!("~ {what}: {}", fields.join(", "))
        }
    };
    clean(&line).into_owned()
}

/// The beginning of a value.
fn short(value: &str) -> String {
    match value.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}…", value.get(..at).unwrap_or_default()),
        None if value.is_empty() => "\"\"".to_owned(),
        None => value.to_owned(),
    }
}

fn write_tallies(plan: &Plan, out: &mut impl Write) -> anyhow::Result<()> {
    let parts = |kind: Kind, tally: &Tally| {
        let Tally {
            create,
            change,
            prune,
            equal,
            kept: _,
        } = tally;
        format!("{kind}: {create} to add, {change} to change, {prune} to remove, {equal} equal")
    };
    for (&kind, tally) in &plan.tallies {
        writeln!(out, "{}", parts(kind, tally))?;
        let kept = tally.kept;
        if kept > 0 && kind.is_prunable() {
            writeln!(
                out,
                "note: {kind}: {kept} on the host and not in the files, kept; --prune removes what is not in the files"
            )?;
        }
    }
    if plan.is_empty() {
        writeln!(out, "no changes")?;
    }
    for large in plan.large_prunes() {
        writeln!(out, "note: {large}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use portcullis_plan::{Item, Prune, State};

    use super::*;

    #[test]
    fn a_step_is_one_line() {
        let row = |tag: &str| Item::new("200 192.0.2.1/32").with("tag", tag);
        let state = |rows: Vec<Item>| State::default().with(Kind::Address, rows);
        let lines = |desired: Vec<Item>, actual: Vec<Item>| {
            let plan = Plan::of(&state(desired), &state(actual), &Prune::All).unwrap();
            plan.steps.iter().map(line).collect::<Vec<_>>()
        };
        assert_eq!(
            lines(vec![row("new")], vec![row("")]),
            ["~ address 200 192.0.2.1/32: tag: \"\" -> new"]
        );
        assert_eq!(
            lines(vec![row("a\u{1b}[2J")], vec![Item::new("1 a/32")]),
            ["+ address 200 192.0.2.1/32", "- address 1 a/32"]
        );
        let said = lines(
            vec![Item::new("1 a/32")],
            vec![Item::new("1 a/32").with("tag", "x\u{1b}")],
        );
        assert_eq!(said, ["~ address 1 a/32: tag: x\\u{1b} -> nothing"]);
    }
}
