//! The routing logic of groups.cfg, translated by `portcullis import --policy`.
//!
//! Each route is a function. `Err(verdict)` ends the script with this verdict, as `exit` does behind a reply; `Ok` returns to the
//! caller, as `return` does. Requests within a dialog do not come here: the host relays them itself.

#![forbid(unsafe_code)]

use portcullis_sdk::prelude::*;

policy!(decide);

/// The result of a route.
type Route = Result<bool, Verdict>;

fn decide() -> Verdict {
    let result: Route = request_route();
    // A script that ends without a reply or a relay is silent.
    result.err().unwrap_or_else(drop_request)
}

/// groups.cfg:27: `request_route`
fn request_route() -> Route {
    if allow_source_address(200) {
        log::info!("Coming from address group 200");
        return Err(relay());
    } else if allow_source_address(250) {
        log::info!("Coming from address group 250");
        return Err(relay());
    } else {
        return Err(reject(401, "Address not authorised"));
    }
}
