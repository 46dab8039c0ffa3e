//! Relays requests to the first of several next hops that answers. When all of them have failed, a last resort has its turn, or the sender
//! gets an answer that says so.
//!
//! ```toml
//! [policy.settings]
//! next-hops = ["carrier-a", "carrier-b"]
//! seconds = 4                       # the time of each for its first response
//! last-resort = "carrier-c"         # without it: failed-code (503) and failed-reason
//! ```
//!
//! A busy callee or a wrong number is no failure of a next hop: its answer goes to the sender.

#![forbid(unsafe_code)]

use std::time::Duration;

use portcullis_sdk::outcome::Cause;
use portcullis_sdk::prelude::*;

policy!(decide, settings: check, on_failure: after);

/// The memo of a request that has gone to the last resort.
const RESORTED: &[u8] = b"last-resort";

fn decide() -> Verdict {
    let next_hops = settings::texts("next-hops").unwrap_or_default();
    timed(in_turn(next_hops))
}

/// All next hops have failed.
fn after() -> NextStep {
    let answered = outcome::best().filter(|best| best.cause == Cause::Answered);
    if answered.is_some_and(|best| best.status < 500) {
        return best_answer();
    }
    match settings::text("last-resort") {
        Some(next_hop) if outcome::memo() != RESORTED => {
            log::warn!("all next hops have failed, trying {next_hop}");
            again(timed(relay_to(next_hop)).memo(RESORTED))
        }
        _ => answer(failed_code(), failed_reason()),
    }
}

fn timed(verdict: Verdict) -> Verdict {
    match settings::number("seconds") {
        Some(seconds) => verdict.within(Duration::from_secs_f64(seconds)),
        None => verdict,
    }
}

fn failed_code() -> u16 {
    let code = settings::integer("failed-code").and_then(|code| u16::try_from(code).ok());
    code.unwrap_or(503)
}

fn failed_reason() -> String {
    settings::text("failed-reason").unwrap_or_default()
}

/// Validates the settings.
fn check() -> Result<(), String> {
    settings::known(&[
        "failed-code",
        "failed-reason",
        "last-resort",
        "next-hops",
        "seconds",
    ])?;
    match settings::texts("next-hops") {
        Some(next_hops) if (1..=15).contains(&next_hops.len()) => {}
        _ => {
            let what = "`next-hops` must be a list of 1 to 15 names of next hops";
            return Err(what.to_owned());
        }
    }
    let seconds = settings::number("seconds");
    if settings::has("seconds") && !seconds.is_some_and(|seconds| (0.1..=32.0).contains(&seconds)) {
        return Err("`seconds` must be a number from 0.1 to 32".to_owned());
    }
    if settings::has("failed-code") && !(300..=699).contains(&failed_code()) {
        return Err("`failed-code` must be a status code from 300 to 699".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use portcullis_sdk::testing::{Callee, Completed, Host, Request};

    use super::*;

    fn host() -> Host {
        Host::new()
            .setting("next-hops", ["carrier-a", "carrier-b"])
            .setting("seconds", 4)
            .callee("carrier-b", Callee::answers(200))
            .callee("carrier-c", Callee::answers(200))
    }

    fn call(host: &Host) -> Completed {
        host.request(Request::invite("sip:bob@example.com"))
            .complete_with(decide, after)
    }

    #[test]
    fn the_next_carrier_has_its_turn_after_four_seconds() {
        for (callee, milliseconds) in [
            (Callee::silent(), 4000),
            (Callee::unreachable(), 0),
            (Callee::answers(503), 20),
        ] {
            let call = call(&host().callee("carrier-a", callee));
            assert_eq!(call.status, 200);
            assert_eq!(call.places(), ["carrier-a", "carrier-b"]);
            assert_eq!(call.attempts[0].milliseconds, milliseconds);
        }
    }

    #[test]
    fn a_busy_callee_is_no_failure() {
        let host = host().setting("last-resort", "carrier-c");
        let call = call(&host.callee("carrier-a", Callee::answers(486)));
        assert_eq!((call.status, call.attempts.len()), (486, 1));
    }

    #[test]
    fn the_last_resort_is_tried_once() {
        let host = host()
            .setting("last-resort", "carrier-c")
            .callee("carrier-a", Callee::silent())
            .callee("carrier-b", Callee::unresolved());
        let saved = call(&host);
        assert_eq!(saved.status, 200);
        assert_eq!(saved.places(), ["carrier-a", "carrier-b", "carrier-c"]);
        let lost = call(&host.callee("carrier-c", Callee::answers(500)));
        assert_eq!((lost.status, lost.attempts.len()), (503, 3));
    }

    #[test]
    fn without_a_last_resort_the_answer_is_configured() {
        let host = host()
            .setting("failed-code", 480)
            .setting("failed-reason", "All lines are down")
            .callee("carrier-a", Callee::silent())
            .callee("carrier-b", Callee::answers(500));
        let call = call(&host);
        assert_eq!((call.status, &*call.reason), (480, "All lines are down"));
    }

    #[test]
    fn settings_are_validated() {
        assert_eq!(host().validate(check), Ok(()));
        let wrong = |host: Host| host.validate(check).unwrap_err();
        assert!(wrong(Host::new()).contains("1 to 15 names"));
        assert!(wrong(Host::new().setting("next-hops", "carrier-a")).contains("must be a list"));
        for seconds in [0.0, 33.0] {
            assert!(wrong(host().setting("seconds", seconds)).contains("0.1 to 32"));
        }
        assert!(wrong(host().setting("failed-code", 200)).contains("300 to 699"));
        assert!(wrong(host().setting("hops", 1)).starts_with("`hops` is unknown"));
    }
}
