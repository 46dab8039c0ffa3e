//! # INVITE floods against a number
//!
//! Limits how often one number is called and how often one caller calls, whatever the source addresses are: a rate per source does not stop a
//! flood from many of them. The bundled policy `rate-guard` limits each source.
//!
//! In kamailio.cfg:
//!
//! ```kamailio left=1
//! modparam("pipelimit", "timer_interval", 5)
//!
//! if (is_method("INVITE") && !pl_check("to_$rU", "TAILDROP", "3")) {
//!     append_to_reply("Retry-After: 10\r\n");
//!     sl_send_reply("480", "Too many calls");
//!     exit;
//! }
//! ```
//!
//! Settings:
//!
//! ```toml
//! [callee]
//! per-second = 0.5
//! burst = 10
//! [caller]
//! per-second = 1
//! burst = 20
//! ```

use portcullis_sdk::prelude::*;

policy!(decide, settings: check);

fn decide() -> Verdict {
    if request::method() != "INVITE" || request::has_to_tag() {
        return pass();
    }
    let called = request::uri();
    let caller = request::from_uri();
    let is_within = is_within("callee", &called) && is_within("caller", &caller);
    if is_within {
        return pass();
    }
    log::info!("too many calls from {caller} to {called}");
    reject(480, "Too many calls").header("Retry-After", "10")
}

/// Whether one more call of this user is within the rate. Without a user, as in `sip:192.0.2.1`, there is no limit.
fn is_within(side: &str, uri: &str) -> bool {
    let (Some(user), Some((per_second, burst))) = (uri::user(uri), rate(side)) else {
        return true;
    };
    let key = format!("{side} {user}@{}", uri::host(uri).to_ascii_lowercase());
    counters::rate_limit(&key, per_second, burst)
}

fn rate(side: &str) -> Option<(f64, u32)> {
    let per_second = settings::number(&format!("{side}.per-second"))?;
    let burst = settings::integer(&format!("{side}.burst"))?;
    Some((per_second, burst.try_into().ok()?))
}

fn check() -> Result<(), String> {
    settings::known(&["callee", "caller"])?;
    for side in settings::keys("") {
        match rate(&side) {
            Some((per_second, burst)) if per_second > 0.0 && burst > 0 => {}
            _ => {
                return Err(format!(
                    "`{side}` needs `per-second` and `burst`, numbers above 0"
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use portcullis_sdk::testing::{Host, Request};

    use super::*;

    fn call(host: &Host, from: &str, to: &str) -> Verdict {
        let request = Request::invite(to).from_uri(from);
        host.request(request).decide(decide).verdict
    }

    #[test]
    fn one_number_gets_few_calls() {
        let host = Host::new()
            .setting("callee.per-second", 0.5)
            .setting("callee.burst", 2);
        let full = reject(480, "Too many calls").header("Retry-After", "10");
        let to_bob = |caller: &str| {
            let from = format!("sip:{caller}@example.com");
            call(&host, &from, "sip:bob@example.com")
        };
        assert_eq!(
            [to_bob("a"), to_bob("b"), to_bob("c")],
            [pass(), pass(), full]
        );
        assert_eq!(
            call(&host, "sip:c@example.com", "sip:carol@EXAMPLE.com"),
            pass()
        );
        host.wait(2.0);
        assert_eq!(to_bob("c"), pass());
    }

    #[test]
    fn one_caller_makes_few_calls() {
        let host = Host::new()
            .setting("caller.per-second", 1)
            .setting("caller.burst", 1);
        let from_alice = |to: &str| call(&host, "sip:alice@example.com", to);
        assert_eq!(from_alice("sip:bob@example.com"), pass());
        assert_ne!(from_alice("sip:carol@example.com"), pass());
        assert_eq!(
            call(&host, "sip:dave@example.com", "sip:carol@example.com"),
            pass()
        );
    }

    #[test]
    fn settings_are_validated() {
        let host = Host::new().setting("callee.per-second", 1);
        assert!(host.validate(check).is_err());
        assert_eq!(host.setting("callee.burst", 1).validate(check), Ok(()));
    }
}
