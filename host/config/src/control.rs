//! `[control]`: the control interfaces.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use portcullis_rpc::binrpc;

use super::problem::Bad;
use super::role::{self, NamedToken};
use super::section::{Section, Value};
use super::token::Token;
use super::value::count;

/// The control interfaces. Each can be on or off.
#[derive(Clone, Debug, PartialEq)]
pub struct ControlConfig {
    /// HTTP: metrics, health, JSON-RPC and `/v1`. A loopback address, unless there is a `token`; `None`: off.
    pub listen: Option<SocketAddr>,
    /// The token that HTTP clients must send.
    pub token: Option<Token>,
    /// File of the token that the host generates if `token` is `None`; `None`: no token is needed.
    pub token_file: Option<PathBuf>,
    /// Further tokens of HTTP clients, with their roles.
    pub tokens: Vec<NamedToken>,
    /// Certificate and key of HTTP; `None`: HTTP without TLS.
    pub tls: Option<TlsFiles>,
    /// Most HTTP connections at the same time.
    pub max_connections: usize,
    /// BINRPC, for `kamcmd`.
    pub binrpc: Vec<Endpoint>,
    /// JSON-RPC through a FIFO, for `kamctl`.
    pub fifo: Option<PathBuf>,
    /// Directory of the pipes from which clients of the FIFO read replies.
    pub fifo_reply_dir: PathBuf,
    /// JSON-RPC in datagrams, for `kamcli`.
    pub datagram: Vec<Endpoint>,
    /// Permissions of the FIFO and the Unix sockets.
    pub access: FileAccess,
    /// Which actions the audit keeps in the database.
    pub audit: AuditConfig,
}

/// Which actions the audit keeps in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditConfig {
    /// Most actions; 0: none, the audit is in memory only.
    pub rows: u64,
    /// For how many days.
    pub days: u64,
}

/// The files of TLS, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, followed by those of the authorities that issued it.
    pub certificate: PathBuf,
    /// Its private key. It may be in the same file.
    pub key: PathBuf,
}

/// One socket of a control protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `unix:PATH`, `unixs:PATH`
    UnixStream(PathBuf),
    /// `unixd:PATH`
    UnixDatagram(PathBuf),
    /// `tcp:HOST:PORT`
    Tcp(SocketAddr),
    /// `udp:HOST:PORT`
    Udp(SocketAddr),
}

/// Permissions of a FIFO or Unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileAccess {
    /// The permission bits.
    pub mode: u32,
    /// The owner, by name or number; `None`: the user of the host.
    pub user: Option<String>,
    /// The group, by name or number; `None`: the group of the host.
    pub group: Option<String>,
}

impl Default for ControlConfig {
    fn default() -> Self {
        Self {
            listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 8060))),
            token: None,
            token_file: Some("portcullis.token".into()),
            tokens: Vec::new(),
            tls: None,
            max_connections: 256,
            binrpc: Vec::new(),
            fifo: None,
            fifo_reply_dir: "/tmp".into(),
            datagram: Vec::new(),
            access: FileAccess {
                mode: 0o600,
                user: None,
                group: None,
            },
            audit: AuditConfig {
                rows: 100_000,
                days: 400,
            },
        }
    }
}

