//! Rows of the table of addresses, as they are stored.

use portcullis_database::Value;

use crate::row::{Finding, Row, RowError, RowWarning};

/// The width of the columns `ip_addr` and `tag` in characters.
const IP_ADDR_WIDTH: usize = 50;
const TAG_WIDTH: usize = 64;

/// A row to be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRow {
    /// Column `grp`.
    pub group: i64,
    /// Column `ip_addr`.
    pub ip_addr: String,
    /// Column `mask`.
    pub mask: i64,
    /// Column `port`.
    pub port: i64,
    /// Column `tag`.
    pub tag: Option<String>,
}

/// A row as it is stored, whatever its columns contain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredRow {
    /// Column `id`.
    pub id: Option<String>,
    /// Column `grp`.
    pub group: Option<String>,
    /// Column `ip_addr`.
    pub ip_addr: Option<String>,
    /// Column `mask`.
    pub mask: Option<String>,
    /// Column `port`.
    pub port: Option<String>,
    /// Column `tag`.
    pub tag: Option<String>,
}

impl NewRow {
    /// Checks that a load would use the row and that the table can store it. Returns the warning of a load, if there is one.
    ///
    /// # Errors
    /// If it is invalid. The error names the column.
    pub fn check(&self) -> Result<Option<RowWarning>, RowError> {
        let row = Row {
            id: 0,
            group: self.group,
            ip_addr: &self.ip_addr,
            mask: self.mask,
            port: self.port,
            tag: self.tag.as_deref(),
        };
        let (_, warning) = row.validate()?;
        let tag = self.tag.as_deref().unwrap_or_default();
        fits("ip_addr", &self.ip_addr, IP_ADDR_WIDTH)?;
        fits("tag", tag, TAG_WIDTH)?;
        Ok(warning)
    }

    /// Returns the columns in the order of an insertion.
    pub(super) fn values(&self) -> [Value<'_>; 5] {
        [
            self.group.into(),
            (&self.ip_addr).into(),
            self.mask.into(),
            self.port.into(),
            (&self.tag).into(),
        ]
    }
}

impl From<Row<'_>> for NewRow {
    fn from(row: Row<'_>) -> Self {
        Self {
            group: row.group,
            ip_addr: row.ip_addr.to_owned(),
            mask: row.mask,
            port: row.port,
            tag: row.tag.map(str::to_owned),
        }
    }
}

/// Checks that a column of this width can store the text.
pub(super) fn fits(column: &'static str, text: &str, most: usize) -> Result<(), RowError> {
    let length = text.chars().count();
    if length > most {
        let fault = format!("has {length} characters");
        let mend = format!("use at most {most}: the column is no wider");
        return Err(Finding::text(column, text, &fault, &mend).error(0));
    }
    Ok(())
}
