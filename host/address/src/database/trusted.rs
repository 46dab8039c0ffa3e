//! The table `trusted`: reading it for the host, and changing it for operators.

use std::hash::{DefaultHasher, Hash, Hasher};

use sqlx::{AssertSqlSafe, Executor, Row as _};

use super::error::TRUSTED_VERSION;
use super::load::{Column, MOST_NAMED, MYSQL_BEGIN, SQLITE_BEGIN, column};
use super::loader::on_a_thread;
use super::schema::{Name, TrustedNames};
use super::statements::Engine;
use super::{Absent, AddError, Database, DatabaseError, Link, fits};
use crate::row::{RowError, RowWarning, shown};
use crate::trusted::{TrustedBuilder, TrustedRow, TrustedTable};
use crate::turns;

/// The widths of the columns in characters.
const SOURCE_WIDTH: usize = 50;
const TEXT_WIDTH: usize = 64;

/// What a load of the table `trusted` brought.
#[derive(Debug, Default)]
pub struct LoadedTrusted {
    /// The table of the rows that can be used.
    pub table: TrustedTable,
    /// Rows that rest: their `proto` is `none`.
    pub ignored: u64,
    /// Rows that were left out.
    pub skipped: u64,
    /// The first of these, with what is wrong.
    pub errors: Vec<RowError>,
    /// Rows that are in, but probably mean something else than they should.
    pub warned: u64,
    /// The first of these.
    pub warnings: Vec<RowWarning>,
    /// A hash of all rows as they were read: equal for equal tables.
    pub(crate) digest: u64,
}

/// A row to be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTrusted {
    /// Column `src_ip`.
    pub source: String,
    /// Column `proto`.
    pub proto: String,
    /// Column `from_pattern`.
    pub from: Option<String>,
    /// Column `ruri_pattern`.
    pub ruri: Option<String>,
    /// Column `tag`.
    pub tag: Option<String>,
    /// Column `priority`.
    pub priority: i64,
}

/// A row as it is stored, whatever its columns hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredTrusted {
    /// Column `id`.
    pub id: Option<String>,
    /// Column `src_ip`.
    pub source: Option<String>,
    /// Column `proto`.
    pub proto: Option<String>,
    /// Column `from_pattern`.
    pub from: Option<String>,
    /// Column `ruri_pattern`.
    pub ruri: Option<String>,
    /// Column `tag`.
    pub tag: Option<String>,
    /// Column `priority`.
    pub priority: Option<String>,
}

/// One row of the result, each column as text.
struct TextRow<'r> {
    columns: [Column<'r>; 7],
    /// Its place in the result, to name a row without a usable id.
    number: i64,
}

/// A load under way.
#[derive(Default)]
struct Loading {
    builder: TrustedBuilder,
    loaded: LoadedTrusted,
    hasher: DefaultHasher,
}

impl Database {
    /// Reads the table `trusted` as a stream and makes a table of it, on a thread of its own.
    ///
    /// # Errors
    /// When the database fails or the table is not the one that is expected; [`DatabaseError::NoTable`] when there is none, which
    /// many a database of Kamailio can do without. A row that cannot be used is no error: it is left out and named.
    pub async fn load_trusted(&self) -> Result<LoadedTrusted, DatabaseError> {
        let database = self.clone();
        let load = move || async move {
            let mut loading = Loading::default();
            let names = &database.schema.trusted;
            database
                .each_trusted(|row| loading.take(row, names))
                .await?;
            Ok(loading.finish())
        };
        on_a_thread(load).await
    }

    /// All rows of the table `trusted`, in the order in which a load reads them.
    ///
    /// # Errors
    /// When the database fails or has no such table.
    pub async fn trusted_rows(&self) -> Result<Vec<StoredTrusted>, DatabaseError> {
        let mut rows = Vec::new();
        self.each_trusted(|row| rows.push(row.to_stored())).await?;
        Ok(rows)
    }

