//! # Classes of service: premium, toll-free, international
//!
//! Numbers belong to classes by their longest prefix. A source may call a class if the tag of its row in the address table names it, as in
//! `national,toll-free`. Numbers without a class are free for all.
//!
//! In kamailio.cfg:
//!
//! ```kamailio left=1
//! if (is_method("INVITE") && $rU =~ "^(\+49900|0900)") {
//!     if (!is_user_in("From", "premium")) {
//!         sl_send_reply("403", "Number not allowed");
//!         exit;
//!     }
//! }
//! ```
//!
//! Settings:
//!
//! ```toml
//! [classes]
//! premium = ["+49900", "0900"]
//! toll-free = ["+49800", "0800"]
//! national = ["+49", "0"]
//! international = ["+", "00"]
//! ```

use portcullis_sdk::prelude::*;

policy!(decide, settings: check);

fn decide() -> Verdict {
    if request::method() != "INVITE" || request::has_to_tag() {
        return pass();
    }
    let called = request::uri();
    let Some(class) = uri::user(&called).and_then(class_of) else {
        return pass();
    };
    allow_source_address_group();
    let allowed = last_tag().unwrap_or_default();
    if allowed.split(',').any(|name| name.trim() == class) {
        return pass();
    }
    log::info!("{} may not call {class} numbers", request::source_address());
    reject(403, "Number not allowed").header("X-Class", class)
}

/// The class with the longest prefix of the number.
fn class_of(number: &str) -> Option<String> {
    let prefix_of = |class: &String| {
        let prefixes = settings::texts(&format!("classes.{class}"))?;
        let lengths = prefixes
            .iter()
            .filter(|prefix| number.starts_with(*prefix))
            .map(String::len);
        lengths.max()
    };
    let classes = settings::keys("classes").into_iter();
    let matching = classes.filter_map(|class| Some((prefix_of(&class)?, class)));
    matching.max().map(|(_, class)| class)
}

fn check() -> Result<(), String> {
    settings::known(&["classes"])?;
    let classes = settings::keys("classes");
    if classes.is_empty() {
        return Err("`classes` has no class: every number would be allowed".into());
    }
    for class in classes {
        let prefixes = settings::texts(&format!("classes.{class}"));
        if prefixes.is_none_or(|list| list.iter().any(String::is_empty)) {
            return Err(format!("`classes.{class}` must be a list of prefixes"));
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
            .setting("classes.premium", ["+49900", "0900"])
            .setting("classes.national", ["+49", "0"])
            .address(200, "192.0.2.1", 0)
            .tag("national, toll-free")
    }

    fn verdict(number: &str, source: &str) -> Verdict {
        let request = Request::invite(&format!("sip:{number}@example.com")).from_source(source);
        host().request(request).decide(decide).verdict
    }

    #[test]
    fn the_longest_prefix_names_the_class() {
        let refused = |class| reject(403, "Number not allowed").header("X-Class", class);
        for (number, source, expected) in [
            ("+4930123", "192.0.2.1", pass()),
            ("+49900123", "192.0.2.1", refused("premium")),
            ("0900123", "192.0.2.1", refused("premium")),
            ("+4930123", "192.0.2.2", refused("national")),
            ("77", "192.0.2.2", pass()),
        ] {
            assert_eq!(verdict(number, source), expected, "{number} from {source}");
        }
    }

    #[test]
    fn settings_are_validated() {
        assert_eq!(host().validate(check), Ok(()));
        assert!(Host::new().validate(check).is_err());
        let empty = host().setting("classes.free", [""]);
        assert!(empty.validate(check).is_err());
    }
}
