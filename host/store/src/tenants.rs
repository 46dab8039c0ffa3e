//! Tenants that live in the database, each as the section of a configuration file that it would be.

use sqlx::Row as _;

use crate::link::on;
use crate::store::{Store, StoreError, ignoring, now, signed};

/// A tenant as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTenant {
    /// Its name.
    pub name: String,
    /// What would stand in its section; none if it was removed.
    pub config: Option<String>,
    /// Grows with each change.
    pub revision: u64,
    /// Who changed it last.
    pub changed_by: String,
    /// When, in seconds since 1970.
    pub changed_at: u64,
}

macro_rules! tenant {
    ($row:expr) => {{
        let row = $row;
        Ok::<_, sqlx::Error>(StoredTenant {
            name: row.try_get(0)?,
            config: row.try_get(1)?,
            revision: row.try_get::<i64, _>(2)?.unsigned_abs(),
            changed_by: row.try_get(3)?,
            changed_at: row.try_get::<i64, _>(4)?.unsigned_abs(),
        })
    }};
}

impl Store {
    /// A number that grows with every change of a tenant.
    ///
    /// # Errors
    /// When the database can't be reached or has no such table.
    pub async fn tenants_revision(&self) -> Result<u64, StoreError> {
        let mut link = self.open().await?;
        let sum = "SELECT CAST(COALESCE(SUM(`revision`), 0) AS CHAR) FROM `portcullis_tenant`";
        let sum: String = on!(&mut link, link => {
            sqlx::query_scalar(sum).fetch_one(&mut **link).await.map_err(|error| self.failed(&error))?
        });
        link.close().await;
        Ok(sum.parse().unwrap_or(0))
    }

    /// All tenants, also those that were removed, in the order of their names.
    ///
    /// # Errors
    /// As [`Store::tenants_revision`].
    pub async fn tenants(&self) -> Result<Vec<StoredTenant>, StoreError> {
        let mut link = self.open().await?;
        let query = "SELECT `name`, `config`, `revision`, `changed_by`, `changed_at` FROM `portcullis_tenant` ORDER BY `name`";
        let tenants = on!(&mut link, link => {
            let rows = sqlx::query(query).fetch_all(&mut **link).await;
            let rows = rows.map_err(|error| self.failed(&error))?;
            rows.iter().map(|row| tenant!(row)).collect::<Result<Vec<_>, _>>()
        });
        link.close().await;
        tenants.map_err(|error| self.failed(&error))
    }

    /// Stores a tenant, or that there is none of this name any more.
    ///
    /// # Errors
    /// When it can't be written.
    pub async fn put_tenant(
        &self,
        name: &str,
        config: Option<&str>,
        by: &str,
    ) -> Result<(), StoreError> {
        let insert = format!(
            "INSERT {} INTO `portcullis_tenant` (`name`, `config`, `revision`, `changed_by`, `changed_at`) VALUES (?, NULL, 0, ?, ?)",
            ignoring(self.url())
        );
        let update = "UPDATE `portcullis_tenant` SET `config` = ?, `revision` = `revision` + 1, `changed_by` = ?, `changed_at` = ? \
                      WHERE `name` = ?";
        let mut link = self.open().await?;
        let now = signed(now());
        let done = on!(&mut link, link => {
            let insert = sqlx::query(sqlx::AssertSqlSafe(insert)).bind(name).bind(by).bind(now);
            match insert.execute(&mut **link).await {
                Ok(_) => {
                    let update = sqlx::query(update).bind(config).bind(by).bind(now).bind(name);
                    update.execute(&mut **link).await.map(drop)
                }
                Err(error) => Err(error),
            }
        });
        link.close().await;
        done.map_err(|error| self.failed(&error))
    }
}
