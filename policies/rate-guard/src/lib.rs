//! Limits the request rate of each source. Requests above the rate are rejected with 503, and a source that does not slow down gets no more
//! responses for a while, as with Kamailio's modules `pike` and `ratelimit`.
//!
//! | setting | default and meaning |
//! |---|---|
//! | `per-second`, `burst` | 10 and 20: the rate of one address |
//! | `groups.N.per-second`, `groups.N.burst` | a different rate for addresses of group N |
//! | `flood` | 50: rejected requests within `flood-seconds` (10) after which the source gets no more responses |
//! | `retry-after` | 5: the value of Retry-After, in seconds |
//!
//! Requests within the rate pass to the next policy. ACK, BYE and PRACK always pass, because they belong to admitted calls.

#![forbid(unsafe_code)]

use portcullis_sdk::prelude::*;

policy!(decide, settings: check);

/// A request rate.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Rate {
    per_second: f64,
    burst: u32,
}

const RATE: Rate = Rate {
    per_second: 10.0,
    burst: 20,
};
const FLOOD: i64 = 50;
const FLOOD_SECONDS: i64 = 10;
const RETRY_AFTER: i64 = 5;

fn decide() -> Verdict {
    if matches!(&*request::method(), "ACK" | "BYE" | "PRACK") {
        return pass();
    }
    let source = request::source_address();
    let rate = rate();
    if counters::rate_limit(&source, rate.per_second, rate.burst) {
        return pass();
    }
    let window = at_least_one("flood-seconds", FLOOD_SECONDS);
    let refused = counters::add(&source, 1, window as u32);
    let flood = at_least_one("flood", FLOOD) as u64;
    if refused == flood {
        log::warn!(
            "{source} is flooding: {refused} requests above its rate within {window} s, no more responses"
        );
    }
    if refused >= flood {
        return drop_request();
    }
    let retry_after = at_least_one("retry-after", RETRY_AFTER);
    reject(503, "Too many requests").header("Retry-After", retry_after.to_string())
}

/// The rate of this source.
fn rate() -> Rate {
    let own = allow_source_address_group().map(|group| format!("groups.{group}."));
    let own = own.filter(|own| settings::number(&format!("{own}per-second")).is_some());
    let table = own.unwrap_or_default();
    Rate {
        per_second: settings::number(&format!("{table}per-second")).unwrap_or(RATE.per_second),
        burst: burst(&table).unwrap_or(RATE.burst),
    }
}

fn burst(table: &str) -> Option<u32> {
    let burst = settings::integer(&format!("{table}burst"))?;
    burst.try_into().ok()
}

fn at_least_one(key: &str, default: i64) -> i64 {
    settings::integer(key)
        .unwrap_or(default)
        .clamp(1, i64::from(u32::MAX))
}

/// Validates the settings.
fn check() -> Result<(), String> {
    settings::known(&[
        "burst",
        "flood",
        "flood-seconds",
        "groups",
        "per-second",
        "retry-after",
    ])?;
    check_rate("")?;
    for group in settings::keys("groups") {
        if group.parse::<u32>().is_err() {
            return Err(format!(
                "`groups.{group}`: {group} is not the number of a group"
            ));
        }
        check_rate(&format!("groups.{group}."))?;
    }
    for key in ["flood", "flood-seconds", "retry-after"] {
        if settings::has(key) && settings::integer(key).is_none_or(|n| n < 1) {
            return Err(format!("`{key}` must be a whole number above 0"));
        }
    }
    Ok(())
}

