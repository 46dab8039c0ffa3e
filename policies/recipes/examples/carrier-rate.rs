//! # Calls per second of a carrier
//!
//! Carriers reject calls above a rate. The recipe gives each call to the first carrier that has room in this second, and answers 503 with
//! Retry-After if none has. A failing carrier is followed by the others.
//!
//! In kamailio.cfg:
//!
//! ```kamailio left=2
//! if (pl_check("carrier_a", "TAILDROP", "10")) {
//!     $du = "sip:carrier-a.example.com";
//! } else if (pl_check("carrier_b", "TAILDROP", "5")) {
//!     $du = "sip:carrier-b.example.com";
//! } else {
//!     sl_send_reply("503", "All carriers are full");
//!     exit;
//! }
//! t_relay();
//! ```
//!
//! Settings:
//!
//! ```toml
//! carriers = ["carrier-a", "carrier-b"]    # in order of preference
//! [per-second]
//! carrier-a = 10
//! carrier-b = 5
//! ```

use portcullis_sdk::prelude::*;

policy!(decide, settings: check);

fn decide() -> Verdict {
    if request::method() != "INVITE" || request::has_to_tag() {
        return pass();
    }
    let carriers = settings::texts("carriers").unwrap_or_default();
    match carriers.iter().position(|carrier| has_room(carrier)) {
        Some(first) => in_turn(&carriers[first..]),
        None => {
            log::warn!("all carriers are at their limit");
            reject(503, "All carriers are full").header("Retry-After", "1")
        }
    }
}

/// Takes one of the carrier's calls of this second.
fn has_room(carrier: &str) -> bool {
    let per_second = per_second(carrier).unwrap_or_default();
    counters::rate_limit(carrier, per_second, per_second.ceil() as u32)
}

fn per_second(carrier: &str) -> Option<f64> {
    settings::number(&format!("per-second.{carrier}"))
}

fn check() -> Result<(), String> {
    settings::known(&["carriers", "per-second"])?;
    let carriers = settings::texts("carriers").unwrap_or_default();
    if carriers.is_empty() {
        return Err("`carriers` must name at least one next hop".into());
    }
    for carrier in carriers {
        if per_second(&carrier).is_none_or(|rate| rate <= 0.0) {
            return Err(format!("`per-second.{carrier}` must be a number above 0"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use portcullis_sdk::testing::{Callee, Host, Request};

    use super::*;

    fn host() -> Host {
        Host::new()
            .setting("carriers", ["carrier-a", "carrier-b"])
            .setting("per-second.carrier-a", 2)
            .setting("per-second.carrier-b", 0.5)
    }

    #[test]
    fn calls_go_to_the_first_carrier_with_room() {
        let host = host();
        let call = || {
            host.request(Request::invite("sip:bob@example.com"))
                .decide(decide)
                .verdict
        };
        let both = in_turn(["carrier-a", "carrier-b"]);
        let second = in_turn(["carrier-b"]);
        let full = reject(503, "All carriers are full").header("Retry-After", "1");
        assert_eq!(
            [call(), call(), call(), call()],
            [both.clone(), both.clone(), second, full]
        );
        host.wait(0.5);
        assert_eq!(call(), both);
    }

    #[test]
    fn a_failing_carrier_is_followed_by_the_next() {
        let host = host()
            .callee("carrier-a", Callee::answers(503))
            .callee("carrier-b", Callee::answers(200));
        let call = host
            .request(Request::invite("sip:bob@example.com"))
            .complete(decide);
        assert_eq!(
            (call.places(), call.status),
            (vec!["carrier-a", "carrier-b"], 200)
        );
    }

    #[test]
    fn settings_are_validated() {
        assert_eq!(host().validate(check), Ok(()));
        let wrong = host().setting("carriers", ["carrier-c"]);
        assert!(wrong.validate(check).is_err());
    }
}
