//! Which groups of the table of addresses a caller may see and change.

use std::sync::Arc;

use portcullis_address::{NewRow, Prefix, RowBound};
use portcullis_config::TenantConfig;
use portcullis_rpc::Fault;

use crate::Control;
use crate::caller::{Authority, Caller};

/// The groups that a caller may see and change.
#[derive(Debug)]
pub(crate) enum Rights {
    /// All of them.
    Operator,
    /// Those of this tenant.
    Tenant(Arc<TenantConfig>),
}

impl Rights {
    /// # Errors
    /// 403 if the tenant has been removed in the meantime.
    pub(super) fn of(control: &Control, caller: &Caller) -> Result<Self, Fault> {
        let Authority::Tenant(name) = caller.authority() else {
            return Ok(Self::Operator);
        };
        let tenants = control.shared.tenants.load();
        let tenant = tenants.named.iter().find(|tenant| *tenant.name == **name);
        let config = tenant.and_then(|tenant| tenant.config.clone());
        match config {
            Some(config) => Ok(Self::Tenant(config)),
            None => Err(Fault::new(403, "the tenant of this token does not exist")),
        }
    }

    /// Whether the caller is the operator.
    pub(super) fn is_operator(&self) -> bool {
        match self {
            Self::Operator => true,
            Self::Tenant(_) => false,
        }
    }

    /// Whether the caller may see rows of this group.
    pub(super) fn sees(&self, group: i64) -> bool {
        match self {
            Self::Operator => true,
            Self::Tenant(config) => holds(&config.groups, group) || self.may_edit(group),
        }
    }

    /// The groups of which the caller sees rows; `None` for all.
    pub(super) fn seen(&self) -> Option<Vec<i64>> {
        let Self::Tenant(config) = self else {
            return None;
        };
        let groups = config.groups.iter().chain(&config.edit.groups);
        let mut groups: Vec<_> = groups.copied().map(i64::from).collect();
        groups.sort_unstable();
        groups.dedup();
        Some(groups)
    }

    /// Checks that the caller may add this row.
    ///
    /// # Errors
    /// 403 if it may not change rows of the group, 422 if the row is about too many addresses.
    pub(super) fn check_add(&self, row: &NewRow) -> Result<(), Fault> {
        self.check_edit(row.group)?;
        let Self::Tenant(config) = self else {
            return Ok(());
        };
        let (bits, least, key) = match row.prefix() {
            None => return Ok(()),
            Some(Prefix::V4(bits)) => (bits, config.edit.prefix_v4, "edit-prefix-v4"),
            Some(Prefix::V6(bits)) => (bits, config.edit.prefix_v6, "edit-prefix-v6"),
        };
        if bits >= least {
            return Ok(());
        }
        let text = format!(
            "a tenant may not add {} with a mask of {bits} bits: it needs at least {least} (`{key}` in the tenant's section)",
            row.ip_addr
        );
        Err(Fault::new(422, text))
    }

    /// Checks that the caller may change rows of this group.
    ///
    /// # Errors
    /// 403 if it may not.
    pub(super) fn check_edit(&self, group: i64) -> Result<(), Fault> {
        if self.may_edit(group) {
            return Ok(());
        }
        let text = format!(
            "a tenant may not change rows of group {group}: the operator allows groups by `edit-groups` in the tenant's section"
        );
        Err(Fault::new(403, text))
    }

    /// Whether the caller may change rows of any group.
    pub(super) fn may_edit_any(&self) -> bool {
        match self {
            Self::Operator => true,
            Self::Tenant(config) => !config.edit.groups.is_empty(),
        }
    }

    pub(super) fn may_edit(&self, group: i64) -> bool {
        match self {
            Self::Operator => true,
            Self::Tenant(config) => holds(&config.edit.groups, group),
        }
    }

    /// How many rows the groups may have that the caller may change; `None` for any number.
    pub(super) fn bound(&self) -> Option<RowBound> {
        let Self::Tenant(config) = self else {
            return None;
        };
        Some(RowBound {
            groups: config.edit.groups.iter().copied().map(i64::from).collect(),
            most: config.edit.rows,
        })
    }
}

fn holds(groups: &[u32], group: i64) -> bool {
    groups.iter().any(|one| i64::from(*one) == group)
}
