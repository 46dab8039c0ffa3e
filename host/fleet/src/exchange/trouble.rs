//! Why an exchange failed.

use std::io;
use std::path::PathBuf;

use portcullis_text::clean;
use redis::RedisError;
use thiserror::Error;

use super::options::Place;

/// Why an exchange failed, and what an operator can do.
#[derive(Debug, Error)]
pub enum Trouble {
    /// No connection.
    #[error(
        "Redis at {place} cannot be reached: {source}; start it, or correct `url` in [fleet.redis]"
    )]
    Unreachable {
        /// The server.
        place: Place,
        /// The error of the system.
        source: io::Error,
    },
    /// No answer in time.
    #[error("Redis at {place} does not answer; look at its load, its disk and the network")]
    Silent {
        /// The server.
        place: Place,
    },
    /// The connection ended.
    #[error(
        "Redis at {place} closed the connection ({cause}); if the server expects TLS there, write rediss:// in `url` of [fleet.redis]"
    )]
    Closed {
        /// The server.
        place: Place,
        /// The error.
        cause: String,
    },
    /// The handshake of TLS failed.
    #[error(
        "no TLS with Redis at {place}: {cause}; see `ca`, `certificate` and `key` in [fleet.redis], or write redis:// if the server does not use TLS there"
    )]
    Tls {
        /// The server.
        place: Place,
        /// The error.
        cause: String,
    },
    /// A file cannot be used.
    #[error("{}, which [fleet.redis] names, cannot be used: {cause}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// The password is wrong or missing.
    #[error(
        "Redis at {place} refuses the password: {cause}; see `password-file` in [fleet.redis] and the user in `url`"
    )]
    Password {
        /// The server.
        place: Place,
        /// What the server says.
        cause: String,
    },
    /// The user may not do what the exchange does.
    #[error(
        "Redis at {place} does not permit the exchange: {cause}; the user needs EVALSHA, SCRIPT LOAD, TIME and the commands for hashes and sorted sets on keys that begin with `prefix`"
    )]
    Permission {
        /// The server.
        place: Place,
        /// What the server says.
        cause: String,
    },
    /// The server is a replica.
    #[error(
        "Redis at {place} is a replica and takes no changes; name the primary in `url` of [fleet.redis], or the sentinels and `sentinel`"
    )]
    ReadOnly {
        /// The server.
        place: Place,
    },
    /// The server has no memory left for changes.
    #[error(
        "Redis at {place} has reached `maxmemory` and takes no changes; raise it, or let it evict other keys (`maxmemory-policy`)"
    )]
    OutOfMemory {
        /// The server.
        place: Place,
    },
    /// The keys are on another node of the cluster.
    #[error("the keys are on another node of the cluster: {place} refers to {to}")]
    Moved {
        /// The server that was asked.
        place: Place,
        /// The server that has the keys.
        to: Place,
    },
    /// The slot of the keys is on its way to another node of the cluster.
    #[error(
        "the cluster moves the slot of the keys away from {place}; the exchange goes on when it has arrived"
    )]
    Migrating {
        /// The server that has the slot.
        place: Place,
    },
    /// A key of ours holds something of somebody else.
    #[error(
        "the key {key} in Redis holds {found} of another program; remove it, or choose another `prefix` in [fleet.redis]"
    )]
    Foreign {
        /// The key.
        key: String,
        /// What it holds.
        found: String,
    },
    /// The sentinels know no primary.
    #[error(
        "the sentinel at {place} knows no primary with the name {primary}; correct `sentinel` in [fleet.redis]"
    )]
    NoPrimary {
        /// The sentinel.
        place: Place,
        /// The name.
        primary: String,
    },
    /// Anything else that the server says.
    #[error("Redis at {place}: {cause}")]
    Server {
        /// The server.
        place: Place,
        /// What the server says.
        cause: String,
    },
}

impl Trouble {
    /// What an error of the library means.
    pub(crate) fn of(place: &Place, error: &RedisError) -> Self {
        let place = place.clone();
        if error.is_timeout() {
            return Self::Silent { place };
        }
        // A node that imports a slot answers only to who asks for each key there. That is for seconds.
        if matches!(error.code(), Some("ASK" | "TRYAGAIN")) {
            return Self::Migrating { place };
        }
        let node = error.redirect_node();
        let node = node.and_then(|(addr, _slot)| addr.rsplit_once(':'));
        if let Some((host, Ok(port))) = node.map(|(host, port)| (host, port.parse())) {
            let host = match host.trim_matches(['[', ']']) {
                "" => place.host.clone(),
                host => host.to_owned(),
            };
            let to = Place { host, port };
            return Self::Moved { place, to };
        }
        let cause = match (error.code(), error.detail()) {
            (Some(code), Some(detail)) => format!("{code} {detail}"),
            (Some(code), None) => code.to_owned(),
            (None, _) => error.to_string(),
        };
        let cause = clean(&cause).to_string();
        // Servers before 7.0 put what a command in a script says behind words of their own.
        let says = |word| cause.contains(word);
        if let Some((_, foreign)) = cause.split_once("FOREIGN ") {
            let mut words = foreign.split_whitespace();
            let key = words.next().unwrap_or_default().to_owned();
            let found = words.next().unwrap_or("a value").replace('-', " ");
            return Self::Foreign { key, found };
        }
        // Of a command within the script, servers before 7.2 say the former, later ones the latter.
        if says("NOPERM") || says("user executing the script can't") || says("ACL failure") {
            return Self::Permission { place, cause };
        }
        if says("NOAUTH")
            || says("WRONGPASS")
            || says("invalid password")
            || says("without any password")
            || error.kind() == redis::ErrorKind::AuthenticationFailed
        {
            return Self::Password { place, cause };
        }
        if says("READONLY") {
            return Self::ReadOnly { place };
        }
        if says("OOM ") {
            return Self::OutOfMemory { place };
        }
        match error.is_io_error()
            || error.is_connection_dropped()
            || error.kind() == redis::ErrorKind::Parse
        {
            true => Self::Closed { place, cause },
            false => Self::Server { place, cause },
        }
    }

