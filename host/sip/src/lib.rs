//! SIP without sockets and clocks.

#![forbid(unsafe_code)]

mod arrival;
mod cseq;
mod scan;
mod token;

pub use arrival::{Arrival, ConnectionId, Destination, Transport, UnknownTransport};
pub use cseq::{CSeq, content_length, max_forwards};
pub use scan::{
    Fault, Field, Framing, HeaderName, Index, Limits, LineEnd, Message, ScanError, StartLine, scan,
};
