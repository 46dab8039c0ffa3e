//! Database URLs as Kamailio's operators write them.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use sqlx::ConnectOptions as _;
use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};
use thiserror::Error;

/// The port of MySQL.
const MYSQL_PORT: u16 = 3306;

/// Where servers have their unix sockets.
const SOCKETS: [&str; 4] = [
    "/run/mysqld/mysqld.sock",
    "/var/run/mysqld/mysqld.sock",
    "/var/lib/mysql/mysql.sock",
    "/tmp/mysql.sock",
];

/// Where the address table is: `mysql://USER:PASSWORD@HOST:PORT/DATABASE` or `sqlite:FILE`.
///
/// User and password are taken as they stand, as Kamailio takes them: nothing is percent-decoded, the last `@` ends the
/// password, and the first `:` the user. `?socket=PATH` behind the name of the database connects over a unix socket; so does
/// the host `localhost` without a port, if the server's socket is in its usual place, because Kamailio's client library does
/// the same. Shown without the password.
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
    port: Option<u16>,
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
    /// How to connect there, for whoever has other tables in the same database.
    pub fn connect_options(&self) -> MySqlConnectOptions {
        self.options().disable_statement_logging()
    }

    pub(super) fn options(&self) -> MySqlConnectOptions {
        let mut options = MySqlConnectOptions::new()
            .host(&self.host)
            .port(self.port.unwrap_or(MYSQL_PORT))
            .username(&self.user)
            .database(&self.database)
            // TLS is not compiled in; a server that insists on it says so.
            .ssl_mode(MySqlSslMode::Disabled);
        if let Some(password) = &self.password {
            options = options.password(password);
        }
        if let Some(socket) = &self.socket {
            return options.socket(socket);
        }
        let usual = SOCKETS.iter().find(|socket| Path::new(socket).exists());
        match usual {
            Some(socket) if self.is_local() => options.socket(socket),
            _ => options,
        }
    }

    /// What Kamailio's client library takes for "over the unix socket".
    fn is_local(&self) -> bool {
        self.host == "localhost" && self.port.is_none()
    }

    fn parse(rest: &str) -> Result<Self, UrlError> {
        let wrong = |what: &str| UrlError {
            what: what.to_owned(),
        };
        let (rest, socket) = match rest.rsplit_once("?socket=") {
            Some((rest, path)) if !path.is_empty() => (rest, Some(PathBuf::from(path))),
            _ => (rest, None),
        };
        // The last @: passwords may have others.
        let (login, place) = rest
            .rsplit_once('@')
            .ok_or_else(|| wrong("the URL names no user"))?;
        let (user, password) = match login.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (login, None),
        };
        let (server, database) = place
            .split_once('/')
            .ok_or_else(|| wrong("the URL names no database"))?;
        if database.contains('?') {
            return Err(wrong("only \"?socket=PATH\" may stand behind the database"));
        }
        if user.is_empty() || database.is_empty() {
            return Err(wrong("the URL names no user or no database"));
        }
        let (host, port) = host_and_port(server)
            .ok_or_else(|| wrong("what stands for host and port is neither"))?;
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
                if path.is_empty() || path == ":memory:" {
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
            database,
            ..
        } = self;
        let port = self.port.unwrap_or(MYSQL_PORT);
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

fn host_and_port(server: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match server.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            // Kamailio takes a name in brackets for a group of my.cnf, which is not read here.
            host.parse::<Ipv6Addr>().ok()?;
            (host, port)
        }
        None => server.split_at(server.find(':').unwrap_or(server.len())),
    };
    let host = if host.is_empty() { "localhost" } else { host };
    if port.is_empty() {
        return Some((host, None));
    }
    let port = port.strip_prefix(':')?.parse().ok()?;
    Some((host, Some(port)))
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
            (
                "mysql://a:b?c/d#e@h/k?socket=/run/my@x.sock",
                "mysql://a@/run/my@x.sock/k",
            ),
            ("mysql://a@/k", "mysql://a@localhost:3306/k"),
            ("mysql://a@[::1]/k", "mysql://a@[::1]:3306/k"),
            ("mariadb://a@h/k", "mysql://a@h:3306/k"),
            ("sqlite:portcullis.db", "sqlite:portcullis.db"),
            ("sqlite:////var/lib/k.db", "sqlite://var/lib/k.db"),
            (
                "sqlite:///var/lib/portcullis.db",
                "sqlite:/var/lib/portcullis.db",
            ),
        ] {
            let url: DatabaseUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), shown);
            assert!(!format!("{url:?}").contains("p@ss"));
        }
        for password in ["p@ss:w%2Frd", "a/b?c#d", "", ":", "@", "ü %41"] {
            let Ok(DatabaseUrl::MySql(url)) = format!("mysql://a:{password}@h/k").parse() else {
                panic!("a MySQL URL");
            };
            assert_eq!(url.password.as_deref(), Some(password));
            assert_eq!((url.user.as_str(), url.host.as_str()), ("a", "h"));
        }
    }

    #[test]
    fn localhost_without_a_port_is_the_unix_socket() {
        let local = |text: &str| match text.parse() {
            Ok(DatabaseUrl::MySql(url)) => url.is_local(),
            _ => panic!("a MySQL URL"),
        };
        assert!(local("mysql://a@localhost/k"));
        assert!(local("mysql://a@/k"));
        assert!(!local("mysql://a@localhost:3306/k"));
        assert!(!local("mysql://a@127.0.0.1/k"));
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
            "mysql://a:secret@h/k?socket=",
            "mysql://a:secret@[group]/k",
            "mysql://a:secret@[::1]x/k",
            "mysql://a:secret@h:70000/k",
            "mysql://:secret@h/k",
            "mysql://h/k",
            "sqlite::memory:",
            "sqlite:",
        ] {
            let error = text.parse::<DatabaseUrl>().unwrap_err().to_string();
            assert!(error.contains("mysql://USER"), "{text}: {error}");
            assert!(!error.contains("secret"), "{text}: {error}");
        }
    }
}
