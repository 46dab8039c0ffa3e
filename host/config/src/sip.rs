//! `[sip]`: settings for all SIP messages.

use std::path::PathBuf;

use portcullis_guard::Unasked;
use portcullis_sip::OverloadAlgorithm;

use super::listen::Listen;
use super::next_hop::Domain;
use super::problem::Bad;
use super::section::Section;
use super::shape::Shape;
use super::socket::Socket;
use super::value::{KIB, MIB, bytes, count, overload_control, phrase};

/// Settings for all SIP messages.
#[derive(Clone, Debug, PartialEq)]
pub struct SipConfig {
    /// Further names and addresses of this host, each as `HOST` or `HOST:PORT`.
    pub aliases: Vec<String>,
    /// Server header field of responses that the host generates.
    pub server_header: Option<String>,
    /// Limits of a message.
    pub limits: portcullis_sip::Limits,
    /// File of the seal key; `None` means the default file.
    pub key_file: Option<PathBuf>,
    /// Most responses per second over UDP to one source that is not in the address table; 0: no limit.
    pub answers_per_second: u32,
    /// Most such responses at once.
    pub answers_burst: u32,
    /// What may be sent over UDP to a source that has not proved its address.
    pub unasked: Unasked,
    /// How clients that ask for it are told what to keep back while the host is overloaded (RFC 7339, RFC 7415); `None`: they are not.
    pub overload_control: Option<OverloadAlgorithm>,
    /// Most TCP connections, incoming and outgoing.
    pub tcp: ConnectionLimits,
    /// For which requests without `rport` responses go to the source port.
    pub force_rport: ForceRport,
}

/// Most TCP connections, incoming and outgoing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// In all.
    pub total: usize,
    /// With one IPv4 address, or one IPv6 /64.
    pub per_address: usize,
}

/// UDP listeners that treat every request as if it had `rport` (RFC 3581), as Kamailio does after `force_rport()`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForceRport {
    /// None.
    Never,
    /// All. Over TCP, responses use the connection of the request anyway.
    Always,
    /// These.
    On(Vec<Listen>),
}

impl ForceRport {
    /// Whether requests received on this listener are treated so.
    pub fn goes_for(&self, socket: &Socket) -> bool {
        let is_udp = !socket.transport.is_reliable();
        match self {
            Self::Never => false,
            Self::Always => is_udp,
            Self::On(these) => is_udp && these.iter().any(|one| socket.is_of(one)),
        }
    }
}

impl Default for SipConfig {
    fn default() -> Self {
        Self {
            aliases: Vec::new(),
            server_header: Some("Portcullis".into()),
            limits: portcullis_sip::Limits::default(),
            key_file: None,
            answers_per_second: 1_000,
            answers_burst: 5_000,
            unasked: Unasked::default(),
            overload_control: None,
            tcp: ConnectionLimits {
                total: 16_384,
                per_address: 256,
            },
            force_rport: ForceRport::Never,
        }
    }
}

pub(super) fn read(mut section: Section<'_>, default: SipConfig, listen: &[Listen]) -> SipConfig {
    let aliases = section.list("aliases", default.aliases, |value| {
        let alias = value.text()?;
        let mend = "write HOST or HOST:PORT, IPv6 in brackets";
        Domain::parse(alias)
            .ok()
            .filter(|_| !alias.contains(['/', '*']))
            .ok_or_else(|| Bad::new("not a host name or address", mend))?;
        Ok(alias.to_ascii_lowercase())
    });
    let server = section.optional("server-header", phrase);
    let mut limits = default.limits;
    limits.message_bytes =
        section.value("message", limits.message_bytes, |v| bytes(v, KIB, 65_535));
    limits.header_lines = section.value("header-lines", limits.header_lines, |v| count(v, 8, 4096));
    limits.header_bytes = section.value("header-line", limits.header_bytes, |v| {
        bytes(v, 128, 65_535)
    });
    limits.start_line_bytes = section.value("start-line", limits.start_line_bytes, |v| {
        bytes(v, 128, 65_535)
    });
    let key_file = section.optional("key-file", |value| Ok(PathBuf::from(value.text()?)));
    let answers_per_second = section.value("answers-per-second", default.answers_per_second, |v| {
        count(v, 0, 1_000_000)
    });
    let answers_burst = section.value("answers-burst", default.answers_burst, |v| {
        count(v, 1, 10_000_000)
    });
    let unasked = Unasked {
        bytes: section.value("unproved-bytes", default.unasked.bytes, |v| {
            bytes(v, 0, MIB)
        }),
        datagrams: section.value("unproved-per-second", default.unasked.datagrams, |v| {
            count(v, 0, 100_000)
        }),
    };
    let overload_control = section.value(
        "overload-control",
        default.overload_control,
        overload_control,
    );
    let tcp = ConnectionLimits {
        total: section.value("tcp-max-connections", default.tcp.total, |v| {
            count(v, 1, 1_000_000)
        }),
        per_address: section.value(
            "tcp-max-connections-per-address",
            default.tcp.per_address,
            |v| count(v, 1, 1_000_000),
        ),
    };
    let force_rport = force_rport(&mut section, default.force_rport, listen);
    section.finish();
    SipConfig {
        aliases,
        force_rport,
        server_header: match server {
            Some(text) => Some(text).filter(|text| !text.is_empty()),
            None => default.server_header,
        },
        limits,
        key_file: key_file.filter(|file| !file.as_os_str().is_empty()),
        answers_per_second,
        answers_burst,
        unasked,
        overload_control,
        tcp,
    }
}

/// Reads `true`, `false`, or a list of items of `listen`.
fn force_rport(section: &mut Section<'_>, default: ForceRport, listen: &[Listen]) -> ForceRport {
    if !section.is_list("force-rport") {
        let read = section.optional("force-rport", |value| {
            let mend =
                "write true, false, or a list of addresses of `listen`: [\"udp:192.0.2.1:5060\"]";
            let shape = || Shape::Any(vec![Shape::Boolean, Shape::List]);
            let wrong = |bad: Bad| Bad::new(bad.what, mend).shaped(shape());
            value.boolean().map_err(wrong)
        });
        return match read {
            Some(true) => ForceRport::Always,
            Some(false) => ForceRport::Never,
            None => default,
        };
    }
    let these = section.list("force-rport", Vec::new(), |value| {
        let one = Listen::parse(value.text()?)?;
        if one.transport.is_reliable() {
            let mend = "remove it: over TCP, responses use the connection of the request";
            return Err(Bad::new("not a UDP listener", mend));
        }
        if !listen.iter().any(|listen| listen.may_cover(&one)) {
            return Err(Bad::new("not one of `listen`", "write it as in `listen`"));
        }
        Ok(one)
    });
    ForceRport::On(these)
}
