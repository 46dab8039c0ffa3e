//! Where control can be reached.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use portcullis_config::{ControlConfig, Endpoint};

/// Where control can be reached, with the ports that the system chose where the configuration says 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listening {
    /// HTTP.
    pub http: Option<SocketAddr>,
    /// BINRPC.
    pub binrpc: Vec<Endpoint>,
    /// The FIFO.
    pub fifo: Option<PathBuf>,
    /// JSON-RPC in datagrams.
    pub datagram: Vec<Endpoint>,
}

impl Listening {
    /// What a configuration asks for.
    pub fn wanted(config: &ControlConfig) -> Self {
        Self {
            http: config.listen,
            binrpc: config.binrpc.clone(),
            fifo: config.fifo.clone(),
            datagram: config.datagram.clone(),
        }
    }

    /// One text for each door.
    pub fn lines(&self) -> Vec<String> {
        let http = self.http.map(|addr| format!("http://{addr}"));
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

/// For the line at the start and for `portcullis.status`.
impl fmt::Display for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lines().as_slice() {
            [] => f.write_str("none"),
            lines => f.write_str(&lines.join(" ")),
        }
    }
}
