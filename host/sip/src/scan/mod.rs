//! One pass over received bytes that finds the start line, the headers and the body.
//!
//! [`scan`] writes only spans into an [`Index`]; [`Message`] reads the bytes through it.
//! Nothing is copied, and a scan into an index that was used before allocates nothing.
//!
//! # What is read and what is refused
//! A proxy reads few headers and relays the rest as received (RFC 3261 §16.3), so few things are
//! errors here. Unknown methods and headers, bytes outside UTF-8, folded and compact headers, space
//! before the colon and line ends before the start line (§7.5) are accepted. [`Fault`] lists the
//! errors: those that make the boundaries of headers ambiguous, or make headers unusable that a
//! proxy needs.
//!
//! # Line ends
//! A message ends its lines with CRLF. One that ends all lines with bare LF is also accepted,
//! because hand-made messages and test files have that form; edits to such a message use its own
//! line end ([`Message::line_end`]). A mixture, or a CR alone, is [`Fault::LineEnd`]: the next hop
//! might see other headers, and so bypass a rule that was checked here.

mod error;
mod header_name;
mod index;
mod limits;
pub(crate) mod lines;
mod message;
#[cfg(test)]
mod properties;
mod scanner;
pub(crate) mod start_line;
#[cfg(test)]
mod tests;

pub use error::{Fault, ScanError};
pub use header_name::HeaderName;
pub use index::Index;
pub use limits::Limits;
pub use lines::LineEnd;
pub use message::{Field, Message, StartLine};
pub use scanner::{Framing, scan};
