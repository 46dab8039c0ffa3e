//! `listen` lines: the sockets that Kamailio binds for each, as entries of our list.

use std::net::IpAddr;

use portcullis_config::SIP_PORT;

use super::draft::{Draft, Origin};
use super::finding::{Finding, Place};
use super::statement::Listen;
use super::surroundings::Surroundings;

/// Kamailio's default port of TLS.
const SIPS_PORT: u16 = 5061;

/// Settings that apply to every `listen` line, wherever they are in the file.
#[derive(Clone, Debug)]
pub(super) struct Common {
    /// `port`: the default port.
    pub(super) port: Option<String>,
    /// `disable_tcp`
    pub(super) tcp: bool,
    /// `enable_tls`: whether a socket without a transport stands for TLS, too.
    pub(super) tls: bool,
    /// `tls_port_no`: the default port of TLS.
    pub(super) tls_port: Option<String>,
    /// `advertised_address`, with `advertised_port` if there is one.
    pub(super) advertise: Option<String>,
}

/// The parts of `[proto:]host[:port]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Socket<'a> {
    transport: Option<&'a str>,
    host: &'a str,
    port: Option<&'a str>,
}

impl Common {
    /// Writes the sockets that one line binds.
    pub(super) fn listen(
        &self,
        listen: &Listen,
        place: &Place,
        surroundings: &dyn Surroundings,
        draft: &mut Draft,
        findings: &mut Vec<Finding>,
    ) {
        for text in &listen.sockets {
            let socket = Socket::split(text);
            let (hosts, remark) = hosts(socket.host, surroundings);
            if hosts.is_empty() {
                let what = format!("listen={text}");
                let mend = format!(
                    "{} is no address, no interface of this machine and no name that resolves here: add the address to `listen`",
                    socket.host
                );
                findings.push(Finding::at(place, what, mend));
                continue;
            }
            if let Some(remark) = &remark {
                let mend =
                    format!("{remark}: add or remove addresses in `listen` when that changes");
                findings.push(Finding::at(place, format!("listen={text}"), mend));
            }
            let origin = || match &remark {
                Some(remark) => Origin::remark(place, remark),
                None => Origin::line(place),
            };
            let advertise = listen.advertise.as_ref().or(self.advertise.as_ref());
            for transport in self.transports(socket.transport) {
                for host in &hosts {
                    let port = self.port(transport, &socket);
                    let mut entry = format!("{transport}:{host}:{port}");
                    if let Some(advertise) = advertise {
                        entry += &format!(" advertise {advertise}");
                    }
                    draft.push("", "listen", entry, origin());
                }
            }
        }
    }

    /// Writes the sockets that Kamailio binds without a `listen` line: every IPv4 address, over UDP, TCP and, if it is enabled, TLS.
    pub(super) fn listen_everywhere(&self, draft: &mut Draft) {
        let anywhere = Socket {
            transport: None,
            host: "0.0.0.0",
            port: None,
        };
        for transport in self.transports(None) {
            let mut entry = format!("{transport}:0.0.0.0:{}", self.port(transport, &anywhere));
            if let Some(advertise) = &self.advertise {
                entry += &format!(" advertise {advertise}");
            }
            let remark = "no listen line, which means every IPv4 address of the machine";
            draft.push("", "listen", entry, Origin::none(remark));
        }
    }

