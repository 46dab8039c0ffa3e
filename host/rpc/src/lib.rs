//! Kamailio's control protocols without sockets and clocks.
//!
//! `kamcmd` speaks [`binrpc`], `kamctl` writes JSON-RPC into a FIFO ([`fifo`] finds where a request ends), `kamcli` and HTTP
//! clients send JSON-RPC whole ([`json`]). All of them bring a [`Call`] and get one [`Reply`] or one [`Fault`], which each
//! protocol writes in its own form.
//!
//! ```
//! use portcullis_rpc::{Reply, Value, binrpc, json};
//!
//! let packet = b"\xa1\x03\x1c\x12\x34\x56\x78\x91\x1apermissions.addressReload\0";
//! let request = binrpc::Packet::parse(packet)?.expect("the packet is whole");
//! assert_eq!(request.call()?.method, "permissions.addressReload");
//!
//! let reply = || Reply::from(Value::from("Reload OK"));
//! let bytes = binrpc::reply(request.cookie, reply(), binrpc::MOST_REPLY).expect("it is small");
//! assert_eq!(bytes, b"\xa1\x13\x0c\x12\x34\x56\x78\x91\x0aReload OK\0");
//!
//! let text = json::success(&7.into(), reply(), json::Layout::Compact, usize::MAX).expect("it is small");
//! assert_eq!(text, br#"{"jsonrpc":"2.0","result":"Reload OK","id":7}"#);
//! # Ok::<(), binrpc::Malformed>(())
//! ```

#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

pub mod binrpc;
mod buffer;
mod call;
pub mod fifo;
#[cfg(any(test, feature = "invariants"))]
pub mod invariants;
pub mod json;
mod reply;
mod serialize;

pub use buffer::TooLarge;
pub use call::{Call, Fault, Param};
pub use reply::{Reply, Rows, RowsForm, Value, Write};
pub use serialize::{Unserializable, value_of};

/// The largest request of any protocol, in bytes: Kamailio's limit for BINRPC (`STREAM_BUF_SIZE`).
pub const MOST_REQUEST: usize = 65_535;
