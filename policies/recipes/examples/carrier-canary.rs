//! # Canary of a carrier
//!
//! Sends a share of the calls to a new carrier first, and the others to the old one. The share is chosen by a hash of the caller, so that one
//! caller always has the same carrier. If the new carrier fails, the old one has its turn.
//!
//! In kamailio.cfg:
//!
//! ```kamailio left=2
//! $var(hash) = $(fU{s.md5}{s.substr,0,2});
//! if ($var(hash) < "0d") $du = "sip:carrier-new.example.com";
//! else $du = "sip:carrier-old.example.com";
//! t_relay();
//! ```
//!
//! Settings:
//!
//! ```toml
//! old = "carrier-a"
//! new = "carrier-b"
//! percent = 5
//! testers = ["+4930123"]       # callers that always have the new carrier; optional
//! ```

use std::time::Duration;

use portcullis_sdk::prelude::*;

policy!(decide, settings: check);

fn decide() -> Verdict {
    if request::method() != "INVITE" || request::has_to_tag() {
        return pass();
    }
    let from = request::from_uri();
    let caller = uri::user(&from).unwrap_or_default();
    let testers = settings::texts("testers").unwrap_or_default();
    let percent = settings::number("percent").unwrap_or_default();
    let is_chosen = testers.iter().any(|tester| tester == caller) || share_of(caller) < percent;
    if !is_chosen {
        return relay_to(name("old"));
    }
    relay_to(name("new"))
        .within(Duration::from_secs(3))
        .or(name("old"))
}

/// A number from 0 to less than 100 that depends on the caller only (FNV-1a, then Murmur's finaliser for its low bits).
fn share_of(caller: &str) -> f64 {
    let mut hash = caller
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    ((hash ^ (hash >> 33)) % 10_000) as f64 / 100.0
}

fn name(key: &str) -> String {
    settings::text(key).unwrap_or_default()
}

fn check() -> Result<(), String> {
    settings::known(&["new", "old", "percent", "testers"])?;
    for key in ["new", "old"] {
        if settings::text(key).is_none() {
            return Err(format!("`{key}` must name a next hop"));
        }
    }
    match settings::number("percent") {
        Some(percent) if (0.0..=100.0).contains(&percent) => Ok(()),
        _ => Err("`percent` must be a number from 0 to 100".into()),
    }
}

#[cfg(test)]
mod tests {
    use portcullis_sdk::testing::{Callee, Host, Request};

    use super::*;

    fn host() -> Host {
        Host::new()
            .setting("old", "carrier-a")
            .setting("new", "carrier-b")
            .setting("percent", 5)
            .setting("testers", ["+4930123"])
    }

    fn verdict(host: &Host, caller: &str) -> Verdict {
        let request =
            Request::invite("sip:bob@example.com").from_uri(&format!("sip:{caller}@example.com"));
        host.request(request).decide(decide).verdict
    }

    #[test]
    fn about_the_share_goes_to_the_new_carrier() {
        let host = host();
        let old = relay_to("carrier-a");
        let callers = (0..10_000).map(|number| format!("+49{number:08}"));
        let chosen = callers
            .filter(|caller| verdict(&host, caller) != old)
            .count();
        assert!((400..600).contains(&chosen), "{chosen} of 10,000");
        assert_ne!(verdict(&host, "+4930123"), old);
        let all = host.setting("percent", 100);
        assert_ne!(verdict(&all, "+4930999"), old);
    }

    #[test]
    fn the_old_carrier_follows_a_failure() {
        let host = host()
            .setting("percent", 100)
            .callee("carrier-b", Callee::silent())
            .callee("carrier-a", Callee::answers(200));
        let request = Request::invite("sip:bob@example.com");
        let call = host.request(request).complete(decide);
        assert_eq!(
            (call.places(), call.status),
            (vec!["carrier-b", "carrier-a"], 200)
        );
    }

    #[test]
    fn settings_are_validated() {
        assert_eq!(host().validate(check), Ok(()));
        assert!(host().setting("percent", 101).validate(check).is_err());
    }
}
