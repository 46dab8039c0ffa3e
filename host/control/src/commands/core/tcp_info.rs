//! `core.tcp_info`.

use portcullis_config::TokenRole;
use portcullis_rpc::{Call, Fault};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Control;
use crate::caller::Caller;
use crate::commands::{FromCall, Procedure};

/// `core.tcp_info`.
#[derive(Debug)]
pub(crate) struct TcpInfo;

/// The reply of `core.tcp_info`, with Kamailio's names in Kamailio's order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TcpInfoReply {
    /// Threads that read connections: the workers.
    pub readers: u64,
    /// Limit of the number of connections.
    pub max_connections: u64,
    /// Limit of the number of TLS connections: that of all connections; 0 without TLS.
    pub max_tls_connections: u64,
    /// Open connections.
    pub opened_connections: u64,
    /// Open TLS connections.
    pub opened_tls_connections: u64,
    /// Bytes that wait to be written.
    pub write_queued_bytes: u64,
}

impl FromCall for TcpInfo {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        call.no_params().map(|()| Self)
    }
}

impl Procedure for TcpInfo {
    type Reply = TcpInfoReply;

    const NEEDS: TokenRole = TokenRole::Read;

    async fn execute(self, control: &Control, _: &Caller) -> Result<TcpInfoReply, Fault> {
        let connections = &control.shared.connections;
        Ok(TcpInfoReply {
            readers: control.shared.counters.len() as u64,
            max_connections: connections.limit() as u64,
            max_tls_connections: match control.shared.handshakes {
                Some(_) => connections.limit() as u64,
                None => 0,
            },
            opened_connections: connections.len() as u64,
            opened_tls_connections: connections.secure_len() as u64,
            write_queued_bytes: connections.waiting_bytes() as u64,
        })
    }
}
