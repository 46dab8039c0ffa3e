//! # Countries by address
//!
//! The address table has the networks of countries in one group, each row with the country as its tag (`portcullis address import` reads such
//! lists as CSV). Sources in other countries, or in none of the networks, get no answer. Sources in other groups of the table, such as
//! trunks abroad, are not affected.
//!
//! In kamailio.cfg:
//!
//! ```kamailio left=2
//! if (!allow_source_address("200") && geoip2_match("$si", "src")) {
//!     if (!($gip2(src=>cc) =~ "^(DE|AT|CH)$")) {
//!         xlog("L_INFO", "$si in $gip2(src=>cc)\n");
//!         drop;
//!     }
//! }
//! ```
//!
//! Settings:
//!
//! ```toml
//! group = 400
//! countries = ["DE", "AT", "CH"]
//! exempt-groups = ["200"]
//! unknown = "drop"        # or "pass": what happens to sources in no network
//! ```

use portcullis_sdk::prelude::*;

policy!(decide, settings: check);

fn decide() -> Verdict {
    let exempt = settings::texts("exempt-groups").unwrap_or_default();
    let mut groups = exempt.iter().filter_map(|group| group.parse().ok());
    if groups.any(allow_source_address) {
        return pass();
    }
    if !group().is_some_and(allow_source_address) {
        return match settings::text("unknown").as_deref() {
            Some("pass") => pass(),
            _ => drop_request(),
        };
    }
    let country = last_tag().unwrap_or_default();
    let countries = settings::texts("countries").unwrap_or_default();
    if countries.contains(&country) {
        return pass();
    }
    log::info!("{} is in {country}", request::source_address());
    drop_request()
}

fn group() -> Option<u32> {
    settings::integer("group")?.try_into().ok()
}

fn check() -> Result<(), String> {
    settings::known(&["countries", "exempt-groups", "group", "unknown"])?;
    if group().is_none_or(|group| group == 0) {
        return Err("`group` must be the group of the networks".into());
    }
    if settings::texts("countries").is_none_or(|list| list.is_empty()) {
        return Err("`countries` must be a list like [\"DE\", \"AT\"]".into());
    }
    let exempt = settings::texts("exempt-groups").unwrap_or_default();
    if exempt.iter().any(|group| group.parse::<u32>().is_err()) {
        return Err("`exempt-groups` must be a list like [\"200\"]".into());
    }
    match settings::text("unknown").as_deref() {
        None | Some("drop" | "pass") => Ok(()),
        Some(_) => Err("`unknown` must be \"drop\" or \"pass\"".into()),
    }
}

#[cfg(test)]
mod tests {
    use portcullis_sdk::testing::{Host, Request};

    use super::*;

    fn host() -> Host {
        Host::new()
            .setting("group", 400)
            .setting("countries", ["DE", "AT"])
            .setting("exempt-groups", ["200"])
            .address(400, "192.0.2.0/24", 0)
            .tag("DE")
            .address(400, "203.0.113.0/24", 0)
            .tag("XX")
            .address(200, "203.0.113.7", 0)
    }

    fn verdict(host: &Host, source: &str) -> Verdict {
        let request = Request::invite("sip:bob@example.com").from_source(source);
        host.request(request).decide(decide).verdict
    }

    #[test]
    fn the_country_decides() {
        for (source, expected) in [
            ("192.0.2.1", pass()),
            ("203.0.113.1", drop_request()),
            ("203.0.113.7", pass()),
            ("198.51.100.1", drop_request()),
        ] {
            assert_eq!(verdict(&host(), source), expected, "{source}");
        }
        let lenient = host().setting("unknown", "pass");
        assert_eq!(verdict(&lenient, "198.51.100.1"), pass());
    }

    #[test]
    fn settings_are_validated() {
        assert_eq!(host().validate(check), Ok(()));
        assert!(host().setting("group", 0).validate(check).is_err());
        assert!(host().setting("unknown", "ask").validate(check).is_err());
        let wrong = host().setting("exempt-groups", ["all"]);
        assert!(wrong.validate(check).is_err());
    }
}
