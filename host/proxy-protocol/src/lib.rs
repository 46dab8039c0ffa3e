//! The PROXY protocol, versions 1 and 2: a load balancer begins each connection with a header that says for whom it has opened the connection.
//! Without sockets and clocks.
//!
//! [`Reader`] takes from a stream the bytes of the header and no byte more: what follows belongs to TLS, WebSocket or SIP.
//!
//! The protocol is described in `proxy-protocol.txt` of HAProxy; its sections are cited as "§2.2".

#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

mod header;
#[cfg(any(test, feature = "invariants"))]
pub mod invariants;
mod reader;
mod step;
mod version1;
mod version2;

pub use header::{Header, HeaderError};
pub use reader::Reader;
pub use step::LONGEST;
