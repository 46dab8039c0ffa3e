//! Database URLs in the form that Kamailio uses.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use thiserror::Error;

/// The location of the tables: `mysql://USER:PASSWORD@HOST:PORT/DATABASE`, the same with `postgres:`, or `sqlite:FILE`.
///
/// User and password are taken literally, as in Kamailio: nothing is percent-decoded, the last `@` ends the password, and the first `:`
/// ends the user. `?socket=PATH` after the name of the database connects over a unix socket; so does the host `localhost` without a port,
/// if the server's socket is in its usual place, because Kamailio's client library does the same; for PostgreSQL `PATH` is the directory of
/// the socket. `ssl-mode`, `ssl-ca`, `ssl-cert` and `ssl-key` have the meaning that they have for MySQL's clients ([`SslMode`]);
/// PostgreSQL's own names for them are accepted too. Options are separated by `&`. Displayed without password and options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// MySQL or MariaDB.
    MySql(ServerUrl),
    /// PostgreSQL.
    Postgres(ServerUrl),
    /// An SQLite file.
    Sqlite(PathBuf),
}

/// A database of a server.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerUrl {
    scheme: Scheme,
    pub(crate) user: String,
    pub(crate) password: Option<String>,
    pub(crate) host: String,
    port: Option<u16>,
    pub(crate) database: String,
    pub(crate) socket: Option<PathBuf>,
    ssl_mode: Option<SslMode>,
    pub(crate) ssl_ca: Option<PathBuf>,
    /// Certificate and key of the client.
    pub(crate) ssl_client: Option<(PathBuf, PathBuf)>,
}

/// The scheme of a server's URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Scheme {
    name: &'static str,
    /// The default port of this kind of server.
    port: u16,
}

const MYSQL: Scheme = Scheme {
    name: "mysql",
    port: 3306,
};

const POSTGRES: Scheme = Scheme {
    name: "postgres",
    port: 5432,
};

/// Whether a connection to a server is encrypted, and how the server's certificate is verified: `ssl-mode` of MySQL's clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SslMode {
    /// No TLS. The default for a server on this machine.
    Disabled,
    /// TLS if the server offers it, without verification: it protects against passive attackers only. The default for a remote server.
    Preferred,
    /// TLS or no connection; without verification.
    Required,
    /// The certificate must have been issued by `ssl-ca`, for any name.
    VerifyCa,
    /// The same, and it must name the host of the URL.
    VerifyIdentity,
}

/// Their names in a URL.
const SSL_MODES: [(&str, SslMode); 5] = [
    ("disabled", SslMode::Disabled),
    ("preferred", SslMode::Preferred),
    ("required", SslMode::Required),
    ("verify-ca", SslMode::VerifyCa),
    ("verify-identity", SslMode::VerifyIdentity),
];

/// The names used by PostgreSQL's clients.
const LIBPQ_MODES: [(&str, SslMode); 4] = [
    ("disable", SslMode::Disabled),
    ("prefer", SslMode::Preferred),
    ("require", SslMode::Required),
    ("verify-full", SslMode::VerifyIdentity),
];

/// The names of options used by PostgreSQL's clients.
const LIBPQ_OPTIONS: [(&str, &str); 4] = [
    ("sslmode", "ssl-mode"),
    ("sslrootcert", "ssl-ca"),
    ("sslcert", "ssl-cert"),
    ("sslkey", "ssl-key"),
];

/// The options after the name of the database.
const OPTIONS: [&str; 5] = ["socket", "ssl-mode", "ssl-ca", "ssl-cert", "ssl-key"];

impl Scheme {
    /// The option with this name.
    fn option(self, name: &str) -> Option<&'static str> {
        let own = OPTIONS.iter().find(|option| **option == name);
        let libpq = LIBPQ_OPTIONS.iter().filter(|_| self == POSTGRES);
        let mut libpq = libpq.filter(|(libpq, _)| *libpq == name);
        own.copied().or_else(|| libpq.next().map(|(_, own)| *own))
    }
}

/// What is wrong with a database URL.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{what}; write \"mysql://USER:PASSWORD@HOST:PORT/DATABASE\", \"postgres://USER:PASSWORD@HOST:PORT/DATABASE\" or \"sqlite:FILE\""
)]
pub struct UrlError {
    what: String,
}

