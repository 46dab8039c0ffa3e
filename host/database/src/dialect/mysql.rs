//! MySQL and MariaDB.

use std::io::ErrorKind;
use std::path::Path;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlDatabaseError, MySqlSslMode};
use sqlx::{ConnectOptions as _, Connection as _, Error};

use super::meaning::{Meaning, is_lost};
use super::{Dialect, Driver, LastId, Turn};
use crate::url::{ServerUrl, SslMode};
use crate::wire::Wire;
use crate::{DatabaseUrl, Name};

/// The usual paths of the server's unix socket.
const SOCKETS: [&str; 4] = [
    "/run/mysqld/mysqld.sock",
    "/var/run/mysqld/mysqld.sock",
    "/var/lib/mysql/mysql.sock",
    "/tmp/mysql.sock",
];

/// MySQL and MariaDB.
#[derive(Debug)]
pub(crate) struct MySql;

impl Dialect for MySql {
    /// The result of an unprepared statement is text, whatever the type of the column.
    fn text(&self, column: &Name) -> String {
        column.quoted()
    }

    fn as_text(&self, expression: &str) -> String {
        format!("CAST({expression} AS CHAR)")
    }

    fn last_id(&self) -> Option<LastId> {
        Some(LastId {
            forget: "SELECT LAST_INSERT_ID(0)",
            ask: "SELECT CAST(LAST_INSERT_ID() AS SIGNED)",
        })
    }

    fn insert_if_absent(&self, row: &str) -> String {
        format!("INSERT IGNORE INTO {row}")
    }

    fn begin_read(&self) -> &'static str {
        "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"
    }

    fn begin_write(&self) -> &'static str {
        "START TRANSACTION"
    }

    /// `LOCK TABLES` commits the transaction: see [`turn`](Self::turn).
    fn hold(&self, _table: &Name) -> Option<String> {
        None
    }

    /// A named lock of the server: row locks would cover the whole table, because no index has its groups.
    fn turn(&self) -> Option<Turn> {
        Some(Turn {
            take: "SELECT GET_LOCK('portcullis-rows', 8)",
            commit: "COMMIT; DO RELEASE_LOCK('portcullis-rows')",
        })
    }

    /// Bytes are compared: the collations of most columns ignore the case.
    fn contains(&self, column: &Name) -> String {
        let column = column.quoted();
        format!("INSTR(CAST(CONVERT({column} USING utf8mb4) AS BINARY), ?) > 0")
    }

    /// Bytes are compared, as for [`contains`](Self::contains).
    fn is_text(&self, column: &Name) -> String {
        let column = column.quoted();
        format!("CAST(CONVERT({column} USING utf8mb4) AS BINARY) = ?")
    }

    fn strict(&self) -> Option<&'static str> {
        Some("SET SESSION sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES')")
    }

    /// MyISAM, Aria and others have none. A view has no engine; it is as good as what is behind it.
    fn transactions(&self, table: &Name) -> Option<String> {
        Some(format!(
            "SELECT CAST(TRANSACTIONS AS CHAR) FROM information_schema.TABLES \
             JOIN information_schema.ENGINES USING (ENGINE) \
             WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = {}",
            table.literal()
        ))
    }

    /// Not UNIX_TIMESTAMP(NOW(3)): the local time is ambiguous for an hour of each year.
    fn milliseconds(&self) -> &'static str {
        "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) DIV 1000"
    }

    fn is_there(&self) -> &'static str {
        "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ?"
    }

    fn scripts(&self) -> &'static [&'static str] {
        &[
            include_str!("../../../../migrations/mysql/0001_address.sql"),
            include_str!("../../../../migrations/mysql/0002_trusted.sql"),
            include_str!("../../../../migrations/mysql/0003_policies.sql"),
            include_str!("../../../../migrations/mysql/0004_tenants.sql"),
            include_str!("../../../../migrations/mysql/0005_audit.sql"),
            include_str!("../../../../migrations/mysql/0006_dispatcher.sql"),
            include_str!("../../../../migrations/mysql/0007_hosts.sql"),
            include_str!("../../../../migrations/mysql/0008_rollouts.sql"),
        ]
    }

    /// Each CREATE TABLE commits the transaction.
    fn undoes_scripts(&self) -> bool {
        false
    }
}

