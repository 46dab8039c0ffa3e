//! Datagrams in batches: `recvmmsg` and `sendmmsg` behind a safe interface.
//!
//! This is the one crate of the workspace with `unsafe`. It knows sockets and bytes, nothing of SIP. Linux only.

mod receiver;
mod sender;
mod socket;

pub use receiver::{DATAGRAM_BYTES, Receiver};
pub use sender::Sender;
pub use socket::{Bind, bind};