impl DatabaseUrl {
    /// The file, if the database is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::MySql(_) | Self::Postgres(_) => None,
            Self::Sqlite(path) => Some(path),
        }
    }

    /// A warning about the network path to a server; `None` if there is none.
    pub fn insecurity(&self) -> Option<&'static str> {
        match self {
            Self::MySql(url) | Self::Postgres(url) => url.insecurity(),
            Self::Sqlite(_) => None,
        }
    }
}

impl ServerUrl {
    /// The address of the server.
    pub(crate) fn port(&self) -> u16 {
        self.port.unwrap_or(self.scheme.port)
    }

    /// Whether its connections are encrypted, and what is verified.
    pub fn ssl_mode(&self) -> SslMode {
        match self.ssl_mode {
            Some(mode) => mode,
            None if self.is_on_this_machine() => SslMode::Disabled,
            None => SslMode::Preferred,
        }
    }

    /// Whether the connection stays on this machine: over a unix socket or the loopback interface.
    pub fn is_on_this_machine(&self) -> bool {
        let is_loopback = |ip: IpAddr| ip.to_canonical().is_loopback();
        self.socket.is_some()
            || self.host == "localhost"
            || self.host.parse().is_ok_and(is_loopback)
    }

    fn insecurity(&self) -> Option<&'static str> {
        if self.is_on_this_machine() {
            return None;
        }
        match self.ssl_mode() {
            SslMode::Disabled => Some(
                "is reached without TLS: rows, policies and the password can be read and changed on the way; \
                 add ?ssl-mode=verify-identity&ssl-ca=FILE to its URL",
            ),
            SslMode::Preferred => Some(
                "is reached over TLS only if it offers it, and its certificate is not checked: who sits in between can read and change \
                 everything; add ?ssl-mode=verify-identity&ssl-ca=FILE to its URL",
            ),
            SslMode::Required => Some(
                "is reached over TLS, and its certificate is not checked: who sits in between can read and change everything; \
                 write ssl-mode=verify-identity&ssl-ca=FILE in its URL",
            ),
            SslMode::VerifyCa | SslMode::VerifyIdentity => None,
        }
    }

    /// What Kamailio's client library takes to mean "over the unix socket".
    pub(crate) fn is_local(&self) -> bool {
        self.host == "localhost" && self.port.is_none()
    }

    fn parse(scheme: Scheme, rest: &str) -> Result<Self, UrlError> {
        let wrong = |what: &str| UrlError {
            what: what.to_owned(),
        };
        let (rest, options) = Options::split(scheme, rest)?;
        // The last @: passwords may contain others.
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
            return Err(wrong(
                "only socket, ssl-mode, ssl-ca, ssl-cert and ssl-key may follow the database, as in \"?ssl-mode=required\"",
            ));
        }
        if user.is_empty() || database.is_empty() {
            return Err(wrong("the URL names no user or no database"));
        }
        let (host, port) = host_and_port(server)
            .ok_or_else(|| wrong("what stands for host and port is neither"))?;
        Ok(Self {
            scheme,
            user: user.to_owned(),
            password: password.map(str::to_owned),
            host: host.to_owned(),
            port,
            database: database.to_owned(),
            socket: options.socket,
            ssl_mode: options.ssl_mode,
            ssl_ca: options.ssl_ca,
            ssl_client: options.ssl_client,
        })
    }
}

/// The query after `?`.
#[derive(Default)]
struct Options {
    socket: Option<PathBuf>,
    ssl_mode: Option<SslMode>,
    ssl_ca: Option<PathBuf>,
    ssl_client: Option<(PathBuf, PathBuf)>,
}

impl Options {
    /// Removes the options from the end of a URL. A `?` without a following option is part of a password, or an error to be found later.
    fn split(scheme: Scheme, rest: &str) -> Result<(&str, Self), UrlError> {
        let is_option = |text: &str| {
            let name = text.split_once('=').map(|(name, _)| name);
            name.and_then(|name| scheme.option(name)).is_some()
        };
        // Paths may contain any character, and so may passwords before the last @.
        let database = rest.rfind('@').map_or(0, |at| at + 1);
        let mut marks = rest.match_indices('?').map(|(at, _)| at);
        let begins = |at: &usize| is_option(&rest[at + 1..]);
        let behind = marks.clone().filter(begins).find(|at| *at > database);
        let Some(at) = behind.or_else(|| marks.rfind(begins)) else {
            return Ok((rest, Self::default()));
        };
        let mut given: Vec<(&str, String)> = Vec::new();
        for part in rest[at + 1..].split('&') {
            let option = part.split_once('=');
            let option = option.and_then(|(name, value)| Some((scheme.option(name)?, value)));
            match (option, given.last_mut()) {
                (Some((name, value)), _) => given.push((name, value.to_owned())),
                // An & in a path.
                (None, Some((_, value))) => {
                    value.push('&');
                    value.push_str(part);
                }
                (None, None) => {}
            }
        }
        Ok((&rest[..at], Self::read(&given)?))
    }

