//! Sets of rules, and their results.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;
use tracing::warn;

use super::blocks::Lines;
use crate::pattern::{Effort, Spent};

/// The default pair of files in Kamailio (`default_allow_file`, `default_deny_file`).
pub const DEFAULT_RULES: &str = "permissions";

/// Suffixes of the file names (Kamailio: `allow_suffix`, `deny_suffix`).
pub(super) const ALLOW: &str = ".allow";
pub(super) const DENY: &str = ".deny";

/// Longest text that Kamailio compares (`EXPRESSION_LENGTH`), in bytes. A longer text is denied.
const LONGEST_TEXT: usize = 256;

/// All sets of rules: immutable, and shared by all workers. The default has no sets.
#[derive(Debug, Default)]
pub struct Rules {
    pub(super) sets: HashMap<Box<str>, RuleSet, FxBuildHasher>,
    told: Told,
}

/// The rules of one pair of files.
#[derive(Debug, Default)]
pub struct RuleSet {
    pub(super) allow: Lines,
    pub(super) deny: Lines,
}

/// Which missing sets have been logged: one bit each, by a hash of the name.
#[derive(Debug, Default)]
struct Told(AtomicU64);

impl Rules {
    /// Returns the rules of a pair of files; `None` if neither file exists, which allows everything. That is logged once, because a
    /// misspelled name has the same effect.
    pub fn set(&self, basename: &str) -> Option<&RuleSet> {
        let set = self.sets.get(basename);
        if set.is_none() && self.told.is_first(basename) {
            let basename = basename.get(..64).unwrap_or(basename);
            warn!(
                event = "rules_missing",
                basename, "a policy asks for rules without a file: everything is allowed"
            );
        }
        set
    }

    /// Whether a pair of texts is allowed; without such a pair of files it is. `None` as the right text means an invalid one, which is
    /// denied.
    ///
    /// Kamailio: `allow_uri`, and `allow_routing` without branches. The time is not limited: not for the path of a message.
    pub fn allows(&self, basename: &str, left: &str, right: Option<&str>) -> bool {
        let allowed = self
            .set(basename)
            .map(|set| set.allows(left, right, &mut Effort::unbounded()));
        allowed.is_none_or(|allowed| allowed.unwrap_or_default())
    }

    /// Returns the result of Kamailio's `permissions.testUri`: unlike the function for policies, it denies if the files do not exist.
    pub fn test(&self, basename: &str, left: &str, right: &str) -> bool {
        self.sets.get(basename).is_some_and(|set| {
            let permitted = set.permits(left, right, &mut Effort::unbounded());
            set.is_empty() || permitted.unwrap_or_default()
        })
    }

    /// Returns the names of all sets, in order, each with its number of allow and deny rules.
    pub fn names(&self) -> Vec<(&str, usize, usize)> {
        let sets = self.sets.iter();
        let mut names: Vec<_> = sets
            .map(|(name, set)| (&**name, set.allow.len(), set.deny.len()))
            .collect();
        names.sort_unstable();
        names
    }

    /// Returns the files that have rules in `self` and none in `now`: `NAME.allow` or `NAME.deny`.
    pub(crate) fn lost_in(&self, now: &Self) -> Vec<String> {
        let has = |rules: &Self, name: &str, ending: &str| {
            let set = rules.sets.get(name);
            set.is_some_and(|set| match ending {
                ALLOW => set.allow.len() > 0,
                _ => set.deny.len() > 0,
            })
        };
        let mut lost = Vec::new();
        for name in self.sets.keys() {
            for ending in [ALLOW, DENY] {
                if has(self, name, ending) && !has(now, name, ending) {
                    lost.push(format!("{name}{ending}"));
                }
            }
        }
        lost.sort_unstable();
        lost
    }

    /// Returns the number of rules in all sets.
    pub fn len(&self) -> usize {
        self.sets.values().map(RuleSet::len).sum()
    }

    /// Whether there are no rules at all.
    pub fn is_empty(&self) -> bool {
        self.sets.values().all(RuleSet::is_empty)
    }
}

impl RuleSet {
    /// Whether a pair of texts is allowed: by an allow rule, or because no deny rule matches. Without any rules it is. Otherwise, these are
    /// denied: a text above 256 bytes, an empty left text, which stands for an invalid address, and an invalid right text.
    ///
    /// # Errors
    /// If it takes too long.
    pub fn allows(
        &self,
        left: &str,
        right: Option<&str>,
        effort: &mut Effort<'_>,
    ) -> Result<bool, Spent> {
        if self.is_empty() {
            return Ok(true);
        }
        match right {
            Some(right)
                if !left.is_empty()
                    && left.len() <= LONGEST_TEXT
                    && right.len() <= LONGEST_TEXT =>
            {
                self.permits(left, right, effort)
            }
            _ => Ok(false),
        }
    }

    /// Returns the number of rules.
    pub fn len(&self) -> usize {
        self.allow.len() + self.deny.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn permits(&self, left: &str, right: &str, effort: &mut Effort<'_>) -> Result<bool, Spent> {
        Ok(self.allow.fit(left, right, effort)? || !self.deny.fit(left, right, effort)?)
    }
}

impl Told {
    /// Whether this is the first query of the name.
    fn is_first(&self, name: &str) -> bool {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(name);
        let bit = 1 << (hash & 63);
        self.0.load(Ordering::Relaxed) & bit == 0
            && self.0.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }
}
