//! What the cases of a file have reached of a policy.

use std::collections::{BTreeMap, BTreeSet};

use portcullis_policy::Policy;
use serde::Serialize;

use crate::outcome::{Outcome, VerdictName};

/// Functions of these interfaces are recorded by a tape.
const RECORDED: [&str; 10] = [
    "counters",
    "dispatcher",
    "flows",
    "forwarding",
    "guard",
    "outcome",
    "peer",
    "permissions",
    "rules",
    "trusted",
];

/// Functions of these interfaces that are answered without being recorded.
const NOT_RECORDED: [&str; 2] = ["permissions.last-tag", "trusted.tags"];

/// Verdicts and host functions of a policy, and whether a case reaches them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Coverage {
    /// Number of calls with each verdict and status.
    pub verdicts: BTreeMap<String, usize>,
    /// Verdicts that no case has.
    pub never: Vec<&'static str>,
    /// Host functions that the file imports and no case calls. Unknown for components, which import whole interfaces.
    pub never_asked: Vec<String>,
}

/// Collects the coverage.
#[derive(Default)]
pub(crate) struct Collector {
    verdicts: BTreeMap<String, usize>,
    seen: BTreeSet<VerdictName>,
    asked: BTreeSet<String>,
}

impl Collector {
    pub(crate) fn verdict(&mut self, outcome: &Outcome) {
        *self.verdicts.entry(outcome.label()).or_default() += 1;
        self.seen.insert(outcome.verdict);
    }

    pub(crate) fn asked(&mut self, function: &str) {
        if !self.asked.contains(function) {
            self.asked.insert(function.to_owned());
        }
    }

    pub(crate) fn finish(self, policy: &Policy) -> Coverage {
        let after: &[_] = match policy.asks_on_failure() {
            true => &VerdictName::OF_FAILURE,
            false => &[],
        };
        let all = VerdictName::OF_DECIDE.iter().chain(after);
        let never = all.filter(|name| !self.seen.contains(name));
        let imports = policy.inspection().imports.iter().filter_map(|import| {
            let interface = import.interface.rsplit('/').next()?;
            let interface = interface.split('@').next()?;
            let item = import.item.as_ref()?;
            RECORDED
                .contains(&interface)
                .then(|| format!("{interface}.{item}"))
        });
        let is_new = |name: &String| !self.asked.contains(name);
        let never_asked: BTreeSet<_> = imports
            .filter(|name| !NOT_RECORDED.contains(&name.as_str()))
            .filter(is_new)
            .collect();
        Coverage {
            never: never.map(|name| name.as_str()).collect(),
            never_asked: never_asked.into_iter().collect(),
            verdicts: self.verdicts,
        }
    }
}
