//! Database URLs as Kamailio's operators write them.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};
use thiserror::Error;

/// The port of MySQL.
const MYSQL_PORT: u16 = 3306;

/// Where the address table is: `mysql://USER:PASSWORD@HOST:PORT/DATABASE` or `sqlite:FILE`.
///
/// User and password are taken as they stand, as Kamailio takes them: nothing is percent-decoded. `?socket=PATH` behind the name
/// of the database connects over a unix socket. Shown without the password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// MySQL or MariaDB.
    MySql(MySqlUrl),
    /// A file of SQLite.
    Sqlite(PathBuf),
}

/// A place in a MySQL or MariaDB server.
#[derive(Clone, PartialEq, Eq)]
pub struct MySqlUrl {
    user: String,
    password: Option<String>,
    host: String,
    port: u16,
    database: String,
    socket: Option<PathBuf>,
}

/// What is wrong with a database URL.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{what}; write \"mysql://USER:PASSWORD@HOST:PORT/DATABASE\" or \"sqlite:FILE\"")]
pub struct UrlError {
    what: String,
}

impl MySqlUrl {
    pub(super) fn options(&self) -> MySqlConnectOptions {
        let mut options = MySqlConnectOptions::new()
            .host(&self.host)
            .port(self.port)
            .username(&self.user)
            .database(&self.database)
            // TLS is not compiled in; a server that insists on it says so.
            .ssl_mode(MySqlSslMode::Disabled);
        if let Some(password) = &self.password {
            options = options.password(password);
        }
        if let Some(socket) = &self.socket {
            options = options.socket(socket);
        }
        options
    }

    fn parse(rest: &str) -> Result<Self, UrlError> {
        let wrong = |what: &str| UrlError {
            what: what.to_owned(),
        };
        // The last @: passwords may have others.
        let (login, place) = rest.rsplit_once('@').unwrap_or(("root", rest));
        let (user, password) = match login.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (login, None),
        };
        let (server, database) = place
            .split_once('/')
            .ok_or_else(|| wrong("the URL names no database"))?;
        let (database, query) = database.split_once('?').unwrap_or((database, ""));
        if user.is_empty() || database.is_empty() {
            return Err(wrong("the URL names no user or no database"));
        }
        let (host, port) = host_and_port(server).ok_or_else(|| wrong("the port is no number"))?;
        let socket = match query.split_once('=') {
            None if query.is_empty() => None,
            Some(("socket", path)) if !path.is_empty() => Some(PathBuf::from(path)),
            _ => return Err(wrong("only \"?socket=PATH\" may stand behind the database")),
        };
        Ok(Self {
            user: user.to_owned(),
            password: password.map(str::to_owned),
            host: host.to_owned(),
            port,
            database: database.to_owned(),
            socket,
        })
    }
}

impl FromStr for DatabaseUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = text.split_once(':').ok_or_else(|| UrlError {
            what: "the database URL has no scheme".to_owned(),
        })?;
        match scheme {
            "mysql" | "mariadb" => {
                let rest = rest.strip_prefix("//").ok_or_else(|| UrlError {
                    what: "\"//\" is missing behind the scheme".to_owned(),
                })?;
                Ok(Self::MySql(MySqlUrl::parse(rest)?))
            }
            "sqlite" | "sqlite3" => {
                let path = rest.strip_prefix("//").unwrap_or(rest);
                if path.is_empty() {
                    return Err(UrlError {
                        what: "the URL names no file".to_owned(),
                    });
                }
                Ok(Self::Sqlite(path.into()))
            }
            // Not the whole URL: it may have a password in it.
            other => Err(UrlError {
                what: format!("the database \"{other}\" is not supported"),
            }),
        }
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MySql(url) => fmt::Display::fmt(url, f),
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
        }
    }
}

impl fmt::Display for MySqlUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            user,
            host,
            port,
            database,
            ..
        } = self;
        match &self.socket {
            Some(socket) => write!(f, "mysql://{user}@{}/{database}", socket.display()),
            None if host.contains(':') => write!(f, "mysql://{user}@[{host}]:{port}/{database}"),
            None => write!(f, "mysql://{user}@{host}:{port}/{database}"),
        }
    }
}

impl fmt::Debug for MySqlUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn host_and_port(server: &str) -> Option<(&str, u16)> {
    if let Some(rest) = server.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        return match port.strip_prefix(':') {
            Some(port) => Some((host, port.parse().ok()?)),
            None if port.is_empty() => Some((host, MYSQL_PORT)),
            None => None,
        };
    }
    match server.split_once(':') {
        Some((host, port)) => Some((host, port.parse().ok()?)),
        None if server.is_empty() => Some(("localhost", MYSQL_PORT)),
        None => Some((server, MYSQL_PORT)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_as_kamailio_reads_them_and_shown_without_the_password() {
        for (text, shown) in [
            (
                "mysql://kamailio:kamailiorw@127.0.0.1/kamailio",
                "mysql://kamailio@127.0.0.1:3306/kamailio",
            ),
            (
                "mysql://a:p@ss:w%2Frd@db.example:3307/k",
                "mysql://a@db.example:3307/k",
            ),
            (
                "mysql://a:b@[2001:db8::1]:3307/k",
                "mysql://a@[2001:db8::1]:3307/k",
            ),
            (
                "mysql://a@localhost/k?socket=/run/my.sock",
                "mysql://a@/run/my.sock/k",
            ),
            ("sqlite:portcullis.db", "sqlite:portcullis.db"),
            (
                "sqlite:///var/lib/portcullis.db",
                "sqlite:/var/lib/portcullis.db",
            ),
        ] {
            let url: DatabaseUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), shown);
            assert!(!format!("{url:?}").contains("p@ss"));
        }
        let Ok(DatabaseUrl::MySql(url)) = "mysql://a:p@ss:w%2Frd@h/k".parse() else {
            panic!("a MySQL URL");
        };
        assert_eq!(url.password.as_deref(), Some("p@ss:w%2Frd"));
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        for text in [
            "",
            "portcullis.db",
            "postgres://a:secret@h/k",
            "mysql:a:secret@h/k",
            "mysql://a:secret@h",
            "mysql://a:secret@h/",
            "mysql://a:secret@h:port/k",
            "mysql://a:secret@h/k?ssl=1",
            "sqlite:",
        ] {
            let error = text.parse::<DatabaseUrl>().unwrap_err().to_string();
            assert!(error.contains("mysql://USER"), "{text}: {error}");
            assert!(!error.contains("secret"), "{text}: {error}");
        }
    }
}
