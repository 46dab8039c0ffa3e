//! # Test calls by header
//!
//! Calls with `X-Test-Call` from the test system go to the test next hop, and do not count in what follows. The header field of anybody else
//! is removed, so that nobody reaches the test system from outside.
//!
//! In kamailio.cfg:
//!
//! ```kamailio
//! if (is_present_hf("X-Test-Call")) {
//!     if (allow_source_address("900")) {
//!         $du = "sip:test.example.com";
//!         t_relay();
//!         exit;
//!     }
//!     remove_hf("X-Test-Call");
//! }
//! ```
//!
//! Settings (and `headers = ["X-Test-Call"]` in the section of a tenant, so that its policy may remove the header field):
//!
//! ```toml
//! header = "X-Test-Call"
//! group = 900
//! next-hop = "test"
//! ```

use portcullis_sdk::prelude::*;

policy!(decide, settings: check);

fn decide() -> Verdict {
    let header = settings::text("header").unwrap_or_default();
    let Some(test) = request::header(&header) else {
        return pass();
    };
    if group().is_some_and(allow_source_address) {
        log::info!("test call {test} from {}", request::source_address());
        return relay_to(settings::text("next-hop").unwrap_or_default());
    }
    if !edits::remove_header(&header) {
        log::error!("the configuration does not permit this policy to remove {header}");
        return reject(403, "Test call not allowed");
    }
    pass()
}

fn group() -> Option<u32> {
    settings::integer("group")?.try_into().ok()
}

fn check() -> Result<(), String> {
    settings::known(&["group", "header", "next-hop"])?;
    if group().is_none_or(|group| group == 0) {
        return Err("`group` must be the group of the test system".into());
    }
    for key in ["header", "next-hop"] {
        if settings::text(key).is_none_or(|text| text.is_empty()) {
            return Err(format!("`{key}` must be a text"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use portcullis_sdk::testing::{Edit, Host, Outcome, Request};

    use super::*;

    fn host() -> Host {
        Host::new()
            .setting("header", "X-Test-Call")
            .setting("group", 900)
            .setting("next-hop", "test")
            .address(900, "192.0.2.9", 0)
    }

    fn call(host: &Host, source: &str) -> Outcome {
        let request = Request::invite("sip:bob@example.com").header("x-test-call", "7");
        host.request(request.from_source(source)).decide(decide)
    }

    #[test]
    fn test_calls_go_to_the_test_system() {
        let outcome = call(&host(), "192.0.2.9");
        assert_eq!(outcome.verdict, relay_to("test"));
        assert_eq!(outcome.messages(), ["test call 7 from 192.0.2.9"]);
    }

    #[test]
    fn others_lose_the_header() {
        let outcome = call(&host(), "192.0.2.1");
        assert_eq!(outcome.verdict, pass());
        assert_eq!(outcome.edits, [Edit::remove("X-Test-Call")]);
        let outcome = call(&host().keeping_headers(), "192.0.2.1");
        assert_eq!(outcome.verdict, reject(403, "Test call not allowed"));
    }

    #[test]
    fn settings_are_validated() {
        assert_eq!(host().validate(check), Ok(()));
        assert!(host().setting("group", 0).validate(check).is_err());
        assert!(host().setting("header", "").validate(check).is_err());
    }
}
