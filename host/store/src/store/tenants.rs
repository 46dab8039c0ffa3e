//! Tenants in the database, each as the text of its section in a configuration file.

use portcullis_database::{ReadError, Record};

use super::{Store, now, signed};
use crate::error::StoreError;

/// A stored tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTenant {
    /// Its name.
    pub name: String,
    /// The content of its section; `None` if it was removed.
    pub config: Option<String>,
    /// Grows with each change.
    pub revision: u64,
    /// The author of the last change.
    pub changed_by: String,
    /// The time of the last change, in seconds since 1970.
    pub changed_at: u64,
}

impl Store {
    /// All tenants, including removed ones, sorted by name.
    ///
    /// # Errors
    /// As [`Store::tenants_mark`].
    pub async fn tenants(&self) -> Result<Vec<StoredTenant>, StoreError> {
        let query = "SELECT `name`, `config`, `revision`, `changed_by`, `changed_at` FROM `portcullis_tenant` ORDER BY `name`";
        self.rows(query, &[], tenant).await
    }

    /// Stores the section of a tenant if the tenant still has this revision. Returns whether it had; otherwise nothing is stored, because
    /// somebody else was first.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn change_tenant(
        &self,
        name: &str,
        revision: u64,
        config: &str,
        by: &str,
    ) -> Result<bool, StoreError> {
        let update = "UPDATE `portcullis_tenant` SET `config` = ?, `revision` = `revision` + 1, `changed_by` = ?, `changed_at` = ? \
                      WHERE `name` = ? AND `revision` = ?";
        let values = [
            config.into(),
            by.into(),
            signed(now()).into(),
            name.into(),
            signed(revision).into(),
        ];
        let mut link = self.open().await?;
        let changed = link.execute(update, &values).await?;
        link.release().await;
        Ok(changed > 0)
    }

    /// Stores a tenant, or its removal.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn put_tenant(
        &self,
        name: &str,
        config: Option<&str>,
        by: &str,
    ) -> Result<(), StoreError> {
        let row = "`portcullis_tenant` (`name`, `config`, `revision`, `changed_by`, `changed_at`) VALUES (?, NULL, 0, ?, ?)";
        let update = "UPDATE `portcullis_tenant` SET `config` = ?, `revision` = `revision` + 1, `changed_by` = ?, `changed_at` = ? \
                      WHERE `name` = ?";
        let now = signed(now());
        let mut link = self.open().await?;
        let insert = link.dialect().insert_if_absent(row);
        link.execute(&insert, &[name.into(), by.into(), now.into()])
            .await?;
        let values = [config.into(), by.into(), now.into(), name.into()];
        link.execute(update, &values).await?;
        link.release().await;
        Ok(())
    }
}

fn tenant(row: &Record) -> Result<StoredTenant, ReadError> {
    let number = |at| Ok(row.integer(at)?.unwrap_or(0).unsigned_abs());
    Ok(StoredTenant {
        name: row.text(0)?.unwrap_or_default(),
        config: row.text(1)?,
        revision: number(2)?,
        changed_by: row.text(3)?.unwrap_or_default(),
        changed_at: number(4)?,
    })
}
