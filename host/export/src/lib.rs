//! What the host sends to other systems: traces of recorded decisions over OTLP ([`Traces`]), and its events in a file or over HTTP
//! ([`Events`]) and in memory ([`LiveEvents`]).
//!
//! Everything here runs on threads of its own with queues of bounded size. What has no room, or cannot be delivered after a few attempts, is
//! lost and counted.

#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

mod error;
mod events;
mod live;
mod otlp;
mod poster;
mod signature;
mod stats;

pub use error::ExportError;
pub use events::{Events, Listener};
pub use live::{Batch, LiveEvent, LiveEvents, LiveListener};
pub use otlp::{Traces, host_name};
pub use stats::{ExportStats, Exports};
