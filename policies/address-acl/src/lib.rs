//! The policy in the README: known address groups are relayed, all other sources are rejected with 401.

#![forbid(unsafe_code)]

use portcullis_sdk::prelude::*;

policy!(decide);

fn decide() -> Verdict {
    if allow_source_address(200) {
        log::info!("Coming from address group 200");
        relay()
    } else if allow_source_address(250) {
        log::info!("Coming from address group 250");
        relay()
    } else {
        reject(401, "Address not authorised")
    }
}

#[cfg(test)]
mod tests {
    use portcullis_sdk::testing::{Host, Outcome, Request};

    use super::*;

    /// The table of the README.
    fn call_from(source: &str) -> Outcome {
        Host::new()
            .address(250, "10.8.203.139", 5060)
            .tag("TestServer")
            .address(200, "192.168.1.0/24", 5060)
            .tag("OfficeSubnet")
            .request(Request::invite("sip:bob@example.com").from_source(source))
            .decide(decide)
    }

    #[test]
    fn the_office_may_call() {
        let outcome = call_from("192.168.1.7:5060");

        assert_eq!(outcome.verdict, relay());
        assert_eq!(outcome.messages(), ["Coming from address group 200"]);
    }

    #[test]
    fn the_test_server_may_call() {
        let outcome = call_from("10.8.203.139:5060");

        assert_eq!(outcome.verdict, relay());
        assert_eq!(outcome.messages(), ["Coming from address group 250"]);
    }

    #[test]
    fn other_sources_and_ports_may_not() {
        for source in [
            "192.168.2.7:5060",
            "192.168.1.7:5061",
            "10.8.203.140:5060",
            "[2001:db8::1]:5060",
        ] {
            let outcome = call_from(source);

            assert_eq!(
                outcome.verdict,
                reject(401, "Address not authorised"),
                "{source}"
            );
            assert!(outcome.log.is_empty(), "{source}");
        }
    }
}
