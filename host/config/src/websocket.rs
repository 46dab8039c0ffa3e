//! `[websocket]`: browsers and other clients that speak SIP over WebSocket (RFC 7118).

use std::time::Duration;

use portcullis_websocket::{Origin, Rules};

use super::next_hop::Domain;
use super::problem::Bad;
use super::section::{Section, Value};
use super::value::{KIB, MIB, bytes, duration};

/// Clients that speak SIP over WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebSocketConfig {
    /// Which connections are accepted.
    pub rules: Rules,
    /// How long a client may be silent before it is pinged; zero: it is not.
    pub ping: Duration,
    /// Most bytes of a message.
    pub max_message: usize,
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
        }
    }
}

pub(super) fn read(mut section: Section<'_>, default: WebSocketConfig) -> WebSocketConfig {
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
    };
    section.finish();
    read
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
    use crate::Config;

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
