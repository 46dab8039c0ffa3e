//! Routes calls by their source: the carrier's calls go back to the carrier, known addresses are relayed, all others are rejected.

#![forbid(unsafe_code)]

use portcullis_sdk::prelude::*;

policy!(decide);

fn decide() -> Verdict {
    if request::method() == "REGISTER" {
        return reject(403, "No registrations here");
    }
    match allow_source_address_group() {
        Some(300) => relay_to("carrier-a"),
        Some(_) => relay(),
        None => {
            log::debug!("{} is not ours", request::source_address());
            reject(401, "Address not authorised").header("X-Why", "unknown source")
        }
    }
}

#[cfg(test)]
mod tests {
    use portcullis_sdk::testing::{Host, Outcome, Request};

    use super::*;

    fn call_from(source: &str) -> Outcome {
        Host::new()
            .address(200, "192.0.2.0/24", 0)
            .address(300, "198.51.100.0/24", 0)
            .request(Request::invite("sip:bob@example.com").from_source(source))
            .decide(decide)
    }

    #[test]
    fn the_carrier_gets_its_calls_back() {
        assert_eq!(call_from("198.51.100.7:5060").verdict, relay_to("carrier-a"));
    }

    #[test]
    fn known_addresses_are_relayed_and_strangers_are_not() {
        assert_eq!(call_from("192.0.2.7:5060").verdict, relay());

        let stranger = call_from("203.0.113.9:5060");
        assert_eq!(stranger.messages(), ["203.0.113.9 is not ours"]);
        assert_eq!(
            stranger.verdict,
            reject(401, "Address not authorised").header("X-Why", "unknown source")
        );
    }
}
