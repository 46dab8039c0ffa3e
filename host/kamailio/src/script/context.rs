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
    /// Whether the sender is behind NAT.
    Nat,
    /// The time zone of Kamailio's machine.
    Zone,
    /// The local time.
    Now,
    /// The code of the best response.
    ReplyCode,
    /// Whether the target of the best response was silent.
    BranchTimeout,
    /// Whether the target of the best response was not silent at first.
    BranchReplied,
    /// Whether any target was silent.
    AnyTimeout,
}

/// What a policy keeps between the statements of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// The request URI and the destination.
    Target,
    /// The targets of `append_branch`.
    Branches,
    /// The failure route, and what it begins with.
    FailureRoute,
    /// The times of `t_set_fr`.
    Times,
    /// The header fields that a failure route adds.
    Headers,
    /// The destination of a set of the dispatcher.
    Set,
}

/// Facts about the script, and what its translation collects.
#[derive(Debug)]
pub(super) struct Context {
    /// What the policy keeps between the statements of the script. Routes are methods if there is anything.
    pub(super) parts: BTreeSet<Part>,
    pub(super) helpers: BTreeSet<Helper>,
    pub(super) findings: Vec<Finding>,
    /// Statements and conditions that are in the policy.
    pub(super) translated: usize,
    /// Statements and operands that are comments in the policy.
    pub(super) left: usize,
}

impl Context {
    pub(super) fn new(parts: BTreeSet<Part>) -> Self {
        Self {
            parts,
            helpers: BTreeSet::new(),
            findings: Vec::new(),
            translated: 0,
            left: 0,
        }
    }

    /// Whether routes are methods.
    pub(super) fn is_stateful(&self) -> bool {
        !self.parts.is_empty()
    }

    /// Whether the policy keeps this.
    pub(super) fn has(&self, part: Part) -> bool {
        self.parts.contains(&part)
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
        if self.is_stateful() { "self." } else { "" }
    }
}
