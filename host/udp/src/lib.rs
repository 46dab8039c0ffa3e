//! Datagrams in batches: `recvmmsg` and `sendmmsg` behind a safe interface.
//!
//! It is mostly here that the workspace has `unsafe`; two files of `host/policy` have the rest. It knows sockets and bytes, nothing
//! of SIP.
//!
//! - [`bind`] makes a socket that suits SIP; [`spread`] gives every worker its share of one busy flow;
//! - a [`Receiver`] takes a batch of datagrams from a socket into buffers that are made once;
//! - a [`Sender`] queues datagrams and hands them over in batches, whatever becomes of single ones.
//!
//! On systems other than Linux each datagram costs a system call of its own, and [`spread`] is not supported.

mod receiver;
mod sender;
mod socket;
mod system;

pub use receiver::{DATAGRAM_BYTES, Receiver};
pub use sender::Sender;
pub use socket::{Bind, Buffers, bind, buffers, overflows, spread};
