//! The request of HTTP with which a load balancer opens a WebSocket connection, and in which it says for whom.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use portcullis_config::WebSocketConfig;
use portcullis_websocket::Refusal;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Time limit of the request.
const REQUEST: Duration = Duration::from_secs(5);

/// Time limit of the response to a request that is refused.
const RESPONSE: Duration = Duration::from_secs(1);

/// Why a connection has no client.
#[derive(Debug, Error)]
pub(super) enum NoClient {
    /// The connection was closed before its request was whole.
    #[error("the connection was closed before its request was whole")]
    Closed,
    /// The request did not come in time.
    #[error("no request within {REQUEST:?}")]
    Late,
    /// The request is refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The connection broke.
    #[error("the connection broke within its request: {0}")]
    Broken(#[from] io::Error),
}

/// Reads until the request is whole. Returns the address of the client, and all bytes that were read. A request that is refused is answered.
///
/// # Errors
/// When the request does not say for whom it is.
pub(super) async fn read(
    stream: &mut TcpStream,
    config: &WebSocketConfig,
) -> Result<(IpAddr, Vec<u8>), NoClient> {
    let result = match timeout(REQUEST, take(stream, config)).await {
        Ok(result) => result,
        Err(_) => Err(NoClient::Late),
    };
    if let Err(NoClient::Refused(refusal)) = &result {
        let response = refusal.response();
        let _gone = timeout(RESPONSE, stream.write_all(&response)).await;
    }
    result
}

async fn take(
    stream: &mut TcpStream,
    config: &WebSocketConfig,
) -> Result<(IpAddr, Vec<u8>), NoClient> {
    let mut received = Vec::with_capacity(1_024);
    loop {
        // A request that does not end is refused as too long.
        received.reserve(256);
        if stream.read_buf(&mut received).await? == 0 {
            return Err(NoClient::Closed);
        }
        let field = config.forwarded_field;
        let client = field.client(&received, |ip| config.is_load_balancer(ip))?;
        if let Some(client) = client {
            return Ok((client, received));
        }
    }
}
