//! Tenants in the database, each as the text of its section in a configuration file.

use std::sync::atomic::{AtomicU64, Ordering};

use portcullis_database::{Failure, Link, ReadError, Record, Try};

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
        let done = self.connections.retried(async |one: Try| {
            let mut link = self.connections.take(self.patience(0)).await?;
            let changed = link.execute(update, &values).await?;
            let stored = (Some(config), revision + 1, by);
            let is_done =
                changed > 0 || one.may_be_done && is_stored(&mut link, name, stored).await?;
            link.release().await;
            Ok::<_, Failure>(is_done)
        });
        Ok(done.await?)
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
        self.put_tenants(&[(name, config)], by).await
    }

    /// Stores tenants, or their removals: all of them or none.
    ///
    /// # Errors
    /// When they cannot be written; then none is.
    pub async fn put_tenants(
        &self,
        changes: &[(&str, Option<&str>)],
        by: &str,
    ) -> Result<(), StoreError> {
        let now = signed(now());
        let size = changes.iter().map(|(_, config)| config.map_or(0, str::len));
        let size: usize = size.sum();
        // The revisions that the last try would make.
        let next: Vec<_> = changes.iter().map(|_| AtomicU64::new(0)).collect();
        let done = self.connections.retried(async |one: Try| {
            let mut link = self.connections.take(self.patience(0)).await?;
            if one.may_be_done && are_stored(&mut link, changes, &next, by).await? {
                link.release().await;
                return Ok(());
            }
            link.set_limit_of_all(self.patience(size));
            write(&mut link, changes, &next, (by, now)).await?;
            link.release().await;
            Ok::<_, Failure>(())
        });
        Ok(done.await?)
    }
}

/// The statements of a change, in one transaction. Notes the revisions that it makes.
async fn write(
    link: &mut Link,
    changes: &[(&str, Option<&str>)],
    next: &[AtomicU64],
    (by, now): (&str, i64),
) -> Result<(), Failure> {
    let row = "`portcullis_tenant` (`name`, `config`, `revision`, `changed_by`, `changed_at`) VALUES (?, NULL, 0, ?, ?)";
    let update = "UPDATE `portcullis_tenant` SET `config` = ?, `revision` = `revision` + 1, `changed_by` = ?, `changed_at` = ? \
                  WHERE `name` = ?";
    let query = "SELECT `revision` FROM `portcullis_tenant` WHERE `name` = ?";
    link.begin_write(None).await?;
    for ((name, config), next) in changes.iter().zip(next) {
        let (name, config) = (*name, *config);
        let insert = link.dialect().insert_if_absent(row);
        link.execute(&insert, &[name.into(), by.into(), now.into()])
            .await?;
        let values = [config.into(), by.into(), now.into(), name.into()];
        link.execute(update, &values).await?;
        let revision = link
            .row(query, &[name.into()], |row| row.integer(0))
            .await?;
        let revision = revision.flatten().unwrap_or(0);
        next.store(revision.unsigned_abs(), Ordering::Relaxed);
    }
    link.commit().await
}

/// Whether an earlier try has stored a change.
async fn are_stored(
    link: &mut Link,
    changes: &[(&str, Option<&str>)],
    next: &[AtomicU64],
    by: &str,
) -> Result<bool, Failure> {
    for ((name, config), next) in changes.iter().zip(next) {
        let stored = (*config, next.load(Ordering::Relaxed), by);
        if !is_stored(link, name, stored).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a tenant has this section with this revision of this author: an earlier try has stored it.
async fn is_stored(
    link: &mut Link,
    name: &str,
    (config, revision, by): (Option<&str>, u64, &str),
) -> Result<bool, Failure> {
    let query = "SELECT `name`, `config`, `revision`, `changed_by`, `changed_at` FROM `portcullis_tenant` WHERE `name` = ?";
    let found = link.row(query, &[name.into()], tenant).await?;
    Ok(found.is_some_and(|found| {
        (
            found.config.as_deref(),
            found.revision,
            found.changed_by.as_str(),
        ) == (config, revision, by)
    }))
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
