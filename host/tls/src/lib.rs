//! TLS without sockets: certificates and keys from files, the certificate for a name that a client asks for (SNI), the rules by which the
//! certificate of a peer is verified (RFC 5922), and the replacement of all of them while the host runs.
//!
//! [`Tls`] has what a host needs for its SIP connections; [`read_pair`] reads one certificate with its key, for the control port.

#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

mod certificate;
mod client;
mod error;
mod names;
mod pem;
mod profile;
mod server;
mod session;
mod store;

pub use certificate::Certificate;
pub use client::Client;
pub use error::{TlsError, explained};
pub use names::SipNames;
pub use pem::read_pair;
pub use profile::{
    Authorities, ClientAuth, MinVersion, NamedRelayProfile, Profile, RelayProfile, Settings,
};
pub use server::{Inside, Server};
pub use session::Session;
pub use store::{Listed, Reloaded, Tls};
