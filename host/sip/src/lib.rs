//! SIP without sockets and clocks.
//!
//! Received bytes are [scanned](scan) once into an [`Index`] of spans; a [`Message`] reads them
//! through it, and value readers such as [`Via`] and [`Uri`] read single headers in place. A
//! [`Framer`] cuts streams into messages first. [`Proxy`] decides what to do with a message: it
//! writes replies and relayed messages into a buffer and returns their [`Destination`].
//!
//! ```
//! use portcullis_sip::{Framing, HeaderName, Index, Limits, Message, Via, scan};
//!
//! let bytes = b"SIP/2.0 200 OK\r\nv: SIP/2.0/UDP 192.0.2.1:5070;branch=z9hG4bK1\r\n\r\n";
//! let mut index = Index::default(); // kept and used again for the next message
//! scan(bytes, Framing::Datagram, &Limits::default(), &mut index)?;
//!
//! let message = Message::new(bytes, &index);
//! let via = message.header(HeaderName::Via).map(|field| Via::parse(field.value));
//! assert_eq!(via.and_then(Result::ok).and_then(|via| via.port), Some(5070));
//! # Ok::<(), portcullis_sip::ScanError>(())
//! ```

#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

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
mod overload;
mod params;
mod proxy;
mod reason;
mod registration;
mod reply;
mod routes;
mod scan;
mod steering;
mod stun;
mod token;
mod top_via;
mod uri;
mod via;
mod words;

pub use arrival::{Arrival, ConnectionId, Destination, Transport, UnknownTransport};
pub use cseq::{CSeq, content_length, max_forwards};
pub use frame::{Frame, FrameError, Framer, OVERSIZED_FACTOR, PONG};
pub use host::{Host, ip_address};
pub use list::{Value, Values, holds_empty, values};
pub use name_addr::{NameAddr, NameAddrError};
pub use overload::{Demand, Feedback, Limit, Offer, Overload, OverloadAlgorithm, OverloadControl};
pub use params::{Param, Params};
pub use proxy::{
    Branch, Clients, DEFAULT_BREADTH, Dialog, DialogSeal, DropReason, Forward, Forwarded,
    HeaderChange, Local, Ping, Proxy, ProxyConfig, Received, RelayError, RelayErrorKind,
    RequestName, ResponseChanges, RouteFlow, Target, Transaction, shorten, to_has_tag, write_ack,
    write_cancel, write_response,
};
pub use reason::standard_reason;
pub use registration::{registered_for, registers};
pub use routes::{Candidate, Choice, Lookup, RouteError, Routes, RoutesBuilder, Sought, mark};
pub use scan::{
    Fault, Field, Framing, HeaderName, Index, Limits, LineEnd, Message, ScanError, StartLine, scan,
};
pub use steering::{FilterStep, Steering};
pub use stun::{answer_binding, is_stun};
pub use uri::{Scheme, Uri, UriError, is_readable_uri, is_sips, scheme_name};
pub use via::{MAGIC_COOKIE, Via, ViaError};
