//! `[permissions]`: the allow and deny files, and the memory for patterns.

use std::path::PathBuf;

use portcullis_address::DEFAULT_PATTERN_MEMORY;

use super::section::Section;
use super::value::{GIB, KIB, bytes};

/// Allow and deny files, and the memory for patterns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PermissionsConfig {
    /// Directory of the allow and deny files; empty: no rules.
    pub folder: PathBuf,
    /// Most memory for the patterns of all trusted peers, and separately for those of all allow and deny files, in bytes.
    pub pattern_memory: usize,
}

impl Default for PermissionsConfig {
    fn default() -> Self {
        Self {
            folder: PathBuf::new(),
            pattern_memory: DEFAULT_PATTERN_MEMORY,
        }
    }
}

pub(super) fn read(mut section: Section<'_>) -> PermissionsConfig {
    let default = PermissionsConfig::default();
    let read = PermissionsConfig {
        folder: section.value("folder", default.folder, |v| Ok(PathBuf::from(v.text()?))),
        pattern_memory: section.value("pattern-memory", default.pattern_memory, |v| {
            bytes(v, 64 * KIB, 64 * GIB)
        }),
    };
    section.finish();
    read
}
