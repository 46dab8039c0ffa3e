//! `[fleet.redis]`: where the hosts of a fleet exchange what they count together.

use std::path::PathBuf;
use std::time::Duration;

use super::problem::Bad;
use super::section::{Section, Value};
use super::shape::Shape;
use super::value::duration;

/// Where the hosts of a fleet exchange what they count together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisConfig {
    /// The servers, or with `sentinel` the sentinels; empty: nothing is exchanged.
    pub servers: Vec<RedisServer>,
    /// The name by which the sentinels know the primary; `None`: the servers are no sentinels.
    pub sentinel: Option<String>,
    /// File with the password for the servers.
    pub password_file: Option<PathBuf>,
    /// File with the password for the sentinels.
    pub sentinel_password_file: Option<PathBuf>,
    /// Authorities that may have signed the certificates of the servers; `None`: those of the system.
    pub ca: Option<PathBuf>,
    /// Certificate and key of this host, if the servers ask for them.
    pub pair: Option<(PathBuf, PathBuf)>,
    /// Begins the name of every key.
    pub prefix: String,
    /// The time between two exchanges.
    pub interval: Duration,
}

/// One URL of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisServer {
    /// A name or an address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Whether the connection is over TLS: `rediss://`.
    pub tls: bool,
    /// The user; `None`: the default user.
    pub user: Option<String>,
    /// The number of the database.
    pub database: u32,
}

impl RedisConfig {
    /// Reads `[fleet.redis]`.
    pub(super) fn read(mut section: Section<'_>, default: Self) -> Self {
        let servers = match section.is_list("url") {
            true => section.list("url", Vec::new(), server),
            false => {
                let one = section.optional("url", |value| match value.text() {
                    Ok("") => Ok(None),
                    Ok(_) => server(value).map(Some),
                    Err(bad) => {
                        let shape = Shape::Any(vec![Shape::Text, Shape::List]);
                        Err(Bad::new(bad.what, "write one URL or a list of URLs").shaped(shape))
                    }
                });
                one.flatten().into_iter().collect()
            }
        };
        let mut file = |key| {
            let file = section.optional(key, |value| Ok(PathBuf::from(value.text()?)));
            file.filter(|file| !file.as_os_str().is_empty())
        };
        let (certificate, key) = (file("certificate"), file("key"));
        let config = Self {
            password_file: file("password-file"),
            sentinel_password_file: file("sentinel-password-file"),
            ca: file("ca"),
            pair: certificate.clone().zip(key.clone()),
            sentinel: section
                .optional("sentinel", |value| Ok(value.text()?.to_owned()))
                .filter(|name| !name.is_empty()),
            prefix: section.value("prefix", default.prefix, prefix),
            interval: section.value("interval", default.interval, |value| {
                duration(value, Duration::from_millis(50), Duration::from_secs(5))
            }),
            servers,
        };
        if certificate.is_some() != key.is_some() {
            let what = "`certificate` and `key` go together";
            let one = if key.is_some() { "key" } else { "certificate" };
            section.reject(one, Bad::new(what, "name both files, or none"));
        }
        config.reject_mixed(&section);
        section.finish();
        config
    }

    fn reject_mixed(&self, section: &Section<'_>) {
        let Some((first, others)) = self.servers.split_first() else {
            return;
        };
        let same = |other: &RedisServer| {
            (other.tls, &other.user, other.database) == (first.tls, &first.user, first.database)
        };
        if !others.iter().all(same) {
            let what = "the servers differ in more than host and port";
            let mend = "write the same scheme, user and number of the database in each URL";
            section.reject("url", Bad::new(what, mend));
        }
        if !first.tls && (self.ca.is_some() || self.pair.is_some()) {
            let what = "files of TLS for servers without TLS";
            let key = if self.ca.is_some() {
                "ca"
            } else {
                "certificate"
            };
            section.reject(
                key,
                Bad::new(what, "write rediss:// in `url`, or remove the key"),
            );
        }
    }
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            sentinel: None,
            password_file: None,
            sentinel_password_file: None,
            ca: None,
            pair: None,
            prefix: "portcullis".to_owned(),
            interval: Duration::from_millis(200),
        }
    }
}