    /// A short name of the kind, for metrics and logs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "unreachable",
            Self::Silent { .. } => "silent",
            Self::Closed { .. } => "closed",
            Self::Tls { .. } => "tls",
            Self::File { .. } => "file",
            Self::Password { .. } => "password",
            Self::Permission { .. } => "permission",
            Self::ReadOnly { .. } => "read-only",
            Self::OutOfMemory { .. } => "out-of-memory",
            Self::Moved { .. } => "moved",
            Self::Migrating { .. } => "migrating",
            Self::Foreign { .. } => "foreign",
            Self::NoPrimary { .. } => "no-primary",
            Self::Server { .. } => "server",
        }
    }

    /// Whether what the server said concerns one part only.
    pub(crate) fn concerns_part(&self) -> bool {
        match self {
            Self::Foreign { .. } | Self::OutOfMemory { .. } => true,
            Self::Unreachable { .. }
            | Self::Silent { .. }
            | Self::Closed { .. }
            | Self::Tls { .. }
            | Self::File { .. }
            | Self::Password { .. }
            | Self::Permission { .. }
            | Self::ReadOnly { .. }
            | Self::Moved { .. }
            | Self::Migrating { .. }
            | Self::NoPrimary { .. }
            | Self::Server { .. } => false,
        }
    }

    /// Whether the connection can be used on.
    pub(crate) fn keeps_connection(&self) -> bool {
        self.concerns_part() || matches!(self, Self::Migrating { .. })
    }
}

#[cfg(test)]
mod tests {
    use redis::Value;

    use super::*;

    /// What the library makes of an answer.
    fn of(answer: &str) -> Trouble {
        let place = Place {
            host: "redis.example".to_owned(),
            port: 6379,
        };
        let read = redis::parse_redis_value(format!("-{answer}\r\n").as_bytes());
        let error = match read.and_then(Value::extract_error) {
            Err(error) => error,
            Ok(value) => panic!("{value:?} is no error"),
        };
        Trouble::of(&place, &error)
    }

    #[test]
    fn what_the_server_says_leads_to_what_an_operator_can_do() {
        let kinds = [
            ("NOAUTH Authentication required.", "password"),
            ("WRONGPASS invalid username-password pair", "password"),
            (
                "ERR The user executing the script can't run this command or subcommand script: c2, on @user_script:41.",
                "permission",
            ),
            (
                "ERR ACL failure in script: User edge has no permissions to run the 'hset' command",
                "permission",
            ),
            (
                "NOPERM User edge has no permissions to run the 'evalsha' command",
                "permission",
            ),
            (
                "READONLY You can't write against a read only replica.",
                "read-only",
            ),
            (
                "READONLY You can't write against a read only replica. script: 5b, on @user_script:1.",
                "read-only",
            ),
            (
                "OOM command not allowed when used memory > 'maxmemory'.",
                "out-of-memory",
            ),
            ("MOVED 3999 192.0.2.1:6381", "moved"),
            ("ASK 3999 192.0.2.1:6381", "migrating"),
            (
                "TRYAGAIN Multiple keys request during rehashing of slot",
                "migrating",
            ),
            ("CLUSTERDOWN The cluster is down", "server"),
            ("LOADING Redis is loading the dataset in memory", "server"),
            (
                "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
                "server",
            ),
            ("NOSCRIPT No matching script.", "server"),
            ("NOREPLICAS Not enough good replicas to write.", "server"),
            ("FOREIGN {edge}:bans:values a-string", "foreign"),
        ];
        for (answer, kind) in kinds {
            let trouble = of(answer);
            assert_eq!(trouble.kind(), kind, "{answer}: {trouble}");
        }
        let moved = of("MOVED 3999 :6381");
        assert!(
            matches!(&moved, Trouble::Moved { to, .. } if to.host == "redis.example" && to.port == 6381),
            "{moved}"
        );
        let said = of("FOREIGN {edge}:bans:values a-string").to_string();
        assert!(
            said.contains("{edge}:bans:values in Redis holds a string"),
            "{said}"
        );
        assert!(
            !of("ASK 1 192.0.2.1:1").concerns_part() && of("ASK 1 192.0.2.1:1").keeps_connection()
        );
    }
}
