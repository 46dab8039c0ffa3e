//! Addresses of the control interfaces.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use portcullis_config::{ControlConfig, Endpoint};

/// Addresses of the control interfaces, with the ports that the system has chosen for port 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listening {
    /// HTTP.
    pub http: Option<SocketAddr>,
    /// Whether HTTP is spoken over TLS.
    pub is_tls: bool,
    /// BINRPC.
    pub binrpc: Vec<Endpoint>,
    /// The FIFO.
    pub fifo: Option<PathBuf>,
    /// JSON-RPC in datagrams.
    pub datagram: Vec<Endpoint>,
}

impl Listening {
    /// Returns the configured addresses.
    pub fn wanted(config: &ControlConfig) -> Self {
        Self {
            http: config.listen,
            is_tls: config.tls.is_some(),
            binrpc: config.binrpc.clone(),
            fifo: config.fifo.clone(),
            datagram: config.datagram.clone(),
        }
    }

    /// Returns one line for each interface.
    pub fn lines(&self) -> Vec<String> {
        let http = self.http.map(|addr| match self.is_tls {
            true => format!("https://{addr}"),
            false => format!("http://{addr}"),
        });
        let binrpc = self.binrpc.iter().map(|one| format!("binrpc={one}"));
        let fifo = self
            .fifo
            .as_ref()
            .map(|path| format!("fifo={}", path.display()));
        let datagram = self.datagram.iter().map(|one| format!("jsonrpc={one}"));
        http.into_iter()
            .chain(binrpc)
            .chain(fifo)
            .chain(datagram)
            .collect()
    }
}

/// For the log line at the start and for `portcullis.status`.
impl fmt::Display for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lines().as_slice() {
            [] => f.write_str("none"),
            lines => f.write_str(&lines.join(" ")),
        }
    }
}
