//! Restricts who may register which address of record from where. A REGISTER is relayed if its source is in the address table, if
//! `register-from.allow` and `register-from.deny` allow its From URI with its source address, and if `register.allow` and `register.deny`
//! allow its To URI with every Contact. Other methods pass to the next policy.
//!
//! ```text
//! # register-from.allow: the users that begin with 361 belong to the office
//! "^sip:361" : "^sip:192\.168\.1\."
//! # register-from.deny
//! ALL : ALL
//! ```

#![forbid(unsafe_code)]

use portcullis_sdk::prelude::*;

policy!(decide);

fn decide() -> Verdict {
    if request::method() != "REGISTER" {
        return pass();
    }
    if allow_source_address_group().is_none() {
        return reject(401, "Address not authorised");
    }
    let source = format!("sip:{}", request::source_address());
    if !allow_uri(Some("register-from"), &source) {
        log::info!("{} may not register from {source}", request::from_uri());
        return reject(403, "Name not allowed from this address");
    }
    if !allow_register(Some("register")) {
        log::info!("{} may not register its Contact", request::to_uri());
        return reject(403, "Contact not allowed");
    }
    relay()
}

#[cfg(test)]
mod tests {
    use portcullis_sdk::testing::{Host, Request};

    use super::*;

    fn register(source: &str, user: &str, contact: &str) -> Verdict {
        let uri = format!("sip:{user}@example.com");
        let request = Request::new("REGISTER", "sip:example.com")
            .from_source(source)
            .from_uri(&uri)
            .to_uri(&uri)
            .header("Contact", contact);
        host().request(request).decide(decide).verdict
    }

    fn host() -> Host {
        Host::new()
            .address(300, "192.168.1.0/24", 0)
            .rules("register-from", |from, source| {
                from.starts_with("sip:361") && source.starts_with("sip:192.168.1.")
            })
            .rules("register", |_, contact| !contact.ends_with("@192.0.2.1"))
    }

    #[test]
    fn the_office_may_register_its_users() {
        let contacts = "<sip:3610@192.168.1.7>, \"a, b\" <sip:3610@192.168.1.8:5070>";
        assert_eq!(register("192.168.1.7:5060", "3610", contacts), relay());
        assert_eq!(register("192.168.1.7:5060", "3610", "*"), relay());
    }

    #[test]
    fn other_sources_and_users_may_not() {
        assert_eq!(
            register("203.0.113.9:5060", "3610", "<sip:3610@203.0.113.9>"),
            reject(401, "Address not authorised")
        );
        assert_eq!(
            register("192.168.1.7:5060", "4400", "<sip:4400@192.168.1.7>"),
            reject(403, "Name not allowed from this address")
        );
        assert_eq!(
            register(
                "192.168.1.7:5060",
                "3610",
                "<sip:a@192.168.1.7>, <sip:3610@192.0.2.1>"
            ),
            reject(403, "Contact not allowed")
        );
    }

    #[test]
    fn other_methods_pass() {
        let call = Request::invite("sip:bob@example.com").from_source("203.0.113.9:5060");
        assert_eq!(host().request(call).decide(decide).verdict, pass());
    }
}