    /// Adds a row (Kamailio: `kamctl trusted add`), unless a load would skip it or there is one of that source.
    ///
    /// # Errors
    /// When the row cannot be used, a row of that source is there, or the database fails.
    pub async fn add_trusted(&self, row: &NewTrusted) -> Result<Option<RowWarning>, AddError> {
        let warning = row.check()?;
        let mut link = self.open(Absent::Make).await?;
        self.check_version(&mut link, &self.schema.trusted.table, TRUSTED_VERSION)
            .await?;
        self.be_strict(&mut link).await?;
        let names = &self.schema.trusted;
        if self.count_trusted(&mut link, &row.source).await? > 0 {
            return Err(AddError::Exists {
                table: names.table.to_string(),
                source_ip: shown(&row.source),
            });
        }
        let insert = names.insert();
        macro_rules! insert {
            ($link:expr) => {
                sqlx::query(insert)
                    .bind(&row.source)
                    .bind(&row.proto)
                    .bind(&row.from)
                    .bind(&row.ruri)
                    .bind(&row.tag)
                    .bind(row.priority)
                    .execute($link)
            };
        }
        match &mut link {
            Link::MySql(link) => self.run(insert!(link)).await.map(drop)?,
            Link::Sqlite(link) => self.run(insert!(link)).await.map(drop)?,
        }
        link.close().await;
        Ok(warning)
    }

    /// Removes all rows of this source (Kamailio: `kamctl trusted rm`). The number of rows removed.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn remove_trusted(&self, source: &str) -> Result<u64, DatabaseError> {
        let mut link = self.open(Absent::Refuse).await?;
        let delete = self.schema.trusted.delete();
        macro_rules! delete {
            ($link:expr) => {
                sqlx::query(delete).bind(source).execute($link)
            };
        }
        let removed = match &mut link {
            Link::MySql(link) => self.run(delete!(link)).await?.rows_affected(),
            Link::Sqlite(link) => self.run(delete!(link)).await?.rows_affected(),
        };
        link.close().await;
        Ok(removed)
    }

    async fn count_trusted(&self, link: &mut Link, source: &str) -> Result<i64, DatabaseError> {
        let count = self.schema.trusted.count();
        macro_rules! count {
            ($link:expr) => {
                sqlx::query_scalar(count).bind(source).fetch_one($link)
            };
        }
        match link {
            Link::MySql(link) => self.run(count!(link)).await,
            Link::Sqlite(link) => self.run(count!(link)).await,
        }
    }

    async fn each_trusted(&self, mut each: impl FnMut(TextRow<'_>)) -> Result<(), DatabaseError> {
        let mut link = self.open(Absent::Refuse).await?;
        match &mut link {
            Link::MySql(link) => self
                .run(link.execute(sqlx::raw_sql(MYSQL_BEGIN)))
                .await
                .map(drop)?,
            Link::Sqlite(link) => self
                .run(link.execute(sqlx::raw_sql(SQLITE_BEGIN)))
                .await
                .map(drop)?,
        }
        // The table before its version: where there is none, its row in `version` is likely to be absent, too.
        let has_id = self.trusted_has_id(&mut link).await?;
        let names = &self.schema.trusted;
        self.check_version(&mut link, &names.table, TRUSTED_VERSION)
            .await?;
        let mut number = 0;
        macro_rules! stream {
            ($link:expr, $engine:ident) => {{
                let mut rows = $link.fetch(sqlx::raw_sql(names.rows(Engine::$engine, has_id)));
                while let Some(row) = self.next(&mut rows).await? {
                    number += 1;
                    if number % turns::ROWS == 0 {
                        turns::give_way();
                    }
                    each(TextRow {
                        columns: std::array::from_fn(|at| {
                            column::<sqlx::$engine>(row.try_get_raw(at))
                        }),
                        number,
                    });
                }
            }};
        }
        match &mut link {
            Link::MySql(link) => stream!(link, MySql),
            Link::Sqlite(link) => stream!(link, Sqlite),
        }
        link.close().await;
        Ok(())
    }

    /// Whether the rows have numbers of their own. A view may go without.
    async fn trusted_has_id(&self, link: &mut Link) -> Result<bool, DatabaseError> {
        let probe = sqlx::raw_sql(self.schema.trusted.probe_id());
        let probed = match link {
            Link::MySql(link) => self.run(link.execute(probe)).await.map(drop),
            Link::Sqlite(link) => self.run(link.execute(probe)).await.map(drop),
        };
        match probed {
            Err(DatabaseError::NoColumn { .. }) => Ok(false),
            probed => probed.map(|()| true),
        }
    }
}

impl TrustedNames {
    /// The columns that Kamailio reads, in its order.
    fn columns(&self) -> [&Name; 6] {
        [
            &self.source,
            &self.proto,
            &self.from,
            &self.ruri,
            &self.tag,
            &self.priority,
        ]
    }

