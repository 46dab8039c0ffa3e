//! What a case expects of a call.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::message::Values;
use crate::outcome::{Outcome, VerdictName};

/// The expected outcome. What is left out is not compared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Expect {
    /// The verdict.
    pub verdict: Option<VerdictName>,
    /// The status code of the response.
    pub status: Option<u16>,
    /// Its reason phrase.
    pub reason: Option<String>,
    /// The only target: the name of a next hop or a URI.
    pub target: Option<String>,
    /// All targets, in order; an empty list for a request that goes where its own header fields lead.
    pub targets: Option<Vec<String>>,
    /// Header fields that are added to the response or the relayed request: all values of these names; an empty list for none.
    #[serde(default)]
    pub headers: BTreeMap<String, Values>,
    /// Header fields that are removed from the request.
    #[serde(default)]
    pub removed: Vec<String>,
    /// What the policy reports to the guard: `guess` or `scan`; `none` for nothing.
    pub reported: Option<String>,
    /// Whether the policy treats the sender as a client that only its flow leads to.
    pub keeps_flow: Option<bool>,
    /// Texts, each of which a log line contains: `warn: flooding`. An empty list: there is no log line.
    pub log: Option<Vec<String>>,
    /// The kind of a failure: `timeout`, `trap`, …
    pub failure: Option<String>,
    /// The most fuel that the call may use.
    pub most_fuel: Option<u64>,
    /// Part of the message with which the policy refuses the settings of the case.
    pub settings_refused: Option<String>,
}

/// A difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mismatch {
    /// The key in the file.
    pub key: String,
    /// Its value there.
    pub expected: String,
    /// The value of the call.
    pub got: String,
}

impl Expect {
    /// Whether nothing is expected.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Compares an outcome.
    pub fn compare(&self, outcome: &Outcome) -> Vec<Mismatch> {
        let mut found = Mismatches::default();
        if let Some(verdict) = self.verdict {
            let verdict = verdict.as_str();
            found.compare("verdict", Some(verdict), Some(outcome.verdict.as_str()));
        }
        if let Some(status) = self.status {
            let got = outcome.status.map(|status| status.to_string());
            found.compare("status", Some(&status.to_string()), got.as_deref());
        }
        if let Some(reason) = &self.reason {
            found.compare("reason", Some(reason), outcome.reason.as_deref());
        }
        let targets = outcome.targets.join(", ");
        if let Some(target) = &self.target {
            found.compare("target", Some(target), Some(&targets));
        }
        if let Some(expected) = &self.targets {
            found.compare("targets", Some(&expected.join(", ")), Some(&targets));
        }
        for (name, expected) in &self.headers {
            let got = outcome.headers.iter();
            let got = got.filter(|(own, _)| own.eq_ignore_ascii_case(name));
            let got: Vec<_> = got.map(|(_, value)| value.as_str()).collect();
            let key = format!("headers.{name}");
            found.compare(&key, Some(&expected.0.join(", ")), Some(&got.join(", ")));
        }
        for name in &self.removed {
            let mut removed = outcome.removed.iter();
            if !removed.any(|own| own.eq_ignore_ascii_case(name)) {
                found.push("removed", name, &outcome.removed.join(", "));
            }
        }
        if let Some(expected) = &self.reported {
            let got = outcome.reported.unwrap_or("none");
            found.compare("reported", Some(expected), Some(got));
        }
        if let Some(expected) = self.keeps_flow {
            let got = outcome.keeps_flow.to_string();
            found.compare("keeps-flow", Some(&expected.to_string()), Some(&got));
        }
        let log = outcome.log.join("\n");
        match self.log.as_deref() {
            Some([]) if !log.is_empty() => found.push("log", "", &log),
            expected => {
                let missing = expected.into_iter().flatten();
                let is_there = |text: &String| outcome.log.iter().any(|line| line.contains(text));
                for text in missing.filter(|text| !is_there(text)) {
                    found.push("log", text, &log);
                }
            }
        }
        let failure = outcome.failure.as_ref().map(|(kind, _)| kind.as_str());
        if let Some(kind) = &self.failure {
            found.compare("failure", Some(kind), failure);
        }
        if let (Some(most), Some(fuel)) = (self.most_fuel, outcome.fuel)
            && fuel > most
        {
            found.push("most-fuel", &most.to_string(), &fuel.to_string());
        }
        if let Some(refused) = &self.settings_refused {
            found.push("settings-refused", refused, "");
        }
        found.0
    }

    /// Compares the refusal of the settings; `None` if it was expected.
    pub(crate) fn compare_refusal(&self, said: &str) -> Option<Mismatch> {
        let expected = self.settings_refused.as_deref();
        if expected.is_some_and(|expected| said.contains(expected)) {
            return None;
        }
        Some(Mismatch {
            key: "settings-refused".to_owned(),
            expected: expected.unwrap_or_default().to_owned(),
            got: said.to_owned(),
        })
    }
}

#[derive(Default)]
struct Mismatches(Vec<Mismatch>);

impl Mismatches {
    fn compare(&mut self, key: &str, expected: Option<&str>, got: Option<&str>) {
        if expected != got {
            self.push(key, expected.unwrap_or_default(), got.unwrap_or_default());
        }
    }

    fn push(&mut self, key: &str, expected: &str, got: &str) {
        self.0.push(Mismatch {
            key: key.to_owned(),
            expected: expected.to_owned(),
            got: got.to_owned(),
        });
    }
}
