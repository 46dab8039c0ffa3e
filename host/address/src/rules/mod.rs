//! Kamailio's allow and deny files: which left text goes with which right text (`allow_routing`, `allow_register`, `allow_uri`).
//!
//! A pair of files, `BASENAME.allow` and `BASENAME.deny`, is a set of rules. What URIs are, these rules do not know: they compare
//! texts.

mod folder;
mod line;

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;
use tracing::warn;

pub(crate) use folder::Stamp;
pub use folder::{LoadedRules, RuleError, RuleFolder, RulesError};

use crate::pattern::Pattern;

/// The pair that Kamailio takes where a function names none (`default_allow_file`, `default_deny_file`).
pub const DEFAULT_RULES: &str = "permissions";

/// The longest text that Kamailio compares (`EXPRESSION_LENGTH`), in bytes. A longer one is denied.
const LONGEST_TEXT: usize = 256;

/// All sets of rules: immutable, and shared by all workers. The default one has none.
#[derive(Debug, Default)]
pub struct Rules {
    sets: HashMap<Box<str>, RuleSet, FxBuildHasher>,
    told: Told,
}

/// The rules of one pair of files.
#[derive(Debug, Default)]
pub struct RuleSet {
    allow: Vec<Rule>,
    deny: Vec<Rule>,
}

/// One line: it fits when both of its sides do.
#[derive(Debug)]
struct Rule {
    left: Side,
    right: Side,
}

/// One side of a line.
#[derive(Debug)]
struct Side {
    /// One of them has to fit; none of them stand for `ALL`.
    patterns: Vec<Pattern>,
    /// None of them may fit.
    except: Vec<Pattern>,
}

/// Which of the sets that are not there have been told of: a bit for each, by a hash of its name.
#[derive(Debug, Default)]
struct Told(AtomicU64);

impl Rules {
    /// The rules of a pair of files; none if neither file is there, which allows everything. The log says so once, because a name
    /// that is spelled wrong looks the same.
    pub fn set(&self, basename: &str) -> Option<&RuleSet> {
        let set = self.sets.get(basename);
        if set.is_none() && self.told.is_first(basename) {
            let basename = basename.get(..64).unwrap_or(basename);
            warn!(
                basename,
                "A policy asks for rules that are not there: everything is allowed. Is there a file of this name?"
            );
        }
        set
    }

    /// Whether a pair of texts is allowed; without such rules it is. A right text that could not be read is none, and is denied.
    ///
    /// Kamailio: `allow_uri`, and `allow_routing` without branches.
    pub fn allows(&self, basename: &str, left: &str, right: Option<&str>) -> bool {
        self.set(basename).is_none_or(|set| set.allows(left, right))
    }

    /// The answer to Kamailio's `permissions.testUri`: unlike a policy, it denies what no file tells of.
    pub fn test(&self, basename: &str, left: &str, right: &str) -> bool {
        self.sets
            .get(basename)
            .is_some_and(|set| set.is_empty() || set.permits(left, right))
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

    /// Rules of all sets.
    pub fn len(&self) -> usize {
        self.sets.values().map(RuleSet::len).sum()
    }

    /// Whether there are no rules at all.
    pub fn is_empty(&self) -> bool {
        self.sets.values().all(RuleSet::is_empty)
    }

    /// Rules from the texts of files: the name of each set, its allow file and its deny file. Lines that can't be used are errors,
    /// and left out. For tests, and where no folder is at hand.
    pub fn of<'t>(files: impl IntoIterator<Item = (&'t str, &'t str, &'t str)>) -> LoadedRules {
        let mut loaded = LoadedRules::default();
        for (name, allow, deny) in files {
            loaded.add(
                name,
                folder::ALLOW,
                &format!("{name}{}", folder::ALLOW),
                allow.as_bytes(),
            );
            loaded.add(
                name,
                folder::DENY,
                &format!("{name}{}", folder::DENY),
                deny.as_bytes(),
            );
        }
        loaded
    }
}

impl RuleSet {
    /// Whether a pair of texts is allowed: by an allow rule, or because no deny rule fits. Without any rule it is. Otherwise a
    /// text above 256 bytes is denied, as is a right text that could not be read.
    pub fn allows(&self, left: &str, right: Option<&str>) -> bool {
        if self.is_empty() {
            return true;
        }
        match right {
            Some(right) if left.len() <= LONGEST_TEXT && right.len() <= LONGEST_TEXT => {
                self.permits(left, right)
            }
            _ => false,
        }
    }

    /// Number of rules.
    pub fn len(&self) -> usize {
        self.allow.len() + self.deny.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty()
    }

    fn permits(&self, left: &str, right: &str) -> bool {
        let fits = |rules: &[Rule]| rules.iter().any(|rule| rule.fits(left, right));
        fits(&self.allow) || !fits(&self.deny)
    }
}

impl Rule {
    fn fits(&self, left: &str, right: &str) -> bool {
        self.left.fits(left) && self.right.fits(right)
    }
}

impl Side {
    fn fits(&self, text: &str) -> bool {
        let found = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.is_match(text));
        (self.patterns.is_empty() || found(&self.patterns)) && !found(&self.except)
    }
}

impl Told {
    /// Whether nobody asked before.
    fn is_first(&self, name: &str) -> bool {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(name);
        let bit = 1 << (hash & 63);
        self.0.load(Ordering::Relaxed) & bit == 0
            && self.0.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }
}

#[cfg(test)]
mod tests;
