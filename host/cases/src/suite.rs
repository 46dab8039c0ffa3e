//! Runs the cases of a file.

use std::path::Path;
use std::sync::Arc;

use portcullis_address::Snapshot;
use portcullis_dispatcher::Dispatcher;
use portcullis_policy::{LoadError, LoadProblem, Policy, Runtime, Scope, Settings, StatedHost};
use portcullis_records::replay::{Answered, OfflinePolicy, Query};
use portcullis_records::{Decided, Question};
use portcullis_request::Request;
use serde::Serialize;

use crate::coverage::{Collector, Coverage};
use crate::expect::{Expect, Mismatch};
use crate::failures::Progress;
use crate::file::{Case, File, FileError};
use crate::first_look::{FirstLook, first_look};
use crate::outcome::Outcome;
use crate::reason::{Sight, reason_for};

/// Cases of a file, ready to be run.
#[derive(Debug)]
pub struct Suite {
    file: File,
}

/// The request of a case, and what it meets.
#[derive(Clone, Copy, Debug)]
pub struct SuiteRequest<'s> {
    /// The request.
    pub request: &'s Request,
    /// What the policy may get to know beside it.
    pub host: &'s StatedHost,
    /// The tables.
    pub tables: &'s Arc<Snapshot>,
    /// The settings.
    pub settings: &'s Arc<Settings>,
}

/// The results of all cases of a file.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The cases, in the order of the file.
    pub cases: Vec<CaseReport>,
    /// What they have reached.
    pub coverage: Coverage,
}

/// The result of a case.
#[derive(Clone, Debug, Serialize)]
pub struct CaseReport {
    /// Its name.
    pub name: String,
    /// The line of the file where it begins.
    pub line: usize,
    /// The call of `decide`, and the calls of `on-failure`.
    pub steps: Vec<StepReport>,
}

/// The result of one call.
#[derive(Clone, Debug, Serialize)]
pub struct StepReport {
    /// `decide`, or `on-failure` with the number of the call.
    pub call: String,
    /// What the call came to; `None` if it was not made.
    pub outcome: Option<Outcome>,
    /// What was expected and is different.
    pub mismatches: Vec<Mismatch>,
    /// The queries with their answers, and why.
    pub asked: Vec<String>,
}

impl Suite {
    /// Reads a file.
    ///
    /// # Errors
    /// What is wrong with it, and in which line.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let file = File::read(path)?;
        Ok(Self { file })
    }

    /// Reads the text of a file with this name in this folder.
    ///
    /// # Errors
    /// As [`Suite::read`].
    pub fn parse(text: &str, name: &str, folder: &Path) -> Result<Self, FileError> {
        let file = File::parse(text, name, folder)?;
        Ok(Self { file })
    }

    /// The policy that the file names.
    pub fn policy(&self) -> Option<&Path> {
        self.file.policy.as_deref()
    }

    /// The requests with their tables and settings, without the expectations: for measurements.
    pub fn requests(&self) -> impl Iterator<Item = SuiteRequest<'_>> {
        let cases = self.file.cases.iter();
        cases.map(|case| SuiteRequest {
            request: &case.request,
            host: &case.host,
            tables: &case.tables,
            settings: &case.settings,
        })
    }

    /// Loads a policy with settings of the file that it accepts.
    ///
    /// # Errors
    /// If it cannot be used with the settings of any case.
    pub fn load(&self, runtime: &Runtime, name: &str, bytes: &[u8]) -> Result<Policy, LoadError> {
        let load = |settings| runtime.load_within(name, bytes, runtime.limits(), settings);
        let first = load(&self.file.settings);
        let refused = match first {
            Err(error) if matches!(error.problem, LoadProblem::Settings(_)) => error,
            other => return other,
        };
        let mut cases = self.file.cases.iter();
        let accepted = cases.find_map(|case| load(&case.settings).ok());
        accepted.ok_or(refused)
    }

    /// Calls the policy for each case. `scope` makes the scope of the seat whose part the policy plays.
    pub fn run(&self, policy: Policy, scope: impl Fn() -> Scope) -> Report {
        let mut collector = Collector::default();
        let mut offline = OfflinePolicy::new(policy, Arc::new(scope()));
        let mut cases = Vec::with_capacity(self.file.cases.len());
        // Those of the last case, for one that continues it.
        let mut sets = None;
        for case in &self.file.cases {
            let scope = scope().with_settings(Arc::clone(&case.settings));
            if !case.continues || case.sets.dispatcher != before(&sets) {
                // They were read with the file.
                let made = case.sets.sets().ok().flatten();
                sets = made.map(|made| (case.sets.dispatcher.clone(), made));
            }
            let scope = match &sets {
                Some((_, sets)) => scope.with_dispatcher_alone(Arc::clone(sets)),
                None => scope,
            };
            match case.continues {
                true => offline.continue_in(scope),
                false => offline.start_over(scope),
            }
            cases.push(CaseReport {
                name: case.name.clone(),
                line: case.line,
                steps: steps(case, &mut offline, &mut collector),
            });
        }
        Report {
            cases,
            coverage: collector.finish(offline.policy()),
        }
    }
}

