//! The decisions of one seat, which a trace shows instead of messages.

use std::hash::Hasher;

use portcullis_policy::Share;
use siphasher::sip::SipHasher13;

use super::decided_kind::DecidedKind;
use super::entry::Asked;

/// The decisions that a trace shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decisions {
    /// The seat whose policy decides.
    pub seat: String,
    /// How it decides; `None` for any way.
    pub verdict: Option<DecidedKind>,
    /// The share of dialogs; `None` for all.
    pub share: Option<Share>,
    /// Whether a tenant follows, and not the operator. The two have separate limits.
    pub is_tenants: bool,
}

impl Decisions {
    /// Whether these decisions include those of one of these calls.
    pub(super) fn concern(&self, asked: &[Asked]) -> bool {
        asked.iter().any(|asked| self.include(asked))
    }

    /// Whether these decisions include that of this call.
    pub(super) fn include(&self, asked: &Asked) -> bool {
        let is_kind = |kind| kind == asked.kind;
        self.seat == asked.seat && self.verdict.is_none_or(is_kind)
    }

    /// Whether the dialog of this Call-ID is in the share.
    pub(super) fn holds(&self, call_id: &[u8]) -> bool {
        let Some(share) = self.share else {
            return true;
        };
        let mut hasher = SipHasher13::new();
        hasher.write(call_id);
        let all = u64::from(Share::ALL.hundredths());
        hasher.finish() % all < u64::from(share.hundredths())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decisions(verdict: Option<DecidedKind>, share: Option<&str>) -> Decisions {
        Decisions {
            seat: "acme".to_owned(),
            verdict,
            share: share.map(|share| Share::parse(share).unwrap()),
            is_tenants: true,
        }
    }

    fn asked(seat: &str, kind: DecidedKind) -> Asked {
        Asked {
            seat: seat.to_owned(),
            policy: "one.wasm".to_owned(),
            generation: 1,
            verdict: String::new(),
            kind,
            microseconds: 1,
        }
    }

    #[test]
    fn decisions_are_those_of_their_seat_and_verdict() {
        let all = decisions(None, None);
        let failed = decisions(Some(DecidedKind::Failed), None);
        let (own, other) = (
            asked("acme", DecidedKind::Relay),
            asked("acme2", DecidedKind::Failed),
        );
        assert!(all.include(&own) && !all.include(&other));
        assert!(!failed.include(&own) && failed.include(&asked("acme", DecidedKind::Failed)));
        assert!(all.concern(&[other.clone(), own]) && !all.concern(&[other]));
        assert!(!all.concern(&[]));
    }

    #[test]
    fn a_share_of_the_dialogs_is_shown() {
        let shown = |share| {
            let decisions = decisions(None, share);
            (0..10_000)
                .filter(|n: &u32| decisions.holds(n.to_string().as_bytes()))
                .count()
        };
        assert_eq!((shown(None), shown(Some("100%"))), (10_000, 10_000));
        assert_eq!(shown(Some("0%")), 0);
        let tenth = shown(Some("10%"));
        assert!((800..1_200).contains(&tenth), "{tenth}");
    }
}
