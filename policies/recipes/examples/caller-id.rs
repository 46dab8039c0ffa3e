//! # Caller-ID screening
//!
//! A customer may show only its own numbers. The tag of the source's row in the address table names the customer. If the number in From is not
//! one of its own, the call is rejected, or relayed with the customer's main number in P-Asserted-Identity. In both cases a
//! P-Asserted-Identity of the customer is replaced: the network asserts it, not the caller (RFC 3325).
//!
//! In kamailio.cfg:
//!
//! ```kamailio left=1
//! if (allow_source_address_group() && $avp(customer) == "acme") {
//!     remove_hf("P-Asserted-Identity");
//!     if (!($fU =~ "^\+4930123")) {
//!         sl_send_reply("403", "Caller ID not allowed");
//!         exit;
//!     }
//!     append_hf("P-Asserted-Identity: <sip:$fU@example.com>\r\n");
//! }
//! ```
//!
//! Settings (and `headers = ["P-Asserted-Identity"]` in the section of a tenant):
//!
//! ```toml
//! domain = "example.com"
//! unknown = "reject"                  # or "main": show the customer's first number
//! [customers]
//! acme = ["+49301230", "+4930123"]    # the main number, then prefixes of its numbers
//! ```

use portcullis_sdk::prelude::*;

policy!(decide, settings: check);

fn decide() -> Verdict {
    if request::method() != "INVITE" || request::has_to_tag() {
        return pass();
    }
    allow_source_address_group();
    let numbers = last_tag().and_then(|tag| settings::texts(&format!("customers.{tag}")));
    let Some(numbers) = numbers else {
        return pass();
    };
    let from = request::from_uri();
    let shown = uri::user(&from).unwrap_or_default();
    let is_own = numbers.iter().any(|number| shown.starts_with(number));
    let main = numbers.first().map_or("", String::as_str);
    let asserted = match (is_own, settings::text("unknown").as_deref()) {
        (true, _) => shown,
        (false, Some("main")) => main,
        (false, _) => {
            log::info!("{shown} is not a number of this customer");
            return reject(403, "Caller ID not allowed");
        }
    };
    let domain = settings::text("domain").unwrap_or_default();
    let is_changed = edits::remove_header("P-Asserted-Identity")
        && edits::add_header("P-Asserted-Identity", &format!("<sip:{asserted}@{domain}>"));
    if !is_changed {
        log::error!("the configuration does not permit this policy to change P-Asserted-Identity");
        return reject(500, "");
    }
    pass()
}

fn check() -> Result<(), String> {
    settings::known(&["customers", "domain", "unknown"])?;
    if settings::text("domain").is_none_or(|domain| domain.is_empty()) {
        return Err("`domain` must be the domain of P-Asserted-Identity".into());
    }
    for customer in settings::keys("customers") {
        let numbers = settings::texts(&format!("customers.{customer}"));
        let is_valid = |list: Vec<String>| !list.is_empty() && !list.iter().any(String::is_empty);
        if !numbers.is_some_and(is_valid) {
            return Err(format!("`customers.{customer}` must be a list of numbers"));
        }
    }
    match settings::text("unknown").as_deref() {
        None | Some("reject" | "main") => Ok(()),
        Some(_) => Err("`unknown` must be \"reject\" or \"main\"".into()),
    }
}

#[cfg(test)]
mod tests {
    use portcullis_sdk::testing::{Edit, Host, Outcome, Request};

    use super::*;

    fn host() -> Host {
        Host::new()
            .setting("domain", "example.com")
            .setting("customers.acme", ["+49301230", "+4930123"])
            .address(200, "192.0.2.1", 0)
            .tag("acme")
    }

    fn call(host: &Host, caller: &str) -> Outcome {
        let request =
            Request::invite("sip:bob@example.com").from_uri(&format!("sip:{caller}@192.0.2.1"));
        host.request(request).decide(decide)
    }

    fn asserted(number: &str) -> [Edit; 2] {
        let value = format!("<sip:{number}@example.com>");
        [
            Edit::remove("P-Asserted-Identity"),
            Edit::add("P-Asserted-Identity", &value),
        ]
    }

    #[test]
    fn own_numbers_are_asserted() {
        let outcome = call(&host(), "+4930123777");
        assert_eq!(outcome.verdict, pass());
        assert_eq!(outcome.edits, asserted("+4930123777"));
    }

    #[test]
    fn other_numbers_are_refused_or_replaced() {
        let outcome = call(&host(), "+15551234567");
        assert_eq!(outcome.verdict, reject(403, "Caller ID not allowed"));
        let outcome = call(&host().setting("unknown", "main"), "anonymous");
        assert_eq!(outcome.verdict, pass());
        assert_eq!(outcome.edits, asserted("+49301230"));
        let outcome = call(&host().keeping_headers(), "+4930123777");
        assert_eq!(outcome.verdict, reject(500, ""));
    }

    #[test]
    fn sources_that_are_no_customers_pass() {
        let request = Request::invite("sip:bob@example.com").from_source("203.0.113.1");
        let outcome = host().request(request).decide(decide);
        assert_eq!((outcome.verdict, outcome.edits.len()), (pass(), 0));
    }

    #[test]
    fn settings_are_validated() {
        assert_eq!(host().validate(check), Ok(()));
        assert!(host().setting("unknown", "ask").validate(check).is_err());
        let wrong = host().setting("customers.globex", [""]);
        assert!(wrong.validate(check).is_err());
    }
}
