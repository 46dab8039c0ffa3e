//! Which stored rows are listed or counted.

use std::fmt;
use std::str::FromStr;

use portcullis_database::Value;
use thiserror::Error;

use super::StoredRow;

/// Selects rows as they are stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowFilter {
    /// Their groups; `None` for all.
    pub groups: Option<Vec<i64>>,
    /// Part of the address or of the tag; `None` for any.
    pub contains: Option<String>,
}

/// Where a page of rows begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// After the row with this id.
    Id(i64),
    /// After this number of rows: for rows without usable ids.
    Skip(u64),
}

/// A text that is no cursor.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text:?} is not a place in the list: use `next` of the page before")]
pub struct CursorError {
    /// The text.
    text: String,
}

impl RowFilter {
    /// Whether the row matches.
    pub(super) fn selects(&self, row: &StoredRow) -> bool {
        let group = row.group.as_deref().map(str::trim);
        let group = group.and_then(|group| group.parse().ok());
        let is_group = |groups: &Vec<i64>| group.is_some_and(|group| groups.contains(&group));
        let has = |text: &String| {
            let columns = [&row.ip_addr, &row.tag];
            let mut columns = columns.into_iter().flatten();
            columns.any(|column| column.contains(text.as_str()))
        };
        self.groups.as_ref().is_none_or(is_group) && self.contains.as_ref().is_none_or(has)
    }

    /// The values of its condition.
    pub(super) fn values(&self) -> impl Iterator<Item = Value<'_>> {
        let contains = self.contains.iter();
        contains.flat_map(|text| [Value::from(text), Value::from(text)])
    }
}

impl Cursor {
    /// The first row.
    pub const START: Self = Self::Skip(0);
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "id-{id}"),
            Self::Skip(rows) => write!(f, "row-{rows}"),
        }
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let id = text.strip_prefix("id-").and_then(|id| id.parse().ok());
        let rows = text.strip_prefix("row-").and_then(|rows| rows.parse().ok());
        let rows = rows.filter(|rows| i64::try_from(*rows).is_ok());
        let cursor = id.map(Self::Id).or_else(|| rows.map(Self::Skip));
        cursor.ok_or_else(|| CursorError {
            text: text.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_is_written() {
        for cursor in [
            Cursor::Id(-1),
            Cursor::Id(i64::MAX),
            Cursor::START,
            Cursor::Skip(7),
        ] {
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
        for text in [
            "",
            "7",
            "id-",
            "id-1 OR 1",
            "row--1",
            "row-18446744073709551615",
        ] {
            assert!(text.parse::<Cursor>().is_err(), "{text}");
        }
    }
}
