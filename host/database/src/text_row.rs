//! A row of a table as text.

use crate::link::Column;

/// A row of a table, each column as text, the id first.
#[derive(Clone, Copy, Debug)]
pub struct TextRow<'r, const COLUMNS: usize> {
    /// The columns.
    pub columns: [Column<'r>; COLUMNS],
    /// Its position in the result, for rows without a valid id.
    number: i64,
}

impl<'r, const COLUMNS: usize> TextRow<'r, COLUMNS> {
    /// A row at this position of the result, from 1; 0 if that is not known.
    pub fn new(columns: [Column<'r>; COLUMNS], number: i64) -> Self {
        Self { columns, number }
    }

    /// The id; without a valid one, the position.
    pub fn id(&self) -> i64 {
        match self.columns.first() {
            Some(Column::Text(id)) => id.parse().unwrap_or(self.number),
            Some(Column::Null | Column::Bytes) | None => self.number,
        }
    }

    /// The columns as they are stored; `None` for NULL.
    pub fn stored(&self) -> [Option<String>; COLUMNS] {
        self.columns.map(|column| match column {
            Column::Null => None,
            Column::Text(_) | Column::Bytes => Some(column.shown()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_without_a_number_as_its_id_has_its_position() {
        let id = |id| TextRow::new([id, Column::Null], 7).id();
        assert_eq!(id(Column::Text("12")), 12);
        for other in [Column::Null, Column::Bytes, Column::Text("x")] {
            assert_eq!(id(other), 7);
        }
        let stored = TextRow::new([Column::Null, Column::Text("a"), Column::Bytes], 0).stored();
        assert_eq!(stored, [None, Some("a".into()), Some("(bytes)".into())]);
    }
}
