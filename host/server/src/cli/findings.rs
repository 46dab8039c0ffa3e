//! Errors and warnings about tables and files, one line each.

use std::fmt;
use std::io::{self, Write};

use serde_json::{Value, json};

use super::print::{clean, count};

/// The findings of a check.
pub(super) enum Finding {
    Good(String),
    Odd(String),
    /// An error with which a host starts all the same, such as a row that it skips.
    Skipped(String),
    Wrong(String),
}

impl Finding {
    /// The finding for programs.
    pub(super) fn as_json(&self) -> Value {
        let (kind, text) = match self {
            Self::Good(text) => ("good", text),
            Self::Odd(text) => ("warning", text),
            Self::Skipped(text) | Self::Wrong(text) => ("error", text),
        };
        json!({"kind": kind, "text": text})
    }
}

/// The total number of findings of a load, and the first of them.
pub(super) struct Found<'f, E, W> {
    /// The noun: a row, a line.
    pub(super) noun: &'static str,
    pub(super) skipped: u64,
    pub(super) errors: &'f [E],
    pub(super) warned: u64,
    pub(super) warnings: &'f [W],
}

impl<E: fmt::Display, W: fmt::Display> Found<'_, E, W> {
    /// All of them as findings of a check; those that are not listed are counted.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let more = |all: u64, named: usize, what: &str| {
            let more = all.saturating_sub(named as u64);
            (more > 0).then(|| format!("{} more {what}", count(more, self.noun)))
        };
        let named = self.errors.iter().map(|error| error.to_string());
        let untold = more(self.skipped, self.errors.len(), "that cannot be used");
        let skipped = named.chain(untold).map(Finding::Skipped);
        let named = self.warnings.iter().map(|warning| warning.to_string());
        let untold = more(self.warned, self.warnings.len(), "with a warning");
        let odd = named.chain(untold).map(Finding::Odd);
        skipped.chain(odd).collect()
    }
}

/// The first findings of a kind, each a `noun`; `total` is the number of all.
pub(super) fn write_findings(
    out: &mut impl Write,
    noun: &str,
    total: u64,
    what: &str,
    findings: &[impl fmt::Display],
) -> io::Result<()> {
    if total == 0 {
        return Ok(());
    }
    writeln!(out, "\n{} {what}:", count(total, noun))?;
    for finding in findings {
        writeln!(out, "  {}", clean(&finding.to_string()))?;
    }
    match total.saturating_sub(findings.len() as u64) {
        0 => Ok(()),
        more => writeln!(out, "  and {}", count(more, &format!("more {noun}"))),
    }
}

/// The findings of a reload by the running host: errors and warnings.
pub(super) fn write_answered(
    noun: &str,
    (skipped, errors): (u64, &[String]),
    (warned, warnings): (u64, &[String]),
    out: &mut impl Write,
) -> io::Result<()> {
    write_findings(out, noun, skipped, "cannot be used", errors)?;
    let odd = "may not mean what was intended";
    write_findings(out, noun, warned, odd, warnings)
}
