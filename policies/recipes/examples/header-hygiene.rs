//! # Header hygiene
//!
//! Removes header fields that only trusted peers may set from the requests of all others: identities, charging data, and whatever the servers
//! behind act upon (RFC 3325 §4, RFC 7315 §6).
//!
//! In kamailio.cfg:
//!
//! ```kamailio left=1
//! if (!allow_source_address("200")) {
//!     remove_hf_re("^(P-Asserted-Identity|P-Charging-Vector|Remote-Party-ID|X-Account)$");
//! }
//! ```
//!
//! Settings (and the same list as `headers` in the section of a tenant):
//!
//! ```toml
//! trusted-group = 200
//! headers = [
//!     "P-Asserted-Identity", "P-Preferred-Identity", "P-Charging-Vector", "P-Access-Network-Info",
//!     "Remote-Party-ID", "Diversion", "X-Account",
//! ]
//! ```

use portcullis_sdk::prelude::*;

policy!(decide, settings: check);

fn decide() -> Verdict {
    if trusted_group().is_some_and(allow_source_address) {
        return pass();
    }
    for name in settings::texts("headers").unwrap_or_default() {
        if request::header(&name).is_some() && !edits::remove_header(&name) {
            log::error!("the configuration does not permit this policy to remove {name}");
            return reject(403, "Header not allowed");
        }
    }
    pass()
}

fn trusted_group() -> Option<u32> {
    settings::integer("trusted-group")?.try_into().ok()
}

fn check() -> Result<(), String> {
    settings::known(&["headers", "trusted-group"])?;
    if trusted_group().is_none() {
        return Err("`trusted-group` must be the number of a group".into());
    }
    match settings::texts("headers") {
        Some(headers) if !headers.is_empty() => Ok(()),
        _ => Err("`headers` must be a list of names".into()),
    }
}

#[cfg(test)]
mod tests {
    use portcullis_sdk::testing::{Edit, Host, Outcome, Request};

    use super::*;

    fn host() -> Host {
        Host::new()
            .setting("trusted-group", 200)
            .setting("headers", ["P-Asserted-Identity", "X-Account"])
            .address(200, "192.0.2.1", 0)
    }

    fn call(host: &Host, source: &str) -> Outcome {
        let request = Request::invite("sip:bob@example.com")
            .header("x-account", "7")
            .from_source(source);
        host.request(request).decide(decide)
    }

    #[test]
    fn only_trusted_peers_keep_the_headers() {
        let trusted = call(&host(), "192.0.2.1");
        assert_eq!((trusted.verdict, trusted.edits.len()), (pass(), 0));
        let other = call(&host(), "192.0.2.2");
        assert_eq!(
            (other.verdict, other.edits),
            (pass(), vec![Edit::remove("X-Account")])
        );
    }

    #[test]
    fn a_header_that_must_not_be_removed_is_refused() {
        let outcome = call(&host().keeping_headers(), "192.0.2.2");
        assert_eq!(outcome.verdict, reject(403, "Header not allowed"));
    }

    #[test]
    fn settings_are_validated() {
        assert_eq!(host().validate(check), Ok(()));
        assert!(Host::new().validate(check).is_err());
    }
}
