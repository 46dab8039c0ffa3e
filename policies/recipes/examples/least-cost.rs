//! # Least-cost routing by prefix
//!
//! The longest prefix of the called number names the carriers, the cheapest first. If one fails, the next has its turn. Numbers without a
//! route get 404.
//!
//! In kamailio.cfg (`lcr`, `drouting` or `carrierroute`):
//!
//! ```kamailio left=3
//! if (!load_gws(1, $rU)) { sl_send_reply("404", "No route"); exit; }
//! if (!next_gw()) { sl_send_reply("503", "No gateway"); exit; }
//! t_on_failure("GATEWAYS");
//! t_relay();
//!
//! failure_route[GATEWAYS] {
//!     if (t_check_status("5[0-9][0-9]|408") && next_gw()) { t_on_failure("GATEWAYS"); t_relay(); }
//! }
//! ```
//!
//! Settings:
//!
//! ```toml
//! seconds = 4                                  # the time of each carrier for its first response
//! [routes]
//! "+49" = ["carrier-a", "carrier-b"]
//! "+4989" = ["carrier-b", "carrier-a"]
//! "+" = ["carrier-c"]
//! ```

use std::time::Duration;

use portcullis_sdk::prelude::*;

policy!(decide, settings: check);

/// The longest number with its `+` (E.164 §6.1).
const LONGEST: usize = 16;

fn decide() -> Verdict {
    if request::method() != "INVITE" || request::has_to_tag() {
        return pass();
    }
    let called = request::uri();
    let number = uri::user(&called).unwrap_or_default();
    let Some(carriers) = carriers(number) else {
        log::info!("no route to {number}");
        return reject(404, "No route");
    };
    let seconds = settings::number("seconds").unwrap_or(4.0);
    in_turn(carriers).within(Duration::from_secs_f64(seconds))
}

/// The carriers of the longest prefix.
fn carriers(number: &str) -> Option<Vec<String>> {
    // A dot would be the path to another table.
    if !number
        .bytes()
        .all(|byte| byte == b'+' || byte.is_ascii_digit())
    {
        return None;
    }
    let lengths = (1..=number.len().min(LONGEST)).rev();
    let mut routes =
        lengths.filter_map(|len| settings::texts(&format!("routes.{}", &number[..len])));
    routes.next()
}

fn check() -> Result<(), String> {
    settings::known(&["routes", "seconds"])?;
    for prefix in settings::keys("routes") {
        if !prefix
            .bytes()
            .all(|byte| byte == b'+' || byte.is_ascii_digit())
        {
            return Err(format!(
                "`routes.{prefix}`: a prefix has digits, and may begin with +"
            ));
        }
        if settings::texts(&format!("routes.{prefix}")).is_none_or(|list| list.is_empty()) {
            return Err(format!("`routes.{prefix}` must be a list of next hops"));
        }
    }
    match settings::number("seconds").unwrap_or(4.0) {
        seconds if (0.1..=32.0).contains(&seconds) => Ok(()),
        _ => Err("`seconds` must be a number from 0.1 to 32".into()),
    }
}

#[cfg(test)]
mod tests {
    use portcullis_sdk::testing::{Callee, Host, Request};

    use super::*;

    fn host() -> Host {
        Host::new()
            .setting("routes.+49", ["carrier-a", "carrier-b"])
            .setting("routes.+4989", ["carrier-b"])
            .setting("routes.+", ["carrier-c"])
    }

    #[test]
    fn the_longest_prefix_decides() {
        let to = |carriers: &[&str]| in_turn(carriers.to_vec()).within(Duration::from_secs(4));
        for (number, expected) in [
            ("+4930123", to(&["carrier-a", "carrier-b"])),
            ("+4989123", to(&["carrier-b"])),
            ("+15551234567", to(&["carrier-c"])),
            ("112", reject(404, "No route")),
            ("+49.1", reject(404, "No route")),
            ("b\u{f6}b", reject(404, "No route")),
        ] {
            let request = Request::invite(&format!("sip:{number}@example.com"));
            assert_eq!(
                host().request(request).decide(decide).verdict,
                expected,
                "{number}"
            );
        }
    }

    #[test]
    fn the_next_carrier_follows_a_failure() {
        let host = host()
            .callee("carrier-a", Callee::answers(500))
            .callee("carrier-b", Callee::answers(200));
        let request = Request::invite("sip:+4930123@example.com");
        let call = host.request(request).complete(decide);
        assert_eq!(
            (call.places(), call.status),
            (vec!["carrier-a", "carrier-b"], 200)
        );
    }

    #[test]
    fn settings_are_validated() {
        assert_eq!(host().validate(check), Ok(()));
        assert!(host().setting("routes.x", ["a"]).validate(check).is_err());
        assert!(host().setting("routes.1", "a").validate(check).is_err());
        assert!(host().setting("seconds", 0).validate(check).is_err());
    }
}
