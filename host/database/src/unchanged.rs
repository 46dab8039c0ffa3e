//! The condition that a row is still as it was read.
//!
//! Kamailio's tables have no column for a version, so a row is compared as a whole. The comparison is part of the statement that changes the
//! row: nobody can change the row in between, whatever transactions the table has.

use crate::dialect::Dialect;
use crate::link::Value;
use crate::schema::Name;

/// A condition on columns, as part of a statement.
#[derive(Debug)]
pub struct Unchanged<'v> {
    /// The text, from `AND` on.
    pub condition: String,
    /// The values of its parameters.
    pub values: Vec<Value<'v>>,
}

impl<'v> Unchanged<'v> {
    /// The condition that columns have these values, compared byte for byte; `None` is NULL.
    pub fn of<'n>(
        dialect: &dyn Dialect,
        columns: impl IntoIterator<Item = (&'n Name, &'v Option<String>)>,
    ) -> Self {
        let mut unchanged = Self {
            condition: String::new(),
            values: Vec::new(),
        };
        for (column, value) in columns {
            match value {
                Some(text) => {
                    let is = dialect.is_text(column);
                    unchanged.condition.push_str(&format!(" AND {is}"));
                    unchanged.values.push(text.into());
                }
                None => {
                    let column = column.quoted();
                    unchanged
                        .condition
                        .push_str(&format!(" AND {column} IS NULL"));
                }
            }
        }
        unchanged
    }
}
