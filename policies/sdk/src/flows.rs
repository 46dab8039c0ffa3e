//! Flows of clients: phones behind NAT and browsers, which only the flow that they opened leads to (RFC 5626; Kamailio: the modules `path`,
//! `outbound` and `nathelper`, the parameter `;alias`).
//!
//! The host writes a flow as a sealed token into its own value of Path and Record-Route. Whoever brings it back in Route reaches the client.
//!
//! ```
//! use portcullis_sdk::flows::Flow;
//! use portcullis_sdk::prelude::*;
//! use portcullis_sdk::testing::{Host, Request};
//!
//! fn decide() -> Verdict {
//!     // A phone that is gone: the caller need not wait for the host to find that out.
//!     if flows::route() == Flow::Gone && request::method() == "INVITE" {
//!         return relay_to("voicemail");
//!     }
//!     // Browsers have no address of their own.
//!     if request::transport().starts_with("WS") {
//!         flows::keep();
//!     }
//!     relay()
//! }
//!
//! let host = Host::new();
//! let call = |request| host.request(request).decide(decide);
//! let invite = || Request::invite("sip:bob@192.0.2.7");
//! assert_eq!(call(invite().flow(Flow::Alive)).verdict, relay());
//! assert_eq!(call(invite().flow(Flow::Gone)).verdict, relay_to("voicemail"));
//! assert!(call(Request::register("sip:example.com").transport("WSS")).keeps_flow);
//! assert!(!call(Request::register("sip:example.com")).keeps_flow);
//! ```

pub use crate::flow::Flow;

use crate::host;

/// The flow that the request goes along if it is relayed: that of the Route values of the host. It goes along no other, whatever next hop a verdict
/// names.
pub fn route() -> Flow {
    host::route()
}

/// Whether the request has come along a flow that a Route value of the host names with a valid token: the sender is the client that this dialog
/// began with.
pub fn came_along() -> bool {
    host::came_along()
}

/// Whether the sender is a client by the host's configuration: then [`keep`] changes nothing.
pub fn is_client() -> bool {
    host::is_client()
}

/// Treats the sender as a client: if the request is relayed, by this policy or, after a [`pass`](crate::pass), by another one, a REGISTER gets Path
/// with the token of its flow, and a request that begins a dialog gets Record-Route with the token. Contact and body stay as they are.
///
/// Kamailio: `add_path_received()`, `add_contact_alias()`.
pub fn keep() {
    host::keep();
}
