//! PostgreSQL.

use std::io::ErrorKind;
use std::path::Path;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{ConnectOptions as _, Connection as _, Error};

use super::meaning::{Meaning, code, is_lost};
use super::mysql::{BAD_CERTIFICATE, is_of_tls};
use super::{Dialect, Driver};
use crate::url::{ServerUrl, SslMode};
use crate::wire::Wire;
use crate::{DatabaseUrl, Name};

/// The prefix of a unix socket's file name; the port follows.
const SOCKET: &str = ".s.PGSQL.";

/// PostgreSQL.
#[derive(Debug)]
pub(crate) struct Postgres;

impl Dialect for Postgres {
    /// Names are in double quotes, and values are numbered. No statement contains a quote or a question mark in a literal.
    fn statement(&self, sql: &str) -> String {
        let mut statement = String::with_capacity(sql.len() + 16);
        let mut values = 0;
        for c in sql.chars() {
            match c {
                '`' => statement.push('"'),
                '?' => {
                    values += 1;
                    statement.push('$');
                    statement.push_str(&values.to_string());
                }
                other => statement.push(other),
            }
        }
        statement
    }

    fn quote(&self) -> char {
        '"'
    }

    fn text(&self, column: &Name) -> String {
        self.as_text(&column.quoted())
    }

    fn insert_if_absent(&self, row: &str) -> String {
        format!("INSERT INTO {row} ON CONFLICT DO NOTHING")
    }

    fn begin_read(&self) -> &'static str {
        "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"
    }

    fn begin_write(&self) -> &'static str {
        "BEGIN"
    }

    /// The mode excludes itself and other writers, and not readers.
    fn hold(&self, table: &Name) -> Option<String> {
        let table = table.quoted();
        Some(format!("LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE"))
    }

    fn contains(&self, column: &Name) -> String {
        format!("strpos({}, ?) > 0", self.text(column))
    }

    fn sorts_null_last(&self) -> bool {
        true
    }

    fn milliseconds(&self) -> &'static str {
        "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)"
    }

    fn is_there(&self) -> &'static str {
        "SELECT COUNT(*) FROM pg_catalog.pg_class \
         WHERE relname = ? AND relkind IN ('r', 'p', 'v', 'm', 'f') AND pg_catalog.pg_table_is_visible(oid)"
    }

    fn scripts(&self) -> &'static [&'static str] {
        &[
            include_str!("../../../../migrations/postgres/0001_address.sql"),
            include_str!("../../../../migrations/postgres/0002_trusted.sql"),
            include_str!("../../../../migrations/postgres/0003_policies.sql"),
            include_str!("../../../../migrations/postgres/0004_tenants.sql"),
            include_str!("../../../../migrations/postgres/0005_audit.sql"),
            include_str!("../../../../migrations/postgres/0006_dispatcher.sql"),
            include_str!("../../../../migrations/postgres/0007_hosts.sql"),
            include_str!("../../../../migrations/postgres/0008_rollouts.sql"),
        ]
    }

    fn undoes_scripts(&self) -> bool {
        true
    }
}