impl ControlConfig {
    pub(super) fn read(mut section: Section<'_>, default: Self) -> Self {
        let token = section.optional("token", Token::parse).flatten();
        let tokens = role::read_all(section.section("tokens"), token.as_ref());
        let read = Self {
            listen: section.value("listen", default.listen, |value| {
                listen(value, token.is_some())
            }),
            token_file: section.value("token-file", default.token_file, |value| {
                match value.text()? {
                    "" => Ok(None),
                    path => Ok(Some(PathBuf::from(path))),
                }
            }),
            tls: read_tls(&mut section, default.tls),
            max_connections: section.value("max-connections", default.max_connections, |v| {
                count(v, 1, 100_000)
            }),
            binrpc: section.list("binrpc", default.binrpc, |value| {
                Endpoint::parse_binrpc(value.text()?)
            }),
            fifo: section.value("fifo", default.fifo, |value| match value.text()? {
                "" => Ok(None),
                path => Ok(Some(PathBuf::from(path))),
            }),
            fifo_reply_dir: section.value("fifo-reply-dir", default.fifo_reply_dir, |value| {
                match value.text()? {
                    "" => Err(Bad::new("no directory", "write for example \"/tmp\"")),
                    path => Ok(PathBuf::from(path)),
                }
            }),
            datagram: section.list("datagram", default.datagram, |value| {
                Endpoint::parse_datagram(value.text()?)
            }),
            access: FileAccess {
                mode: section.value("socket-mode", default.access.mode, mode),
                user: section.value("socket-user", default.access.user, name),
                group: section.value("socket-group", default.access.group, name),
            },
            audit: AuditConfig {
                rows: section.value("audit-rows", default.audit.rows, |v| {
                    v.number(0, 100_000_000)
                }),
                days: section.value("audit-days", default.audit.days, |v| v.number(1, 36_500)),
            },
            token,
            tokens,
        };
        read.reject_doubles(&section);
        if read.is_open() && !read.tokens.is_empty() {
            let what = "tokens without effect: the host has no token, so every user of this machine is the operator";
            section.reject(
                "tokens",
                Bad::new(what, "set `token` or `token-file` in [control]"),
            );
        }
        section.finish();
        read
    }

    /// Returns the file with the token that the host generates; `None` if the token is configured or HTTP is off.
    pub fn made_token(&self) -> Option<&Path> {
        let file = self.token_file.as_deref();
        file.filter(|_| self.listen.is_some() && self.token.is_none())
    }

    /// Whether every user of this machine is the operator: HTTP is on, and has no token.
    pub fn is_open(&self) -> bool {
        self.listen.is_some() && self.token.is_none() && self.token_file.is_none()
    }

    fn reject_doubles(&self, section: &Section<'_>) {
        let fifo = self.fifo.clone().map(Endpoint::UnixStream);
        let all = [
            ("binrpc", &self.binrpc[..]),
            ("datagram", &self.datagram[..]),
            ("fifo", fifo.as_slice()),
        ];
        let mut seen = Vec::new();
        for (key, endpoint) in all
            .iter()
            .flat_map(|(key, all)| all.iter().map(move |e| (key, e)))
        {
            if seen.iter().any(|other| endpoint.collides(other)) {
                let what = format!("duplicate of {endpoint} in [control]");
                section.reject(
                    key,
                    Bad::new(what, "remove one of them, or change its address"),
                );
            }
            seen.push(endpoint.clone());
        }
    }
}

impl Endpoint {
    fn parse_binrpc(text: &str) -> Result<Self, Bad> {
        const MEND: &str =
            "write \"unix:PATH\", \"unixd:PATH\", \"tcp:HOST:PORT\" or \"udp:HOST:PORT\"";
        if text.starts_with('/') {
            return path(text, MEND).map(Self::UnixStream);
        }
        match text.split_once(':') {
            Some(("unix" | "unixs", rest)) => path(rest, MEND).map(Self::UnixStream),
            Some(("unixd", rest)) => path(rest, MEND).map(Self::UnixDatagram),
            Some(("tcp", rest)) => loopback(rest, Some(binrpc::PORT), MEND).map(Self::Tcp),
            Some(("udp", rest)) => loopback(rest, Some(binrpc::PORT), MEND).map(Self::Udp),
            _ => Err(Bad::new("not an address for BINRPC", MEND)),
        }
    }

    fn parse_datagram(text: &str) -> Result<Self, Bad> {
        const MEND: &str = "write \"unix:PATH\" or \"udp:HOST:PORT\"";
        if text.starts_with('/') {
            return path(text, MEND).map(Self::UnixDatagram);
        }
        match text.split_once(':') {
            Some(("unix" | "unixd", rest)) => path(rest, MEND).map(Self::UnixDatagram),
            Some(("udp", rest)) => loopback(rest, None, MEND).map(Self::Udp),
            _ => Err(Bad::new("not an address for JSON-RPC in datagrams", MEND)),
        }
    }

