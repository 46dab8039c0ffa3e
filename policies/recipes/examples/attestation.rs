//! # STIR attestation gate
//!
//! Requires an Identity header field (RFC 8224) whose PASSporT has at least the attestation A or B (RFC 8588), is at most a minute old and
//! names the caller in From. **The signature is not verified:** a policy has no network for certificates. Use the recipe behind a carrier or
//! a verification service whose Identity you trust; it then enforces what that service has passed on.
//!
//! In kamailio.cfg (`stirshaken` and `jansson`; there the signature is verified):
//!
//! ```kamailio left=3
//! if (is_method("INVITE") && !has_totag()) {
//!     if (!is_present_hf("Identity")) { sl_send_reply("428", "Use Identity Header"); exit; }
//!     if (stirshaken_check_identity() < 0) { sl_send_reply("438", "Invalid Identity Header"); exit; }
//!     jansson_get("attest", "$var(payload)", "$var(attest)");
//!     if ($var(attest) == "C") { sl_send_reply("403", "Attestation too low"); exit; }
//! }
//! ```
//!
//! Settings:
//!
//! ```toml
//! minimum = "B"
//! required = true       # false: calls without Identity pass
//! ```

use portcullis_sdk::prelude::*;

policy!(decide, settings: check);

/// Seconds that a PASSporT is valid (RFC 8224 §4.1 recommends a minute).
const VALID: u64 = 60;

fn decide() -> Verdict {
    if request::method() != "INVITE" || request::has_to_tag() {
        return pass();
    }
    let identities = request::headers("Identity");
    if identities.is_empty() {
        return match settings::boolean("required") {
            Some(false) => pass(),
            _ => reject(428, "Use Identity Header"),
        };
    }
    let minimum = settings::text("minimum").unwrap_or_else(|| "A".into());
    match identities.iter().find_map(|identity| passport(identity)) {
        None => reject(438, "Invalid Identity Header"),
        Some(passport) if passport.age > VALID => reject(403, "Stale Date"),
        Some(passport) if !passport.is_of_caller => reject(438, "Invalid Identity Header"),
        // A is the highest, and the first in the alphabet.
        Some(passport) if passport.attest > minimum => {
            log::info!("attestation {} is below {minimum}", passport.attest);
            reject(403, "Attestation too low")
        }
        Some(_) => pass(),
    }
}

/// What this recipe reads of a PASSporT.
struct Passport {
    attest: String,
    /// Seconds since, or until, `iat`.
    age: u64,
    is_of_caller: bool,
}

/// Reads `HEADER.PAYLOAD.SIGNATURE;info=<…>;alg=ES256;ppt=shaken`; `None` if it does not have this shape.
fn passport(identity: &str) -> Option<Passport> {
    let token = identity.split(';').next()?.trim();
    let mut parts = token.split('.');
    let (header, payload, signature) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || decode(signature)?.is_empty() {
        return None;
    }
    let header = String::from_utf8(decode(header)?).ok()?;
    if text_of(&header, "ppt")? != "shaken" || text_of(&header, "alg")? != "ES256" {
        return None;
    }
    let payload = String::from_utf8(decode(payload)?).ok()?;
    let attest = text_of(&payload, "attest")?;
    let issued: u64 = number_of(&payload, "iat")?;
    let caller = text_of(&payload[payload.find("\"orig\"")?..], "tn")?;
    let from = request::from_uri();
    Some(Passport {
        age: (clock::now() / 1000).abs_diff(issued),
        is_of_caller: digits(uri::user(&from).unwrap_or_default()) == digits(caller),
        attest: matches!(attest, "A" | "B" | "C").then(|| attest.to_owned())?,
    })
}

/// The value of the first member with this name, a string without escapes.
fn text_of<'a>(json: &'a str, name: &str) -> Option<&'a str> {
    let value = value_of(json, name)?.strip_prefix('"')?;
    value.split_once('"').map(|(text, _)| text)
}

