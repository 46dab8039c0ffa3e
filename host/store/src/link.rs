//! One statement, for both engines.

/// Runs a query on whichever pool there is. The rows of both can be read by the same words.
macro_rules! on {
    ($link:expr, $each:ident => $work:expr) => {
        match $link {
            crate::store::Link::MySql($each) => $work,
            crate::store::Link::Sqlite($each) => $work,
        }
    };
}

pub(crate) use on;