    fn read(given: &[(&str, String)]) -> Result<Self, UrlError> {
        let wrong = |what: String| UrlError { what };
        for (at, (name, value)) in given.iter().enumerate() {
            if value.is_empty() {
                return Err(wrong(format!("\"{name}\" has no value")));
            }
            if given[..at].iter().any(|(other, _)| other == name) {
                return Err(wrong(format!("\"{name}\" occurs twice")));
            }
        }
        let value = |name: &str| given.iter().find(|(given, _)| *given == name);
        let path = |name: &str| value(name).map(|(_, value)| PathBuf::from(value));
        let ssl_mode = match value("ssl-mode") {
            None => None,
            Some((_, text)) => {
                let name = text.to_ascii_lowercase().replace('_', "-");
                let known = SSL_MODES.iter().chain(&LIBPQ_MODES);
                let known = known.clone().find(|(known, _)| *known == name);
                let known = known.ok_or_else(|| {
                    let modes = SSL_MODES.map(|(name, _)| name).join(", ");
                    wrong(format!("ssl-mode is none of {modes}"))
                })?;
                Some(known.1)
            }
        };
        let ssl_ca = path("ssl-ca");
        let verifies = matches!(ssl_mode, Some(SslMode::VerifyCa | SslMode::VerifyIdentity));
        if verifies && ssl_ca.is_none() {
            return Err(wrong(
                "a certificate is checked against the file in ssl-ca, and there is none".to_owned(),
            ));
        }
        if !verifies && ssl_ca.is_some() {
            return Err(wrong(
                "ssl-ca is for ssl-mode=verify-ca and ssl-mode=verify-identity, and would not be looked at".to_owned(),
            ));
        }
        let ssl_client = match (path("ssl-cert"), path("ssl-key")) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => return Err(wrong("ssl-cert and ssl-key go together".to_owned())),
        };
        Ok(Self {
            socket: path("socket"),
            ssl_mode,
            ssl_ca,
            ssl_client,
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
            "mysql" | "mariadb" => Ok(Self::MySql(ServerUrl::parse(MYSQL, server(rest)?)?)),
            "postgres" | "postgresql" => {
                Ok(Self::Postgres(ServerUrl::parse(POSTGRES, server(rest)?)?))
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
            // Not the whole URL: it may contain a password.
            other => Err(UrlError {
                what: format!("the database \"{other}\" is not supported"),
            }),
        }
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MySql(url) | Self::Postgres(url) => fmt::Display::fmt(url, f),
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
        }
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            scheme: Scheme { name, .. },
            user,
            host,
            database,
            ..
        } = self;
        let port = self.port();
        match &self.socket {
            Some(socket) => write!(f, "{name}://{user}@{}/{database}", socket.display()),
            None if host.contains(':') => write!(f, "{name}://{user}@[{host}]:{port}/{database}"),
            None => write!(f, "{name}://{user}@{host}:{port}/{database}"),
        }
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The part after the slashes in the URL of a server.
fn server(rest: &str) -> Result<&str, UrlError> {
    rest.strip_prefix("//").ok_or_else(|| UrlError {
        what: "\"//\" is missing after the scheme".to_owned(),
    })
}

fn host_and_port(server: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match server.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            // Kamailio takes a name in brackets to mean a group of my.cnf, which is not supported here.
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
            (
                "mysql://a:b?ssl-mode=x@h/k?ssl-mode=required&socket=/a&b?c",
                "mysql://a@/a&b?c/k",
            ),
            (
                "mysql://a:b@h/k?ssl-mode=VERIFY_CA&ssl-ca=/etc/ca.pem",
                "mysql://a@h:3306/k",
            ),
            ("mysql://a@/k", "mysql://a@localhost:3306/k"),
            ("mysql://a@[::1]/k", "mysql://a@[::1]:3306/k"),
            ("mariadb://a@h/k", "mysql://a@h:3306/k"),
            (
                "postgres://kamailio:kamailiorw@127.0.0.1/kamailio",
                "postgres://kamailio@127.0.0.1:5432/kamailio",
            ),
            ("postgresql://a:p@ss@h:5433/k", "postgres://a@h:5433/k"),
            (
                "postgres://a@h/k?socket=/run/postgresql",
                "postgres://a@/run/postgresql/k",
            ),
            (
                "postgres://a@h/k?sslmode=verify-full&sslrootcert=/etc/ca.pem",
                "postgres://a@h:5432/k",
            ),
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
    fn tls_is_preferred_elsewhere_and_off_on_this_machine() {
        let read = |text: &str| match text.parse() {
            Ok(DatabaseUrl::MySql(url)) => url,
            other => panic!("{text}: {other:?}"),
        };
        for (text, mode, is_told) in [
            ("mysql://a@127.0.0.2/k", SslMode::Disabled, false),
            ("mysql://a@[::1]:3307/k", SslMode::Disabled, false),
            ("mysql://a@localhost/k", SslMode::Disabled, false),
            (
                "mysql://a@h/k?socket=/run/my.sock",
                SslMode::Disabled,
                false,
            ),
            ("mysql://a@db.example/k", SslMode::Preferred, true),
            (
                "mysql://a@192.0.2.1/k?ssl-mode=disabled",
                SslMode::Disabled,
                true,
            ),
            (
                "mysql://a@192.0.2.1/k?ssl-mode=required",
                SslMode::Required,
                true,
            ),
            (
                "mysql://a@h/k?ssl-mode=verify-ca&ssl-ca=ca.pem",
                SslMode::VerifyCa,
                false,
            ),
            (
                "mysql://a@127.0.0.1/k?ssl-ca=ca.pem&ssl-mode=verify-identity",
                SslMode::VerifyIdentity,
                false,
            ),
        ] {
            let url = read(text);
            assert_eq!(url.ssl_mode(), mode, "{text}");
            assert_eq!(url.insecurity().is_some(), is_told, "{text}");
        }
        let Ok(DatabaseUrl::Postgres(url)) =
            "postgres://a@192.0.2.1/k?sslmode=verify-full&sslrootcert=/ca.pem".parse()
        else {
            panic!("a PostgreSQL URL");
        };
        assert_eq!(url.ssl_mode(), SslMode::VerifyIdentity);
        assert_eq!(url.ssl_ca.as_deref(), Some(Path::new("/ca.pem")));
        let url = read("mysql://a@h/k?ssl-mode=required&ssl-cert=/c&d.pem&ssl-key=/k.pem");
        assert_eq!(url.ssl_client, Some(("/c&d.pem".into(), "/k.pem".into())));
    }

    /// `verify-ca` means nothing where every public authority is trusted: the driver is built with an empty list of them.
    #[test]
    fn no_authority_is_trusted_but_the_one_that_is_named() {
        let lock = include_str!("../../../Cargo.lock");
        let roots: Vec<_> = lock
            .split("[[package]]")
            .filter(|package| package.contains("name = \"webpki-roots\""))
            .collect();
        assert!(
            matches!(&roots[..], [one] if !one.contains("source = ")),
            "{roots:?}"
        );
        // The registries' client trusts the system's authorities; the driver must not.
        let driver = lock
            .split("[[package]]")
            .find(|package| package.contains("name = \"sqlx-core\""));
        assert!(driver.is_some_and(|driver| {
            driver.contains("webpki-roots") && !driver.contains("rustls-native-certs")
        }));
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        for text in [
            "",
            "portcullis.db",
            "oracle://a:secret@h/k",
            "postgres://a:secret@h",
            "postgres://a:secret@h/k?sslmode=allow",
            "postgres://a:secret@h/k?sslmode=require&ssl-mode=required",
            "mysql://a:secret@h/k?sslmode=require",
            "mysql:a:secret@h/k",
            "mysql://a:secret@h",
            "mysql://a:secret@h/",
            "mysql://a:secret@h:port/k",
            "mysql://a:secret@h/k?ssl=1",
            "mysql://a:secret@h/k?socket=",
            "mysql://a:secret@h/k?ssl-mode=maybe",
            "mysql://a:secret@h/k?ssl-mode=verify-ca",
            "mysql://a:secret@h/k?ssl-mode=required&ssl-ca=ca.pem",
            "mysql://a:secret@h/k?ssl-ca=ca.pem",
            "mysql://a:secret@h/k?ssl-mode=required&ssl-cert=c.pem",
            "mysql://a:secret@h/k?ssl-mode=required&ssl-mode=disabled",
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