fn number_of(json: &str, name: &str) -> Option<u64> {
    let value = value_of(json, name)?;
    let end = value
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(value.len());
    value[..end].parse().ok()
}

fn value_of<'a>(json: &'a str, name: &str) -> Option<&'a str> {
    let (_, behind) = json.split_once(&format!("\"{name}\""))?;
    Some(behind.trim_start().strip_prefix(':')?.trim_start())
}

fn digits(number: &str) -> String {
    number.chars().filter(char::is_ascii_digit).collect()
}

/// Base64 for URLs, without padding (RFC 7515).
fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut count) = (0_u32, 0);
    for letter in text.bytes() {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    Some(bytes)
}

fn check() -> Result<(), String> {
    settings::known(&["minimum", "required"])?;
    match settings::text("minimum").as_deref() {
        Some("A" | "B" | "C") => Ok(()),
        _ => Err("`minimum` must be \"A\", \"B\" or \"C\"".into()),
    }
}

#[cfg(test)]
mod tests {
    use portcullis_sdk::testing::{Host, Request};

    use super::*;

    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

    fn encode(text: &str) -> String {
        let mut encoded = String::new();
        for group in text.as_bytes().chunks(3) {
            let bytes = [0, 1, 2].map(|at| u32::from(group.get(at).copied().unwrap_or_default()));
            let bits = bytes[0] << 16 | bytes[1] << 8 | bytes[2];
            for at in 0..=group.len() {
                encoded.push(char::from(LETTERS[(bits >> (18 - 6 * at) & 63) as usize]));
            }
        }
        encoded
    }

    fn identity(attest: &str, iat: u64, tn: &str) -> String {
        let header = r#"{"alg":"ES256","ppt":"shaken","typ":"passport","x5u":"https://x/"}"#;
        let payload = format!(
            r#"{{"attest":"{attest}","dest":{{"tn":["49301234"]}},"iat":{iat},"orig":{{"tn":"{tn}"}},"origid":"1"}}"#
        );
        let parts = [header, &payload, "signature"].map(encode);
        format!("{};info=<https://x/>;alg=ES256;ppt=shaken", parts.join("."))
    }

    fn verdict(identities: &[String]) -> Verdict {
        let host = Host::new().setting("minimum", "B").at(2026, 11, 25, 12, 0);
        let mut request =
            Request::invite("sip:+49301234@example.com").from_uri("sip:+12155551212@example.com");
        for identity in identities {
            request = request.header("Identity", identity);
        }
        host.request(request).decide(decide).verdict
    }

    const NOON: u64 = 1_795_608_000;

    #[test]
    fn the_attestation_decides() {
        let of = |attest| verdict(&[identity(attest, NOON - 5, "12155551212")]);
        assert_eq!([of("A"), of("B")], [pass(), pass()]);
        assert_eq!(of("C"), reject(403, "Attestation too low"));
        assert_eq!(of("D"), reject(438, "Invalid Identity Header"));
    }

    #[test]
    fn wrong_identities_are_refused() {
        let invalid = reject(438, "Invalid Identity Header");
        assert_eq!(verdict(&[]), reject(428, "Use Identity Header"));
        assert_eq!(verdict(&["nonsense".into()]), invalid);
        assert_eq!(verdict(&["a.b.!;x".into()]), invalid);
        let other = identity("A", NOON, "12155550000");
        assert_eq!(verdict(&[other]), invalid);
        let old = identity("A", NOON - 61, "12155551212");
        assert_eq!(verdict(&[old]), reject(403, "Stale Date"));
    }

    #[test]
    fn identity_can_be_optional() {
        let host = Host::new()
            .setting("minimum", "A")
            .setting("required", false);
        let request = Request::invite("sip:bob@example.com");
        assert_eq!(host.request(request).decide(decide).verdict, pass());
    }

    #[test]
    fn settings_are_validated() {
        let host = Host::new().setting("minimum", "A");
        assert_eq!(host.validate(check), Ok(()));
        assert!(Host::new().setting("minimum", "D").validate(check).is_err());
    }
}
