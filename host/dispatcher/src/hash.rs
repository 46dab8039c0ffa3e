//! Kamailio's hash for sticky choices: `ds_get_hash` of its module `dispatcher`, bit for bit.

use portcullis_sip::{Scheme, Uri};

/// The hash of one text, or of two that belong together (Kamailio: `ds_get_hash`, and `kamcmd dispatcher.hash`). Never 0.
///
/// Kamailio reads `char`s, which are signed on the processors that it is built for. A byte above 127 therefore borrows from the byte before it.
pub fn hash(one: &[u8], other: Option<&[u8]>) -> u32 {
    let sum = sum(one).wrapping_add(other.map_or(0, sum));
    let low = sum.wrapping_add(sum >> 11);
    let high = (sum >> 13).wrapping_add(sum >> 23);
    low.wrapping_add(high).max(1)
}

/// The hash of a URI: of its user, and of its host with the port unless that is the default one (Kamailio: `get_uri_hash_keys`). With
/// `is_user_only`, of the user alone (Kamailio: bit 0 of the parameter `flags`). `None` for a URI without a host, which Kamailio refuses.
///
/// A `tel` URI has the hash of its number, as in Kamailio.
pub fn hash_of_uri(uri: &[u8], is_user_only: bool) -> Option<u32> {
    if let Some(number) = telephone(uri) {
        return Some(hash(number, None).max(1));
    }
    let parsed = Uri::parse(uri).ok()?;
    let user = parsed.user.unwrap_or_default();
    if is_user_only {
        return Some(hash(user, None));
    }
    let mut place = uri.get(parsed.host_range.clone())?;
    if parsed.port == Some(default_port(parsed.scheme)) {
        let colon = place.iter().rposition(|&byte| byte == b':')?;
        place = &place[..colon];
    }
    Some(hash(user, Some(place)))
}

/// The port that Kamailio leaves out.
fn default_port(scheme: Scheme) -> u16 {
    scheme.default_port()
}

/// The number of a `tel` URI, without parameters (RFC 3966).
fn telephone(uri: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = uri.split_at_checked(4)?;
    if !scheme.eq_ignore_ascii_case(b"tel:") {
        return None;
    }
    rest.split(|&byte| byte == b';').next()
}

/// The words of a text, each mixed with itself and added up. The rest of the last word counts as a word of its own, also if it is empty.
fn sum(text: &[u8]) -> u32 {
    let mixed = |word: u32| word ^ (word >> 3);
    let (words, rest) = text.as_chunks::<4>();
    let whole = words.iter().map(|word| {
        let shifted = [24, 16, 8, 0];
        let parts = word.iter().zip(shifted);
        parts.fold(0_u32, |sum, (&byte, shift)| {
            sum.wrapping_add(signed(byte) << shift)
        })
    });
    let whole = whole.fold(0_u32, |sum, word| sum.wrapping_add(mixed(word)));
    let rest = rest
        .iter()
        .fold(0_u32, |word, &byte| (word << 8).wrapping_add(signed(byte)));
    whole.wrapping_add(mixed(rest))
}

/// A byte as a signed `char`, extended to a word.
fn signed(byte: u8) -> u32 {
    i32::from(byte.cast_signed()).cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kamailio prints its hash as a signed number.
    #[test]
    fn hashes_are_those_of_kamailio_5_6_3() {
        // `kamcmd dispatcher.hash 4 …`
        for (one, other, expected) in [
            ("abc", None, 7_167_810),
            ("y", None, 118),
            ("alice", Some("192.0.2.1"), -626_125_482),
        ] {
            let found = hash(one.as_bytes(), other.map(str::as_bytes)).cast_signed();
            assert_eq!(found, expected, "{one} {other:?}");
        }
    }

    #[test]
    fn nothing_has_the_hash_of_one() {
        assert_eq!(hash(b"", None), 1);
        assert_eq!(hash(b"", Some(b"")), 1);
    }

    #[test]
    fn the_default_port_makes_no_difference() {
        for (uri, same) in [
            ("sip:u@h:5060", "sip:u@h"),
            ("sips:u@h:5061", "sip:u@h"),
            ("sip:u@h;x=1", "sip:u@h"),
            ("sip:u:pw@h", "sip:u@h"),
            ("sip:u@[::1]:5060", "sip:u@[::1]"),
        ] {
            let both = [uri, same].map(|uri| hash_of_uri(uri.as_bytes(), false));
            assert_eq!(both[0], both[1], "{uri}");
        }
        assert_ne!(
            hash_of_uri(b"sip:u@h:5061", false),
            hash_of_uri(b"sip:u@h", false)
        );
        assert_eq!(
            hash_of_uri(b"sip:u@h:5061", true),
            hash_of_uri(b"sip:u@other", true)
        );
        assert_eq!(hash_of_uri(b"tel:+49;x=1", false), Some(hash(b"+49", None)));
        assert_eq!(hash_of_uri(b"nonsense", false), None);
    }
}
