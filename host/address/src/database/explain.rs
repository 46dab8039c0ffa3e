//! What the drivers' errors mean to an operator.

use std::time::Duration;

use super::{DatabaseError, DatabaseUrl, Schema};

/// No connection within the time.
pub(super) fn no_answer(url: &DatabaseUrl, waited: Duration) -> DatabaseError {
    let cause = format!(
        "no answer in {} s; check host and port in [database] url, and firewalls on the way",
        waited.as_secs()
    );
    DatabaseError::Unreachable {
        url: url.to_string(),
        cause,
    }
}

/// An error while connecting.
pub(super) fn unreachable(url: &DatabaseUrl, error: &sqlx::Error) -> DatabaseError {
    let said = said(error);
    let mend = match (url, number(error), error) {
        (DatabaseUrl::Sqlite(_), ..) => {
            "check the path in [database] url, and that we may read and write it and its folder"
        }
        // ER_SECURE_TRANSPORT_REQUIRED
        (_, Some(3159), _) => {
            "TLS is not built in: allow this user to connect without, or connect over its unix socket (?socket=PATH)"
        }
        (_, Some(1045 | 1698), _) => {
            "check user and password in [database] url; in the same words a server refuses those who must use TLS \
             (REQUIRE SSL, require_secure_transport): TLS is not built in, but the unix socket (?socket=PATH) will do"
        }
        (_, Some(1044 | 1049), _) => {
            "check the name of the database in [database] url, and what the user may do there"
        }
        (_, _, sqlx::Error::Configuration(_)) => {
            "the server wants this user's password over TLS or RSA, which are not built in: \
             use ALTER USER … IDENTIFIED WITH mysql_native_password, or another server user"
        }
        _ => "check host and port in [database] url, and that the server runs",
    };
    DatabaseError::Unreachable {
        url: url.to_string(),
        cause: format!("{said}; {mend}"),
    }
}

/// An error of a statement.
pub(super) fn failed(url: &DatabaseUrl, schema: &Schema, error: &sqlx::Error) -> DatabaseError {
    let said = said(error);
    let url = url.to_string();
    // SQLite has no numbers of its own for these.
    if number(error) == Some(1146) || said.contains("no such table") {
        let table = missing_table(&said).to_owned();
        return DatabaseError::NoTable { url, table };
    }
    if number(error) == Some(1054) || said.contains("no such column") {
        return DatabaseError::NoColumn {
            url,
            cause: said,
            expected: schema.columns(),
        };
    }
    let mend = match number(error) {
        // Of a table and of a column.
        Some(1142 | 1143) => "; grant it to this user, or name another one in [database] url",
        _ => "",
    };
    DatabaseError::Failed {
        url,
        cause: format!("{said}{mend}"),
    }
}

/// The table that an error says is not there: "no such table: NAME", "Table 'DATABASE.NAME' doesn't exist".
fn missing_table(said: &str) -> &str {
    let name = match said.split_once("no such table: ") {
        Some((_, name)) => name,
        None => said.split('\'').nth(1).unwrap_or(said),
    };
    name.rsplit_once('.').map_or(name, |(_, name)| name)
}

/// The number of an error of MySQL or MariaDB.
fn number(error: &sqlx::Error) -> Option<u16> {
    let error = error.as_database_error()?;
    let error = error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>()?;
    Some(error.number())
}

/// In the words of driver or server, in one line.
fn said(error: &sqlx::Error) -> String {
    let said = match error {
        sqlx::Error::Database(error) => error.message().to_owned(),
        sqlx::Error::Io(error) => error.to_string(),
        other => other.to_string(),
    };
    said.replace(|c: char| c.is_control(), " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_missing_table_is_named() {
        for (said, table) in [
            ("no such table: trunks", "trunks"),
            ("no such table: main.trunks", "trunks"),
            ("Table 'kamailio.trunks' doesn't exist", "trunks"),
            ("Table 'a.b.trunks' doesn't exist", "trunks"),
        ] {
            assert_eq!(missing_table(said), table);
        }
    }
}
