//! Shares of dialogs, for canary trials.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};

use siphasher::sip::SipHasher13;

/// A share in hundredths of a percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u16);

/// The secret key that maps Call-IDs to shares. Callers choose Call-IDs; without the key they cannot choose whether a dialog is in a share.
#[derive(Clone, Copy)]
pub struct ShareKey(SipHasher13);

impl Share {
    /// All dialogs.
    pub const ALL: Self = Self(10_000);

    /// A share of this many hundredths of a percent; `None` above 10,000.
    pub const fn of_hundredths(hundredths: u16) -> Option<Self> {
        if hundredths > Self::ALL.0 {
            return None;
        }
        Some(Self(hundredths))
    }

    /// Parses a share such as `5%` or `0.25%`.
    pub fn parse(text: &str) -> Option<Self> {
        let number = text.trim().strip_suffix('%')?.trim_end();
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let is_number =
            |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number(whole) || !is_number(fraction) || fraction.len() > 2 {
            return None;
        }
        let whole: u16 = whole.parse().ok().filter(|whole| *whole <= 100)?;
        let fraction: u16 = format!("{fraction:0<2}").parse().ok()?;
        Self::of_hundredths(whole * 100 + fraction)
    }

    /// Hundredths of a percent.
    pub fn hundredths(self) -> u16 {
        self.0
    }

    /// Whether the dialog of this Call-ID is in the share. The result depends only on Call-ID and key, so that all requests of a dialog are
    /// decided by one generation. A dialog in a share is also in every larger share.
    pub fn holds(self, call_id: &[u8], key: &ShareKey) -> bool {
        let mut hasher = key.0;
        hasher.write(call_id);
        hasher.finish() % u64::from(Self::ALL.0) < u64::from(self.0)
    }
}

impl ShareKey {
    /// Derives a key from a secret. The key does not reveal the secret.
    pub fn new(secret: &[u8; 16]) -> Self {
        let root = SipHasher13::new_with_key(secret);
        let half = |purpose: &[u8]| {
            let mut hasher = root;
            hasher.write(purpose);
            hasher.finish()
        };
        let (one, other) = (half(b"share of dialogs, 0"), half(b"share of dialogs, 1"));
        Self(SipHasher13::new_with_keys(one, other))
    }

    /// A number for a text, the `nth`-th for the same text. Evenly distributed, and not predictable without the key.
    pub fn number(&self, text: &[u8], nth: u8) -> u64 {
        let mut hasher = self.0;
        hasher.write(b"number");
        hasher.write_u8(nth);
        hasher.write(text);
        hasher.finish()
    }

    /// A random key.
    pub fn random() -> Self {
        let random = RandomState::new();
        Self(SipHasher13::new_with_keys(
            random.hash_one(0),
            random.hash_one(1),
        ))
    }
}

impl fmt::Debug for ShareKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ShareKey(secret)")
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0 / 100, self.0 % 100) {
            (whole, 0) => write!(f, "{whole}%"),
            (whole, fraction) => write!(f, "{whole}.{fraction:02}%"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_parsed_and_displayed() {
        for (text, hundredths) in [
            ("5%", 500),
            ("0.25%", 25),
            ("100%", 10_000),
            ("12.50%", 1250),
        ] {
            let share = Share::parse(text).unwrap();
            assert_eq!(share.hundredths(), hundredths);
            assert_eq!(share.to_string(), text);
        }
        assert_eq!(Share::parse("0.5 %").unwrap().hundredths(), 50);
        for bad in [
            "5",
            "101%",
            "100.01%",
            "-1%",
            "%",
            ".5%",
            "1.234%",
            "x%",
            "99999999999%",
        ] {
            assert_eq!(Share::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_share_has_its_part_of_the_dialogs_and_always_the_same() {
        let tenth = Share::parse("10%").unwrap();
        let fifth = Share::parse("20%").unwrap();
        let ids = || (0..10_000).map(|n| format!("{n}@host").into_bytes());
        let key = &ShareKey::new(b"0123456789abcdef");

        let held: Vec<_> = ids().filter(|id| tenth.holds(id, key)).collect();

        assert!((900..1100).contains(&held.len()), "{}", held.len());
        assert!(ids().all(|id| fifth.holds(&id, key) || !tenth.holds(&id, key)));
        assert!(ids().all(|id| Share::ALL.holds(&id, key)));
        assert!(!ids().any(|id| Share::parse("0%").unwrap().holds(&id, key)));
        // Shares under other keys are independent.
        for other in [ShareKey::new(b"0123456789abcdeg"), ShareKey::random()] {
            let both = held.iter().filter(|id| tenth.holds(id, &other)).count();
            assert!(both < held.len() / 4, "{both} of {}", held.len());
        }
    }
}