fn check_rate(table: &str) -> Result<(), String> {
    let keys = settings::keys(table.trim_end_matches('.'));
    let has = |key: &str| keys.iter().any(|known| known == key);
    let per_second = format!("{table}per-second");
    if has("per-second") && settings::number(&per_second).is_none_or(|rate| rate <= 0.0) {
        return Err(format!("`{per_second}` must be a number above 0"));
    }
    if has("burst") && burst(table).is_none_or(|burst| burst == 0) {
        return Err(format!("`{table}burst` must be a whole number above 0"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use portcullis_sdk::testing::{Host, Outcome, Request};

    use super::*;

    fn call(host: &Host, source: &str) -> Outcome {
        let request = Request::invite("sip:bob@example.com").from_source(source);
        host.request(request).decide(decide)
    }

    fn slow_down() -> Verdict {
        reject(503, "Too many requests").header("Retry-After", "5")
    }

    #[test]
    fn each_source_has_its_rate() {
        let host = Host::new().setting("per-second", 2).setting("burst", 3);
        let verdicts: Vec<_> = (0..4)
            .map(|_| call(&host, "192.0.2.1:5060").verdict)
            .collect();
        assert_eq!(verdicts, [pass(), pass(), pass(), slow_down()]);
        assert_eq!(call(&host, "192.0.2.2:5060").verdict, pass());
        host.wait(0.5);
        assert_eq!(call(&host, "192.0.2.1:5061").verdict, pass());
        assert_eq!(call(&host, "192.0.2.1:5060").verdict, slow_down());
    }

    #[test]
    fn groups_have_rates_of_their_own() {
        let host = Host::new()
            .address(7, "192.0.2.1", 0)
            .address(8, "192.0.2.8", 0)
            .setting("burst", 1)
            .setting("groups.7.per-second", 1)
            .setting("groups.7.burst", 2);
        let passed = |source: &str| {
            let verdicts = (0..5).map(|_| call(&host, source).verdict);
            verdicts.filter(|verdict| *verdict == pass()).count()
        };
        assert_eq!(passed("192.0.2.1:5060"), 2);
        assert_eq!(
            passed("192.0.2.8:5060"),
            1,
            "a group without a rate of its own"
        );
        assert_eq!(passed("192.0.2.9:5060"), 1);
    }

    #[test]
    fn floods_get_no_responses() {
        let host = Host::new().setting("burst", 1).setting("flood", 3);
        let outcomes: Vec<_> = (0..5).map(|_| call(&host, "192.0.2.1:5060")).collect();
        let verdicts = outcomes.iter().map(|outcome| outcome.verdict.clone());
        let expected = [
            pass(),
            slow_down(),
            slow_down(),
            drop_request(),
            drop_request(),
        ];
        assert_eq!(verdicts.collect::<Vec<_>>(), expected);
        let lines: usize = outcomes.iter().map(|outcome| outcome.log.len()).sum();
        assert_eq!(lines, 1, "logged once");
        host.wait(10.0);
        assert_eq!(call(&host, "192.0.2.1:5060").verdict, pass());
    }

    #[test]
    fn requests_of_admitted_calls_always_pass() {
        let host = Host::new().setting("burst", 1);
        for method in ["ACK", "BYE", "ACK", "BYE"] {
            let request = Request::new(method, "sip:bob@example.com");
            assert_eq!(host.request(request).decide(decide).verdict, pass());
        }
    }

    #[test]
    fn settings_are_validated() {
        assert_eq!(Host::new().validate(check), Ok(()));
        let good = Host::new()
            .setting("per-second", 0.5)
            .setting("groups.7.burst", 2);
        assert_eq!(good.validate(check), Ok(()));
        let wrong =
            |key: &str, value: i64| Host::new().setting(key, value).validate(check).unwrap_err();
        assert_eq!(
            wrong("per-second", 0),
            "`per-second` must be a number above 0"
        );
        assert_eq!(
            wrong("groups.7.burst", -1),
            "`groups.7.burst` must be a whole number above 0"
        );
        assert_eq!(
            wrong("groups.all.burst", 1),
            "`groups.all`: all is not the number of a group"
        );
        assert_eq!(wrong("flood", 0), "`flood` must be a whole number above 0");
        assert!(wrong("per_second", 1).starts_with("`per_second` is unknown; there are burst, "));
    }
}