    /// Kamailio's name of the transport (`socket_proto_name`).
    pub fn transport(&self) -> &'static str {
        match self {
            Self::UnixStream(_) => "unix_stream",
            Self::UnixDatagram(_) => "unix_dgram",
            Self::Tcp(_) => "tcp",
            Self::Udp(_) => "udp",
        }
    }

    fn collides(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::UnixStream(one) | Self::UnixDatagram(one),
                Self::UnixStream(other) | Self::UnixDatagram(other),
            ) => one == other,
            (Self::Tcp(one), Self::Tcp(other)) | (Self::Udp(one), Self::Udp(other)) => {
                one == other && one.port() != 0
            }
            (Self::UnixStream(_) | Self::UnixDatagram(_), Self::Tcp(_) | Self::Udp(_))
            | (Self::Tcp(_), Self::UnixStream(_) | Self::UnixDatagram(_) | Self::Udp(_))
            | (Self::Udp(_), Self::UnixStream(_) | Self::UnixDatagram(_) | Self::Tcp(_)) => false,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnixStream(path) => write!(f, "unix:{}", path.display()),
            Self::UnixDatagram(path) => write!(f, "unixd:{}", path.display()),
            Self::Tcp(addr) => write!(f, "tcp:{addr}"),
            Self::Udp(addr) => write!(f, "udp:{addr}"),
        }
    }
}

fn read_tls(section: &mut Section<'_>, default: Option<TlsFiles>) -> Option<TlsFiles> {
    let (certificate, key) = default.map(|tls| (tls.certificate, tls.key)).unzip();
    let file = |value: Value<'_>| match value.text()? {
        "" => Ok(None),
        path => Ok(Some(PathBuf::from(path))),
    };
    let certificate = section.value("certificate", certificate, file);
    let key = section.value("key", key, file);
    match (certificate, key) {
        (None, None) => None,
        (Some(certificate), Some(key)) => Some(TlsFiles { certificate, key }),
        (Some(_), None) => {
            let mend = "set `key` in [control] to the file of its private key";
            section.reject("certificate", Bad::new("a certificate without a key", mend));
            None
        }
        (None, Some(_)) => {
            let mend = "set `certificate` in [control] to the file of its certificate";
            section.reject("key", Bad::new("a key without a certificate", mend));
            None
        }
    }
}

fn listen(value: Value<'_>, has_token: bool) -> Result<Option<SocketAddr>, Bad> {
    let mend = "write an address with a port, for example \"127.0.0.1:8060\" or \"[::1]:8060\", or \"\" for no HTTP";
    let text = value.text()?;
    if text.is_empty() {
        return Ok(None);
    }
    let addr: SocketAddr = text
        .parse()
        .map_err(|_| Bad::new("not an address with a port", mend))?;
    if !addr.ip().is_loopback() && !has_token {
        let what = "not a loopback address, and no token: anybody who can reach this port could change tables and policies";
        let mend =
            "set `token` in [control], or write a loopback address, for example \"127.0.0.1:8060\"";
        return Err(Bad::new(what, mend));
    }
    Ok(Some(addr))
}

fn path(text: &str, mend: &str) -> Result<PathBuf, Bad> {
    match text.len() {
        0 => Err(Bad::new("no path", mend)),
        // sockaddr_un holds 108 bytes, including the NUL.
        n if n > 107 => Err(Bad::new(
            format!("a path of {n} bytes"),
            "the system allows 107 bytes for a socket: use a shorter path",
        )),
        _ if text.contains('\0') => Err(Bad::new("no path", mend)),
        _ => Ok(PathBuf::from(text)),
    }
}

