//! SIP without sockets and clocks.

#![forbid(unsafe_code)]

mod arrival;
mod cseq;
mod host;
mod list;
mod name_addr;
mod params;
mod scan;
mod token;
mod uri;
mod via;

pub use arrival::{Arrival, ConnectionId, Destination, Transport, UnknownTransport};
pub use cseq::{CSeq, content_length, max_forwards};
pub use host::{Host, ip_address};
pub use list::{Value, Values, values};
pub use name_addr::{NameAddr, NameAddrError};
pub use params::{Param, Params};
pub use scan::{
    Fault, Field, Framing, HeaderName, Index, Limits, LineEnd, Message, ScanError, StartLine, scan,
};
pub use uri::{Scheme, Uri, UriError, scheme_name};
pub use via::{MAGIC_COOKIE, Via, ViaError};
