//! # Emergency calls first
//!
//! Relays calls to emergency numbers and to `urn:service:sos` before any other rule can reject them. As the `before` policy of a host, it also
//! precedes the policies of all tenants.
//!
//! In kamailio.cfg:
//!
//! ```kamailio
//! if (is_method("INVITE") && ($rU =~ "^(112|911)$" || $ru =~ "^urn:service:sos")) {
//!     xlog("L_WARN", "emergency call from $fu at $si\n");
//!     $du = "sip:psap.example.com";
//!     t_relay();
//!     exit;
//! }
//! ```
//!
//! Settings:
//!
//! ```toml
//! numbers = ["112", "911", "+112"]
//! next-hops = ["psap", "carrier-a"]   # in turn, four seconds each
//! ```

use std::time::Duration;

use portcullis_sdk::prelude::*;

policy!(decide, settings: check);

fn decide() -> Verdict {
    let called = request::uri();
    if request::method() != "INVITE" || !is_emergency(&called) {
        return pass();
    }
    log::warn!(
        "emergency call to {called} from {} at {}",
        request::from_uri(),
        request::source_address()
    );
    in_turn(settings::texts("next-hops").unwrap_or_default()).within(Duration::from_secs(4))
}

fn is_emergency(called: &str) -> bool {
    let urn = called.to_ascii_lowercase();
    if urn == "urn:service:sos" || urn.starts_with("urn:service:sos.") {
        return true;
    }
    let numbers = settings::texts("numbers").unwrap_or_default();
    uri::user(called).is_some_and(|user| numbers.iter().any(|number| number == user))
}

fn check() -> Result<(), String> {
    settings::known(&["next-hops", "numbers"])?;
    if settings::texts("next-hops").is_none_or(|list| list.is_empty()) {
        return Err("`next-hops` must name at least one next hop".into());
    }
    match settings::texts("numbers") {
        Some(_) => Ok(()),
        None => Err("`numbers` must be a list like [\"112\", \"911\"]".into()),
    }
}

#[cfg(test)]
mod tests {
    use portcullis_sdk::testing::{Callee, Host, Request};

    use super::*;

    fn host() -> Host {
        Host::new()
            .setting("numbers", ["112", "911"])
            .setting("next-hops", ["psap", "carrier-a"])
    }

    #[test]
    fn emergency_calls_go_to_the_first_next_hop_that_answers() {
        let host = host()
            .callee("psap", Callee::silent())
            .callee("carrier-a", Callee::answers(200));
        for uri in [
            "sip:112@example.com",
            "tel:911",
            "urn:service:sos",
            "URN:service:sos.fire",
        ] {
            let call = host.request(Request::invite(uri)).complete(decide);
            assert_eq!(call.places(), ["psap", "carrier-a"], "{uri}");
            assert_eq!(call.status, 200);
        }
    }

    #[test]
    fn other_requests_pass() {
        for uri in [
            "sip:1120@example.com",
            "sip:example.com",
            "urn:service:sosnot",
        ] {
            let outcome = host().request(Request::invite(uri)).decide(decide);
            assert_eq!(outcome.verdict, pass(), "{uri}");
            assert!(outcome.log.is_empty());
        }
        let options = Request::options("sip:112@example.com");
        assert_eq!(host().request(options).decide(decide).verdict, pass());
    }

    #[test]
    fn settings_are_validated() {
        assert_eq!(host().validate(check), Ok(()));
        assert!(Host::new().validate(check).is_err());
        assert!(host().setting("number", "112").validate(check).is_err());
    }
}
