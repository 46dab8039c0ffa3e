//! Kamailio's allow and deny files: which pairs of texts are allowed (`allow_routing`, `allow_register`, `allow_uri`).
//!
//! A pair of files, `BASENAME.allow` and `BASENAME.deny`, is a set of rules. These rules compare texts; they do not parse
//! URIs.

mod blocks;
mod folder;
mod line;
mod set;

pub(crate) use folder::Stamp;
pub use folder::{LoadedRules, RuleError, RuleFolder, RulesError};
pub use set::{DEFAULT_RULES, RuleSet, Rules};

#[cfg(test)]
mod tests;
