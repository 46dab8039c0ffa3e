//! The server side of WebSocket (RFC 6455) for SIP (RFC 7118), without sockets and clocks.
//!
//! [`Rules::answer`] reads the request that opens a connection and writes the response. After that, [`Decoder`] turns received bytes into
//! [`Event`]s: a whole SIP message is one message of WebSocket, whatever its frames. [`write_frame`] writes what is sent. No extension is
//! negotiated, so nothing is ever compressed.

#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

mod decoder;
mod forwarded;
mod frame;
mod handshake;
#[cfg(any(test, feature = "invariants"))]
pub mod invariants;

pub use decoder::{Decoder, Event};
pub use forwarded::ForwardedField;
pub use frame::{Close, Opcode, write_close, write_frame, write_message};
pub use handshake::{Answer, LONGEST_REQUEST, Origin, Refusal, Rules};
