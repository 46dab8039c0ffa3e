//! The SIP request to decide on.
//!
//! Each function reads one value from the host; values that a policy does not read cost nothing. Bytes that are not valid UTF-8 are
//! replaced by U+FFFD; folded header lines are unfolded.
//!
//! ```
//! use portcullis_sdk::prelude::*;
//!
//! fn decide() -> Verdict {
//!     if request::method() == "REGISTER" {
//!         return relay_to("registrar");
//!     }
//!     if request::header("User-Agent").is_some_and(|agent| agent.contains("friendly-scanner")) {
//!         return drop_request();
//!     }
//!     relay()
//! }
//! # use portcullis_sdk::testing::{Host, Request};
//! # let register = Request::new("REGISTER", "sip:example.com");
//! # assert_eq!(Host::new().request(register).decide(decide).verdict, relay_to("registrar"));
//! # let scan = Request::options("sip:example.com").header("user-agent", "friendly-scanner");
//! # assert_eq!(Host::new().request(scan).decide(decide).verdict, drop_request());
//! ```

use crate::host;

/// The method, as received: `INVITE`, `ACK`, `OPTIONS`, … or any extension method. Methods are case-sensitive.
pub fn method() -> String {
    host::method()
}

/// The request URI, as received.
pub fn uri() -> String {
    host::uri()
}

/// The URI of the From header field, without display name, angle brackets and header parameters.
pub fn from_uri() -> String {
    host::from_uri()
}

/// The URI of the To header field, without display name, angle brackets and header parameters.
pub fn to_uri() -> String {
    host::to_uri()
}

/// The value of Call-ID.
pub fn call_id() -> String {
    host::call_id()
}

/// The sequence number of CSeq.
pub fn cseq_number() -> u32 {
    host::cseq_number()
}

/// The source address of the request: `192.0.2.1` or `2001:db8::1`.
pub fn source_address() -> String {
    host::source_address()
}

/// The source port of the request.
pub fn source_port() -> u16 {
    host::source_port()
}

/// The transport of the request, as in a Via header field: `UDP`, `TCP`, `TLS`, `WS` or `WSS`. Further transports may be added.
pub fn transport() -> String {
    host::transport()
}

/// The address of the host's socket that received the request.
pub fn local_address() -> String {
    host::local_address()
}

/// The port of the host's socket that received the request.
pub fn local_port() -> u16 {
    host::local_port()
}

/// The value of the first header field with this name, or `None`.
///
/// Names are case-insensitive, and a compact form is equivalent to its full form: `header("Via")` finds a `v:` line.
pub fn header(name: &str) -> Option<String> {
    host::header(name)
}

/// The values of all header fields with this name, one for each line, in the order of the message.
pub fn headers(name: &str) -> Vec<String> {
    host::headers(name)
}

/// Whether To has a tag: the request belongs to a dialog, or claims to (Kamailio: `has_totag()`).
pub fn has_to_tag() -> bool {
    header("To").is_some_and(|to| has_tag(&to))
}

/// Whether a value of From or To has the parameter `tag`.
fn has_tag(value: &str) -> bool {
    let behind_uri = value.rsplit('>').next().unwrap_or_default();
    let params = behind_uri.split(';').skip(1);
    params
        .map(|param| param.split('=').next().unwrap_or_default().trim())
        .any(|name| name.eq_ignore_ascii_case("tag"))
}

/// The length of the body in bytes.
pub fn body_length() -> u32 {
    host::body_length()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_parameters_of_the_header_field() {
        assert!(has_tag("<sip:bob@example.com>;tag=7"));
        assert!(has_tag("sip:bob@example.com ; Tag=7"));
        assert!(!has_tag("<sip:bob@example.com;tag=no>"));
        assert!(!has_tag("\"tag\" <sip:bob@example.com>;tagged=no"));
    }
}