/// Reads a loopback address with a port. Other addresses are refused, because neither protocol has authentication.
fn loopback(text: &str, port: Option<u16>, mend: &str) -> Result<SocketAddr, Bad> {
    let addr = socket(text, port).ok_or_else(|| Bad::new("not an address with a port", mend))?;
    if !addr.ip().is_loopback() {
        return Err(Bad::new(
            "not a loopback address: the protocol has no authentication",
            "write a loopback address or a Unix socket; for remote access, use HTTP with a token",
        ));
    }
    Ok(addr)
}

fn socket(text: &str, port: Option<u16>) -> Option<SocketAddr> {
    if let Ok(addr) = text.parse() {
        return Some(addr);
    }
    let (host, port) = match text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        Some(host) => (host, port?),
        None => match text.split_once(':') {
            Some((host, port)) => (host, port.parse().ok()?),
            None => (text, port?),
        },
    };
    let ip = match host {
        "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        host => host.parse().ok()?,
    };
    Some(SocketAddr::new(ip, port))
}

fn mode(value: Value<'_>) -> Result<u32, Bad> {
    const MEND: &str = "write the permissions as for chmod, for example \"0600\" or \"0660\"";
    let text = value.text()?;
    let mode = u32::from_str_radix(text, 8)
        .ok()
        .filter(|_| text.len() <= 4);
    match mode {
        Some(mode) if mode > 0o777 => Err(Bad::new("bits other than permissions", MEND)),
        Some(mode) if mode & 0o600 != 0o600 => Err(Bad::new(
            "the owner needs permission to read and write",
            MEND,
        )),
        Some(mode) => Ok(mode),
        None => Err(Bad::new("not an octal number", MEND)),
    }
}

