//! Log lines that loads of all parts share.

use std::time::Duration;

use tracing::warn;

use crate::database::{DatabaseError, Failure};
use crate::settle::Hold;

/// Most invalid rows that a load logs; the first hundred are in the snapshot.
pub(super) const MOST_LOGGED: usize = 20;

/// Logs once that a table has become empty and its rows are kept.
pub(super) fn tell_emptied(hold: Hold, table: &str, settle: Duration) {
    if hold == Hold::Begins {
        warn!(
            event = "table_emptied",
            table,
            "table has become empty: its previous rows stay in use until it has been empty for {settle:?}, or until a reload is requested"
        );
    }
}

/// The `event` of a database error in the log.
pub(super) fn event_of(error: &DatabaseError) -> &'static str {
    match error {
        DatabaseError::Database(Failure::Hung { .. }) => "database_hung",
        DatabaseError::Database(
            Failure::Unreachable { .. }
            | Failure::Lost { .. }
            | Failure::NotServing { .. }
            | Failure::Older { .. },
        ) => "database_unreachable",
        DatabaseError::Database(_)
        | DatabaseError::File { .. }
        | DatabaseError::NoUsableLine { .. }
        | DatabaseError::IsFile { .. }
        | DatabaseError::Build(_) => "table_not_loaded",
    }
}
