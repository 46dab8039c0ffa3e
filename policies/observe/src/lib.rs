//! Logs every request and relays it.

#![forbid(unsafe_code)]

use portcullis_sdk::prelude::*;

policy!(decide);

fn decide() -> Verdict {
    log::info!(
        "{} {} from {} port {} over {}, Call-ID {}",
        request::method(),
        request::uri(),
        request::source_address(),
        request::source_port(),
        request::transport(),
        request::call_id(),
    );
    relay()
}

#[cfg(test)]
mod tests {
    use portcullis_sdk::testing::{Host, Request};

    use super::*;

    #[test]
    fn every_request_is_logged_and_relayed() {
        let message = Request::new("MESSAGE", "sip:bob@example.com")
            .from_source("[2001:db8::7]:5080")
            .transport("TCP")
            .call_id("a84b4c76e66710@pc33.example.com");

        let outcome = Host::new().request(message).decide(decide);

        assert_eq!(outcome.verdict, relay());
        assert_eq!(
            outcome.messages(),
            [
                "MESSAGE sip:bob@example.com from 2001:db8::7 port 5080 over TCP, \
                 Call-ID a84b4c76e66710@pc33.example.com"
            ]
        );
    }
}
