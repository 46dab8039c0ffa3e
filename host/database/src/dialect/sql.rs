//! What is said differently in the SQL of each database.

use std::fmt;

use crate::Name;

/// How a database without a lock that fits makes transactions wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The query that waits for the turn of this connection. The answer "1" means that it has come.
    pub take: &'static str,
    /// Commits the transaction, and ends the turn. The end of the connection ends the turn, too.
    pub commit: &'static str,
}

/// How the id of an inserted row is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastId {
    /// The query before the insertion. Without it, a table that gives no ids would seem to have given that of an earlier row.
    pub forget: &'static str,
    /// The query after the insertion. The answer 0 means that the table has given no id.
    pub ask: &'static str,
}

/// The SQL of one kind of database, and the meaning of its errors.
pub trait Dialect: fmt::Debug + Send + Sync {
    /// A statement written with MySQL's quotes and `?`, translated for this database.
    fn statement(&self, sql: &str) -> String {
        sql.to_owned()
    }

    /// The quote around names in its [scripts](Self::scripts).
    fn quote(&self) -> char {
        '`'
    }

    /// A column as text, in a statement without values.
    fn text(&self, column: &Name) -> String;

    /// An expression as text.
    fn as_text(&self, expression: &str) -> String {
        format!("CAST({expression} AS TEXT)")
    }

    /// Inserts a row, unless one with its key exists. `row` is the text after `INSERT INTO`.
    fn insert_if_absent(&self, row: &str) -> String;

    /// Begins a transaction that reads one state of the database, independent of concurrent writes.
    fn begin_read(&self) -> &'static str;

    /// Begins a transaction that writes.
    fn begin_write(&self) -> &'static str;

    /// How the id of a row is asked for that the connection has just inserted; `None` where `RETURNING` says it.
    fn last_id(&self) -> Option<LastId> {
        None
    }

    /// Locks a table against other writers until the transaction ends; `None` where transactions that only insert a row need not wait for
    /// each other.
    fn hold(&self, table: &Name) -> Option<String>;

    /// How transactions wait for each other where [`hold`](Self::hold) is `None` and a transaction that writes does not exclude others.
    fn turn(&self) -> Option<Turn> {
        None
    }

    /// Whether a text contains a text that is the value of the statement, as a condition. Upper and lower case differ.
    fn contains(&self, column: &Name) -> String;

    /// Whether a column, as text, is the text that is the value of the statement, byte for byte.
    fn is_text(&self, column: &Name) -> String {
        format!("{} = ?", self.as_text(&column.quoted()))
    }

    /// Whether rows with NULL come last in an order.
    fn sorts_null_last(&self) -> bool {
        false
    }

    /// Makes a connection refuse values that it would otherwise truncate to fit their column.
    fn strict(&self) -> Option<&'static str> {
        None
    }

    /// Queries whether a table has transactions: the answer "NO" means that it has none. `None` where all tables have them.
    fn transactions(&self, table: &Name) -> Option<String> {
        let _all_have_them = table;
        None
    }

    /// The time by the clock of the database, in milliseconds since 1970, as an integer.
    fn milliseconds(&self) -> &'static str;

    /// The number of tables and views with a name.
    fn is_there(&self) -> &'static str;

    /// The scripts that create the tables, under Kamailio's names.
    fn scripts(&self) -> &'static [&'static str];

    /// Whether a script is transactional as a whole.
    fn undoes_scripts(&self) -> bool;
}
