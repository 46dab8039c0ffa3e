//! Sets of rules, and what they answer.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;
use tracing::warn;

use super::blocks::Lines;
use crate::pattern::{Effort, Spent};

/// The default pair of files in Kamailio (`default_allow_file`, `default_deny_file`).
pub const DEFAULT_RULES: &str = "permissions";

/// The ends of the files' names (Kamailio: `allow_suffix`, `deny_suffix`).
pub(super) const ALLOW: &str = ".allow";
pub(super) const DENY: &str = ".deny";

/// The longest text that Kamailio compares (`EXPRESSION_LENGTH`), in bytes. A longer one is denied.
const LONGEST_TEXT: usize = 256;

/// All sets of rules: immutable, and shared by all workers. The default one has none.
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
    /// The rules of a pair of files; `None` if neither file exists, which allows everything. That is logged once, because a misspelled
    /// name looks the same.
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

    /// Whether a pair of texts is allowed; without such rules it is. A right text that could not be read is none, and is denied.
    ///
    /// Kamailio: `allow_uri`, and `allow_routing` without branches. Its time is unbounded: not for the path of a message.
    pub fn allows(&self, basename: &str, left: &str, right: Option<&str>) -> bool {
        let allowed = self
            .set(basename)
            .map(|set| set.allows(left, right, &mut Effort::unbounded()));
        allowed.is_none_or(|allowed| allowed.unwrap_or_default())
    }

    /// The answer to Kamailio's `permissions.testUri`: unlike a policy, it denies texts without a file.
    pub fn test(&self, basename: &str, left: &str, right: &str) -> bool {
        self.sets.get(basename).is_some_and(|set| {
            let permitted = set.permits(left, right, &mut Effort::unbounded());
            set.is_empty() || permitted.unwrap_or_default()
        })
    }

    /// The names of all sets, in order, each with the number of its allow and deny rules.
    pub fn names(&self) -> Vec<(&str, usize, usize)> {
        let sets = self.sets.iter();
        let mut names: Vec<_> = sets
            .map(|(name, set)| (&**name, set.allow.len(), set.deny.len()))
            .collect();
        names.sort_unstable();
        names
    }

    /// The files that had rules and have none in these: `NAME.allow` or `NAME.deny`.
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

    /// Rules of all sets.
    pub fn len(&self) -> usize {
        self.sets.values().map(RuleSet::len).sum()
    }

    /// Whether there are no rules at all.
    pub fn is_empty(&self) -> bool {
        self.sets.values().all(RuleSet::is_empty)
    }
}

impl RuleSet {
    /// Whether a pair of texts is allowed: by an allow rule, or because no deny rule fits. Without any rule it is. Otherwise a
    /// text above 256 bytes is denied, as is an empty left text, which stands for an address that could not be read, and a right
    /// text that could not be read.
    ///
    /// # Errors
    /// When it takes too long.
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

    /// Number of rules.
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
    /// Whether this is the first question about the name.
    fn is_first(&self, name: &str) -> bool {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(name);
        let bit = 1 << (hash & 63);
        self.0.load(Ordering::Relaxed) & bit == 0
            && self.0.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }
}
