//! `[resolver]`: how host names lead to addresses.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use portcullis_resolve::Families;

use super::problem::Bad;
use super::section::{Section, Value};
use super::value::{count, duration, one_of};

/// How host names lead to addresses (RFC 3263).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolverConfig {
    /// Name servers; empty: those of `/etc/resolv.conf`.
    pub servers: Vec<SocketAddr>,
    /// Whether `/etc/hosts` is read.
    pub hosts_file: bool,
    /// Whether NAPTR records choose the transport.
    pub naptr: bool,
    /// Whether SRV records name the servers.
    pub srv: bool,
    /// Which addresses are asked for.
    pub families: Families,
    /// Whether loopback addresses of names are used.
    pub loopback: bool,
    /// Limit of the time of one query, with its repetitions.
    pub timeout: Duration,
    /// How long the last answers are used while names no longer resolve.
    pub stale: Duration,
    /// Most addresses of one target that a transaction tries.
    pub addresses: u8,
}

impl Default for ResolverConfig {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            hosts_file: true,
            naptr: true,
            srv: true,
            families: Families::Both,
            loopback: false,
            timeout: Duration::from_secs(5),
            stale: Duration::from_secs(24 * 3_600),
            addresses: 4,
        }
    }
}

impl ResolverConfig {
    /// Reads `[resolver]`.
    pub(super) fn read(mut section: Section<'_>, default: Self) -> Self {
        let read = Self {
            servers: section.list("servers", default.servers, server),
            hosts_file: section.value("hosts-file", default.hosts_file, |v| v.boolean()),
            naptr: section.value("naptr", default.naptr, |v| v.boolean()),
            srv: section.value("srv", default.srv, |v| v.boolean()),
            families: section.value("families", default.families, families),
            loopback: section.value("loopback", default.loopback, |v| v.boolean()),
            timeout: section.value("timeout", default.timeout, |v| {
                duration(v, Duration::from_millis(100), Duration::from_secs(60))
            }),
            stale: section.value("stale", default.stale, |v| {
                duration(v, Duration::ZERO, Duration::from_secs(30 * 24 * 3_600))
            }),
            addresses: section.value("addresses", default.addresses, |v| count(v, 1, 4)),
        };
        section.finish();
        read
    }
}

fn families(value: Value<'_>) -> Result<Families, Bad> {
    let word = one_of(value, &["both", "ipv4", "ipv6"])?;
    Ok(match &*word {
        "ipv4" => Families::Ipv4,
        "ipv6" => Families::Ipv6,
        _ => Families::Both,
    })
}

/// Reads `ADDRESS` or `ADDRESS:PORT`.
fn server(value: Value<'_>) -> Result<SocketAddr, Bad> {
    /// RFC 1035 §4.2.
    const PORT: u16 = 53;
    let text = value.text()?;
    let bare = text.parse::<IpAddr>().ok();
    let server = bare.map(|ip| SocketAddr::new(ip, PORT));
    let server = server.or_else(|| text.parse().ok());
    match server.filter(|server| server.port() > 0 && !server.ip().is_unspecified()) {
        Some(server) => Ok(server),
        None => Err(Bad::new(
            "not the address of a name server",
            "write \"ADDRESS\" or \"ADDRESS:PORT\", for example \"192.0.2.53\" or \"[2001:db8::53]:5353\"",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    #[test]
    fn name_servers_have_port_53_unless_they_name_one() {
        let text = "[resolver]\nservers = [\"192.0.2.53\", \"[2001:db8::53]:5353\", \"::1\"]\n";
        let config = Config::parse(text).unwrap();
        let servers = config.resolver.servers.iter().map(SocketAddr::to_string);
        assert_eq!(
            servers.collect::<Vec<_>>(),
            ["192.0.2.53:53", "[2001:db8::53]:5353", "[::1]:53"]
        );
    }

    #[test]
    fn wrong_values_are_named() {
        for (line, expected) in [
            (
                "servers = [\"dns.example\"]",
                "not the address of a name server",
            ),
            ("servers = [\"192.0.2.1:0\"]", "not the address"),
            ("servers = [\"0.0.0.0\"]", "not the address"),
            (
                "families = \"ipv5\"",
                "write \"both\" or \"ipv4\" or \"ipv6\"",
            ),
            ("addresses = 5", "from 1 to 4"),
            ("addresses = 0", "from 1 to 4"),
            ("stale = \"1000h\"", "stale"),
        ] {
            let problems = Config::parse(&format!("[resolver]\n{line}\n")).unwrap_err();
            assert_eq!(problems.len(), 1, "{line}");
            let text = problems[0].to_string();
            assert!(text.contains(expected), "{line}: {text}");
        }
    }
}
