//! Reading the rows.

use futures_util::TryStreamExt;
use sqlx::{Executor, Row as _};

use super::error::TABLE_VERSION;
use super::{Database, DatabaseError, Link, StoredRow};
use crate::row::{Row, RowError, RowWarning, shown};
use crate::table::{Table, TableBuilder};

/// Problems of each kind that a load keeps by name; the rest is only counted.
const MOST_NAMED: usize = 100;

/// The rows in the order of the table itself, as Kamailio asks for them: no WHERE, no ORDER BY.
const MYSQL_ROWS: &str = "SELECT CONVERT(id USING utf8mb4), CONVERT(grp USING utf8mb4), CONVERT(ip_addr USING utf8mb4), \
     CONVERT(mask USING utf8mb4), CONVERT(port USING utf8mb4), CONVERT(tag USING utf8mb4) FROM address";
const SQLITE_ROWS: &str = "SELECT CAST(id AS TEXT), CAST(grp AS TEXT), CAST(ip_addr AS TEXT), CAST(mask AS TEXT), \
     CAST(port AS TEXT), CAST(tag AS TEXT) FROM address";

const MYSQL_VERSION: &str =
    "SELECT CONVERT(table_version USING utf8mb4) FROM version WHERE table_name = 'address'";
const SQLITE_VERSION: &str =
    "SELECT CAST(table_version AS TEXT) FROM version WHERE table_name = 'address'";

/// What a load brought.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The table of the rows that can be used.
    pub table: Table,
    /// Rows that were left out.
    pub skipped: u64,
    /// The first of these, with what is wrong.
    pub errors: Vec<RowError>,
    /// Rows that are in, but probably mean something else than they should.
    pub warned: u64,
    /// The first of these.
    pub warnings: Vec<RowWarning>,
}

/// One row of the result, each column as text.
#[derive(Clone, Copy)]
pub(super) struct TextRow<'r> {
    columns: [Option<&'r str>; 6],
    /// Its place in the result, to name a row without a usable id.
    number: i64,
}

#[derive(Default)]
struct Loading {
    builder: TableBuilder,
    loaded: Loaded,
}

impl Database {
    /// Reads all rows in one statement, as a stream, and makes a table of them.
    ///
    /// # Errors
    /// When the database fails or the table is not the one that is expected. A row that cannot be used is no error: it is left
    /// out and named.
    pub async fn load(&self) -> Result<Loaded, DatabaseError> {
        let mut loading = Loading::default();
        self.each_row(|row| loading.take(row)).await?;
        // Building sorts all rows: not for a thread that others wait for.
        tokio::task::spawn_blocking(|| loading.finish())
            .await
            .map_err(|error| DatabaseError::Build(error.to_string()))
    }

    pub(super) async fn each_row(
        &self,
        mut each: impl FnMut(TextRow<'_>),
    ) -> Result<(), DatabaseError> {
        let mut link = self.open().await?;
        self.check_version(&mut link).await?;
        let mut number = 0;
        macro_rules! stream {
            ($link:expr, $rows:expr) => {{
                let mut rows = $link.fetch(sqlx::query($rows));
                while let Some(row) = rows.try_next().await.map_err(|error| self.failed(&error))? {
                    number += 1;
                    let mut columns = [None; 6];
                    for (at, column) in columns.iter_mut().enumerate() {
                        *column = row.try_get(at).map_err(|error| self.failed(&error))?;
                    }
                    each(TextRow { columns, number });
                }
            }};
        }
        match &mut link {
            Link::MySql(link) => stream!(link, MYSQL_ROWS),
            Link::Sqlite(link) => stream!(link, SQLITE_ROWS),
        }
        link.close().await;
        Ok(())
    }

    /// Kamailio refuses to start on another version, because the columns may mean something else.
    pub(super) async fn check_version(&self, link: &mut Link) -> Result<(), DatabaseError> {
        let version: Result<Option<Option<String>>, _> = match link {
            Link::MySql(link) => sqlx::query_scalar(MYSQL_VERSION).fetch_optional(link).await,
            Link::Sqlite(link) => {
                sqlx::query_scalar(SQLITE_VERSION)
                    .fetch_optional(link)
                    .await
            }
        };
        let version = version.map_err(|error| self.failed(&error))?.flatten();
        if version.as_deref().and_then(|text| text.parse().ok()) == Some(TABLE_VERSION) {
            return Ok(());
        }
        Err(DatabaseError::Version {
            url: self.url.to_string(),
            found: version.map_or_else(|| "none".to_owned(), |text| shown(&text)),
        })
    }
}

impl Loading {
    fn take(&mut self, row: TextRow<'_>) {
        let pushed = row.read().and_then(|row| self.builder.push(row));
        match pushed {
            Ok(None) => {}
            Ok(Some(warning)) => {
                self.loaded.warned += 1;
                if self.loaded.warnings.len() < MOST_NAMED {
                    self.loaded.warnings.push(warning);
                }
            }
            Err(error) => {
                self.loaded.skipped += 1;
                if self.loaded.errors.len() < MOST_NAMED {
                    self.loaded.errors.push(error);
                }
            }
        }
    }

    fn finish(self) -> Loaded {
        Loaded {
            table: self.builder.build(),
            ..self.loaded
        }
    }
}

impl<'r> TextRow<'r> {
    pub(super) fn to_stored(self) -> StoredRow {
        let [id, group, ip_addr, mask, port, tag] =
            self.columns.map(|column| column.map(str::to_owned));
        StoredRow {
            id,
            group,
            ip_addr,
            mask,
            port,
            tag,
        }
    }

    fn read(self) -> Result<Row<'r>, RowError> {
        let [id, group, ip_addr, mask, port, tag] = self.columns;
        let id = id.and_then(|id| id.parse().ok()).unwrap_or(self.number);
        Ok(Row {
            id,
            group: number(id, "grp", group)?,
            ip_addr: ip_addr.ok_or_else(|| null(id, "ip_addr"))?,
            mask: number(id, "mask", mask)?,
            port: number(id, "port", port)?,
            tag,
        })
    }
}

fn number(id: i64, column: &'static str, text: Option<&str>) -> Result<i64, RowError> {
    let text = text.ok_or_else(|| null(id, column))?;
    text.parse().map_err(|_| RowError {
        id,
        column,
        value: shown(text),
        fault: "is not a whole number".to_owned(),
        mend: "write a number, and let the column have an integer type".to_owned(),
    })
}

fn null(id: i64, column: &'static str) -> RowError {
    RowError {
        id,
        column,
        value: "NULL".to_owned(),
        fault: "is no value".to_owned(),
        mend: "write one, and declare the column NOT NULL".to_owned(),
    }
}
