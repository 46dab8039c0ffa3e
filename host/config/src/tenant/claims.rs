//! What belongs to one tenant only.

use std::collections::HashMap;

use crate::problem::Bad;

/// How to mend a group that selects a tenant and that a tenant may change.
const GROUPS: &str = "use groups of their own for the rows that tenants change";

/// Selectors and tokens of all tenants, with the tenant of each: no two tenants can have the same. Beside them, the groups whose rows
/// tenants may change: such a group selects no tenant, because whoever changes it could claim the requests of others.
#[derive(Default)]
pub(super) struct Claims {
    owners: HashMap<(&'static str, String), String>,
    /// One tenant that may change the rows of the group.
    editors: HashMap<u32, String>,
}

impl Claims {
    /// # Errors
    /// If another tenant has the same.
    pub(super) fn add(
        &mut self,
        kind: &'static str,
        value: String,
        tenant: &str,
    ) -> Result<(), Bad> {
        match self.owners.insert((kind, value.clone()), tenant.to_owned()) {
            Some(other) if other != tenant => {
                let what = format!("the tenant {other} has the same");
                self.owners.insert((kind, value), other);
                Err(Bad::new(
                    what,
                    "a selector can belong to one tenant only: remove it from one of them",
                ))
            }
            _ => Ok(()),
        }
    }

    /// Adds a group that selects requests.
    ///
    /// # Errors
    /// If another tenant has the same, or any tenant may change its rows.
    pub(super) fn add_source_group(&mut self, group: u32, tenant: &str) -> Result<(), Bad> {
        if let Some(editor) = self.editors.get(&group) {
            let what = format!(
                "the tenant {editor} may change the rows of this group (`edit-groups`) and could claim requests of {tenant}"
            );
            return Err(Bad::new(what, GROUPS));
        }
        self.add("source-groups", group.to_string(), tenant)
    }

    /// Adds a group whose rows a tenant may change. Several tenants may have the same.
    ///
    /// # Errors
    /// If it selects the requests of any tenant.
    pub(super) fn add_edit_group(&mut self, group: u32, tenant: &str) -> Result<(), Bad> {
        if let Some(owner) = self.owners.get(&("source-groups", group.to_string())) {
            let what = format!(
                "the rows of this group select the requests of the tenant {owner} (`source-groups`), so whoever changes them could claim requests of others"
            );
            return Err(Bad::new(what, GROUPS));
        }
        self.editors
            .entry(group)
            .or_insert_with(|| tenant.to_owned());
        Ok(())
    }

    /// Adds what a tenant has that was read before.
    pub(super) fn replace(&mut self, kind: &'static str, value: String, tenant: &str) {
        self.owners.insert((kind, value), tenant.to_owned());
    }

    /// The same for its groups.
    pub(super) fn replace_groups(&mut self, sources: &[u32], edited: &[u32], tenant: &str) {
        for group in sources {
            self.replace("source-groups", group.to_string(), tenant);
        }
        for group in edited {
            self.editors
                .entry(*group)
                .or_insert_with(|| tenant.to_owned());
        }
    }
}
