//! Where Redis is, and how often it is asked.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// How the exchange reaches Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The servers, in the order in which they are tried: several of a cluster, or a primary and its replicas. With `sentinel`, the sentinels.
    pub servers: Vec<Place>,
    /// Asks the servers, which are sentinels, where the primary is.
    pub sentinel: Option<Sentinel>,
    /// Name and password for the servers.
    pub credentials: Credentials,
    /// Connects over TLS.
    pub tls: Option<TlsFiles>,
    /// The number of the database. A cluster has only 0.
    pub database: u32,
    /// Begins the name of every key.
    pub prefix: String,
    /// The time between two exchanges.
    pub interval: Duration,
    /// The name of this host, which operators see in Redis.
    pub host: String,
}

/// An address of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// A name or an address.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// What is asked of sentinels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sentinel {
    /// The name by which the sentinels know the primary.
    pub primary: String,
    /// Name and password for the sentinels.
    pub credentials: Credentials,
}

/// A name and a password. The file is read for each connection, so that a new password needs no restart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// The user; `None`: the default user.
    pub user: Option<String>,
    /// The file with the password; `None`: no password.
    pub password_file: Option<PathBuf>,
}

/// The files of TLS, which are read for each connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authorities that may have signed the server's certificate; `None`: those of the system.
    pub ca: Option<PathBuf>,
    /// Certificate and key of this host, if the server asks for them.
    pub pair: Option<(PathBuf, PathBuf)>,
}

impl Options {
    /// How long the exchange waits for an answer.
    pub(crate) fn patience(&self) -> Duration {
        (self.interval * 3).max(Duration::from_secs(1))
    }

    /// After which time without an exchange the other hosts count as not heard.
    pub(crate) fn silence(&self) -> Duration {
        (self.interval * 5).max(Duration::from_secs(1))
    }

    /// After which time without an exchange the other hosts no longer count a host.
    pub(crate) fn absence(&self) -> Duration {
        (self.interval * 10).max(Duration::from_secs(5))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}