impl Driver for MySql {
    fn connect<'u>(&self, url: &'u DatabaseUrl) -> BoxFuture<'u, Result<Wire, Error>> {
        let connect = async move {
            let DatabaseUrl::MySql(url) = url else {
                return Err(Error::Protocol("no URL of a MySQL server".to_owned()));
            };
            connect(url).await.map(|link| Wire::MySql(Box::new(link)))
        };
        connect.boxed()
    }

    fn mend_connecting(&self, error: &Error) -> &'static str {
        match (number(error), error) {
            // ER_SECURE_TRANSPORT_REQUIRED
            (Some(3159), _) => {
                "add ?ssl-mode=verify-identity&ssl-ca=FILE to [database] url, or connect over the server's unix socket (?socket=PATH)"
            }
            (Some(1045 | 1698), _) => {
                "check user and password in [database] url; in the same words a server refuses those who must use TLS \
                 (REQUIRE SSL): ?ssl-mode=verify-identity&ssl-ca=FILE, or the unix socket (?socket=PATH)"
            }
            (Some(1044 | 1049), _) => {
                "check the name of the database in [database] url, and what the user may do there"
            }
            (_, Error::Configuration(_)) => {
                "the server wants this user's password over TLS: add ?ssl-mode=required to [database] url, or, with its certificate \
                 checked, ?ssl-mode=verify-identity&ssl-ca=FILE"
            }
            (_, Error::Tls(_)) => {
                "check `ssl-mode` and `ssl-ca` in [database] url, and that the server has a certificate (have_ssl)"
            }
            (_, Error::Io(error)) if error.kind() == ErrorKind::InvalidData => BAD_CERTIFICATE,
            _ => "check host and port in [database] url, and that the server runs",
        }
    }

    fn meaning(&self, error: &Error, said: &str) -> Meaning {
        match number(error) {
            Some(1146) => Meaning::NoTable(missing_table(said).to_owned()),
            Some(1054) => Meaning::NoColumn,
            // Of a table and of a column. A user without privileges on a table gets them also if the table does not exist.
            Some(1142 | 1143) => Meaning::Denied,
            // ER_LOCK_DEADLOCK, which is also the conflict of a certification, ER_LOCK_WAIT_TIMEOUT, and ER_QUERY_INTERRUPTED: a write of another node
            // has ended the transaction
            Some(1213 | 1205 | 1317) => Meaning::Conflict,
            // ER_UNKNOWN_COM_ERROR: WSREP has not yet prepared node for application use
            Some(1047) => Meaning::NotServing,
            // ER_OPTION_PREVENTS_STATEMENT, ER_READ_ONLY_MODE
            Some(1290 | 1836) => Meaning::ReadOnly(
                "; this server only reads, as a replica does: name the primary in [database] url",
            ),
            // ER_SERVER_SHUTDOWN, ER_CONNECTION_KILLED, and ER_ERROR_DURING_COMMIT: a node was cut off during a commit
            Some(1053 | 1927 | 1180) => Meaning::Lost,
            None if is_lost(error) => Meaning::Lost,
            _ if said.contains("max_allowed_packet") => Meaning::Other(
                "; the policy is larger than the server takes at once: raise `max_allowed_packet` there",
            ),
            _ => Meaning::Other(""),
        }
    }
}

/// What to do about a certificate that fails the verification.
pub(super) const BAD_CERTIFICATE: &str = "the server's certificate is not what `ssl-mode` in [database] url wants: `ssl-ca` must be the file of the authority that \
     issued it, and for verify-identity it must name the host of the URL";

async fn connect(url: &ServerUrl) -> Result<MySqlConnection, Error> {
    let options = options(url);
    match MySqlConnection::connect_with(&options).await {
        // MySQL's clients continue without TLS if it is only preferred. Old servers support only obsolete TLS versions.
        Err(error) if url.ssl_mode() == SslMode::Preferred && is_of_tls(&error) => {
            let options = options.ssl_mode(MySqlSslMode::Disabled);
            MySqlConnection::connect_with(&options).await
        }
        connected => connected,
    }
}

fn options(url: &ServerUrl) -> MySqlConnectOptions {
    let mut options = MySqlConnectOptions::new()
        .host(&url.host)
        .port(url.port())
        .username(&url.user)
        .database(&url.database)
        .ssl_mode(match url.ssl_mode() {
            SslMode::Disabled => MySqlSslMode::Disabled,
            SslMode::Preferred => MySqlSslMode::Preferred,
            SslMode::Required => MySqlSslMode::Required,
            SslMode::VerifyCa => MySqlSslMode::VerifyCa,
            SslMode::VerifyIdentity => MySqlSslMode::VerifyIdentity,
        })
        .disable_statement_logging();
    if let Some(ca) = &url.ssl_ca {
        options = options.ssl_ca(ca);
    }
    if let Some((cert, key)) = &url.ssl_client {
        options = options.ssl_client_cert(cert).ssl_client_key(key);
    }
    if let Some(password) = &url.password {
        options = options.password(password);
    }
    if let Some(socket) = &url.socket {
        return options.socket(socket);
    }
    let usual = SOCKETS.iter().find(|socket| Path::new(socket).exists());
    match usual {
        Some(socket) if url.is_local() => options.socket(socket),
        _ => options,
    }
}

/// Whether there is a server, but one without TLS.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the driver has many errors and adds more"
)]
pub(super) fn is_of_tls(error: &Error) -> bool {
    match error {
        Error::Tls(_) => true,
        Error::Io(error) => error.kind() == ErrorKind::InvalidData,
        _ => false,
    }
}

/// The table that an error reports as missing: "Table 'DATABASE.NAME' doesn't exist".
fn missing_table(said: &str) -> &str {
    let name = said.split('\'').nth(1).unwrap_or(said);
    name.rsplit_once('.').map_or(name, |(_, name)| name)
}

/// The error number of the server.
fn number(error: &Error) -> Option<u16> {
    let error = error.as_database_error()?;
    let error = error.try_downcast_ref::<MySqlDatabaseError>()?;
    Some(error.number())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_missing_table_is_named() {
        for said in [
            "Table 'kamailio.trunks' doesn't exist",
            "Table 'a.b.trunks' doesn't exist",
        ] {
            assert_eq!(missing_table(said), "trunks");
        }
    }
}
