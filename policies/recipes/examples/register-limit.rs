//! # REGISTER guard
//!
//! Protects the registrar: refuses registrations that are too short (423 with Min-Expires), limits how often one address of record
//! registers, and stops answering a source that tries many names, as scanners do. The bundled policy `register-guard` says who may register
//! what, by allow and deny files.
//!
//! In kamailio.cfg:
//!
//! ```kamailio left=4
//! modparam("registrar", "min_expires", 60)
//!
//! if (is_method("REGISTER")) {
//!     if (!pl_check("reg_$tU", "TAILDROP", "1")) { sl_send_reply("503", "Slow down"); exit; }
//!     if ($sht(names=>$si::$tU) == $null) {
//!         $sht(names=>$si::$tU) = 1;
//!         if ($shtinc(count=>$si) > 20) exit;
//!     }
//! }
//! ```
//!
//! Settings:
//!
//! ```toml
//! minimum-expires = 60
//! per-minute = 10           # for one address of record
//! names = 20                # that one source may try in ten minutes; phones behind one NAT share it
//! ```

use portcullis_sdk::prelude::*;

policy!(decide, settings: check);

const WINDOW: u32 = 600;

fn decide() -> Verdict {
    if request::method() != "REGISTER" {
        return pass();
    }
    let source = request::source_address();
    let address_of_record = request::to_uri();
    if names(&source, &address_of_record) > number_of("names").unwrap_or(20) {
        return drop_request();
    }
    let minimum = number_of("minimum-expires").unwrap_or(60);
    // 0 removes the registration.
    if shortest().is_some_and(|seconds| seconds > 0 && seconds < minimum) {
        return reject(423, "Interval Too Brief").header("Min-Expires", minimum.to_string());
    }
    let per_minute = number_of("per-minute").unwrap_or(10);
    if counters::add(&address_of_record, 1, 60) > per_minute {
        return reject(503, "Too many registrations").header("Retry-After", "60");
    }
    pass()
}

/// Counts the names that this source has tried.
fn names(source: &str, address_of_record: &str) -> u64 {
    if counters::add(&format!("{source} {address_of_record}"), 1, WINDOW) > 1 {
        return counters::value(source);
    }
    let names = counters::add(source, 1, WINDOW);
    if Some(names) == number_of("names").map(|limit| limit + 1) {
        log::warn!("{source} has tried {names} names: no more answers");
    }
    names
}

/// The shortest time that the request asks for: `expires` of a Contact, or Expires.
fn shortest() -> Option<u64> {
    let contacts = request::headers("Contact");
    let params = contacts.iter().flat_map(|line| line.split([';', ',']));
    let of_contacts = params.filter_map(|param| {
        let (name, value) = param.split_once('=')?;
        let is_expires = name.trim().eq_ignore_ascii_case("expires");
        is_expires.then(|| value.trim().trim_end_matches('>').parse().ok())?
    });
    let of_request = request::header("Expires").and_then(|value| value.trim().parse().ok());
    of_contacts.chain(of_request).min()
}

fn number_of(key: &str) -> Option<u64> {
    settings::integer(key)?.try_into().ok()
}

fn check() -> Result<(), String> {
    settings::known(&["minimum-expires", "names", "per-minute"])?;
    for key in settings::keys("") {
        if number_of(&key).is_none_or(|number| number == 0) {
            return Err(format!("`{key}` must be a number above 0"));
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
            .setting("minimum-expires", 60)
            .setting("per-minute", 2)
            .setting("names", 3)
    }

    fn register(host: &Host, user: &str, contact: &str) -> Verdict {
        let request = Request::register("sip:example.com")
            .to_uri(&format!("sip:{user}@example.com"))
            .header("Contact", contact);
        host.request(request).decide(decide).verdict
    }

    #[test]
    fn short_registrations_are_refused() {
        let brief = reject(423, "Interval Too Brief").header("Min-Expires", "60");
        for (contact, expected) in [
            ("<sip:bob@192.0.2.1>;expires=59", brief.clone()),
            (
                "<sip:bob@192.0.2.1>;q=1; Expires=30, <sip:b@x>;expires=600",
                brief,
            ),
            ("<sip:bob@192.0.2.1>;expires=60", pass()),
            ("<sip:bob@192.0.2.1>;expires=0", pass()),
            ("*", pass()),
        ] {
            assert_eq!(register(&host(), "bob", contact), expected, "{contact}");
        }
    }

    #[test]
    fn one_name_registers_rarely() {
        let host = host();
        let bob = || register(&host, "bob", "<sip:bob@192.0.2.1>");
        let slow = reject(503, "Too many registrations").header("Retry-After", "60");
        assert_eq!([bob(), bob(), bob()], [pass(), pass(), slow]);
        host.wait(61.0);
        assert_eq!(bob(), pass());
    }

    #[test]
    fn a_source_that_tries_many_names_gets_no_answer() {
        let host = host();
        let verdicts = ["100", "101", "102", "103", "100"]
            .map(|user| register(&host, user, "<sip:x@192.0.2.1>"));
        let silence = drop_request();
        assert_eq!(verdicts, [pass(), pass(), pass(), silence.clone(), silence]);
    }

    #[test]
    fn settings_are_validated() {
        assert_eq!(host().validate(check), Ok(()));
        assert!(host().setting("names", 0).validate(check).is_err());
    }
}
