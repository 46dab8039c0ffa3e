//! # Numbers to E.164
//!
//! Writes the called number as `+COUNTRY…` before the call goes to a carrier: `0301234`, `004930-1234` and, with an area code, `1234567` become
//! one form. Numbers that are too short get 484.
//!
//! In kamailio.cfg:
//!
//! ```kamailio
//! if ($rU =~ "^00[1-9]") { strip(2); prefix("+"); }
//! else if ($rU =~ "^0[1-9]") { strip(1); prefix("+49"); }
//! else if ($rU =~ "^[1-9]") { prefix("+4930"); }
//! $du = "sip:carrier-a.example.com";
//! t_relay();
//! ```
//!
//! Settings:
//!
//! ```toml
//! country = "49"
//! area = "30"                    # for numbers without a leading 0; optional
//! international-prefix = "00"    # 011 in North America
//! national-prefix = "0"          # 1 in North America
//! next-hop = "carrier-a"
//! ```

use portcullis_sdk::prelude::*;

policy!(decide, settings: check);

/// Digits of the shortest number with its country code, and of the longest (E.164 §6.1).
const LENGTH: std::ops::RangeInclusive<usize> = 7..=15;

fn decide() -> Verdict {
    if request::method() != "INVITE" || request::has_to_tag() {
        return pass();
    }
    let called = request::uri();
    let Some(dialled) = uri::user(&called).and_then(digits) else {
        return pass();
    };
    let Some(number) = international(&dialled).filter(|n| LENGTH.contains(&n.len())) else {
        return reject(484, "Address Incomplete");
    };
    let uri = uri::with_user(&called, &format!("+{number}"));
    relay_to(setting("next-hop")).request_uri(uri)
}

/// The dialled characters without separators (RFC 3966 §5.1.1); `None` if this is a name and not a number.
fn digits(user: &str) -> Option<String> {
    let dialled: String = user.chars().filter(|c| !"-.() ".contains(*c)).collect();
    let number = dialled.strip_prefix('+').unwrap_or(&dialled);
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then_some(dialled)
}

/// The number with its country code, without `+`.
fn international(dialled: &str) -> Option<String> {
    if let Some(number) = dialled.strip_prefix('+') {
        return Some(number.to_owned());
    }
    if let Some(number) = dialled.strip_prefix(&*setting("international-prefix")) {
        return Some(number.to_owned());
    }
    let country = setting("country");
    if let Some(number) = dialled.strip_prefix(&*setting("national-prefix")) {
        return Some(country + number);
    }
    let area = settings::text("area")?;
    Some(country + &area + dialled)
}

fn setting(key: &str) -> String {
    settings::text(key).unwrap_or_default()
}

fn check() -> Result<(), String> {
    let required = ["country", "international-prefix", "national-prefix"];
    settings::known(&[
        "area",
        "country",
        "international-prefix",
        "national-prefix",
        "next-hop",
    ])?;
    for key in required {
        if setting(key).is_empty() || !setting(key).bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(format!("`{key}` must have digits, as a text: \"49\""));
        }
    }
    match settings::text("next-hop") {
        Some(_) => Ok(()),
        None => Err("`next-hop` must name a next hop".into()),
    }
}

#[cfg(test)]
mod tests {
    use portcullis_sdk::testing::{Host, Request};

    use super::*;

    fn berlin() -> Host {
        Host::new()
            .setting("country", "49")
            .setting("area", "30")
            .setting("international-prefix", "00")
            .setting("national-prefix", "0")
            .setting("next-hop", "carrier-a")
    }

    fn verdict(host: &Host, user: &str) -> Verdict {
        let request = Request::invite(&format!("sip:{user}@example.com;user=phone"));
        host.request(request).decide(decide).verdict
    }

    fn to(number: &str) -> Verdict {
        relay_to("carrier-a").request_uri(format!("sip:{number}@example.com;user=phone"))
    }

    #[test]
    fn all_forms_are_one() {
        for (dialled, number) in [
            ("+49301234567", "+49301234567"),
            ("0049 30-1234567", "+49301234567"),
            ("(030)1234567", "+49301234567"),
            ("1234567", "+49301234567"),
            ("0015551234567", "+15551234567"),
        ] {
            assert_eq!(verdict(&berlin(), dialled), to(number), "{dialled}");
        }
        assert_eq!(
            verdict(&berlin(), "0049"),
            reject(484, "Address Incomplete")
        );
        assert_eq!(verdict(&berlin(), "bob"), pass());
    }

    #[test]
    fn north_america() {
        let host = berlin()
            .setting("country", "1")
            .setting("area", "212")
            .setting("international-prefix", "011")
            .setting("national-prefix", "1");
        assert_eq!(verdict(&host, "12125551234"), to("+12125551234"));
        assert_eq!(verdict(&host, "01149301234567"), to("+49301234567"));
        assert_eq!(verdict(&host, "5551234"), to("+12125551234"));
    }

    #[test]
    fn settings_are_validated() {
        assert_eq!(berlin().validate(check), Ok(()));
        assert!(berlin().setting("country", "DE").validate(check).is_err());
        assert!(Host::new().validate(check).is_err());
    }
}
