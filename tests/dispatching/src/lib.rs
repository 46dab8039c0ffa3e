//! A policy that relays to the gateways of set 1 in turn, at most three for one request.

#![forbid(unsafe_code)]

use portcullis_sdk::dispatcher::{Algorithm, relay_to_set};
use portcullis_sdk::prelude::*;

policy!(decide);

fn decide() -> Verdict {
    relay_to_set(1, Algorithm::RoundRobin, 3).unwrap_or_else(|| reject(503, "No gateway"))
}

#[cfg(test)]
mod tests {
    use portcullis_sdk::testing::{Host, Request};

    use super::*;

    #[test]
    fn a_request_goes_to_gateways_of_the_set() {
        let host = Host::new().set(1, ["sip:192.0.2.1", "sip:192.0.2.2"]);
        let outcome = host
            .request(Request::invite("sip:bob@example.com"))
            .decide(decide);
        assert_eq!(outcome.sets, [(1, Algorithm::RoundRobin, 2)]);
    }

    #[test]
    fn without_a_gateway_that_is_up_a_request_is_refused() {
        let host = Host::new().set(1, [""; 0]);
        let outcome = host
            .request(Request::invite("sip:bob@example.com"))
            .decide(decide);
        assert_eq!(outcome.verdict, reject(503, "No gateway"));
    }
}
