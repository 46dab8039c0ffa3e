//! # Anonymous call rejection
//!
//! Rejects calls without a caller's number with 433 (RFC 5079), for the numbers that ask for it. A call is anonymous if From says so or if
//! Privacy asks for it (RFC 3323).
//!
//! In kamailio.cfg:
//!
//! ```kamailio
//! if (is_method("INVITE") && $rU == "+4930123"
//!         && ($fu =~ "anonymous" || $hdr(Privacy) =~ "(id|user|header)")) {
//!     sl_send_reply("433", "Anonymity Disallowed");
//!     exit;
//! }
//! ```
//!
//! Settings:
//!
//! ```toml
//! numbers = ["+4930123"]       # prefixes of the numbers that take no anonymous calls
//! ```

use portcullis_sdk::prelude::*;

policy!(decide, settings: check);

fn decide() -> Verdict {
    if request::method() != "INVITE" || request::has_to_tag() {
        return pass();
    }
    let called = request::uri();
    let number = uri::user(&called).unwrap_or_default();
    let numbers = settings::texts("numbers").unwrap_or_default();
    let is_protected = numbers.iter().any(|prefix| number.starts_with(prefix));
    if is_protected && is_anonymous() {
        return reject(433, "Anonymity Disallowed");
    }
    pass()
}

fn is_anonymous() -> bool {
    let from = request::from_uri().to_ascii_lowercase();
    let hides = |line: &String| {
        let mut values = line.split([';', ',']).map(str::trim);
        values.any(|value| {
            ["id", "user", "header"]
                .iter()
                .any(|name| value.eq_ignore_ascii_case(name))
        })
    };
    uri::user(&from).is_none_or(|user| matches!(user, "anonymous" | "unknown" | "restricted"))
        || uri::host(&from) == "anonymous.invalid"
        || request::headers("Privacy").iter().any(hides)
}

fn check() -> Result<(), String> {
    settings::known(&["numbers"])?;
    match settings::texts("numbers") {
        Some(_) => Ok(()),
        None => Err("`numbers` must be a list of prefixes; \"\" is every number".into()),
    }
}

#[cfg(test)]
mod tests {
    use portcullis_sdk::testing::{Host, Request};

    use super::*;

    fn verdict(request: Request) -> Verdict {
        let host = Host::new().setting("numbers", ["+4930123"]);
        host.request(request).decide(decide).verdict
    }

    fn call() -> Request {
        Request::invite("sip:+4930123@example.com")
    }

    #[test]
    fn anonymous_calls_are_rejected() {
        for request in [
            call().from_uri("sip:anonymous@anonymous.invalid"),
            call().from_uri("sip:Anonymous@example.com"),
            call().from_uri("sip:192.0.2.1"),
            call().header("Privacy", "none; ID"),
        ] {
            assert_eq!(verdict(request), reject(433, "Anonymity Disallowed"));
        }
    }

    #[test]
    fn other_calls_pass() {
        for request in [
            call(),
            call().header("Privacy", "none"),
            call().from_uri("tel:+15551234567"),
            Request::invite("sip:+4940@example.com").from_uri("sip:anonymous@anonymous.invalid"),
        ] {
            assert_eq!(verdict(request), pass());
        }
    }

    #[test]
    fn settings_are_validated() {
        assert!(Host::new().validate(check).is_err());
        let all = Host::new().setting("numbers", [""]);
        assert_eq!(all.validate(check), Ok(()));
    }
}
