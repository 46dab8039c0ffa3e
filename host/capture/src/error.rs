//! Why messages cannot be captured.

use std::net::SocketAddr;

use thiserror::Error;

/// Why messages cannot be captured.
#[derive(Debug, Error)]
pub enum CaptureError {
    /// No socket can reach the server.
    #[error("[capture] hep: cannot send to {server}: {source}")]
    Socket {
        /// The address of the server.
        server: SocketAddr,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The thread cannot be started.
    #[error("the thread that sends captured messages cannot be started: {0}")]
    Thread(std::io::Error),
}
