//! Restricts which source may call which destination. Every address group has a pair of files, for group 200 `group-200.allow` and
//! `group-200.deny`, with From URIs on the left and destinations on the right. A group without files may call every destination; a source
//! in no group is rejected with 401.
//!
//! ```text
//! # group-200.allow: the office may make national calls
//! ALL : "^sip:\+49"
//! # group-200.deny
//! ALL : ALL
//! ```

#![forbid(unsafe_code)]

use portcullis_sdk::prelude::*;

policy!(decide);

fn decide() -> Verdict {
    let Some(group) = allow_source_address_group() else {
        return reject(401, "Address not authorised");
    };
    if !allow_routing(Some(&format!("group-{group}"))) {
        log::info!("Group {group} may not call {}", request::uri());
        return reject(403, "Destination not allowed");
    }
    relay()
}

#[cfg(test)]
mod tests {
    use portcullis_sdk::testing::{Host, Request};

    use super::*;

    fn call(source: &str, to: &str) -> Verdict {
        Host::new()
            .address(200, "192.168.1.0/24", 0)
            .address(300, "10.8.203.139", 0)
            .rules("group-200", |_, to| to.starts_with("sip:+49"))
            .request(Request::invite(to).from_source(source))
            .decide(decide)
            .verdict
    }

    #[test]
    fn a_group_may_call_what_its_files_allow() {
        let office = "192.168.1.7:5060";
        assert_eq!(call(office, "sip:+4930123@example.com"), relay());
        assert_eq!(
            call(office, "sip:+3312345@example.com"),
            reject(403, "Destination not allowed")
        );
    }

    #[test]
    fn a_group_without_files_may_call_everything_and_unknown_sources_nothing() {
        assert_eq!(
            call("10.8.203.139:5060", "sip:+3312345@example.com"),
            relay()
        );
        assert_eq!(
            call("203.0.113.9:5060", "sip:+4930123@example.com"),
            reject(401, "Address not authorised")
        );
    }
}
