//! # Quotas per customer
//!
//! Counts the calls of each customer by minute and by day. A customer is the tag of the source's row in the address table; `customers` gives
//! some of them other quotas. Calls above a quota get 503 with the seconds until the next minute or day in Retry-After.
//!
//! In kamailio.cfg:
//!
//! ```kamailio left=1
//! modparam("permissions", "peer_tag_avp", "$avp(customer)")
//! modparam("htable", "htable", "day=>size=10;autoexpire=86400;")
//!
//! if (is_method("INVITE") && allow_source_address_group()) {
//!     if ($shtinc(day=>$avp(customer)) > 10000) {
//!         append_to_reply("Retry-After: 3600\r\n");
//!         sl_send_reply("503", "Quota exceeded");
//!         exit;
//!     }
//! }
//! ```
//!
//! Settings:
//!
//! ```toml
//! per-minute = 60
//! per-day = 10_000
//! [customers.acme]
//! per-day = 50_000
//! ```

use portcullis_sdk::prelude::*;

policy!(decide, settings: check);

const MINUTE: u32 = 60;
const DAY: u32 = 86_400;

fn decide() -> Verdict {
    if request::method() != "INVITE" || request::has_to_tag() {
        return pass();
    }
    allow_source_address_group();
    let Some(customer) = last_tag().filter(|tag| !tag.is_empty()) else {
        return pass();
    };
    for (key, seconds) in [("per-minute", MINUTE), ("per-day", DAY)] {
        let Some(quota) = quota(&customer, key) else {
            continue;
        };
        // The number of the minute or day is part of the name, so that all customers begin anew at the same time.
        let now = clock::now() / 1000;
        let window = now / u64::from(seconds);
        let calls = counters::add(&format!("{key} {window} {customer}"), 1, seconds);
        if calls == quota.saturating_add(1) {
            log::warn!("{customer} has used its {quota} calls {key}");
        }
        if calls > quota {
            let rest = u64::from(seconds) - now % u64::from(seconds);
            return reject(503, "Quota exceeded").header("Retry-After", rest.to_string());
        }
    }
    pass()
}

/// The quota of this customer or, without one, of all; `None` if there is neither.
fn quota(customer: &str, key: &str) -> Option<u64> {
    let own = settings::integer(&format!("customers.{customer}.{key}"));
    own.or_else(|| settings::integer(key))?.try_into().ok()
}

fn check() -> Result<(), String> {
    settings::known(&["customers", "per-day", "per-minute"])?;
    check_table("")?;
    for customer in settings::keys("customers") {
        check_table(&format!("customers.{customer}"))?;
    }
    Ok(())
}

fn check_table(table: &str) -> Result<(), String> {
    for key in settings::keys(table) {
        let path = match table {
            "" => key.clone(),
            table => format!("{table}.{key}"),
        };
        match &*key {
            "customers" if table.is_empty() => {}
            "per-day" | "per-minute" if settings::integer(&path).is_some_and(|n| n >= 0) => {}
            "per-day" | "per-minute" => return Err(format!("`{path}` must be a number of calls")),
            _ => {
                return Err(format!(
                    "`{path}` is unknown; there are per-day, per-minute"
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

    fn host() -> Host {
        Host::new()
            .setting("per-minute", 2)
            .setting("per-day", 3)
            .setting("customers.acme.per-minute", 1)
            .address(200, "192.0.2.1", 0)
            .tag("globex")
            .address(200, "192.0.2.2", 0)
            .tag("acme")
            .at(2026, 11, 25, 12, 0)
    }

    fn call(host: &Host, source: &str) -> Verdict {
        let request = Request::invite("sip:bob@example.com").from_source(source);
        host.request(request).decide(decide).verdict
    }

    fn used(seconds: &str) -> Verdict {
        reject(503, "Quota exceeded").header("Retry-After", seconds)
    }

    #[test]
    fn calls_are_counted_by_minute_and_by_day() {
        let host = host();
        let globex = || call(&host, "192.0.2.1");
        assert_eq!([globex(), globex(), globex()], [pass(), pass(), used("60")]);
        assert_eq!(
            [call(&host, "192.0.2.2"), call(&host, "192.0.2.2")],
            [pass(), used("60")]
        );
        host.wait(61.0);
        assert_eq!([globex(), globex()], [pass(), used("43139")]);
        host.wait(43_140.0);
        assert_eq!(globex(), pass());
    }

    #[test]
    fn sources_without_a_tag_pass() {
        let host = host();
        for _ in 0..5 {
            assert_eq!(call(&host, "203.0.113.1"), pass());
        }
    }

    #[test]
    fn settings_are_validated() {
        assert_eq!(host().validate(check), Ok(()));
        assert!(host().setting("per-hour", 1).validate(check).is_err());
        let wrong = host().setting("customers.acme.per-day", "many");
        assert_eq!(
            wrong.validate(check),
            Err("`customers.acme.per-day` must be a number of calls".into())
        );
    }
}
