//! # Toll fraud: few calls to expensive countries
//!
//! Limits the calls of one account to countries that fraud prefers, by day and by night. An account is the tag of the source's row in the
//! address table, or the caller and its address if there is none. Calls above the limit get 403, and the log names the account once.
//!
//! In kamailio.cfg:
//!
//! ```kamailio left=2
//! modparam("htable", "htable", "fraud=>size=8;autoexpire=3600;")
//!
//! if (is_method("INVITE") && $rU =~ "^\+(53|88[12]|979)") {
//!     $sht(fraud=>$fU) = $sht(fraud=>$fU) + 1;
//!     if ($sht(fraud=>$fU) > 5) {
//!         xlog("L_WARN", "$fU above its limit\n");
//!         sl_send_reply("403", "Not allowed");
//!         exit;
//!     }
//! }
//! ```
//!
//! Settings:
//!
//! ```toml
//! prefixes = ["+53", "+881", "+882", "+979"]
//! calls = 5                  # per account and hour
//! night-calls = 1            # from 22:00 to 06:00
//! zone = "Europe/Berlin"
//! ```

use portcullis_sdk::prelude::*;

policy!(decide, settings: check);

const HOUR: u32 = 3600;

fn decide() -> Verdict {
    if request::method() != "INVITE" || request::has_to_tag() {
        return pass();
    }
    let called = request::uri();
    let number = uri::user(&called).unwrap_or_default();
    if !is_expensive(number) {
        return pass();
    }
    let account = account();
    let limit = limit();
    let calls = counters::add(&account, 1, HOUR);
    if calls <= limit {
        return pass();
    }
    if calls == limit + 1 {
        log::warn!("{account}: more than {limit} calls to expensive countries, last to {number}");
    }
    reject(403, "Destination not allowed now")
}

fn is_expensive(number: &str) -> bool {
    let prefixes = settings::texts("prefixes").unwrap_or_default();
    prefixes.iter().any(|prefix| number.starts_with(prefix))
}

fn account() -> String {
    allow_source_address_group();
    match last_tag() {
        Some(tag) if !tag.is_empty() => tag,
        _ => {
            let from = request::from_uri();
            let user = uri::user(&from).unwrap_or_default();
            format!("{user} at {}", request::source_address())
        }
    }
}

fn limit() -> u64 {
    let zone = settings::text("zone").unwrap_or_else(|| "UTC".into());
    let is_day = clock::local(&zone).is_some_and(|now| (6..22).contains(&now.hour));
    number_of(if is_day { "calls" } else { "night-calls" }).unwrap_or_default()
}

fn number_of(key: &str) -> Option<u64> {
    settings::integer(key)?.try_into().ok()
}

fn check() -> Result<(), String> {
    settings::known(&["calls", "night-calls", "prefixes", "zone"])?;
    if settings::texts("prefixes").is_none_or(|list| list.iter().any(String::is_empty)) {
        return Err("`prefixes` must be a list like [\"+53\", \"+881\"]".into());
    }
    for key in ["calls", "night-calls"] {
        if number_of(key).is_none() {
            return Err(format!("`{key}` must be a number of calls"));
        }
    }
    match settings::text("zone") {
        Some(zone) if clock::local(&zone).is_none() => Err(format!("`zone`: no time zone {zone}")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use portcullis_sdk::testing::{Host, Outcome, Request};

    use super::*;

    fn host() -> Host {
        Host::new()
            .setting("prefixes", ["+53", "+881"])
            .setting("calls", 2)
            .setting("night-calls", 1)
            .at(2026, 11, 25, 12, 0)
    }

    fn call(host: &Host, number: &str) -> Outcome {
        host.request(Request::invite(&format!("sip:{number}@example.com")))
            .decide(decide)
    }

    #[test]
    fn expensive_calls_are_counted() {
        let host = host();
        let outcomes: Vec<_> = (0..4).map(|_| call(&host, "+5371234")).collect();
        let verdicts: Vec<_> = outcomes.iter().map(|o| o.verdict.clone()).collect();
        let refused = reject(403, "Destination not allowed now");
        assert_eq!(verdicts, [pass(), pass(), refused.clone(), refused]);
        assert_eq!(
            outcomes[2].messages(),
            ["alice at 192.0.2.1: more than 2 calls to expensive countries, last to +5371234"]
        );
        assert!(outcomes[3].log.is_empty());
        assert_eq!(call(&host, "+4930123").verdict, pass());
        host.wait(3600.0);
        assert_eq!(call(&host, "+5371234").verdict, pass());
    }

    #[test]
    fn accounts_are_tags() {
        let host = host().address(200, "192.0.2.0/24", 0).tag("acme");
        for source in ["192.0.2.1", "192.0.2.2"] {
            let request = Request::invite("sip:+5371234@example.com").from_source(source);
            assert_eq!(host.request(request).decide(decide).verdict, pass());
        }
        assert_ne!(call(&host, "+5371234").verdict, pass());
    }

    #[test]
    fn the_night_has_its_own_limit() {
        let host = host().at(2026, 11, 25, 22, 0);
        assert_eq!(call(&host, "+5371234").verdict, pass());
        assert_ne!(call(&host, "+5371234").verdict, pass());
    }

    #[test]
    fn settings_are_validated() {
        assert_eq!(host().validate(check), Ok(()));
        assert!(host().setting("calls", -1).validate(check).is_err());
        assert!(host().setting("zone", "Mars").validate(check).is_err());
        assert!(host().setting("prefixes", [""]).validate(check).is_err());
    }
}
