//! `[websocket]`: browsers and other clients that speak SIP over WebSocket (RFC 7118).

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use portcullis_sip::Transport;
use portcullis_websocket::{ForwardedField, Origin, Rules};

use super::listen::Listen;
use super::next_hop::Domain;
use super::problem::Bad;
use super::section::{Section, Value};
use super::value::{KIB, MIB, bytes, duration, network, one_of};

/// Clients that speak SIP over WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebSocketConfig {
    /// Which connections are accepted.
    pub rules: Rules,
    /// How long a client may be silent before it is pinged; zero: it is not.
    pub ping: Duration,
    /// Most bytes of a message.
    pub max_message: usize,
    /// Load balancers that speak HTTP, and say in `forwarded_field` for whom they connect.
    pub forwarded_by: Vec<IpNet>,
    /// Where these say it.
    pub forwarded_field: ForwardedField,
}

impl WebSocketConfig {
    /// Whether connections without TLS from this address are those of a load balancer that speaks HTTP.
    #[inline]
    pub fn is_load_balancer(&self, ip: IpAddr) -> bool {
        self.forwarded_by.iter().any(|net| net.contains(&ip))
    }
}

impl Default for WebSocketConfig {
    fn default() -> Self {
        Self {
            rules: Rules {
                path: "/".into(),
                origins: Vec::new(),
                hosts: Vec::new(),
            },
            ping: Duration::from_secs(60),
            max_message: 64 << 10,
            forwarded_by: Vec::new(),
            forwarded_field: ForwardedField::XForwardedFor,
        }
    }
}

pub(super) fn read(
    mut section: Section<'_>,
    default: WebSocketConfig,
    listen: &[Listen],
) -> WebSocketConfig {
    let read = WebSocketConfig {
        rules: Rules {
            path: section.value("path", default.rules.path, path),
            origins: section.list("origins", default.rules.origins, |value| {
                let mend = "write the origin of a page: \"https://HOST\" or \"https://HOST:PORT\"";
                let origin = Origin::parse(value.text()?);
                origin.ok_or_else(|| Bad::new("not an origin", mend))
            }),
            hosts: section.list("hosts", default.rules.hosts, host),
        },
        ping: section.value("ping", default.ping, |v| {
            duration(v, Duration::ZERO, Duration::from_secs(3_600))
        }),
        max_message: section.value("max-message", default.max_message, |v| bytes(v, KIB, MIB)),
        forwarded_by: section.list("forwarded-by", default.forwarded_by, network),
        forwarded_field: section.value("forwarded-field", default.forwarded_field, field),
    };
    let has_ws = listen.iter().any(|one| one.transport == Transport::Ws);
    if !read.forwarded_by.is_empty() && !has_ws {
        let mend = "add one to `listen`, or remove the key: over wss, a load balancer says it with a PROXY header \
                    (`proxy-protocol` in [streams])";
        section.reject("forwarded-by", Bad::new("no ws address in `listen`", mend));
    }
    section.finish();
    read
}

fn field(value: Value<'_>) -> Result<ForwardedField, Bad> {
    let word = one_of(value, &["X-Forwarded-For", "Forwarded"])?;
    Ok(match &*word {
        "Forwarded" => ForwardedField::Forwarded,
        _ => ForwardedField::XForwardedFor,
    })
}

fn path(value: Value<'_>) -> Result<String, Bad> {
    let text = value.text()?;
    let is_path = text.starts_with('/')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#'));
    match is_path {
        true => Ok(text.to_owned()),
        false => Err(Bad::new(
            "not a path",
            "write \"/\" or \"/PATH\", without ? and #",
        )),
    }
}

fn host(value: Value<'_>) -> Result<String, Bad> {
    let text = value.text()?;
    let read = Domain::parse(text)
        .ok()
        .filter(|_| !text.contains(['/', '*']));
    match read {
        Some(_) => Ok(text.to_ascii_lowercase()),
        None => Err(Bad::new(
            "not a host name or address",
            "write HOST or HOST:PORT, IPv6 in brackets",
        )),
    }
}

#[cfg(test)]
mod tests {
    use portcullis_websocket::ForwardedField;

    use crate::Config;

    #[test]
    fn load_balancers_that_speak_http_are_named_with_their_field() {
        let text = "listen = [\"ws:127.0.0.1:8088\"]\n[websocket]\nforwarded-by = [\"192.0.2.10\"]\nforwarded-field = \"Forwarded\"\n";
        let config = Config::parse(text).unwrap();
        assert_eq!(config.websocket.forwarded_field, ForwardedField::Forwarded);
        let is = |ip: &str| config.is_load_balancer(ip.parse().unwrap());
        assert!(is("192.0.2.10") && !is("192.0.2.11"));
        let none = Config::parse("[websocket]\nforwarded-by = [\"192.0.2.10\"]\n").unwrap_err();
        let said = none[0].to_string();
        let expected =
            "2:16: websocket.forwarded-by = [\"192.0.2.10\"]: no ws address in `listen`; ";
        assert!(said.starts_with(expected), "{said}");
    }

    #[test]
    fn what_cannot_be_a_path_an_origin_or_a_host_is_refused() {
        let problems = Config::parse(
            "[websocket]\npath = \"sip\"\norigins = [\"phone.example.com\"]\nhosts = [\"a/b\"]\nping = \"2h\"\n",
        )
        .unwrap_err();
        let said: Vec<_> = problems.iter().map(ToString::to_string).collect();
        for (said, expected) in said.iter().zip([
            "2:8: websocket.path = \"sip\": not a path; ",
            "3:12: websocket.origins[0] = \"phone.example.com\": not an origin; ",
            "4:10: websocket.hosts[0] = \"a/b\": not a host name or address; ",
            "5:8: websocket.ping = \"2h\": too long; ",
        ]) {
            assert!(said.starts_with(expected), "{said}");
        }
        assert_eq!(said.len(), 4);
    }
}