/// Reads `redis://[USER@]HOST[:PORT][/DATABASE]`, or the same with `rediss`.
fn server(value: Value<'_>) -> Result<RedisServer, Bad> {
    let bad = |what: &str| {
        let mend = "write \"redis://HOST:6379\", or \"rediss://HOST:6379\" for TLS";
        Bad::new(what, mend).hidden()
    };
    let text = value.text()?;
    let (scheme, rest) = text.split_once("://").ok_or_else(|| bad("not a URL"))?;
    let tls = match scheme {
        "redis" => false,
        "rediss" => true,
        _ => return Err(bad("not a URL of Redis")),
    };
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, place) = match authority.rsplit_once('@') {
        Some((user, place)) => (Some(user), place),
        None => (None, authority),
    };
    if user.is_some_and(|user| user.contains(':')) {
        let mend = "write it into a file, and the name of the file into `password-file`";
        return Err(Bad::new("a password in the URL", mend).hidden());
    }
    let (host, port) = match place
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
    {
        Some((host, "")) => (host, "6379"),
        Some((host, port)) => (host, port.strip_prefix(':').unwrap_or("")),
        None => place.split_once(':').unwrap_or((place, "6379")),
    };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-_:".contains(c);
    if host.is_empty() || !host.chars().all(is_plain) {
        return Err(bad("no host"));
    }
    let port = port.parse().ok().filter(|port| *port != 0);
    let database = match database {
        "" => Some(0),
        number => number.parse().ok(),
    };
    Ok(RedisServer {
        host: host.to_owned(),
        port: port.ok_or_else(|| bad("not a port"))?,
        tls,
        user: user.filter(|user| !user.is_empty()).map(str::to_owned),
        database: database.ok_or_else(|| bad("not a number of a database"))?,
    })
}

fn prefix(value: Value<'_>) -> Result<String, Bad> {
    let text = value.text()?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    match !text.is_empty() && text.len() <= 64 && text.chars().all(is_plain) {
        true => Ok(text.to_owned()),
        false => Err(Bad::new(
            "not a prefix of keys",
            "write up to 64 letters, digits, '-', '_', '.' and ':'",
        )),
    }
}

#[cfg(test)]
mod tests {
    use crate::Config;

    fn problem(text: &str) -> String {
        let problems = Config::parse(&format!("[fleet.redis]\n{text}\n")).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:#?}");
        problems[0].to_string()
    }

    #[test]
    fn servers_are_one_url_or_several() {
        let read = |text: &str| {
            let text = format!("[fleet.redis]\nurl = {text}\n");
            Config::parse(&text).unwrap().redis.servers
        };
        assert_eq!(read("\"\""), []);
        let one = read("\"rediss://edge@[2001:db8::1]:6380/3\"");
        assert_eq!((one[0].host.as_str(), one[0].port), ("2001:db8::1", 6380));
        assert_eq!((one[0].tls, one[0].database), (true, 3));
        assert_eq!(one[0].user.as_deref(), Some("edge"));
        let several = read("[\"redis://a\", \"redis://b:7000\"]");
        let places: Vec<_> = several
            .iter()
            .map(|server| (server.host.as_str(), server.port))
            .collect();
        assert_eq!(places, [("a", 6379), ("b", 7000)]);
    }

    #[test]
    fn what_cannot_work_is_refused() {
        for (text, expected) in [
            (
                "url = \"http://a\"",
                "2:7: fleet.redis.url: not a URL of Redis",
            ),
            (
                "url = \"redis://:secret@a\"",
                "2:7: fleet.redis.url: a password in the URL",
            ),
            ("url = \"redis://a:0\"", "2:7: fleet.redis.url: not a port"),
            (
                "url = \"redis://a/x\"",
                "2:7: fleet.redis.url: not a number of a database",
            ),
            ("url = \"redis://\"", "2:7: fleet.redis.url: no host"),
            (
                "url = [\"redis://a\", \"rediss://b\"]",
                "2:7: fleet.redis.url = ",
            ),
            (
                "url = \"redis://a\"\nca = \"ca.pem\"",
                "3:6: fleet.redis.ca = \"ca.pem\": files of TLS",
            ),
            (
                "certificate = \"a.pem\"",
                "2:15: fleet.redis.certificate = \"a.pem\": `certificate` and `key`",
            ),
            (
                "prefix = \"{a}\"",
                "2:10: fleet.redis.prefix = \"{a}\": not a prefix",
            ),
            (
                "interval = \"1ms\"",
                "2:12: fleet.redis.interval = \"1ms\": too short",
            ),
        ] {
            let said = problem(text);
            assert!(said.starts_with(expected), "{said}\n{expected}");
            assert!(!said.contains("secret"), "{said}");
        }
    }
}
