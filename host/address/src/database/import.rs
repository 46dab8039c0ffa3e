//! Putting many rows into the table at once.

use std::time::Duration;

use sqlx::mysql::MySqlConnection;
use sqlx::{Executor, Row as _};

use super::{Absent, Database, DatabaseError, Link, NewRow};

/// Rows in one statement: enough to make the statement's own cost small, and far from the limits of parameters (SQLite: 32,766) and
/// bytes (MySQL: 16 MiB and more).
const ROWS_AT_ONCE: usize = 1000;

/// How long it may take to remove a million rows, or to write them down for good.
const PATIENCE: Duration = Duration::from_secs(600);

/// What does not fit a column is an error, and not cut to what fits.
const STRICT: &str = "SET SESSION sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES')";

/// What an import did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Imported {
    /// Rows that are new.
    pub added: u64,
    /// Rows that were there before and are not any more.
    pub removed: u64,
}

/// How a table takes many rows as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whole {
    /// In a transaction.
    Transaction,
    /// Its engine has no transactions (MyISAM, Aria). Nobody reads it until it is done, but it can't be undone.
    Lock,
}

impl Database {
    /// Adds all rows or none, in their order, behind those that are there or in their place (`replace`). Readers see the table as it
    /// was or as it is then. To be called with rows that [`NewRow::check`] takes.
    ///
    /// # Errors
    /// When the rows are in a file, or the database fails. Nothing has changed then, unless the engine of the table has no
    /// transactions (MyISAM, Aria): the error says so.
    pub async fn import(&self, rows: &[NewRow], replace: bool) -> Result<Imported, DatabaseError> {
        self.must_be_a_table()?;
        let mut link = self.open(Absent::Make).await?;
        self.check_address_version(&mut link).await?;
        self.be_strict(&mut link).await?;
        let whole = self.whole(&mut link).await?;
        let [begin, end] = match (whole, &link) {
            (Whole::Lock, _) => [self.schema.address.lock(), "UNLOCK TABLES".to_owned()],
            (Whole::Transaction, Link::MySql(_)) => {
                ["START TRANSACTION".to_owned(), "COMMIT".to_owned()]
            }
            (Whole::Transaction, Link::Sqlite(_)) => {
                ["BEGIN IMMEDIATE".to_owned(), "COMMIT".to_owned()]
            }
        };
        self.execute(&mut link, begin).await?;
        let imported = self.replace(&mut link, rows, replace).await;
        // A connection that is dropped ends its transaction, and nothing has happened.
        let imported = imported.map_err(|error| match whole {
            Whole::Transaction => error,
            Whole::Lock => self.half_done(error),
        })?;
        self.execute(&mut link, end).await?;
        link.close().await;
        Ok(imported)
    }

    async fn replace(
        &self,
        link: &mut Link,
        rows: &[NewRow],
        replace: bool,
    ) -> Result<Imported, DatabaseError> {
        let removed = match replace {
            true => self.execute(link, self.schema.address.delete_all()).await?,
            false => 0,
        };
        for rows in rows.chunks(ROWS_AT_ONCE) {
            self.insert(link, rows).await?;
        }
        let added = rows.len() as u64;
        Ok(Imported { added, removed })
    }

    /// Adds rows with one statement.
    pub(super) async fn insert(
        &self,
        link: &mut Link,
        rows: &[NewRow],
    ) -> Result<(), DatabaseError> {
        macro_rules! insert {
            ($link:expr) => {{
                let mut insert = sqlx::query(self.schema.address.insert(rows.len()));
                for row in rows {
                    insert = insert
                        .bind(row.group)
                        .bind(&row.ip_addr)
                        .bind(row.mask)
                        .bind(row.port)
                        .bind(&row.tag);
                }
                insert.execute($link)
            }};
        }
        match link {
            Link::MySql(link) => self.run(insert!(link)).await.map(drop),
            Link::Sqlite(link) => self.run(insert!(link)).await.map(drop),
        }
    }

    /// Lets MySQL refuse what it would cut otherwise.
    pub(super) async fn be_strict(&self, link: &mut Link) -> Result<(), DatabaseError> {
        match link {
            Link::MySql(link) => self
                .run(link.execute(sqlx::raw_sql(STRICT)))
                .await
                .map(drop),
            Link::Sqlite(_) => Ok(()),
        }
    }

    async fn whole(&self, link: &mut Link) -> Result<Whole, DatabaseError> {
        match link {
            Link::MySql(link) => self.whole_of_server(link).await,
            Link::Sqlite(_) => Ok(Whole::Transaction),
        }
    }

    async fn whole_of_server(&self, link: &mut MySqlConnection) -> Result<Whole, DatabaseError> {
        let ask = sqlx::raw_sql(self.schema.address.transactions());
        let answer = self.run(link.fetch_optional(ask)).await?;
        // A view has no engine; it is as good as what is behind it.
        let answer = answer.and_then(|row| row.try_get::<Option<String>, _>(0).ok().flatten());
        Ok(match answer.as_deref() {
            Some("NO") => Whole::Lock,
            _ => Whole::Transaction,
        })
    }

    /// Runs a statement; the number of rows that it changed.
    async fn execute(&self, link: &mut Link, statement: String) -> Result<u64, DatabaseError> {
        let statement = sqlx::raw_sql(sqlx::AssertSqlSafe(statement));
        macro_rules! execute {
            ($link:expr) => {{
                let done = self.run_within(PATIENCE, $link.execute(statement)).await?;
                done.rows_affected()
            }};
        }
        Ok(match link {
            Link::MySql(link) => execute!(link),
            Link::Sqlite(link) => execute!(link),
        })
    }

    fn half_done(&self, error: DatabaseError) -> DatabaseError {
        let DatabaseError::Failed { url, cause } = error else {
            return error;
        };
        let table = &self.schema.address.table;
        let cause = format!(
            "{cause}; the engine of table `{table}` has no transactions, so a part of the rows may be in: import again with \
             --replace, or ALTER TABLE {table} ENGINE = InnoDB"
        );
        DatabaseError::Failed { url, cause }
    }
}
