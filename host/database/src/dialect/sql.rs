//! What is said differently in the SQL of each database.

use std::fmt;

use crate::Name;

/// The SQL of one kind of database, and what its errors mean.
pub trait Dialect: fmt::Debug + Send + Sync {
    /// A statement that is written with MySQL's quotes and `?`, in the words of this database.
    fn statement(&self, sql: &str) -> String {
        sql.to_owned()
    }

    /// What stands around the names in its [scripts](Self::scripts).
    fn quote(&self) -> char {
        '`'
    }

    /// A column as text, in a statement without values.
    fn text(&self, column: &Name) -> String;

    /// An expression as text.
    fn as_text(&self, expression: &str) -> String {
        format!("CAST({expression} AS TEXT)")
    }

    /// Adds a row, unless there is one of its key. `row` is what stands behind `INSERT INTO`.
    fn insert_if_absent(&self, row: &str) -> String;

    /// Begins a transaction that reads one state of the database, whatever is written meanwhile.
    fn begin_read(&self) -> &'static str;

    /// Begins a transaction that writes.
    fn begin_write(&self) -> &'static str;

    /// Lets nobody else write a table until the transaction ends; none where those who only add a row to it need not wait for each
    /// other.
    fn hold(&self, table: &Name) -> Option<String>;

    /// What makes a connection refuse what it would cut to fit its column otherwise.
    fn strict(&self) -> Option<&'static str> {
        None
    }

    /// Asks whether a table has transactions: its answer is "NO" when it has none. None where all tables have them.
    fn transactions(&self, table: &Name) -> Option<String> {
        let _all_have_them = table;
        None
    }

    /// How many tables and views of a name there are.
    fn is_there(&self) -> &'static str;

    /// The scripts that create the tables, with Kamailio's names.
    fn scripts(&self) -> &'static [&'static str];

    /// Whether a script can be undone until its end.
    fn undoes_scripts(&self) -> bool;
}
