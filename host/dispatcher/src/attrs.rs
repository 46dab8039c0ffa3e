//! The column `attrs`: `name=value` pairs, separated by semicolons.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use portcullis_sip::{Transport, Uri};
use thiserror::Error;

/// The attributes that the host uses, and the text of the column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attrs {
    /// The column as it is.
    pub body: Box<str>,
    /// The name under which calls are counted (`duid`). Empty: the destination is counted under its URI.
    pub duid: Box<str>,
    /// Most calls at the same time, for the algorithm `call-load` (`maxload`). 0: no limit.
    pub maxload: u32,
    /// The share for the algorithms `weight` and `srv` (`weight`).
    pub weight: u32,
    /// The share for the algorithm `relative-weight` (`rweight`).
    pub rweight: u32,
    /// The socket to send from (`socket`), as it is in the column.
    pub socket: Box<str>,
    /// The address of that socket.
    pub from: Option<SocketAddr>,
    /// The latency in the beginning, in milliseconds (`latency`); 0: none is known.
    pub latency: u32,
    /// The name of the socket to send from (`sockname`).
    pub sockname: Box<str>,
    /// The proxy for pings (`obproxy`).
    pub obproxy: Box<str>,
    /// The URI of From in pings to this destination (`ping_from`).
    pub ping_from: Box<str>,
    /// Whether the algorithm `latency` counts what exceeds the usual latency, in place of the latency (`cc`).
    pub is_congestion: bool,
}

/// An attribute that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{name}={value} is not {expected}")]
pub struct AttrError {
    /// The name.
    pub name: &'static str,
    /// The value.
    pub value: String,
    /// What the value must be.
    pub expected: &'static str,
}

/// The highest weight. Kamailio's is 100.
const MOST_WEIGHT: u32 = 65_535;

impl Attrs {
    /// Reads the column. Names are compared as they are; unknown ones stay in the body, for policies.
    ///
    /// # Errors
    /// If a known attribute has no valid value.
    pub fn parse(body: &str) -> Result<Self, AttrError> {
        let mut attrs = Self {
            body: body.into(),
            ..Self::default()
        };
        for (name, value) in pairs(body) {
            match name {
                "duid" => attrs.duid = value.into(),
                "socket" if value.is_empty() => {}
                "socket" => {
                    attrs.socket = value.into();
                    attrs.from = Some(socket(value)?);
                }
                "latency" => attrs.latency = number("latency", value, u32::MAX)?,
                "sockname" => attrs.sockname = value.into(),
                "obproxy" => attrs.obproxy = value.into(),
                "ping_from" => attrs.ping_from = from(value)?,
                "maxload" => attrs.maxload = number("maxload", value, u32::MAX)?,
                "weight" => attrs.weight = number("weight", value, MOST_WEIGHT)?,
                "rweight" => attrs.rweight = number("rweight", value, MOST_WEIGHT)?,
                "cc" => attrs.is_congestion = number("cc", value, 1)? == 1,
                _ => {}
            }
        }
        Ok(attrs)
    }

    /// The known attributes that have a value here and no effect.
    pub(crate) fn without_effect(&self) -> Vec<&'static str> {
        let texts = [("sockname", &self.sockname), ("obproxy", &self.obproxy)];
        let named = texts.into_iter().filter(|(_, value)| !value.is_empty());
        named.map(|(name, _)| name).collect()
    }
}

/// Whether a text can be the URI of From in a ping.
pub fn is_from(uri: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'<' | b'>' | b'"' | b'?');
    uri.bytes().all(is_plain) && Uri::parse(uri.as_bytes()).is_ok()
}

/// The text of the column.
impl fmt::Display for Attrs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.body)
    }
}

/// The pairs. A value may be in double quotes.
fn pairs(body: &str) -> impl Iterator<Item = (&str, &str)> {
    let parts = body
        .split(';')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    parts.map(|part| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        (name.trim(), value.trim().trim_matches('"'))
    })
}