fn name(value: Value<'_>) -> Result<Option<String>, Bad> {
    match value.text()? {
        "" => Ok(None),
        name if name.contains('\0') => Err(Bad::new("not a name", "write a name or a number")),
        name => Ok(Some(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use crate::Config;

    use super::*;

    fn control(lines: &str) -> Result<ControlConfig, Vec<String>> {
        let problems =
            |all: Vec<crate::Problem>| all.iter().map(ToString::to_string).collect::<Vec<_>>();
        let config = Config::parse(&format!("[control]\n{lines}")).map_err(problems)?;
        Ok(config.control)
    }

    fn problem(lines: &str) -> String {
        control(lines).unwrap_err().join("\n")
    }

    #[test]
    fn endpoints_are_read_as_kamailio_reads_them() {
        let read = control(
            r#"binrpc = ["unix:/run/a", "unixs:b", "/run/c", "unixd:/run/d", "tcp:localhost", "tcp:[::1]:2050", "udp:127.0.0.2"]
               datagram = ["unix:/run/e", "udp:127.0.0.1:9062"]
               fifo = "/run/f"
               socket-mode = "0660"
               socket-user = "kamailio""#,
        )
        .unwrap();
        let shown: Vec<_> = read.binrpc.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "unix:/run/a",
                "unix:b",
                "unix:/run/c",
                "unixd:/run/d",
                "tcp:127.0.0.1:2049",
                "tcp:[::1]:2050",
                "udp:127.0.0.2:2049"
            ]
        );
        let shown: Vec<_> = read.datagram.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["unixd:/run/e", "udp:127.0.0.1:9062"]);
        assert_eq!(read.fifo, Some("/run/f".into()));
        assert_eq!(read.fifo_reply_dir, PathBuf::from("/tmp"));
        assert_eq!(
            (read.access.mode, read.access.user.as_deref()),
            (0o660, Some("kamailio"))
        );
        assert_eq!(read.access.group, None);
    }

    #[test]
    fn addresses_other_than_loopback_are_refused() {
        for (line, said) in [
            (
                "binrpc = [\"tcp:0.0.0.0:2049\"]",
                "2:11: control.binrpc[0] = \"tcp:0.0.0.0:2049\": not a loopback address: the protocol has no authentication; ",
            ),
            (
                "datagram = [\"udp:192.0.2.1:9062\"]",
                "2:13: control.datagram[0] = \"udp:192.0.2.1:9062\": not a loopback address: ",
            ),
            (
                "listen = \"0.0.0.0:8060\"",
                "2:10: control.listen = \"0.0.0.0:8060\": not a loopback address, and no token: ",
            ),
        ] {
            let problem = problem(line);
            assert!(problem.starts_with(said), "{problem}");
        }
        let read = control("listen = \"0.0.0.0:8060\"\ntoken = \"0123456789abcdef\"").unwrap();
        assert_eq!(read.listen, Some("0.0.0.0:8060".parse().unwrap()));
        assert_eq!(format!("{:?}", read.token), "Some(Token(…))");
        assert_eq!(control("listen = \"\"").unwrap().listen, None);
    }

    #[test]
    fn a_certificate_and_its_key_belong_together() {
        let read = control("certificate = \"a.pem\"\nkey = \"b.pem\"").unwrap();
        let files = TlsFiles {
            certificate: "a.pem".into(),
            key: "b.pem".into(),
        };
        assert_eq!(read.tls, Some(files));
        assert_eq!(control("certificate = \"\"\nkey = \"\"").unwrap().tls, None);
        let lone = problem("certificate = \"a.pem\"");
        assert!(
            lone.contains("a certificate without a key; set `key` in [control]"),
            "{lone}"
        );
        let lone = problem("key = \"b.pem\"");
        assert!(
            lone.contains("a key without a certificate; set `certificate`"),
            "{lone}"
        );
    }

    #[test]
    fn invalid_values_are_reported_and_secrets_are_not_shown() {
        for (line, said) in [
            (
                "binrpc = [\"sctp:127.0.0.1\"]",
                "not an address for BINRPC; write \"unix:PATH\"",
            ),
            ("binrpc = [\"unix:\"]", "no path; write "),
            (
                "datagram = [\"udp:127.0.0.1\"]",
                "not an address with a port; write ",
            ),
            (
                "datagram = [\"tcp:127.0.0.1:1\"]",
                "not an address for JSON-RPC in datagrams; write ",
            ),
            ("socket-mode = \"0999\"", "not an octal number; write "),
            (
                "socket-mode = \"0060\"",
                "the owner needs permission to read and write; write ",
            ),
            (
                "socket-mode = \"4755\"",
                "bits other than permissions; write ",
            ),
            ("fifo-reply-dir = \"\"", "no directory; write "),
            (
                "token = \"short\"",
                "2:9: control.token: too short for a token; write ",
            ),
            (
                "token = \"with a blank and more\"",
                "2:9: control.token: a character that a bearer token may not contain; ",
            ),
            (
                "binrpc = [\"unix:/run/x\"]\nfifo = \"/run/x\"",
                "3:8: control.fifo = \"/run/x\": duplicate of unix:/run/x in [control]; ",
            ),
            (
                "binrpc = [\"udp:127.0.0.1:5\"]\ndatagram = [\"udp:127.0.0.1:5\"]",
                "duplicate of udp:127.0.0.1:5 in [control]; ",
            ),
        ] {
            let problem = problem(line);
            assert!(problem.contains(said), "{problem}");
        }
        let long = format!("binrpc = [\"unix:/{}\"]", "x".repeat(107));
        assert!(problem(&long).contains("a path of 108 bytes; the system allows 107 bytes"));
    }

    #[test]
    fn the_audit_has_bounds_and_can_be_in_memory_only() {
        let audit = |lines: &str| control(lines).map(|control| control.audit);
        assert_eq!(audit(""), Ok(ControlConfig::default().audit));
        let (rows, days) = (0, 7);
        assert_eq!(
            audit("audit-rows = 0\naudit-days = 7"),
            Ok(AuditConfig { rows, days })
        );
        for bad in ["audit-days = 0", "audit-rows = -1", "audit-rows = \"all\""] {
            assert!(audit(bad).is_err(), "{bad}");
        }
    }
}
