//! SIP without sockets and clocks.

#![forbid(unsafe_code)]

mod arrival;
mod cseq;
mod edit;
mod frame;
mod host;
#[cfg(any(test, feature = "invariants"))]
pub mod invariants;
mod key;
mod list;
mod name_addr;
mod params;
mod proxy;
mod reason;
mod reply;
mod routes;
mod scan;
mod token;
mod uri;
mod via;
mod words;

pub use arrival::{Arrival, ConnectionId, Destination, Transport, UnknownTransport};
pub use cseq::{CSeq, content_length, max_forwards};
pub use frame::{Frame, FrameError, Framer, PONG};
pub use host::{Host, ip_address};
pub use list::{Value, Values, values};
pub use name_addr::{NameAddr, NameAddrError};
pub use params::{Param, Params};
pub use proxy::{
    DropReason, Local, Proxy, ProxyConfig, Received, RelayError, RelayErrorKind, Target,
};
pub use reason::standard_reason;
pub use routes::{RouteError, Routes, RoutesBuilder};
pub use scan::{
    Fault, Field, Framing, HeaderName, Index, Limits, LineEnd, Message, ScanError, StartLine, scan,
};
pub use uri::{Scheme, Uri, UriError, scheme_name};
pub use via::{MAGIC_COOKIE, Via, ViaError};
