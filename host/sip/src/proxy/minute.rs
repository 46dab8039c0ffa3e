//! The time of seals.

/// A time, in minutes since 1970 (UTC). Seals are stamped with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Minute(pub(super) u32);

impl Minute {
    /// Minutes since then; 0 for a time in the future, because clocks of hosts differ.
    pub(super) fn age(self, now: Self) -> u32 {
        now.0.saturating_sub(self.0)
    }
}