    fn transports<'a>(&self, named: Option<&'a str>) -> Vec<&'a str> {
        match named {
            Some(transport) => vec![transport],
            None if self.tcp && self.tls => vec!["udp", "tcp", "tls"],
            None if self.tcp => vec!["udp", "tcp"],
            None => vec!["udp"],
        }
    }

    /// The port of a socket over this transport. A socket with a port and without a transport has TLS at the next port.
    fn port(&self, transport: &str, socket: &Socket<'_>) -> String {
        let is_tls = transport.eq_ignore_ascii_case("tls");
        match (socket.port, socket.transport) {
            (Some(port), None) if is_tls => {
                let next = port
                    .parse::<u16>()
                    .ok()
                    .and_then(|port| port.checked_add(1));
                next.map_or_else(|| port.to_owned(), |next| next.to_string())
            }
            (Some(port), _) => port.to_owned(),
            (None, _) if is_tls => {
                let port = self.tls_port.clone();
                port.unwrap_or_else(|| SIPS_PORT.to_string())
            }
            (None, _) => {
                let port = self.port.clone();
                port.unwrap_or_else(|| SIP_PORT.to_string())
            }
        }
    }
}

impl<'a> Socket<'a> {
    fn split(text: &'a str) -> Self {
        let (transport, rest) = match text.split_once(':') {
            Some((word, rest)) if is_transport(word) => (Some(word), rest),
            _ => (None, text),
        };
        let (host, port) = match (rest.rfind(']'), rest.matches(':').count()) {
            (Some(end), _) => (&rest[..=end], rest[end + 1..].strip_prefix(':')),
            (None, 1) => match rest.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            },
            // An IPv6 address without brackets has no port.
            (None, _) => (rest, None),
        };
        Self {
            transport,
            host,
            port: port.filter(|port| !port.is_empty()),
        }
    }
}

/// The same without its transport: the form of an `alias` here.
pub(super) fn without_transport(text: &str) -> String {
    let Socket { host, port, .. } = Socket::split(text);
    let host = match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
        _ => host.to_owned(),
    };
    match port {
        Some(port) => format!("{host}:{port}"),
        None => host,
    }
}

/// The addresses of a host, and remarks about them.
fn hosts(host: &str, surroundings: &dyn Surroundings) -> (Vec<String>, Option<String>) {
    let bare = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    if let Ok(ip) = bare.unwrap_or(host).parse() {
        return (vec![shown(ip)], None);
    }
    if host == "*" {
        return (vec!["0.0.0.0".into()], None);
    }
    // A link-local address is meaningless in a Via.
    let usable = |ip: &IpAddr| !matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    if surroundings.interface(host).iter().any(usable) {
        return (vec![host.to_owned()], None);
    }
    let addresses = surroundings.resolve(host).into_iter();
    (
        addresses.filter(usable).map(shown).collect(),
        Some(format!(
            "{host} stands for what this name resolves to at the time of the import"
        )),
    )
}

fn shown(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

fn is_transport(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    matches!(word.as_str(), "udp" | "tcp" | "tls" | "sctp" | "ws" | "wss")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_split_as_kamailio_splits_them() {
        let split = |text| {
            let Socket {
                transport,
                host,
                port,
            } = Socket::split(text);
            (transport, host, port)
        };
        assert_eq!(
            split("udp:10.0.0.5:5060"),
            (Some("udp"), "10.0.0.5", Some("5060"))
        );
        assert_eq!(split("10.0.0.5"), (None, "10.0.0.5", None));
        assert_eq!(split("eth0:5062"), (None, "eth0", Some("5062")));
        assert_eq!(split("TLS:eth0"), (Some("TLS"), "eth0", None));
        assert_eq!(
            split("tcp:[::1]:5060"),
            (Some("tcp"), "[::1]", Some("5060"))
        );
        assert_eq!(split("[2001:db8::1]"), (None, "[2001:db8::1]", None));
        assert_eq!(split("2001:db8::1"), (None, "2001:db8::1", None));
        assert_eq!(split("udp:*"), (Some("udp"), "*", None));
        assert_eq!(split(""), (None, "", None));
    }

    #[test]
    fn aliases_lose_their_transport() {
        assert_eq!(
            without_transport("udp:sip.example.com:5070"),
            "sip.example.com:5070"
        );
        assert_eq!(without_transport("sip.example.com"), "sip.example.com");
        assert_eq!(without_transport("2001:db8::1"), "[2001:db8::1]");
    }
}
