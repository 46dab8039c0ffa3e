//! The policy of the README in Rust, with which policies in other languages are compared.

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
            log::debug!("unknown source");
            reject(401, "Address not authorised").header("X-Why", "unknown source")
        }
    }
}
