//! A policy that misbehaves as its settings say; where it returns a verdict, it rejects with 401. OPTIONS is always answered, because the
//! host tests a policy with one before it becomes active.

#![forbid(unsafe_code)]

use portcullis_sdk::prelude::*;

policy!(decide, settings: check);

const WAYS: [&str; 6] = ["well", "loop", "grow", "trap", "log", "spiral"];

fn decide() -> Verdict {
    if request::method() == "OPTIONS" {
        return reject(401, "Address not authorised");
    }
    match settings::text("how").as_deref() {
        Some("loop") => loop {
            std::hint::spin_loop();
        },
        Some("grow") => grow(),
        Some("trap") => panic!("as its settings say"),
        Some("log") => {
            for n in 0..1000 {
                log::error!("line {n} of one call");
            }
        }
        // `itself` is the host. No two requests are the same.
        Some("spiral") => {
            let user = request::uri().replacen("sip:", "sip:x", 1);
            return relay_to("itself").request_uri(user);
        }
        _ => {}
    }
    reject(401, "Address not authorised")
}

fn grow() {
    let mut all: Vec<Vec<u8>> = Vec::new();
    loop {
        all.push(vec![1; 1 << 20]);
        if all.len() > 1 << 20 {
            break;
        }
    }
}

fn check() -> Result<(), String> {
    match settings::text("how") {
        Some(how) if WAYS.contains(&&*how) => Ok(()),
        _ => Err(format!("`how` must be one of {}", WAYS.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use portcullis_sdk::testing::{Host, Request};

    use super::*;

    #[test]
    fn without_malice_it_answers() {
        let host = Host::new().setting("how", "well");
        let outcome = host
            .request(Request::invite("sip:bob@example.com"))
            .decide(decide);
        assert_eq!(outcome.verdict, reject(401, "Address not authorised"));
        assert_eq!(host.validate(check), Ok(()));
        assert!(Host::new().validate(check).is_err());
    }
}
