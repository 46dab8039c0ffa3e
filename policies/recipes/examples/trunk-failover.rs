//! # Trunk failover that remembers
//!
//! Relays to trunks in order. A trunk that has failed several times within a minute comes last for the rest of that minute, so that callers do
//! not wait for it again and again: what a dispatcher does with probes, here by the calls themselves.
//!
//! In kamailio.cfg:
//!
//! ```kamailio
//! ds_select_dst("1", "8");
//! t_on_failure("TRUNKS");
//! t_set_fr(120000, 3000);
//! t_relay();
//!
//! failure_route[TRUNKS] {
//!     if (t_is_canceled()) exit;
//!     if (t_check_status("5[0-9][0-9]|408") && ds_next_dst()) {
//!         ds_mark_dst("ip");
//!         t_on_failure("TRUNKS");
//!         t_relay();
//!     }
//! }
//! ```
//!
//! Settings:
//!
//! ```toml
//! trunks = ["carrier-a", "carrier-b"]   # at most 8
//! seconds = 3                           # the time of each for its first response
//! failures = 3                          # within a minute, after which a trunk comes last
//! ```

use std::time::Duration;

use portcullis_sdk::prelude::*;

policy!(decide, settings: check, on_failure: after);

fn decide() -> Verdict {
    // One at a time, so that `after` learns of each failure.
    timed(relay_to(by_health().into_iter().next().unwrap_or_default()))
}

fn after() -> NextStep {
    let tried = outcome::attempts();
    let Some(last) = tried.last() else {
        return best_answer();
    };
    // A busy callee or a wrong number is no failure of the trunk.
    if last.status < 500 && last.status != 408 {
        return best_answer();
    }
    if counters::add(&last.place, 1, 60) == failures() {
        log::warn!("trunk {} comes last for a minute", last.place);
    }
    let is_new = |trunk: &String| tried.iter().all(|attempt| attempt.place != *trunk);
    match by_health().into_iter().find(is_new) {
        Some(trunk) if outcome::tries_left() > 0 => again(timed(relay_to(trunk))),
        _ => best_answer(),
    }
}

/// The trunks, those that have failed too often last.
fn by_health() -> Vec<String> {
    let mut trunks = settings::texts("trunks").unwrap_or_default();
    let failures = failures();
    trunks.sort_by_key(|trunk| counters::value(trunk) >= failures);
    trunks
}

fn failures() -> u64 {
    let failures = settings::integer("failures").unwrap_or(3);
    failures.try_into().unwrap_or(1)
}

fn timed(verdict: Verdict) -> Verdict {
    let seconds = settings::number("seconds").unwrap_or(3.0);
    verdict.within(Duration::from_secs_f64(seconds))
}

fn check() -> Result<(), String> {
    settings::known(&["failures", "seconds", "trunks"])?;
    let trunks = settings::texts("trunks").unwrap_or_default();
    if !(1..=8).contains(&trunks.len()) {
        return Err("`trunks` must be a list of one to eight next hops".into());
    }
    if settings::has("failures") && settings::integer("failures").is_none_or(|n| n < 1) {
        return Err("`failures` must be a number above 0".into());
    }
    match settings::number("seconds").unwrap_or(3.0) {
        seconds if (0.1..=32.0).contains(&seconds) => Ok(()),
        _ => Err("`seconds` must be a number from 0.1 to 32".into()),
    }
}

#[cfg(test)]
mod tests {
    use portcullis_sdk::testing::{Callee, Completed, Host, Request};

    use super::*;

    fn host() -> Host {
        Host::new()
            .setting("trunks", ["carrier-a", "carrier-b"])
            .setting("failures", 2)
            .callee("carrier-b", Callee::answers(200))
    }

    fn call(host: &Host) -> Completed {
        host.request(Request::invite("sip:+4930123@example.com"))
            .complete_with(decide, after)
    }

    #[test]
    fn a_failing_trunk_comes_last_for_a_minute() {
        let host = host().callee("carrier-a", Callee::silent());
        for _ in 0..2 {
            let call = call(&host);
            assert_eq!(
                (call.places(), call.status),
                (vec!["carrier-a", "carrier-b"], 200)
            );
        }
        assert_eq!(call(&host).places(), ["carrier-b"]);
        host.wait(61.0);
        assert_eq!(call(&host).places(), ["carrier-a", "carrier-b"]);
    }

    #[test]
    fn a_busy_callee_is_no_failure() {
        let host = host().callee("carrier-a", Callee::answers(486));
        for _ in 0..3 {
            let call = call(&host);
            assert_eq!((call.places(), call.status), (vec!["carrier-a"], 486));
        }
    }

    #[test]
    fn settings_are_validated() {
        assert_eq!(host().validate(check), Ok(()));
        assert!(Host::new().validate(check).is_err());
        assert!(host().setting("seconds", 60).validate(check).is_err());
    }
}
