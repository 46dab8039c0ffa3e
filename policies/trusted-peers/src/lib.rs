//! Relays requests of trusted peers and rejects all others with 403. The table `trusted` defines the peers, with their transports and the
//! permitted From and request URIs.

#![forbid(unsafe_code)]

use portcullis_sdk::prelude::*;

policy!(decide);

fn decide() -> Verdict {
    if !allow_trusted() {
        return reject(403, "Peer not trusted");
    }
    match trusted::tags().first() {
        Some(tag) => log::info!("Coming from trusted peer {tag}"),
        None => log::info!("Coming from a trusted peer"),
    }
    relay()
}

#[cfg(test)]
mod tests {
    use portcullis_sdk::testing::{Host, Outcome, Request};

    use super::*;

    fn call(source: &str, from: &str) -> Outcome {
        Host::new()
            .trusted("192.0.2.7", "udp")
            .tag("trunk-a")
            .when(|from, _| from.ends_with("@example.org"))
            .trusted("192.0.2.8", "any")
            .request(
                Request::invite("sip:bob@example.com")
                    .from_source(source)
                    .from_uri(from),
            )
            .decide(decide)
    }

    #[test]
    fn peers_are_relayed_and_logged() {
        let outcome = call("192.0.2.7:5060", "sip:alice@example.org");
        assert_eq!(outcome.verdict, relay());
        assert_eq!(outcome.messages(), ["Coming from trusted peer trunk-a"]);

        let outcome = call("192.0.2.8:40000", "sip:anyone@example.net");
        assert_eq!(outcome.verdict, relay());
        assert_eq!(outcome.messages(), ["Coming from a trusted peer"]);
    }

    #[test]
    fn other_sources_and_from_uris_are_rejected() {
        for (source, from) in [
            ("192.0.2.7:5060", "sip:alice@example.net"),
            ("192.0.2.9:5060", "sip:alice@example.org"),
        ] {
            assert_eq!(call(source, from).verdict, reject(403, "Peer not trusted"));
        }
    }
}