impl Driver for Postgres {
    fn connect<'u>(&self, url: &'u DatabaseUrl) -> BoxFuture<'u, Result<Wire, Error>> {
        let connect = async move {
            let DatabaseUrl::Postgres(url) = url else {
                return Err(Error::Protocol("no URL of a PostgreSQL server".to_owned()));
            };
            let link = connect(url).await?;
            Ok(Wire::Postgres(Box::new(link)))
        };
        connect.boxed()
    }

    fn mend_connecting(&self, error: &Error) -> &'static str {
        match (code(error).as_deref(), error) {
            (Some("28P01"), _) => "check user and password in [database] url",
            (Some("28000"), _) => {
                "check user and database in [database] url, and that a line of the server's pg_hba.conf lets them in from here; \
                 where that line is `hostssl`, add ?ssl-mode=verify-identity&ssl-ca=FILE"
            }
            (Some("3D000" | "42501"), _) => {
                "check the name of the database in [database] url, and what the user may do there"
            }
            (Some("53300"), _) => {
                "give the server a larger `max_connections`, or look who holds its connections"
            }
            (Some("57P03"), _) => "the server is starting or ending: wait, and check its log",
            (_, Error::Tls(_)) => {
                "check `ssl-mode` and `ssl-ca` in [database] url, and that the server has a certificate (ssl = on)"
            }
            (_, Error::Io(error)) if error.kind() == ErrorKind::InvalidData => BAD_CERTIFICATE,
            _ => "check host and port in [database] url, and that the server runs",
        }
    }

    fn meaning(&self, error: &Error, said: &str) -> Meaning {
        match code(error).as_deref() {
            // undefined_table, undefined_column, insufficient_privilege
            Some("42P01") => Meaning::NoTable(missing_table(said).to_owned()),
            Some("42703") => Meaning::NoColumn,
            Some("42501") => Meaning::Denied,
            // serialization_failure, deadlock_detected
            Some("40001" | "40P01") => Meaning::Conflict,
            // lock_not_available
            Some("55P03") => Meaning::Conflict,
            // admin_shutdown, crash_shutdown: the session ended
            Some("57P01" | "57P02") => Meaning::Lost,
            // cannot_connect_now
            Some("57P03") => Meaning::NotServing,
            None if is_lost(error) => Meaning::Lost,
            // numeric_value_out_of_range
            Some("22003") => Meaning::Other(
                "; Kamailio's columns hold ports up to 32767 and groups up to 2147483647 in PostgreSQL: \
                 ALTER TABLE address ALTER COLUMN port TYPE integer makes room for every port",
            ),
            // read_only_sql_transaction
            Some("25006") => Meaning::ReadOnly(
                "; this server only reads, as a standby does: name the primary in [database] url",
            ),
            _ => Meaning::Other(""),
        }
    }
}

async fn connect(url: &ServerUrl) -> Result<PgConnection, Error> {
    let options = options(url);
    match PgConnection::connect_with(&options).await {
        // PostgreSQL's clients continue without TLS if it is only preferred.
        Err(error) if url.ssl_mode() == SslMode::Preferred && is_of_tls(&error) => {
            let options = options.ssl_mode(PgSslMode::Disable);
            PgConnection::connect_with(&options).await
        }
        connected => connected,
    }
}

fn options(url: &ServerUrl) -> PgConnectOptions {
    // No ~/.pgpass: the password comes from the URL.
    let mut options = PgConnectOptions::new_without_pgpass()
        .host(&url.host)
        .port(url.port())
        .username(&url.user)
        .database(&url.database)
        .application_name("portcullis")
        .ssl_mode(match url.ssl_mode() {
            SslMode::Disabled => PgSslMode::Disable,
            SslMode::Preferred => PgSslMode::Prefer,
            SslMode::Required => PgSslMode::Require,
            SslMode::VerifyCa => PgSslMode::VerifyCa,
            SslMode::VerifyIdentity => PgSslMode::VerifyFull,
        })
        .disable_statement_logging();
    if let Some(ca) = &url.ssl_ca {
        options = options.ssl_root_cert(ca);
    }
    if let Some((cert, key)) = &url.ssl_client {
        options = options.ssl_client_cert(cert).ssl_client_key(key);
    }
    if let Some(password) = &url.password {
        options = options.password(password);
    }
    match &url.socket {
        Some(socket) => options.socket(folder(socket)),
        None => options,
    }
}

/// The directory of a socket, which PostgreSQL's clients expect; the path of the file is accepted too.
fn folder(socket: &Path) -> &Path {
    let name = socket.file_name().unwrap_or_default();
    match name.to_string_lossy().starts_with(SOCKET) {
        true => socket.parent().unwrap_or(socket),
        false => socket,
    }
}

/// The table that an error reports as missing: `relation "NAME" does not exist`.
fn missing_table(said: &str) -> &str {
    let name = said.split('"').nth(1).unwrap_or(said);
    name.rsplit_once('.').map_or(name, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_have_quotes_and_numbers_of_postgresql() {
        assert_eq!(
            Postgres.statement("DELETE FROM `sip-trunks` WHERE `grp` = ? AND `ip_addr` = ?"),
            "DELETE FROM \"sip-trunks\" WHERE \"grp\" = $1 AND \"ip_addr\" = $2"
        );
    }

    #[test]
    fn the_missing_table_is_named() {
        for said in [
            "relation \"trunks\" does not exist",
            "relation \"public.trunks\" does not exist",
        ] {
            assert_eq!(missing_table(said), "trunks");
        }
    }

    #[test]
    fn a_socket_is_its_folder_or_its_file() {
        for socket in ["/run/postgresql", "/run/postgresql/.s.PGSQL.5432"] {
            assert_eq!(folder(Path::new(socket)), Path::new("/run/postgresql"));
        }
    }
}
