//! The signature of a request: HMAC-SHA256 over the time and the body, so that a receiver can verify the sender and the time.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Returns `sha256=` and the hexadecimal digits for `TIME.BODY`. The time is in seconds since the Unix epoch.
pub(crate) fn of(secret: &str, time: u64, body: &[u8]) -> String {
    // A key of any length is valid.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else {
        return String::from("sha256=");
    };
    mac.update(time.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_that_of_other_programs() {
        // printf '1700000000.{"a":1}\n' | openssl dgst -sha256 -hmac secret
        assert_eq!(
            of("secret", 1_700_000_000, b"{\"a\":1}\n"),
            "sha256=e2c33919390901334d6c0383710d62cf97b5e002a58fbc7de77185a8f50a22e1"
        );
    }
}
