//! What the translation collects besides code: helpers, remarks, counts.

use std::collections::{BTreeMap, BTreeSet};

use super::syntax::Call;
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
    /// Whether Route has a value of somebody else.
    OtherRoutes,
    /// Where the flags of branches begin.
    BranchFlags,
    /// Whether the request comes from where it began.
    FirstHop,
    /// Whether an address is one of this host. `Myself` has the addresses.
    MyAddress,
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
    /// The flags that the script reads.
    Flags,
    /// The variables of the script.
    Variables,
}

/// A variable of the script, such as `$var(i)`, as a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Variable {
    pub(super) field: String,
    /// Whether it is a number; otherwise a text.
    pub(super) is_number: bool,
    /// Whether failure routes get it.
    pub(super) is_in_memo: bool,
    /// Whether the script may set it to an empty text, which is not `$null`.
    pub(super) may_be_empty: bool,
}

/// Facts about the script, and what its translation collects.
#[derive(Clone, Debug)]
pub(super) struct Context {
    /// What the policy keeps between the statements of the script. Routes are methods if there is anything.
    pub(super) parts: BTreeSet<Part>,
    /// The flags that the script reads, as Rust expressions. Nothing depends on the others.
    flags: BTreeSet<String>,
    /// The variables of the script that the policy keeps, by name.
    pub(super) variables: BTreeMap<String, Variable>,
    /// The tables of `htable` that nothing fills.
    pub(super) empty_tables: BTreeSet<String>,
    /// The custom parameters of the configuration, by `GROUP.NAME`.
    pub(super) parameters: BTreeMap<String, String>,
    pub(super) helpers: BTreeSet<Helper>,
    pub(super) findings: Vec<Finding>,
    /// Statements and conditions that are in the policy.
    pub(super) translated: usize,
    /// Statements and operands that are comments in the policy, or end the script.
    pub(super) left: usize,
    /// Those that end the script.
    pub(super) closed: usize,
}

impl Context {
    pub(super) fn new(parts: BTreeSet<Part>, flags: BTreeSet<String>) -> Self {
        Self {
            parts,
            flags,
            variables: BTreeMap::new(),
            empty_tables: BTreeSet::new(),
            parameters: BTreeMap::new(),
            helpers: BTreeSet::new(),
            findings: Vec::new(),
            translated: 0,
            left: 0,
            closed: 0,
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

    /// The flag that this call reads or changes, as a Rust expression, if the policy keeps it.
    pub(super) fn flag(&self, call: &Call) -> Option<String> {
        flag_of(call).filter(|flag| self.flags.contains(flag))
    }

    /// Notes something that is not in the policy.
    pub(super) fn leave(&mut self, place: &Place, what: &str, mend: &str) {
        self.left += 1;
        self.remark(place, what, mend);
    }

    /// Notes something that ends the script where it decides.
    pub(super) fn close(&mut self, place: &Place, what: &str, mend: &str) {
        self.closed += 1;
        self.need(Helper::Untranslated);
        self.leave(place, what, mend);
    }

    /// Notes something that the author should know.
    pub(super) fn remark(&mut self, place: &Place, what: &str, mend: &str) {
        self.findings.push(Finding::at(place, what, mend));
    }

    /// How far the collection is.
    pub(super) fn mark(&self) -> Mark {
        Mark {
            helpers: self.helpers.clone(),
            findings: self.findings.len(),
            counts: (self.translated, self.left, self.closed),
        }
    }

    /// Takes back what has been collected since a mark, after a trial.
    pub(super) fn rewind(&mut self, mark: Mark) {
        self.helpers = mark.helpers;
        self.findings.truncate(mark.findings);
        (self.translated, self.left, self.closed) = mark.counts;
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

/// A point of the collection.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    helpers: BTreeSet<Helper>,
    findings: usize,
    /// Translated, left and closed.
    counts: (usize, usize, usize),
}

/// The flag of a request or of its branch that this call reads or changes, as a Rust expression; `None` if it is another function, or its flag is
/// not a number.
pub(super) fn flag_of(call: &Call) -> Option<String> {
    let [flag] = &call.arguments[..] else {
        return None;
    };
    let flag: u32 = flag.literal()?.parse().ok().filter(|flag| *flag < 32)?;
    match &*call.name {
        "isflagset" | "setflag" | "resetflag" => Some(flag.to_string()),
        "isbflagset" | "setbflag" | "resetbflag" => Some(format!("BRANCH + {flag}")),
        _ => None,
    }
}
