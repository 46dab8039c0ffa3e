//! `edit-…` of `[tenants.NAME]`: what a tenant may change: rows of the address table, and its settings.

use super::claims::Claims;
use crate::section::Section;
use crate::value::{count, group};

/// What a tenant may change with its token: rows of the address table, and its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EditConfig {
    /// Their groups.
    pub groups: Vec<u32>,
    /// Most rows that these groups may have for the tenant to add one.
    pub rows: u64,
    /// Fewest bits of a row about IPv4 addresses.
    pub prefix_v4: u8,
    /// Fewest bits of a row about IPv6 addresses.
    pub prefix_v6: u8,
    /// Whether it may change the settings of its policy, if the tenant is in the database.
    pub settings: bool,
}

/// Reads the keys. A group that selects the requests of a tenant is refused.
pub(super) fn read(section: &mut Section<'_>, tenant: &str, claims: &mut Claims) -> EditConfig {
    let default = EditConfig::default();
    EditConfig {
        groups: section.list("edit-groups", default.groups, |value| {
            let group = group(value)?;
            claims.add_edit_group(group, tenant)?;
            Ok(group)
        }),
        rows: section.value("edit-rows", default.rows, |v| v.number(0, 1_000_000)),
        prefix_v4: section.value("edit-prefix-v4", default.prefix_v4, |v| count(v, 1, 32)),
        prefix_v6: section.value("edit-prefix-v6", default.prefix_v6, |v| count(v, 1, 128)),
        settings: section.value("edit-settings", default.settings, |v| v.boolean()),
    }
}

impl Default for EditConfig {
    fn default() -> Self {
        Self {
            groups: Vec::new(),
            rows: 1_000,
            prefix_v4: 24,
            prefix_v6: 48,
            settings: false,
        }
    }
}
