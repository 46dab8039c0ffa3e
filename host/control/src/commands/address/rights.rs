//! Which groups of the table of addresses a caller may see and change.

use portcullis_address::Database;
use portcullis_config::TenantConfig;
use portcullis_rpc::Fault;

use crate::Control;
use crate::caller::{Authority, Caller};

/// The groups that a caller may see and change.
#[derive(Debug)]
pub(super) enum Rights {
    /// All of them.
    Operator,
    /// Those of this tenant.
    Tenant(Box<TenantConfig>),
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
            Some(config) => Ok(Self::Tenant(Box::new(config))),
            None => Err(Fault::new(403, "the tenant of this token does not exist")),
        }
    }

    /// Whether the caller may see rows of this group.
    pub(super) fn sees(&self, group: i64) -> bool {
        match self {
            Self::Operator => true,
            Self::Tenant(config) => holds(&config.groups, group) || self.may_edit(group),
        }
    }

    /// Whether the caller may see rows of the group in this column.
    pub(super) fn sees_text(&self, group: Option<&str>) -> bool {
        let number = group.and_then(|group| group.trim().parse().ok());
        matches!(self, Self::Operator) || number.is_some_and(|group| self.sees(group))
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
            Self::Tenant(config) => !config.edit_groups.is_empty(),
        }
    }

    pub(super) fn may_edit(&self, group: i64) -> bool {
        match self {
            Self::Operator => true,
            Self::Tenant(config) => holds(&config.edit_groups, group),
        }
    }

    /// Checks that so many rows may be added to the groups that the caller may change.
    ///
    /// # Errors
    /// 422 if they would be too many, 503 if the table cannot be read.
    pub(super) async fn check_rows(&self, database: &Database, more: u64) -> Result<(), Fault> {
        let Self::Tenant(config) = self else {
            return Ok(());
        };
        let most = config.edit_rows;
        let mut rows = 0_u64;
        let counted = database.each_row(|row| {
            let group = row.group.and_then(|group| group.trim().parse().ok());
            rows += u64::from(group.is_some_and(|group| holds(&config.edit_groups, group)));
        });
        counted.await.map_err(|error| super::fault(&error))?;
        if rows.saturating_add(more) <= most {
            return Ok(());
        }
        let text = format!(
            "the groups of the tenant have {rows} rows, and {more} more would exceed `edit-rows` ({most}): remove some"
        );
        Err(Fault::new(422, text))
    }
}

fn holds(groups: &[u32], group: i64) -> bool {
    groups.iter().any(|one| i64::from(*one) == group)
}
