//! The lineup of a slot: the generations that are in use, and how.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use siphasher::sip::SipHasher13;

use crate::digest::Digest;
use crate::policy::Policy;

use super::stats::Stats;

/// A policy attached to a slot.
pub struct Generation {
    /// The policy.
    pub policy: Policy,
    /// The number within the slot, from 1.
    pub number: u64,
    /// When the policy was loaded.
    pub loaded_at: SystemTime,
    /// Statistics of its calls.
    pub stats: Stats,
    /// Set when the breaker trips: the host does not return to this generation by itself.
    pub(super) condemned: AtomicBool,
}

/// The generations of a slot that are in use. Immutable; a change replaces it as a whole.
#[derive(Clone)]
pub struct Lineup {
    /// The active generation.
    pub active: Arc<Generation>,
    /// Whether verdicts are carried out.
    pub mode: Mode,
    /// The generation under trial.
    pub candidate: Option<Candidate>,
    /// The generation that was active before, if it is retained. The host returns to it when the breaker trips.
    pub fallback: Option<Arc<Generation>>,
}

/// Whether the verdicts of a policy are carried out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Verdicts are carried out.
    #[default]
    Enforce,
    /// Verdicts are logged and counted; requests are handled as if there were no policy.
    Monitor,
}

/// A generation under trial on live requests.
#[derive(Clone)]
pub struct Candidate {
    /// The generation.
    pub generation: Arc<Generation>,
    /// The kind of trial.
    pub trial: Trial,
}

/// The kinds of trials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trial {
    /// The candidate evaluates the same requests after the active generation, off the path of the message. Its verdicts are only compared.
    Shadow,
    /// The candidate decides on this share of the dialogs.
    Canary(Share),
}

/// A share in hundredths of a percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u16);

/// The secret key that maps Call-IDs to shares. Callers choose Call-IDs; without the key they cannot choose whether a dialog is in a share.
#[derive(Clone, Copy)]
pub struct ShareKey(SipHasher13);

impl Lineup {
    /// The generation that decides on the requests of a dialog.
    pub fn decides(&self, call_id: &[u8], key: &ShareKey) -> &Arc<Generation> {
        match &self.candidate {
            Some(Candidate {
                generation,
                trial: Trial::Canary(share),
            }) if share.holds(call_id, key) => generation,
            _ => &self.active,
        }
    }

    /// The candidate of a shadow trial.
    pub fn shadow(&self) -> Option<&Arc<Generation>> {
        match &self.candidate {
            Some(Candidate {
                generation,
                trial: Trial::Shadow,
            }) => Some(generation),
            _ => None,
        }
    }

    /// All policies of the lineup.
    pub fn policies(&self) -> impl Iterator<Item = &Policy> {
        let candidate = self.candidate.iter().map(|one| &one.generation);
        let all = candidate.chain([&self.active]).chain(&self.fallback);
        all.map(|generation| &generation.policy)
    }

    /// Whether the generation of this number is active or the candidate.
    pub fn has(&self, number: u64) -> bool {
        let candidate = self.candidate.as_ref();
        self.active.number == number
            || candidate.is_some_and(|candidate| candidate.generation.number == number)
    }
}

impl Share {
    /// All dialogs.
    pub const ALL: Self = Self(10_000);

    /// A share of this many hundredths of a percent; `None` above 10,000.
    pub fn of_hundredths(hundredths: u16) -> Option<Self> {
        (hundredths <= Self::ALL.0).then_some(Self(hundredths))
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

impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.0 / 100, self.0 % 100) {
            (whole, 0) => write!(f, "{whole}%"),
            (whole, fraction) => write!(f, "{whole}.{fraction:02}%"),
        }
    }
}

impl Mode {
    /// The name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Monitor => "monitor",
        }
    }
}

impl Generation {
    /// Whether the breaker has taken the generation out of service.
    pub fn is_condemned(&self) -> bool {
        self.condemned.load(Ordering::Relaxed)
    }

    pub(super) fn serves(&self, name: &str, digest: Digest, reuse: bool) -> bool {
        self.policy.digest() == digest && self.policy.name() == name && self.policy.reuse == reuse
    }
}

impl std::fmt::Debug for Generation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Generation")
            .field("number", &self.number)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
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