impl Report {
    /// Number of cases that differ from what is expected.
    pub fn failed(&self) -> usize {
        self.cases.iter().filter(|case| !case.is_ok()).count()
    }
}

impl CaseReport {
    /// Whether everything is as expected.
    pub fn is_ok(&self) -> bool {
        self.steps.iter().all(|step| step.mismatches.is_empty())
    }
}

/// The rows of the sets of the last case.
fn before(sets: &Option<(Vec<String>, Arc<Dispatcher>)>) -> &[String] {
    sets.as_ref().map_or(&[], |(rows, _)| rows)
}

fn steps(case: &Case, offline: &mut OfflinePolicy, collector: &mut Collector) -> Vec<StepReport> {
    let decide = "decide".to_owned();
    if let Err(error) = offline.policy().check_settings(&case.settings) {
        let mismatch = case.expect.compare_refusal(&error.to_string());
        return vec![not_called(decide, mismatch)];
    }
    let look = first_look(&case.request, &[]);
    if look != FirstLook::Judged {
        let expected = case
            .expect
            .verdict
            .map_or("a verdict", |verdict| verdict.as_str());
        return vec![not_called(
            decide,
            Some(difference("verdict", expected, &look.to_string())),
        )];
    }
    let answered = offline.call(query(case), &case.tables);
    let mut steps = vec![step(decide, case, &answered, &case.expect, collector)];
    let mut progress = Progress::default();
    let mut last = answered;
    let is_invite = case.request.method() == "INVITE";
    for (at, after) in case.after.iter().enumerate() {
        let call = format!("on-failure {}", at + 1);
        let next_hop = match &last.decided {
            Decided::Relay(next_hop) => next_hop.as_deref(),
            Decided::Again => None,
            Decided::Reject { .. }
            | Decided::Drop
            | Decided::Pass
            | Decided::Best
            | Decided::Answer { .. }
            | Decided::Failed { .. } => {
                let got = format!(
                    "no targets that could fail: the policy decided {}",
                    last.decided
                );
                steps.push(not_called(call, Some(difference("after", "targets", &got))));
                break;
            }
        };
        progress.named(last.forwarding.take(), next_hop, &case.request.uri());
        let failed = match progress.fail(&after.results, &after.headers, is_invite) {
            Ok(failed) => failed,
            Err(error) => {
                let mismatch = difference("after", "targets", &error.to_string());
                steps.push(not_called(call, Some(mismatch)));
                break;
            }
        };
        let query = Query {
            failed: Some(failed),
            ..query(case)
        };
        last = offline.call(query, &case.tables);
        steps.push(step(call, case, &last, &after.expect, collector));
    }
    steps
}

fn query(case: &Case) -> Query {
    Query {
        request: case.request.clone(),
        at: case.at,
        recorded: None,
        failed: None,
        host: case.host.clone(),
    }
}

fn step(
    call: String,
    case: &Case,
    answered: &Answered,
    expect: &Expect,
    collector: &mut Collector,
) -> StepReport {
    let outcome = Outcome::of(answered);
    collector.verdict(&outcome);
    for question in &answered.asked {
        collector.asked(&question.function);
    }
    let shown = |question: &Question| {
        let reason = reason_for(question, &case.request, &case.tables, Sight::All);
        match reason {
            Some(reason) => format!("{question} = {}: {reason}", question.answer),
            None => format!("{question} = {}", question.answer),
        }
    };
    StepReport {
        call,
        mismatches: expect.compare(&outcome),
        outcome: Some(outcome),
        asked: answered.asked.iter().map(shown).collect(),
    }
}

fn not_called(call: String, mismatch: Option<Mismatch>) -> StepReport {
    StepReport {
        call,
        outcome: None,
        mismatches: mismatch.into_iter().collect(),
        asked: Vec::new(),
    }
}

fn difference(key: &str, expected: &str, got: &str) -> Mismatch {
    Mismatch {
        key: key.to_owned(),
        expected: expected.to_owned(),
        got: got.to_owned(),
    }
}

#[cfg(test)]
mod tests;
