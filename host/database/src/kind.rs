//! What a server is.

/// What a server is, as far as the check differs. It is found once for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A node of a Galera cluster.
    Galera,
    /// MariaDB with GTIDs: with a binary log, or as a replica.
    MariaDb,
    /// MySQL with GTIDs.
    MySql,
    /// PostgreSQL, with the identity of its database cluster.
    Postgres,
    /// A server that does not say how far it is.
    Plain,
}
