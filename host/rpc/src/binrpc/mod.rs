//! BINRPC, the binary protocol of Kamailio's module `ctl` and of `kamcmd` (`src/modules/ctl/binrpc.h`).
//!
//! A packet is a header and a body of records. All numbers are big-endian. Header: 0xA1; a byte with the kind of the packet and
//! the widths of the two numbers that follow; the length of the body; the cookie, which a reply carries back. A record is a lead
//! byte with type and length, then the value.

mod packet;
mod record;
mod write;

pub use packet::{Framer, Kind, Malformed, Packet};
pub use record::{Record, Records};
pub use write::{fault, reply, request};

/// The largest reply that `kamcmd` accepts, in bytes with the header (`MAX_REPLY_SIZE`).
pub const MOST_REPLY: usize = 128 << 10;

/// The default port (`DEFAULT_CTL_PORT`).
pub const PORT: u16 = 2049;

#[cfg(test)]
mod tests;