/// Reads `udp:192.0.2.1:5060`. Without a port, it is that of the transport.
fn socket(value: &str) -> Result<SocketAddr, AttrError> {
    let wrong = || AttrError {
        name: "socket",
        value: value.to_owned(),
        expected: "the address of a socket of `listen`, such as udp:192.0.2.1:5060",
    };
    let (transport, place) = match value.split_once(':') {
        Some((word, place)) if word.parse::<Transport>().is_ok() => (word.parse().ok(), place),
        Some(_) | None => (None, value),
    };
    if let Ok(addr) = place.parse::<SocketAddr>() {
        return Ok(addr);
    }
    let bare = place.strip_prefix('[').and_then(|ip| ip.strip_suffix(']'));
    let ip: IpAddr = bare.unwrap_or(place).parse().map_err(|_| wrong())?;
    let transport = transport.unwrap_or(Transport::Udp);
    Ok(SocketAddr::new(ip, transport.default_port()))
}

fn from(value: &str) -> Result<Box<str>, AttrError> {
    match value.is_empty() || is_from(value) {
        true => Ok(value.into()),
        false => Err(AttrError {
            name: "ping_from",
            value: value.to_owned(),
            expected: "a SIP URI, such as sip:edge@example.com",
        }),
    }
}

fn number(name: &'static str, value: &str, most: u32) -> Result<u32, AttrError> {
    let read = value.parse::<u32>().ok().filter(|number| *number <= most);
    read.ok_or_else(|| AttrError {
        name,
        value: value.to_owned(),
        expected: match most {
            1 => "0 or 1",
            MOST_WEIGHT => "a number from 0 to 65535",
            _ => "a number from 0 to 4294967295",
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_attributes_are_read_and_others_kept() {
        let body =
            "duid=a; weight=50;rweight = 7;maxload=2;cc=1;socket=udp:192.0.2.1:5060;site=\"north\"";
        let attrs = Attrs::parse(body).unwrap();
        assert_eq!((&*attrs.duid, attrs.weight, attrs.rweight), ("a", 50, 7));
        assert_eq!((attrs.maxload, attrs.is_congestion), (2, true));
        assert_eq!(&*attrs.socket, "udp:192.0.2.1:5060");
        assert_eq!(attrs.from, "192.0.2.1:5060".parse().ok());
        assert!(attrs.without_effect().is_empty());
        let sockname = Attrs::parse("sockname=edge").unwrap();
        assert_eq!(sockname.without_effect(), ["sockname"]);
        assert_eq!(attrs.to_string(), body);
        assert_eq!(Attrs::parse("").unwrap(), Attrs::default());
        assert!(Attrs::parse(";;a;=b").unwrap().without_effect().is_empty());
    }

    #[test]
    fn a_socket_is_an_address() {
        let from = |text: &str| Attrs::parse(&format!("socket={text}")).map(|attrs| attrs.from);
        for (text, addr) in [
            ("udp:192.0.2.1:5070", "192.0.2.1:5070"),
            ("192.0.2.1:5070", "192.0.2.1:5070"),
            ("tls:192.0.2.1", "192.0.2.1:5061"),
            ("UDP:[2001:db8::1]:5060", "[2001:db8::1]:5060"),
            ("tcp:[2001:db8::1]", "[2001:db8::1]:5060"),
            ("192.0.2.1", "192.0.2.1:5060"),
        ] {
            assert_eq!(from(text), Ok(addr.parse().ok()), "{text}");
        }
        assert_eq!(from(""), Ok(None));
        for bad in [
            "edge",
            "udp:edge.example:5060",
            "sctp:192.0.2.1:5060",
            "udp:192.0.2.1:x",
            "udp:",
        ] {
            assert_eq!(from(bad).unwrap_err().name, "socket", "{bad}");
        }
    }

    #[test]
    fn a_number_that_is_none_is_an_error() {
        let error = Attrs::parse("weight=heavy").unwrap_err();
        assert_eq!(
            error.to_string(),
            "weight=heavy is not a number from 0 to 65535"
        );
        assert!(Attrs::parse("weight=65536").is_err());
        assert!(Attrs::parse("cc=2").is_err());
        assert!(Attrs::parse("maxload=-1").is_err());
        assert!(Attrs::parse("ping_from=edge").is_err());
        let from = Attrs::parse("ping_from=sip:edge@a.example").unwrap();
        assert_eq!(&*from.ping_from, "sip:edge@a.example");
    }
}
