//! What the translation collects besides code: helpers, remarks, counts.

use std::collections::BTreeSet;

use crate::finding::{Finding, Place};

/// A part of the policy that is written only if something uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Helper {
    /// A condition or statement without counterpart.
    Untranslated,
    /// The matcher of regular expressions.
    Matcher,
    /// Subnets of IPv4.
    Subnet,
    /// The names and addresses of this host.
    Myself,
    /// The time zone of Kamailio's machine.
    Zone,
    /// The local time.
    Now,
}

/// Facts about the script, and what its translation collects.
#[derive(Debug)]
pub(super) struct Context {
    /// Whether the script changes the request URI or the destination, so that routes are methods.
    pub(super) is_stateful: bool,
    pub(super) helpers: BTreeSet<Helper>,
    pub(super) findings: Vec<Finding>,
    /// Statements and conditions that are in the policy.
    pub(super) translated: usize,
    /// Statements and operands that are comments in the policy.
    pub(super) left: usize,
}

impl Context {
    pub(super) fn new(is_stateful: bool) -> Self {
        Self {
            is_stateful,
            helpers: BTreeSet::new(),
            findings: Vec::new(),
            translated: 0,
            left: 0,
        }
    }

    /// Notes something that is not in the policy.
    pub(super) fn leave(&mut self, place: &Place, what: &str, mend: &str) {
        self.left += 1;
        self.remark(place, what, mend);
    }

    /// Notes something that the author should know.
    pub(super) fn remark(&mut self, place: &Place, what: &str, mend: &str) {
        self.findings.push(Finding::at(place, what, mend));
    }

    /// Marks a helper as used.
    pub(super) fn need(&mut self, helper: Helper) {
        self.helpers.insert(helper);
    }

    /// What precedes the name of a function that may be a method.
    pub(super) fn receiver(&self) -> &'static str {
        if self.is_stateful { "self." } else { "" }
    }
}
