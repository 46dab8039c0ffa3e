//! The PROXY header with which a load balancer begins a connection.

use std::io;
use std::time::Duration;

use portcullis_proxy_protocol::{Header, HeaderError, Reader};
use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Time limit of a header. A load balancer sends it at once; a segment that was lost comes again after up to 3 s.
const HEADER: Duration = Duration::from_secs(5);

/// Bytes looked at together.
const LOOK: usize = 256;

/// Why a connection has no header.
#[derive(Debug, Error)]
pub(super) enum NoHeader {
    /// The load balancer has closed the connection without a word: that is how some check the health of a server.
    #[error("the connection was closed without a byte")]
    Silent,
    /// The connection ended within the header.
    #[error("the connection ended within its PROXY header")]
    Cut,
    /// The header did not come in time.
    #[error("no PROXY header within {HEADER:?}")]
    Late,
    /// There is something else.
    #[error(transparent)]
    Bad(#[from] HeaderError),
    /// The connection broke.
    #[error("the connection broke within its PROXY header: {0}")]
    Broken(#[from] io::Error),
}

/// Reads the header, and no byte more.
///
/// # Errors
/// When the connection does not begin with a header.
pub(super) async fn read(stream: &mut TcpStream) -> Result<Header, NoHeader> {
    match timeout(HEADER, take(stream)).await {
        Ok(result) => result,
        Err(_) => Err(NoHeader::Late),
    }
}

async fn take(stream: &mut TcpStream) -> Result<Header, NoHeader> {
    let mut reader = Reader::default();
    let mut seen = [0; LOOK];
    loop {
        let available = stream.peek(&mut seen).await?;
        if available == 0 {
            return Err(match reader.is_empty() {
                true => NoHeader::Silent,
                false => NoHeader::Cut,
            });
        }
        let (count, header) = reader.take(&seen[..available])?;
        // These bytes have come, so this does not wait.
        stream.read_exact(&mut seen[..count]).await?;
        if let Some(header) = header {
            return Ok(header);
        }
    }
}