    /// The rows in the order of the table itself, as Kamailio asks for them, each column as text. Without an id the first column
    /// is NULL.
    fn rows(&self, engine: Engine, has_id: bool) -> AssertSqlSafe<String> {
        let id = match has_id {
            true => engine.text(&Name::known("id")),
            false => "NULL".to_owned(),
        };
        let columns = self.columns().map(|column| engine.text(column)).join(", ");
        AssertSqlSafe(format!(
            "SELECT {id}, {columns} FROM {}",
            self.table.quoted()
        ))
    }

    /// Fails when the table has no id.
    fn probe_id(&self) -> AssertSqlSafe<String> {
        AssertSqlSafe(format!("SELECT `id` FROM {} LIMIT 0", self.table.quoted()))
    }

    /// With a parameter for each of [`columns`](Self::columns).
    fn insert(&self) -> AssertSqlSafe<String> {
        let columns = self.columns().map(Name::quoted).join(", ");
        AssertSqlSafe(format!(
            "INSERT INTO {} ({columns}) VALUES (?, ?, ?, ?, ?, ?)",
            self.table.quoted()
        ))
    }

    /// How many rows a source has.
    fn count(&self) -> AssertSqlSafe<String> {
        AssertSqlSafe(format!(
            "SELECT COUNT(*) FROM {} WHERE {} = ?",
            self.table.quoted(),
            self.source.quoted()
        ))
    }

    /// All rows of a source.
    fn delete(&self) -> AssertSqlSafe<String> {
        AssertSqlSafe(format!(
            "DELETE FROM {} WHERE {} = ?",
            self.table.quoted(),
            self.source.quoted()
        ))
    }
}

impl NewTrusted {
    /// Whether a load would use the row, and what it would warn of.
    fn check(&self) -> Result<Option<RowWarning>, AddError> {
        let row = TrustedRow {
            id: 0,
            source: &self.source,
            proto: &self.proto,
            from: self.from.as_deref(),
            ruri: self.ruri.as_deref(),
            tag: self.tag.as_deref(),
            priority: self.priority,
        };
        let warning = TrustedBuilder::default().push(row)?;
        fits("src_ip", &self.source, SOURCE_WIDTH)?;
        for (column, text) in [
            ("from_pattern", &self.from),
            ("ruri_pattern", &self.ruri),
            ("tag", &self.tag),
        ] {
            fits(column, text.as_deref().unwrap_or_default(), TEXT_WIDTH)?;
        }
        Ok(warning)
    }
}

impl Loading {
    fn take(&mut self, row: TextRow<'_>, names: &TrustedNames) {
        row.columns.hash(&mut self.hasher);
        let loaded = &mut self.loaded;
        match row.read().and_then(|row| self.builder.push(row)) {
            Ok(None) => {}
            Ok(Some(warning)) => {
                loaded.warned += 1;
                if loaded.warnings.len() < MOST_NAMED {
                    let place = names.place(warning.id, warning.column);
                    loaded.warnings.push(RowWarning { place, ..warning });
                }
            }
            Err(error) => {
                loaded.skipped += 1;
                if loaded.errors.len() < MOST_NAMED {
                    let place = names.place(error.id, error.column);
                    loaded.errors.push(RowError { place, ..error });
                }
            }
        }
    }

    fn finish(self) -> LoadedTrusted {
        LoadedTrusted {
            ignored: self.builder.ignored(),
            table: self.builder.build(),
            digest: self.hasher.finish(),
            ..self.loaded
        }
    }
}

impl<'r> TextRow<'r> {
    fn to_stored(&self) -> StoredTrusted {
        let [id, source, proto, from, ruri, tag, priority] =
            self.columns.map(|column| match column {
                Column::Null => None,
                column => Some(column.shown()),
            });
        StoredTrusted {
            id,
            source,
            proto,
            from,
            ruri,
            tag,
            priority,
        }
    }

    fn read(&self) -> Result<TrustedRow<'r>, RowError> {
        let [id, source, proto, from, ruri, tag, priority] = self.columns;
        let id = match id {
            Column::Text(id) => id.parse().unwrap_or(self.number),
            _ => self.number,
        };
        let optional = |column: Column<'r>, name| match column {
            Column::Null => Ok(None),
            column => column.text(id, name).map(Some),
        };
        Ok(TrustedRow {
            id,
            source: source.text(id, "src_ip")?,
            proto: proto.text(id, "proto")?,
            from: optional(from, "from_pattern")?,
            ruri: optional(ruri, "ruri_pattern")?,
            tag: optional(tag, "tag")?,
            priority: match priority {
                Column::Null => 0,
                priority => priority.number(id, "priority")?,
            },
        })
    }
}
