//! `[capture]`: copies of messages for a capture server.

use std::fmt;
use std::net::SocketAddr;

use portcullis_policy::Share;

use super::problem::Bad;
use super::section::{Section, Value};
use super::value::{GIB, MIB, bytes, count, share};

/// Where copies of messages are sent, and which.
#[derive(Clone, PartialEq, Eq)]
pub struct CaptureConfig {
    /// The server; `None`: nothing is captured.
    pub hep: Option<SocketAddr>,
    /// The number of this host at the server (HEP capture id).
    pub agent: u32,
    /// The name of this host at the server; empty without one.
    pub node: String,
    /// The password for the server; empty without one.
    pub password: String,
    /// Share of the calls that are captured.
    pub share: Share,
    /// Methods that are not captured, in requests and responses.
    pub skip_methods: Vec<String>,
    /// Whether decisions are sent as lines of a log.
    pub verdicts: bool,
    /// Most bytes that wait to be sent.
    pub queue: usize,
}

impl CaptureConfig {
    /// Reads `[capture]`.
    pub(super) fn read(mut section: Section<'_>, default: Self) -> Self {
        let capture = Self {
            hep: section.value("hep", default.hep, server),
            agent: section.value("agent", default.agent, |v| count(v, 0, u32::MAX.into())),
            node: section.value("node", default.node, word),
            password: section.value("password", default.password, |v| {
                word(v).map_err(Bad::hidden)
            }),
            share: section.value("share", default.share, share),
            skip_methods: section.list("skip-methods", default.skip_methods, method),
            verdicts: section.value("verdicts", default.verdicts, |v| v.boolean()),
            queue: section.value("queue", default.queue, |v| bytes(v, MIB, 4 * GIB)),
        };
        section.finish();
        capture
    }
}

impl Default for CaptureConfig {
    fn default() -> Self {
        Self {
            hep: None,
            agent: 2001,
            node: String::new(),
            password: String::new(),
            share: Share::ALL,
            skip_methods: Vec::new(),
            verdicts: true,
            queue: 16 << 20,
        }
    }
}

/// Without the password.
impl fmt::Debug for CaptureConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            hep,
            agent,
            node,
            password: _,
            share,
            skip_methods,
            verdicts,
            queue,
        } = self;
        f.debug_struct("CaptureConfig")
            .field("hep", hep)
            .field("agent", agent)
            .field("node", node)
            .field("share", share)
            .field("skip_methods", skip_methods)
            .field("verdicts", verdicts)
            .field("queue", queue)
            .finish_non_exhaustive()
    }
}

/// Reads `udp:ADDRESS:PORT`.
fn server(value: Value<'_>) -> Result<Option<SocketAddr>, Bad> {
    let text = value.text()?;
    if text.is_empty() {
        return Ok(None);
    }
    let addr = text.strip_prefix("udp:");
    let addr = addr.and_then(|addr| addr.parse::<SocketAddr>().ok());
    match addr.filter(|addr| addr.port() > 0 && !addr.ip().is_unspecified()) {
        Some(addr) => Ok(Some(addr)),
        None => Err(Bad::new(
            "not the address of a capture server",
            "write \"udp:ADDRESS:PORT\", for example \"udp:192.0.2.9:9060\"",
        )),
    }
}

/// Reads a short text on one line.
fn word(value: Value<'_>) -> Result<String, Bad> {
    let text = value.text()?;
    if text.len() > 256 || text.chars().any(char::is_control) {
        return Err(Bad::new(
            "too long, or a control character",
            "write at most 256 bytes on one line",
        ));
    }
    Ok(text.to_owned())
}

/// Reads a method (RFC 3261 §25.1).
fn method(value: Value<'_>) -> Result<String, Bad> {
    let text = value.text()?;
    let is_token = |c: char| c.is_ascii_alphanumeric() || "-.!%*_+`'~".contains(c);
    match !text.is_empty() && text.chars().all(is_token) {
        true => Ok(text.to_owned()),
        false => Err(Bad::new("not a method", "write for example \"OPTIONS\"")),
    }
}
