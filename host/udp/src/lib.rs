//! Datagrams in batches: `recvmmsg` and `sendmmsg` behind a safe interface.
//!
//! Most `unsafe` code of the workspace is here; two files of `host/policy` have the rest. The crate is independent of SIP.
//!
//! - [`bind`] creates a socket for SIP; [`spread`] distributes one busy flow over all workers, [`steer`] each datagram by its bytes;
//! - a [`Receiver`] reads batches of datagrams into buffers that are allocated once;
//! - a [`Sender`] queues datagrams and sends them in batches; one that the kernel refuses does not stop the others;
//! - [`Errors`] reads what the network reports about datagrams sent earlier, after [`report_errors`];
//! - a [`Polled`] is a socket on a tokio runtime that wakes its task up for datagrams that come, not for those that leave;
//! - a [`Channel`] carries messages and descriptors to another process.
//!
//! On systems other than Linux each datagram costs a system call of its own, [`spread`], [`steer`] and [`report_errors`] are not supported,
//! and there is no [`Channel`].

#![warn(clippy::wildcard_enum_match_arm)]

mod bind_options;
#[cfg(target_os = "linux")]
mod channel;
mod errors;
mod pending;
mod polled;
mod receiver;
mod report;
mod sender;
mod socket;
mod system;

pub use bind_options::Bind;
#[cfg(target_os = "linux")]
pub use channel::{Channel, Parcel};
pub use errors::Errors;
pub use polled::Polled;
pub use receiver::{DATAGRAM_BYTES, Receiver};
pub use report::{Problem, Report};
pub use sender::{Refusal, Refused, Sender};
pub use socket::{Buffers, bind, buffers, overflows, report_errors, spread, steer};
